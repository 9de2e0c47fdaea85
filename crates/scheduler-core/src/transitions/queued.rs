//! From `queued`.

use crate::Scheduler;
use crate::ids::TaskId;
use crate::task::TaskState;

use super::Cause;

impl Scheduler {
    pub(super) fn queued_released(&mut self, id: TaskId) {
        self.dequeue(id);
        self.propagate_released(id);
    }

    /// Stays `queued` if there is no free slot after all.
    pub(super) fn queued_processing(&mut self, id: TaskId) {
        if let Some(worker) = self.workers.least_loaded_open(self.tasks[id].release) {
            self.dequeue(id);
            self.add_to_processing(id, worker);
        }
    }

    pub(super) fn queued_erred(&mut self, id: TaskId, cause: Cause<'_>) {
        self.dequeue(id);
        self.propagate_erred(id, cause);
    }

    fn dequeue(&mut self, id: TaskId) {
        let release = self.tasks[id].release;
        self.queue_mut(release).remove(id);
    }

    /// Whether any task is `queued`.
    pub(crate) fn has_queued(&self) -> bool {
        self.queues.iter().any(|q| !q.is_empty())
    }

    /// Number of `queued` tasks.
    pub(crate) fn queued_len(&self) -> usize {
        self.queues.iter().map(crate::state::TaskQueue::len).sum()
    }

    /// Sends queued tasks to threads that have come free. Everything else that the stimulus made
    /// ready must be on its way before, since it goes first.
    pub(crate) fn fill_open_slots(&mut self) {
        for release in 0..self.queues.len() {
            let release = crate::state::ReleaseId(release as u8);
            if self.queue_mut(release).is_empty() {
                continue;
            }
            for _ in 0..self.workers.open_slots(release).max(0) {
                let Some(next) = self.queue_mut(release).peek() else {
                    break;
                };
                self.recommend(next, TaskState::Processing);
                self.run_recommendations();
            }
        }
    }
}
