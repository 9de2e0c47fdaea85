//! How late this process wakes up: stock's tick of the event loop, taken of the tokio runtime.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

    /// Python collected garbage for so many seconds.
    pub(crate) fn collected_garbage(&self, time: f64) {
        let time = Duration::try_from_secs_f64(time).unwrap_or_default();
        self.collected
            .fetch_add(nanoseconds(time), Ordering::Relaxed);
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
