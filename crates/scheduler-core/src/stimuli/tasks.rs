//! What workers tell about tasks.

use std::sync::Arc;

use oxidask_key::Key;

use crate::Scheduler;
use crate::effect::{TaskError, WorkerMsg};
use crate::event::{TaskErred, TaskFinished};
use crate::ids::{RunId, TaskId, WorkerId};
use crate::sets::OrderedIdSet;
use crate::state::Failure;
use crate::task::TaskState;
use crate::transitions::Cause;

impl Scheduler {
    pub(super) fn task_finished(&mut self, message: &TaskFinished) {
        if !self.workers.is_live(message.worker) {
            return;
        }
        self.take_finished(message);
        self.run_recommendations();
        self.fill_open_slots();
    }

    fn take_finished(&mut self, message: &TaskFinished) {
        let worker = message.worker;
        let id = match self.tasks.id(&message.key) {
            Some(id) if !self.tasks[id].state.is_not_running() => id,
            // Cancelled in the meantime.
            _ => return self.free_key(worker, &message.key),
        };
        let task = &mut self.tasks[id];
        if !task.is_current_run(worker, message.run_id) {
            if task.processing_on.get() == Some(worker) {
                // The worker runs it under a name that is no longer valid: start anew.
                self.recommend(id, TaskState::Released);
            } else if task.state == TaskState::Memory {
                self.remove_redundant(id, worker);
            } else {
                self.free_key(worker, &message.key);
            }
            return;
        }
        if task.state == TaskState::Memory {
            self.add_keys(worker, std::slice::from_ref(&message.key));
            return;
        }
        if let Some(metadata) = &message.metadata {
            task.rare.get_or_insert_default().metadata = Some(metadata.clone());
        }
        self.transition(id, TaskState::Memory, Cause::Finished(message));
    }

    /// A worker reports a result that another one was faster with. It was told to let go of the task when
    /// that was ordered, so what it holds by now may be a copy of the other's result, for a task there.
    fn remove_redundant(&mut self, id: TaskId, worker: WorkerId) {
        if self.tasks[id].who_has.contains(worker) || self.is_waited_for_on(id, worker) {
            return;
        }
        let keys = vec![self.tasks[id].key.clone()];
        self.send(worker, |stimulus_id| WorkerMsg::RemoveReplicas {
            keys,
            stimulus_id,
        });
    }

    fn free_key(&mut self, worker: WorkerId, key: &Key) {
        let keys = vec![key.clone()];
        self.send(worker, |stimulus_id| WorkerMsg::FreeKeys {
            keys,
            stimulus_id,
        });
    }

    pub(super) fn task_erred(&mut self, message: &TaskErred) {
        self.take_erred(message);
        self.run_recommendations();
        self.fill_open_slots();
    }

    fn take_erred(&mut self, message: &TaskErred) {
        let Some(id) = self.tasks.id(&message.key) else {
            return;
        };
        let worker = message.worker;
        let task = &mut self.tasks[id];
        if task.state != TaskState::Processing {
            return;
        }
        if !task.is_current_run(worker, message.run_id) {
            if task.processing_on.get() == Some(worker) {
                self.transition(id, TaskState::Released, Cause::Recommended);
            }
            return;
        }
        if task.retries > 0 {
            task.retries -= 1;
            self.transition(id, TaskState::Waiting, Cause::Recommended);
            return;
        }
        let failure = Arc::new(Failure {
            task: message.key.clone(),
            error: TaskError::Remote {
                exception: message.exception.clone(),
                traceback: message.traceback.clone(),
                exception_text: Arc::clone(&message.exception_text),
                traceback_text: Arc::clone(&message.traceback_text),
            },
        });
        let address = self.workers.get(worker).map(|w| Arc::clone(w.address()));
        self.transition(
            id,
            TaskState::Erred,
            Cause::Failed {
                failure: &failure,
                worker: address.as_ref(),
                raw: message.raw.as_ref(),
            },
        );
    }

    pub(super) fn long_running(
        &mut self,
        worker: WorkerId,
        key: &Key,
        compute_duration: Option<f64>,
        run_id: Option<RunId>,
    ) {
        let Some(id) = self.tasks.id(key) else {
            return;
        };
        let task = &self.tasks[id];
        if task.processing_on.get() != Some(worker)
            || !self.workers.is_live(worker)
            || !task.is_current_run(worker, run_id)
        {
            return;
        }
        if let Some(seconds) = compute_duration {
            self.groups
                .prefix_of_mut(task.group)
                .add_compute_duration(seconds);
        }
        self.remove_key_from_stealable(id);
        self.worker_add_to_long_running(id, worker);
        self.check_idle_saturated(worker, None);
        self.fill_open_slots();
    }

    /// Releases tasks that are done or under way; those that are needed run again.
    pub(super) fn recompute_tasks(&mut self, keys: &[Key]) {
        for key in keys {
            if let Some(id) = self.tasks.id(key)
                && self.tasks[id].state != TaskState::Erred
            {
                self.recommend(id, TaskState::Released);
            }
        }
        self.run_recommendations();
        self.fill_open_slots();
    }

    /// Runs the task anew, unless it has left the worker that asks.
    pub(crate) fn reschedule(&mut self, worker: Option<WorkerId>, key: &Key) {
        let Some(id) = self.tasks.id(key) else {
            return;
        };
        let task = &self.tasks[id];
        if task.state != TaskState::Processing
            || worker.is_some_and(|w| task.processing_on.get() != Some(w))
        {
            return;
        }
        self.recommend(id, TaskState::Released);
        self.run_recommendations();
    }

    /// Runs failed tasks again, beginning with those whose dependencies did not fail. A result that
    /// was asked for by name is computed anew: the client has set its future back and waits for news.
    pub(super) fn retry_keys(&mut self, keys: &[Key]) {
        let mut stack: Vec<TaskId> = keys.iter().filter_map(|k| self.tasks.id(k)).collect();
        let mut seen = OrderedIdSet::<TaskId>::default();
        let mut roots = Vec::new();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            let task = &self.tasks[id];
            let failed = |d| self.tasks[d].state == TaskState::Erred;
            if task.state == TaskState::Memory
                && task.run_spec.is_some()
                && !task.actor // its state would be lost
                && !task.dependencies.iter().any(failed)
            {
                roots.push(id);
            }
            if task.state != TaskState::Erred {
                continue;
            }
            let before = stack.len();
            stack.extend(
                self.tasks[id]
                    .dependencies
                    .iter()
                    .filter(|&d| self.tasks[d].state == TaskState::Erred),
            );
            if stack.len() == before {
                roots.push(id);
            }
        }
        for id in roots {
            self.recommend(id, TaskState::Waiting);
        }
        self.run_recommendations();
    }
}
