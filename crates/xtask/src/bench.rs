//! `cargo xtask bench`: our scheduler next to the stock one, in the same run on the same machine.
//!
//! Wall time on a shared machine says little, so the first figures are processor times of processes (user and
//! system, with their children). Runs alternate between the two, and ratios are taken within a pair.

mod idle;
mod load;
mod report;
mod soak;
mod tasks;
mod transfer;
mod turns;
mod usecases;

use anyhow::{Result, bail};
use clap::Parser;

use crate::process::Interrupt;

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Without a suite: all, one after the other; soak alone takes half an hour. Tables go to the terminal, JSON and \
                  HTML with plots to target/bench.\n\nThe peer is stock. With `tasks --peer frisky` a rival takes its turns as \
                  well; the other suites have stock alone, and no such option."
)]
pub(crate) struct Options {
    #[command(subcommand)]
    suite: Option<Suite>,
    /// Without a suite: zero, graphs, latency, tasks and idle, little of each, done within three minutes
    #[arg(long)]
    quick: bool,
    /// Without a suite: the peer of `tasks`
    #[arg(long, value_enum, default_value = "stock")]
    peer: tasks::Peer,
}

/// What is measured.
#[derive(clap::Subcommand)]
enum Suite {
    /// Trivial tasks of some shapes on two workers of one thread: processor time, wall time, memory per task, latency, ping
    Tasks(tasks::Options),
    /// Arrays from worker to worker and to the client, stock and native workers: throughput, CPU per byte
    Transfer(transfer::Options),
    /// Tasks on simulated workers that finish at once: scheduler CPU per task, tasks per second, ping
    Zero(load::LoadOptions),
    /// Intake of large graphs: time to the first task and to all registered, memory
    Graphs(load::LoadOptions),
    /// Submission to result of single tasks, idle and under load; reaction to the loss of a worker
    Latency(load::LoadOptions),
    /// Thousands of simulated workers that connect at once, rest, and work
    Storm(load::LoadOptions),
    /// Clients and workers that come and go for half an hour: what our scheduler is left with
    Soak(soak::Options),
    /// Start-up and memory of an idle scheduler
    Idle(idle::Options),
    /// Graphs of real collections on two workers: makespan, processor time, bytes moved, ping
    Usecases(usecases::Options),
}

/// Suites with their options, as they would be typed.
type Plan = &'static [&'static [&'static str]];

/// Everything; what takes longest comes last.
const ALL: Plan = &[
    &["idle"],
    &["zero"],
    &["latency"],
    &["tasks"],
    &["transfer"],
    &["usecases"],
    &["graphs"],
    &["storm"],
    &["soak"],
];
/// A look at whether it works, within three minutes once everything is built.
const QUICK: Plan = &[
    &["idle", "--pairs", "1"],
    &[
        "zero",
        "--quick",
        "--release",
        "2026.8.0",
        "--points",
        "100",
    ],
    &["graphs", "--quick", "--release", "2026.8.0"],
    &["latency", "--quick", "--release", "2026.8.0"],
    &["tasks", "--quick", "--clusters", "stock,both"],
];

/// One line of a plan.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(subcommand)]
    suite: Suite,
}

/// Runs the chosen measurement, or one after the other.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.suite {
        Some(suite) => suite.run(),
        None => run_plan(if options.quick { QUICK } else { ALL }, options.peer),
    }
}

/// Runs all of a plan, also when one of it fails.
fn run_plan(plan: Plan, peer: tasks::Peer) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let mut failed = Vec::new();
    for (number, words) in plan.iter().enumerate() {
        println!("\n== {} of {}: {}", number + 1, plan.len(), words.join(" "));
        let mut suite = Line::try_parse_from(*words)?.suite;
        if let Suite::Tasks(options) = &mut suite {
            options.peer = peer;
        }
        if let Err(error) = suite.run() {
            interrupt.check()?;
            eprintln!("error: {error:#}");
            failed.push(words[0]);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

impl Suite {
    fn run(&self) -> Result<()> {
        match self {
            Self::Tasks(options) => tasks::run(options),
            Self::Transfer(options) => transfer::run(options),
            Self::Zero(options) => load::run(load::Suite::Zero, options),
            Self::Graphs(options) => load::run(load::Suite::Graphs, options),
            Self::Latency(options) => load::run(load::Suite::Latency, options),
            Self::Storm(options) => load::run(load::Suite::Storm, options),
            Self::Soak(options) => soak::run(options),
            Self::Idle(options) => idle::run(options),
            Self::Usecases(options) => usecases::run(options),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.as_slice() {
        [] => f64::NAN,
        sorted if sorted.len() % 2 == 1 => sorted[middle],
        sorted => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{ALL, Line, QUICK, median};

    #[test]
    fn median_of_odd_and_even_counts() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn every_line_of_a_plan_is_a_command() {
        for words in ALL.iter().chain(QUICK) {
            let line = Line::try_parse_from(*words);
            assert!(line.is_ok(), "{words:?}: {:?}", line.err());
        }
    }

    #[test]
    fn all_suites_are_in_the_plan_of_everything() {
        use clap::CommandFactory;
        let mut suites: Vec<_> = Line::command()
            .get_subcommands()
            .map(|suite| suite.get_name().to_owned())
            .collect();
        let mut planned: Vec<_> = ALL.iter().map(|words| words[0].to_owned()).collect();
        suites.sort();
        planned.sort();
        assert_eq!(suites, planned);
    }
}
