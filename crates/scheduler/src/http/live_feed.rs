//! Snapshots of the running scheduler.

use std::collections::BTreeMap;

use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::views::{PrefixView, WorkerView};
use oxidask_wire::value::Value;

use super::feed::{
    MAX_PREFIXES, MemoryFigures, PrefixProgress, SchedulerFigures, Snapshot, TaskFigures, Topics,
    WorkerFigures,
};
use super::process::ProcessFigures;
use crate::clock;
use crate::context::Context;
use crate::core_thread::CoreStopped;

/// The cluster now.
pub(super) async fn snapshot(context: &Context, topics: Topics) -> Result<Snapshot, CoreStopped> {
    let question = move |scheduler: &Scheduler| {
        let workers = topics
            .workers
            .then(|| scheduler.workers().map(worker).collect());
        let tasks = topics.prefixes.then(|| tasks(scheduler));
        (workers, tasks, scheduler.total_occupancy())
    };
    let (workers, tasks, occupancy) = context.core.look(question).await?;
    Ok(Snapshot {
        time: clock::now().0,
        scheduler: topics.scheduler.then(|| scheduler(context, occupancy)),
        workers: workers.map(|mut workers: Vec<WorkerFigures>| {
            for worker in &mut workers {
                worker.cpu = cpu_of(context, &worker.address);
            }
            workers
        }),
        tasks,
    })
}

fn scheduler(context: &Context, occupancy: f64) -> SchedulerFigures {
    let process = ProcessFigures::read();
    let identity = &context.identity;
    SchedulerFigures {
        address: identity.address.to_string(),
        id: identity.id.clone(),
        started: identity.started.0,
        clients: context.clients.connected().len(),
        cpu_seconds: process.cpu_seconds,
        memory: process.resident_bytes,
        open_fds: process.open_fds,
        pending_events: context.core.pending_events(),
        occupancy,
    }
}

/// As the worker told with its last heartbeat.
fn cpu_of(context: &Context, address: &str) -> f64 {
    let worker = context.workers.at(address);
    let cpu = worker.and_then(|worker| {
        worker
            .live
            .lock()
            .metrics
            .get("cpu")
            .and_then(Value::as_f64)
    });
    cpu.filter(|cpu| cpu.is_finite()).unwrap_or(0.0)
}

fn worker(worker: WorkerView<'_>) -> WorkerFigures {
    let memory = worker.memory();
    WorkerFigures {
        address: worker.address().to_string(),
        name: worker.name().to_string(),
        host: worker.info().host.to_string(),
        status: worker.status().as_str(),
        nthreads: worker.nthreads(),
        cpu: 0.0,
        memory: MemoryFigures {
            process: memory.process,
            managed: memory.managed,
            unmanaged_old: memory.unmanaged_old,
            unmanaged_recent: memory.unmanaged_recent(),
            spilled: memory.spilled,
            limit: worker.memory_limit(),
        },
        processing: worker.processing_len(),
        in_memory: worker.has_what_len(),
        occupancy: worker.occupancy(),
        last_seen: clock::now().since(worker.last_seen()).max(0.0),
    }
}

fn tasks(scheduler: &Scheduler) -> TaskFigures {
    let mut all = BTreeMap::new();
    let mut prefixes: Vec<(u64, PrefixView<'_>)> = Vec::new();
    for prefix in scheduler.task_prefixes() {
        let mut size = 0;
        for (state, count) in present(prefix) {
            *all.entry(state).or_default() += count;
            size += count;
        }
        if size > 0 {
            prefixes.push((size, prefix));
        }
    }
    prefixes.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    TaskFigures {
        states: all,
        more_prefixes: prefixes.len().saturating_sub(MAX_PREFIXES),
        prefixes: prefixes
            .into_iter()
            .take(MAX_PREFIXES)
            .map(|(_, prefix)| PrefixProgress {
                name: prefix.name().to_string(),
                states: present(prefix).collect(),
                duration_average: prefix.duration_average().filter(|time| time.is_finite()),
                nbytes: prefix.nbytes_total(),
            })
            .collect(),
    }
}

/// States with tasks; what is forgotten is not there any more.
fn present(prefix: PrefixView<'_>) -> impl Iterator<Item = (&'static str, u64)> {
    let states = prefix.states().into_iter();
    states
        .map(|(state, count)| (state.as_str(), count))
        .filter(|(state, count)| *count > 0 && *state != "forgotten")
}
