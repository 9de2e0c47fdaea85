//! The watchdog: notices tasks that could make progress and do not, has the worker concerned asked,
//! and sets right what does not agree.
//!
//! Nothing here is needed while every message arrives and every peer keeps its word. It is for the
//! day when one does not: a worker that lost a task, or claims data it does not have.

use crate::Scheduler;
use crate::effect::{Effect, Suspicion};
use crate::event::Verdict;
use crate::ids::{RunId, TaskId, Timestamp, WorkerId};
use crate::sets::IdMap;
use crate::task::TaskState;

use oxidask_key::Key;

/// Workers asked about one task each in one round, so that a confused cluster is not asked to death.
const SUSPICIONS: usize = 32;
/// Results of a retiring worker asked about at a time.
const RESULTS: usize = 1_000;
/// Tasks looked at in one round for contradictions inside the scheduler itself.
const LOOKED_AT: usize = 20_000;

/// What the watchdog has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchdogFigures {
    /// Questions to workers.
    pub suspected: u64,
    /// Tasks run again because their worker did not know them.
    pub rescheduled: u64,
    /// Copies taken out of the books because their holder did not have them.
    pub replicas_corrected: u64,
    /// Tasks set going that had no reason to wait: each one is a bug of the scheduler.
    pub awakened: u64,
}

/// One run of a task that has not begun.
struct Watched {
    run_id: i64,
    since: Timestamp,
    asked: Option<Timestamp>,
}

/// What the watchdog remembers from round to round.
#[derive(Default)]
pub(crate) struct Watchdog {
    watched: IdMap<u32, Watched>,
    /// Workers that retire, and since when, or when they were last asked.
    retiring: IdMap<u32, Timestamp>,
    /// Where the next look at the table of tasks begins.
    cursor: usize,
    figures: WatchdogFigures,
}

impl Scheduler {
    /// What the watchdog has done so far.
    pub fn watchdog_figures(&self) -> WatchdogFigures {
        self.watchdog.figures
    }

    /// One round.
    pub(crate) fn run_watchdog(&mut self) {
        let Some(patience) = self.config.watchdog_patience else {
            return;
        };
        self.own_stimulus("watchdog");
        self.watch_workers(patience);
        self.watch_retirements(patience);
        self.wake_sleepers();
    }

    /// Tasks that their worker should have begun, and seceded ones that it does not tell of.
    fn watch_workers(&mut self, patience: f64) {
        let before = std::mem::take(&mut self.watchdog.watched);
        let mut watched: IdMap<u32, Watched> = IdMap::default();
        let mut suspects: Vec<(WorkerId, TaskId, f64)> = Vec::new();
        // Paused ones, too: their last word about that may be out of date.
        for &worker in self.workers.registered() {
            let w = &self.workers[worker];
            let begun: Vec<TaskId> = w
                .executing
                .iter()
                .filter_map(|(key, _)| self.tasks.id(key))
                .collect();
            let in_slots = begun.iter().filter(|&&id| !w.long_running.contains(id));
            let full = in_slots.count() >= w.nthreads() as usize;
            for id in w.processing.iter() {
                // On a full worker the rest waits for a thread, as it should, but for what has left
                // its slot.
                if begun.contains(&id) || (full && !w.long_running.contains(id)) {
                    continue;
                }
                let run_id = self.tasks[id].run_id;
                let old = before.get(&id.0).filter(|old| old.run_id == run_id);
                let since = old.map_or(self.now, |old| old.since);
                let mut asked = old.and_then(|old| old.asked);
                let waited = self.now.since(since);
                let again = asked.is_none_or(|at| self.now.since(at) >= patience);
                if waited >= patience && again && suspects.len() < SUSPICIONS {
                    asked = Some(self.now);
                    suspects.push((worker, id, waited));
                }
                let entry = Watched {
                    run_id,
                    since,
                    asked,
                };
                watched.insert(id.0, entry);
            }
        }
        self.watchdog.watched = watched;
        for (worker, id, seconds) in suspects {
            self.watchdog.figures.suspected += 1;
            let suspicion = self.suspicion(worker, id, seconds);
            self.out.push(Effect::Suspicious(Box::new(suspicion)));
        }
    }

    fn suspicion(&self, worker: WorkerId, id: TaskId, seconds: f64) -> Suspicion {
        let task = &self.tasks[id];
        let inputs = task
            .dependencies
            .iter()
            .map(|d| &self.tasks[d])
            // The holder of an actor has it, but not among its data.
            .filter(|d| !d.actor)
            .map(|d| (d.key.clone(), d.who_has.iter().collect()));
        Suspicion {
            worker,
            task: Some((task.key.clone(), RunId(task.run_id))),
            seconds,
            inputs: inputs.collect(),
        }
    }

    /// Workers that cannot leave: perhaps they do not have what is to be copied first.
    fn watch_retirements(&mut self, patience: f64) {
        let before = std::mem::take(&mut self.watchdog.retiring);
        for worker in self.memory_manager.retiring() {
            let since = before.get(&worker.0).copied().unwrap_or(self.now);
            let seconds = self.now.since(since);
            if seconds < patience {
                self.watchdog.retiring.insert(worker.0, since);
                continue;
            }
            self.watchdog.retiring.insert(worker.0, self.now);
            let only_there = self.workers[worker]
                .has_what
                .iter()
                .map(|t| &self.tasks[t])
                .filter(|t| t.who_has.len() == 1 && !t.actor)
                .map(|t| (t.key.clone(), vec![worker]));
            let suspicion = Suspicion {
                worker,
                task: None,
                seconds,
                inputs: only_there.take(RESULTS).collect(),
            };
            self.watchdog.figures.suspected += 1;
            self.out.push(Effect::Suspicious(Box::new(suspicion)));
        }
    }

    /// Tasks that wait for nothing. There are none unless the scheduler has a bug; then it is better
    /// to go on, and to say so, than to wait for ever.
    fn wake_sleepers(&mut self) {
        let (ids, cursor) = self.tasks.some_ids(self.watchdog.cursor, LOOKED_AT);
        self.watchdog.cursor = cursor;
        for id in ids {
            let Some(task) = self.tasks.get(id) else {
                continue;
            };
            match task.state {
                TaskState::Waiting if self.waits_in_vain(id) => self.awaken(id),
                TaskState::NoWorker if self.may_run_somewhere(id) => {
                    self.awaken(id);
                }
                _ => {}
            }
        }
        self.run_recommendations();
        self.fill_open_slots();
    }

    fn waits_in_vain(&self, id: TaskId) -> bool {
        let task = &self.tasks[id];
        !task.incomplete
            && task.waiting_on.iter().all(|d| {
                self.tasks
                    .get(d)
                    .is_none_or(|d| d.state == TaskState::Memory || d.state == TaskState::Released)
            })
    }

    fn may_run_somewhere(&self, id: TaskId) -> bool {
        match self.valid_workers(id) {
            None => !self.workers.running.is_empty(),
            Some(valid) => valid.iter().any(|&w| self.workers[w].is_running()),
        }
    }

    fn awaken(&mut self, id: TaskId) {
        self.watchdog.figures.awakened += 1;
        let key = self.tasks[id].key.clone();
        let state = self.tasks[id].state.as_str();
        self.violation(format!("{key:?} was {state} without a reason"));
        // By way of `released`, which works out anew what it waits for.
        self.recommend(id, TaskState::Released);
    }

    /// The answer to a [`Suspicion`].
    pub(crate) fn examined(
        &mut self,
        worker: WorkerId,
        task: Option<(Key, RunId)>,
        verdict: Verdict,
    ) {
        match verdict {
            Verdict::Progressing | Verdict::NoAnswer => return,
            Verdict::Unknown => {
                let current = task.and_then(|(key, run_id)| {
                    let id = self.tasks.id(&key)?;
                    let task = &self.tasks[id];
                    let current = task.state == TaskState::Processing
                        && task.is_current_run(worker, Some(run_id));
                    current.then_some(id)
                });
                let Some(id) = current else {
                    return;
                };
                self.watchdog.figures.rescheduled += 1;
                self.recommend(id, TaskState::Released);
            }
            Verdict::InputsMissing(missing) => {
                for (key, holder) in missing {
                    self.correct_replica(&key, holder);
                }
            }
        }
        self.run_recommendations();
        self.fill_open_slots();
    }

    /// The worker does not have it.
    fn correct_replica(&mut self, key: &Key, holder: WorkerId) {
        let Some(id) = self.tasks.id(key) else {
            return;
        };
        if self.tasks[id].who_has.contains(holder) && self.workers.is_live(holder) {
            self.watchdog.figures.replicas_corrected += 1;
            self.remove_replica(id, holder);
            if self.tasks[id].who_has.is_empty() {
                self.recommend(id, TaskState::Released);
            }
        }
    }
}
