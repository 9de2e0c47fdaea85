//! How long what is to be said may wait for more. A thread that has done a task in no time and begins the next one at
//! once will have more to report in a moment: one message for both costs half of two, here and at the scheduler.
//!
//! Something waits only while somebody looks at the clock for it. The threads that run tasks can not, so the reader of
//! the scheduler's stream does, when it has read more orders than can begin at once: it makes up its mind first, and
//! then says so here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use oxidask_worker_core::event::{Event, Outcome};
use oxidask_worker_core::ids::Timestamp;

use crate::translate::Finished;

/// Seconds. Stock's workers collect what they say to the scheduler for as long.
const LONGEST: f64 = 0.002;
/// Seconds. The next task is expected to take as long as this one has.
const BRIEF: f64 = 50e-6;

/// See the module's head.
#[derive(Default)]
pub(crate) struct Patience {
    /// Seconds since the epoch, as bits: somebody looks at the clock then, or a little later. 0: nobody does.
    until: AtomicU64,
    /// Reports are to be expected that could wait.
    expected: AtomicBool,
}

impl Patience {
    /// Whether there is a reason to look at the clock.
    pub(crate) fn is_expected(&self) -> bool {
        self.expected.load(Ordering::Relaxed)
    }

    /// Says whether there is a reason to look at the clock.
    pub(crate) fn expect(&self, expected: bool) {
        self.expected.store(expected, Ordering::Relaxed);
    }

    /// Whether something may wait now.
    pub(crate) fn has_time(&self, now: Timestamp) -> bool {
        now.0 < f64::from_bits(self.until.load(Ordering::Acquire))
    }
}

/// The one who looks at the clock. What waits is lost to the world if it stops to.
pub(crate) struct Watch<'a>(&'a Patience);

impl<'a> Watch<'a> {
    pub(crate) fn new(patience: &'a Patience) -> Self {
        Self(patience)
    }

    /// When to look, if at all.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        let until = f64::from_bits(self.0.until.load(Ordering::Acquire));
        (until > 0.0).then_some(Timestamp(until))
    }

    /// Will look in a while.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        // Not anew for each order, since that costs as well.
        let enough = |until: Timestamp| until.since(now) >= LONGEST / 2.0;
        if !self.until().is_some_and(enough) {
            self.set(now.after(LONGEST).0);
        }
    }

    /// The time has come, and what has waited is said. Looks again if more is expected.
    pub(crate) fn looked(&mut self, now: Timestamp) {
        self.set(0.0);
        if self.0.is_expected() {
            self.begin(now);
        }
    }

    fn set(&self, until: f64) {
        self.0.until.store(until.to_bits(), Ordering::Release);
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.set(0.0);
    }
}

/// Whether these tell of nothing but tasks that were done in no time.
pub(crate) fn brief(events: &[Event]) -> bool {
    let is_brief = |event: &Event| match event {
        Event::Executed {
            outcome: Outcome::Finished { report, .. },
            ..
        } => report
            .get::<Finished>()
            .is_some_and(|done| done.run.stop - done.run.start < BRIEF),
        _ => false,
    };
    events.iter().all(is_brief)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1e9);

    #[test]
    fn nothing_waits_unless_somebody_looks_at_the_clock() {
        let patience = Patience::default();
        assert!(!patience.has_time(NOW));
        let mut watch = Watch::new(&patience);
        assert!(!patience.has_time(NOW));
        watch.begin(NOW);
        let until = watch.until().expect("somebody looks");
        assert!(until.since(NOW) <= LONGEST * 1.001);
        assert!(patience.has_time(NOW.after(LONGEST * 0.9)));
        assert!(!patience.has_time(NOW.after(LONGEST * 1.1)));
        drop(watch);
        assert!(!patience.has_time(NOW), "nobody looks any more");
    }

    #[test]
    fn the_clock_is_not_set_anew_for_each_order() {
        let patience = Patience::default();
        let mut watch = Watch::new(&patience);
        watch.begin(NOW);
        let until = watch.until();
        watch.begin(NOW.after(LONGEST * 0.4));
        assert_eq!(watch.until(), until);
        watch.begin(NOW.after(LONGEST * 0.6));
        assert_ne!(watch.until(), until);
    }

    #[test]
    fn who_has_looked_does_so_again_only_if_more_is_expected() {
        for expected in [true, false] {
            let patience = Patience::default();
            let mut watch = Watch::new(&patience);
            watch.begin(NOW);
            patience.expect(expected);
            let late = NOW.after(LONGEST * 1.1);
            watch.looked(late);
            assert_eq!(watch.until().is_some(), expected);
            assert_eq!(patience.has_time(late), expected);
        }
    }
}
