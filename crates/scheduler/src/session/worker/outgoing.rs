//! Effects of the core → messages of a worker's stream.

use bytes::Bytes;
use oxidask_scheduler_core::effect::{ComputeTask, WorkerMsg};
use oxidask_wire::message::worker::{self as wire, RunSpec, ToWorker};

/// The message that tells a worker what the core wants; nothing when what is to be run is not
/// what the graph intake stored (a bug, which is logged).
pub(super) fn message(effect: &WorkerMsg) -> Option<ToWorker<'_>> {
    Some(match effect {
        WorkerMsg::ComputeTask(task) => ToWorker::ComputeTask(compute_task(task)?),
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

fn compute_task(task: &ComputeTask) -> Option<wire::ComputeTask<'_>> {
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
        unproven: task.unproven,
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
        stimulus_id: &task.stimulus_id,
    })
}
