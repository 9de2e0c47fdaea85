//! `oxidask`: scheduler and worker in one file. `oxidask scheduler …` and `oxidask worker …`, or under the
//! names `dask-scheduler` and `dask-worker` by a link.

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: oxidask COMMAND [OPTIONS]...

Commands:
  scheduler  Launch a Dask scheduler.
  worker     Launch a Dask worker attached to an existing scheduler.

'oxidask COMMAND --help' lists the options.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let called = words.first().map_or("", String::as_str);
    let called = Path::new(called).file_name().and_then(|name| name.to_str());
    match called {
        Some("dask-scheduler") => return oxidask_scheduler::startup::main(&words),
        Some("dask-worker") => return oxidask_worker::main(&words),
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
