//! `cargo xtask bench tasks`: trivial tasks of a stock client, on a stock cluster, on our scheduler with stock workers, and on our
//! scheduler with our workers, in turns.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::{median, turns};
use crate::envs;
use crate::process::Interrupt;
use crate::releases::{FRISKY, Release};
use crate::stock::{self, Kind, Plan};
use crate::workspace::{self, Profile};

/// What `cargo xtask bench tasks` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Release of client, workers and the stock scheduler
    #[arg(long, value_enum, default_value = "2026.8.0")]
    release: Release,
    /// Clusters that take turns; the first is the one that the others are compared with
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["stock", "scheduler", "both"])]
    clusters: Vec<Parts>,
    /// Rounds: one run of each cluster
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Tasks of each run
    #[arg(long, default_value_t = 20_000)]
    tasks: u32,
    /// With a nanny around each worker
    #[arg(long)]
    nanny: bool,
    /// How scheduler and worker are built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
}

/// Which parts of a cluster are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Parts {
    /// None
    Stock,
    /// The scheduler
    Scheduler,
    /// The workers
    Worker,
    /// Scheduler and workers
    Both,
    /// None: Frisky, a rival that moves into a stock cluster of 2026.8.0
    Frisky,
}

impl Parts {
    fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Scheduler => "our scheduler",
            Self::Worker => "our workers",
            Self::Both => "both ours",
            Self::Frisky => "Frisky",
        }
    }

    fn scheduler(self) -> Kind {
        match self {
            Self::Scheduler | Self::Both => Kind::Native,
            Self::Stock | Self::Worker | Self::Frisky => Kind::Stock,
        }
    }

    fn native_worker(self) -> bool {
        matches!(self, Self::Worker | Self::Both)
    }
}

/// The figures of a run, in the order they are printed. All of them are better when smaller.
const FIGURES: [(&str, &str); 7] = [
    ("scheduler_cpu_us_per_task", "scheduler CPU, µs per task"),
    ("workers_cpu_us_per_task", "CPU of all workers, µs per task"),
    ("client_cpu_us_per_task", "client CPU, µs per task"),
    ("wall_us_per_task", "wall, µs per task"),
    (
        "scheduler_bytes_per_task",
        "scheduler memory, bytes per task",
    ),
    ("workers_idle_mib", "memory of all workers, idle, MiB"),
    ("submit_to_result_ms", "isolated submit to result, p50, ms"),
];

struct Bench<'a> {
    options: &'a Options,
    scheduler: PathBuf,
    worker: PathBuf,
    python: PathBuf,
    frisky: PathBuf,
    folder: PathBuf,
    interrupt: Interrupt,
}

/// Measures, prints medians, writes JSON.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.clusters.is_empty() {
        bail!("--clusters needs at least one");
    }
    let interrupt = Interrupt::install()?;
    let needs_worker = options.clusters.iter().any(|parts| parts.native_worker());
    let bench = Bench {
        options,
        scheduler: workspace::build_scheduler(options.profile)?,
        worker: match needs_worker {
            true => workspace::build_worker(options.profile)?,
            false => PathBuf::new(),
        },
        python: envs::ensure(options.release.environment())?,
        frisky: match options.clusters.contains(&Parts::Frisky) {
            true => envs::ensure(FRISKY)?,
            false => PathBuf::new(),
        },
        folder: workspace::target_dir().join("bench"),
        interrupt,
    };
    let mut rounds = Vec::new();
    for round in 0..options.pairs {
        let mut order = options.clusters.clone();
        turns::turn(round, &mut order);
        let mut results = Map::new();
        for parts in order {
            let figures = bench.one_run(parts).with_context(|| {
                let rounds = options.pairs;
                format!("round {} of {rounds}, {}", round + 1, parts.name())
            })?;
            println!(
                "round {} {:<13} {}",
                round + 1,
                parts.name(),
                shown(&figures)
            );
            results.insert(parts.name().to_owned(), figures);
        }
        rounds.push(Value::Object(results));
    }
    print_medians(&rounds, options);
    let record = json!({
        "bench": "tasks", "release": options.release.version(), "tasks": options.tasks, "workers": 2, "threads": 1,
        "nanny": options.nanny, "machine": super::report::machine(), "rounds": rounds,
    });
    let out = bench
        .folder
        .join(format!("tasks-{}.json", options.release.version()));
    fs::write(&out, serde_json::to_string_pretty(&record)?)?;
    println!("written: {}", out.display());
    Ok(())
}

impl Bench<'_> {
    fn one_run(&self, parts: Parts) -> Result<Value> {
        let python = match parts {
            Parts::Frisky => &self.frisky,
            _ => &self.python,
        };
        let plan = Plan {
            kind: parts.scheduler(),
            binary: &self.scheduler,
            python,
            port: stock::free_port()?,
            workers: 2,
            threads: 1,
            native_worker: parts.native_worker().then_some(self.worker.as_path()),
            nanny: self.options.nanny,
            folder: self.folder.join(parts.name().replace(' ', "-")),
        };
        let cluster = plan.start(&self.interrupt)?;
        let mut command = Command::new(python);
        command.arg(script());
        command.args([
            &cluster.address,
            &cluster.scheduler_id().to_string(),
            &turns::worker_ids(&cluster),
            &self.options.tasks.to_string(),
        ]);
        if parts == Parts::Frisky {
            command.arg("frisky");
        }
        turns::of_cluster(
            "benchmark client",
            &mut command,
            cluster,
            &self.interrupt,
            &plan.folder,
        )
    }
}

fn script() -> PathBuf {
    workspace::root().join("benches/tasks.py")
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

fn print_medians(rounds: &[Value], options: &Options) {
    println!(
        "\n{} tasks, {} rounds, {} (medians; × less than {})",
        options.tasks,
        options.pairs,
        options.release.version(),
        options.clusters[0].name()
    );
    print!("{:<36}", "");
    for parts in &options.clusters {
        print!(" {:>20}", parts.name());
    }
    println!();
    for (name, text) in FIGURES {
        let of = |parts: Parts| -> Vec<f64> {
            let runs = rounds.iter().filter_map(|round| round.get(parts.name()));
            runs.map(|run| figure(run, name)).collect()
        };
        print!("{text:<36}");
        let first = of(options.clusters[0]);
        for (at, parts) in options.clusters.iter().enumerate() {
            let here = of(*parts);
            let ratios: Vec<_> = first.iter().zip(&here).map(|(a, b)| a / b).collect();
            let ratio = match at {
                0 => String::new(),
                _ => format!(" {:>7.1}×", median(ratios)),
            };
            print!(" {:>20}", format!("{:.1}{ratio}", median(here)));
        }
        println!();
    }
}
