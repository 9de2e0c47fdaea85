//! `dask-worker`: reads the command line, finds the interpreter and the extension module, and becomes the
//! Python process that the worker lives in.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use oxidask_cli::{Outcome, UsageError, WorkerArgs, parse_worker};

/// Loads the module, whose path is the first word, and gives it the others.
const BOOT: &str = include_str!("boot.py");
/// File name of the module as cargo builds it.
const MODULE: &str = "liboxidask_worker_module.so";

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("there is no {0}; give the path of the worker's extension module with --module")]
    NoModule(String),
    #[error(
        "there is neither python3 nor python on PATH; give the interpreter that has dask with --python"
    )]
    NoPython,
    #[error("{python} can not be started: {source}")]
    Start {
        python: String,
        source: std::io::Error,
    },
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match parse_worker(&words) {
        Ok(Outcome::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Run(parsed)) => {
            eprintln!("Error: {}", launch(&parsed.args, &words));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(u8::try_from(UsageError::EXIT_CODE).unwrap_or(2))
        }
    }
}

/// Becomes the worker; returns only if that fails.
fn launch(args: &WorkerArgs, words: &[String]) -> LaunchError {
    let found = module(args).and_then(|module| Ok((module, python(args)?)));
    let (module, python) = match found {
        Ok(found) => found,
        Err(error) => return error,
    };
    let source = Command::new(&python)
        .args(["-c", BOOT])
        .arg(module)
        .args(words)
        .exec();
    LaunchError::Start {
        python: python.display().to_string(),
        source,
    }
}

/// The module of `--module`, or that beside this program.
fn module(args: &WorkerArgs) -> Result<PathBuf, LaunchError> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name(MODULE));
    let path = args.module.clone().or_else(beside).unwrap_or_default();
    match path.canonicalize() {
        Ok(path) if path.is_file() => Ok(path),
        _ => Err(LaunchError::NoModule(path.display().to_string())),
    }
}

/// The interpreter of `--python`, or the first one on PATH.
fn python(args: &WorkerArgs) -> Result<PathBuf, LaunchError> {
    if let Some(python) = &args.python {
        return Ok(python.clone());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    on_path(&path).ok_or(LaunchError::NoPython)
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
        let folder = std::env::temp_dir().join(format!("oxidask-worker-{}", std::process::id()));
        let (first, second) = (folder.join("first"), folder.join("second"));
        for folder in [&first, &second] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        // Not a program.
        std::fs::write(first.join("python3"), "").expect("a file");
        std::os::unix::fs::symlink("/bin/sh", second.join("python3")).expect("a link");
        let path = std::env::join_paths([&first, &second]).expect("a path");
        assert_eq!(on_path(&path), Some(second.join("python3")));
        assert_eq!(on_path(&OsString::from("")), None);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
