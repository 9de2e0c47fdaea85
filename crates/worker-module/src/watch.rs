//! When the threads that work are looked at, for `Client.profile`. Looking itself is the environment's;
//! here is only the clock, which costs nothing worth a mention while there is nothing to see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::jobs::{Job, Jobs};

/// Looks at a worker without work before it is looked at less often.
const IDLE_LOOKS: u32 = 100;
/// Between two looks at a worker without work.
const REST: Duration = Duration::from_millis(100);

/// Who is at work.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    at_work: AtomicUsize,
    /// Somebody was asked to look, and has not yet begun.
    asked: AtomicBool,
}

impl Watch {
    /// This thread works until the returned value is dropped.
    pub(crate) fn working(&self) -> Working<'_> {
        self.begin();
        Working(self)
    }

    /// A thread begins to work.
    pub(crate) fn begin(&self) {
        self.at_work.fetch_add(1, Ordering::Relaxed);
    }

    /// It has done so.
    pub(crate) fn end(&self) {
        self.at_work.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whoever was asked to look does it now.
    pub(crate) fn looks(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Whether somebody is to look now.
    fn is_due(&self) -> bool {
        self.at_work.load(Ordering::Relaxed) > 0 && !self.asked.swap(true, Ordering::Relaxed)
    }
}

/// A thread at work.
pub(crate) struct Working<'a>(&'a Watch);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Has the threads looked at in this interval, for life.
pub(crate) fn watch(jobs: &Arc<Jobs>, interval: Duration) -> std::io::Result<()> {
    let jobs = Arc::clone(jobs);
    let looking = move || {
        let mut idle = 0;
        loop {
            std::thread::sleep(if idle > IDLE_LOOKS {
                interval.max(REST)
            } else {
                interval
            });
            if jobs.watch.is_due() {
                jobs.service.push(Job::Look);
                idle = 0;
            } else {
                idle = idle.saturating_add(1).min(IDLE_LOOKS + 1);
            }
        }
    };
    let thread = std::thread::Builder::new().name("oxidask-watch".to_owned());
    thread.spawn(looking).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_is_looked_at_and_by_one_at_a_time() {
        let watch = Watch::default();
        assert!(!watch.is_due(), "nobody works");
        let working = watch.working();
        assert!(watch.is_due());
        assert!(!watch.is_due(), "somebody was asked already");
        watch.looks();
        assert!(watch.is_due());
        watch.looks();
        drop(working);
        assert!(!watch.is_due(), "nobody works any more");
    }
}
