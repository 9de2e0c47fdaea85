//! The worker as a whole: pausing, leaving, other resources, another scheduler.

use std::sync::Arc;

use crate::Worker;
use crate::effect::SchedulerMsg;
use crate::ids::TaskId;
use crate::status::WorkerStatus;
use crate::task::TaskState::*;

impl Worker {
    /// The scheduler is told the status in force, whether or not the change was possible.
    pub(super) fn set_status(&mut self, status: WorkerStatus) {
        if self.status.may_become(status) {
            self.status = status;
        }
        let status = self.status;
        self.tell(SchedulerMsg::StatusChanged { status });
    }

    pub(super) fn memory_pressure(&mut self, short: bool) {
        match (self.status, short) {
            (WorkerStatus::Running, true) => self.set_status(WorkerStatus::Paused),
            (WorkerStatus::Paused, false) => self.set_status(WorkerStatus::Running),
            _ => {}
        }
    }

    pub(super) fn set_resources(&mut self, resources: &[(Arc<str>, f64)]) {
        for (name, total) in resources {
            self.resources.set_total(name, *total);
        }
    }

    pub(super) fn reconnected(&mut self) {
        let ids: Vec<TaskId> = self.tasks.iter().map(|(id, _)| id).collect();
        for &id in &ids {
            let task = &mut self.tasks[id];
            task.acquire = false;
            task.asked = None;
            task.orphaned = task.state.is_running();
        }
        // First the tasks, so that their inputs are not needed any more.
        for pass in [[Waiting, Ready, Constrained], [Fetch, Missing, Error]] {
            for &id in &ids {
                let state = self.tasks.get(id).map(|t| t.state);
                if state.is_some_and(|s| pass.contains(&s)) {
                    self.release(id);
                    self.settle(id);
                }
            }
        }
        for id in ids {
            if self.tasks.get(id).is_some() {
                self.let_go(id);
            }
        }
    }
}
