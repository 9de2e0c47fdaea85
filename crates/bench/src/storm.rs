//! Suite `storm`: very many workers connect at once, then only say that they live, then work off a graph.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::client::Client;
use crate::ping::Ping;
use crate::process::Usage;
use crate::registration::heartbeats;
use crate::worker::{Behaviour, Workers};
use crate::{GraphFile, Target, graph, zero};

/// What the suite takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    graph: GraphFile,
    /// Simulated workers of one thread
    #[arg(long, default_value_t = 1000)]
    workers: usize,
    /// Seconds in which they do nothing but say that they live
    #[arg(long, default_value_t = 10.0)]
    rest: f64,
}

/// Runs it; the figures.
pub(crate) async fn run(target: &Target, options: &Options) -> Result<Value> {
    let graphs = graph::read(&options.graph.graph, &target.release).await?;
    let [warm_up, graph] = graphs.as_slice() else {
        bail!("{} graphs instead of a warm-up and one", graphs.len());
    };
    let before = Usage::of(target.pid);
    let ping = Ping::start(target);
    let (count, behaviour) = (options.workers, Behaviour::Finish(28));
    let connecting = Instant::now();
    let mut workers = Workers::start_by(target, count, behaviour, count).await?;
    let connecting = connecting.elapsed().as_secs_f64();
    let connected = Usage::of(target.pid);
    let ping = ping.stop()?;
    let mut beating = heartbeats(target, count).await?;
    // The scheduler says how often when it is first told.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (rested, resting) = (Usage::of(target.pid), Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(options.rest)).await;
    let at_rest = Usage::of(target.pid).cpu_since(&rested) / resting.elapsed().as_secs_f64();
    if let Some(ended) = beating.try_join_next() {
        ended??;
    }
    let mut client = Client::connect(target, "load").await?;
    client.submit(warm_up).await?;
    client.wait(warm_up).await?;
    let mut figures = zero::measured(target, &mut client, graph, &mut workers).await?;
    if let Some(figures) = figures.as_object_mut() {
        let mut add = |name: &str, value: Value| figures.insert(name.to_owned(), value);
        add("workers", count.into());
        add("connect_s", connecting.into());
        add("connect_cpu_s", connected.cpu_since(&before).into());
        add("connect_ping_ms", ping);
        add("rest_cpu_percent", (at_rest * 100.0).into());
        let bytes = connected.resident as f64 - before.resident as f64;
        add("bytes_per_worker", (bytes / count as f64).into());
    }
    Ok(figures)
}
