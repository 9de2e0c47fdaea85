//! `oxidask-load`: load for measurements, light enough that neither clients nor workers are what is measured.
//!
//! Simulated workers (`worker`) answer every task at once; a client (`client`) submits graphs that a stock client has encoded
//! (`graph`, made by `benches/encode.py`). One suite per module: `zero`, `graphs`, `latency`, `storm`, `soak`; `ping` runs beside a load of
//! somebody else's. Each prints one JSON object.
//! `process` reads what the scheduler has used. Called by `cargo xtask bench`, which starts schedulers and compares them.

mod client;
mod graph;
mod graphs;
mod latency;
mod ping;
mod process;
mod registration;
mod soak;
mod storm;
mod versions;
mod worker;
mod zero;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use oxidask_wire::Release;

/// Load for measurements.
#[derive(Parser)]
#[command(disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    suite: Suite,
    #[command(flatten)]
    target: Target,
}

/// The scheduler under load.
#[derive(clap::Args, Clone)]
struct Target {
    /// Its address
    #[arg(long, global = true, default_value = "tcp://127.0.0.1:8786")]
    address: String,
    /// Its process
    #[arg(long, global = true, default_value_t = 0)]
    pid: u32,
    /// Release of `distributed` that workers and client pretend to be
    #[arg(long, global = true, value_parser = release, default_value = "2026.8.0")]
    release: Release,
}

#[derive(Subcommand)]
enum Suite {
    /// One graph on workers that finish at once
    Zero(zero::Options),
    /// Intake of one graph, with a worker that never finishes
    Graphs(graphs::Options),
    /// Many graphs of one task, one after the other
    Latency(latency::Options),
    /// Thousands of workers that connect at once, rest, and work
    Storm(storm::Options),
    /// Clients and workers that come and go for a long time
    Soak(soak::Options),
    /// The cheapest question, again and again beside the load of somebody else, until stdin is closed
    Ping(ping::Options),
}

/// A file of encoded graphs.
#[derive(clap::Args)]
struct GraphFile {
    /// Made by `benches/encode.py`; the first graph is for warming up
    #[arg(long)]
    graph: PathBuf,
}

fn release(text: &str) -> Result<Release, String> {
    Release::parse(text).ok_or_else(|| format!("{text} is not a release"))
}

fn main() -> Result<()> {
    let Cli { suite, target } = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let figures = runtime.block_on(async {
        match suite {
            Suite::Zero(options) => zero::run(&target, &options).await,
            Suite::Graphs(options) => graphs::run(&target, &options).await,
            Suite::Latency(options) => latency::run(&target, &options).await,
            Suite::Storm(options) => storm::run(&target, &options).await,
            Suite::Soak(options) => soak::run(&target, &options).await,
            Suite::Ping(options) => ping::run(&target, &options).await,
        }
    })?;
    println!("{figures}");
    Ok(())
}
