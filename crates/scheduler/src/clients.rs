//! What the shell knows of clients, connected ones and pseudo clients, and their ids in the core.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use oxidask_scheduler_core::effect::ClientMsg;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::ids::{ClientId, Timestamp};
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;
use parking_lot::{Mutex, RwLock};

use crate::core_thread::CoreHandle;
use crate::outbox::Outbox;

/// A client.
#[derive(Debug)]
pub struct ClientEntry {
    /// Its id in the core.
    pub id: ClientId,
    /// `Client-<uuid>`, or `queue-x` and the like.
    pub name: Arc<str>,
    /// Its connection; none for a pseudo client.
    pub connection: Option<ClientConnection>,
}

/// The stream of a connected client.
#[derive(Debug)]
pub struct ClientConnection {
    /// Release of `distributed`.
    pub release: Release,
    /// `versions` of its registration.
    pub versions: Value,
    /// Where it connected from.
    pub peer: Arc<str>,
    /// Queue of its stream.
    pub outbox: Outbox<ClientMsg>,
    /// What the client may ask for.
    pub roles: crate::roles::Roles,
    /// When it registered or its last heartbeat came.
    pub last_seen: Mutex<Timestamp>,
}

/// All clients.
#[derive(Debug, Default)]
pub struct ClientTable {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_id: u32,
    connected_total: u64,
    by_id: BTreeMap<ClientId, Arc<ClientEntry>>,
    by_name: HashMap<Arc<str>, ClientId>,
}

impl Inner {
    fn insert(
        &mut self,
        name: &Arc<str>,
        connection: Option<ClientConnection>,
    ) -> Arc<ClientEntry> {
        self.last_id += 1;
        let id = ClientId(self.last_id);
        let entry = Arc::new(ClientEntry {
            id,
            name: Arc::clone(name),
            connection,
        });
        self.by_id.insert(id, Arc::clone(&entry));
        // A client that reconnects under its name takes the name over from its dead session.
        self.by_name.insert(Arc::clone(name), id);
        entry
    }
}

impl ClientTable {
    /// Takes a connected client in and tells the core.
    pub fn connect(
        &self,
        core: &CoreHandle,
        name: &Arc<str>,
        connection: ClientConnection,
    ) -> Arc<ClientEntry> {
        let outbox = connection.outbox.clone();
        let mut inner = self.inner.write();
        inner.connected_total += 1;
        let entry = inner.insert(name, Some(connection));
        drop(inner);
        core.attach_client(entry.id, outbox);
        core.send(Event::AddClient {
            client: entry.id,
            name: Arc::clone(name),
        });
        entry
    }

    /// The id of the pseudo client `name` (`queue-x`, `published-y`, …), which is made known to the
    /// core if it is new. Pseudo clients hold results alive and are told nothing.
    pub fn pseudo(&self, core: &CoreHandle, name: &str) -> ClientId {
        if let Some(id) = self.inner.read().by_name.get(name) {
            return *id;
        }
        let mut inner = self.inner.write();
        if let Some(id) = inner.by_name.get(name) {
            return *id;
        }
        let name: Arc<str> = name.into();
        let entry = inner.insert(&name, None);
        // Under the lock, so that nobody can use the id before the core knows it.
        core.send(Event::AddClient {
            client: entry.id,
            name,
        });
        entry.id
    }

    /// Takes a client out and tells the core, which releases its interests.
    pub fn remove(&self, core: &CoreHandle, id: ClientId, stimulus_id: &str) {
        let mut inner = self.inner.write();
        let Some(entry) = inner.by_id.remove(&id) else {
            return;
        };
        if inner.by_name.get(&entry.name) == Some(&id) {
            inner.by_name.remove(&entry.name);
        }
        core.send(Event::RemoveClient {
            client: id,
            stimulus_id: stimulus_id.into(),
        });
        core.detach_client(id);
    }

    /// The client of this id.
    pub fn get(&self, id: ClientId) -> Option<Arc<ClientEntry>> {
        self.inner.read().by_id.get(&id).cloned()
    }

    /// The client of this name.
    pub fn named(&self, name: &str) -> Option<Arc<ClientEntry>> {
        let inner = self.inner.read();
        let id = inner.by_name.get(name)?;
        inner.by_id.get(id).cloned()
    }

    /// All clients, pseudo clients included, in order of arrival.
    pub fn all(&self) -> Vec<Arc<ClientEntry>> {
        self.inner.read().by_id.values().cloned().collect()
    }

    /// How many ever connected.
    pub fn connected_total(&self) -> u64 {
        self.inner.read().connected_total
    }

    /// Those with a stream.
    pub fn connected(&self) -> Vec<Arc<ClientEntry>> {
        let inner = self.inner.read();
        let connected = inner.by_id.values().filter(|c| c.connection.is_some());
        connected.cloned().collect()
    }

    /// Queues a composed stream message for the client, if it is connected.
    pub fn tell(&self, id: ClientId, message: Value) {
        if let Some(connection) = self.get(id).as_ref().and_then(|c| c.connection.as_ref()) {
            connection.outbox.send_message(message);
        }
    }
}
