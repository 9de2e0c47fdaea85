//! What is known of a task.

/// States of a task on the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskState {
    /// Known, not needed now.
    Released,
    /// Needs results of other tasks first.
    Waiting,
    /// Ready, but no worker may run it.
    NoWorker,
    /// Ready and root-like: kept here until a thread is free (since 2022.9.0).
    Queued,
    /// On a worker.
    Processing,
    /// Its result lies on at least one worker.
    Memory,
    /// Failed, or a dependency did.
    Erred,
    /// On its way out.
    Forgotten,
}

impl TaskState {
    /// Every state, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Released,
        Self::Waiting,
        Self::NoWorker,
        Self::Queued,
        Self::Processing,
        Self::Memory,
        Self::Erred,
        Self::Forgotten,
    ];

    /// Wanted and not yet done: `waiting`, `no-worker`, `queued` or `processing`.
    pub fn is_under_way(self) -> bool {
        matches!(
            self,
            Self::Waiting | Self::NoWorker | Self::Queued | Self::Processing
        )
    }

    /// Neither on a worker, nor about to be, nor done: a result that comes in now is not wanted.
    pub(crate) fn is_not_running(self) -> bool {
        matches!(
            self,
            Self::Released | Self::Queued | Self::NoWorker | Self::Erred | Self::Forgotten
        )
    }

    /// Stock's spelling, e.g. `no-worker`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Waiting => "waiting",
            Self::NoWorker => "no-worker",
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Memory => "memory",
            Self::Erred => "erred",
            Self::Forgotten => "forgotten",
        }
    }
}
