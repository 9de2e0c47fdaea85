//! Runs simulated clusters for a range of seeds: `simulate FIRST COUNT`. Prints each violation with
//! its seed; the exit code is 1 if there was one.

use std::process::ExitCode;
use std::time::Instant;

use oxidask_testkit::sim::{Scenario, Sim};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let (Some(Ok(first)), Some(Ok(count))) = (args.next(), args.next()) else {
        eprintln!("usage: simulate FIRST_SEED COUNT");
        return ExitCode::from(2);
    };
    let begin = Instant::now();
    let (mut failed, mut events) = (0, 0);
    for seed in first..first.saturating_add(count) {
        let begin = Instant::now();
        match Sim::new(Scenario::mixed(seed)).run() {
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
