//! Questions to the core, in the form handlers want the answers.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::effect::{LoggedEvent, PlainValue};
use oxidask_scheduler_core::ids::WorkerId;
use oxidask_scheduler_core::worker::WorkerStatus;
use oxidask_wire::value::Value;

use crate::clock;
use crate::core_thread::{CoreHandle, CoreStopped};

/// An entry of the event log that the core made, as peers see it. Under the topic of a worker it
/// goes without saying which worker is meant.
pub fn logged_event(topics: &[Arc<str>], event: LoggedEvent) -> Value {
    let of_worker = |mut event: Value, worker: Arc<str>| {
        if !topics.contains(&worker) {
            event.insert("worker", &worker);
        }
        event
    };
    match event {
        LoggedEvent::AddWorker { worker } => {
            of_worker(Value::map([("action", "add-worker")]), worker)
        }
        LoggedEvent::RemoveWorker {
            worker,
            processing_tasks,
            lost_computed_tasks,
            lost_scattered_tasks,
            stimulus_id,
            expected,
        } => {
            let event = Value::map([
                ("action", Value::from("remove-worker")),
                ("processing-tasks", Value::set(processing_tasks)),
                ("lost-computed-tasks", Value::set(lost_computed_tasks)),
                ("lost-scattered-tasks", Value::set(lost_scattered_tasks)),
                ("stimulus_id", stimulus_id.into()),
                ("expected", expected.into()),
            ]);
            of_worker(event, worker)
        }
        LoggedEvent::UpdateGraph {
            stimulus_id,
            received,
            tasks,
        } => {
            let status = if tasks.is_some() { "OK" } else { "cancelled" };
            let mut event = Value::map([
                ("action", Value::from("update-graph")),
                ("stimulus_id", stimulus_id.into()),
                ("status", status.into()),
            ]);
            if let Some((tasks, new_tasks)) = tasks {
                let metrics = Value::map([
                    ("tasks", Value::from(tasks)),
                    ("new_tasks", new_tasks.into()),
                    ("start_timestamp_seconds", received.0.into()),
                    ("duration_seconds", clock::now().since(received).into()),
                ]);
                event.insert("metrics", metrics);
            }
            event
        }
        LoggedEvent::Plain(fields) => {
            Value::map(fields.into_iter().map(|(name, value)| (name, plain(value))))
        }
        LoggedEvent::Row(values) => plain(PlainValue::Row(values)),
    }
}

fn plain(value: PlainValue) -> Value {
    match value {
        PlainValue::None => Value::Nil,
        PlainValue::Str(text) => text.into(),
        PlainValue::Int(number) => number.into(),
        PlainValue::Float(number) => number.into(),
        PlainValue::Key(key) => Value::from(&key),
        PlainValue::KeySet(keys) => Value::set(keys),
        PlainValue::Bool(flag) => flag.into(),
        PlainValue::Row(values) => Value::array(values.into_iter().map(plain)),
    }
}

/// What handlers ask about a worker.
#[derive(Clone, Debug, Default)]
pub struct WorkerStateView {
    /// Its status.
    pub status: WorkerStatus,
    /// Abstract resources it offers.
    pub resources: Vec<(Arc<str>, f64)>,
}

/// Status and resources of these workers, in their order; defaults for those that are gone.
///
/// # Errors
/// When the core has stopped.
pub async fn worker_states(
    core: &CoreHandle,
    ids: Vec<WorkerId>,
) -> Result<Vec<WorkerStateView>, CoreStopped> {
    core.look(move |state| {
        let view = |id: WorkerId| match state.worker(id) {
            Some(worker) => WorkerStateView {
                status: worker.status(),
                resources: worker.resources().to_vec(),
            },
            None => WorkerStateView {
                status: WorkerStatus::Closed,
                resources: Vec::new(),
            },
        };
        ids.into_iter().map(view).collect()
    })
    .await
}

/// Addresses of the holders of each key; none for unknown keys.
///
/// # Errors
/// When the core has stopped.
pub async fn who_has(
    core: &CoreHandle,
    keys: Vec<Key>,
) -> Result<Vec<(Key, Vec<Arc<str>>)>, CoreStopped> {
    core.query(move |state| {
        let holders = |key: Key| {
            let task = state.task(&key);
            let holders = task.iter().flat_map(|task| task.who_has());
            let holders = holders.map(|worker| Arc::clone(worker.address())).collect();
            (key, holders)
        };
        keys.into_iter().map(holders).collect()
    })
    .await
}

/// Addresses of the workers that take tasks.
///
/// # Errors
/// When the core has stopped.
pub async fn running_workers(core: &CoreHandle) -> Result<Vec<Arc<str>>, CoreStopped> {
    core.query(|state| {
        let running = state.running();
        running.map(|worker| Arc::clone(worker.address())).collect()
    })
    .await
}
