//! Identities inside the core. Text (keys, addresses, names) is turned into ids at the border.

use serde::{Deserialize, Serialize};

/// A task, an index into the core's slab. Reused after the task is forgotten; never leaves the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub(crate) u32);

/// A registered worker. Chosen by the shell, counting up, never reused in the life of a scheduler:
/// a worker that comes back under the same address is another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

/// A client or pseudo client (`queue-<name>`, `published-<name>`, `fire-and-forget`). Chosen by the
/// shell, counting up, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientId(pub u32);

/// One assignment of a task to a worker (`run_id` on the wire since 2023.1.1). Results that carry
/// another run id than the task's current one are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId(pub i64);

/// Seconds since the Unix epoch on a clock that never runs backwards. The core has no clock; every
/// entry point is told the time.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
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
}
