//! The worker's clock: seconds since the Unix epoch that never run backwards.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use oxidask_worker_core::ids::Timestamp;

/// Now; anchored to the wall clock at the first call and monotonic from then on.
pub(crate) fn now() -> Timestamp {
    static ANCHOR: OnceLock<(f64, Instant)> = OnceLock::new();
    let (epoch, instant) = ANCHOR.get_or_init(|| {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        (epoch.unwrap_or_default().as_secs_f64(), Instant::now())
    });
    Timestamp(epoch + instant.elapsed().as_secs_f64())
}

/// How long from now until `when`; zero when it has passed.
pub(crate) fn until(when: Timestamp) -> Duration {
    Duration::try_from_secs_f64(when.since(now()).max(0.0)).unwrap_or(Duration::MAX)
}

/// A cause of our own, named as stock names them: `task-finished-1795248690.6`.
pub(crate) fn stimulus(name: &str) -> std::sync::Arc<str> {
    // Whole numbers are written in a fraction of the time that the shortest form of a float takes.
    let micros = (now().0 * 1e6) as u64;
    format!("{name}-{}.{:06}", micros / 1_000_000, micros % 1_000_000).into()
}
