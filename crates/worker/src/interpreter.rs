//! The interpreter that workers run in, and the extension module that they are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use oxidask_cli::WorkerArgs;
use oxidask_supervision::{PLAN_VARIABLE, Plan};
use oxidask_wire::Release;

use crate::module::{Module, ModuleError};

/// Loads the module, whose path is the first word, and gives it the others.
const BOOT: &str = include_str!("../python/boot.py");
/// Prints the release of `distributed` and the prefix of the environment.
const PROBE: &str = include_str!("../python/probe.py");
/// Why no worker can be started with this interpreter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InterpreterError {
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error(
        "there is neither python3 nor python on PATH; give the interpreter that has dask with --python"
    )]
    NoPython,
    #[error("{python} can not be started: {source}")]
    Start {
        python: String,
        source: std::io::Error,
    },
    #[error(
        "{python} has no usable package 'distributed'; install it there or give another interpreter with \
         --python ({reason})"
    )]
    NoDistributed { python: String, reason: String },
}

/// An interpreter and the module that is loaded into it.
#[derive(Clone, Debug)]
pub(crate) struct Interpreter {
    python: PathBuf,
    module: Module,
}

/// What the interpreter says of its environment.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Release of `distributed`.
    pub(crate) release: Release,
    /// `sys.prefix`, below which `etc/dask` may be.
    pub(crate) prefix: PathBuf,
}

impl Interpreter {
    /// The interpreter of `--python` or the first one on PATH, and the module.
    pub(crate) fn find(args: &WorkerArgs) -> Result<Self, InterpreterError> {
        let module = Module::find(args.module.as_deref())?;
        let python = match &args.python {
            Some(python) => python.clone(),
            None => on_path(&std::env::var_os("PATH").unwrap_or_default())
                .ok_or(InterpreterError::NoPython)?,
        };
        Ok(Self { python, module })
    }

    /// Asks the interpreter about its environment: some 50 ms.
    pub(crate) fn probe(&self) -> Result<Facts, InterpreterError> {
        let output = Command::new(&self.python)
            .args(["-c", PROBE])
            .output()
            .map_err(|source| self.start_error(source))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        let release = lines.next().and_then(Release::parse);
        match (release, lines.next()) {
            (Some(release), Some(prefix)) if output.status.success() => Ok(Facts {
                release,
                prefix: prefix.into(),
            }),
            _ => {
                let errors = String::from_utf8_lossy(&output.stderr);
                let last = errors.lines().last().unwrap_or("it says nothing");
                Err(InterpreterError::NoDistributed {
                    python: self.python.display().to_string(),
                    reason: last.to_owned(),
                })
            }
        }
    }

    /// The command of a worker process with the words of a command line, the program's name first.
    pub(crate) fn worker(&self, words: &[String], plan: &Plan) -> Command {
        let mut command = Command::new(&self.python);
        let plan = serde_json::to_string(plan).unwrap_or_default();
        command
            .args(["-c", BOOT])
            .arg(self.module.path())
            .args(words)
            .env(PLAN_VARIABLE, plan);
        command
    }

    /// The command of a process that runs this source.
    pub(crate) fn script(&self, source: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-c", source]);
        command
    }

    /// Why the interpreter did not start.
    pub(crate) fn start_error(&self, source: std::io::Error) -> InterpreterError {
        InterpreterError::Start {
            python: self.python.display().to_string(),
            source,
        }
    }
}

fn on_path(path: &OsString) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(path).collect();
    let in_folders = |name: &str| {
        let mut files = folders.iter().map(|folder| folder.join(name));
        files.find(|file: &PathBuf| is_program(file))
    };
    in_folders("python3").or_else(|| in_folders("python"))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_interpreter_on_the_path_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        for folder in [&first, &second] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        // Not a program.
        std::fs::write(first.join("python3"), "").expect("a file");
        std::os::unix::fs::symlink("/bin/sh", second.join("python3")).expect("a link");
        let path = std::env::join_paths([&first, &second]).expect("a path");
        assert_eq!(on_path(&path), Some(second.join("python3")));
        assert_eq!(on_path(&OsString::from("")), None);
    }
}
