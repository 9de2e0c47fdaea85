//! Suites that the load generator (`crates/bench`) runs: stock and native schedulers in turns, a graph encoded by a stock client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::{report, turns};
use crate::envs;
use crate::process::Interrupt;
use crate::releases::Release;
use crate::stock::{self, Kind, Plan};
use crate::workspace::{self, Profile};

/// What the suites of the load generator take.
#[derive(clap::Args)]
pub(crate) struct LoadOptions {
    /// Dialects of client and workers, and releases of the stock scheduler
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["2026.8.0", "2.30.1"])]
    release: Vec<Release>,
    /// Pairs of one stock and one native run
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Less of everything: done within three minutes, for looking whether it works
    #[arg(long)]
    quick: bool,
    /// Only these places on the suite's axis: workers (zero, storm), tasks (graphs), 0 for idle and 1 for loaded (latency)
    #[arg(long, value_delimiter = ',')]
    points: Vec<u64>,
    /// How the native scheduler and the load generator are built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
}

/// A suite of the load generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Tasks through the scheduler, by number of workers.
    Zero,
    /// Intake, by size of the graph.
    Graphs,
    /// Submission to result, idle and beside a large graph.
    Latency,
    /// Very many workers at once, by their number.
    Storm,
}

/// Stock takes minutes to let so many workers in, and some give up before.
const STORM_WITHOUT_STOCK: u64 = 5000;

/// One point of a suite: what is varied, and the arguments that say so.
struct Point {
    x: u64,
    /// Tasks for the stock and for the native scheduler; none: it is left out. Figures are per task, and the cost of stock grows
    /// with their number, so that fewer tasks favour stock.
    tasks: [u64; 2],
    workers: u64,
    loaded: bool,
}

impl Point {
    fn tasks_for(&self, kind: Kind) -> u64 {
        self.tasks[usize::from(kind == Kind::Native)]
    }
}

impl Suite {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Graphs => "graphs",
            Self::Latency => "latency",
            Self::Storm => "storm",
        }
    }

    /// What is varied.
    pub(super) fn axis(self) -> &'static str {
        match self {
            Self::Zero | Self::Storm => "workers",
            Self::Graphs => "tasks",
            Self::Latency => "load",
        }
    }

    /// Shape and number of graphs in a file.
    fn graphs(self, quick: bool) -> (&'static str, u64) {
        match self {
            Self::Zero => ("merge", 1),
            Self::Graphs => ("independent", 1),
            // Beside a large graph stock needs a quarter of a second for each.
            Self::Latency if quick => ("independent", 50),
            Self::Latency => ("independent", 300),
            // Without one task that needs all others: its order alone would be a hundred megabytes.
            Self::Storm => ("tree", 1),
        }
    }

    /// The points at these places on the axis; of the usual ones if there are none.
    fn points(self, places: &[u64], quick: bool) -> Result<Vec<Point>> {
        let usual: &[u64] = match (self, quick) {
            (Self::Zero, true) => &[1, 100],
            (Self::Zero, false) => &[1, 10, 100, 1000],
            (Self::Graphs, true) => &[10_000],
            (Self::Graphs, false) => &[10_000, 100_000, 1_000_000],
            (Self::Storm, true) => &[500],
            (Self::Storm, false) => &[1000, STORM_WITHOUT_STOCK],
            (Self::Latency, _) => &[0, 1],
        };
        let places = if places.is_empty() { usual } else { places };
        places.iter().map(|x| self.point(*x, quick)).collect()
    }

    fn point(self, x: u64, quick: bool) -> Result<Point> {
        let fits = match self {
            Self::Latency => x <= 1,
            Self::Zero | Self::Graphs | Self::Storm => x > 0,
        };
        if !fits {
            bail!("{} has no point {x} ({})", self.name(), self.axis());
        }
        let tasks = match self {
            Self::Graphs => [x; 2],
            Self::Latency => [1; 2],
            Self::Storm if x >= STORM_WITHOUT_STOCK => [0, 1_000_000],
            Self::Zero | Self::Storm if quick => [1000, 10_000],
            Self::Zero | Self::Storm => [10_000, 100_000],
        };
        let workers = match self {
            Self::Zero | Self::Storm => x,
            Self::Graphs => 1,
            Self::Latency => 10,
        };
        Ok(Point {
            x,
            tasks,
            workers,
            loaded: self == Self::Latency && x == 1,
        })
    }

    /// Name of a figure (a path in what the load generator prints), how it is shown, and whether more is better.
    pub(crate) fn figures(self) -> &'static [(&'static str, &'static str, bool)] {
        match self {
            Self::Storm => &[
                ("/connect_s", "until all are registered, s", false),
                (
                    "/connect_ping_ms/max",
                    "ping while they register, worst, ms",
                    false,
                ),
                ("/bytes_per_worker", "memory per worker, bytes", false),
                (
                    "/rest_cpu_percent",
                    "scheduler CPU at rest, % of a core",
                    false,
                ),
                (
                    "/scheduler_cpu_us_per_task",
                    "scheduler CPU, µs per task",
                    false,
                ),
                ("/tasks_per_second", "tasks per second", true),
                ("/ping_ms/p99", "ping during the graph, p99, ms", false),
                ("/ping_ms/max", "ping during the graph, worst, ms", false),
            ],
            Self::Zero => &[
                (
                    "/scheduler_cpu_us_per_task",
                    "scheduler CPU, µs per task",
                    false,
                ),
                ("/tasks_per_second", "tasks per second", true),
                (
                    "/scheduler_bytes_per_task",
                    "scheduler memory, bytes per task",
                    false,
                ),
                (
                    "/release_cpu_us_per_task",
                    "scheduler CPU to forget, µs per task",
                    false,
                ),
                ("/ping_ms/p99", "ping during the graph, p99, ms", false),
                ("/ping_ms/max", "ping during the graph, worst, ms", false),
            ],
            Self::Graphs => &[
                ("/first_task_s", "submission to first task, s", false),
                ("/registered_s", "submission to all registered, s", false),
                (
                    "/scheduler_cpu_us_per_task",
                    "scheduler CPU, µs per task",
                    false,
                ),
                (
                    "/scheduler_bytes_per_task",
                    "scheduler memory at rest, bytes per task",
                    false,
                ),
                (
                    "/peak_bytes_per_task",
                    "scheduler memory at most, bytes per task",
                    false,
                ),
                ("/ping_ms/p99", "ping meanwhile, p99, ms", false),
                ("/ping_ms/max", "ping meanwhile, worst, ms", false),
            ],
            Self::Latency => &[
                (
                    "/submit_to_result_ms/p50",
                    "submission to result, p50, ms",
                    false,
                ),
                (
                    "/submit_to_result_ms/p99",
                    "submission to result, p99, ms",
                    false,
                ),
                (
                    "/submit_to_result_ms/p999",
                    "submission to result, p99.9, ms",
                    false,
                ),
                ("/ping_ms/max", "ping meanwhile, worst, ms", false),
                (
                    "/loss_to_result_ms/p50",
                    "worker lost to result elsewhere, p50, ms",
                    false,
                ),
                (
                    "/loss_to_result_ms/p99",
                    "worker lost to result elsewhere, p99, ms",
                    false,
                ),
                (
                    "/loss_to_result_ms/max",
                    "worker lost to result elsewhere, worst, ms",
                    false,
                ),
            ],
        }
    }
}

/// Runs a suite, prints a table, writes JSON and HTML.
pub(crate) fn run(suite: Suite, options: &LoadOptions) -> Result<()> {
    let points = suite.points(&options.points, options.quick)?;
    let interrupt = Interrupt::install()?;
    let bench = Bench {
        suite,
        scheduler: workspace::build_scheduler(options.profile)?,
        load: workspace::build_load(options.profile)?,
        folder: workspace::target_dir().join("bench"),
        quick: options.quick,
        interrupt,
    };
    fs::create_dir_all(&bench.folder)?;
    let pairs = if options.quick { 1 } else { options.pairs };
    let mut found = Vec::new();
    for release in &options.release {
        let python = envs::ensure(release.environment())?;
        for point in &points {
            let runs = bench.point(*release, &python, point, pairs)?;
            report::print(suite, release.version(), suite.axis(), point.x, &runs);
            found.push(json!({
                "release": release.version(), "axis": suite.axis(), "x": point.x, "tasks": point.tasks, "pairs": runs,
            }));
        }
    }
    let record = json!({
        "bench": suite.name(), "quick": options.quick, "machine": report::machine(), "points": found,
    });
    let page = report::load_page(suite, &record);
    report::write(&bench.folder, suite.name(), &record, &page)
}

/// What the generator is called in messages.
pub(super) const GENERATOR: &str = "load generator";

struct Bench {
    suite: Suite,
    scheduler: PathBuf,
    load: PathBuf,
    folder: PathBuf,
    quick: bool,
    interrupt: Interrupt,
}

impl Bench {
    fn point(
        &self,
        release: Release,
        python: &Path,
        point: &Point,
        pairs: u32,
    ) -> Result<Vec<Value>> {
        let mut runs = Vec::new();
        for pair in 0..pairs {
            let mut figures = Map::new();
            for kind in turns::of_pair(pair) {
                if point.tasks_for(kind) == 0 {
                    continue;
                }
                println!(
                    "{} {} {} {}: pair {} of {pairs}, {}",
                    self.suite.name(),
                    release.version(),
                    self.suite.axis(),
                    point.x,
                    pair + 1,
                    kind.name()
                );
                let run = self
                    .one_run(kind, release, python, point)
                    .with_context(|| format!("{} scheduler", kind.name()))?;
                figures.insert(kind.name().to_owned(), run);
            }
            runs.push(Value::Object(figures));
        }
        Ok(runs)
    }

    fn one_run(&self, kind: Kind, release: Release, python: &Path, point: &Point) -> Result<Value> {
        let tasks = point.tasks_for(kind);
        let (shape, count) = self.suite.graphs(self.quick);
        let of = (release, python);
        let graph = self::graph(&self.folder, of, shape, tasks, count)?;
        let plan = Plan {
            kind,
            binary: &self.scheduler,
            python,
            port: stock::free_port()?,
            workers: 0,
            threads: 1,
            native_worker: None,
            nanny: false,
            folder: self.folder.join(kind.name()),
        };
        let cluster = plan.start(&self.interrupt)?;
        let mut command = Command::new(&self.load);
        command.arg(self.suite.name()).arg("--graph").arg(&graph);
        command.args([
            "--address",
            &cluster.address,
            "--release",
            release.version(),
        ]);
        command.args(["--pid", &cluster.scheduler_id().to_string()]);
        match self.suite {
            Suite::Graphs => command.args(["--tasks", &tasks.to_string()]),
            Suite::Zero | Suite::Latency | Suite::Storm => {
                command.args(["--workers", &point.workers.to_string()])
            }
        };
        if self.suite == Suite::Latency && self.quick {
            command.args(["--losses", "10"]);
        }
        if point.loaded {
            let load = self::graph(&self.folder, of, "merge", 2000, 1)?;
            command.arg("--load").arg(load);
        }
        turns::of_cluster(
            GENERATOR,
            &mut command,
            cluster,
            &self.interrupt,
            &plan.folder,
        )
    }
}

/// A file with encoded graphs of a shape in `folder`; kept between runs.
pub(super) fn graph(
    folder: &Path,
    (release, python): (Release, &Path),
    shape: &str,
    tasks: u64,
    count: u64,
) -> Result<PathBuf> {
    let name = format!("{shape}-{tasks}-{count}-{}.graph", release.version());
    let file = folder.join(name);
    if !file.is_file() {
        println!(
            "encoding {tasks} tasks ({shape}) with a client of {}",
            release.version()
        );
        let mut command = Command::new(python);
        command.arg(workspace::root().join("benches/encode.py"));
        command.args([shape, &tasks.to_string(), &count.to_string()]);
        // Under another name first: an interrupted one must not be taken for whole.
        let partial = file.with_extension("partial");
        workspace::output_of(command.arg(&partial))?;
        fs::rename(&partial, &file)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::Suite;

    const SUITES: [Suite; 4] = [Suite::Zero, Suite::Graphs, Suite::Latency, Suite::Storm];

    #[test]
    fn a_chosen_point_is_measured_alone() {
        for suite in SUITES {
            let points = suite.points(&[1], false).unwrap_or_default();
            assert!(
                matches!(points.as_slice(), [point] if point.x == 1),
                "{suite:?}"
            );
        }
        let points = Suite::Graphs.points(&[7], false).unwrap_or_default();
        assert_eq!(points.first().map(|point| point.tasks), Some([7, 7]));
    }

    #[test]
    fn without_a_choice_there_are_the_usual_points() {
        for suite in SUITES {
            let count = |quick| suite.points(&[], quick).map_or(0, |points| points.len());
            assert!(count(true) >= 1 && count(false) >= count(true), "{suite:?}");
        }
    }

    #[test]
    fn what_is_not_on_the_axis_is_refused() {
        assert!(Suite::Latency.points(&[2], false).is_err());
        assert!(Suite::Zero.points(&[0], false).is_err());
    }
}
