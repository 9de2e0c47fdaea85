//! Executions under way, wanted or not, and the threads they take.

use oxidask_key::Key;

use super::{IdMap, Needs};
use crate::ids::{AttemptId, TaskId, Timestamp};

/// One execution.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) key: Key,
    /// Who gets the outcome; nobody, if it was given up.
    pub(crate) task: Option<TaskId>,
    pub(crate) needs: Needs,
    /// It left its slot.
    pub(crate) seceded: bool,
    pub(crate) started: Timestamp,
}

/// All executions.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    attempts: IdMap<AttemptId, Attempt>,
    last: u64,
    occupied: usize,
}

impl Slots {
    pub(crate) fn begin(&mut self, attempt: Attempt) -> AttemptId {
        self.last += 1;
        let id = AttemptId(self.last);
        self.occupied += usize::from(!attempt.seceded);
        self.attempts.insert(id, attempt);
        id
    }

    pub(crate) fn get(&self, id: AttemptId) -> Option<&Attempt> {
        self.attempts.get(&id)
    }

    pub(crate) fn end(&mut self, id: AttemptId) -> Option<Attempt> {
        let attempt = self.attempts.swap_remove(&id)?;
        self.occupied -= usize::from(!attempt.seceded);
        Some(attempt)
    }

    /// The execution leaves its slot; `false` if it had before.
    pub(crate) fn secede(&mut self, id: AttemptId) -> bool {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return false;
        };
        let first = !std::mem::replace(&mut attempt.seceded, true);
        self.occupied -= usize::from(first);
        first
    }

    /// Nobody wants the outcome any more.
    pub(crate) fn abandon(&mut self, id: AttemptId) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.task = None;
        }
    }

    /// Threads taken by executions that have not seceded.
    pub(crate) fn occupied(&self) -> usize {
        self.occupied
    }

    /// How many executions have been begun so far.
    pub(crate) fn begun(&self) -> u64 {
        self.last
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (AttemptId, &Attempt)> {
        self.attempts.iter().map(|(id, attempt)| (*id, attempt))
    }
}
