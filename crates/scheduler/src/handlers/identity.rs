//! `identity`: who the scheduler is and which workers it has.

use std::sync::Arc;

use oxidask_scheduler_core::ids::WorkerId;
use oxidask_scheduler_core::worker::WorkerStatus;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::rpc::{Call, Reply};
use crate::views;
use crate::workers::WorkerEntry;

/// The op. `n_workers` (≥ 2025.4.0): at most so many workers in detail, −1 for all.
pub async fn identity(context: Arc<Context>, call: Call) -> Reply {
    let limit = call.opt_i64("n_workers")?.unwrap_or(-1);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(scheduler_identity(&context, limit).await?)
}

/// The identity map with at most `limit` workers.
///
/// # Errors
/// When the core has stopped.
pub async fn scheduler_identity(
    context: &Context,
    limit: usize,
) -> Result<Value, crate::core_thread::CoreStopped> {
    let all = context.workers.all();
    let total_threads: u64 = all.iter().map(|w| u64::from(w.info.nthreads)).sum();
    let total_memory: u64 = all.iter().map(|w| w.info.memory_limit).sum();
    let shown: Vec<Arc<WorkerEntry>> = all.iter().take(limit).cloned().collect();
    let workers = worker_identities(context, &shown).await?;
    let identity = &context.identity;
    let services = identity.dashboard_port.map(|port| ("dashboard", port));
    Ok(Value::map([
        ("type", Value::from("Scheduler")),
        ("id", identity.id.as_str().into()),
        ("address", (&identity.address).into()),
        ("services", Value::map(services)),
        ("started", identity.started.0.into()),
        ("n_workers", all.len().into()),
        ("total_threads", total_threads.into()),
        ("total_memory", total_memory.into()),
        ("workers", workers.into_iter().collect()),
    ]))
}

/// Addresses and identities of these workers.
///
/// # Errors
/// When the core has stopped.
pub async fn worker_identities(
    context: &Context,
    workers: &[Arc<WorkerEntry>],
) -> Result<Vec<(Arc<str>, Value)>, crate::core_thread::CoreStopped> {
    let ids: Vec<WorkerId> = workers.iter().map(|w| w.id).collect();
    let states = views::worker_states(&context.core, ids).await?;
    let entry = |(worker, state): (&Arc<WorkerEntry>, views::WorkerStateView)| {
        let identity = worker_identity(worker, state.status, state.resources);
        (Arc::clone(&worker.info.address), identity)
    };
    Ok(workers.iter().zip(states).map(entry).collect())
}

/// One entry of `identity.workers`.
pub fn worker_identity(
    worker: &WorkerEntry,
    status: WorkerStatus,
    resources: Vec<(Arc<str>, f64)>,
) -> Value {
    let info = &worker.info;
    let (metrics, last_seen) = {
        let live = worker.live.lock();
        (live.metrics.clone(), live.last_seen)
    };
    let mut identity = Value::map([
        ("type", Value::from("Worker")),
        ("id", worker.name.clone()),
        ("host", (&info.host).into()),
        ("resources", amounts(resources)),
        ("local_directory", (&info.local_directory).into()),
        ("name", worker.name.clone()),
        ("nthreads", info.nthreads.into()),
        ("memory_limit", info.memory_limit.into()),
        ("last_seen", last_seen.0.into()),
        ("services", worker.services.clone()),
        ("metrics", metrics),
        ("status", status.as_str().into()),
        ("nanny", info.nanny.as_ref().into_value()),
    ]);
    for (name, value) in worker.extra.as_map().unwrap_or(&[]) {
        if let Some(name) = name.as_str() {
            identity.insert(name, value.clone());
        }
    }
    identity
}

/// Abstract resources as a map; whole numbers stay whole.
pub fn amounts(resources: Vec<(Arc<str>, f64)>) -> Value {
    Value::map(
        resources
            .into_iter()
            .map(|(name, amount)| (name.to_string(), number(amount))),
    )
}

/// A whole number as an int, as it most likely was sent.
pub fn number(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() < 9e15 {
        Value::Int(n as i64)
    } else {
        Value::Float(n)
    }
}

trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for Option<&Arc<str>> {
    fn into_value(self) -> Value {
        self.map_or(Value::Nil, Value::from)
    }
}
