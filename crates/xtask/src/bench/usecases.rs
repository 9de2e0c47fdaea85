//! `cargo xtask bench usecases`: graphs of real collections by a stock client, on a stock cluster and on ours in turns. Whether
//! our scheduler places worse shows here: makespan and bytes moved.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::report::page::Row;
use super::{report, turns};
use crate::envs;
use crate::process::Interrupt;
use crate::releases::Release;
use crate::stock::{self, Kind, Plan};
use crate::workspace::{self, Profile};

/// Names of cases that take a few seconds each with any scheduler.
const QUICK: [&str; 4] = ["tree", "numpy_transpose", "groupby", "join"];

/// What `cargo xtask bench usecases` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Release of client, workers and the stock scheduler
    #[arg(long, value_enum, default_value = "2026.8.0")]
    release: Release,
    /// Pairs of one run with the stock scheduler and one with ours
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Only these cases (names of functions in `benches/usecases.py`)
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// With our workers beside our scheduler
    #[arg(long)]
    native_workers: bool,
    /// One pair of a few cases: done within three minutes
    #[arg(long)]
    quick: bool,
    /// How scheduler and worker are built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
}

/// The figures of a case, in the order they are printed: a path, and how it is shown. All of them are better when smaller.
const FIGURES: [(&str, &str); 7] = [
    ("makespan_s", "makespan, s"),
    ("scheduler_cpu_s", "scheduler CPU, s"),
    ("workers_cpu_s", "workers' CPU, s"),
    ("client_cpu_s", "client CPU, s"),
    ("moved_mb", "moved between workers, MB"),
    ("ping_ms/p99", "ping meanwhile, p99, ms"),
    ("ping_ms/max", "ping meanwhile, worst, ms"),
];

struct Bench<'a> {
    options: &'a Options,
    scheduler: PathBuf,
    worker: Option<PathBuf>,
    load: PathBuf,
    python: PathBuf,
    folder: PathBuf,
    interrupt: Interrupt,
}

/// Measures, prints medians, writes JSON and HTML.
pub(crate) fn run(options: &Options) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let bench = Bench {
        options,
        scheduler: workspace::build_scheduler(options.profile)?,
        worker: match options.native_workers {
            true => Some(workspace::build_worker(options.profile)?),
            false => None,
        },
        load: workspace::build_load(options.profile)?,
        python: envs::ensure(options.release.environment())?,
        folder: workspace::target_dir().join("bench"),
        interrupt,
    };
    let count = if options.quick { 1 } else { options.pairs };
    let mut pairs = Vec::new();
    for pair in 0..count {
        let mut figures = Map::new();
        for kind in turns::of_pair(pair) {
            println!("usecases: pair {} of {count}, {}", pair + 1, kind.name());
            let run = bench
                .one_run(kind)
                .with_context(|| kind.name().to_owned())?;
            figures.insert(kind.name().to_owned(), run);
        }
        pairs.push(Value::Object(figures));
    }
    print(&pairs);
    let machine = report::machine();
    let rows: Vec<_> = cases(&pairs).flat_map(|case| rows(&pairs, case)).collect();
    let page = report::page::bars("usecases", &machine, &rows);
    let record = json!({
        "bench": "usecases", "release": options.release.version(), "native_workers": options.native_workers,
        "machine": machine, "pairs": pairs,
    });
    report::write(&bench.folder, "usecases", &record, &page)
}

impl Bench<'_> {
    fn one_run(&self, kind: Kind) -> Result<Value> {
        let plan = Plan {
            kind,
            binary: &self.scheduler,
            python: &self.python,
            port: stock::free_port()?,
            workers: 2,
            threads: 1,
            native_worker: self.worker.as_deref().filter(|_| kind == Kind::Native),
            nanny: false,
            folder: self.folder.join(format!("usecases-{}", kind.name())),
        };
        let cluster = plan.start(&self.interrupt)?;
        let mut command = Command::new(&self.python);
        command.arg(workspace::root().join("benches/usecases.py"));
        let scheduler = cluster.scheduler_id().to_string();
        command.args([&cluster.address, &scheduler, &turns::worker_ids(&cluster)]);
        command.arg(&self.load);
        match self.options.quick {
            true => command.args(QUICK),
            false => command.args(&self.options.cases),
        };
        turns::of_cluster(
            "benchmark client",
            &mut command,
            cluster,
            &self.interrupt,
            &plan.folder,
        )
    }
}

/// Names of the cases that were measured.
fn cases(pairs: &[Value]) -> impl Iterator<Item = &String> {
    let cases = pairs
        .first()
        .and_then(|pair| pair.get(Kind::Stock.name())?.as_object());
    cases.into_iter().flatten().map(|(name, _)| name)
}

fn rows(pairs: &[Value], case: &str) -> Vec<Row> {
    let row = |(name, text)| report::row(case, text, pairs, &format!("/{case}/{name}"));
    FIGURES.map(row).into()
}

fn print(pairs: &[Value]) {
    for case in cases(pairs) {
        println!(
            "\n{case:<34} {:>10} {:>10} {:>10} {:>15}",
            "stock", "native", "better by", "spread"
        );
        for (name, text) in FIGURES {
            let path = format!("/{case}/{name}");
            let [stock, native, ratio, least, most] = report::summary(pairs, &path, false);
            if !ratio.is_finite() {
                // Not counted by one of them, or nothing to divide by.
                println!("  {text:<32} {} {}", known(stock), known(native));
                continue;
            }
            println!(
                "  {text:<32} {stock:>10.2} {native:>10.2} {ratio:>9.1}× {least:>6.1} – {most:>5.1}×"
            );
        }
    }
    println!();
}

/// A figure, or a dash where it was not measured.
fn known(figure: f64) -> String {
    match figure.is_nan() {
        true => format!("{:>10}", "–"),
        false => format!("{figure:>10.2}"),
    }
}
