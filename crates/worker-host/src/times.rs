//! What the latest tasks spent time on: `TaskState.startstops` of `worker.state`.

use std::collections::VecDeque;
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_wire::message::StartStop;
use parking_lot::Mutex;

use crate::interpreter::Run;
use crate::transfers::Moved;
use crate::translate::startstops;

/// Tasks that are remembered.
const LENGTH: usize = 1000;

/// Shared by the books, which write it, and those who look.
#[derive(Debug, Default)]
pub(crate) struct Times(Mutex<VecDeque<Spent>>);

#[derive(Debug)]
struct Spent {
    key: Key,
    run: Option<Run>,
    moves: Vec<Moved>,
}

/// One thing that a task spent time on.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// `transfer` or `compute`.
    pub action: String,
    /// Seconds since the epoch.
    pub start: f64,
    /// Seconds since the epoch.
    pub stop: f64,
    /// Of a transfer, the peer.
    pub source: Option<Arc<str>>,
}

impl Times {
    /// A task has come to its end, for which these transfers were made.
    pub(crate) fn note(&self, key: &Key, run: Option<Run>, moves: Vec<Moved>) {
        let mut all = self.0.lock();
        if all.len() >= LENGTH {
            all.pop_front();
        }
        all.push_back(Spent {
            key: key.clone(),
            run,
            moves,
        });
    }

    /// In the order of the task's report; empty if it is not done, or was done long ago.
    pub(crate) fn of(&self, key: &Key) -> Vec<Span> {
        let all = self.0.lock();
        let Some(spent) = all.iter().rev().find(|spent| spent.key == *key) else {
            return Vec::new();
        };
        let span = |told: StartStop<'_>| Span {
            action: told.action.to_owned(),
            start: told.start,
            stop: told.stop,
            source: told.source.map(Into::into),
        };
        let told = startstops(spent.run, &spent.moves);
        told.into_iter().map(span).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: f64) -> Option<Run> {
        Some(Run {
            start,
            stop: start + 1.0,
            thread: None,
        })
    }

    #[test]
    fn transfers_come_before_the_run_they_were_made_for() {
        let times = Times::default();
        let moved = Moved {
            who: "tcp://a:1".into(),
            start: 1.0,
            stop: 2.0,
            keys: Vec::new(),
        };
        times.note(&Key::from("x"), run(3.0), vec![moved]);
        let of: Vec<_> = times.of(&Key::from("x"));
        assert_eq!(
            of.iter()
                .map(|s| (s.action.as_str(), s.start))
                .collect::<Vec<_>>(),
            [("transfer", 1.0), ("compute", 3.0)]
        );
        assert_eq!(of[0].source.as_deref(), Some("tcp://a:1"));
        assert!(times.of(&Key::from("y")).is_empty());
    }

    #[test]
    fn the_latest_run_of_a_key_is_told_and_the_oldest_is_forgotten() {
        let times = Times::default();
        times.note(&Key::from("old"), run(0.0), Vec::new());
        for start in 0..LENGTH {
            times.note(&Key::from("x"), run(start as f64), Vec::new());
        }
        assert!(times.of(&Key::from("old")).is_empty());
        assert_eq!(times.of(&Key::from("x"))[0].start, (LENGTH - 1) as f64);
    }
}
