//! `cargo xtask bench transfer`: arrays from worker to worker and from worker to client, stock and native workers in turns, both on our
//! scheduler, so that it is the workers that differ.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{median, turns};
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

/// Measures, prints medians, writes JSON.
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
            println!("pair {} {:<6} {figures}", pair + 1, kind.name());
            results.insert(kind.name().to_owned(), figures);
        }
        pairs.push(Value::Object(results));
    }
    print_medians(&pairs, options);
    let record = json!({
        "bench": "transfer", "release": options.release.version(), "machine": super::report::machine(), "pairs": pairs,
    });
    let out = folder.join(format!("transfer-{}.json", options.release.version()));
    fs::write(&out, serde_json::to_string_pretty(&record)?)?;
    println!("written: {}", out.display());
    Ok(())
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
    for to in ["worker", "client"] {
        for bytes in &options.bytes {
            for (name, text, more_is_better) in [
                ("mb_per_s", "MB/s", true),
                ("cpu_s_per_gb", "CPU of both ends, s/GB", false),
                ("cold_mb_per_s", "the first, MB/s", true),
                ("cold_cpu_s_per_gb", "the first, CPU, s/GB", false),
            ] {
                let field = format!("to_{to}_{bytes}_{name}");
                let of = |kind: Kind| -> Vec<f64> {
                    let runs = pairs.iter().filter_map(|pair| pair.get(kind.name()));
                    runs.filter_map(|run| run.get(&field)?.as_f64()).collect()
                };
                let (stock, native) = (of(Kind::Stock), of(Kind::Native));
                let ratios = stock.iter().zip(&native).map(|(stock, native)| {
                    if more_is_better {
                        native / stock
                    } else {
                        stock / native
                    }
                });
                println!(
                    "{:<44} {:>10.2} {:>10.2} {:>9.1}×",
                    format!("{bytes} B to {to}, {text}"),
                    median(stock.clone()),
                    median(native.clone()),
                    median(ratios.collect())
                );
            }
        }
    }
}
