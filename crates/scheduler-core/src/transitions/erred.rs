//! From `erred`.

use crate::Scheduler;
use crate::effect::{ClientMsg, WorkerMsg};
use crate::ids::TaskId;
use crate::task::TaskState;

impl Scheduler {
    /// Another try.
    pub(super) fn erred_released(&mut self, id: TaskId) {
        let rare = self.tasks[id].rare.take();
        let dependents = std::mem::take(&mut self.tasks[id].dependents);
        for dependent in dependents.iter() {
            if self.tasks[dependent].state == TaskState::Erred {
                self.recommend(dependent, TaskState::Waiting);
            }
        }
        self.tasks[id].dependents = dependents;
        if let Some(mut rare) = rare {
            for address in std::mem::take(&mut rare.erred_on) {
                if let Some(worker) = self.workers.by_address(&address) {
                    let keys = vec![self.tasks[id].key.clone()];
                    self.send(worker, |stimulus_id| WorkerMsg::FreeKeys {
                        keys,
                        stimulus_id,
                    });
                }
            }
            rare.blame = None;
            self.tasks[id].rare = rare.metadata.is_some().then_some(rare);
        }
        self.tell_who_wants(id, |key| ClientMsg::TaskRetried { key });
        self.set_state(id, TaskState::Released);
    }
}
