//! From `processing`.

use crate::Scheduler;
use crate::effect::WorkerMsg;
use crate::event::TaskFinished;
use crate::ids::TaskId;
use crate::task::TaskState;

use super::Cause;

impl Scheduler {
    pub(super) fn processing_released(&mut self, id: TaskId) {
        self.leave_actor(id);
        if let Some(worker) = self.exit_processing(id) {
            let keys = vec![self.tasks[id].key.clone()];
            self.send(worker, |stimulus_id| WorkerMsg::FreeKeys {
                keys,
                stimulus_id,
            });
        }
        self.propagate_released(id);
    }

    pub(super) fn processing_memory(&mut self, id: TaskId, cause: Cause<'_>) {
        let Cause::Finished(message) = cause else {
            self.violation(format!("{:?} is done by nobody", self.tasks[id].key));
            return;
        };
        if !self.workers.is_live(message.worker) {
            self.recommend(id, TaskState::Released);
            return;
        }
        if self.tasks[id].processing_on.get() != Some(message.worker) {
            // The run id agrees, the worker does not: cannot be, so do not believe it.
            self.violation(format!(
                "{:?} is done on another worker than it was sent to",
                self.tasks[id].key
            ));
            self.recommend(id, TaskState::Released);
            return;
        }
        self.note_durations(id, message);
        if let Some(nbytes) = message.nbytes {
            self.set_nbytes(id, i64::try_from(nbytes).unwrap_or(i64::MAX));
        }
        self.exit_processing(id);
        self.add_to_memory(id, message);
    }

    fn note_durations(&mut self, id: TaskId, message: &TaskFinished) {
        let group = self.tasks[id].group;
        for s in &message.startstops {
            self.groups.add_duration(group, &s.action, s.start, s.stop);
        }
    }

    pub(super) fn processing_erred(&mut self, id: TaskId, cause: Cause<'_>) {
        self.leave_actor(id);
        self.exit_processing(id);
        self.propagate_erred(id, cause);
    }

    /// An actor that does not come to be does not live on its worker.
    fn leave_actor(&mut self, id: TaskId) {
        if self.tasks[id].actor
            && let Some(worker) = self.tasks[id].processing_on.get()
        {
            self.workers[worker].actors.remove(id);
        }
    }
}
