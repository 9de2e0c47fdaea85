//! What happened: the log of transitions and the latest failures. Bounded.

use std::sync::Arc;

use oxidask_key::Key;

use crate::effect::TaskError;
use crate::event::StimulusId;
use crate::ids::Timestamp;
use crate::tables::Run;
use crate::task::TaskState;

/// What a transition led to. Most of them lead to nothing or to another one of the same task; those
/// cost nothing.
#[derive(Clone, Debug)]
pub(crate) enum Recommended {
    Nothing,
    Itself(TaskState),
    These(Box<[(Key, TaskState)]>),
}

/// One transition, as `get_story` and `get_cluster_state` report it.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Which task.
    pub key: Key,
    /// State before; `released` for the second half of a transition through it.
    pub start: TaskState,
    /// State after.
    pub finish: TaskState,
    pub(crate) recommended: Recommended,
    /// Cause.
    pub stimulus_id: StimulusId,
    /// When.
    pub time: Timestamp,
}

impl LogEntry {
    /// What it led to: tasks and the states recommended for them.
    pub fn recommendations(&self) -> impl Iterator<Item = (&Key, TaskState)> {
        let (itself, these): (Option<TaskState>, &[_]) = match &self.recommended {
            Recommended::Nothing => (None, &[]),
            Recommended::Itself(state) => (Some(*state), &[]),
            Recommended::These(these) => (None, these),
        };
        let itself = itself.map(|state| (&self.key, state));
        itself
            .into_iter()
            .chain(these.iter().map(|(key, state)| (key, *state)))
    }
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
    entries: Run<LogEntry>,
    length: usize,
}

impl TransitionLog {
    pub(crate) fn new(length: usize) -> Self {
        Self {
            entries: Run::default(),
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
