//! What each event does, by subject; here the distribution.

mod execution;
mod orders;
mod replicas;
mod status;
mod timers;
mod transfers;

use std::sync::Arc;

use crate::Worker;
use crate::event::{Event, StimulusId};

impl Worker {
    pub(crate) fn dispatch(&mut self, event: Event) {
        if let Some(stimulus) = stimulus_of(&event) {
            self.stimulus = Arc::clone(stimulus);
        }
        match event {
            Event::ComputeTask(order) => self.compute_task(order),
            Event::FreeKeys { keys, .. } => self.free_keys(&keys),
            Event::CancelCompute { key, .. } => self.cancel_compute(&key),
            Event::StealRequest { key, .. } => self.steal_request(key),
            Event::AcquireReplicas { replicas, .. } => self.acquire_replicas(replicas),
            Event::RemoveReplicas { keys, .. } => self.remove_replicas(keys),
            Event::RefreshWhoHas { who_has, .. } => self.refresh_who_has(&who_has),
            Event::RemoveWorker { worker, .. } => self.remove_worker(&worker),
            Event::SetStatus { status, .. } => self.set_status(status),
            Event::MemoryPressure { short, .. } => self.memory_pressure(short),
            Event::SetResources { resources, .. } => self.set_resources(&resources),
            Event::UpdateData { data, report, .. } => self.update_data(data, report),
            Event::Executed {
                attempt, outcome, ..
            } => self.executed(attempt, outcome),
            Event::Seceded {
                attempt,
                compute_duration,
                ..
            } => self.seceded(attempt, compute_duration),
            Event::Gathered {
                transfer, outcome, ..
            } => self.gathered(transfer, outcome),
            Event::GetData {
                request,
                who,
                keys,
                unlimited,
            } => self.get_data(request, who.as_deref(), keys, unlimited),
            Event::DataSent { request } => self.serving.end(request),
            Event::Reconnected { .. } => self.reconnected(),
        }
    }
}

fn stimulus_of(event: &Event) -> Option<&StimulusId> {
    match event {
        Event::ComputeTask(order) => Some(&order.stimulus_id),
        Event::FreeKeys { stimulus_id, .. }
        | Event::CancelCompute { stimulus_id, .. }
        | Event::StealRequest { stimulus_id, .. }
        | Event::AcquireReplicas { stimulus_id, .. }
        | Event::RemoveReplicas { stimulus_id, .. }
        | Event::RefreshWhoHas { stimulus_id, .. }
        | Event::RemoveWorker { stimulus_id, .. }
        | Event::SetStatus { stimulus_id, .. }
        | Event::MemoryPressure { stimulus_id, .. }
        | Event::SetResources { stimulus_id, .. }
        | Event::UpdateData { stimulus_id, .. }
        | Event::Executed { stimulus_id, .. }
        | Event::Seceded { stimulus_id, .. }
        | Event::Gathered { stimulus_id, .. }
        | Event::Reconnected { stimulus_id } => Some(stimulus_id),
        // Nothing about a task follows from these.
        Event::GetData { .. } | Event::DataSent { .. } => None,
    }
}
