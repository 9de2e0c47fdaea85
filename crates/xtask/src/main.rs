//! Developer commands: `cargo xtask <command>`.
//!
//! Each command is a module of its own; what several share is in `workspace` (paths, cargo), `releases` (which stock
//! Dask runs where), `envs` (Python environments), `process` (children that never outlive us) and `stock` (stock
//! schedulers and workers). Nothing here is used by the product.

mod bench;
mod cluster;
mod conformance;
mod envs;
mod fuzz;
mod image;
mod process;
mod record;
mod releases;
mod replay;
mod stock;
mod test;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};

/// Developer commands of Oxidask.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the Rust scheduler and stock workers, run a short computation, stay up until Ctrl-C
    Cluster(cluster::Options),
    /// Run all tests: Rust, then Python end to end with the stock releases
    Test(test::Options),
    /// Make the Python environments that the other commands need, and print their interpreters
    Envs(envs::Options),
    /// Run the upstream test-suite, black box, against our scheduler and write docs/conformance.md
    Conformance(conformance::Options),
    /// Measure our scheduler next to the stock one
    Bench(bench::Options),
    /// Record the golden vectors of the wire protocol again, from stock peers
    Record(record::Options),
    /// Kill, stop and cut off stock workers under a large graph, again and again
    Chaos(test::Chaos),
    /// Run a recording of `dask-scheduler --record FILE`, or a dump of its watchdog, again
    Replay(replay::Options),
    /// Run simulated clusters for a range of seeds
    Simulate(replay::Simulate),
    /// Feed hostile bytes to everything that reads bytes of others
    Fuzz(fuzz::Options),
    /// Build the static binaries and the container images
    Image(image::Options),
    /// Check lengths of files and functions, and who depends on whom
    Tidy(tidy::Options),
}

fn main() {
    let result = match Cli::parse().command {
        Command::Cluster(options) => cluster::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Envs(options) => envs::run(&options),
        Command::Conformance(options) => conformance::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Record(options) => record::run(&options),
        Command::Chaos(options) => test::chaos(&options),
        Command::Replay(options) => replay::run(&options),
        Command::Simulate(options) => replay::simulate(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Image(options) => image::run(&options),
        Command::Tidy(options) => tidy::run(&options),
    };
    if let Err(error) = result {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}
