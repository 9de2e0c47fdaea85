//! Identities inside the core. Text (keys, addresses) is turned into ids at the border.

/// A task, an index into the core's slab. Reused after the task is forgotten; never leaves the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub(crate) u32);

/// Another worker that is said to hold something we want. Reused; never leaves the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub(crate) u32);

/// One execution of a task on a thread of this worker. Chosen by the core, counting up, never reused:
/// the outcome of an attempt that was given up can not be taken for that of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub u64);

/// One request for data to a peer. Chosen by the core, counting up, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub u64);

/// One request of somebody for our data. Chosen by the shell, never reused while it is being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// One assignment of a task to a worker by the scheduler (`run_id` on the wire since 2023.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub i64);

/// Seconds since the Unix epoch on a clock that never runs backwards. The core has no clock; every
/// entry point is told the time.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Default)]
pub struct Timestamp(pub f64);

impl Timestamp {
    /// Seconds from `earlier` to `self`; negative if `earlier` is later.
    pub fn since(self, earlier: Self) -> f64 {
        self.0 - earlier.0
    }

    /// The moment `seconds` later.
    pub fn after(self, seconds: f64) -> Self {
        Self(self.0 + seconds)
    }

    /// The earlier of two moments, either of which may not be set.
    pub(crate) fn earliest(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b < a { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}
