//! Which data is asked for, and from whom: at most one request per peer at a time, the most important
//! data first, within the limits of count and bytes.

use std::sync::Arc;

use oxidask_key::Key;

use crate::Worker;
use crate::effect::{Effect, SchedulerMsg};
use crate::ids::{PeerId, TaskId};
use crate::state::{TaskSet, Transfer};
use crate::status::WorkerStatus;
use crate::task::TaskState;

impl Worker {
    /// Asks peers until all are asked, or enough is on its way.
    pub(crate) fn start_transfers(&mut self) {
        if self.status != WorkerStatus::Running || self.peers.is_nothing_wanted() {
            return;
        }
        while !self.is_throttled()
            && let Some(peer) = self.peers.next_to_ask()
            && self.start_transfer(peer)
        {}
    }

    fn is_throttled(&self) -> bool {
        let nbytes = self.transfers.nbytes();
        let many = self.transfers.len() >= self.config.incoming_count_limit as usize;
        let limit = self.config.incoming_bytes_limit;
        many && nbytes >= self.config.incoming_throttle_threshold
            || limit.is_some_and(|limit| nbytes >= limit && nbytes > 0)
    }

    fn start_transfer(&mut self, peer: PeerId) -> bool {
        let (batch, nbytes) = self.select_batch(peer);
        if batch.is_empty() {
            return false;
        }
        let mut keys: Vec<Key> = Vec::with_capacity(batch.len());
        for &id in &batch {
            self.unwant(id);
            keys.push(self.tasks[id].key.clone());
        }
        let transfer = self.transfers.begin(Transfer {
            peer,
            tasks: TaskSet::from_iter(batch.iter().copied()),
            freed: Vec::new(),
            nbytes,
            deadline: None,
        });
        self.peers[peer].transfer = Some(transfer);
        for id in batch {
            self.tasks[id].transfer = Some(transfer);
            self.set_state(id, TaskState::Flight);
        }
        self.out.push(Effect::Gather {
            transfer,
            worker: Arc::clone(&self.peers[peer].address),
            keys,
            nbytes,
            stimulus_id: Arc::clone(&self.stimulus),
        });
        true
    }

    fn select_batch(&self, peer: PeerId) -> (Vec<TaskId>, u64) {
        let mut batch = Vec::new();
        let mut nbytes: u64 = 0;
        for &(_, id) in &self.peers[peer].wanted {
            let size = self.tasks[id].nbytes;
            if self.is_too_much(size, nbytes) {
                break;
            }
            batch.push(id);
            nbytes = nbytes.saturating_add(size);
        }
        (batch, nbytes)
    }

    /// Whether `size` more bytes are too many in a request for `requested` so far. The first of all is
    /// never too large, and the first of a request only when it would exceed the memory for transfers:
    /// else it could never be fetched.
    fn is_too_much(&self, size: u64, requested: u64) -> bool {
        let coming = self.transfers.nbytes();
        if coming == 0 && requested == 0 {
            return false;
        }
        let limit = self.config.incoming_bytes_limit.unwrap_or(u64::MAX);
        let mut allowed = limit.saturating_sub(coming);
        if requested > 0 {
            allowed = allowed.min(self.config.message_bytes_limit);
        }
        size > allowed.saturating_sub(requested)
    }

    /// Asks the scheduler about what has just gone missing, once for all, and not again what was asked
    /// about lately: if it knew better it would have said so.
    pub(crate) fn ask_who_has(&mut self) {
        if !self.to_ask.is_empty() {
            let interval = self.config.find_missing_interval;
            let mut keys = Vec::new();
            for id in std::mem::take(&mut self.to_ask) {
                let task = &mut self.tasks[id];
                let lately = task
                    .asked
                    .is_some_and(|asked| self.now.since(asked) < interval);
                if !lately && matches!(task.state, TaskState::Missing | TaskState::Fetch) {
                    task.asked = Some(self.now);
                    keys.push(task.key.clone());
                }
            }
            if !keys.is_empty() {
                self.tell(SchedulerMsg::RequestRefreshWhoHas { keys });
            }
        }
        if self.missing.is_empty() {
            self.ask_at = None;
        } else if self.ask_at.is_none() {
            self.ask_at = Some(self.now.after(self.config.find_missing_interval));
        }
    }
}
