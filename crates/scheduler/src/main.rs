//! `dask-scheduler`, and `dask` where that is a link to it: the smallest image has one file.

use std::ffi::OsString;
use std::process::ExitCode;

use oxidask_scheduler::{launcher, memory, startup};

fn main() -> ExitCode {
    memory::given_back_by(oxidask_allocator::give_back);
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
