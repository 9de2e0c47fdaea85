//! Memory that large messages are read into. Objects are made in it, so it comes back when the last of
//! them is gone, and is kept for a moment: the next transfer then finds pages that are there. The system
//! clears every page that it gives, which costs as much as two copies of the data; a shuffle frees as
//! much as it fetches.
//!
//! What is kept counts as memory of the process, like everything else. It is bounded, goes when the
//! process grows, and nobody waits for a lock on account of it.

mod mapping;
mod message;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use oxidask_wire::connection::{Landing, LandingPlace};
use parking_lot::{Mutex, MutexGuard};

use self::mapping::{Mapping, PAGE};
use self::message::Incoming;
use crate::memory::Thresholds;
use crate::metrics::resident_bytes;

/// How long unused memory is kept.
const KEPT_FOR: Duration = Duration::from_secs(4);
/// Part of the worker's memory limit that is kept at most.
const PART_KEPT: u64 = 10;
/// The same where there is no limit.
const KEPT_WITHOUT_LIMIT: u64 = 1 << 30;
/// Less is not worth keeping.
const WORTH: usize = 1 << 20;

/// Gives memory for messages and keeps what comes back. One per worker.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    kept: Mutex<Kept>,
    /// Bytes kept at most.
    most: usize,
    /// Nothing is kept while the process has more bytes than this.
    roomy: u64,
    kept_for: Duration,
}

#[derive(Default)]
struct Kept {
    /// The newest last.
    unused: Vec<(Instant, Mapping)>,
    /// Sum of the above.
    bytes: usize,
    /// A thread gives back what nobody takes.
    watched: bool,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes();
        f.debug_struct("Pool").field("bytes", &bytes).finish()
    }
}

impl Pool {
    /// For a worker with these limits.
    pub fn new(thresholds: &Thresholds) -> Self {
        let most = thresholds
            .limit
            .map_or(KEPT_WITHOUT_LIMIT, |limit| limit / PART_KEPT);
        let roomy = [thresholds.target, thresholds.spill, thresholds.pause];
        // Of two thirds of the limit the rest is enough for what comes before the next measurement.
        let default = thresholds.limit.map_or(u64::MAX, |limit| limit / 3 * 2);
        Self::with(
            usize::try_from(most).unwrap_or(usize::MAX),
            roomy.into_iter().flatten().fold(default, u64::min),
            KEPT_FOR,
        )
    }

    fn with(most: usize, roomy: u64, kept_for: Duration) -> Self {
        Self(Arc::new(Shared {
            kept: Mutex::default(),
            most,
            roomy,
            kept_for,
        }))
    }

    /// Bytes that are kept and not in use.
    pub fn bytes(&self) -> usize {
        self.0.kept.lock().bytes
    }

    /// The process has so many bytes. Returns whether something was given back to the system, so that it
    /// has fewer now.
    pub fn process_has(&self, bytes: u64) -> bool {
        if bytes <= self.0.roomy {
            return false;
        }
        let unused = {
            let mut kept = self.0.kept.lock();
            kept.bytes = 0;
            std::mem::take(&mut kept.unused)
        };
        !unused.is_empty()
    }

    /// Memory, and how much of its beginning has been in use.
    fn take(&self, length: usize) -> Option<(Mapping, usize)> {
        let mut kept = self.0.kept.lock();
        let Some(best) = kept.best(length) else {
            drop(kept);
            return Some((Mapping::new(length)?, 0));
        };
        let (at, found) = kept.unused.remove(best);
        kept.bytes -= found.len();
        let (head, tail) = found.split(length);
        if let Some(tail) = tail.filter(|tail| tail.len() >= WORTH) {
            kept.bytes += tail.len();
            kept.unused.insert(best, (at, tail));
        }
        drop(kept);
        let present = head.len();
        let whole = head.grown(length);
        // The system had no room for it to grow.
        if whole.len() < length {
            return Some((Mapping::new(length)?, 0));
        }
        Some((whole, present))
    }
}

impl LandingPlace for Pool {
    fn landing(&self, nbytes: usize, aligned: usize) -> Option<Box<dyn Landing>> {
        let length = nbytes.checked_add(message::ALIGNMENT)?;
        let (mapping, present) = self.take(length)?;
        let area = Area {
            mapping: Some(mapping),
            used: false,
            shared: Arc::clone(&self.0),
        };
        Some(Box::new(Incoming::new(area, present, nbytes, aligned)))
    }
}

/// Memory of a message, and of the objects that are made of it.
struct Area {
    /// There until it is dropped.
    mapping: Option<Mapping>,
    /// All of it has been written to.
    used: bool,
    shared: Arc<Shared>,
}

impl Area {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.mapping.as_mut().map_or(&mut [], Mapping::bytes_mut)
    }
}

impl AsRef<[u8]> for Area {
    fn as_ref(&self) -> &[u8] {
        self.mapping.as_ref().map_or(&[], Mapping::bytes)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take().filter(|_| self.used) {
            self.shared.give(mapping);
        }
    }
}

impl Kept {
    /// The smallest that is large enough, or else the largest.
    fn best(&self, length: usize) -> Option<usize> {
        let sizes = || {
            self.unused
                .iter()
                .map(|(_, mapping)| mapping.len())
                .enumerate()
        };
        let enough = sizes().filter(|(_, size)| *size >= length);
        let best = enough.min_by_key(|(_, size)| *size);
        let best = best.or_else(|| sizes().max_by_key(|(_, size)| *size));
        best.map(|(index, _)| index)
    }

    /// What is older than the newest that fits beside it, and so exceeds the bound.
    fn add(&mut self, mapping: Mapping, most: usize) -> Vec<Mapping> {
        let (mapping, mut surplus) = match mapping.len() > most {
            true => match mapping.split(most / PAGE * PAGE) {
                (mapping, Some(rest)) => (mapping, vec![rest]),
                (mapping, None) => (mapping, Vec::new()),
            },
            false => (mapping, Vec::new()),
        };
        self.bytes += mapping.len();
        self.unused.push((Instant::now(), mapping));
        while self.bytes > most && !self.unused.is_empty() {
            let (_, oldest) = self.unused.remove(0);
            self.bytes -= oldest.len();
            surplus.push(oldest);
        }
        surplus
    }

    /// What has been here for too long, and when the next will have been.
    fn expired(&mut self, kept_for: Duration) -> (Vec<Mapping>, Option<Instant>) {
        let now = Instant::now();
        let due = |(since, _): &(Instant, Mapping)| now.duration_since(*since) >= kept_for;
        let mut expired = Vec::new();
        for index in (0..self.unused.len()).rev() {
            if self.unused.get(index).is_some_and(due) {
                expired.push(self.unused.remove(index).1);
            }
        }
        let bytes: usize = expired.iter().map(Mapping::len).sum();
        self.bytes -= bytes;
        let next = self.unused.iter().map(|(since, _)| *since + kept_for).min();
        (expired, next)
    }
}

impl Shared {
    /// Memory that is not used any more. Called wherever the last object in it is dropped, with locks of
    /// others held: never waits.
    fn give(self: &Arc<Self>, mapping: Mapping) {
        if mapping.len() < WORTH || self.most < WORTH {
            return;
        }
        if resident_bytes().is_none_or(|process| process > self.roomy) {
            return;
        }
        // After a fork, whoever holds the lock may not exist.
        let Some(mut kept) = self.kept.try_lock() else {
            return;
        };
        if !kept.watched {
            let shared = Arc::clone(self);
            let watch = thread::Builder::new().name("landing-memory".into());
            if watch.spawn(move || shared.watch()).is_err() {
                return;
            }
            kept.watched = true;
        }
        let surplus = kept.add(mapping, self.most);
        drop(kept);
        drop(surplus);
    }

    /// Gives back what nobody takes. Ends when nothing is kept any more.
    fn watch(&self) {
        let mut kept = self.kept.lock();
        loop {
            let (expired, next) = kept.expired(self.kept_for);
            if !expired.is_empty() {
                // Unmapping takes its time.
                MutexGuard::unlocked(&mut kept, || drop(expired));
                continue;
            }
            let Some(next) = next else {
                kept.watched = false;
                return;
            };
            MutexGuard::unlocked(&mut kept, || {
                thread::sleep(next.saturating_duration_since(Instant::now()));
            });
        }
    }
}
