//! `cargo xtask replay` and `simulate`: the scheduler's core without its process. Both run programs of
//! `oxidask-testkit`.

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace;

/// What `cargo xtask replay` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The recording
    file: PathBuf,
    /// Tell the story of this key
    #[arg(long)]
    key: Option<String>,
    /// Print every event and what it led to
    #[arg(long)]
    effects: bool,
}

/// What `cargo xtask simulate` takes.
#[derive(clap::Args)]
pub(crate) struct Simulate {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many seeds
    #[arg(default_value_t = 10_000)]
    count: u64,
}

/// Builds and runs the program that replays.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["run", "-q", "-p", "oxidask-testkit", "--bin", "replay"]);
    command.arg("--").arg(std::path::absolute(&options.file)?);
    if let Some(key) = &options.key {
        command.args(["--key", key]);
    }
    if options.effects {
        command.arg("--effects");
    }
    workspace::run(&mut command)
}

/// Builds the simulation, optimised but with all checks, and runs it.
pub(crate) fn simulate(options: &Simulate) -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["run", "--profile", "simulation", "-p", "oxidask-testkit"]);
    command.args(["--bin", "simulate", "--"]);
    command.args([options.first.to_string(), options.count.to_string()]);
    workspace::run(&mut command)
}
