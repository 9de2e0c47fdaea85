//! How late the I/O runtime and the core are: what stock calls ticks of the event loop, and what probes
//! of a container orchestrator want to know.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

/// Counts ticks and their longest delay; times answers of the core.
#[derive(Debug)]
pub struct Ticks {
    began: Instant,
    count: AtomicU64,
    longest_micros: AtomicU64,
    core: Core,
}

/// Microseconds since [`Ticks::began`]; 0: never.
#[derive(Debug, Default)]
struct Core {
    /// The question that is not answered yet.
    asked: AtomicU64,
    longest_micros: AtomicU64,
    answers: AtomicU64,
    total_micros: AtomicU64,
}

impl Default for Ticks {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            count: AtomicU64::default(),
            longest_micros: AtomicU64::default(),
            core: Core::default(),
        }
    }
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
            last = Instant::now();
            self.count.fetch_add(1, Ordering::Relaxed);
            self.longest_micros
                .fetch_max(micros(late), Ordering::Relaxed);
        }
    }

    /// Asks the core a question at intervals and times its answers, until it has none.
    pub async fn watch_core<F: Future<Output = bool>>(
        &self,
        every: Duration,
        mut question: impl FnMut() -> F,
    ) {
        loop {
            let asked = Instant::now();
            self.core
                .asked
                .store(micros(self.began.elapsed()).max(1), Ordering::Relaxed);
            if !question().await {
                // The core has ended: the question stays unanswered.
                return;
            }
            let took = micros(asked.elapsed());
            self.core.asked.store(0, Ordering::Relaxed);
            self.core.longest_micros.fetch_max(took, Ordering::Relaxed);
            self.core.total_micros.fetch_add(took, Ordering::Relaxed);
            self.core.answers.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(every).await;
        }
    }

    /// Ticks so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How late the latest of all ticks since the last call was, in seconds.
    pub fn take_longest(&self) -> f64 {
        seconds(self.longest_micros.swap(0, Ordering::Relaxed))
    }

    /// The longest answer of the core since the last call, in seconds; an unanswered question counts.
    pub fn take_longest_core(&self) -> f64 {
        let answered = seconds(self.core.longest_micros.swap(0, Ordering::Relaxed));
        answered.max(self.core_silence().as_secs_f64())
    }

    /// Answers of the core so far, and the seconds they took together.
    #[must_use]
    pub fn core_answers(&self) -> (u64, f64) {
        let total = self.core.total_micros.load(Ordering::Relaxed);
        (self.core.answers.load(Ordering::Relaxed), seconds(total))
    }

    /// How long the core has owed an answer; zero when it owes none.
    #[must_use]
    pub fn core_silence(&self) -> Duration {
        match self.core.asked.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            asked => self
                .began
                .elapsed()
                .saturating_sub(Duration::from_micros(asked)),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of a pause fit 53 bits"
)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_core_that_does_not_answer_is_noticed() {
        let ticks = Ticks::default();
        assert_eq!(ticks.core_silence(), Duration::ZERO);
        let deaf = ticks.watch_core(Duration::ZERO, std::future::pending);
        assert!(
            tokio::time::timeout(Duration::from_millis(30), deaf)
                .await
                .is_err()
        );
        assert!(ticks.core_silence() >= Duration::from_millis(20));
        assert!(ticks.take_longest_core() >= 0.02);
        assert_eq!(ticks.core_answers().0, 0);
    }

    #[tokio::test]
    async fn answers_of_the_core_are_timed() {
        let ticks = Ticks::default();
        let mut left = 3;
        let answering = ticks.watch_core(Duration::ZERO, || {
            left -= 1;
            std::future::ready(left >= 0)
        });
        answering.await;
        assert_eq!(ticks.core_answers().0, 3);
    }
}
