//! The `dask` launcher: who serves which subcommand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with a copy of the launcher.
fn folder_with_launcher() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    fs::copy(env!("CARGO_BIN_EXE_dask"), folder.path().join("dask")).expect("copy");
    folder
}

/// A program that prints its name, as it was called, and its words.
fn program(folder: &Path, name: &str, says: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\necho {says} \"$@\"\n")).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    path
}

fn run(folder: &Path, path: &[&Path], words: &[&str]) -> Output {
    let path = std::env::join_paths(path).expect("path");
    Command::new(folder.join("dask"))
        .args(words)
        .env("PATH", path)
        .output()
        .expect("run")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn scheduler_is_the_program_beside_the_launcher() {
    let own = folder_with_launcher();
    let other = tempfile::tempdir().expect("folder");
    program(own.path(), "dask-scheduler", "native");
    program(other.path(), "dask", "python");
    let output = run(
        own.path(),
        &[other.path()],
        &["scheduler", "--port", "0", ""],
    );
    assert_eq!(said(&output), "native --port 0");
}

#[test]
fn worker_is_native_where_there_is_one_and_python_elsewhere() {
    let own = folder_with_launcher();
    let other = tempfile::tempdir().expect("folder");
    program(other.path(), "dask", "python");
    let path = [own.path(), other.path()];
    assert_eq!(
        said(&run(own.path(), &path, &["worker", "s:1"])),
        "python worker s:1"
    );
    program(own.path(), "dask-worker", "native");
    assert_eq!(
        said(&run(own.path(), &path, &["worker", "s:1"])),
        "native s:1"
    );
}

#[test]
fn everything_else_goes_to_the_next_dask_on_path() {
    let own = folder_with_launcher();
    let linked = tempfile::tempdir().expect("folder");
    std::os::unix::fs::symlink(own.path().join("dask"), linked.path().join("dask")).expect("link");
    let plain = tempfile::tempdir().expect("folder");
    fs::write(plain.path().join("dask"), "not a program").expect("write");
    let other = tempfile::tempdir().expect("folder");
    program(other.path(), "dask", "python");
    let path = [linked.path(), own.path(), plain.path(), other.path()];
    for words in [&["ssh", "--help"][..], &["--version"], &[]] {
        let expected = format!("python {}", words.join(" "));
        assert_eq!(said(&run(own.path(), &path, words)), expected.trim());
    }
}

#[test]
fn two_launchers_do_not_pass_a_command_around_for_ever() {
    let (one, two) = (folder_with_launcher(), folder_with_launcher());
    let output = run(one.path(), &[one.path(), two.path()], &["ssh"]);
    assert!(complaint(&output).contains("no other program 'dask'"));
}

#[test]
fn what_is_missing_is_named() {
    let own = folder_with_launcher();
    let output = run(own.path(), &[own.path()], &["ssh"]);
    assert!(complaint(&output).contains("'dask ssh'"));
    let output = run(own.path(), &[own.path()], &["scheduler"]);
    assert!(complaint(&output).contains("dask-scheduler does not lie beside"));
}
