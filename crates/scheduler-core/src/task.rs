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
