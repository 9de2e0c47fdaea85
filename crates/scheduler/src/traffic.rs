//! How much is said on the wire: messages and bytes by kind of peer and by op, for `/metrics`.
//!
//! Names of ops come from peers, so the table of them is bounded; what does not fit counts as `other`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// Different ops that are counted on their own, for each kind of peer.
const MAX_OPS: usize = 256;
/// Longer names are not ops of anybody.
const MAX_OP_LENGTH: usize = 64;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// The stream of a client.
    Client,
    /// The stream of a worker.
    Worker,
    /// Requests of anybody.
    Request,
}

impl PeerKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Client, Self::Worker, Self::Request];

    /// As in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Worker => "worker",
            Self::Request => "request",
        }
    }
}

/// Messages and bytes.
#[derive(Debug, Default)]
pub struct Count {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    fn add(&self, messages: u64, bytes: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Messages and bytes so far.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.messages), read(&self.bytes))
    }
}

#[derive(Debug, Default)]
struct OfPeer {
    ops: RwLock<HashMap<Box<str>, Arc<Count>>>,
    received: Count,
    sent: Count,
}

/// All counts of the process.
#[derive(Debug, Default)]
pub struct Traffic {
    peers: [OfPeer; PeerKind::ALL.len()],
}

impl Traffic {
    /// A transport message with all its frames arrived.
    pub fn received(&self, peer: PeerKind, bytes: usize) {
        self.of(peer).received.add(1, whole(bytes));
    }

    /// A transport message with all its frames was handed to the connection.
    pub fn sent(&self, peer: PeerKind, bytes: usize) {
        self.of(peer).sent.add(1, whole(bytes));
    }

    /// Counts ops; runs of the same op, also over several messages, cost one look-up.
    #[must_use]
    pub fn tally(&self, peer: PeerKind) -> Tally<'_> {
        Tally {
            of: self.of(peer),
            last: None,
            messages: 0,
            bytes: 0,
        }
    }

    /// Messages and bytes received and sent.
    #[must_use]
    pub fn totals(&self, peer: PeerKind) -> [(u64, u64); 2] {
        let of = self.of(peer);
        [of.received.get(), of.sent.get()]
    }

    /// Messages and bytes by op, in order of names.
    #[must_use]
    pub fn by_op(&self, peer: PeerKind) -> Vec<(String, (u64, u64))> {
        let ops = self.of(peer).ops.read();
        let mut rows: Vec<_> = ops
            .iter()
            .map(|(op, count)| (op.to_string(), count.get()))
            .collect();
        rows.sort_unstable();
        rows
    }

    fn of(&self, peer: PeerKind) -> &OfPeer {
        let [client, worker, request] = &self.peers;
        match peer {
            PeerKind::Client => client,
            PeerKind::Worker => worker,
            PeerKind::Request => request,
        }
    }
}

impl OfPeer {
    fn count(&self, op: &str) -> Arc<Count> {
        if let Some(count) = self.ops.read().get(op) {
            return Arc::clone(count);
        }
        let mut ops = self.ops.write();
        let known = ops.len() < MAX_OPS && op.len() <= MAX_OP_LENGTH;
        let name = if known { op } else { "other" };
        Arc::clone(ops.entry(name.into()).or_default())
    }
}

/// Counts that were not written down yet; they are when the op changes, or it is dropped.
#[derive(Debug)]
pub struct Tally<'t> {
    of: &'t OfPeer,
    last: Option<(Box<str>, Arc<Count>)>,
    messages: u64,
    bytes: u64,
}

impl Tally<'_> {
    /// One op of so many bytes (without out-of-band frames).
    pub fn add(&mut self, op: &str, bytes: usize) {
        if self.last.as_ref().is_none_or(|(last, _)| **last != *op) {
            self.flush();
            self.last = Some((op.into(), self.of.count(op)));
        }
        self.messages += 1;
        self.bytes += whole(bytes);
    }

    /// Writes down what was counted.
    pub fn flush(&mut self) {
        if let Some((_, count)) = &self.last
            && self.messages > 0
        {
            count.add(self.messages, self.bytes);
            (self.messages, self.bytes) = (0, 0);
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

fn whole(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_are_counted_by_peer() {
        let traffic = Traffic::default();
        {
            let mut tally = traffic.tally(PeerKind::Worker);
            for (op, bytes) in [
                ("task-finished", 10),
                ("task-finished", 5),
                ("keep-alive", 1),
            ] {
                tally.add(op, bytes);
            }
        }
        let expected = vec![
            ("keep-alive".to_owned(), (1, 1)),
            ("task-finished".to_owned(), (2, 15)),
        ];
        assert_eq!(traffic.by_op(PeerKind::Worker), expected);
        assert_eq!(traffic.by_op(PeerKind::Client), []);
    }

    #[test]
    fn names_made_up_by_a_peer_do_not_fill_memory() {
        let traffic = Traffic::default();
        let mut names: Vec<String> = (0..2 * MAX_OPS).map(|n| format!("op-{n}")).collect();
        names.push("x".repeat(MAX_OP_LENGTH + 1));
        for name in &names {
            traffic.tally(PeerKind::Request).add(name, 1);
        }
        let rows = traffic.by_op(PeerKind::Request);
        assert_eq!(rows.len(), MAX_OPS + 1);
        let other = rows.iter().find(|(op, _)| op == "other").expect("other");
        assert_eq!(other.1.0, u64::try_from(MAX_OPS + 1).unwrap());
    }
}
