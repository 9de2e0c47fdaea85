//! Suite `latency`: from submission to result of graphs of one task, one after the other, at idle or beside a large graph.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::client::Client;
use crate::ping::{Ping, percentiles};
use crate::worker::{Behaviour, Workers};
use crate::{GraphFile, Target, graph};

/// Between a result and the next submission.
const PAUSE: Duration = Duration::from_millis(2);

/// What the suite takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    graph: GraphFile,
    /// A graph that another client has computed meanwhile, over and over
    #[arg(long)]
    load: Option<PathBuf>,
    /// Simulated workers of one thread
    #[arg(long, default_value_t = 10)]
    workers: usize,
}

/// Runs it; the figures.
pub(crate) async fn run(target: &Target, options: &Options) -> Result<Value> {
    let graphs = graph::read(&options.graph.graph, &target.release).await?;
    let Some((warm_up, graphs)) = graphs.split_first() else {
        bail!("no graphs");
    };
    let workers = Workers::start(target, options.workers, Behaviour::Finish(28)).await?;
    let mut client = Client::connect(target, "load").await?;
    client.submit(warm_up).await?;
    client.wait(warm_up).await?;
    let load = options
        .load
        .as_ref()
        .map(|path| tokio::spawn(keep_busy(target.clone(), path.clone())));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ping = Ping::start(target);
    let mut times = Vec::new();
    for graph in graphs {
        let started = Instant::now();
        client.submit(graph).await?;
        client.wait(graph).await?;
        times.push(started.elapsed().as_secs_f64());
        client.release(graph).await?;
        tokio::time::sleep(PAUSE).await;
        if load
            .as_ref()
            .is_some_and(tokio::task::JoinHandle::is_finished)
        {
            bail!("the load ended early");
        }
    }
    if let Some(load) = load {
        load.abort();
    }
    let ping = ping.stop()?;
    drop(workers);
    Ok(json!({
        "submit_to_result_ms": percentiles(&mut times, 1e3), "loaded": options.load.is_some(), "ping_ms": ping,
    }))
}

async fn keep_busy(target: Target, path: PathBuf) -> Result<()> {
    let graphs = graph::read(&path, &target.release).await?;
    let mut client = Client::connect(&target, "busy").await?;
    loop {
        for graph in &graphs {
            client.submit(graph).await?;
            client.wait(graph).await?;
            client.release(graph).await?;
        }
    }
}
