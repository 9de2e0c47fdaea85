//! Transfers that are done: how fast peers are, and the logs of what came and went.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_wire::Value;
use oxidask_worker_core::event::GatherOutcome;
use parking_lot::Mutex;

use crate::books::Input;
use crate::clock::now;
use crate::host::Handle;
use crate::interpreter::Object;
use crate::recent::median;

/// Bytes per second until the first transfer has been measured (`distributed.scheduler.bandwidth`).
const BANDWIDTH: f64 = 100e6;
/// Transfers that are no larger say nothing about the network.
const TELLING: u64 = 1_000_000;
/// Transfers remembered in each direction.
const LENGTH: usize = 1000;

/// One transfer.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Address of the peer.
    pub who: Arc<str>,
    /// Seconds since the epoch.
    pub start: f64,
    /// Seconds since the epoch.
    pub stop: f64,
    /// What, and its sizes in bytes.
    pub keys: Vec<(Key, u64)>,
}

/// Shared by all connections.
#[derive(Debug)]
pub struct Transfers(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    incoming: VecDeque<Moved>,
    outgoing: VecDeque<Moved>,
    outgoing_bytes: u64,
    bandwidth: f64,
    /// Since the last heartbeat: sum of bandwidths, and how many there are.
    workers: HashMap<Arc<str>, (f64, u64)>,
    types: HashMap<Arc<str>, (f64, u64)>,
}

impl Default for Transfers {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            bandwidth: BANDWIDTH,
            ..Inner::default()
        }))
    }
}

impl Moved {
    /// Bytes of all.
    pub fn total(&self) -> u64 {
        let sizes = self.keys.iter().map(|(_, nbytes)| *nbytes);
        sizes.fold(0, u64::saturating_add)
    }

    /// Bytes per second.
    pub fn bandwidth(&self) -> f64 {
        self.total() as f64 / (self.stop - self.start).max(1e-6)
    }
}

impl Transfers {
    /// Data came; `typename`: the type of all of it, if it is one.
    pub(crate) fn received(&self, moved: Moved, typename: Option<Arc<str>>) {
        let mut inner = self.0.lock();
        if moved.total() > TELLING {
            let bandwidth = moved.bandwidth();
            inner.bandwidth = inner.bandwidth * 0.95 + bandwidth * 0.05;
            let add = |entry: &mut (f64, u64)| *entry = (entry.0 + bandwidth, entry.1 + 1);
            add(inner.workers.entry(Arc::clone(&moved.who)).or_default());
            if let Some(typename) = typename {
                add(inner.types.entry(typename).or_default());
            }
        }
        remember(&mut inner.incoming, moved);
    }

    /// Median of the bandwidths of what came lately, in bytes per second; NaN when nothing did.
    pub(crate) fn median_bandwidth(&self) -> f64 {
        median(self.0.lock().incoming.iter().map(Moved::bandwidth))
    }

    /// Data was sent.
    pub(crate) fn sent(&self, moved: Moved) {
        let mut inner = self.0.lock();
        inner.outgoing_bytes = inner.outgoing_bytes.saturating_add(moved.total());
        remember(&mut inner.outgoing, moved);
    }

    /// Bytes sent so far.
    pub fn outgoing_bytes(&self) -> u64 {
        self.0.lock().outgoing_bytes
    }

    /// The latest, the newest last: what came, and what was sent.
    pub fn logs(&self) -> (Vec<Moved>, Vec<Moved>) {
        let inner = self.0.lock();
        let all = |log: &VecDeque<Moved>| log.iter().cloned().collect();
        (all(&inner.incoming), all(&inner.outgoing))
    }

    /// Stock's `bandwidth` of a heartbeat. What is by worker and by type is told once.
    pub(crate) fn take_bandwidth(&self) -> Value {
        let mut inner = self.0.lock();
        let by = |map: HashMap<Arc<str>, (f64, u64)>| -> Value {
            let pair = |(sum, count): (f64, u64)| Value::Array(vec![sum.into(), count.into()]);
            map.iter().map(|(name, sum)| (name, pair(*sum))).collect()
        };
        let (workers, types) = (
            std::mem::take(&mut inner.workers),
            std::mem::take(&mut inner.types),
        );
        Value::map([
            ("total", Value::from(inner.bandwidth)),
            ("workers", by(workers)),
            ("types", by(types)),
        ])
    }
}

impl Handle {
    /// Data came from a peer, which was asked at `start`.
    pub(crate) fn received(&self, worker: &Arc<str>, start: f64, outcome: &GatherOutcome) {
        let GatherOutcome::Answered { data, .. } = outcome else {
            return;
        };
        if data.is_empty() {
            return;
        }
        let moved = Moved {
            who: Arc::clone(worker),
            start,
            stop: now().0,
            keys: data.iter().map(|d| (d.key.clone(), d.nbytes)).collect(),
        };
        let seconds = moved.stop - moved.start;
        self.digests().add("transfer-duration", seconds);
        self.digests()
            .activity(["gather-dep", "network", "seconds"], seconds);
        let mut types = data
            .iter()
            .filter_map(|d| Some(&d.value.get::<Object>()?.typename));
        let first = types.next().cloned();
        let typename = first.filter(|first| types.all(|other| other == first));
        self.transfers().received(moved.clone(), typename);
        self.send(Input::Moved(moved));
    }

    /// Sizes in bytes of data that is here.
    pub(crate) fn sizes<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> Vec<(Key, u64)> {
        let size = |key: &Key| (key.clone(), self.store().nbytes(key).unwrap_or(0));
        keys.map(size).collect()
    }

    /// Data was sent to a caller, beginning at `start`; `keys` with their sizes in bytes.
    pub(crate) fn sent(&self, who: Option<&str>, start: f64, keys: Vec<(Key, u64)>) {
        let moved = Moved {
            who: who.unwrap_or_default().into(),
            start,
            stop: now().0,
            keys,
        };
        let seconds = moved.stop - moved.start;
        self.digests()
            .activity(["get-data", "network", "seconds"], seconds);
        self.transfers().sent(moved);
    }
}

fn remember(log: &mut VecDeque<Moved>, moved: Moved) {
    if log.len() >= LENGTH {
        log.pop_front();
    }
    log.push_back(moved);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_transfers_tell_how_fast_peers_are() {
        let transfers = Transfers::default();
        let moved = |nbytes| Moved {
            who: "tcp://w:1".into(),
            start: 1.0,
            stop: 3.0,
            keys: vec![(Key::Str("x".into()), nbytes)],
        };
        transfers.received(moved(1_000_000), Some("int".into()));
        let bandwidth = transfers.take_bandwidth();
        assert_eq!(bandwidth.get("total").and_then(Value::as_f64), Some(100e6));
        assert_eq!(bandwidth.get("workers"), Some(&Value::Map(Vec::new())));
        transfers.received(moved(400_000_000), Some("ndarray".into()));
        let bandwidth = transfers.take_bandwidth();
        assert_eq!(bandwidth.get("total").and_then(Value::as_f64), Some(105e6));
        let types = bandwidth
            .get("types")
            .and_then(|types| types.get("ndarray"));
        assert_eq!(types, Some(&Value::Array(vec![200e6.into(), 1u64.into()])));
        transfers.sent(moved(7));
        assert_eq!(transfers.outgoing_bytes(), 7);
        assert_eq!((transfers.logs().0.len(), transfers.logs().1.len()), (2, 1));
    }
}
