//! What transfers from peers come to.

use std::sync::Arc;

use oxidask_key::Key;

use crate::Worker;
use crate::effect::SchedulerMsg;
use crate::event::{Datum, GatherOutcome};
use crate::ids::{PeerId, TaskId, TransferId};
use crate::opaque::Opaque;
use crate::state::{Busy, TaskSet};
use crate::story::Step;
use crate::task::TaskState;

impl Worker {
    pub(super) fn gathered(&mut self, transfer: TransferId, outcome: GatherOutcome) {
        let Some(transfer) = self.transfers.end(transfer) else {
            return;
        };
        let peer = transfer.peer;
        for &id in &transfer.tasks {
            self.tasks[id].transfer = None;
        }
        match outcome {
            GatherOutcome::Answered { data, failed } => {
                self.peers[peer].last_wait = 0.0;
                self.answered(peer, transfer.tasks, data, failed);
            }
            GatherOutcome::Busy => {
                self.peer_is_busy(peer);
                self.come_to_nothing(transfer.tasks, Some(peer));
            }
            GatherOutcome::Unreachable => {
                self.lose_peer(peer);
                self.come_to_nothing(transfer.tasks, None);
            }
        }
        // Only now: until here the peer must not be forgotten.
        self.peers[peer].transfer = None;
        self.peers.forget_if_idle(peer);
    }

    fn answered(
        &mut self,
        peer: PeerId,
        mut expected: TaskSet,
        data: Vec<Datum>,
        failed: Vec<(Key, Opaque)>,
    ) {
        let mut arrived: Vec<Key> = Vec::new();
        for datum in data {
            // What was freed meanwhile, and what was never asked for, is not taken.
            let Some(id) = self.take_expected(&mut expected, &datum.key) else {
                continue;
            };
            if self.tasks[id].state == TaskState::Flight {
                self.put_in_memory(id, datum.value, datum.nbytes);
                arrived.push(datum.key);
            } else {
                self.release(id);
                self.settle(id);
            }
        }
        if !arrived.is_empty() {
            self.tell(SchedulerMsg::AddKeys { keys: arrived });
        }
        for (key, report) in failed {
            let Some(id) = self.take_expected(&mut expected, &key) else {
                continue;
            };
            self.log(key, Step::Told("gather-dep-failed"));
            self.remove_holder(id, peer);
            if self.tasks[id].state == TaskState::Flight && self.tasks[id].who_has.is_empty() {
                self.fail_dependents(id, &report);
            } else {
                self.back_to_fetch(id);
            }
        }
        for id in expected {
            let key = self.tasks[id].key.clone();
            self.log(key.clone(), Step::Told("missing-dep"));
            let errant_worker = Arc::clone(&self.peers[peer].address);
            self.tell(SchedulerMsg::MissingData { key, errant_worker });
            self.remove_holder(id, peer);
            self.back_to_fetch(id);
        }
    }

    fn take_expected(&self, expected: &mut TaskSet, key: &Key) -> Option<TaskId> {
        let id = self.tasks.id(key)?;
        expected.swap_remove(&id).then_some(id)
    }

    fn back_to_fetch(&mut self, id: TaskId) {
        if self.tasks[id].state == TaskState::Flight {
            self.seek(id);
        } else {
            self.release(id);
            self.settle(id);
        }
    }

    fn come_to_nothing(&mut self, tasks: TaskSet, busy: Option<PeerId>) {
        for id in tasks {
            self.log(self.tasks[id].key.clone(), Step::Told("missing-dep"));
            if busy.is_some() {
                let mut holders = self.tasks[id].who_has.iter();
                let all_busy = holders.all(|&p| self.peers[p].busy.is_some());
                if all_busy && self.tasks[id].state == TaskState::Flight {
                    // Perhaps the scheduler knows somebody else by now.
                    self.to_ask.insert(id);
                }
            }
            self.back_to_fetch(id);
        }
    }

    fn peer_is_busy(&mut self, peer: PeerId) {
        let config = &self.config;
        let last = self.peers[peer].last_wait;
        let wait = (2.0 * last).clamp(config.busy_retry, config.busy_retry_max);
        let until = self.now.after(wait);
        self.peers[peer].last_wait = wait;
        self.peers[peer].busy = Some(Busy { until });
        self.busy_peers.push(peer);
    }
}
