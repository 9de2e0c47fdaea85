//! Tasks that are being unpickled. That may import modules for a long time, which says nothing of how long
//! such tasks run: heartbeats speak of them from when they run, as stock's do.

use std::collections::HashMap;

use oxidask_worker_core::ids::{AttemptId, Timestamp};
use parking_lot::Mutex;

use crate::clock::now;

/// Seconds of unpickling that nobody needs to know of.
const SHORT: f64 = 0.01;

/// Shared by the threads that run tasks.
#[derive(Debug, Default)]
pub struct Loading(Mutex<HashMap<AttemptId, Step>>);

#[derive(Clone, Copy, Debug)]
enum Step {
    /// It is being unpickled since.
    Loads(Timestamp),
    /// It runs since.
    Runs(Timestamp),
}

impl Loading {
    /// An attempt's task is about to be unpickled.
    pub fn begin(&self, attempt: AttemptId) {
        self.begin_at(attempt, now());
    }

    /// It has been, or could not be.
    pub fn end(&self, attempt: AttemptId) {
        self.end_at(attempt, now());
    }

    fn begin_at(&self, attempt: AttemptId, at: Timestamp) {
        self.0.lock().insert(attempt, Step::Loads(at));
    }

    fn end_at(&self, attempt: AttemptId, at: Timestamp) {
        let mut steps = self.0.lock();
        if let Some(Step::Loads(since)) = steps.remove(&attempt)
            && at.since(since) > SHORT
        {
            steps.insert(attempt, Step::Runs(at));
        }
    }

    /// Since when an attempt that was started then runs; nothing while it is being unpickled.
    pub(crate) fn runs_since(&self, attempt: AttemptId, started: Timestamp) -> Option<Timestamp> {
        match self.0.lock().get(&attempt) {
            None => Some(started),
            Some(Step::Runs(since)) => Some(*since),
            Some(Step::Loads(_)) => None,
        }
    }

    /// Forgets attempts that are over.
    pub(crate) fn retain(&self, goes_on: impl Fn(AttemptId) -> bool) {
        self.0.lock().retain(|attempt, _| goes_on(*attempt));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_runs_when_it_is_loaded() {
        let (loading, one) = (Loading::default(), AttemptId(1));
        let since = |started| loading.runs_since(one, Timestamp(started));
        assert_eq!(since(1.0), Some(Timestamp(1.0)), "nobody has said anything");
        loading.begin_at(one, Timestamp(2.0));
        assert_eq!(since(1.0), None);
        loading.end_at(one, Timestamp(5.0));
        assert_eq!(since(1.0), Some(Timestamp(5.0)));
        loading.retain(|attempt| attempt != one);
        assert_eq!(since(1.0), Some(Timestamp(1.0)));
    }

    #[test]
    fn what_is_loaded_at_once_is_not_kept() {
        let loading = Loading::default();
        loading.begin_at(AttemptId(1), Timestamp(2.0));
        loading.end_at(AttemptId(1), Timestamp(2.001));
        loading.end_at(AttemptId(2), Timestamp(9.0));
        assert!(loading.0.lock().is_empty());
    }
}
