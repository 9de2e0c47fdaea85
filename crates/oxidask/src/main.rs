//! `oxidask`: scheduler and worker in one file. `oxidask scheduler …` and `oxidask worker …`, or under the
//! names `dask-scheduler`, `dask-worker` and `dask` by a link.

use std::ffi::OsString;
use std::process::ExitCode;

use oxidask_scheduler::{launcher, memory};

const USAGE: &str = "\
Usage: oxidask COMMAND [OPTIONS]...

Commands:
  scheduler  Launch a Dask scheduler.
  worker     Launch a Dask worker attached to an existing scheduler.

'oxidask COMMAND --help' lists the options.";

fn main() -> ExitCode {
    memory::given_back_by(oxidask_allocator::give_back);
    let given: Vec<OsString> = std::env::args_os().collect();
    let words: Vec<String> = given
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match launcher::called(&given) {
        Some("dask-scheduler" | "dask scheduler") => {
            return oxidask_scheduler::startup::main(&words);
        }
        Some("dask-worker" | "dask worker") => return oxidask_worker::main(&words),
        Some("dask") => return launcher::main(&given[1..]),
        _ => {}
    }
    let mut rest = words.into_iter().skip(1);
    let command = rest.next().unwrap_or_default();
    let words = |name: &str| {
        std::iter::once(name.to_owned())
            .chain(rest)
            .collect::<Vec<_>>()
    };
    match command.as_str() {
        "scheduler" => oxidask_scheduler::startup::main(&words("oxidask scheduler")),
        "worker" => oxidask_worker::main(&words("oxidask worker")),
        "--version" => {
            println!("oxidask, version {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        "--help" | "-h" => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        "" => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
        other => {
            eprintln!("{USAGE}\n\nError: No such command '{other}'.");
            ExitCode::from(2)
        }
    }
}
