//! Who holds what of a task's inputs, collected once for all candidates: a fan-in over thousands of results would otherwise
//! cost its inputs times the workers.

use crate::Scheduler;
use crate::ids::{TaskId, WorkerId};
use crate::sets::IdMap;

/// Up to so many holders looking at all of them is faster than hashing.
const FEW: usize = 16;

/// Holders of inputs in the order in which they are met, with the bytes each has.
pub(super) struct Inputs {
    total: i64,
    holders: Vec<(WorkerId, i64)>,
    /// Position of each holder, once there are many.
    index: IdMap<WorkerId, usize>,
}

impl Inputs {
    /// The inputs of `id`.
    pub(super) fn of(scheduler: &Scheduler, id: TaskId) -> Self {
        let mut inputs = Self {
            total: 0,
            holders: Vec::new(),
            index: IdMap::default(),
        };
        for dependency in scheduler.tasks[id].dependencies.iter() {
            let nbytes = scheduler.get_nbytes(dependency);
            inputs.total += nbytes;
            for holder in scheduler.tasks[dependency].who_has.iter() {
                inputs.add(holder, nbytes);
            }
        }
        inputs
    }

    /// Each worker that holds any of them.
    pub(super) fn holders(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.holders.iter().map(|&(worker, _)| worker)
    }

    /// Bytes that the worker would have to fetch.
    pub(super) fn missing(&self, worker: WorkerId) -> i64 {
        let held = self.position(worker).and_then(|at| self.holders.get(at));
        self.total - held.map_or(0, |&(_, nbytes)| nbytes)
    }

    fn position(&self, worker: WorkerId) -> Option<usize> {
        match self.holders.len() <= FEW {
            true => self.holders.iter().position(|&(w, _)| w == worker),
            false => self.index.get(&worker).copied(),
        }
    }

    fn add(&mut self, worker: WorkerId, nbytes: i64) {
        let held = self.position(worker);
        if let Some((_, held)) = held.and_then(|at| self.holders.get_mut(at)) {
            *held += nbytes;
            return;
        }
        self.holders.push((worker, nbytes));
        match self.holders.len() {
            ..=FEW => {}
            // The first time, all of them.
            n if n == FEW + 1 => {
                let holders = self.holders.iter().enumerate();
                self.index
                    .extend(holders.map(|(at, &(worker, _))| (worker, at)));
            }
            n => {
                self.index.insert(worker, n - 1);
            }
        }
    }
}
