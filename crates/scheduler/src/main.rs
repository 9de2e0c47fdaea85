//! `dask-scheduler`, and `dask` where that is a link to it: the smallest image has one file.

use std::ffi::OsString;
use std::process::ExitCode;

use oxidask_scheduler::{launcher, memory, startup};

/// Half of what a task costs is small pieces of memory that come on one thread and go on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// SAFETY: mimalloc's own declaration; any thread may call it at any time.
unsafe extern "C" {
    /// Gives what is free back to the system.
    safe fn mi_collect(force: bool);
}

fn main() -> ExitCode {
    memory::given_back_by(|| mi_collect(true));
    let words: Vec<OsString> = std::env::args_os().collect();
    if launcher::called(&words) == Some("dask") {
        return launcher::main(&words[1..]);
    }
    let words: Vec<String> = words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    startup::main(&words)
}
