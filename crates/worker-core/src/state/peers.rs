//! Other workers, as far as they hold something we want.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::IndexMap;

use super::{Priority, TaskSet};
use crate::ids::{PeerId, TaskId, Timestamp, TransferId};

/// A peer that had too many connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy {
    /// When to ask again.
    pub(crate) until: Timestamp,
}

/// One other worker.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: Arc<str>,
    /// On our host.
    pub(crate) is_local: bool,
    /// What it is said to hold of what we want or have.
    pub(crate) has_what: TaskSet,
    /// What of this is in state `fetch`.
    pub(crate) wanted: BTreeSet<(Priority, TaskId)>,
    pub(crate) transfer: Option<TransferId>,
    pub(crate) busy: Option<Busy>,
    /// Seconds waited when it was busy last; 0 since it answered.
    pub(crate) last_wait: f64,
}

impl Peer {
    /// Whether it can be asked now.
    pub(crate) fn is_free(&self) -> bool {
        self.transfer.is_none() && self.busy.is_none()
    }
}

/// All peers.
pub(crate) struct PeerTable {
    slots: Vec<Option<Peer>>,
    free: Vec<u32>,
    index: IndexMap<Arc<str>, PeerId, FixedState>,
    own_address: Arc<str>,
    /// Peers with something wanted; the free ones among them can be asked.
    wanted_from: BTreeSet<PeerId>,
}

/// The part of an address that names the machine: `10.0.0.1` of `tcp://10.0.0.1:8786`.
pub(crate) fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.rsplit_once(':').map_or(rest, |(host, _)| host)
}

impl PeerTable {
    pub(crate) fn new(own_address: Arc<str>, seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: IndexMap::with_hasher(FixedState::with_seed(seed)),
            own_address,
            wanted_from: BTreeSet::new(),
        }
    }

    pub(crate) fn is_self(&self, address: &str) -> bool {
        *self.own_address == *address
    }

    pub(crate) fn is_on_own_host(&self, address: &str) -> bool {
        host_of(address) == host_of(&self.own_address)
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn id(&self, address: &str) -> Option<PeerId> {
        self.index.get(address).copied()
    }

    pub(crate) fn ensure(&mut self, address: &Arc<str>) -> PeerId {
        if let Some(id) = self.id(address) {
            return id;
        }
        let peer = Some(Peer {
            is_local: self.is_on_own_host(address),
            address: Arc::clone(address),
            has_what: TaskSet::default(),
            wanted: BTreeSet::new(),
            transfer: None,
            busy: None,
            last_wait: 0.0,
        });
        let i = match self.free.pop() {
            Some(i) => {
                if let Some(slot) = self.slots.get_mut(i as usize) {
                    *slot = peer;
                }
                i
            }
            None => {
                self.slots.push(peer);
                (self.slots.len() - 1) as u32
            }
        };
        self.index.insert(Arc::clone(address), PeerId(i));
        PeerId(i)
    }

    /// Forgets a peer of which there is nothing to know.
    pub(crate) fn forget_if_idle(&mut self, id: PeerId) {
        let Some(Some(peer)) = self.slots.get(id.0 as usize) else {
            return;
        };
        if peer.has_what.is_empty() && peer.is_free() {
            self.index.swap_remove(&peer.address);
            self.wanted_from.remove(&id);
            if let Some(slot) = self.slots.get_mut(id.0 as usize) {
                *slot = None;
            }
            self.free.push(id.0);
        }
    }

    /// The task is to be fetched from one of its holders.
    pub(crate) fn want(&mut self, id: PeerId, task: TaskId, priority: Priority) {
        self[id].wanted.insert((priority, task));
        self.wanted_from.insert(id);
    }

    /// No longer.
    pub(crate) fn unwant(&mut self, id: PeerId, task: TaskId, priority: Priority) {
        let peer = &mut self[id];
        peer.wanted.remove(&(priority, task));
        if peer.wanted.is_empty() {
            self.wanted_from.remove(&id);
        }
    }

    pub(crate) fn is_nothing_wanted(&self) -> bool {
        self.wanted_from.is_empty()
    }

    /// The peer to ask next: the one with the most important task, rather on this host than on another,
    /// rather with more to fetch than with less.
    pub(crate) fn next_to_ask(&self) -> Option<PeerId> {
        let candidates = self.wanted_from.iter().filter_map(|&id| {
            let peer = self.get(id)?;
            let (priority, _) = peer.wanted.first()?;
            let rank = (
                *priority,
                !peer.is_local,
                usize::MAX - peer.wanted.len(),
                id,
            );
            peer.is_free().then_some(rank)
        });
        candidates.min().map(|(.., id)| id)
    }

    pub(crate) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.index.values().map(|&id| (id, &self[id]))
    }

    pub(crate) fn wanted_from(&self) -> &BTreeSet<PeerId> {
        &self.wanted_from
    }
}

impl Index<PeerId> for PeerTable {
    type Output = Peer;
    /// Ids are made and kept by the core alone, and never outlive their peer.
    fn index(&self, id: PeerId) -> &Peer {
        match self.get(id) {
            Some(peer) => peer,
            None => unreachable!("{id:?} is no peer"),
        }
    }
}

impl IndexMut<PeerId> for PeerTable {
    fn index_mut(&mut self, id: PeerId) -> &mut Peer {
        match self.slots.get_mut(id.0 as usize) {
            Some(Some(peer)) => peer,
            _ => unreachable!("{id:?} is no peer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn the_host_of_an_address() {
        let cases = [
            ("tcp://10.0.0.1:8786", "10.0.0.1"),
            ("tls://[::1]:1", "[::1]"),
            ("ws://host.example:80", "host.example"),
            ("inproc://1/2/3", "1/2/3"),
            ("", ""),
        ];
        for (address, host) in cases {
            assert_eq!(host_of(address), host, "{address}");
        }
    }
}
