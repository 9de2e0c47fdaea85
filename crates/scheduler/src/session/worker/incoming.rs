//! Messages of a worker's stream → events of the core.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_scheduler_core::event::{Event, StartStop, TaskErred, TaskFinished};
use oxidask_scheduler_core::ids::RunId;
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_scheduler_core::worker::WorkerStatus;
use oxidask_wire::error::DecodeError;
use oxidask_wire::message::worker::{self as wire, FromWorker};
use oxidask_wire::message::{ErrorObject, Item, Message};
use oxidask_wire::value::Value;

use crate::clock;
use crate::workers::WorkerEntry;

/// What one message asks for, besides events.
pub(super) enum Step {
    /// Nothing else.
    Continue,
    /// An op of an extension; a map with `op`.
    Extension(Value),
    /// The worker leaves.
    Close,
}

/// Shares the action names of `startstops`, of which there are a handful.
fn action(name: &str) -> Arc<str> {
    thread_local! {
        static KNOWN: [Arc<str>; 5] =
            ["compute", "transfer", "deserialize", "disk-read", "disk-write"].map(Arc::from);
    }
    KNOWN.with(|known| {
        let found = known.iter().find(|action| &***action == name);
        found.map_or_else(|| name.into(), Arc::clone)
    })
}

/// Names the cause of what a worker tells when it does not itself (before 2022.04.2).
fn stimulus(given: Option<&str>, op: &str) -> Arc<str> {
    match given {
        Some(id) => id.into(),
        None => clock::now().name(op),
    }
}

/// What one result of a worker mostly has in common with the one before: shared instead of copied.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    type_: Option<(Bytes, Opaque)>,
    typename: Option<Arc<str>>,
}

impl Repeated {
    fn type_(&mut self, pickle: &[u8], message: &Message) -> Opaque {
        match &self.type_ {
            Some((last, shared)) if **last == *pickle => shared.clone(),
            _ => {
                let pickle = message.keep(pickle);
                let shared = Opaque::new(pickle.clone());
                self.type_ = Some((pickle, shared.clone()));
                shared
            }
        }
    }

    fn typename(&mut self, name: &str) -> Arc<str> {
        match &self.typename {
            Some(last) if **last == *name => Arc::clone(last),
            _ => Arc::clone(self.typename.insert(name.into())),
        }
    }
}

/// Turns one item of the worker's stream into events, and what is to be done besides. While
/// `record` is set, messages of finished tasks are kept whole.
///
/// # Errors
/// When the item is not a message that a worker may send.
pub(super) fn step(
    worker: &WorkerEntry,
    item: &Item<'_>,
    record: bool,
    repeated: &mut Repeated,
    events: &mut Vec<Event>,
) -> Result<Step, DecodeError> {
    let id = worker.id;
    let op = item.op;
    let mut one = |event: Event| {
        events.push(event);
        Ok(Step::Continue)
    };
    match FromWorker::decode(item)? {
        FromWorker::TaskFinished(task) => {
            let raw = record.then(|| item.value().map(Opaque::new)).transpose()?;
            one(finished(worker, task, item.message, repeated, raw))
        }
        FromWorker::TaskErred(task) => {
            let raw = record.then(|| item.value().map(Opaque::new)).transpose()?;
            one(erred(worker, task, raw))
        }
        FromWorker::ReleaseWorkerData { keys, stimulus_id } => {
            let stimulus_id = stimulus(stimulus_id, op);
            let release = |key| Event::ReleaseWorkerData {
                worker: id,
                key,
                stimulus_id: Arc::clone(&stimulus_id),
            };
            events.extend(keys.into_iter().map(release));
            Ok(Step::Continue)
        }
        FromWorker::AddKeys { keys, stimulus_id } => one(Event::AddKeys {
            worker: id,
            keys,
            stimulus_id: stimulus(stimulus_id, op),
        }),
        FromWorker::LongRunning {
            key,
            compute_duration,
            run_id,
            stimulus_id,
        } => one(Event::LongRunning {
            worker: id,
            key,
            compute_duration,
            run_id: run_id.map(RunId),
            stimulus_id: stimulus(stimulus_id, op),
        }),
        FromWorker::Reschedule { key, stimulus_id } => one(Event::Reschedule {
            worker: Some(id),
            key,
            stimulus_id: stimulus(stimulus_id, op),
        }),
        FromWorker::StealResponse {
            key,
            state,
            stimulus_id,
        } => one(Event::StealResponse {
            worker: id,
            key,
            state: state.map(Arc::from),
            stimulus_id: stimulus_id.unwrap_or_default().into(),
        }),
        FromWorker::WorkerStatusChange {
            status,
            stimulus_id,
        } => {
            events.extend(status_change(worker, status, stimulus(stimulus_id, op)));
            Ok(Step::Continue)
        }
        FromWorker::RequestRefreshWhoHas { keys, stimulus_id } => {
            one(Event::RequestRefreshWhoHas {
                worker: id,
                keys,
                stimulus_id: stimulus(stimulus_id, op),
            })
        }
        FromWorker::MissingData {
            key,
            errant_worker,
            stimulus_id,
        } => one(Event::MissingData {
            worker: id,
            key,
            errant_worker: errant_worker.into(),
            stimulus_id: stimulus(stimulus_id, op),
        }),
        FromWorker::KeepAlive => one(Event::WorkerSeen { worker: id }),
        // The worker only confirms what the scheduler asked for.
        FromWorker::Release { .. } => Ok(Step::Continue),
        FromWorker::CloseStream => Ok(Step::Close),
        FromWorker::LogEvent { .. } | FromWorker::Extension(_) | FromWorker::Unknown(_) => {
            Ok(Step::Extension(item.value()?))
        }
    }
}

fn status_change(worker: &WorkerEntry, status: &str, stimulus_id: Arc<str>) -> Option<Event> {
    let Some(status) = WorkerStatus::parse(status) else {
        let address = &worker.info.address;
        tracing::warn!("worker {address} tells an unknown status {status:?}; ignored");
        return None;
    };
    Some(Event::WorkerStatusChanged {
        worker: worker.id,
        status,
        stimulus_id,
    })
}

fn finished(
    worker: &WorkerEntry,
    task: wire::TaskFinished<'_>,
    message: &Message,
    repeated: &mut Repeated,
    raw: Option<Opaque>,
) -> Event {
    Event::TaskFinished(Box::new(TaskFinished {
        worker: worker.id,
        key: task.key,
        run_id: task.run_id.map(RunId),
        nbytes: task.nbytes,
        type_: task.type_.map(|pickle| repeated.type_(pickle, message)),
        typename: repeated.typename(task.typename.unwrap_or_default()),
        startstops: startstops(task.startstops.as_deref().unwrap_or_default()),
        metadata: match task.metadata {
            Value::Nil => None,
            Value::Map(entries) if entries.is_empty() => None,
            metadata => Some(Opaque::new(metadata)),
        },
        raw,
        stimulus_id: stimulus(task.stimulus_id, "task-finished"),
    }))
}

fn erred(worker: &WorkerEntry, task: wire::TaskErred<'_>, raw: Option<Opaque>) -> Event {
    let unknown = || ErrorObject::Text(task.exception_text.to_owned());
    Event::TaskErred(Box::new(TaskErred {
        worker: worker.id,
        key: task.key.clone(),
        run_id: task.run_id.map(RunId),
        exception: Opaque::new(task.exception.clone().unwrap_or_else(unknown)),
        traceback: task.traceback.clone().map(Opaque::new),
        exception_text: task.exception_text.into(),
        traceback_text: task.traceback_text.into(),
        raw,
        stimulus_id: stimulus(task.stimulus_id, "task-erred"),
    }))
}

fn startstops(from: &[oxidask_wire::message::StartStop<'_>]) -> Vec<StartStop> {
    let convert = |entry: &oxidask_wire::message::StartStop<'_>| StartStop {
        action: action(entry.action),
        start: entry.start,
        stop: entry.stop,
    };
    from.iter().map(convert).collect()
}
