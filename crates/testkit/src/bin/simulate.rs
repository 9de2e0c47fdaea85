//! Runs simulated clusters for a range of seeds: `simulate FIRST COUNT [--worker simulated|core|mixed]`.
//! Prints each violation with its seed; the exit code is 1 if there was one.

use std::process::ExitCode;
use std::time::Instant;

use oxidask_testkit::sim::{Scenario, Sim, WorkerKind};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (first, count, kind) = match args[..] {
        [first, count] => (first, count, "simulated"),
        [first, count, "--worker", kind] => (first, count, kind),
        _ => ("", "", ""),
    };
    let (Ok(first), Ok(count), Some(kind)) = (
        first.parse::<u64>(),
        count.parse::<u64>(),
        WorkerKind::parse(kind),
    ) else {
        eprintln!("usage: simulate FIRST_SEED COUNT [--worker simulated|core|mixed]");
        return ExitCode::from(2);
    };
    let begin = Instant::now();
    let (mut failed, mut events) = (0, 0);
    for seed in first..first.saturating_add(count) {
        let begin = Instant::now();
        match Sim::new(Scenario::mixed(seed).with_workers(kind)).run() {
            Ok(report) => events += report.events,
            Err(violation) => {
                failed += 1;
                eprintln!("{violation}");
            }
        }
        if begin.elapsed().as_secs() > 5 {
            eprintln!("seed {seed} took {:?}", begin.elapsed());
        }
    }
    println!(
        "{} passed, {failed} failed ({events} events in {:.1} s)",
        count - failed,
        begin.elapsed().as_secs_f64()
    );
    if failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
