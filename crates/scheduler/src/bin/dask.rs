//! `dask`; see `launcher`.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    oxidask_scheduler::launcher::main(&words)
}
