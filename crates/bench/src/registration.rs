//! How simulated workers make themselves known, and that they live.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use oxidask_wire::connection::ConnectOptions;
use oxidask_wire::{Connection, Generation, Message, Release, Value};
use tokio::task::JoinSet;

use crate::Target;
use crate::versions::{now, versions};

/// First release with `status`, `server_id` and the like in a registration.
const STATUS: Release = Release::new(2022, 12, 0);
/// Seconds between heartbeats as long as the scheduler has not said how many.
const FIRST_INTERVAL: f64 = 5.0;

/// A connection to the scheduler.
pub(crate) async fn open(target: &Target) -> Result<Connection> {
    let options = ConnectOptions {
        generation: Generation::of(&target.release),
        ..ConnectOptions::default()
    };
    Ok(Connection::connect(&target.address, &options).await?)
}

/// What the worker of this number calls itself.
pub(crate) fn address(number: usize) -> String {
    let (high, middle, low) = (number / 60_000, number / 250 % 250, number % 250 + 1);
    format!("tcp://10.{high}.{middle}.{low}:40000")
}

/// Has so many workers say that they live, as often as the scheduler wants, until it is dropped.
pub(crate) async fn heartbeats(target: &Target, count: usize) -> Result<JoinSet<Result<()>>> {
    let mut beating = JoinSet::new();
    for number in 0..count {
        let mut connection = open(target).await?;
        beating.spawn(async move {
            // Not all at the same moment.
            let phase = (number * 7919 % 1000) as f64 / 1000.0;
            let mut interval = FIRST_INTERVAL;
            let mut pause = interval * phase;
            loop {
                tokio::time::sleep(Duration::from_secs_f64(pause)).await;
                connection.send(&heartbeat(number)).await?;
                let answer = connection.read().await?.value()?;
                let asked = answer.get("heartbeat-interval").and_then(Value::as_f64);
                let asked = asked.context("an answer without an interval")?;
                pause = if asked == interval {
                    asked
                } else {
                    asked * phase
                };
                interval = asked;
            }
        });
    }
    Ok(beating)
}

fn heartbeat(number: usize) -> Message {
    let empty = || Value::Map(Vec::new());
    Message::from_value(&Value::map([
        ("op", Value::from("heartbeat_worker")),
        ("reply", true.into()),
        ("address", address(number).into()),
        ("now", now().into()),
        ("metrics", metrics()),
        ("executing", empty()),
        ("extensions", empty()),
    ]))
}

/// Connects a worker and registers it.
pub(crate) async fn register(target: &Target, number: usize) -> Result<Connection> {
    let mut connection = open(target).await?;
    let request = Message::from_value(&registration(&target.release, number));
    connection.send(&request).await?;
    let reply = connection.read().await?.value()?;
    if reply.get("status").and_then(Value::as_str) != Some("OK") {
        bail!("worker {number} was not let in: {reply:?}");
    }
    Ok(connection)
}

fn registration(release: &Release, number: usize) -> Value {
    let empty = || Value::Map(Vec::new());
    let mut fields = vec![
        ("op", Value::from("register-worker")),
        ("reply", false.into()),
        ("address", address(number).into()),
        ("nthreads", 1u32.into()),
        ("name", format!("load-{number}").into()),
        ("now", now().into()),
        ("resources", empty()),
        ("memory_limit", (16u64 << 30).into()),
        ("local_directory", "/nowhere".into()),
        ("services", empty()),
        ("nanny", Value::Nil),
        ("pid", 1u32.into()),
        ("versions", versions(release)),
        ("metrics", metrics()),
        ("extra", empty()),
    ];
    if *release >= STATUS {
        fields.extend([
            ("status", Value::from("running")),
            ("server_id", format!("Worker-load-{number}").into()),
            ("stimulus_id", "load".into()),
        ]);
    }
    Value::map(fields)
}

/// Fields of all releases.
fn metrics() -> Value {
    let empty = || Value::Map(Vec::new());
    let bandwidth = [
        ("total", Value::from(100_000_000u64)),
        ("workers", empty()),
        ("types", empty()),
    ];
    let spilled = [("memory", 0u32), ("disk", 0)];
    Value::map([
        ("bandwidth", Value::map(bandwidth)),
        ("cpu", 1.0.into()),
        ("memory", (100u64 << 20).into()),
        ("managed_bytes", 0u32.into()),
        ("spilled_bytes", Value::map(spilled)),
        ("spilled_nbytes", Value::map(spilled)),
        ("digests_total_since_heartbeat", empty()),
        ("task_counts", empty()),
        ("transfer", empty()),
        ("event_loop_interval", 0.02.into()),
        ("num_fds", 20u32.into()),
        ("time", now().into()),
        ("executing", 0u32.into()),
        ("in_memory", 0u32.into()),
        ("ready", 0u32.into()),
        ("in_flight", 0u32.into()),
        ("read_bytes", 0.0.into()),
        ("write_bytes", 0.0.into()),
    ])
}
