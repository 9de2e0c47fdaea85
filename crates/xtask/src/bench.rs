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

use anyhow::Result;

/// What `cargo xtask bench` measures.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Trivial tasks by Client.map on two workers of one thread: processor time, wall time, memory per task, latency
    Tasks(tasks::Options),
    /// Arrays from worker to worker and to the client, stock and native workers: throughput, CPU per byte
    Transfer(transfer::Options),
    /// Tasks on simulated workers that finish at once: scheduler CPU per task, tasks per second, ping
    Zero(load::LoadOptions),
    /// Intake of large graphs: time to the first task and to all registered, memory
    Graphs(load::LoadOptions),
    /// Submission to result of single tasks, idle and under load
    Latency(load::LoadOptions),
    /// Thousands of simulated workers that connect at once, rest, and work
    Storm(load::LoadOptions),
    /// Clients and workers that come and go for half an hour: what our scheduler is left with
    Soak(soak::Options),
    /// Start-up and memory of an idle scheduler
    Idle(idle::Options),
    /// Graphs of real collections on two workers: makespan, processor time, bytes moved
    Usecases(usecases::Options),
}

/// Runs the chosen measurement.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Tasks(options) => tasks::run(options),
        Bench::Transfer(options) => transfer::run(options),
        Bench::Zero(options) => load::run(load::Suite::Zero, options),
        Bench::Graphs(options) => load::run(load::Suite::Graphs, options),
        Bench::Latency(options) => load::run(load::Suite::Latency, options),
        Bench::Storm(options) => load::run(load::Suite::Storm, options),
        Bench::Soak(options) => soak::run(options),
        Bench::Idle(options) => idle::run(options),
        Bench::Usecases(options) => usecases::run(options),
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
    use super::median;

    #[test]
    fn median_of_odd_and_even_counts() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
    }
}
