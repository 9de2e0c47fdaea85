//! `cargo xtask bench transfer`: arrays from worker to worker and from worker to client, stock and native workers in turns, both on our
//! scheduler, so that it is the workers that differ.

use std::process::Command;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{report, turns};
use crate::envs;
use crate::process::Interrupt;
use crate::releases::Release;
use crate::stock::{self, Kind, Plan};
use crate::workspace::{self, Profile};

/// What `cargo xtask bench transfer` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Release of client and workers
    #[arg(long, value_enum, default_value = "2026.8.0")]
    release: Release,
    /// Pairs of one run with stock workers and one with ours
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Sizes of arrays, bytes
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 1_000_000, 100_000_000, 1_000_000_000])]
    bytes: Vec<u64>,
    /// How scheduler and worker are built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
}

/// Measures, prints medians, writes JSON and HTML.
pub(crate) fn run(options: &Options) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let scheduler = workspace::build_scheduler(options.profile)?;
    let worker = workspace::build_worker(options.profile)?;
    let python = envs::ensure(options.release.environment())?;
    let folder = workspace::target_dir().join("bench");
    let mut pairs = Vec::new();
    for pair in 0..options.pairs {
        let mut results = Map::new();
        for kind in turns::of_pair(pair) {
            let plan = Plan {
                kind: Kind::Native,
                binary: &scheduler,
                python: &python,
                port: stock::free_port()?,
                workers: 2,
                threads: 1,
                native_worker: (kind == Kind::Native).then_some(worker.as_path()),
                nanny: false,
                folder: folder.join(format!("{}-workers", kind.name())),
            };
            let cluster = plan.start(&interrupt)?;
            let mut command = Command::new(&python);
            command.arg(workspace::root().join("benches/transfer.py"));
            command.args([&cluster.address, &turns::worker_ids(&cluster)]);
            command.args(options.bytes.iter().map(u64::to_string));
            let figures = turns::of_cluster(
                "benchmark client",
                &mut command,
                cluster,
                &interrupt,
                &plan.folder,
            )?;
            println!(
                "transfer: pair {} of {}, {} {figures}",
                pair + 1,
                options.pairs,
                kind.name()
            );
            results.insert(kind.name().to_owned(), figures);
        }
        pairs.push(Value::Object(results));
    }
    print_medians(&pairs, options);
    let machine = report::machine();
    let rows: Vec<_> = figures(&options.bytes)
        .iter()
        .map(|(about, text, path, _)| report::row(about, text, &pairs, path))
        .collect();
    let page = report::page::bars("transfer", &machine, &rows);
    let release = options.release.version();
    let record = json!({
        "bench": "transfer", "release": release, "machine": machine, "pairs": pairs,
    });
    report::write(&folder, &format!("transfer-{release}"), &record, &page)
}

/// What was moved, the figure, the name of the figure in what the client prints, and whether more is better.
fn figures(bytes: &[u64]) -> Vec<(String, &'static str, String, bool)> {
    let mut all = Vec::new();
    for to in ["worker", "client"] {
        for bytes in bytes {
            for (name, text, more_is_better) in [
                ("mb_per_s", "MB/s", true),
                ("cpu_s_per_gb", "CPU of both ends, s/GB", false),
                ("cold_mb_per_s", "the first, MB/s", true),
                ("cold_cpu_s_per_gb", "the first, CPU, s/GB", false),
            ] {
                let path = format!("/to_{to}_{bytes}_{name}");
                all.push((format!("{bytes} B to {to}"), text, path, more_is_better));
            }
        }
    }
    all
}

fn print_medians(pairs: &[Value], options: &Options) {
    println!(
        "\n{} pairs, {} (medians)\n{:<44} {:>10} {:>10} {:>10}",
        pairs.len(),
        options.release.version(),
        "",
        "stock",
        "native",
        "better by"
    );
    for (about, text, path, more_is_better) in figures(&options.bytes) {
        let [stock, native, ratio, ..] = report::summary(pairs, &path, more_is_better);
        let text = format!("{about}, {text}");
        println!("{text:<44} {stock:>10.2} {native:>10.2} {ratio:>9.1}×");
    }
}
