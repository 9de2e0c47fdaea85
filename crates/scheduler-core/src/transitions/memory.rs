//! From `memory`.

use std::sync::Arc;

use crate::Scheduler;
use crate::effect::{ClientMsg, TaskError};
use crate::ids::TaskId;
use crate::state::Failure;
use crate::task::TaskState;

use super::Cause;

impl Scheduler {
    pub(super) fn memory_released(&mut self, id: TaskId) {
        if self.tasks[id].actor {
            self.discard_actor(id);
            if !self.tasks[id].who_wants.is_empty() {
                // An actor has state: computing it again would not bring it back.
                let failure = self.actor_lost(id);
                self.tasks[id].set_blame(Some(failure));
                self.recommend(id, TaskState::Erred);
                return;
            }
        }
        self.free_on_holders(id);
        self.remove_all_replicas(id);
        self.set_state(id, TaskState::Released);
        self.tell_who_wants(id, |key| ClientMsg::LostData { key });

        let task = &self.tasks[id];
        if task.run_spec.is_none() || task.has_lost_dependencies {
            self.recommend(id, TaskState::Forgotten);
        } else if task.is_needed() {
            let failure = task
                .dependencies
                .iter()
                .find_map(|d| self.tasks[d].blame().cloned());
            if failure.is_some() {
                // It cannot be computed again. Stock leaves it released, and the client waits for ever.
                self.tasks[id].set_blame(failure);
                self.recommend(id, TaskState::Erred);
            } else {
                self.recommend(id, TaskState::Waiting);
            }
        }

        let waiters = std::mem::take(&mut self.tasks[id].waiters);
        for waiter in waiters.iter() {
            match self.tasks[waiter].state {
                TaskState::NoWorker | TaskState::Processing | TaskState::Queued => {
                    self.recommend(waiter, TaskState::Waiting);
                }
                TaskState::Waiting => {
                    self.tasks[waiter].waiting_on.insert(id);
                }
                _ => {}
            }
        }
        self.tasks[id].waiters = waiters;
    }

    /// The worker that held an actor is gone.
    pub(super) fn memory_erred(&mut self, id: TaskId) {
        let failure = self.actor_lost(id);
        self.discard_actor(id);
        self.free_on_holders(id);
        self.remove_all_replicas(id);
        self.propagate_erred(
            id,
            Cause::Failed {
                failure: &failure,
                worker: None,
                raw: None,
            },
        );
    }

    pub(super) fn memory_forgotten(&mut self, id: TaskId) {
        if self.tasks[id].actor {
            self.discard_actor(id);
        }
        self.propagate_forgotten(id);
        self.forget(id);
    }

    fn discard_actor(&mut self, id: TaskId) {
        for worker in self.tasks[id].who_has.iter() {
            self.workers[worker].actors.remove(id);
        }
    }

    fn actor_lost(&self, id: TaskId) -> Arc<Failure> {
        let task = &self.tasks[id];
        if let Some(failure) = task.blame() {
            return Arc::clone(failure);
        }
        let worker = task
            .who_has
            .first()
            .map_or_else(|| Arc::from(""), |w| Arc::clone(self.workers[w].address()));
        Arc::new(Failure {
            task: task.key.clone(),
            error: TaskError::ActorLost {
                task: task.key.clone(),
                worker,
            },
        })
    }
}
