//! Plans for `rebalance` and `replicate`: which copies to make and to drop. Pure questions; the shell
//! carries them out, as it takes several round trips.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use hashbrown::HashSet;
use oxidask_key::Key;

use crate::Scheduler;
use crate::ids::{TaskId, WorkerId};
use crate::sets::IdMap;

use super::memory_manager::address_of;

/// One copy to be moved: fetched by `recipient` from `sender`, then dropped there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// What.
    pub key: Key,
    /// Address of the worker that gives it away.
    pub sender: Arc<str>,
    /// Address of the worker that gets it.
    pub recipient: Arc<str>,
}

/// Why a plan cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nobody holds these.
    #[error("no worker holds {} of the keys", .0.len())]
    MissingData(Vec<Key>),
    /// No copy at all was asked for, or nobody could hold one.
    #[error("Can not use replicate to delete data")]
    NoCopies,
}

/// A key to be fetched and the addresses of those who have it.
pub type Fetch = (Key, Vec<Arc<str>>);

/// Copies to drop and to make. Making them may take several rounds: a copy can be fetched only from
/// workers that have it, so ask again after each one until the plan is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicatePlan {
    /// Keys to be dropped, by address.
    pub drop: Vec<(Arc<str>, Vec<Key>)>,
    /// Keys to be fetched and who has them, by address.
    pub fetch: Vec<(Arc<str>, Vec<Fetch>)>,
}

/// A worker above the mean. Bytes are negative: what may (`max`) and what should (`min`) go.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Sender {
    max: i64,
    min: i64,
    worker: WorkerId,
}

/// A worker below the mean, likewise.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Recipient {
    max: i64,
    min: i64,
    worker: WorkerId,
}

impl Scheduler {
    /// Moves that make memory use more even: from the workers farthest above the mean to those
    /// farthest below it, oldest results first. `keys` and `workers` limit what is considered.
    pub fn plan_rebalance(
        &self,
        keys: Option<&[Key]>,
        workers: Option<&[WorkerId]>,
    ) -> Result<Vec<Move>, PlanError> {
        let allowed: Option<HashSet<TaskId, foldhash::fast::FixedState>> = match keys {
            None => None,
            Some(keys) => Some(self.held(keys)?.into_iter().collect()),
        };
        let workers: Vec<WorkerId> = workers
            .unwrap_or(self.workers.sorted())
            .iter()
            .copied()
            .filter(|&w| self.workers.is_live(w))
            .collect();
        if workers.is_empty() || allowed.as_ref().is_some_and(HashSet::is_empty) {
            return Ok(Vec::new());
        }
        let (mut senders, mut recipients) = self.senders_and_recipients(&workers);
        let mut cursors: IdMap<u32, Vec<TaskId>> = IdMap::default();
        let mut moves = Vec::new();
        while let Some(Reverse(sender)) = senders.pop() {
            if recipients.is_empty() {
                break;
            }
            let tasks = cursors.entry(sender.worker.0).or_insert_with(|| {
                let mut tasks: Vec<TaskId> = self.workers[sender.worker].has_what.iter().collect();
                tasks.reverse();
                tasks
            });
            while let Some(id) = tasks.pop() {
                let size = self.tasks[id].nbytes.max(0);
                if allowed.as_ref().is_some_and(|a| !a.contains(&id)) || size + sender.max > 0 {
                    continue;
                }
                let Some(mut to) = self.take_recipient(&mut recipients, id, size) else {
                    continue;
                };
                moves.push(Move {
                    key: self.tasks[id].key.clone(),
                    sender: address_of(self, sender.worker),
                    recipient: address_of(self, to.worker),
                });
                to.max += size;
                to.min += size;
                if to.min < 0 {
                    recipients.push(Reverse(to));
                }
                let (max, min) = (sender.max + size, sender.min + size);
                if min < 0 {
                    senders.push(Reverse(Sender { max, min, ..sender }));
                }
                break;
            }
        }
        Ok(moves)
    }

    fn held(&self, keys: &[Key]) -> Result<Vec<TaskId>, PlanError> {
        let mut held = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        for key in keys {
            match self.tasks.id(key) {
                Some(id) if !self.tasks[id].who_has.is_empty() => held.push(id),
                _ => missing.push(key.clone()),
            }
        }
        if missing.is_empty() {
            Ok(held)
        } else {
            Err(PlanError::MissingData(missing))
        }
    }

    fn senders_and_recipients(
        &self,
        workers: &[WorkerId],
    ) -> (BinaryHeap<Reverse<Sender>>, BinaryHeap<Reverse<Recipient>>) {
        let measure = self.config.rebalance_measure;
        let memory: Vec<(WorkerId, i64)> = workers
            .iter()
            .map(|&w| {
                let bytes = self.workers[w].memory().get(measure);
                (w, i64::try_from(bytes).unwrap_or(i64::MAX))
            })
            .collect();
        let total: i128 = memory.iter().map(|&(_, m)| i128::from(m)).sum();
        let mean = (total / memory.len().max(1) as i128) as i64;
        let (mut senders, mut recipients) = (BinaryHeap::new(), BinaryHeap::new());
        for (worker, used) in memory {
            let limit = self.workers[worker].info.memory_limit as f64;
            let (half_gap, sender_min, recipient_max) = if limit > 0.0 {
                (
                    (self.config.rebalance_sender_recipient_gap / 2.0 * limit) as i64,
                    self.config.rebalance_sender_min * limit,
                    self.config.rebalance_recipient_max * limit,
                )
            } else {
                (0, 0.0, f64::INFINITY)
            };
            let holds = !self.workers[worker].has_what.is_empty();
            if holds && used >= mean.saturating_add(half_gap) && used as f64 >= sender_min {
                let max = mean - used;
                let min = max + half_gap;
                senders.push(Reverse(Sender { max, min, worker }));
            } else if used < mean - half_gap && (used as f64) < recipient_max {
                let max = used - mean;
                let min = max + half_gap;
                recipients.push(Reverse(Recipient { max, min, worker }));
            }
        }
        (senders, recipients)
    }

    /// The recipient farthest from the mean that has room for the task and no copy of it.
    fn take_recipient(
        &self,
        recipients: &mut BinaryHeap<Reverse<Recipient>>,
        id: TaskId,
        size: i64,
    ) -> Option<Recipient> {
        let mut skipped = Vec::new();
        let mut found = None;
        while let Some(Reverse(recipient)) = recipients.pop() {
            if size + recipient.max > 0 {
                // The others have even less room.
                skipped.push(Reverse(recipient));
                break;
            }
            if self.tasks[id].who_has.contains(recipient.worker) {
                skipped.push(Reverse(recipient));
                continue;
            }
            found = Some(recipient);
            break;
        }
        recipients.extend(skipped);
        found
    }

    /// What is to be done so that each key is on `n` of the workers (all of them, if not given).
    /// With `delete`, surplus copies go first.
    pub fn plan_replicate(
        &self,
        keys: &[Key],
        n: Option<usize>,
        workers: Option<&[WorkerId]>,
        branching_factor: usize,
        delete: bool,
    ) -> Result<ReplicatePlan, PlanError> {
        let workers: Vec<WorkerId> = workers
            .unwrap_or(&self.workers.running)
            .iter()
            .copied()
            .filter(|&w| self.workers.get(w).is_some_and(|w| w.is_running()))
            .collect();
        let n = n.unwrap_or(workers.len()).min(workers.len());
        if n == 0 {
            return Err(PlanError::NoCopies);
        }
        let mut plan = ReplicatePlan::default();
        let mut load: IdMap<u32, i64> = IdMap::default();
        for id in self.held(keys)? {
            let task = &self.tasks[id];
            let holders: Vec<WorkerId> = workers
                .iter()
                .copied()
                .filter(|&w| task.who_has.contains(w))
                .collect();
            if delete && holders.len() > n {
                for &w in holders.iter().rev().take(holders.len() - n) {
                    entry(&mut plan.drop, address_of(self, w)).push(task.key.clone());
                }
            }
            let missing = n.saturating_sub(holders.len());
            let count = missing.min(branching_factor.max(1) * task.who_has.len());
            // Those that have least first, with what this plan gives them.
            let mut free: Vec<WorkerId> = workers
                .iter()
                .copied()
                .filter(|&w| !task.who_has.contains(w))
                .collect();
            free.sort_by_key(|w| {
                self.workers[*w].nbytes + load.get(&w.0).copied().unwrap_or_default()
            });
            for w in free.into_iter().take(count) {
                *load.entry(w.0).or_default() += self.get_nbytes(id);
                let holders = self.addresses(&task.who_has);
                entry(&mut plan.fetch, address_of(self, w)).push((task.key.clone(), holders));
            }
        }
        Ok(plan)
    }
}

/// The list of an address, made on first need.
fn entry<T>(lists: &mut Vec<(Arc<str>, Vec<T>)>, address: Arc<str>) -> &mut Vec<T> {
    let at = match lists.iter().position(|(a, _)| *a == address) {
        Some(at) => at,
        None => {
            lists.push((address, Vec::new()));
            lists.len() - 1
        }
    };
    &mut lists[at].1
}
