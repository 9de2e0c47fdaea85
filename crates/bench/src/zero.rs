//! Suite `zero`: a graph on workers that finish at once, so that only the scheduler works.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::client::{Client, Rpc};
use crate::graph::{self, Graph};
use crate::ping::Ping;
use crate::process::Usage;
use crate::worker::{Behaviour, Workers};
use crate::{GraphFile, Target};

/// How often the end of releasing is looked for.
const POLL: Duration = Duration::from_millis(5);

/// What the suite takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    graph: GraphFile,
    /// Simulated workers of one thread
    #[arg(long, default_value_t = 10)]
    workers: usize,
    /// Size of each result in bytes, as told to the scheduler
    #[arg(long, default_value_t = 28)]
    nbytes: u64,
    /// Wait so long before and after the graph, in seconds (for profilers)
    #[arg(long, default_value_t = 0.2)]
    settle: f64,
}

/// Runs it; the figures.
pub(crate) async fn run(target: &Target, options: &Options) -> Result<Value> {
    let graphs = graph::read(&options.graph.graph, &target.release).await?;
    let [warm_up, graph] = graphs.as_slice() else {
        bail!("{} graphs instead of a warm-up and one", graphs.len());
    };
    let connecting = Instant::now();
    let behaviour = Behaviour::Finish(options.nbytes);
    let mut workers = Workers::start(target, options.workers, behaviour).await?;
    let connecting = connecting.elapsed();
    let mut client = Client::connect(target, "load").await?;
    client.submit(warm_up).await?;
    client.wait(warm_up).await?;
    tokio::time::sleep(Duration::from_secs_f64(options.settle)).await;

    let mut figures = measured(target, &mut client, graph, &mut workers).await?;
    if let Some(figures) = figures.as_object_mut() {
        figures.insert("workers".to_owned(), options.workers.into());
        figures.insert("connect_s".to_owned(), connecting.as_secs_f64().into());
    }
    Ok(figures)
}

/// Has a graph computed and forgotten; the figures.
pub(crate) async fn measured(
    target: &Target,
    client: &mut Client,
    graph: &Graph,
    workers: &mut Workers,
) -> Result<Value> {
    let ping = Ping::start(target);
    workers.seen.reset();
    let (before, ours) = (Usage::of(target.pid), Usage::of(std::process::id()));
    let started = Instant::now();
    client.submit(graph).await?;
    client.wait(graph).await?;
    let wall = started.elapsed();
    let after = Usage::of(target.pid);
    let load = Usage::of(std::process::id()).cpu_since(&ours);
    let tasks = workers.seen.tasks.load(Ordering::Relaxed);

    let releasing = Instant::now();
    let mut rpc = Rpc::connect(target).await?;
    let last = graph.keys.last().context("a graph without keys")?;
    client.release(graph).await?;
    while rpc.knows(last).await? {
        tokio::time::sleep(POLL).await;
    }
    let releasing = releasing.elapsed();
    let released = Usage::of(target.pid);
    let ping = ping.stop()?;
    workers.check()?;

    let per_task = |seconds: f64| seconds * 1e6 / tasks as f64;
    Ok(json!({
        "tasks": tasks,
        "scheduler_cpu_us_per_task": per_task(after.cpu_since(&before)),
        "wall_us_per_task": per_task(wall.as_secs_f64()),
        "tasks_per_second": tasks as f64 / wall.as_secs_f64(),
        "load_cpu_us_per_task": per_task(load),
        "scheduler_bytes_per_task": (after.resident as f64 - before.resident as f64) / tasks as f64,
        "release_cpu_us_per_task": per_task(released.cpu_since(&after)),
        "release_wall_us_per_task": per_task(releasing.as_secs_f64()),
        "ping_ms": ping,
    }))
}
