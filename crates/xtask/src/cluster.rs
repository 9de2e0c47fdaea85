//! `cargo xtask cluster`: a scheduler, workers and a first computation, by one command.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::envs;
use crate::process::{Child, Interrupt};
use crate::releases::Release;
use crate::stock::{Kind, Plan};
use crate::workspace::{self, Profile};

/// What `cargo xtask cluster` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Port of the scheduler on 127.0.0.1; the dashboard takes the next one
    #[arg(long, default_value_t = 8786)]
    port: u16,
    /// Number of worker processes
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Release of the client, the workers and what else is stock
    #[arg(long, value_enum, default_value = "2026.8.0")]
    release: Release,
    /// Do not run the computation
    #[arg(long)]
    no_demo: bool,
    /// Whose scheduler: ours, or the stock one for comparison
    #[arg(long, value_enum, default_value = "native")]
    scheduler: Kind,
    /// Whose workers
    #[arg(long, value_enum, default_value = "stock")]
    worker: Kind,
    /// Stop after the computation instead of staying up
    #[arg(long)]
    once: bool,
}

/// Starts everything, computes, waits for Ctrl-C, ends everything.
pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = match options.scheduler {
        Kind::Native => {
            eprintln!("building the release binaries");
            workspace::build_scheduler(Profile::Release)?
        }
        Kind::Stock => std::path::PathBuf::new(),
    };
    let worker = match options.worker {
        Kind::Native => Some(workspace::build_worker(Profile::Release)?),
        Kind::Stock => None,
    };
    let python = envs::ensure(options.release.environment())?;
    let interrupt = Interrupt::install()?;
    let cpus =
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let plan = Plan {
        kind: options.scheduler,
        binary: &binary,
        python: &python,
        port: options.port,
        workers: options.workers,
        threads: (cpus / options.workers.max(1)).max(1),
        native_worker: worker.as_deref(),
        nanny: true,
        folder: workspace::root().join(".oxidask/cluster"),
    };
    let started = Instant::now();
    let mut cluster = plan.start(&interrupt)?;
    println!(
        "scheduler   {}   ({} of {})",
        cluster.address,
        options.scheduler.name(),
        options.release.version()
    );
    println!("dashboard   {}", cluster.dashboard);
    println!(
        "workers     {} {} processes of {}, {} thread(s) each",
        plan.workers,
        options.worker.name(),
        options.release.version(),
        plan.threads
    );
    println!("logs        {}", plan.folder.display());

    if !options.no_demo {
        let mut demo = Command::new(&python);
        demo.arg(workspace::root().join("crates/xtask/scripts/demo.py"));
        demo.args([&cluster.address, &options.workers.to_string()]);
        // Old Dask on the newest pandas that it works with says so at import.
        demo.env("PYTHONWARNINGS", "ignore::FutureWarning");
        let status = Child::spawn("demo", &mut demo)?.wait(&interrupt);
        let status = match status {
            Err(_) if interrupt.is_set() => return cluster.stop(),
            other => other?,
        };
        cluster.check_alive()?;
        if !status.success() {
            bail!(
                "the computation ended with {status}; logs are in {}",
                plan.folder.display()
            );
        }
        println!(
            "all of it   {:.1} s since the start of the scheduler",
            started.elapsed().as_secs_f64()
        );
    }
    if !options.once {
        println!(
            "\nConnect with  Client(\"{}\")  from {}",
            cluster.address,
            python.display()
        );
        println!("Ctrl-C stops everything.");
        while !interrupt.is_set() {
            cluster.check_alive()?;
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("\nstopping");
    }
    cluster.stop()
}
