//! What workers ask the scheduler: heartbeats and the like.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::worker::WorkerMetrics;
use oxidask_wire::value::Value;

use crate::clock;
use crate::context::Context;
use crate::rpc::{Call, Reply};

/// `heartbeat_worker`: figures of a worker. A worker that is not registered is told so, and leaves
/// (or registers again, up to 2022.05.0).
pub async fn heartbeat_worker(context: Arc<Context>, mut call: Call) -> Reply {
    let address = call.str("address")?.to_owned();
    let Some(worker) = context.workers.at(&address) else {
        tracing::warn!(target: "distributed.scheduler", "Received heartbeat from unregistered worker '{address}'.");
        return Ok(Value::map([("status", "missing")]));
    };
    let now = clock::now();
    let metrics = call.take("metrics");
    let executing = seconds_by_key(call.get("executing"));
    context.core.send(Event::Heartbeat {
        worker: worker.id,
        metrics: metrics_of(&metrics),
        executing,
    });
    {
        let mut live = worker.live.lock();
        live.metrics = metrics;
        live.last_seen = now;
        if let Some(sent) = call.get("now").and_then(Value::as_f64) {
            live.time_delay = now.0 - sent;
        }
    }
    for (name, data) in call
        .get("extensions")
        .and_then(Value::as_map)
        .unwrap_or(&[])
    {
        let Some(name) = name.as_str() else { continue };
        for extension in &context.extensions {
            extension.heartbeat(&context, &worker, name, data);
        }
    }
    Ok(Value::map([
        ("status", Value::from("OK")),
        ("time", now.0.into()),
        (
            "heartbeat-interval",
            context.workers.heartbeat_interval().into(),
        ),
    ]))
}

fn seconds_by_key(value: Option<&Value>) -> Vec<(Key, f64)> {
    let entries = value.and_then(Value::as_map).unwrap_or(&[]);
    entries
        .iter()
        .filter_map(|(key, seconds)| Some((key.to_key()?, seconds.as_f64()?)))
        .collect()
}

/// The figures of `metrics` that decide something, in the forms of all releases.
pub fn metrics_of(metrics: &Value) -> WorkerMetrics {
    let number =
        |value: Option<&Value>| value.and_then(Value::as_f64).unwrap_or(0.0).max(0.0) as u64;
    // `spilled_bytes` since 2022.10.0; before `spilled_nbytes`, a map since 2022.02.1.
    let spilled = metrics
        .get("spilled_bytes")
        .or_else(|| metrics.get("spilled_nbytes"));
    let (spilled_memory, spilled_disk) = match spilled {
        Some(map @ Value::Map(_)) => (number(map.get("memory")), number(map.get("disk"))),
        plain => (number(plain), number(plain)),
    };
    WorkerMetrics {
        memory: number(metrics.get("memory")),
        managed_bytes: number(metrics.get("managed_bytes")),
        spilled_memory,
        spilled_disk,
        bandwidth: metrics
            .get("bandwidth")
            .and_then(|bandwidth| bandwidth.get("total"))
            .and_then(Value::as_f64),
        time: metrics.get("time").and_then(Value::as_f64).unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spilled_memory_is_found_in_every_form() {
        let of = |name: &str, value: Value| {
            let metrics = metrics_of(&Value::map([(name, value)]));
            (metrics.spilled_memory, metrics.spilled_disk)
        };
        let both = || Value::map([("memory", 5), ("disk", 3)]);
        assert_eq!(of("spilled_bytes", both()), (5, 3));
        assert_eq!(of("spilled_nbytes", both()), (5, 3));
        assert_eq!(of("spilled_nbytes", 7.into()), (7, 7));
        assert_eq!(metrics_of(&Value::Nil), WorkerMetrics::default());
    }
}
