//! Letting go of many results at once, little by little.
//!
//! When a task is done that needed a hundred thousand others, or a client leaves that wanted as many, or gives up
//! the one result at the end of a large graph, nobody may need these any more. Releasing and forgetting them takes long, nobody waits for it, and if one is
//! needed again meanwhile, the better.

use crate::Scheduler;
use crate::ids::TaskId;
use crate::task::TaskState;

/// Up to so many tasks are let go within one event.
pub(crate) const AT_ONCE: usize = 1000;
/// How many are let go each time that timers are served.
const EACH_TIME: usize = 500;

impl Scheduler {
    /// Whether so many tasks, if nobody needs them any more, are let go later: because of their number,
    /// or since what happens now has brought so much with it already.
    pub(crate) fn lets_go_later(&self, tasks: usize) -> bool {
        tasks > AT_ONCE || self.transition_counter - self.transitions_before > AT_ONCE as u64
    }

    /// Recommends `state` for a task that nobody needs; or has it let go `later`.
    pub(crate) fn let_go(&mut self, id: TaskId, state: TaskState, later: bool) {
        if later {
            self.let_go_later(id);
        } else {
            self.recommend(id, state);
        }
    }

    /// Lets go of a task in its turn, unless it is needed by then.
    pub(crate) fn let_go_later(&mut self, id: TaskId) {
        let task = &mut self.tasks[id];
        if !task.let_go {
            task.let_go = true;
            self.letting_go.push_back(id);
        }
    }

    /// Lets go of some.
    pub(crate) fn let_some_go(&mut self) {
        for _ in 0..EACH_TIME {
            let Some(id) = self.letting_go.pop_front() else {
                break;
            };
            // The id may mean another task by now.
            let Some(task) = self.tasks.get_mut(id).filter(|task| task.let_go) else {
                continue;
            };
            task.let_go = false;
            self.interest_was_lost(id);
        }
        self.run_recommendations();
        if self.letting_go.is_empty() {
            self.letting_go.shrink_to_fit();
        }
    }
}
