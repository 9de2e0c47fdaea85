//! State by name that exists as long as somebody waits on it or it says something.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use oxidask_key::Key;
use tokio::sync::Notify;

use super::wait::{Deadline, Elapsed, lock, wait_until};

/// State of which the default needs no memory.
pub(crate) trait Idle: Default {
    /// Whether the state equals the default, so that it can be forgotten.
    fn is_idle(&self) -> bool;
}

/// Names and their states. Names are made by clients and never declared, so an entry appears when
/// first touched and is dropped when it is idle and nobody waits.
#[derive(Debug)]
pub(crate) struct Named<T> {
    entries: Mutex<HashMap<Key, Entry<T>>>,
}

#[derive(Debug, Default)]
struct Entry<T> {
    state: T,
    waiters: usize,
    changed: Arc<Notify>,
}

/// Who to wake after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The change concerns nobody who waits.
    Nobody,
    /// One waiter can go on.
    One,
    /// All waiters have to look.
    All,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
        }
    }
}

impl<T: Idle> Named<T> {
    /// Reads the state of `name`; nothing for a name that is idle.
    pub(crate) fn read<R>(&self, name: &Key, f: impl FnOnce(&T) -> R) -> Option<R> {
        lock(&self.entries).get(name).map(|entry| f(&entry.state))
    }

    /// Changes the state of `name` and wakes whom the change concerns.
    pub(crate) fn change<R>(&self, name: &Key, f: impl FnOnce(&mut T) -> (R, Wake)) -> R {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(name.clone()).or_default();
        let (result, wake) = f(&mut entry.state);
        match wake {
            Wake::Nobody => {}
            Wake::One => entry.changed.notify_one(),
            Wake::All => entry.changed.notify_waiters(),
        }
        if entry.waiters == 0 && entry.state.is_idle() {
            entries.remove(name);
        }
        result
    }

    /// Waits until `attempt` yields something. `attempt` may change the state only when it yields.
    pub(crate) async fn wait<R>(
        &self,
        name: &Key,
        deadline: Deadline,
        mut attempt: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, Elapsed> {
        let (_waiter, changed) = Waiter::enter(self, name);
        wait_until(&changed, deadline, || {
            lock(&self.entries)
                .get_mut(name)
                .and_then(|entry| attempt(&mut entry.state))
        })
        .await
    }

    /// Number of names in memory.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.entries).len()
    }
}

/// Counts a waiter while it lives, also when the waiting is given up.
struct Waiter<'a, T: Idle> {
    named: &'a Named<T>,
    name: Key,
}

impl<'a, T: Idle> Waiter<'a, T> {
    fn enter(named: &'a Named<T>, name: &Key) -> (Self, Arc<Notify>) {
        let mut entries = lock(&named.entries);
        let entry = entries.entry(name.clone()).or_default();
        entry.waiters += 1;
        let waiter = Self {
            named,
            name: name.clone(),
        };
        (waiter, Arc::clone(&entry.changed))
    }
}

impl<T: Idle> Drop for Waiter<'_, T> {
    fn drop(&mut self) {
        let mut entries = lock(&self.named.entries);
        if let Some(entry) = entries.get_mut(&self.name) {
            entry.waiters = entry.waiters.saturating_sub(1);
            if entry.waiters == 0 && entry.state.is_idle() {
                entries.remove(&self.name);
            }
        }
    }
}
