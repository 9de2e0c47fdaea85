//! `dask`: runs the native programs for `dask scheduler` and `dask worker` and passes every other
//! subcommand to the next `dask` on PATH. A program of its own, or a link to one that has others in it.

use std::convert::Infallible;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Launchers that passed a command on, so that two of them on PATH do not pass it around for ever.
const VISITED: &str = "OXIDASK_DASK_LAUNCHERS";

/// Becomes the program that serves these words, which follow the name `dask`; returns with what went wrong.
#[must_use]
pub fn main(words: &[OsString]) -> ExitCode {
    let Err(problem) = launch(words);
    eprintln!("Error: {problem}");
    ExitCode::FAILURE
}

/// The name that a program was called by, without its folder: a link to it has another one than the file.
#[must_use]
pub fn called(words: &[OsString]) -> Option<&str> {
    Path::new(words.first()?).file_name()?.to_str()
}

/// Becomes another program; returns only with the reason why not.
fn launch(words: &[OsString]) -> Result<Infallible, String> {
    let own = env::current_exe()
        .map_err(|error| format!("cannot find out where this program lies: {error}"))?;
    let subcommand = words
        .first()
        .and_then(|word| word.to_str())
        .unwrap_or_default();
    let rest = words.get(1..).unwrap_or_default();
    let sibling = |name: &str| {
        own.parent()
            .map(|folder| folder.join(name))
            .filter(|path| is_program(path))
    };
    match subcommand {
        "scheduler" => match sibling("dask-scheduler") {
            Some(program) => become_program(&program, "dask scheduler", rest),
            None => Err(format!(
                "dask-scheduler does not lie beside {}; install both into the same folder",
                own.display()
            )),
        },
        "worker" => match sibling("dask-worker") {
            Some(program) => become_program(&program, "dask worker", rest),
            None => pass_on(&own, words),
        },
        _ => pass_on(&own, words),
    }
}

fn become_program(program: &Path, name: &str, words: &[OsString]) -> Result<Infallible, String> {
    let error = Command::new(program).arg0(name).args(words).exec();
    Err(format!("cannot run {}: {error}", program.display()))
}

/// Runs the next `dask` on PATH with the same words.
fn pass_on(own: &Path, words: &[OsString]) -> Result<Infallible, String> {
    let visited = env::var_os(VISITED).unwrap_or_default();
    let mut skipped: Vec<PathBuf> = env::split_paths(&visited).collect();
    skipped.push(own.to_owned());
    let search = env::var_os("PATH").unwrap_or_default();
    let Some(next) = next_program(&search, &skipped) else {
        let command = words
            .first()
            .map_or_else(String::new, |word| format!(" {}", word.display()));
        return Err(format!(
            "'dask{command}' is served by Dask for Python, and PATH has no other program 'dask'; \
             install it (python -m pip install 'dask[distributed]'), or use 'dask scheduler'"
        ));
    };
    let visited = env::join_paths(&skipped).unwrap_or_default();
    let error = Command::new(&next).env(VISITED, visited).args(words).exec();
    Err(format!("cannot run {}: {error}", next.display()))
}

fn next_program(search: &OsStr, skipped: &[PathBuf]) -> Option<PathBuf> {
    let real = |path: &Path| path.canonicalize().ok();
    let skipped: Vec<PathBuf> = skipped.iter().filter_map(|path| real(path)).collect();
    env::split_paths(search)
        .filter(|folder| !folder.as_os_str().is_empty())
        .map(|folder| folder.join("dask"))
        .find(|path| is_program(path) && real(path).is_some_and(|path| !skipped.contains(&path)))
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
