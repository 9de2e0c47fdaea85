//! How late the I/O runtime is: what stock calls ticks of the event loop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

/// Counts ticks and their longest delay.
#[derive(Debug, Default)]
pub struct Ticks {
    count: AtomicU64,
    longest_micros: AtomicU64,
}

impl Ticks {
    /// Ticks for as long as it is polled.
    pub async fn run(&self, every: Duration) {
        let every = every.max(Duration::from_millis(20));
        let mut interval = tokio::time::interval(every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            interval.tick().await;
            let late = last.elapsed().saturating_sub(every);
            let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
            last = Instant::now();
            self.count.fetch_add(1, Ordering::Relaxed);
            self.longest_micros.fetch_max(micros, Ordering::Relaxed);
        }
    }

    /// Ticks so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How late the latest of all ticks since the last call was, in seconds.
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds of a pause fit 53 bits"
    )]
    pub fn take_longest(&self) -> f64 {
        self.longest_micros.swap(0, Ordering::Relaxed) as f64 / 1e6
    }
}
