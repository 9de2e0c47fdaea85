//! What the shell knows of connected workers: the facts of their registration that the core has no
//! use for, and the last figures they sent. Keeps addresses and names unique.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use oxidask_scheduler_core::effect::WorkerMsg;
use oxidask_scheduler_core::ids::{Timestamp, WorkerId};
use oxidask_scheduler_core::worker::WorkerInfo;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;
use parking_lot::{Mutex, RwLock};

use crate::outbox::Outbox;
use crate::versions::Kinds;

/// A registered worker.
#[derive(Debug)]
pub struct WorkerEntry {
    /// Its id in the core.
    pub id: WorkerId,
    /// What the core was told.
    pub info: WorkerInfo,
    /// The address by which it calls itself; that of `info` has the host as a number.
    pub contact: Arc<str>,
    /// Its name as given: text or number.
    pub name: Value,
    /// Release of `distributed`, which decides what it is sent and how it is called.
    pub release: Release,
    /// `services` of its registration: name and port.
    pub services: Value,
    /// `versions` of its registration; one value for all workers that say the same.
    pub versions: Arc<Value>,
    /// `extra` of its registration.
    pub extra: Value,
    /// Memory limit as given: an int or nil.
    pub memory_limit: Value,
    /// When it registered.
    pub registered: Timestamp,
    /// What changes with heartbeats.
    pub live: Mutex<LiveFigures>,
    /// Queue of its stream.
    pub outbox: Outbox<WorkerMsg>,
}

/// The last heartbeat.
#[derive(Debug, Default)]
pub struct LiveFigures {
    /// `metrics` as the worker sent them.
    pub metrics: Value,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// Scheduler's clock minus the worker's, in seconds.
    pub time_delay: f64,
}

/// Why a worker was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// A worker of that address is connected.
    #[error("Worker already exists {0}")]
    Address(Arc<str>),
    /// A worker of that name is connected.
    #[error("name taken, {0}")]
    Name(String),
}

/// All registered workers.
#[derive(Debug, Default)]
pub struct WorkerTable {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_id: u32,
    by_id: BTreeMap<WorkerId, Arc<WorkerEntry>>,
    by_address: BTreeMap<Arc<str>, WorkerId>,
    /// Those that call themselves otherwise than they are known.
    by_contact: HashMap<Arc<str>, WorkerId>,
    by_name: HashMap<Arc<str>, WorkerId>,
    versions: Kinds,
}

impl WorkerTable {
    /// Takes a worker in under a fresh id; `make` builds the entry for it.
    ///
    /// # Errors
    /// When its address or name is taken.
    pub fn register(
        &self,
        address: &Arc<str>,
        name: &Arc<str>,
        make: impl FnOnce(WorkerId) -> WorkerEntry,
    ) -> Result<Arc<WorkerEntry>, RegistrationError> {
        let mut inner = self.inner.write();
        if inner.by_address.contains_key(address) {
            return Err(RegistrationError::Address(Arc::clone(address)));
        }
        if inner.by_name.contains_key(name) {
            return Err(RegistrationError::Name(name.to_string()));
        }
        inner.last_id += 1;
        let id = WorkerId(inner.last_id);
        let mut entry = make(id);
        entry.versions = inner.versions.add(&entry.versions);
        let entry = Arc::new(entry);
        inner.by_address.insert(Arc::clone(address), id);
        if entry.contact != entry.info.address {
            inner.by_contact.insert(Arc::clone(&entry.contact), id);
        }
        inner.by_name.insert(Arc::clone(name), id);
        inner.by_id.insert(id, Arc::clone(&entry));
        Ok(entry)
    }

    /// Whether a worker of this address or name is connected.
    pub fn is_taken(&self, address: &str, name: &str) -> bool {
        let inner = self.inner.read();
        inner.by_address.contains_key(address) || inner.by_name.contains_key(name)
    }

    /// Takes a worker out; called when the core has removed it.
    pub fn remove(&self, id: WorkerId) -> Option<Arc<WorkerEntry>> {
        let mut inner = self.inner.write();
        let entry = inner.by_id.remove(&id)?;
        inner.versions.remove(&entry.versions);
        if inner.by_address.get(&entry.info.address) == Some(&id) {
            inner.by_address.remove(&entry.info.address);
        }
        if inner.by_contact.get(&entry.contact) == Some(&id) {
            inner.by_contact.remove(&entry.contact);
        }
        if inner.by_name.get(&entry.info.name) == Some(&id) {
            inner.by_name.remove(&entry.info.name);
        }
        Some(entry)
    }

    /// The worker of this id.
    pub fn get(&self, id: WorkerId) -> Option<Arc<WorkerEntry>> {
        self.inner.read().by_id.get(&id).cloned()
    }

    /// The worker of this address, which may be the one by which it calls itself.
    pub fn at(&self, address: &str) -> Option<Arc<WorkerEntry>> {
        let inner = self.inner.read();
        let id = inner.by_address.get(address);
        let id = id.or_else(|| inner.by_contact.get(address))?;
        inner.by_id.get(id).cloned()
    }

    /// The worker of this name (numbers by their text).
    pub fn named(&self, name: &str) -> Option<Arc<WorkerEntry>> {
        let inner = self.inner.read();
        let id = inner.by_name.get(name)?;
        inner.by_id.get(id).cloned()
    }

    /// The worker an alias means: an address, or a name.
    pub fn resolve(&self, alias: &str) -> Option<Arc<WorkerEntry>> {
        self.at(alias).or_else(|| self.named(alias))
    }

    /// The release spoken by the worker or nanny at `address`.
    pub fn release_at(&self, address: &str) -> Option<Release> {
        if let Some(worker) = self.at(address) {
            return Some(worker.release);
        }
        let inner = self.inner.read();
        let of_nanny = |w: &&Arc<WorkerEntry>| w.info.nanny.as_deref() == Some(address);
        inner.by_id.values().find(of_nanny).map(|w| w.release)
    }

    /// What the workers say of their packages, each kind once; without what `except` alone says.
    pub fn versions(&self, except: Option<&WorkerEntry>) -> Vec<Arc<Value>> {
        let except = except.map(|worker| &worker.versions);
        self.inner.read().versions.of_others(except)
    }

    /// All workers by address, the order that stock has.
    pub fn all(&self) -> Vec<Arc<WorkerEntry>> {
        let inner = self.inner.read();
        let ids = inner.by_address.values();
        ids.filter_map(|id| inner.by_id.get(id).cloned()).collect()
    }

    /// How many ever registered.
    pub fn registered_total(&self) -> u64 {
        u64::from(self.inner.read().last_id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inner.read().by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Seconds a worker shall leave between two heartbeats: more workers, fewer heartbeats each.
    pub fn heartbeat_interval(&self) -> f64 {
        heartbeat_interval(self.len())
    }
}

/// Stock's rule for `heartbeat-interval`, in seconds, with so many peers.
pub fn heartbeat_interval(workers: usize) -> f64 {
    match workers {
        0..=10 => 0.5,
        11..50 => 1.0,
        50..200 => 2.0,
        // Some 200 heartbeats a second however large the cluster.
        n => n as f64 / 200.0 + 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_get_rarer_as_the_cluster_grows() {
        let table = [
            (0, 0.5),
            (10, 0.5),
            (11, 1.0),
            (49, 1.0),
            (50, 2.0),
            (199, 2.0),
            (400, 3.0),
        ];
        for (workers, seconds) in table {
            assert_eq!(heartbeat_interval(workers), seconds, "{workers} workers");
        }
    }
}
