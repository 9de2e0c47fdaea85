//! What each IP address spoke before: the only help with peers of 2.23.0 – 2023.7.1, which wait in
//! silence to be greeted and understand only their own framing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::release::{Generation, Release};

/// Addresses beyond this number push out the one not heard from for longest.
const MAX_ADDRESSES: usize = 4096;

/// How long after a peer without handshake a silent connection from the same address may be its
/// main connection.
const NO_HANDSHAKE_WINDOW: Duration = Duration::from_secs(2);

/// Shared by all connections of a listener. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct PeerMemory {
    notes: Arc<Mutex<HashMap<IpAddr, Notes>>>,
}

#[derive(Clone, Copy, Debug)]
struct Notes {
    heard: Instant,
    no_handshake: Option<Instant>,
    greet_as: Option<Generation>,
    answered_newer: bool,
    answered_older: bool,
    /// Peers that speak first (from 2023.8.0 on) have been seen.
    talked: bool,
}

impl PeerMemory {
    fn notes(&self) -> MutexGuard<'_, HashMap<IpAddr, Notes>> {
        // The map is never left half changed, so a panic elsewhere does not spoil it.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, ip: Option<IpAddr>, change: impl FnOnce(&mut Notes)) {
        let Some(ip) = ip else { return };
        let mut notes = self.notes();
        if notes.len() >= MAX_ADDRESSES && !notes.contains_key(&ip) {
            let oldest = notes.iter().min_by_key(|(_, n)| n.heard).map(|(ip, _)| *ip);
            oldest.map(|ip| notes.remove(&ip));
        }
        let entry = notes.entry(ip).or_insert(Notes {
            heard: Instant::now(),
            no_handshake: None,
            greet_as: None,
            answered_newer: false,
            answered_older: false,
            talked: false,
        });
        entry.heard = Instant::now();
        change(entry);
    }

    fn get(&self, ip: Option<IpAddr>) -> Option<Notes> {
        self.notes().get(&ip?).copied()
    }

    /// How to greet a silent peer at this address, if it is known.
    pub fn greet_as(&self, ip: Option<IpAddr>) -> Option<Generation> {
        self.get(ip)?.greet_as
    }

    /// Whether a peer that knows no handshake has just spoken from this address.
    pub(crate) fn spoke_without_handshake(&self, ip: Option<IpAddr>) -> bool {
        self.get(ip)
            .and_then(|n| n.no_handshake)
            .is_some_and(|at| at.elapsed() < NO_HANDSHAKE_WINDOW)
    }

    /// Whether only the newer greeting has ever been answered from this address.
    pub(crate) fn is_surely_newer(&self, ip: Option<IpAddr>) -> bool {
        self.get(ip)
            .is_some_and(|n| n.answered_newer && !n.answered_older)
    }

    /// Whether a silent caller from this address may be one that speaks first and is slow to begin.
    pub(crate) fn has_talkers(&self, ip: Option<IpAddr>) -> bool {
        self.get(ip).is_some_and(|n| n.talked)
    }

    /// A peer spoke without handshake (≤ 2.22.0).
    pub(crate) fn note_no_handshake(&self, ip: Option<IpAddr>) {
        self.update(ip, |n| n.no_handshake = Some(Instant::now()));
    }

    /// A silent peer answered this greeting.
    pub(crate) fn note_answered(&self, ip: Option<IpAddr>, generation: Generation) {
        self.update(ip, |n| {
            n.greet_as = Some(generation);
            n.answered_newer |= generation.has_total_length();
            n.answered_older |= !generation.has_total_length();
        });
    }

    /// A silent peer did not answer this greeting: try the other one next time.
    pub(crate) fn note_refused(&self, ip: Option<IpAddr>, generation: Generation) {
        let other = if generation.has_total_length() {
            Generation::M1
        } else {
            Generation::M3
        };
        self.update(ip, |n| n.greet_as = Some(other));
    }

    /// A worker or client of this release registered from this address.
    pub fn note_release(&self, ip: Option<IpAddr>, release: &Release) {
        match Generation::of(release) {
            Generation::M0 => self.note_no_handshake(ip),
            // From 2023.8.0 on peers speak first; they say nothing about the silent ones.
            _ if *release >= Release::new(2023, 8, 0) => self.update(ip, |n| n.talked = true),
            generation => self.update(ip, |n| n.greet_as = Some(generation)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));

    #[test]
    fn the_last_outcome_decides_how_an_address_is_greeted() {
        let memory = PeerMemory::default();
        assert_eq!(memory.greet_as(A), None);
        memory.note_refused(A, Generation::M3);
        assert_eq!(memory.greet_as(A), Some(Generation::M1));
        memory.note_answered(A, Generation::M1);
        assert_eq!(memory.greet_as(A), Some(Generation::M1));
        memory.note_refused(A, Generation::M1);
        assert_eq!(memory.greet_as(A), Some(Generation::M3));
        assert!(!memory.is_surely_newer(A) && !memory.has_talkers(A));
        memory.note_release(A, &Release::NEWEST);
        assert_eq!(
            memory.greet_as(A),
            Some(Generation::M3),
            "talkers change nothing"
        );
        assert!(memory.has_talkers(A));
        assert_eq!(memory.greet_as(None), None, "no address, no memory");
    }

    #[test]
    fn memory_is_bounded() {
        let memory = PeerMemory::default();
        for n in 0..5000u32 {
            memory.note_answered(Some(IpAddr::V4(n.into())), Generation::M3);
        }
        assert_eq!(memory.notes().len(), MAX_ADDRESSES);
        assert!(memory.greet_as(Some(IpAddr::V4(4999u32.into()))).is_some());
    }
}
