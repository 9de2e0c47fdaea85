//! Suite `soak`: clients come, submit, wait or vanish, and workers are replaced, for a long time. What the scheduler holds
//! in the last sixth of the time is compared with what it held in the second.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Client, Rpc};
use crate::graph::Graph;
use crate::ping::Ping;
use crate::process::{Usage, descriptors};
use crate::worker::{Behaviour, Workers};
use crate::{Target, graph};

/// Between two workers that vanish.
const CHURN: Duration = Duration::from_millis(500);
/// Between looks at the scheduler's process.
const SAMPLE: Duration = Duration::from_secs(1);
/// How long it may take until nothing is left when all clients have gone.
const SETTLE: Duration = Duration::from_secs(20);

/// What the suite takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Made by `benches/encode.py`; clients take turns with all of them
    #[arg(long = "graph", required = true)]
    graphs: Vec<PathBuf>,
    /// How long, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Simulated workers of one thread
    #[arg(long, default_value_t = 20)]
    workers: usize,
    /// Clients at a time
    #[arg(long, default_value_t = 3)]
    clients: usize,
}

/// What became of submissions.
#[derive(Default)]
struct Counts {
    finished: AtomicU64,
    /// By workers that vanished too often.
    failed: AtomicU64,
    /// Clients that vanished.
    left: AtomicU64,
    tasks: AtomicU64,
}

/// Runs it; the figures.
pub(crate) async fn run(target: &Target, options: &Options) -> Result<Value> {
    let mut graphs = Vec::new();
    for path in &options.graphs {
        graphs.extend(graph::read(path, &target.release).await?);
    }
    let graphs: Arc<[Graph]> = graphs.into();
    let behaviour = Behaviour::Finish(1000);
    let mut workers = Workers::start(target, options.workers, behaviour).await?;
    let counts = Arc::<Counts>::default();
    let ping = Ping::start(target);
    let descriptors_before = descriptors(target.pid);
    let mut clients = JoinSet::new();
    for number in 0..options.clients {
        let (target, graphs, counts) = (target.clone(), Arc::clone(&graphs), Arc::clone(&counts));
        clients.spawn(async move { visits(&target, number, &graphs, &counts).await });
    }
    let started = Instant::now();
    let end = Duration::from_secs(options.seconds);
    let (mut sampled, mut samples) = (started, Vec::new());
    while started.elapsed() < end {
        tokio::time::sleep(CHURN).await;
        workers.replace_one(target, behaviour).await?;
        if let Some(ended) = clients.try_join_next() {
            ended??;
        }
        if sampled.elapsed() >= SAMPLE {
            sampled = Instant::now();
            let resident = Usage::of(target.pid).resident;
            samples.push((
                started.elapsed().as_secs_f64(),
                resident,
                descriptors(target.pid),
            ));
        }
    }
    clients.shutdown().await;
    let left = settled(target, &graphs).await?;
    let ping = ping.stop()?;
    // The load comes in waves: the middle of what a sixth of the time has shown.
    let of_sixth = |number: usize| {
        let sixth = (samples.len() / 6).max(1);
        let some = samples.iter().skip(number * sixth).take(sixth);
        let mut some: Vec<u64> = some.map(|&(_, resident, _)| resident).collect();
        some.sort_unstable();
        some.get(some.len() / 2).copied().unwrap_or(0)
    };
    let (early, late) = (of_sixth(1), of_sixth(5));
    let rest = Usage::of(target.pid).resident;
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Ok(json!({
        "seconds": options.seconds,
        "graphs_finished": get(&counts.finished), "graphs_failed": get(&counts.failed), "clients_vanished": get(&counts.left),
        "tasks": get(&counts.tasks), "workers_vanished": workers.made() - options.workers,
        "early_mib": early as f64 / 1048576.0, "late_mib": late as f64 / 1048576.0, "rest_mib": rest as f64 / 1048576.0,
        "growth_percent": (late as f64 / early as f64 - 1.0) * 100.0,
        "keys_left": left, "descriptors_before": descriptors_before, "descriptors_after": descriptors(target.pid),
        "ping_ms": ping, "samples": samples,
    }))
}

/// One client after the other; every fifth vanishes before it has its results.
async fn visits(target: &Target, number: usize, graphs: &[Graph], counts: &Counts) -> Result<()> {
    for visit in number.. {
        let Some(graph) = graphs.get(visit % graphs.len().max(1)) else {
            bail!("no graphs");
        };
        let mut client = Client::connect(target, &format!("soak-{number}-{visit}")).await?;
        client.submit(graph).await?;
        counts
            .tasks
            .fetch_add(graph.keys.len() as u64, Ordering::Relaxed);
        if visit % 5 == 4 {
            tokio::time::sleep(Duration::from_millis((visit % 7) as u64 * 5)).await;
            counts.left.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        match client.wait(graph).await {
            Ok(()) => counts.finished.fetch_add(1, Ordering::Relaxed),
            Err(_) => counts.failed.fetch_add(1, Ordering::Relaxed),
        };
        client.release(graph).await?;
    }
    Ok(())
}

/// Keys and results that are left when all clients have gone and there was time.
async fn settled(target: &Target, graphs: &[Graph]) -> Result<usize> {
    let mut rpc = Rpc::connect(target).await?;
    let since = Instant::now();
    loop {
        let mut left = rpc.results().await?;
        for graph in graphs {
            let states = rpc.states(&graph.keys).await?;
            let states = states.as_map().unwrap_or(&[]).iter();
            left += states.filter(|(_, state)| !state.is_nil()).count();
        }
        if left == 0 || since.elapsed() > SETTLE {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
