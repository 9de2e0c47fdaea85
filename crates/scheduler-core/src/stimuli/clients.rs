//! Clients come and go, want results and give them up.

use std::sync::Arc;

use oxidask_key::Key;

use crate::Scheduler;
use crate::effect::{ChangeEffect, ClientMsg, Effect, LoggedEvent, PlainValue};
use crate::ids::{ClientId, TaskId};
use crate::sets::OrderedIdSet;
use crate::task::TaskState;
use crate::transitions::AT_ONCE;

impl Scheduler {
    pub(super) fn add_client(&mut self, client: ClientId, name: Arc<str>) {
        let told = Arc::clone(&name);
        self.clients.add(client, name);
        self.note_change(|_| Some(ChangeEffect::ClientAdded { client: told }));
    }

    pub(super) fn remove_client(&mut self, client: ClientId) {
        self.abandon_graphs_of(client);
        self.release_all_keys(client);
        let name = self.clients.get(client).map(|c| Arc::clone(&c.name));
        self.clients.remove(client);
        self.note_change(|_| Some(ChangeEffect::ClientRemoved { client: name? }));
    }

    fn release_all_keys(&mut self, client: ClientId) {
        let Some(wanted) = self.clients.get(client) else {
            return;
        };
        let wanted: Vec<TaskId> = wanted.wants_what.iter().collect();
        let many = wanted.len() > AT_ONCE;
        for id in wanted {
            if many {
                self.unwant(id, client);
                self.let_go_later(id);
            } else {
                self.release_from_client(id, client);
            }
        }
        self.run_recommendations();
        self.fill_open_slots();
    }

    /// Unknown keys are passed over, unless a graph is still to come in part: a placeholder could never run
    /// nor be forgotten.
    pub(super) fn client_desires_keys(&mut self, client: ClientId, keys: &[Key]) {
        for key in keys {
            let Some(id) = self.tasks.id(key) else {
                self.open_graphs.wait_for(client, key);
                continue;
            };
            if self.add_interest(client, id) {
                self.report(client, id);
                let task = &self.tasks[id];
                if task.state == TaskState::Released && task.run_spec.is_some() {
                    // Nobody wanted it any more. Stock leaves it at that, and the client waits for ever.
                    self.recommend(id, TaskState::Waiting);
                }
            }
        }
        self.run_recommendations();
    }

    /// Notes that the client wants the task; `false` if there is no such client.
    pub(super) fn add_interest(&mut self, client: ClientId, id: TaskId) -> bool {
        let Some(state) = self.clients.get_mut(client) else {
            return false;
        };
        state.wants_what.insert(id);
        self.tasks[id].who_wants.insert(client);
        true
    }

    pub(super) fn client_releases_keys(&mut self, client: ClientId, keys: &[Key]) {
        self.open_graphs.wait_no_more(client, keys);
        for key in keys {
            if let Some(id) = self.tasks.id(key) {
                self.release_from_client(id, client);
            }
        }
        self.run_recommendations();
        self.fill_open_slots();
    }

    pub(super) fn report_key(&mut self, client: ClientId, key: Key) {
        match self.tasks.id(&key) {
            Some(id) => self.report(client, id),
            None => self.tell(
                client,
                ClientMsg::CancelledKeys {
                    keys: vec![key],
                    reason: None,
                    msg: None,
                },
            ),
        }
    }

    /// Tells the client how the task ended, if it has.
    pub(super) fn report(&mut self, client: ClientId, id: TaskId) {
        let task = &self.tasks[id];
        let key = task.key.clone();
        match task.state {
            TaskState::Memory => self.tell(client, ClientMsg::KeyInMemory { key, type_: None }),
            TaskState::Erred => {
                if let Some(failure) = task.blame() {
                    let error = failure.error.clone();
                    self.tell(client, ClientMsg::TaskErred { key, error });
                }
            }
            _ => {}
        }
    }

    /// Tells every client.
    pub(crate) fn tell_all(&mut self, message: &ClientMsg) {
        let clients: Vec<ClientId> = self.clients.ids().collect();
        for client in clients {
            self.tell(client, message.clone());
        }
    }

    /// Stops tasks and what depends on them, as far as nobody else wants them (or in any case).
    pub(super) fn cancel_keys(
        &mut self,
        client: ClientId,
        keys: &[Key],
        force: bool,
        reason: Option<Arc<str>>,
        msg: Option<Arc<str>>,
    ) {
        let Some(state) = self.clients.get(client) else {
            return;
        };
        self.out.push(Effect::LogEvent {
            topics: vec![Arc::clone(&state.name)],
            event: LoggedEvent::Plain(vec![
                ("action", PlainValue::Str("cancel".into())),
                ("count", PlainValue::Int(keys.len() as i64)),
                ("force", PlainValue::Bool(force)),
            ]),
        });
        let (cancelled, declined) = self.find_cancelled(client, keys, force);
        let mut told: Vec<Key> = Vec::with_capacity(cancelled.len());
        for &id in &cancelled {
            let task = &self.tasks[id];
            if !task.who_wants.is_empty() {
                told.push(task.key.clone());
            }
            let releasing: Vec<ClientId> = if force {
                task.who_wants.iter().collect()
            } else {
                vec![client]
            };
            for client in releasing {
                self.release_from_client(id, client);
            }
        }
        for id in declined {
            self.release_from_client(id, client);
        }
        self.run_recommendations();
        self.fill_open_slots();
        if !told.is_empty() {
            self.tell_all(&ClientMsg::CancelledKeys {
                keys: told,
                reason,
                msg,
            });
        }
    }

    /// The tasks to cancel, dependents before what they depend on; and the named ones that others want
    /// as well.
    fn find_cancelled(
        &self,
        client: ClientId,
        keys: &[Key],
        force: bool,
    ) -> (Vec<TaskId>, Vec<TaskId>) {
        let mut seen = OrderedIdSet::<TaskId>::default();
        let mut declined = Vec::new();
        let mut order = Vec::new();
        for key in keys {
            let Some(root) = self.tasks.id(key) else {
                continue;
            };
            // (task, whether its dependents have been visited)
            let mut stack = vec![(root, false)];
            while let Some((id, done)) = stack.pop() {
                if done {
                    order.push(id);
                    continue;
                }
                let task = &self.tasks[id];
                let others_want = task.who_wants.iter().any(|c| c != client);
                if others_want && !force {
                    declined.push(id);
                    continue;
                }
                if !seen.insert(id) {
                    continue;
                }
                stack.push((id, true));
                stack.extend(task.dependents.iter().map(|d| (d, false)));
            }
        }
        (order, declined)
    }

    /// Forgets all tasks; clients and workers stay.
    pub(super) fn restart(&mut self) {
        self.abandon_graphs();
        let clients: Vec<ClientId> = self.clients.ids().collect();
        for client in clients {
            self.release_all_keys(client);
        }
        let left: Vec<TaskId> = self.tasks.iter().map(|(id, _)| id).collect();
        for id in left {
            self.recommend(id, TaskState::Forgotten);
        }
        self.run_recommendations();
        if self.tasks.is_empty() {
            self.groups.clear();
        }
        self.erred_tasks.clear();
        self.note_change(|_| Some(ChangeEffect::Restarted));
        self.tell_all(&ClientMsg::Restart);
    }
}
