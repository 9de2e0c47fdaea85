//! `cargo xtask bench idle`: what a scheduler takes to start, and what it holds while it does nothing.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::{report, turns};
use crate::envs;
use crate::process::{Child, Interrupt};
use crate::releases::Release;
use crate::stock::{self, Kind};
use crate::workspace::{self, Profile};

/// After the start, before the memory is looked at.
const REST: Duration = Duration::from_secs(2);
/// How long a start may take.
const START: Duration = Duration::from_secs(60);

/// What `cargo xtask bench idle` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Release of the stock scheduler
    #[arg(long, value_enum, default_value = "2026.8.0")]
    release: Release,
    /// Pairs of one stock and one native start
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// How the native scheduler is built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
}

const FIGURES: [(&str, &str); 3] = [
    ("start_ms", "start to first accepted connection, ms"),
    ("start_cpu_ms", "CPU until then, ms"),
    ("resident_mib", "memory when idle, MiB"),
];

/// Measures, prints medians, writes JSON and HTML.
pub(crate) fn run(options: &Options) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let binary = workspace::build_scheduler(options.profile)?;
    let python = envs::ensure(options.release.environment())?;
    let folder = workspace::target_dir().join("bench");
    let mut pairs = Vec::new();
    for pair in 0..options.pairs {
        let mut figures = Map::new();
        for kind in turns::of_pair(pair) {
            interrupt.check()?;
            let mut command = match kind {
                Kind::Native => Command::new(&binary),
                Kind::Stock => Command::new(&python),
            };
            if kind == Kind::Stock {
                command.args(["-m", "distributed.cli.dask_scheduler"]);
            }
            let found = start(&mut command, &folder.join("idle"), kind)?;
            println!("pair {} {:<6} {found}", pair + 1, kind.name());
            figures.insert(kind.name().to_owned(), found);
        }
        pairs.push(Value::Object(figures));
    }
    println!(
        "\n{:<40} {:>10} {:>10} {:>10}",
        "", "stock", "native", "better by"
    );
    for (name, text) in FIGURES {
        let [stock, native, ratio, ..] = report::summary(&pairs, &format!("/{name}"), false);
        println!("{text:<40} {stock:>10.1} {native:>10.1} {ratio:>9.1}×");
    }
    let machine = report::machine();
    let rows = FIGURES.map(|(name, text)| report::row("", text, &pairs, &format!("/{name}")));
    let page = report::page::bars("idle", &machine, &rows);
    let profile = options.profile.folder();
    let record = json!({"bench": "idle", "profile": profile, "machine": machine, "pairs": pairs});
    report::write(&folder, "idle", &record, &page)
}

fn start(command: &mut Command, folder: &Path, kind: Kind) -> Result<Value> {
    let port = stock::free_port()?;
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--dashboard-address", &format!("127.0.0.1:{}", port + 1)]);
    let log = folder.join(format!("{}.log", kind.name()));
    let started = Instant::now();
    let mut child = Child::spawn_logged(kind.name(), command, &log)?;
    while TcpStream::connect(address).is_err() {
        child.check_alive()?;
        ensure!(started.elapsed() < START, "it does not listen");
        std::thread::sleep(Duration::from_micros(500));
    }
    let took = started.elapsed();
    let cpu = cpu_ms(child.id())?;
    std::thread::sleep(REST);
    let resident = resident_mib(child.id())?;
    child.stop()?;
    Ok(json!({
        "start_ms": took.as_secs_f64() * 1e3, "start_cpu_ms": cpu, "resident_mib": resident,
    }))
}

/// User and system time of the threads of a process so far.
fn cpu_ms(pid: u32) -> Result<f64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?;
    let nanoseconds = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    Ok(threads.flatten().filter_map(nanoseconds).sum::<f64>() / 1e6)
}

fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.context("no VmRSS")? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::{cpu_ms, resident_mib};

    #[test]
    fn this_process_is_there() {
        let pid = std::process::id();
        assert!(resident_mib(pid).is_ok_and(|mib| mib > 1.0));
        assert!(cpu_ms(pid).is_ok_and(|ms| ms > 0.0));
    }
}
