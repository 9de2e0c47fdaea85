//! What is known of a task.

/// States of a task on the worker.
///
/// Stock lets a cancelled execution or transfer keep its task alive, in the states `cancelled` and
/// `resumed`. Here executions ([`crate::ids::AttemptId`]) and transfers ([`crate::ids::TransferId`]) have
/// a life of their own: a task that is freed while it runs is forgotten at once, the thread stays
/// occupied in the books until it is done, and the same task ordered anew is a new one. Only a
/// transfer whose data is no longer needed, but has not been freed either, is kept in mind, to be taken
/// up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskState {
    /// Between two states; at rest no task is.
    Released,
    /// To be run, when its inputs are here.
    Waiting,
    /// To be run, when a thread is free.
    Ready,
    /// To be run, when a thread and its resources are free.
    Constrained,
    /// Runs, and takes a slot.
    Executing,
    /// Runs outside of the slots, after `secede()`.
    LongRunning,
    /// To be fetched from one of the peers that hold it.
    Fetch,
    /// On its way from a peer.
    Flight,
    /// To be fetched, and no peer is known to hold it.
    Missing,
    /// Here.
    Memory,
    /// Failed here; kept until the scheduler frees it.
    Error,
    /// On its way from a peer, though nobody needs it any more. In views also: freed, though a thread
    /// is still at it or data of that name is still on its way.
    Cancelled,
    /// Only in views: wanted again, though what went on before was cancelled and has not ended yet.
    Resumed,
    /// Raised `Reschedule`; on its way out.
    Rescheduled,
    /// Gone.
    Forgotten,
}

use TaskState::*;

impl TaskState {
    /// Every state, in the order of declaration.
    pub const ALL: [Self; 15] = [
        Released,
        Waiting,
        Ready,
        Constrained,
        Executing,
        LongRunning,
        Fetch,
        Flight,
        Missing,
        Memory,
        Error,
        Cancelled,
        Resumed,
        Rescheduled,
        Forgotten,
    ];

    /// Stock's spelling, e.g. `long-running`.
    pub fn as_str(self) -> &'static str {
        match self {
            Released => "released",
            Waiting => "waiting",
            Ready => "ready",
            Constrained => "constrained",
            Executing => "executing",
            LongRunning => "long-running",
            Fetch => "fetch",
            Flight => "flight",
            Missing => "missing",
            Memory => "memory",
            Error => "error",
            Cancelled => "cancelled",
            Resumed => "resumed",
            Rescheduled => "rescheduled",
            Forgotten => "forgotten",
        }
    }

    /// Ordered, and not begun.
    pub fn is_pending(self) -> bool {
        matches!(self, Waiting | Ready | Constrained)
    }

    /// On a thread.
    pub fn is_running(self) -> bool {
        matches!(self, Executing | LongRunning)
    }

    /// The table of transitions: whether a task may go from `self` to `next` in one step. Every other way
    /// leads through `released`.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Released => matches!(next, Waiting | Fetch | Missing | Memory | Forgotten),
            Waiting => matches!(next, Ready | Constrained | Error | Released),
            Ready | Constrained => matches!(next, Executing | Waiting | Released),
            Executing => matches!(next, LongRunning | Memory | Error | Rescheduled | Released),
            LongRunning => matches!(next, Memory | Error | Rescheduled | Released),
            Fetch => matches!(next, Flight | Missing | Released),
            Flight => matches!(next, Memory | Fetch | Missing | Cancelled | Released),
            Missing => matches!(next, Fetch | Released),
            Cancelled => matches!(next, Flight | Released),
            Memory | Error | Rescheduled => next == Released,
            Resumed | Forgotten => false,
        }
    }
}
