//! What the measurements share: who runs first, and how a program that prints its figures is run.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{Child, Interrupt};
use crate::stock::{Cluster, Kind};

/// Both kinds, in the order of a pair's runs.
pub(super) fn of_pair(pair: u32) -> [Kind; 2] {
    let mut order = [Kind::Stock, Kind::Native];
    turn(pair, &mut order);
    order
}

/// Whoever runs first in a round changes, so that a drift of the machine does not favour one.
pub(super) fn turn<T>(round: u32, order: &mut [T]) {
    if round % 2 == 1 {
        order.reverse();
    }
}

/// Runs a program of the benchmark to its end. Returns what it printed: one JSON value.
///
/// # Errors
/// It could not be started, failed (`logs` says where to look), or printed something else.
pub(super) fn figures(
    name: &'static str,
    command: &mut Command,
    interrupt: &Interrupt,
    logs: &Path,
) -> Result<Value> {
    let mut program = Child::spawn(name, command.stdout(Stdio::piped()))?;
    let stdout = program
        .take_stdout()
        .context("stdout was asked for as a pipe")?;
    let status = program.wait(interrupt)?;
    if !status.success() {
        bail!(
            "the {name} ended with {status}; logs are in {}",
            logs.display()
        );
    }
    let text = std::io::read_to_string(stdout)?;
    serde_json::from_str(text.trim()).with_context(|| format!("the {name} printed no JSON: {text}"))
}

/// Runs a program of the benchmark against `cluster`, which ends with it.
///
/// # Errors
/// As of [`figures`], or a process of the cluster has ended.
pub(super) fn of_cluster(
    name: &'static str,
    command: &mut Command,
    mut cluster: Cluster,
    interrupt: &Interrupt,
    logs: &Path,
) -> Result<Value> {
    let found = figures(name, command, interrupt, logs);
    cluster.check_alive()?;
    cluster.stop()?;
    found
}

/// Process ids of the workers, as the benchmark's clients take them.
pub(super) fn worker_ids(cluster: &Cluster) -> String {
    let ids: Vec<_> = cluster.worker_ids().iter().map(u32::to_string).collect();
    ids.join(",")
}
