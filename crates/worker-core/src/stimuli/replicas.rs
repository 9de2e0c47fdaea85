//! Copies of data: wanted, no longer wanted, somewhere else than believed, scattered, handed out.

use std::sync::Arc;

use oxidask_key::Key;

use crate::Worker;
use crate::effect::{Effect, SchedulerMsg};
use crate::event::{Datum, Replica};
use crate::ids::RequestId;
use crate::state::Priority;
use crate::status::WorkerStatus;
use crate::story::Step;
use crate::task::TaskState::*;

impl Worker {
    pub(super) fn acquire_replicas(&mut self, replicas: Vec<Replica>) {
        let mut here: Vec<Key> = Vec::new();
        for replica in replicas {
            let id = self
                .tasks
                .ensure(&replica.key, self.config.default_data_size);
            if self.tasks[id].state == Memory {
                here.push(replica.key);
                continue;
            }
            self.log(replica.key, Step::Told("acquire-replicas"));
            self.tasks[id].acquire = true;
            self.want_data(id, Priority::COPY, replica.nbytes, &replica.who_has);
        }
        if !here.is_empty() {
            // The scheduler did not know, or it would not ask.
            self.tell(SchedulerMsg::AddKeys { keys: here });
        }
    }

    pub(super) fn remove_replicas(&mut self, keys: Vec<Key>) {
        let mut kept: Vec<Key> = Vec::new();
        for key in keys {
            let Some(id) = self.tasks.id(&key) else {
                continue;
            };
            self.log(key.clone(), Step::Told("remove-replica"));
            self.tasks[id].acquire = false;
            if self.tasks[id].state != Memory {
                self.let_go(id);
            } else if self.tasks[id].is_needed() {
                kept.push(key);
            } else {
                self.release(id);
                self.settle(id);
                self.tell(SchedulerMsg::ReleaseWorkerData { key });
            }
        }
        if !kept.is_empty() {
            self.tell(SchedulerMsg::AddKeys { keys: kept });
        }
    }

    pub(super) fn refresh_who_has(&mut self, who_has: &[(Key, Vec<Arc<str>>)]) {
        for (key, addresses) in who_has {
            if let Some(id) = self.tasks.id(key) {
                self.set_who_has(id, addresses);
            }
        }
    }

    pub(super) fn remove_worker(&mut self, address: &str) {
        let Some(peer) = self.peers.id(address) else {
            return;
        };
        if let Some(transfer) = self.peers[peer].transfer
            && let Some(transfer) = self.transfers.get_mut(transfer)
        {
            // A worker that leaves in peace finishes what it sends; one that died is waited for by the
            // kernel much longer.
            transfer.deadline = Some(self.now.after(self.config.departed_grace));
        }
        self.peers[peer].busy = None;
        self.busy_peers.retain(|&p| p != peer);
        self.lose_peer(peer);
    }

    pub(super) fn update_data(&mut self, data: Vec<Datum>, report: bool) {
        let mut told: Vec<Key> = Vec::new();
        for datum in data {
            let id = self.tasks.ensure(&datum.key, datum.nbytes);
            self.log(datum.key.clone(), Step::Told("receive-from-scatter"));
            if report {
                told.push(datum.key.clone());
            }
            let task = &self.tasks[id];
            if task.state == Memory {
                self.replace_data(id, datum);
                continue;
            }
            let ordered = task.state.is_pending() || task.state.is_running();
            let answer = (ordered && !task.orphaned).then_some(task.run_id);
            self.release(id);
            self.put_in_memory(id, datum.value, datum.nbytes);
            if let Some(run_id) = answer {
                self.tell(SchedulerMsg::TaskFinished {
                    key: datum.key,
                    run_id,
                    nbytes: datum.nbytes,
                    report: None,
                });
            }
        }
        if !told.is_empty() {
            self.tell(SchedulerMsg::AddKeys { keys: told });
        }
    }

    pub(super) fn get_data(
        &mut self,
        request: RequestId,
        who: Option<&str>,
        keys: Vec<Key>,
        unlimited: bool,
    ) {
        let limit = match self.status {
            WorkerStatus::Paused => 1,
            _ if who.is_some_and(|who| self.peers.is_on_own_host(who)) => {
                2 * self.config.outgoing_count_limit as usize
            }
            _ => self.config.outgoing_count_limit as usize,
        };
        if !unlimited && self.serving.len() >= limit {
            self.out.push(Effect::RefuseData { request });
            return;
        }
        let mut nbytes: u64 = 0;
        let mut held = keys;
        held.retain(|key| {
            let task = self.tasks.by_key(key).filter(|t| t.state == Memory);
            nbytes = nbytes.saturating_add(task.map_or(0, |t| t.nbytes));
            task.is_some()
        });
        self.serving.begin(request, nbytes);
        self.out.push(Effect::ServeData {
            request,
            keys: held,
        });
    }
}
