//! The data here, in memory or on disk, by key. Written by `books` (what is here) and by
//! [`crate::memory`] (where it is); read by requests and by Python.
//!
//! Nothing here waits for a disk or for Python. What is on disk is found with [`Store::get`] like
//! everything else; `memory::loading` brings it back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use parking_lot::Mutex;

use crate::interpreter::Object;
use crate::memory::spilled::Spilled;

/// Shared and cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Mutex<Inner>>);

/// Where something of the store is.
#[derive(Clone, Debug)]
pub enum Held {
    /// In memory.
    Here(Object),
    /// On disk; the file stays for as long as somebody has this.
    Spilled(Arc<Spilled>),
}

/// What the scheduler is told about an object.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Printable name of its type.
    pub typename: Arc<str>,
    /// Its pickled type.
    pub type_pickle: Bytes,
}

/// Sizes of the store in bytes and in keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of objects in memory, as Python estimates them.
    pub memory: u64,
    /// The same of those on disk.
    pub spilled_memory: u64,
    /// Bytes that their files take.
    pub spilled_disk: u64,
    /// How many are on disk.
    pub spilled_count: usize,
    /// How often something was wanted that was in memory.
    pub memory_reads: u64,
    /// Bytes of that.
    pub memory_read_bytes: u64,
}

/// Something that is to be written to disk. It stays in memory until [`Store::spilled`].
#[derive(Debug)]
pub(crate) struct Victim {
    pub(crate) key: Key,
    pub(crate) object: Object,
    pub(crate) nbytes: u64,
    serial: u64,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    /// Counts uses and insertions.
    clock: u64,
    /// Least recently used first, with the time of that use; entries that were used since, or are
    /// gone, are passed over. Made anew when it is used up.
    oldest: VecDeque<(u64, Key)>,
    sizes: Sizes,
}

#[derive(Debug)]
struct Entry {
    held: Held,
    nbytes: u64,
    /// When it was last used.
    used: u64,
    /// Names this value: another one under the same key has another.
    serial: u64,
    /// An actor, or what can not be pickled: never goes to disk.
    pinned: bool,
}

impl Store {
    /// The object of that name, which counts as a use of it.
    pub fn get(&self, key: &Key) -> Option<Held> {
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        inner.clock += 1;
        let entry = inner.entries.get_mut(key)?;
        entry.used = inner.clock;
        if matches!(entry.held, Held::Here(_)) {
            inner.sizes.memory_reads += 1;
            let bytes = &mut inner.sizes.memory_read_bytes;
            *bytes = bytes.saturating_add(entry.nbytes);
        }
        Some(entry.held.clone())
    }

    /// Whether there is something of that name.
    pub fn contains(&self, key: &Key) -> bool {
        self.0.lock().entries.contains_key(key)
    }

    /// The type of what is there.
    pub fn kind(&self, key: &Key) -> Option<Kind> {
        let inner = self.0.lock();
        Some(inner.entries.get(key)?.held.kind())
    }

    /// Size in bytes of what is there, as it was told when it came.
    pub fn nbytes(&self, key: &Key) -> Option<u64> {
        Some(self.0.lock().entries.get(key)?.nbytes)
    }

    /// All names, in no order that means anything.
    pub fn keys(&self) -> Vec<Key> {
        self.0.lock().entries.keys().cloned().collect()
    }

    /// Names of what is on disk.
    pub fn keys_on_disk(&self) -> Vec<Key> {
        let inner = self.0.lock();
        let on_disk = inner.entries.iter();
        let on_disk = on_disk.filter(|(_, entry)| matches!(entry.held, Held::Spilled(_)));
        on_disk.map(|(key, _)| key.clone()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is where.
    pub fn sizes(&self) -> Sizes {
        self.0.lock().sizes
    }

    /// Puts an object in; returns the one it takes the place of. `pinned`: never to go to disk.
    /// `first_to_go`: the first that goes to disk, because it is too large to stay.
    pub(crate) fn insert(
        &self,
        key: Key,
        object: Object,
        nbytes: u64,
        pinned: bool,
        first_to_go: bool,
    ) -> Option<Object> {
        let mut inner = self.0.lock();
        let old = inner.take(&key);
        inner.clock += 1;
        let now = inner.clock;
        if first_to_go {
            inner.oldest.push_front((now, key.clone()));
        }
        inner.sizes.memory = inner.sizes.memory.saturating_add(nbytes);
        let entry = Entry {
            held: Held::Here(object),
            nbytes,
            used: now,
            serial: now,
            pinned,
        };
        inner.entries.insert(key, entry);
        old
    }

    /// Takes an object out.
    pub(crate) fn remove(&self, key: &Key) -> Option<Object> {
        self.0.lock().take(key)
    }

    /// What was not used for longest. Nothing: all that is left has to stay in memory.
    pub(crate) fn oldest(&self) -> Option<Victim> {
        let mut inner = self.0.lock();
        if let Some(victim) = inner.next_oldest() {
            return Some(victim);
        }
        let mut all: Vec<(u64, Key)> = inner
            .entries
            .iter()
            .filter(|(_, entry)| entry.may_go())
            .map(|(key, entry)| (entry.used, key.clone()))
            .collect();
        all.sort_unstable_by_key(|(used, _)| *used);
        inner.oldest = all.into();
        inner.next_oldest()
    }

    /// The victim is on disk; returns what may leave the memory now. If the victim was dropped
    /// meanwhile, so is the file.
    pub(crate) fn spilled(&self, victim: &Victim, file: Arc<Spilled>) -> Option<Object> {
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        let entry = inner.entries.get_mut(&victim.key)?;
        if entry.serial != victim.serial {
            return None;
        }
        let sizes = &mut inner.sizes;
        sizes.memory = sizes.memory.saturating_sub(entry.nbytes);
        sizes.spilled_memory = sizes.spilled_memory.saturating_add(entry.nbytes);
        sizes.spilled_disk = sizes.spilled_disk.saturating_add(file.disk_bytes());
        sizes.spilled_count += 1;
        match std::mem::replace(&mut entry.held, Held::Spilled(file)) {
            Held::Here(object) => Some(object),
            Held::Spilled(_) => None,
        }
    }

    /// The victim stays in memory. `for_good`: it can never go.
    pub(crate) fn stays(&self, victim: &Victim, for_good: bool) {
        let mut inner = self.0.lock();
        let Some(entry) = inner.entries.get_mut(&victim.key) else {
            return;
        };
        if entry.serial == victim.serial {
            entry.pinned |= for_good;
            if !for_good {
                let used = entry.used;
                inner.oldest.push_front((used, victim.key.clone()));
            }
        }
    }

    /// What was on disk is an object again: it goes back into memory, unless it is as large as all
    /// that may be there (`most`), or the key means something else by now.
    pub fn restored(&self, key: &Key, file: &Arc<Spilled>, object: &Object, most: u64) {
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        let Some(entry) = inner.entries.get_mut(key) else {
            return;
        };
        if !matches!(&entry.held, Held::Spilled(held) if Arc::ptr_eq(held, file)) {
            return;
        }
        if entry.nbytes > most {
            return;
        }
        let sizes = &mut inner.sizes;
        sizes.unspill(entry.nbytes, file.disk_bytes());
        sizes.memory = sizes.memory.saturating_add(entry.nbytes);
        entry.held = Held::Here(object.clone());
    }
}

impl Inner {
    fn take(&mut self, key: &Key) -> Option<Object> {
        let entry = self.entries.remove(key)?;
        match entry.held {
            Held::Here(object) => {
                self.sizes.memory = self.sizes.memory.saturating_sub(entry.nbytes);
                Some(object)
            }
            Held::Spilled(file) => {
                self.sizes.unspill(entry.nbytes, file.disk_bytes());
                None
            }
        }
    }

    fn next_oldest(&mut self) -> Option<Victim> {
        while let Some((used, key)) = self.oldest.pop_front() {
            let Some(entry) = self.entries.get(&key) else {
                continue;
            };
            if let Held::Here(object) = &entry.held
                && entry.used == used
                && entry.may_go()
            {
                return Some(Victim {
                    object: object.clone(),
                    nbytes: entry.nbytes,
                    serial: entry.serial,
                    key,
                });
            }
        }
        None
    }
}

impl Entry {
    fn may_go(&self) -> bool {
        !self.pinned && matches!(self.held, Held::Here(_))
    }
}

impl Sizes {
    fn unspill(&mut self, nbytes: u64, disk: u64) {
        self.spilled_memory = self.spilled_memory.saturating_sub(nbytes);
        self.spilled_disk = self.spilled_disk.saturating_sub(disk);
        self.spilled_count = self.spilled_count.saturating_sub(1);
    }
}

impl Held {
    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Here(object) => Kind {
                typename: Arc::clone(&object.typename),
                type_pickle: object.type_pickle.clone(),
            },
            Self::Spilled(file) => file.kind().clone(),
        }
    }
}
