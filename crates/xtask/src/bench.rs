//! `cargo xtask bench`: our scheduler next to the stock one, in the same run on the same machine.
//!
//! Wall time on a shared machine says little, so the first figure is the processor time of the scheduler process (user
//! and system, with its children). Runs alternate between the two, and ratios are taken within a pair.

mod load;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::envs;
use crate::process::{Child, Interrupt};
use crate::releases::Release;
use crate::stock::{self, Kind, Plan};
use crate::workspace::{self, Profile};

/// What `cargo xtask bench` measures.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Trivial tasks by Client.map on two stock workers of one thread: processor time, wall time, memory per task
    Tasks(TasksOptions),
    /// Tasks on simulated workers that finish at once: scheduler CPU per task, tasks per second, ping
    Zero(load::LoadOptions),
    /// Intake of large graphs: time to the first task and to all registered, memory
    Graphs(load::LoadOptions),
    /// Submission to result of single tasks, idle and under load
    Latency(load::LoadOptions),
}

/// What `cargo xtask bench tasks` takes.
#[derive(clap::Args)]
pub(crate) struct TasksOptions {
    /// Release of client, workers and the stock scheduler
    #[arg(long, value_enum, default_value = "2026.8.0")]
    release: Release,
    /// Pairs of one stock and one native run
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Tasks of each run
    #[arg(long, default_value_t = 20_000)]
    tasks: u32,
    /// How the native scheduler is built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
}

/// The figures of a run, in the order they are printed. All of them are better when smaller.
const FIGURES: [(&str, &str); 3] = [
    ("scheduler_cpu_us_per_task", "scheduler CPU, µs per task"),
    ("wall_us_per_task", "wall, µs per task"),
    (
        "scheduler_bytes_per_task",
        "scheduler memory, bytes per task",
    ),
];

/// Runs the chosen measurement.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Tasks(options) => tasks(options),
        Bench::Zero(options) => load::run(load::Suite::Zero, options),
        Bench::Graphs(options) => load::run(load::Suite::Graphs, options),
        Bench::Latency(options) => load::run(load::Suite::Latency, options),
    }
}

fn tasks(options: &TasksOptions) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let binary = workspace::build_scheduler(options.profile)?;
    let python = envs::ensure(options.release.environment())?;
    let folder = workspace::target_dir().join("bench");
    let mut pairs = Vec::new();
    for pair in 0..options.pairs {
        // Whoever runs first in a pair changes, so that a drift of the machine does not favour one.
        let order = if pair % 2 == 0 {
            [Kind::Stock, Kind::Native]
        } else {
            [Kind::Native, Kind::Stock]
        };
        let mut results = serde_json::Map::new();
        for kind in order {
            let figures = one_run(kind, &binary, &python, &folder, options.tasks, &interrupt)
                .with_context(|| {
                    format!(
                        "pair {} of {}, {} scheduler",
                        pair + 1,
                        options.pairs,
                        kind.name()
                    )
                })?;
            println!("pair {} {:<6} {}", pair + 1, kind.name(), shown(&figures));
            results.insert(kind.name().to_owned(), figures);
        }
        pairs.push(Value::Object(results));
    }
    print_medians(&pairs, options);
    let record = json!({
        "bench": "tasks", "release": options.release.version(), "tasks": options.tasks, "workers": 2, "threads": 1,
        "load_average": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(), "pairs": pairs,
    });
    let out = folder.join(format!("tasks-{}.json", options.release.version()));
    fs::write(&out, serde_json::to_string_pretty(&record)?)?;
    println!("written: {}", out.display());
    Ok(())
}

fn one_run(
    kind: Kind,
    binary: &Path,
    python: &PathBuf,
    folder: &Path,
    tasks: u32,
    interrupt: &Interrupt,
) -> Result<Value> {
    let folder = folder.join(kind.name());
    let plan = Plan {
        kind,
        binary,
        python,
        port: stock::free_port()?,
        workers: 2,
        threads: 1,
        nanny: false,
        folder,
    };
    let mut cluster = plan.start(interrupt)?;
    let mut command = Command::new(python);
    command.arg(workspace::root().join("benches/tasks.py"));
    command.args([
        &cluster.address,
        &cluster.scheduler_id().to_string(),
        &tasks.to_string(),
    ]);
    let mut client = Child::spawn("benchmark client", command.stdout(Stdio::piped()))?;
    let stdout = client
        .take_stdout()
        .context("stdout was asked for as a pipe")?;
    let status = client.wait(interrupt)?;
    cluster.check_alive()?;
    if !status.success() {
        bail!(
            "the benchmark client ended with {status}; logs are in {}",
            plan.folder.display()
        );
    }
    let text = std::io::read_to_string(stdout)?;
    cluster.stop()?;
    serde_json::from_str(text.trim())
        .with_context(|| format!("the benchmark client printed no JSON: {text}"))
}

fn figure(run: &Value, name: &str) -> f64 {
    run.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

fn shown(run: &Value) -> String {
    let parts: Vec<_> = FIGURES
        .iter()
        .map(|(name, text)| format!("{text}: {:.1}", figure(run, name)))
        .collect();
    parts.join("   ")
}

fn print_medians(pairs: &[Value], options: &TasksOptions) {
    println!(
        "\n{} tasks, {} pairs, stock {} (medians)",
        options.tasks,
        options.pairs,
        options.release.version()
    );
    println!(
        "{:<34} {:>10} {:>10} {:>14}",
        "", "stock", "native", "stock/native"
    );
    for (name, text) in FIGURES {
        let of = |kind: Kind| -> Vec<f64> {
            pairs
                .iter()
                .filter_map(|pair| pair.get(kind.name()))
                .map(|run| figure(run, name))
                .collect()
        };
        let (stock, native) = (of(Kind::Stock), of(Kind::Native));
        let ratios: Vec<_> = stock
            .iter()
            .zip(&native)
            .map(|(stock, native)| stock / native)
            .collect();
        println!(
            "{text:<34} {:>10.1} {:>10.1} {:>13.1}×",
            median(stock),
            median(native),
            median(ratios)
        );
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
