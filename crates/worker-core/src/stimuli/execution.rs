//! What threads report.

use crate::Worker;
use crate::effect::SchedulerMsg;
use crate::event::Outcome;
use crate::ids::AttemptId;
use crate::task::TaskState;

impl Worker {
    pub(super) fn executed(&mut self, attempt: AttemptId, outcome: Outcome) {
        let Some(attempt) = self.slots.end(attempt) else {
            return;
        };
        self.resources.give_back(&attempt.needs);
        let Some(id) = attempt.task else {
            return;
        };
        let task = &mut self.tasks[id];
        task.attempt = None;
        let (key, run_id, orphaned) = (attempt.key, task.run_id, task.orphaned);
        match outcome {
            Outcome::Finished {
                value,
                nbytes,
                report,
            } => {
                self.put_in_memory(id, value, nbytes);
                self.tell(match orphaned {
                    true => SchedulerMsg::AddKeys { keys: vec![key] },
                    false => SchedulerMsg::TaskFinished {
                        key,
                        run_id,
                        nbytes,
                        report: Some(report),
                    },
                });
            }
            Outcome::Failed { report } => self.fail(id, report),
            Outcome::Rescheduled => {
                self.set_state(id, TaskState::Rescheduled);
                if !orphaned {
                    self.tell(SchedulerMsg::Reschedule { key });
                }
                self.release(id);
                self.settle(id);
            }
        }
    }

    pub(super) fn seceded(&mut self, attempt: AttemptId, compute_duration: Option<f64>) {
        // A second time means nothing.
        if !self.slots.secede(attempt) {
            return;
        }
        let task = self.slots.get(attempt).and_then(|a| a.task);
        let Some(id) = task else {
            return;
        };
        self.set_state(id, TaskState::LongRunning);
        let task = &self.tasks[id];
        if !task.orphaned {
            let (key, run_id) = (task.key.clone(), task.run_id);
            self.tell(SchedulerMsg::LongRunning {
                key,
                run_id,
                compute_duration,
            });
        }
    }
}
