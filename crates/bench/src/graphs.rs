//! Suite `graphs`: intake of one graph. The one worker keeps what it is given, so that the graph stays as it came.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::client::{Client, Rpc};
use crate::ping::Ping;
use crate::process::Usage;
use crate::versions::now;
use crate::worker::{Behaviour, Workers};
use crate::{GraphFile, Target, graph};

const POLL: Duration = Duration::from_millis(2);

/// What the suite takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    graph: GraphFile,
    /// Tasks of the graph
    #[arg(long)]
    tasks: u64,
}

/// Runs it; the figures.
pub(crate) async fn run(target: &Target, options: &Options) -> Result<Value> {
    let graphs = graph::read(&options.graph.graph, &target.release).await?;
    let Some(graph) = graphs.last() else {
        bail!("no graph");
    };
    let mut workers = Workers::start(target, 1, Behaviour::Hold).await?;
    let mut client = Client::connect(target, "load").await?;
    let mut rpc = Rpc::connect(target).await?;
    let last = graph.keys.last().context("a graph without keys")?;
    tokio::time::sleep(Duration::from_millis(300)).await;

    let ping = Ping::start(target);
    let before = Usage::of(target.pid);
    let (started, submitted) = (Instant::now(), now());
    // Sent and asked at once: the scheduler may answer while it still reads.
    let send = client.submit(graph);
    let registered = async {
        while !rpc.knows(last).await? {
            tokio::time::sleep(POLL).await;
        }
        Ok(started.elapsed())
    };
    let (sent, registered) = tokio::join!(send, registered);
    sent?;
    let registered = registered.map_err(|error: anyhow::Error| error.context("registration"))?;
    let first = loop {
        if let Some(first) = workers.seen.first() {
            break first - submitted;
        }
        workers.check()?;
        tokio::time::sleep(POLL).await;
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = Usage::of(target.pid);
    let ping = ping.stop()?;
    let tasks = options.tasks as f64;
    Ok(json!({
        "tasks": options.tasks,
        "message_bytes": graph.message.wire_bytes(),
        "first_task_s": first,
        "registered_s": registered.as_secs_f64(),
        "scheduler_cpu_us_per_task": after.cpu_since(&before) * 1e6 / tasks,
        "scheduler_bytes_per_task": (after.resident as f64 - before.resident as f64) / tasks,
        "peak_bytes_per_task": (after.peak as f64 - before.resident as f64) / tasks,
        "ping_ms": ping,
    }))
}
