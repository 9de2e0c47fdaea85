//! The active memory manager: drops superfluous copies and moves data off workers that retire.
//!
//! Policies *suggest* to replicate or drop; the manager picks the worker, by memory use, and refuses
//! what would do harm. A move takes two rounds: first a copy, then a drop.

use std::hash::BuildHasherDefault;
use std::sync::Arc;

use indexmap::IndexMap;
use oxidask_key::Key;

use crate::Scheduler;
use crate::effect::WorkerMsg;
use crate::ids::{TaskId, WorkerId};
use crate::sets::{IdHasher, IdMap};
use crate::task::TaskState;
use crate::worker::WorkerStatus;

/// Waiters beyond this number are not looked at one by one.
const MANY_WAITERS: usize = 20;

/// How far the retirement of a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// It still holds data that nobody else has.
    InProgress,
    /// It can be closed.
    Done,
    /// Nobody can take its data, or it holds an actor. It was told to go on with its former status.
    NoRecipients,
}

/// One worker that retires.
struct Retiring {
    previous: WorkerStatus,
}

/// State of the active memory manager.
#[derive(Default)]
pub(crate) struct MemoryManager {
    /// Runs periodically.
    pub(crate) running: bool,
    retiring: IndexMap<WorkerId, Retiring, BuildHasherDefault<IdHasher>>,
    /// Results of retirements of workers that are still registered.
    outcomes: IdMap<u32, Retirement>,
}

impl MemoryManager {
    pub(crate) fn new(running: bool) -> Self {
        Self {
            running,
            ..Self::default()
        }
    }

    pub(crate) fn is_retiring(&self) -> bool {
        !self.retiring.is_empty()
    }

    /// Workers that retire.
    pub(crate) fn retiring(&self) -> Vec<WorkerId> {
        self.retiring.keys().copied().collect()
    }

    pub(crate) fn forget_worker(&mut self, id: WorkerId) {
        self.retiring.shift_remove(&id);
        self.outcomes.remove(&id.0);
    }
}

/// Copies about to be made and dropped, of one task.
#[derive(Default)]
struct Pending {
    replicate: Vec<WorkerId>,
    drop: Vec<WorkerId>,
}

/// One run of the policies.
struct Round {
    pending: IndexMap<TaskId, Pending, BuildHasherDefault<IdHasher>>,
    /// Bytes on each worker, with what is pending.
    memory: IdMap<u32, u64>,
}

impl Round {
    fn memory(&self, worker: WorkerId) -> u64 {
        self.memory.get(&worker.0).copied().unwrap_or(0)
    }
}

impl Scheduler {
    /// How far the retirement of a worker is; a worker that is gone has retired. `None` if nobody
    /// asked it to retire.
    pub fn retirement(&self, worker: WorkerId) -> Option<Retirement> {
        if let Some(&outcome) = self.memory_manager.outcomes.get(&worker.0) {
            return Some(outcome);
        }
        let Some(w) = self.workers.get(worker) else {
            return Some(Retirement::Done);
        };
        self.memory_manager.retiring.get(&worker)?;
        let unique = w.has_what.iter().any(|t| self.tasks[t].who_has.len() <= 1);
        Some(if unique {
            Retirement::InProgress
        } else {
            Retirement::Done
        })
    }

    /// Whether the memory manager runs periodically.
    pub fn memory_manager_running(&self) -> bool {
        self.memory_manager.running
    }

    /// Begins to move the worker's data elsewhere.
    pub(crate) fn retire_worker(&mut self, worker: WorkerId) {
        let Some(w) = self.workers.get(worker) else {
            return;
        };
        let given_up = self.memory_manager.outcomes.remove(&worker.0);
        let previous = match given_up {
            // It was told to go on and has not answered yet.
            Some(Retirement::NoRecipients) => WorkerStatus::Running,
            _ => w.status,
        };
        self.memory_manager
            .retiring
            .entry(worker)
            .or_insert(Retiring { previous });
        self.set_worker_status(worker, WorkerStatus::ClosingGracefully);
        self.timers.run_memory_manager_now(self.now);
    }

    /// Runs the policies once: all of them if the manager is running or was asked to, else only those
    /// that move data off retiring workers.
    pub(crate) fn run_memory_manager(&mut self, all: bool) {
        self.own_stimulus("active_memory_manager");
        let measure = self.config.amm_measure;
        let mut round = Round {
            pending: IndexMap::default(),
            memory: self
                .workers
                .registered()
                .iter()
                .map(|&w| (w.0, self.workers[w].memory().get(measure)))
                .collect(),
        };
        if all && self.config.amm_reduce_replicas {
            self.reduce_replicas(&mut round);
        }
        let retiring: Vec<WorkerId> = self.memory_manager.retiring.keys().copied().collect();
        let mut ended = Vec::new();
        for worker in retiring {
            if let Some(outcome) = self.retire_step(&mut round, worker) {
                ended.push((worker, outcome));
            }
        }
        self.enact(round);
        for (worker, outcome) in ended {
            self.end_retirement(worker, outcome);
        }
    }

    /// One copy of each result is enough, and one per worker that is going to use it.
    fn reduce_replicas(&self, round: &mut Round) {
        for id in self.replicated.iter() {
            let task = &self.tasks[id];
            let mut waiters = task.waiters.len();
            if 1 < waiters && waiters < MANY_WAITERS {
                // Those on the same worker share a copy.
                let mut workers: Vec<WorkerId> = Vec::new();
                waiters = 0;
                for waiter in task.waiters.iter() {
                    match self.tasks[waiter].processing_on.get() {
                        Some(worker) if workers.contains(&worker) => {}
                        Some(worker) => {
                            workers.push(worker);
                            waiters += 1;
                        }
                        None => waiters += 1,
                    }
                }
            }
            let mut surplus = task.who_has.len() as i64 - waiters.max(1) as i64;
            if let Some(pending) = round.pending.get(&id) {
                surplus += pending.replicate.len() as i64 - pending.drop.len() as i64;
            }
            for _ in 0..surplus.max(0) {
                self.suggest_drop(round, id, None);
            }
        }
    }

    /// Suggests what brings a worker closer to retirement; the outcome, if it is settled.
    fn retire_step(&self, round: &mut Round, worker: WorkerId) -> Option<Retirement> {
        let Some(w) = self.workers.get(worker) else {
            return Some(Retirement::Done);
        };
        if !w.actors.is_empty() {
            return Some(Retirement::NoRecipients);
        }
        let (mut to_move, mut stuck) = (0, 0);
        for id in w.has_what.iter() {
            let task = &self.tasks[id];
            if task.actor {
                // Only a proxy: the actor itself was looked for above.
                continue;
            }
            if task.who_has.len() > 1 {
                let dropped = self.suggest_drop(round, id, Some(worker)).is_some();
                let held_elsewhere = task.who_has.iter().any(|w| self.workers[w].is_running());
                if dropped || held_elsewhere {
                    continue;
                }
            }
            to_move += 1;
            let on_its_way = round
                .pending
                .get(&id)
                .is_some_and(|p| !p.replicate.is_empty());
            if !on_its_way && self.suggest_replicate(round, id).is_none() {
                stuck += 1;
            }
        }
        match (stuck, to_move) {
            (0, 0) => Some(Retirement::Done),
            (0, _) => None,
            _ => Some(Retirement::NoRecipients),
        }
    }

    fn end_retirement(&mut self, worker: WorkerId, outcome: Retirement) {
        let Some(retiring) = self.memory_manager.retiring.shift_remove(&worker) else {
            return;
        };
        if !self.workers.is_live(worker) {
            return;
        }
        self.memory_manager.outcomes.insert(worker.0, outcome);
        if outcome == Retirement::NoRecipients {
            // The worker answers with its new status, which then counts.
            self.send(worker, |stimulus_id| WorkerMsg::StatusChange {
                status: retiring.previous,
                stimulus_id,
            });
        }
    }

    /// Picks the running worker with most room for another copy.
    fn suggest_replicate(&self, round: &mut Round, id: TaskId) -> Option<WorkerId> {
        let task = &self.tasks[id];
        if task.state != TaskState::Memory || task.actor {
            return None;
        }
        let taken = round.pending.get(&id).map_or(&[][..], |p| &p.replicate);
        let choice = self
            .workers
            .running
            .iter()
            .copied()
            .filter(|&w| self.workers[w].release.compatible(task.release))
            .filter(|&w| !task.who_has.contains(w) && !taken.contains(&w))
            .min_by_key(|&w| round.memory(w))?;
        let size = self.get_nbytes(id).max(0) as u64;
        round.pending.entry(id).or_default().replicate.push(choice);
        *round.memory.entry(choice.0).or_default() += size;
        Some(choice)
    }

    /// Picks the holder with least room to drop its copy; only `candidate`, if one is given.
    fn suggest_drop(
        &self,
        round: &mut Round,
        id: TaskId,
        candidate: Option<WorkerId>,
    ) -> Option<WorkerId> {
        let task = &self.tasks[id];
        let dropping = round.pending.get(&id).map_or(&[][..], |p| &p.drop);
        if task.who_has.len() < dropping.len() + 2 || task.actor {
            return None;
        }
        let (busy, free): (Vec<WorkerId>, Vec<WorkerId>) = task
            .who_has
            .iter()
            .filter(|&w| candidate.is_none_or(|c| c == w) && !dropping.contains(&w))
            .partition(|&w| self.is_waited_for_on(id, w));
        let running = |w: WorkerId| self.workers[w].is_running();
        let choice = free
            .iter()
            .copied()
            .min_by_key(|&w| (running(w), std::cmp::Reverse(round.memory(w))))?;
        // The only other copies are on workers that are about to go and cannot drop theirs yet: they
        // would be made again.
        if free.len() == 1
            && running(choice)
            && !busy.is_empty()
            && !busy.iter().any(|&w| running(w))
        {
            return None;
        }
        let size = self.get_nbytes(id).max(0) as u64;
        round.pending.entry(id).or_default().drop.push(choice);
        let memory = round.memory.entry(choice.0).or_default();
        *memory = memory.saturating_sub(size);
        Some(choice)
    }

    fn enact(&mut self, round: Round) {
        let mut replicate: IndexMap<WorkerId, Vec<Key>, BuildHasherDefault<IdHasher>> =
            IndexMap::default();
        let mut drop = replicate.clone();
        for (id, pending) in round.pending {
            let key = &self.tasks[id].key;
            for worker in pending.replicate {
                replicate.entry(worker).or_default().push(key.clone());
            }
            for worker in pending.drop {
                drop.entry(worker).or_default().push(key.clone());
            }
        }
        for (worker, keys) in replicate {
            self.request_acquire_replicas(worker, &keys);
        }
        for (worker, keys) in drop {
            self.request_remove_replicas(worker, &keys);
        }
    }
}

/// Shared address of a worker, for plans.
pub(crate) fn address_of(scheduler: &Scheduler, worker: WorkerId) -> Arc<str> {
    Arc::clone(scheduler.workers[worker].address())
}
