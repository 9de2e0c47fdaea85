//! Which tasks begin to run.

use std::sync::Arc;

use crate::Worker;
use crate::effect::Effect;
use crate::ids::TaskId;
use crate::state::{Attempt, Needs};
use crate::status::WorkerStatus;
use crate::task::TaskState;

impl Worker {
    /// Fills the free slots with the most important tasks that can run.
    pub(crate) fn start_tasks(&mut self) {
        if self.status != WorkerStatus::Running {
            return;
        }
        while self.slots.occupied() < self.config.nthreads as usize {
            let Some((priority, id)) = self.queue.next(&self.resources) else {
                return;
            };
            self.queue.remove(id, priority);
            self.start_task(id);
        }
    }

    fn start_task(&mut self, id: TaskId) {
        self.cut_inputs(id);
        let Some(order) = self.tasks[id].order.take() else {
            let key = &self.tasks[id].key;
            self.violation(format!("{key:?} is ready, but nothing to run"));
            self.release(id);
            self.settle(id);
            return;
        };
        let needs = Needs::new(&order.resource_restrictions);
        self.resources.take(&needs);
        let attempt = self.slots.begin(Attempt {
            key: order.key.clone(),
            task: Some(id),
            needs,
            seceded: false,
            started: self.now,
        });
        self.tasks[id].attempt = Some(attempt);
        self.set_state(id, TaskState::Executing);
        self.out.push(Effect::Execute {
            attempt,
            task: order,
            stimulus_id: Arc::clone(&self.stimulus),
        });
    }
}
