//! A simulated client: remembers what it asked for and what it was told.

use std::collections::BTreeMap;

use oxidask_key::Key;
use oxidask_scheduler_core::effect::ClientMsg;
use oxidask_scheduler_core::ids::ClientId;

/// What the client believes of one of its futures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutureState {
    /// Not told anything yet.
    Pending,
    /// `key-in-memory`.
    Finished,
    /// `task-erred`.
    Erred,
    /// `cancelled-keys` or `restart`.
    Cancelled,
    /// `lost-data`.
    Lost,
}

/// State of one client.
#[derive(Debug)]
pub struct SimClient {
    /// Id at the scheduler.
    pub id: ClientId,
    /// Futures it holds, by the text of the key.
    pub futures: BTreeMap<String, (Key, FutureState)>,
    /// What it was told that contradicts what it was told before.
    pub contradictions: Vec<String>,
    pending: usize,
}

impl SimClient {
    /// A client without futures.
    pub fn new(id: ClientId) -> Self {
        Self {
            id,
            futures: BTreeMap::new(),
            contradictions: Vec::new(),
            pending: 0,
        }
    }

    /// Holds futures of `keys` from now on.
    pub fn expect(&mut self, keys: &[Key]) {
        for key in keys {
            self.futures.entry(key.to_text()).or_insert_with(|| {
                self.pending += 1;
                (key.clone(), FutureState::Pending)
            });
        }
    }

    /// Lets go of a future.
    pub fn forget(&mut self, key: &Key) {
        if let Some((_, state)) = self.futures.remove(&key.to_text()) {
            self.pending -= usize::from(waits(state));
        }
    }

    /// A message of the scheduler.
    pub fn on_message(&mut self, msg: &ClientMsg) {
        match msg {
            ClientMsg::KeyInMemory { key, .. } => self.set(key, FutureState::Finished),
            ClientMsg::TaskErred { key, .. } => self.set(key, FutureState::Erred),
            ClientMsg::TaskRetried { key } => self.set(key, FutureState::Pending),
            ClientMsg::LostData { key } => self.set(key, FutureState::Lost),
            ClientMsg::CancelledKeys { keys, .. } => {
                for key in keys {
                    self.set(key, FutureState::Cancelled);
                }
            }
            ClientMsg::Restart => {
                for (_, state) in self.futures.values_mut() {
                    *state = FutureState::Cancelled;
                }
                self.pending = 0;
            }
        }
    }

    fn set(&mut self, key: &Key, new: FutureState) {
        // Messages about futures it let go of in the meantime are normal.
        let Some((_, state)) = self.futures.get_mut(&key.to_text()) else {
            return;
        };
        let old = std::mem::replace(state, new);
        if matches!(
            (old, new),
            (
                FutureState::Erred,
                FutureState::Finished | FutureState::Erred
            ) | (
                FutureState::Finished,
                FutureState::Erred | FutureState::Finished
            )
        ) {
            self.contradictions
                .push(format!("{key}: {old:?} and then {new:?}"));
        }
        self.pending += usize::from(waits(new));
        self.pending -= usize::from(waits(old));
    }

    /// Whether it waits for anything.
    pub fn is_waiting(&self) -> bool {
        self.pending > 0
    }

    /// Futures it still waits for.
    pub fn pending(&self) -> impl Iterator<Item = &Key> {
        self.futures
            .values()
            .filter(|(_, state)| waits(*state))
            .map(|(key, _)| key)
    }
}

/// A lost result is computed again.
fn waits(state: FutureState) -> bool {
    matches!(state, FutureState::Pending | FutureState::Lost)
}
