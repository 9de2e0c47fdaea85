//! The scheduler's clock: seconds since the Unix epoch that never run backwards.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use oxidask_scheduler_core::ids::Timestamp;

struct Anchor {
    epoch: f64,
    instant: Instant,
}

fn anchor() -> &'static Anchor {
    static ANCHOR: OnceLock<Anchor> = OnceLock::new();
    ANCHOR.get_or_init(|| Anchor {
        epoch: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64(),
        instant: Instant::now(),
    })
}

/// Now, as the core and the wire want it. Anchored to the wall clock at the first call and
/// monotonic from then on, so that a step of the wall clock cannot expire leases or workers.
pub fn now() -> Timestamp {
    let anchor = anchor();
    Timestamp(anchor.epoch + anchor.instant.elapsed().as_secs_f64())
}

/// How long from now until `when`; zero when it has passed.
pub fn until(when: Timestamp) -> Duration {
    Duration::try_from_secs_f64(when.since(now()).max(0.0)).unwrap_or(Duration::MAX)
}

/// A duration from a peer's or the configuration's number of seconds. Negative and NaN become zero,
/// absurdly large values a century.
pub fn seconds(seconds: f64) -> Duration {
    const CENTURY: f64 = 3.2e9;
    if seconds.is_nan() {
        return Duration::ZERO;
    }
    Duration::from_secs_f64(seconds.clamp(0.0, CENTURY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_runs_backwards_and_agrees_with_the_wall_clock() {
        let first = now();
        let second = now();
        assert!(second.since(first) >= 0.0);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!((wall.as_secs_f64() - second.0).abs() < 1.0);
    }

    #[test]
    fn peers_numbers_cannot_panic() {
        assert_eq!(seconds(f64::NAN), Duration::ZERO);
        assert_eq!(seconds(-1.0), Duration::ZERO);
        assert!(seconds(f64::INFINITY) > Duration::from_secs(1_000_000_000));
        assert_eq!(until(Timestamp(0.0)), Duration::ZERO);
    }
}
