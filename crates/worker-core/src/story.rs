//! What happened: the log of transitions, bounded by the bytes it takes.

use std::collections::VecDeque;

use oxidask_key::Key;

use crate::event::StimulusId;
use crate::ids::Timestamp;
use crate::task::TaskState;

/// One thing that happened to a key.
#[derive(Clone, Debug)]
pub struct StoryEntry {
    /// Which.
    pub key: Key,
    /// What.
    pub step: Step,
    /// Cause.
    pub stimulus_id: StimulusId,
    /// When.
    pub time: Timestamp,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The task changed state.
    Transition(TaskState, TaskState),
    /// An event spoke of it; in stock's words, e.g. `compute-task`, `missing-dep`.
    Told(&'static str),
}

/// A change of a task's state, for plugins of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which.
    pub key: Key,
    /// From.
    pub start: TaskState,
    /// To.
    pub finish: TaskState,
}

impl StoryEntry {
    /// Bytes this entry keeps alive. Keys and stimuli are shared between entries; they are counted each
    /// time, because in the end the log alone may hold them.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.heap_bytes() + self.stimulus_id.len()
    }
}

/// The last entries.
#[derive(Debug)]
pub(crate) struct Story {
    entries: VecDeque<StoryEntry>,
    bytes: usize,
    limit: usize,
}

impl Story {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            limit,
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.limit > 0
    }

    pub(crate) fn push(&mut self, entry: StoryEntry) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.bytes > self.limit {
            let Some(old) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= old.bytes();
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &StoryEntry> {
        self.entries.iter()
    }

    /// Bytes kept, and how many there may be.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.bytes, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let mut story = Story::new(2_000);
        for i in 0..1_000_i64 {
            story.push(StoryEntry {
                key: Key::Int(i),
                step: Step::Told("compute-task"),
                stimulus_id: "s".into(),
                time: Timestamp(0.0),
            });
        }
        let (bytes, limit) = story.size();
        assert!(bytes <= limit && bytes > limit / 2);
        assert_eq!(
            story.iter().next_back().map(|e| &e.key),
            Some(&Key::Int(999))
        );
    }

    #[test]
    fn one_that_is_too_large_is_not_kept() {
        let mut story = Story::new(100);
        story.push(StoryEntry {
            key: Key::from("x".repeat(1_000)),
            step: Step::Told("compute-task"),
            stimulus_id: "s".into(),
            time: Timestamp(0.0),
        });
        assert_eq!((story.iter().count(), story.size().0), (0, 0));
    }
}
