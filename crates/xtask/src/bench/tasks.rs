//! `cargo xtask bench tasks`: trivial tasks of a stock client, on a stock cluster, on our scheduler with stock workers, and on our
//! scheduler with our workers, in turns.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::report::page::Row;
use super::{median, report, turns};
use crate::envs;
use crate::process::Interrupt;
use crate::releases::{FRISKY, Release};
use crate::stock::{self, Kind, Plan};
use crate::workspace::{self, Profile};

/// Tasks of each run with `--quick`.
const QUICK_TASKS: u32 = 2000;

/// What `cargo xtask bench tasks` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Release of client, workers and the stock scheduler
    #[arg(long, value_enum, default_value = "2026.8.0")]
    release: Release,
    /// Clusters that take turns; the first is the one that the others are compared with
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["stock", "scheduler", "both"])]
    clusters: Vec<Parts>,
    /// Frisky takes its turns beside the clusters; stock has them anyway
    #[arg(long, value_enum, default_value = "stock")]
    pub(super) peer: Peer,
    /// Graphs that are computed, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["map", "chains", "tree", "fan-in", "all-to-all"])]
    shapes: Vec<Shape>,
    /// Rounds: one run of each cluster
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Tasks of map; of 20,000: chains 100 × 100, a tree of 2^13 leaves, fan-in 20 × 1,000, all-to-all 10 × 100 × 100
    #[arg(long, default_value_t = 20_000)]
    tasks: u32,
    /// One round of 2,000 tasks: done within three minutes, for looking whether it works
    #[arg(long)]
    quick: bool,
    /// With a nanny around each worker
    #[arg(long)]
    nanny: bool,
    /// How scheduler and worker are built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
}

impl Options {
    fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.pairs }
    }

    fn tasks(&self) -> u32 {
        if self.quick { QUICK_TASKS } else { self.tasks }
    }

    /// The clusters that take turns, the peer among them.
    fn clusters(&self) -> Vec<Parts> {
        let mut clusters = self.clusters.clone();
        if self.peer == Peer::Frisky && !clusters.contains(&Parts::Frisky) {
            clusters.push(Parts::Frisky);
        }
        clusters
    }
}

/// Whom ours are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// Dask alone
    Stock,
    /// Dask, and Frisky, a rival that moves into a stock cluster of 2026.8.0
    Frisky,
}

/// What a graph looks like; `benches/tasks.py` makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// Independent tasks by Client.map, and single ones one after the other
    Map,
    /// Tasks of which each needs the one before
    Chains,
    /// Sums of pairs
    Tree,
    /// Tasks that need a thousand others
    FanIn,
    /// A hundred tasks that need a hundred others each
    AllToAll,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Chains => "chains",
            Self::Tree => "tree",
            Self::FanIn => "fan-in",
            Self::AllToAll => "all-to-all",
        }
    }
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

/// The figures of a shape, in the order they are printed: a path, and how it is shown. All of them are better when smaller.
const FIGURES: [(&str, &str); 9] = [
    ("/scheduler_cpu_us_per_task", "scheduler CPU, µs per task"),
    (
        "/workers_cpu_us_per_task",
        "CPU of all workers, µs per task",
    ),
    ("/client_cpu_us_per_task", "client CPU, µs per task"),
    ("/wall_us_per_task", "wall, µs per task"),
    (
        "/scheduler_bytes_per_task",
        "scheduler memory, bytes per task",
    ),
    ("/workers_idle_mib", "memory of all workers, idle, MiB"),
    ("/submit_to_result_ms", "isolated submit to result, p50, ms"),
    ("/ping_ms/p99", "ping meanwhile, p99, ms"),
    ("/ping_ms/max", "ping meanwhile, worst, ms"),
];

struct Bench<'a> {
    options: &'a Options,
    scheduler: PathBuf,
    worker: PathBuf,
    load: PathBuf,
    python: PathBuf,
    frisky: PathBuf,
    folder: PathBuf,
    interrupt: Interrupt,
}

/// Measures, prints medians, writes JSON and HTML.
pub(crate) fn run(options: &Options) -> Result<()> {
    let clusters = options.clusters();
    if clusters.is_empty() || options.shapes.is_empty() {
        bail!("--clusters and --shapes need at least one each");
    }
    let bench = Bench::new(options, &clusters)?;
    let count = options.rounds();
    let mut rounds = Vec::new();
    for round in 0..count {
        let mut order = clusters.clone();
        turns::turn(round, &mut order);
        let mut results = Map::new();
        for parts in order {
            let about = format!("round {} of {count}, {}", round + 1, parts.name());
            println!("tasks: {about}");
            let figures = bench.one_run(parts).context(about)?;
            results.insert(parts.name().to_owned(), figures);
        }
        rounds.push(Value::Object(results));
    }
    let release = options.release.version();
    println!(
        "\n{} tasks, {count} rounds, {release} (medians; × less than {})",
        options.tasks(),
        clusters[0].name()
    );
    for shape in &options.shapes {
        print_medians(&rounds, &clusters, *shape);
    }
    let machine = report::machine();
    let page = report::page::bars(
        "tasks",
        &machine,
        &rows(&rounds, &clusters, &options.shapes),
    );
    let record = json!({
        "bench": "tasks", "release": release, "tasks": options.tasks(), "workers": 2, "threads": 1,
        "nanny": options.nanny, "machine": machine, "rounds": rounds,
    });
    report::write(&bench.folder, &format!("tasks-{release}"), &record, &page)
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options, clusters: &[Parts]) -> Result<Self> {
        let interrupt = Interrupt::install()?;
        let needs_worker = clusters.iter().any(|parts| parts.native_worker());
        Ok(Self {
            options,
            scheduler: workspace::build_scheduler(options.profile)?,
            worker: match needs_worker {
                true => workspace::build_worker(options.profile)?,
                false => PathBuf::new(),
            },
            load: workspace::build_load(options.profile)?,
            python: envs::ensure(options.release.environment())?,
            frisky: match clusters.contains(&Parts::Frisky) {
                true => envs::ensure(FRISKY)?,
                false => PathBuf::new(),
            },
            folder: workspace::target_dir().join("bench"),
            interrupt,
        })
    }

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
        command.arg(workspace::root().join("benches/tasks.py"));
        let shapes: Vec<_> = self
            .options
            .shapes
            .iter()
            .map(|shape| shape.name())
            .collect();
        command.args([
            &cluster.address,
            &cluster.scheduler_id().to_string(),
            &turns::worker_ids(&cluster),
            &self.options.tasks().to_string(),
            "--shapes",
            &shapes.join(","),
        ]);
        if parts == Parts::Frisky {
            // Its scheduler does not speak Dask's protocol.
            command.args(["--rival", "frisky"]);
        } else {
            command.arg("--ping").arg(&self.load);
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

/// A figure of a cluster in every round; not a number where it is missing, so that rounds stay beside each other.
fn values(rounds: &[Value], parts: Parts, shape: Shape, path: &str) -> Vec<f64> {
    let runs = rounds.iter().map(|round| round.get(parts.name()));
    let figure = |run: Option<&Value>| run?.get(shape.name())?.pointer(path)?.as_f64();
    runs.map(|run| figure(run).unwrap_or(f64::NAN)).collect()
}

fn rows(rounds: &[Value], clusters: &[Parts], shapes: &[Shape]) -> Vec<Row> {
    let row = |shape: Shape, path: &str, text: &str| Row {
        group: shape.name().to_owned(),
        text: text.to_owned(),
        series: clusters
            .iter()
            .map(|parts| {
                let values = values(rounds, *parts, shape, path);
                (parts.name().to_owned(), values)
            })
            .collect(),
    };
    let of_shape = |shape: &Shape| FIGURES.map(|(path, text)| row(*shape, path, text));
    let rows = shapes.iter().flat_map(of_shape);
    // Not every shape has every figure.
    let measured = |row: &Row| {
        row.series
            .iter()
            .flat_map(|(_, values)| values)
            .any(|v| v.is_finite())
    };
    rows.filter(measured).collect()
}

fn print_medians(rounds: &[Value], clusters: &[Parts], shape: Shape) {
    print!("\n{:<36}", shape.name());
    for parts in clusters {
        print!(" {:>20}", parts.name());
    }
    println!();
    for (path, text) in FIGURES {
        let of = |parts: Parts| values(rounds, parts, shape, path);
        let first = of(clusters[0]);
        if first.iter().all(|value| value.is_nan()) {
            continue;
        }
        print!("{text:<36}");
        for (at, parts) in clusters.iter().enumerate() {
            let here = of(*parts);
            let ratios: Vec<_> = first.iter().zip(&here).map(|(a, b)| a / b).collect();
            let ratio = match at {
                0 => String::new(),
                // Memory that was given back is less than none, and no multiple of anything.
                _ if median(first.clone()) <= 0.0 || median(here.clone()) <= 0.0 => {
                    format!(" {:>8}", "–")
                }
                _ => format!(" {:>7.1}×", median(ratios)),
            };
            let shown = match median(here) {
                missing if missing.is_nan() => "–".to_owned(),
                middle => format!("{middle:.1}{ratio}"),
            };
            print!(" {shown:>20}");
        }
        println!();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn clusters(words: &[&str]) -> Vec<Parts> {
        Line::try_parse_from(words).map_or_else(|_| Vec::new(), |line| line.options.clusters())
    }

    #[test]
    fn frisky_takes_turns_beside_stock_when_it_is_the_peer() {
        assert_eq!(clusters(&[]).first(), Some(&Parts::Stock));
        assert!(!clusters(&[]).contains(&Parts::Frisky));
        let with_peer = clusters(&["--peer", "frisky"]);
        assert_eq!(with_peer.first(), Some(&Parts::Stock));
        assert_eq!(with_peer.last(), Some(&Parts::Frisky));
        let named_twice = clusters(&["--clusters", "stock,frisky", "--peer", "frisky"]);
        assert_eq!(named_twice, [Parts::Stock, Parts::Frisky]);
    }

    #[test]
    fn names_of_shapes_are_those_of_the_command_line() {
        for shape in Shape::value_variants() {
            let known = shape.to_possible_value();
            assert_eq!(
                known.as_ref().map(|value| value.get_name()),
                Some(shape.name())
            );
        }
    }

    #[test]
    fn only_what_was_measured_is_on_the_page() {
        let rounds = [
            json!({"stock": {"map": {"wall_us_per_task": 2.0}, "tree": {"ping_ms": {"p99": 1.0}}}}),
        ];
        let rows = rows(&rounds, &[Parts::Stock], &[Shape::Map, Shape::Tree]);
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.group.as_str(), row.text.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("map", "wall, µs per task"),
                ("tree", "ping meanwhile, p99, ms")
            ]
        );
    }
}
