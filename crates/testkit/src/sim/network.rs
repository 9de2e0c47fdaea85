//! The simulated network: per link first-in-first-out, with latency, slow links and partitions.

use std::collections::BTreeMap;

use crate::rng::Rng;

/// One direction of a connection between the scheduler and a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// Peer → scheduler.
    Up(Peer),
    /// Scheduler → peer.
    Down(Peer),
}

/// The other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// By the number of its `WorkerId`.
    Worker(u32),
    /// By the number of its `ClientId`.
    Client(u32),
}

impl Link {
    fn peer(self) -> Peer {
        match self {
            Self::Up(peer) | Self::Down(peer) => peer,
        }
    }
}

/// Delays of all links.
#[derive(Debug)]
pub struct Network {
    rng: Rng,
    /// Seconds one way on a good link, on average.
    latency: f64,
    last_delivery: BTreeMap<Link, f64>,
    slow: BTreeMap<Peer, f64>,
    stalled_until: BTreeMap<Peer, f64>,
}

impl Network {
    /// A network in which a message takes about `latency` seconds.
    pub fn new(seed: u64, latency: f64) -> Self {
        Self {
            rng: Rng::new(seed),
            latency,
            last_delivery: BTreeMap::new(),
            slow: BTreeMap::new(),
            stalled_until: BTreeMap::new(),
        }
    }

    /// When a message sent at `now` arrives: after everything sent before on the same link.
    pub fn delivery(&mut self, link: Link, now: f64) -> f64 {
        let peer = link.peer();
        let factor = self.slow.get(&peer).copied().unwrap_or(1.0);
        let delay = self.latency * factor * self.rng.range(0.5, 1.5);
        let stalled = self.stalled_until.get(&peer).copied().unwrap_or(0.0);
        let before = self.last_delivery.get(&link).copied().unwrap_or(0.0);
        let at = (now + delay).max(stalled).max(before);
        self.last_delivery.insert(link, at);
        at
    }

    /// Whether nothing reaches or leaves the peer at the moment.
    pub fn is_cut_off(&self, peer: Peer, now: f64) -> bool {
        self.stalled_until
            .get(&peer)
            .is_some_and(|&until| now < until)
    }

    /// Seconds to move `nbytes` between two workers.
    pub fn transfer(&mut self, nbytes: u64) -> f64 {
        self.latency * self.rng.range(1.0, 3.0) + nbytes as f64 / 100e6
    }

    /// Makes all messages of a peer take `factor` times as long.
    pub fn slow_down(&mut self, peer: Peer, factor: f64) {
        self.slow.insert(peer, factor);
    }

    /// Nothing reaches or leaves the peer before `until`; then everything does, in order, as TCP
    /// retransmits.
    pub fn partition(&mut self, peer: Peer, until: f64) {
        self.stalled_until.insert(peer, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_keeps_the_order_also_through_a_partition() {
        let mut network = Network::new(1, 0.01);
        let link = Link::Up(Peer::Worker(1));
        let first = network.delivery(link, 0.0);
        network.partition(Peer::Worker(1), 5.0);
        let second = network.delivery(link, 0.1);
        network.partition(Peer::Worker(1), 0.0);
        let third = network.delivery(link, 0.2);
        assert!(first < 0.1 && second >= 5.0 && third >= second);
    }
}
