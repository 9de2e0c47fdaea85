//! From `waiting`.

use crate::Scheduler;
use crate::ids::TaskId;
use crate::placement::Placement;
use crate::task::TaskState;

impl Scheduler {
    pub(super) fn waiting_released(&mut self, id: TaskId) {
        let dependencies = std::mem::take(&mut self.tasks[id].dependencies);
        let later = self.lets_go_later(dependencies.len());
        for dependency in dependencies.iter() {
            let task = &mut self.tasks[dependency];
            if task.waiters.remove(id) && task.can_be_let_go() {
                self.let_go(dependency, TaskState::Released, later);
            }
        }
        let task = &mut self.tasks[id];
        task.dependencies = dependencies;
        task.waiting_on.clear();
        self.set_state(id, TaskState::Released);
        let task = &mut self.tasks[id];
        if task.has_lost_dependencies {
            self.recommend(id, TaskState::Forgotten);
        } else if task.blame().is_none() && task.is_needed() {
            self.recommend(id, TaskState::Waiting);
        } else {
            task.waiters.clear();
        }
    }

    /// Ready: to a worker, or where ready tasks wait for one.
    pub(super) fn waiting_processing(&mut self, id: TaskId) {
        match self.place(id) {
            Placement::Worker(worker) => self.add_to_processing(id, worker),
            Placement::Queue => self.recommend(id, TaskState::Queued),
            Placement::Nowhere => self.recommend(id, TaskState::NoWorker),
        }
    }

    pub(super) fn waiting_no_worker(&mut self, id: TaskId) {
        self.set_state(id, TaskState::NoWorker);
        self.unrunnable.insert(id, self.now);
    }

    pub(super) fn waiting_queued(&mut self, id: TaskId) {
        self.set_state(id, TaskState::Queued);
        let (release, priority) = (self.tasks[id].release, self.tasks[id].priority);
        self.queue_mut(release).add(id, priority);
    }

    /// A worker finished the task although the scheduler already believes that an input is lost. The
    /// message that takes the task away is on its way to the worker, so nothing is to be done.
    pub(super) fn waiting_memory(&mut self, _id: TaskId) {}
}
