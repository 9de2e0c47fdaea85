//! How late this process wakes up: stock's tick of the event loop, taken of the tokio runtime.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::recent::Recent;

/// What one tick is meant to last (`distributed.admin.tick.interval`).
const TICK: Duration = Duration::from_millis(20);
/// Between two ticks: an idle worker is to sleep.
const REST: Duration = Duration::from_millis(480);

/// Measurements, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Ticks {
    count: AtomicU64,
    last: AtomicU64,
    longest: AtomicU64,
    collected: AtomicU64,
    garbage: Mutex<[Garbage; GENERATIONS]>,
    recent: Mutex<Recent>,
}

/// Generations of Python's garbage collector.
pub(crate) const GENERATIONS: usize = 3;

/// What the collector did with a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Runs.
    pub collections: u64,
    /// Objects that went.
    pub collected: u64,
    /// Objects that could not.
    pub uncollectable: u64,
}

impl Ticks {
    /// Measures until dropped.
    pub(crate) async fn measure(&self) {
        loop {
            tokio::time::sleep(REST).await;
            let start = Instant::now();
            tokio::time::sleep(TICK).await;
            let took = nanoseconds(start.elapsed());
            self.count.fetch_add(1, Ordering::Relaxed);
            self.last.store(took, Ordering::Relaxed);
            self.longest.fetch_max(took, Ordering::Relaxed);
            self.recent.lock().push(seconds(took));
        }
    }

    /// Seconds that the last tick took.
    pub(crate) fn interval(&self) -> f64 {
        match self.last.load(Ordering::Relaxed) {
            0 => TICK.as_secs_f64(),
            nanoseconds => seconds(nanoseconds),
        }
    }

    /// Seconds of the longest tick since this was asked last.
    pub(crate) fn take_longest(&self) -> f64 {
        seconds(self.longest.swap(0, Ordering::Relaxed))
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Seconds of the median of the last ticks; NaN when there are none.
    pub(crate) fn median(&self) -> f64 {
        self.recent.lock().median()
    }

    /// Python collected garbage of a generation for so many seconds.
    pub(crate) fn collected_garbage(&self, time: f64, generation: usize, garbage: Garbage) {
        if let Some(sum) = self.garbage.lock().get_mut(generation) {
            sum.collections = sum.collections.saturating_add(garbage.collections);
            sum.collected = sum.collected.saturating_add(garbage.collected);
            sum.uncollectable = sum.uncollectable.saturating_add(garbage.uncollectable);
        }
        let time = Duration::try_from_secs_f64(time).unwrap_or_default();
        self.collected
            .fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    /// What Python's collector did so far, by generation.
    pub(crate) fn garbage(&self) -> [Garbage; GENERATIONS] {
        *self.garbage.lock()
    }

    /// Seconds that Python collected garbage so far.
    pub(crate) fn garbage_seconds(&self) -> f64 {
        seconds(self.collected.load(Ordering::Relaxed))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
