//! What happened: the log of transitions and the latest failures. Bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use oxidask_key::Key;
use smallvec::SmallVec;

use crate::effect::TaskError;
use crate::event::StimulusId;
use crate::ids::Timestamp;
use crate::task::TaskState;

/// Tasks and the states recommended for them. Mostly one, which then needs no allocation.
pub type Recommended = SmallVec<[(Key, TaskState); 1]>;

/// One transition, as `get_story` and `get_cluster_state` report it.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Which task.
    pub key: Key,
    /// State before; `released` for the second half of a transition through it.
    pub start: TaskState,
    /// State after.
    pub finish: TaskState,
    /// What it led to.
    pub recommendations: Recommended,
    /// Cause.
    pub stimulus_id: StimulusId,
    /// When.
    pub time: Timestamp,
}

/// A failure that is remembered after the task is gone.
#[derive(Clone, Debug)]
pub struct ErredTask {
    /// Which task.
    pub key: Key,
    /// When.
    pub time: Timestamp,
    /// Addresses of the workers it failed on.
    pub erred_on: Vec<Arc<str>>,
    /// How.
    pub error: TaskError,
}

/// The last transitions.
pub(crate) struct TransitionLog {
    entries: VecDeque<LogEntry>,
    length: usize,
}

impl TransitionLog {
    pub(crate) fn new(length: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            length,
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.length > 0
    }

    pub(crate) fn push(&mut self, entry: LogEntry) {
        if self.length == 0 {
            return;
        }
        if self.entries.len() >= self.length {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.entries.iter()
    }
}
