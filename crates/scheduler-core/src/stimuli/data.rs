//! Copies of results: who has them, who shall have them, who lost them.

use std::sync::Arc;

use oxidask_key::Key;

use crate::Scheduler;
use crate::effect::{ClientMsg, WorkerMsg};
use crate::event::DataPlacement;
use crate::ids::{ClientId, TaskId, WorkerId};
use crate::state::{Restrictions, Task};
use crate::task::TaskState;

impl Scheduler {
    pub(super) fn update_data(&mut self, data: &[DataPlacement], client: Option<ClientId>) {
        for placement in data {
            let holders: Vec<WorkerId> = placement
                .who_has
                .iter()
                .filter_map(|a| self.coerce_address(a))
                .filter_map(|a| self.workers.by_address(&a))
                .collect();
            if holders.is_empty() {
                continue;
            }
            let id = match self.tasks.id(&placement.key) {
                Some(id) => id,
                None => self.new_task(placement.key.clone(), None, TaskState::Memory),
            };
            let known = self.tasks[id].state == TaskState::Memory;
            if !known {
                self.bring_to_released(id);
                self.set_state(id, TaskState::Memory);
            }
            let nbytes = i64::try_from(placement.nbytes).unwrap_or(i64::MAX);
            self.set_nbytes(id, nbytes);
            for worker in holders {
                self.add_replica(id, worker);
            }
            if !known {
                self.recommend_ready_dependents(id);
                self.release_used_dependencies(id);
            }
            self.tell_who_wants(id, |key| ClientMsg::KeyInMemory { key, type_: None });
            if let Some(client) = client
                && self.add_interest(client, id)
            {
                self.report(client, id);
            }
        }
        self.run_recommendations();
    }

    /// Data appears for a task that was to be computed: it leaves whatever it was doing.
    fn bring_to_released(&mut self, id: TaskId) {
        if self.tasks[id].state != TaskState::Released {
            self.transition(
                id,
                TaskState::Released,
                crate::transitions::Cause::Recommended,
            );
            self.withdraw_recommendation(id);
        }
        let waiters = self.tasks[id]
            .dependents
            .iter()
            .filter(|&d| {
                matches!(
                    self.tasks[d].state,
                    TaskState::Waiting
                        | TaskState::Processing
                        | TaskState::Queued
                        | TaskState::NoWorker
                )
            })
            .collect();
        self.tasks[id].waiters = waiters;
    }

    pub(crate) fn new_task(
        &mut self,
        key: Key,
        run_spec: Option<crate::opaque::Opaque>,
        state: TaskState,
    ) -> TaskId {
        let group = self.groups.group_for(&key);
        self.groups.add_task(group, state);
        self.tasks.insert(Task::new(key, run_spec, state, group))
    }

    pub(crate) fn add_keys(&mut self, worker: WorkerId, keys: &[Key]) {
        if !self.workers.is_live(worker) {
            return;
        }
        let mut redundant = Vec::new();
        for key in keys {
            match self.tasks.id(key) {
                Some(id) if self.tasks[id].state == TaskState::Memory => {
                    self.add_replica(id, worker);
                }
                _ => redundant.push(key.clone()),
            }
        }
        if !redundant.is_empty() {
            self.send(worker, |stimulus_id| WorkerMsg::RemoveReplicas {
                keys: redundant,
                stimulus_id,
            });
        }
    }

    pub(super) fn release_worker_data(&mut self, worker: WorkerId, key: &Key) {
        let Some(id) = self.tasks.id(key) else {
            return;
        };
        if !self.tasks[id].who_has.contains(worker) {
            return;
        }
        self.remove_replica(id, worker);
        self.recommend_if_lost(id);
        self.run_recommendations();
    }

    fn recommend_if_lost(&mut self, id: TaskId) {
        if self.tasks[id].who_has.is_empty() {
            self.recommend(id, TaskState::Released);
        }
    }

    pub(super) fn missing_data(&mut self, key: &Key, errant_worker: &Arc<str>) {
        let (Some(id), Some(worker)) = (self.tasks.id(key), self.workers.by_address(errant_worker))
        else {
            return;
        };
        if self.tasks[id].who_has.contains(worker) {
            self.remove_replica(id, worker);
            self.recommend_if_lost(id);
            self.run_recommendations();
        }
    }

    pub(super) fn request_refresh_who_has(&mut self, worker: WorkerId, keys: &[Key]) {
        let mut who_has = Vec::new();
        let mut unknown = Vec::new();
        for key in keys {
            match self.tasks.id(key) {
                Some(id) => {
                    who_has.push((key.clone(), self.addresses(&self.tasks[id].who_has)));
                }
                None => unknown.push(key.clone()),
            }
        }
        if !who_has.is_empty() {
            self.send(worker, |stimulus_id| WorkerMsg::RefreshWhoHas {
                who_has,
                stimulus_id,
            });
        }
        if !unknown.is_empty() {
            self.send(worker, |stimulus_id| WorkerMsg::FreeKeys {
                keys: unknown,
                stimulus_id,
            });
        }
    }

    pub(crate) fn request_acquire_replicas(&mut self, worker: WorkerId, keys: &[Key]) {
        let mut who_has = Vec::new();
        let mut nbytes = Vec::new();
        for key in keys {
            let Some(id) = self.tasks.id(key) else {
                continue;
            };
            if self.tasks[id].who_has.is_empty() {
                continue;
            }
            who_has.push((key.clone(), self.addresses(&self.tasks[id].who_has)));
            nbytes.push((key.clone(), self.get_nbytes(id).max(0) as u64));
        }
        if !who_has.is_empty() {
            self.send(worker, |stimulus_id| WorkerMsg::AcquireReplicas {
                who_has,
                nbytes,
                stimulus_id,
            });
        }
    }

    /// Whether a task that the worker has to compute needs this one. Workers give up copies that they
    /// are told to, even then.
    pub(crate) fn is_waited_for_on(&self, id: TaskId, worker: WorkerId) -> bool {
        let mut waiters = self.tasks[id].waiters.iter();
        waiters.any(|waiter| self.tasks[waiter].processing_on.get() == Some(worker))
    }

    /// The copies count as gone at once; a worker that cannot drop one says so with `add-keys`. The
    /// last copy of a result is never asked for.
    pub(crate) fn request_remove_replicas(&mut self, worker: WorkerId, keys: &[Key]) {
        let mut dropped = Vec::new();
        for key in keys {
            let Some(id) = self.tasks.id(key) else {
                continue;
            };
            let who_has = &self.tasks[id].who_has;
            // Policies in Python decide by what they saw a moment ago.
            if who_has.len() > 1 && who_has.contains(worker) && !self.is_waited_for_on(id, worker) {
                self.remove_replica(id, worker);
                dropped.push(key.clone());
            }
        }
        if !dropped.is_empty() {
            self.send(worker, |stimulus_id| WorkerMsg::RemoveReplicas {
                keys: dropped,
                stimulus_id,
            });
        }
    }

    pub(super) fn set_queueable(&mut self, keys: &[Key], queueable: bool) {
        for key in keys {
            if let Some(id) = self.tasks.id(key) {
                self.tasks[id].queueable = queueable;
            }
        }
    }

    pub(super) fn set_restrictions(&mut self, restrictions: &[(Key, Option<Vec<Arc<str>>>)]) {
        for (key, addresses) in restrictions {
            let Some(id) = self.tasks.id(key) else {
                continue;
            };
            let workers: Vec<Arc<str>> = addresses
                .iter()
                .flatten()
                .map(|a| self.coerce_address(a).unwrap_or_else(|| Arc::clone(a)))
                .collect();
            let mut new = match &self.tasks[id].restrictions {
                Some(old) => Restrictions::clone(old),
                None => Restrictions::default(),
            };
            new.workers = workers;
            self.tasks[id].restrictions = (new.restricts() || new.loose).then(|| Arc::new(new));
            if self.tasks[id].state == TaskState::NoWorker {
                self.recommend(id, TaskState::Processing);
            }
        }
        self.run_recommendations();
    }
}
