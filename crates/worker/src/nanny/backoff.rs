//! When the next worker process starts: at once after a long life, later and later after short ones.

use std::time::Duration;

/// A process that has lived so long has earned a fresh start.
const LONG_LIFE: Duration = Duration::from_secs(30);
/// After the second short life in a row; doubled by each further one.
const FIRST: Duration = Duration::from_millis(500);
/// Never longer.
const LONGEST: Duration = Duration::from_secs(60);

/// Counts short lives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    short_lives: u32,
}

impl Backoff {
    /// A process died that nobody had ended, after so long: how long to wait before the next one.
    pub(super) fn died(&mut self, age: Duration) -> Duration {
        if age >= LONG_LIFE {
            self.short_lives = 0;
            return Duration::ZERO;
        }
        self.short_lives = self.short_lives.saturating_add(1);
        let Some(doublings) = self.short_lives.checked_sub(2) else {
            return Duration::ZERO;
        };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        FIRST.saturating_mul(factor).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_costs_nothing_and_many_do_not_spin() {
        let mut backoff = Backoff::default();
        let second = Duration::from_secs(1);
        let waits: Vec<f64> = (0..10)
            .map(|_| backoff.died(second).as_secs_f64())
            .collect();
        assert_eq!(
            waits,
            [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
        );
        for _ in 0..100 {
            assert_eq!(backoff.died(second), LONGEST);
        }
    }

    #[test]
    fn a_long_life_is_a_fresh_start() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.died(Duration::ZERO);
        }
        assert_eq!(backoff.died(LONG_LIFE), Duration::ZERO);
        assert_eq!(backoff.died(Duration::ZERO), Duration::ZERO);
    }
}
