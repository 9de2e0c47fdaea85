//! From `no-worker`.

use crate::Scheduler;
use crate::ids::TaskId;

use super::Cause;

impl Scheduler {
    pub(super) fn no_worker_released(&mut self, id: TaskId) {
        self.unrunnable.remove(id);
        self.propagate_released(id);
    }

    /// Stays `no-worker` if no worker will do.
    pub(super) fn no_worker_processing(&mut self, id: TaskId) {
        if let Some(worker) = self.decide_worker_non_rootish(id) {
            self.unrunnable.remove(id);
            self.add_to_processing(id, worker);
        }
    }

    pub(super) fn no_worker_erred(&mut self, id: TaskId, cause: Cause<'_>) {
        self.unrunnable.remove(id);
        self.propagate_erred(id, cause);
    }
}
