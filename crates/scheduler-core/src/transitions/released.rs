//! From `released`.

use crate::Scheduler;
use crate::effect::ClientMsg;
use crate::ids::TaskId;
use crate::sets::IdSet;
use crate::task::TaskState;

impl Scheduler {
    /// The result is needed: wait for those of the dependencies.
    pub(super) fn released_waiting(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        if task.has_lost_dependencies || task.run_spec.is_none() {
            // Can never run. Lost data may still be asked for by a dependent that has not heard.
            self.recommend(id, TaskState::Forgotten);
            return;
        }
        let waiters: IdSet<TaskId> = task
            .dependents
            .iter()
            .filter(|&d| self.tasks[d].state == TaskState::Waiting)
            .collect();
        if waiters.is_empty() && !self.will_be_needed(id) {
            // Recommended by something that has lost its reason since.
            return;
        }
        self.set_state(id, TaskState::Waiting);
        let dependencies = std::mem::take(&mut self.tasks[id].dependencies);
        let missing = dependencies.iter();
        let missing = missing.filter(|&d| self.tasks[d].who_has.is_empty());
        let mut waiting_on = IdSet::with_room(missing.count());
        for dependency in dependencies.iter() {
            if self.need(id, dependency) {
                waiting_on.insert(dependency);
            }
        }
        let task = &mut self.tasks[id];
        let ready = waiting_on.is_empty() && !task.incomplete;
        task.dependencies = dependencies;
        task.waiting_on = waiting_on;
        task.waiters = waiters;
        if ready {
            self.recommend(id, TaskState::Processing);
        }
    }

    /// The task waits for its dependencies, and this is one of them; whether the result is missing.
    pub(crate) fn need(&mut self, id: TaskId, dependency: TaskId) -> bool {
        let task = &mut self.tasks[dependency];
        let is_missing = task.who_has.is_empty();
        if task.state == TaskState::Released {
            // It finds its waiters itself when it gets there.
            self.recommend(dependency, TaskState::Waiting);
            return is_missing;
        }
        task.waiters.insert(id);
        if task.state == TaskState::Erred {
            // It may be about to be retried; looked at again when nothing is left to do.
            self.recommendations.suspects.push(id);
        }
        is_missing
    }

    /// Somebody wants it, or a dependent is about to be retried.
    fn will_be_needed(&self, id: TaskId) -> bool {
        let task = &self.tasks[id];
        !task.who_wants.is_empty()
            || task.to_come > 0
            || task
                .dependents
                .iter()
                .any(|d| self.tasks[d].recommended == Some(TaskState::Waiting))
    }

    /// A dependency failed.
    pub(super) fn released_erred(&mut self, id: TaskId) {
        let Some(failure) = self.tasks[id].blame().cloned() else {
            self.violation(format!("{:?} fails without a cause", self.tasks[id].key));
            return;
        };
        let dependents = std::mem::take(&mut self.tasks[id].dependents);
        for dependent in dependents.iter() {
            if self.tasks[dependent].who_has.is_empty() {
                self.tasks[dependent].set_blame(Some(failure.clone()));
                self.recommend(dependent, TaskState::Erred);
            }
        }
        self.tasks[id].dependents = dependents;
        self.tell_who_wants(id, |key| ClientMsg::TaskErred {
            key,
            error: failure.error.clone(),
        });
        self.set_state(id, TaskState::Erred);
    }

    /// Nobody needs it, or it can never run.
    pub(super) fn released_forgotten(&mut self, id: TaskId) {
        self.propagate_forgotten(id);
        self.forget(id);
    }
}
