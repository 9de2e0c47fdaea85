//! Effects of the core → messages of a worker's stream.

use bytes::Bytes;
use oxidask_scheduler_core::effect::{ComputeTask, WorkerMsg};
use oxidask_wire::message::worker::{self as wire, RunSpec, ToWorker};

/// The message that tells a worker what the core wants; nothing when what is to be run is not
/// what the graph intake stored (a bug, which is logged). Tasks go out as `computing`, whatever
/// caused it.
pub(super) fn message<'a>(effect: &'a WorkerMsg, computing: &'a str) -> Option<ToWorker<'a>> {
    Some(match effect {
        WorkerMsg::ComputeTask(task) => ToWorker::ComputeTask(compute_task(task, computing)?),
        WorkerMsg::FreeKeys { keys, stimulus_id } => ToWorker::FreeKeys { keys, stimulus_id },
        WorkerMsg::RemoveReplicas { keys, stimulus_id } => {
            ToWorker::RemoveReplicas { keys, stimulus_id }
        }
        WorkerMsg::AcquireReplicas {
            who_has,
            nbytes,
            stimulus_id,
        } => ToWorker::AcquireReplicas {
            who_has,
            nbytes,
            stimulus_id,
        },
        WorkerMsg::RefreshWhoHas {
            who_has,
            stimulus_id,
        } => ToWorker::RefreshWhoHas {
            who_has,
            stimulus_id,
        },
        WorkerMsg::StealRequest { key, stimulus_id } => ToWorker::StealRequest { key, stimulus_id },
        WorkerMsg::StatusChange {
            status,
            stimulus_id,
        } => ToWorker::StatusChange {
            status: status.as_str(),
            stimulus_id,
        },
        WorkerMsg::RemoveWorker {
            worker,
            stimulus_id,
        } => ToWorker::RemoveWorker {
            worker,
            stimulus_id,
        },
        WorkerMsg::Close { reason } => ToWorker::Close { reason },
    })
}

fn compute_task<'a>(task: &'a ComputeTask, computing: &'a str) -> Option<wire::ComputeTask<'a>> {
    let Some(run_spec) = task.run_spec.get::<RunSpec>() else {
        tracing::error!("bug: task {} has a run spec of an unknown kind", task.key);
        return None;
    };
    Some(wire::ComputeTask {
        key: &task.key,
        run_id: task.run_id.0,
        priority: task.priority,
        duration: task.duration,
        run_spec,
        who_has: &task.who_has,
        nbytes: &task.nbytes,
        resource_restrictions: task.resource_restrictions.as_deref().unwrap_or_default(),
        actor: task.actor,
        annotations: task
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get::<Bytes>())
            .map(|map| &map[..]),
        span_id: task.span_id.as_deref(),
        stimulus_id: computing,
    })
}
