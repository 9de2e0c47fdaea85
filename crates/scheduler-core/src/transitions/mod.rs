//! State changes of tasks: one file per start state, and here the driver.
//!
//! A transition changes one task, sends messages and *recommends* further transitions. The last
//! recommendation made is followed first; a later one for the same task replaces what was
//! recommended but keeps its place. This order decides which of several ready tasks goes to a worker
//! first, so it is part of the behaviour.
//!
//! A pair of states without a function of its own goes through `released`.

mod common;
mod erred;
mod let_go;
mod memory;
mod no_worker;
mod orders;
mod processing;
mod queued;
mod released;
mod waiting;

pub(crate) use let_go::AT_ONCE;
pub(crate) use orders::Orders;

use std::sync::Arc;

use crate::Scheduler;
use crate::effect::{Effect, TransitionEffect};
use crate::event::TaskFinished;
use crate::ids::{TaskId, WorkerId};
use crate::opaque::Opaque;
use crate::state::Failure;
use crate::story::{LogEntry, Recommended};
use crate::task::TaskState::{self, *};

/// What a transition needs to know beyond the task and the state.
#[derive(Clone, Copy)]
pub(crate) enum Cause<'a> {
    /// Nothing: it follows from another one.
    Recommended,
    /// A worker finished the task.
    Finished(&'a TaskFinished),
    /// The task failed.
    Failed {
        failure: &'a Arc<Failure>,
        /// Address of the worker it failed on.
        worker: Option<&'a Arc<str>>,
        /// The worker's message.
        raw: Option<&'a Opaque>,
    },
}

impl Cause<'_> {
    fn raw(self) -> Option<Opaque> {
        match self {
            Self::Recommended => None,
            Self::Finished(message) => message.raw.clone(),
            Self::Failed { raw, .. } => raw.cloned(),
        }
    }
}

/// Recommendations not yet followed. The state recommended is kept in the task.
#[derive(Default)]
pub(crate) struct Recommendations {
    stack: Vec<TaskId>,
    /// Tasks that wait for a failed one.
    suspects: Vec<TaskId>,
    /// What the transition under way has recommended, for the log.
    journal: Vec<(TaskId, TaskState)>,
}

impl Scheduler {
    /// Recommends `state` for the task.
    pub(crate) fn recommend(&mut self, id: TaskId, state: TaskState) {
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        if task.recommended.replace(state).is_none() {
            self.recommendations.stack.push(id);
        }
        self.recommendations.journal.push((id, state));
    }

    /// Takes back what was recommended for the task.
    pub(crate) fn withdraw_recommendation(&mut self, id: TaskId) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.recommended = None;
        }
    }

    /// Follows recommendations until there are none left.
    pub(crate) fn run_recommendations(&mut self) {
        self.recommendations.journal.clear();
        // Every task can be visited several times, but not without end: more steps than this mean a
        // cycle, and stopping is better than hanging.
        let bound = self.transition_counter + 64 * self.tasks.len() as u64 + 10_000;
        while let Some(id) = self.next_recommended() {
            let Some(task) = self.tasks.get_mut(id) else {
                continue;
            };
            let Some(finish) = task.recommended.take() else {
                continue;
            };
            if self.transition_counter > bound {
                self.violation(format!(
                    "transitions do not come to an end; {} left, next is {:?} to {}",
                    self.recommendations.stack.len() + 1,
                    self.tasks[id].key,
                    finish.as_str()
                ));
                self.drop_recommendations();
                return;
            }
            self.transition(id, finish, Cause::Recommended);
        }
    }

    /// The task to look at next. When there is none left, those that wait for a task that is still
    /// failed fail with it; else they would wait for ever.
    fn next_recommended(&mut self) -> Option<TaskId> {
        if let Some(id) = self.recommendations.stack.pop() {
            return Some(id);
        }
        for id in std::mem::take(&mut self.recommendations.suspects) {
            let Some(task) = self.tasks.get(id).filter(|t| t.state == Waiting) else {
                continue;
            };
            let blame = task
                .dependencies
                .iter()
                .find(|&d| self.tasks[d].state == Erred)
                .and_then(|d| self.tasks[d].blame().cloned());
            if blame.is_some() {
                self.tasks[id].set_blame(blame);
                self.recommend(id, Erred);
            }
        }
        self.recommendations.stack.pop()
    }

    fn drop_recommendations(&mut self) {
        while let Some(id) = self.recommendations.stack.pop() {
            self.withdraw_recommendation(id);
        }
    }

    /// Moves one task towards `finish` and keeps the recommendations for later.
    pub(crate) fn transition(&mut self, id: TaskId, finish: TaskState, cause: Cause<'_>) {
        let Some(task) = self.tasks.get(id) else {
            return;
        };
        let start = task.state;
        if start == finish {
            return;
        }
        let key = task.key.clone();
        let group = task.group;
        self.transition_counter += 1;
        let journal_start = self.recommendations.journal.len();

        let logged_start = if self.step(id, start, finish, cause) {
            start
        } else if start != Released && finish != Released {
            self.transition(id, Released, Cause::Recommended);
            let target = self.tasks.get(id).map(|t| t.recommended.unwrap_or(finish));
            if let Some(target) = target
                && target != Released
                && !self.step(id, Released, target, Cause::Recommended)
            {
                self.violation(format!(
                    "no transition from released to {} ({key:?})",
                    target.as_str()
                ));
            }
            Released
        } else {
            self.violation(format!(
                "no transition from {} to {} ({key:?})",
                start.as_str(),
                finish.as_str()
            ));
            return;
        };

        let actual = self.tasks.get(id).map_or(Forgotten, |t| t.state);
        self.log_transition(id, key, (logged_start, actual), journal_start, cause);
        self.stealing_after_transition(id, logged_start, actual);
        if actual == Forgotten
            && let Some(group) = self.groups.remove_if_forgotten(group)
        {
            self.spans.retire(group);
        }
    }

    /// The table of transitions. `false` if there is none for the pair.
    fn step(&mut self, id: TaskId, start: TaskState, finish: TaskState, cause: Cause<'_>) -> bool {
        match (start, finish) {
            (Released, Waiting) => self.released_waiting(id),
            (Released, Erred) => self.released_erred(id),
            (Released, Forgotten) => self.released_forgotten(id),
            (Waiting, Released) => self.waiting_released(id),
            (Waiting, Processing) => self.waiting_processing(id),
            (Waiting, NoWorker) => self.waiting_no_worker(id),
            (Waiting, Queued) => self.waiting_queued(id),
            (Waiting, Memory) => self.waiting_memory(id),
            (Queued, Released) => self.queued_released(id),
            (Queued, Processing) => self.queued_processing(id),
            (Queued, Erred) => self.queued_erred(id, cause),
            (Processing, Released) => self.processing_released(id),
            (Processing, Memory) => self.processing_memory(id, cause),
            (Processing, Erred) => self.processing_erred(id, cause),
            (NoWorker, Released) => self.no_worker_released(id),
            (NoWorker, Processing) => self.no_worker_processing(id),
            (NoWorker, Erred) => self.no_worker_erred(id, cause),
            (Memory, Released) => self.memory_released(id),
            (Memory, Erred) => self.memory_erred(id),
            (Memory, Forgotten) => self.memory_forgotten(id),
            (Erred, Released) => self.erred_released(id),
            _ => return false,
        }
        true
    }

    fn log_transition(
        &mut self,
        id: TaskId,
        key: oxidask_key::Key,
        (start, finish): (TaskState, TaskState),
        journal_start: usize,
        cause: Cause<'_>,
    ) {
        if self.observe {
            let worker = match cause {
                Cause::Finished(message) => Some(message.worker),
                Cause::Failed { worker, .. } => {
                    worker.and_then(|address| self.workers.by_address(address))
                }
                Cause::Recommended => None,
            };
            self.out.push(Effect::Transition(Box::new(TransitionEffect {
                key: key.clone(),
                start,
                finish,
                raw: cause.raw(),
                worker,
                counter: self.transition_counter,
                stimulus_id: Arc::clone(&self.stimulus),
            })));
        }
        if self.log.is_kept() {
            let recommended = self.journal_since(id, journal_start);
            self.log.push(LogEntry {
                key,
                start,
                finish,
                recommended,
                stimulus_id: Arc::clone(&self.stimulus),
                time: self.now,
            });
        }
        if journal_start == 0 {
            self.recommendations.journal.clear();
        }
    }

    /// Recommendations since `start` of the journal, each task once with its last state.
    fn journal_since(&self, id: TaskId, start: usize) -> Recommended {
        let made = self
            .recommendations
            .journal
            .get(start..)
            .unwrap_or_default();
        match *made {
            [] => return Recommended::Nothing,
            [(itself, state)] if itself == id => return Recommended::Itself(state),
            _ => {}
        }
        let mut list: Vec<(TaskId, TaskState)> = Vec::with_capacity(made.len());
        for &(id, state) in made {
            // Repetitions are rare and close together.
            match list.iter_mut().rev().take(8).find(|(i, _)| *i == id) {
                Some(entry) => entry.1 = state,
                None => list.push((id, state)),
            }
        }
        let named = list
            .iter()
            .filter_map(|&(id, state)| Some((self.tasks.get(id)?.key.clone(), state)));
        Recommended::These(named.collect())
    }

    /// The worker a task is on.
    pub(crate) fn processing_worker(&self, id: TaskId) -> Option<WorkerId> {
        self.tasks.get(id)?.processing_on.get()
    }
}
