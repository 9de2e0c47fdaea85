//! `dask-worker`: reads the command line; without a nanny it becomes the Python process that the worker
//! lives in, otherwise it stays and looks after one such process per worker. No Python in this process.
//!
//! Reading order: [`launch`] (from the command line to running workers), [`nanny`] (one worker process and
//! what others may ask of its nanny), [`interpreter`] (which Python, and what it is started with).

mod addresses;
mod environment;
mod interpreter;
mod launch;
mod machine;
mod module;
mod nanny;
mod ports;
mod security;
mod settings;

use std::process::ExitCode;

use oxidask_cli::{Outcome, UsageError, parse_worker};

/// Runs `dask-worker` with these words, the program's name first.
#[must_use]
pub fn main(words: &[String]) -> ExitCode {
    match parse_worker(words) {
        Ok(Outcome::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Run(parsed)) => match launch::run(parsed, words) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("Error: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(u8::try_from(UsageError::EXIT_CODE).unwrap_or(2))
        }
    }
}
