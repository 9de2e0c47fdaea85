//! What spilling has cost so far: stock's `cumulative_metrics` of the spill buffer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What took time or moved bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// A value was read back.
    DiskRead,
    /// A value was written.
    DiskWrite,
    /// Python pickled.
    Serialize,
    /// Python unpickled.
    Deserialize,
    /// Compressing.
    Compress,
    /// Decompressing.
    Decompress,
}

impl Activity {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::DiskRead,
        Self::DiskWrite,
        Self::Serialize,
        Self::Deserialize,
        Self::Compress,
        Self::Decompress,
    ];

    /// Stock's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DiskRead => "disk-read",
            Self::DiskWrite => "disk-write",
            Self::Serialize => "serialize",
            Self::Deserialize => "deserialize",
            Self::Compress => "compress",
            Self::Decompress => "decompress",
        }
    }
}

/// Counters that only grow.
#[derive(Debug, Default)]
pub struct Numbers([Counter; Activity::ALL.len()]);

#[derive(Debug, Default)]
struct Counter {
    count: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Numbers {
    fn counter(&self, activity: Activity) -> &Counter {
        let [a, b, c, d, e, f] = &self.0;
        match activity {
            Activity::DiskRead => a,
            Activity::DiskWrite => b,
            Activity::Serialize => c,
            Activity::Deserialize => d,
            Activity::Compress => e,
            Activity::Decompress => f,
        }
    }

    /// One more, of so many bytes.
    pub fn add(&self, activity: Activity, bytes: u64) {
        let counter = self.counter(activity);
        counter.count.fetch_add(1, Ordering::Relaxed);
        counter.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// It took so long.
    pub fn took(&self, activity: Activity, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let counter = self.counter(activity);
        counter
            .nanoseconds
            .fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Does it and notes how long it took.
    pub fn timed<T>(&self, activity: Activity, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.took(activity, start.elapsed());
        done
    }

    /// `(activity, unit, value)` of all that has happened; units are `count`, `bytes` and `seconds`.
    pub fn all(&self) -> Vec<(&'static str, &'static str, f64)> {
        let mut all = Vec::new();
        for activity in Activity::ALL {
            let counter = self.counter(activity);
            let values = [
                ("count", counter.count.load(Ordering::Relaxed) as f64),
                ("bytes", counter.bytes.load(Ordering::Relaxed) as f64),
                (
                    "seconds",
                    counter.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9,
                ),
            ];
            let values = values.into_iter().filter(|(_, value)| *value > 0.0);
            all.extend(values.map(|(unit, value)| (activity.name(), unit, value)));
        }
        all
    }
}
