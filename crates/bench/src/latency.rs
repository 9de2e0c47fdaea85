//! Suite `latency`: from submission to result of graphs of one task, one after the other, at idle or beside a large graph; and, at idle,
//! from the loss of the worker that holds a result to the news that it is in memory again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::client::{Client, Rpc};
use crate::graph::Graph;
use crate::ping::{Ping, percentiles};
use crate::worker::{Behaviour, Workers};
use crate::{GraphFile, Target, graph};

/// Between a result and the next submission.
const PAUSE: Duration = Duration::from_millis(2);

/// What the workers do with tasks.
const FINISH: Behaviour = Behaviour::Finish(28);
/// Longest time from the loss of a worker to the news.
const REACTION: Duration = Duration::from_secs(60);

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
    /// Workers that vanish, one after the other, with a result that nobody else has; none beside a load
    #[arg(long, default_value_t = 30)]
    losses: usize,
}

/// Runs it; the figures.
pub(crate) async fn run(target: &Target, options: &Options) -> Result<Value> {
    let graphs = graph::read(&options.graph.graph, &target.release).await?;
    let Some((warm_up, graphs)) = graphs.split_first() else {
        bail!("no graphs");
    };
    let mut workers = Workers::start(target, options.workers, FINISH).await?;
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
    let mut figures = json!({
        "submit_to_result_ms": percentiles(&mut times, 1e3), "loaded": options.load.is_some(), "ping_ms": ping,
    });
    if options.load.is_none() {
        let mut times = Vec::new();
        let mut rpc = Rpc::connect(target).await?;
        for graph in graphs.iter().cycle().take(options.losses) {
            let took = reaction(target, &mut client, &mut rpc, &mut workers, graph).await?;
            times.push(took.as_secs_f64());
        }
        figures["loss_to_result_ms"] = percentiles(&mut times, 1e3);
    }
    Ok(figures)
}

/// Has a graph computed, then its worker vanish. The time from there to the news that the result is in memory again.
async fn reaction(
    target: &Target,
    client: &mut Client,
    rpc: &mut Rpc,
    workers: &mut Workers,
    graph: &Graph,
) -> Result<Duration> {
    client.submit(graph).await?;
    client.wait(graph).await?;
    let key = graph.keys.first().context("a graph without keys")?;
    let holder = rpc.holder(key).await?.context("nobody has the result")?;
    // Whatever the submission has caused is over.
    tokio::time::sleep(PAUSE).await;
    let started = Instant::now();
    ensure!(workers.lose(&holder), "{holder} is none of ours");
    let again = tokio::time::timeout(REACTION, client.wait(graph)).await;
    again.context("the result has not come back")??;
    let took = started.elapsed();
    let now = rpc.holder(key).await?;
    ensure!(
        now.as_ref() != Some(&holder),
        "{holder} still has the result"
    );
    client.release(graph).await?;
    workers.add_one(target, FINISH).await?;
    tokio::time::sleep(PAUSE).await;
    Ok(took)
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
