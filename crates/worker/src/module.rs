//! The extension module that workers are: inside this program, or a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MmapAdvise, madvise};

/// The module, or nothing in a program that was built without it; see `build.rs`.
static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/module.so"));
/// File name of the module as cargo builds it.
const FILE_NAME: &str = "liboxidask_worker_module.so";

/// Why there is no module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    #[error("there is no {0}; give the path of the worker's extension module with --module")]
    Missing(String),
    #[error(
        "the worker's extension module can not be given to Python: {0}; give it as a file with --module"
    )]
    Memory(io::Error),
}

/// Where Python loads it from. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Module {
    File(PathBuf),
    /// A file in memory that child processes inherit.
    Memory(Arc<OwnedFd>),
}

impl Module {
    /// The given file, else the module inside this program, else the file beside it.
    pub(crate) fn find(given: Option<&Path>) -> Result<Self, ModuleError> {
        if given.is_none() && !EMBEDDED.is_empty() {
            let held = in_memory(EMBEDDED).map_err(ModuleError::Memory)?;
            let_go(EMBEDDED);
            return Ok(Self::Memory(Arc::new(held)));
        }
        let beside = || Some(std::env::current_exe().ok()?.with_file_name(FILE_NAME));
        let path = given.map(Path::to_owned).or_else(beside);
        let path = path.unwrap_or_default();
        match path.canonicalize() {
            Ok(path) if path.is_file() => Ok(Self::File(path)),
            _ => Err(ModuleError::Missing(path.display().to_string())),
        }
    }

    /// The path that a child process finds it under.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Memory(held) => format!("/proc/self/fd/{}", held.as_raw_fd()).into(),
        }
    }
}

/// A file without a name. Not closed by `exec`, which is the point of it.
fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let held = memfd_create(c"oxidask-worker-module", MFdFlags::empty())?;
    let mut file = File::from(held);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// Makes pages of this program's file that nothing reads again count no longer: more than half of a nanny's memory.
/// Where the system does not want to, they stay.
fn let_go(bytes: &'static [u8]) {
    // As large as any system has them: a part of a page would take along what lies behind the static.
    const PAGE: usize = 64 << 10;
    let skipped = bytes.as_ptr().align_offset(PAGE);
    let whole = bytes.len().saturating_sub(skipped) / PAGE * PAGE;
    let Some(pages) = bytes.get(skipped..skipped + whole) else {
        return;
    };
    let Some(start) = NonNull::new(pages.as_ptr().cast_mut().cast()) else {
        return;
    };
    // SAFETY: these pages hold nothing but an immutable static, so they are as the file has them, and whoever does read
    // them again gets them from there.
    let _ = unsafe { madvise(start, pages.len(), MmapAdvise::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_let_go_can_be_read_again() {
        // Has whole pages wherever it begins.
        static LARGE: [u8; 1 << 18] = [7; 1 << 18];
        let_go(&LARGE);
        let_go(&LARGE[1..100]);
        assert!(LARGE.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn children_can_read_what_is_in_memory() {
        let module = Module::Memory(Arc::new(in_memory(b"the module").expect("held")));
        let output = std::process::Command::new("cat")
            .arg(module.path())
            .output();
        assert_eq!(output.expect("run").stdout, b"the module");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Module::find(Some(Path::new("/nowhere.so"))).expect_err("none");
        assert!(error.to_string().contains("/nowhere.so"));
    }
}
