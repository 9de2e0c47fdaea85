//! Sorting effects by peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use oxidask_scheduler_core::Effects;
use oxidask_scheduler_core::effect::{ChangeEffect, ClientMsg, Effect, WorkerMsg};
use oxidask_scheduler_core::ids::{ClientId, WorkerId};

use crate::observers::{Observed, ObserverSender};
use crate::outbox::{ClientOutbox, WorkerOutbox};
use crate::workers::WorkerTable;

/// Waking so many sessions takes a tenth of a millisecond.
const PEERS_AT_ONCE: usize = 16;

pub(super) struct Delivery {
    workers: BTreeMap<WorkerId, Lane<WorkerOutbox, WorkerMsg>>,
    clients: BTreeMap<ClientId, Lane<ClientOutbox, ClientMsg>>,
    touched_workers: Vec<WorkerId>,
    touched_clients: Vec<ClientId>,
    table: Arc<WorkerTable>,
    observers: ObserverSender,
}

/// One peer: where its messages go, and those of the current batch.
struct Lane<O, M> {
    outbox: O,
    pending: Vec<M>,
}

impl Delivery {
    pub(super) fn new(table: Arc<WorkerTable>, observers: ObserverSender) -> Self {
        Self {
            workers: BTreeMap::new(),
            clients: BTreeMap::new(),
            touched_workers: Vec::new(),
            touched_clients: Vec::new(),
            table,
            observers,
        }
    }

    pub(super) fn attach_worker(&mut self, worker: WorkerId, outbox: WorkerOutbox) {
        let pending = Vec::new();
        self.workers.insert(worker, Lane { outbox, pending });
    }

    pub(super) fn attach_client(&mut self, client: ClientId, outbox: ClientOutbox) {
        let pending = Vec::new();
        self.clients.insert(client, Lane { outbox, pending });
    }

    pub(super) fn detach_client(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }

    /// Hands on all effects, in order for each peer. `between` is called now and then if there are many peers.
    pub(super) fn deliver(&mut self, effects: &mut Effects, mut between: impl FnMut()) {
        for effect in effects.drain(..) {
            match effect {
                Effect::ToWorker(id, message) => {
                    if let Some(lane) = self.workers.get_mut(&id) {
                        if lane.pending.is_empty() {
                            self.touched_workers.push(id);
                        }
                        lane.pending.push(message);
                    }
                }
                Effect::ToClient(id, message) => {
                    if let Some(lane) = self.clients.get_mut(&id) {
                        if lane.pending.is_empty() {
                            self.touched_clients.push(id);
                        }
                        lane.pending.push(message);
                    }
                }
                Effect::WorkerRemoved {
                    worker,
                    stimulus_id,
                } => self.remove_worker(worker, stimulus_id),
                Effect::WorkerUnresponsive {
                    worker,
                    stimulus_id,
                } => {
                    if let Some(worker) = self.table.get(worker) {
                        self.observers.send(Observed::WorkerUnresponsive {
                            worker,
                            stimulus_id,
                        });
                    }
                }
                Effect::LogEvent { topics, event } => {
                    self.observers.send(Observed::Log { topics, event });
                }
                Effect::Suspicious(suspicion) => {
                    self.observers.send(Observed::Suspicious(suspicion));
                }
                Effect::Transition(transition) => {
                    self.observers.send(Observed::Transition(transition));
                }
                Effect::Change(change) => self.pass_on(change),
            }
        }
        for (index, id) in self.touched_workers.drain(..).enumerate() {
            if index % PEERS_AT_ONCE == PEERS_AT_ONCE - 1 {
                between();
            }
            if let Some(lane) = self.workers.get_mut(&id) {
                lane.outbox.send_core(std::mem::take(&mut lane.pending));
            }
        }
        for id in self.touched_clients.drain(..) {
            if let Some(lane) = self.clients.get_mut(&id) {
                lane.outbox.send_core(std::mem::take(&mut lane.pending));
            }
        }
    }

    /// Tells observers that somebody waits for them.
    pub(super) fn settled(&self, done: tokio::sync::oneshot::Sender<()>) {
        self.observers.send(Observed::Settled(done));
    }

    fn pass_on(&self, change: Box<ChangeEffect>) {
        let observed = match *change {
            ChangeEffect::WorkerAdded { worker } => match self.table.get(worker) {
                Some(worker) => Observed::WorkerAdded(worker),
                None => return,
            },
            _ => Observed::Change(change),
        };
        self.observers.send(observed);
    }

    /// Frees the address and the name at once, so that whoever asks after this batch finds them
    /// free, and lets the session say what is left to say before it closes.
    fn remove_worker(&mut self, worker: WorkerId, stimulus_id: Arc<str>) {
        if let Some(lane) = self.workers.remove(&worker) {
            if !lane.pending.is_empty() {
                lane.outbox.send_core(lane.pending);
            }
            lane.outbox.close();
        }
        if let Some(entry) = self.table.remove(worker) {
            self.observers.send(Observed::WorkerRemoved {
                worker: entry,
                stimulus_id,
            });
        }
    }
}
