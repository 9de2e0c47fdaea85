//! Between the words of the wire and those of the state machine.

use oxidask_wire::message::order::{ComputeOrder, Input, Order};
use oxidask_wire::message::worker::{FromWorker, TaskErred, TaskFinished};
use oxidask_wire::message::{ErrorObject, StartStop};
use oxidask_wire::{Payload, Release, Value};
use oxidask_worker_core::effect::SchedulerMsg;
use oxidask_worker_core::event::{ComputeTask, Event, Replica};
use oxidask_worker_core::ids::RunId;
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_core::status::WorkerStatus;

use crate::interpreter::{Failure, Object, Run};
use crate::store::Kind;
use crate::transfers::Moved;

/// What an order means.
pub(crate) enum Meaning {
    /// For the state machine.
    Event(Event),
    /// The worker is to end.
    Close(String),
    /// For a handler of Python.
    Other(String, Value),
}

/// What `Outcome::Finished` carries besides the value.
pub(crate) struct Finished {
    pub(crate) object: Object,
    pub(crate) run: Run,
}

pub(crate) fn meaning(order: Order) -> Meaning {
    Meaning::Event(match order {
        Order::ComputeTask(task) => Event::ComputeTask(Box::new(compute(*task))),
        Order::FreeKeys { keys, stimulus_id } => Event::FreeKeys { keys, stimulus_id },
        Order::CancelCompute { key, stimulus_id } => Event::CancelCompute { key, stimulus_id },
        Order::RemoveReplicas { keys, stimulus_id } => Event::RemoveReplicas { keys, stimulus_id },
        Order::AcquireReplicas {
            replicas,
            stimulus_id,
        } => Event::AcquireReplicas {
            replicas: replicas.into_iter().map(replica).collect(),
            stimulus_id,
        },
        Order::RefreshWhoHas {
            who_has,
            stimulus_id,
        } => Event::RefreshWhoHas {
            who_has,
            stimulus_id,
        },
        Order::StealRequest { key, stimulus_id } => Event::StealRequest { key, stimulus_id },
        Order::RemoveWorker {
            worker,
            stimulus_id,
        } => Event::RemoveWorker {
            worker,
            stimulus_id,
        },
        Order::StatusChange {
            status,
            stimulus_id,
        } => match WorkerStatus::parse(&status) {
            Some(status) => Event::SetStatus {
                status,
                stimulus_id,
            },
            None => return Meaning::Other("worker-status-change".into(), Value::Nil),
        },
        Order::Close { reason } => {
            return Meaning::Close(reason.unwrap_or_else(|| "the scheduler says so".into()));
        }
        Order::CloseStream => return Meaning::Close("the scheduler ended the stream".into()),
        Order::Other { op, fields } => return Meaning::Other(op, fields),
    })
}

fn compute(order: ComputeOrder) -> ComputeTask {
    let executor = order.annotations.get("executor").and_then(Value::as_str);
    ComputeTask {
        executor: executor.map(Into::into),
        key: order.key,
        run_id: order.run_id.map(RunId),
        priority: order.priority,
        inputs: order.inputs.into_iter().map(replica).collect(),
        run_spec: Opaque::new(order.run_spec),
        resource_restrictions: order.resource_restrictions,
        actor: order.actor,
        annotations: Some(Opaque::new(order.annotations)),
        span_id: order.span_id,
        stimulus_id: order.stimulus_id,
    }
}

fn replica(input: Input) -> Replica {
    Replica {
        key: input.key,
        who_has: input.who_has,
        nbytes: input.nbytes,
    }
}

/// Says it in the wire's words. Nothing if there is nothing to say: the result is not in the store.
pub(crate) fn report<'a>(
    msg: &'a SchedulerMsg,
    stimulus_id: &'a str,
    release: &Release,
    stored: Option<&'a Kind>,
    moves: &'a [Moved],
    metadata: Option<Value>,
) -> Option<FromWorker<'a>> {
    let cause = Some(stimulus_id);
    Some(match msg {
        SchedulerMsg::TaskFinished {
            key,
            run_id,
            nbytes,
            report,
        } => {
            let finished = report.as_ref().and_then(|report| report.get::<Finished>());
            let (type_pickle, typename) = match finished {
                Some(finished) => (&finished.object.type_pickle, &finished.object.typename),
                None => stored.map(|kind| (&kind.type_pickle, &kind.typename))?,
            };
            FromWorker::TaskFinished(TaskFinished {
                key: key.clone(),
                run_id: run_id.map(|id| id.0),
                nbytes: Some(*nbytes),
                type_: Some(type_pickle),
                typename: Some(typename),
                startstops: Some(startstops(finished.map(|f| f.run), moves)),
                metadata: metadata.unwrap_or_else(|| Value::Map(Vec::new())),
                thread: finished.and_then(|f| f.run.thread),
                stimulus_id: cause,
            })
        }
        SchedulerMsg::TaskErred {
            key,
            run_id,
            report,
        } => {
            let failure = report.get::<Failure>()?;
            FromWorker::TaskErred(TaskErred {
                key: key.clone(),
                run_id: run_id.map(|id| id.0),
                exception: Some(error_object(&failure.exception, release)),
                traceback: failure.traceback.as_ref().map(|t| error_object(t, release)),
                exception_text: &failure.exception_text,
                traceback_text: &failure.traceback_text,
                startstops: startstops(failure.run, moves),
                thread: failure.run.and_then(|run| run.thread),
                stimulus_id: cause,
            })
        }
        SchedulerMsg::ReleaseWorkerData { key } => FromWorker::ReleaseWorkerData {
            keys: vec![key.clone()],
            stimulus_id: cause,
        },
        SchedulerMsg::AddKeys { keys } => FromWorker::AddKeys {
            keys: keys.clone(),
            stimulus_id: cause,
        },
        SchedulerMsg::MissingData { key, errant_worker } => FromWorker::MissingData {
            key: key.clone(),
            errant_worker,
            stimulus_id: cause,
        },
        SchedulerMsg::RequestRefreshWhoHas { keys } => FromWorker::RequestRefreshWhoHas {
            keys: keys.clone(),
            stimulus_id: cause,
        },
        SchedulerMsg::LongRunning {
            key,
            run_id,
            compute_duration,
        } => FromWorker::LongRunning {
            key: key.clone(),
            compute_duration: *compute_duration,
            run_id: run_id.map(|id| id.0),
            stimulus_id: cause,
        },
        SchedulerMsg::Reschedule { key } => FromWorker::Reschedule {
            key: key.clone(),
            stimulus_id: cause,
        },
        SchedulerMsg::StealResponse { key, state } => FromWorker::StealResponse {
            key: key.clone(),
            state: state.map(|state| state.as_str()),
            stimulus_id: cause,
        },
        SchedulerMsg::StatusChanged { status } => FromWorker::WorkerStatusChange {
            status: status.as_str(),
            stimulus_id: cause,
        },
    })
}

/// When the task of a report ran, if it is one.
pub(crate) fn run_of(msg: &SchedulerMsg) -> Option<Run> {
    match msg {
        SchedulerMsg::TaskFinished { report, .. } => Some(report.as_ref()?.get::<Finished>()?.run),
        SchedulerMsg::TaskErred { report, .. } => report.get::<Failure>()?.run,
        _ => None,
    }
}

/// The object itself is serialised up to 2021.07.2, its pickle as bytes since 2021.08.0.
fn error_object(pickle: &bytes::Bytes, release: &Release) -> ErrorObject {
    let payload = if *release >= Release::new(2021, 8, 0) {
        Payload::bytes(pickle.clone())
    } else {
        Payload::pickle_object(pickle.clone(), Vec::new())
    };
    ErrorObject::Payload(payload.into())
}

/// What a task spent time on: transfers, then the run that they were made for.
pub(crate) fn startstops(run: Option<Run>, moves: &[Moved]) -> Vec<StartStop<'_>> {
    let compute = |run: Run| StartStop {
        action: "compute",
        start: run.start,
        stop: run.stop,
        source: None,
    };
    let transfers = moves.iter().map(|moved| StartStop {
        action: "transfer",
        start: moved.start,
        stop: moved.stop,
        source: Some(&moved.who),
    });
    transfers.chain(run.map(compute)).collect()
}
