//! `cargo xtask bench soak`: clients and workers come and go for a long time; nothing of them must stay with our scheduler.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::report::page::timeline;
use super::{load, report, turns};
use crate::envs;
use crate::process::Interrupt;
use crate::releases::Release;
use crate::stock::{self, Kind, Plan};
use crate::workspace::{self, Profile};

/// Growth of the memory, in percent, between the first sixth and the end that passes.
const MAX_GROWTH: f64 = 5.0;
/// Graphs of which the load is mixed.
const GRAPHS: [(&str, u64); 4] = [
    ("merge", 2000),
    ("tree", 5000),
    ("independent", 20_000),
    ("chain", 300),
];

/// What `cargo xtask bench soak` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Dialect of clients and workers
    #[arg(long, value_enum, default_value = "2026.8.0")]
    release: Release,
    /// How long, in seconds
    #[arg(long, default_value_t = 1800)]
    seconds: u32,
    /// One minute only, for looking whether it works
    #[arg(long)]
    quick: bool,
    /// How the scheduler and the load generator are built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
}

/// Runs it, prints what was found, writes JSON and HTML.
///
/// # Errors
/// Also when something is left behind.
pub(crate) fn run(options: &Options) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let scheduler = workspace::build_scheduler(options.profile)?;
    let load = workspace::build_load(options.profile)?;
    let python = envs::ensure(options.release.environment())?;
    let folder = workspace::target_dir().join("bench");
    fs::create_dir_all(&folder)?;
    let of = (options.release, python.as_path());
    let graphs = GRAPHS.map(|(shape, tasks)| load::graph(&folder, of, shape, tasks, 2));
    let plan = Plan {
        kind: Kind::Native,
        binary: &scheduler,
        python: &python,
        port: stock::free_port()?,
        workers: 0,
        threads: 1,
        native_worker: None,
        nanny: false,
        folder: folder.join("soak"),
    };
    let cluster = plan.start(&interrupt)?;
    let seconds = if options.quick { 60 } else { options.seconds };
    println!("soak: {seconds} s");
    let mut command = Command::new(&load);
    command.args(["soak", "--address", &cluster.address]);
    command.args(["--release", options.release.version()]);
    command.args(["--pid", &cluster.scheduler_id().to_string()]);
    command.args(["--seconds", &seconds.to_string()]);
    for graph in graphs {
        command.arg("--graph").arg(graph?);
    }
    let found = turns::of_cluster(
        load::GENERATOR,
        &mut command,
        cluster,
        &interrupt,
        &plan.folder,
    )?;
    let record = json!({"bench": "soak", "machine": report::machine(), "found": found});
    show(&found);
    report::write(&folder, "soak", &record, &page(&record))?;
    judge(&found, options.quick)
}

/// Memory and descriptors over time; a sample is seconds since the start, bytes, and files and sockets.
fn page(record: &Value) -> String {
    let samples = record.pointer("/found/samples").and_then(Value::as_array);
    let series = |column: usize, unit: f64| -> Vec<(f64, f64)> {
        let samples = samples.into_iter().flatten();
        let point = |sample: &Value| {
            let figure = sample.get(column)?.as_f64()?;
            Some((sample.get(0)?.as_f64()?, figure / unit))
        };
        samples.filter_map(point).collect()
    };
    let machine = record.get("machine").unwrap_or(&Value::Null);
    let note = "across: seconds since the start";
    let mut out = report::page::head("soak", machine, &[], note);
    out.push_str(&timeline("scheduler memory, MiB", &series(1, 1048576.0)));
    out.push_str(&timeline("open files and sockets", &series(2, 1.0)));
    out
}

fn show(found: &Value) {
    let entries = found.as_object().into_iter().flatten();
    for (name, value) in entries.filter(|(name, _)| *name != "samples") {
        println!("{name:<24} {value}");
    }
}

fn judge(found: &Value, quick: bool) -> Result<()> {
    let number = |name: &str| found.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
    if number("keys_left") > 0.0 {
        bail!("{} keys are left", number("keys_left"));
    }
    if number("descriptors_after") > number("descriptors_before") + 2.0 {
        bail!("descriptors are left");
    }
    // A minute is all warming up.
    if !quick && number("growth_percent") > MAX_GROWTH {
        bail!("memory grew by {:.1} %", number("growth_percent"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_memory_over_time() {
        let samples = json!([[1.0, 1 << 20, 30], [2.0, 3 << 20, 31]]);
        let page = page(&json!({"found": {"samples": samples}}));
        assert_eq!(page.matches("<polyline").count(), 2);
        assert!(
            page.contains("memory, MiB") && page.contains(">3.0<"),
            "{page}"
        );
    }

    #[test]
    fn what_is_left_behind_fails() {
        let found = |keys: u32, descriptors: u32, growth: f64| {
            json!({
                "keys_left": keys, "descriptors_before": 30, "descriptors_after": descriptors, "growth_percent": growth,
            })
        };
        assert!(judge(&found(0, 31, 2.0), false).is_ok());
        assert!(judge(&found(1, 31, 2.0), false).is_err());
        assert!(judge(&found(0, 40, 2.0), false).is_err());
        assert!(judge(&found(0, 31, 20.0), false).is_err());
        assert!(judge(&found(0, 31, 20.0), true).is_ok());
    }
}
