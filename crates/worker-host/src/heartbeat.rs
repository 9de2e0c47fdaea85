//! Telling the scheduler regularly that the worker lives, on a connection of its own. Python has no part
//! in it: a task that holds the interpreter for minutes does not make the worker look dead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use oxidask_wire::rpc::Request;
use oxidask_wire::{Connection, Release, Value};
use oxidask_worker_core::Worker;
use oxidask_worker_core::ids::Timestamp;

use crate::clock::now;
use crate::error::SchedulerError;
use crate::host::Handle;
use crate::loading::Loading;
use crate::metrics::{Figures, Meter, Surroundings};
use crate::peers::connect_options;
use crate::settings::Settings;

/// First release whose schedulers know `executing` in a heartbeat.
const EXECUTING: Release = Release::new(2021, 1, 0);
/// First release whose schedulers know `extensions` in a heartbeat.
const EXTENSIONS: Release = Release::new(2022, 4, 0);
/// First release that has spans.
const SPANS: Release = Release::new(2023, 5, 0);
/// What spilling to disk is made of, in stock's names.
const WRITING: [&str; 3] = ["serialize", "compress", "disk-write"];
/// Bounds of what the scheduler may ask for, in seconds.
const INTERVAL: std::ops::Range<f64> = 0.05..3600.0;

/// Beats until the worker ends, or the scheduler says that it does not know it.
pub(crate) async fn beat(settings: Arc<Settings>, handle: Handle, first: f64) {
    let mut meter = Meter::new();
    let mut connection = None;
    let mut spilled = HashMap::new();
    let mut interval = first;
    loop {
        tokio::time::sleep(seconds(interval)).await;
        match once(
            &settings,
            &handle,
            &mut meter,
            &mut connection,
            &mut spilled,
        )
        .await
        {
            Ok(Some(wanted)) => interval = wanted,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!("Failed to communicate with scheduler during heartbeat: {error}");
                connection = None;
            }
        }
    }
}

/// One heartbeat; the interval that the scheduler wants, or nothing if it does not know us.
async fn once(
    settings: &Settings,
    handle: &Handle,
    meter: &mut Meter,
    connection: &mut Option<Connection>,
    spilled: &mut HashMap<(&'static str, &'static str), f64>,
) -> Result<Option<f64>, SchedulerError> {
    let at = now();
    let shared = handle.clone();
    let Some((figures, executing)) = handle
        .ask(move |core| (Figures::of(core), executing(core, shared.loading(), at)))
        .await
    else {
        // The worker is ending.
        return Ok(Some(1.0));
    };
    for (activity, unit, value) in handle.memory().cumulative() {
        if WRITING.contains(&activity) {
            let before = spilled.insert((activity, unit), value).unwrap_or(0.0);
            let label = ["memory-monitor", activity, unit];
            handle.digests().activity(label, value - before);
        }
    }
    let digests = handle.digests().take();
    let around = Surroundings::take(handle, &digests);
    let mut metrics = meter.metrics(&figures, around, &settings.release);
    let additions = handle.additions();
    for (name, value) in additions.metrics {
        if let Some(name) = name.as_str().filter(|name| metrics.get(name).is_none()) {
            metrics.insert(name, value);
        }
    }
    let mut args = Value::map([
        ("address", Value::from(handle.address())),
        ("now", at.0.into()),
        ("metrics", metrics),
    ]);
    if settings.release >= EXECUTING {
        args.insert("executing", executing);
    }
    if settings.release >= EXTENSIONS {
        let mut extensions = Value::Map(additions.extensions);
        if settings.release >= SPANS {
            extensions.insert("spans", digests.by_span());
        }
        args.insert("extensions", extensions);
    }
    let request = Request::new("heartbeat_worker", args).to_message();
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::connect(&settings.scheduler, &connect_options(settings)).await?,
    };
    open.send(&request).await?;
    let reply = open.read().await?.value()?;
    *connection = Some(open);
    handle.told_latency(now().since(at));
    match reply.get("status").and_then(Value::as_str) {
        Some("missing") => return Ok(None),
        Some("OK") => {}
        status => tracing::warn!("the scheduler answers a heartbeat with {status:?}"),
    }
    Ok(Some(interval_in(&reply)))
}

/// Seconds that tasks have run, those not that are being unpickled.
fn executing(core: &Worker, loading: &Loading, at: Timestamp) -> Value {
    loading.retain(|attempt| core.attempts().any(|a| a.attempt == attempt));
    let wanted = core.attempts().filter(|attempt| attempt.wanted);
    wanted
        .filter_map(|attempt| {
            let since = loading.runs_since(attempt.attempt, attempt.started)?;
            Some((attempt.key, at.since(since)))
        })
        .collect()
}

/// What a reply of the scheduler says about the interval, in seconds.
pub(crate) fn interval_in(reply: &Value) -> f64 {
    let wanted = reply.get("heartbeat-interval").and_then(Value::as_f64);
    wanted.unwrap_or(1.0).clamp(INTERVAL.start, INTERVAL.end)
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_scheduler_can_ask_for_madness() {
        let reply = |interval: f64| Value::map([("heartbeat-interval", interval)]);
        assert_eq!(interval_in(&reply(0.5)), 0.5);
        assert_eq!(interval_in(&reply(-1.0)), INTERVAL.start);
        assert_eq!(interval_in(&reply(1e300)), INTERVAL.end);
        assert_eq!(interval_in(&Value::Nil), 1.0);
    }
}
