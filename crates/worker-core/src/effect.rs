//! What the core wants done. Effects are values; the caller owns the buffer and does what they say in
//! their order: data must be in the store before a task that needs it begins, and an execution holds on
//! to its inputs before they are dropped.

use std::sync::Arc;

use oxidask_key::Key;

use crate::event::{ComputeTask, StimulusId};
use crate::ids::{AttemptId, RequestId, RunId, TransferId};
use crate::opaque::Opaque;
use crate::status::WorkerStatus;
use crate::task::TaskState;

/// One output of the state machine.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A message on the scheduler's stream.
    ToScheduler {
        /// What to say.
        msg: SchedulerMsg,
        /// Cause, sent along since 2022.04.2.
        stimulus_id: StimulusId,
    },
    /// Run a task on a thread, and answer with [`crate::event::Event::Executed`]. The shell takes hold of
    /// the inputs at once: they may be dropped from the store while the task runs.
    Execute {
        /// Names this execution.
        attempt: AttemptId,
        /// What to run.
        task: Box<ComputeTask>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Nobody wants the outcome any more. An `async` function may be cancelled, what has not begun in a
    /// queue of the shell need not; a thread goes on. [`crate::event::Event::Executed`] is still due, and
    /// keeps the slot and the resources until then.
    Abandon {
        /// Which execution.
        attempt: AttemptId,
    },
    /// Ask a peer for data, and answer with [`crate::event::Event::Gathered`].
    Gather {
        /// Names this transfer.
        transfer: TransferId,
        /// Address of the peer.
        worker: Arc<str>,
        /// What to ask for.
        keys: Vec<Key>,
        /// Expected size of all in bytes.
        nbytes: u64,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// The peer is gone and the transfer has come to nothing: end it. No answer is due.
    AbortGather {
        /// Which transfer.
        transfer: TransferId,
    },
    /// Put into the store. Data of an event that is not stored in answer to it is not wanted.
    Store {
        /// Its name.
        key: Key,
        /// What.
        value: Opaque,
        /// Size in bytes.
        nbytes: u64,
        /// Whether it is an actor.
        actor: bool,
    },
    /// Drop from the store.
    Drop {
        /// What.
        key: Key,
    },
    /// Answer a request for data, then tell [`crate::event::Event::DataSent`].
    ServeData {
        /// Which request.
        request: RequestId,
        /// What of it we have.
        keys: Vec<Key>,
    },
    /// Answer a request for data with `busy`.
    RefuseData {
        /// Which request.
        request: RequestId,
    },
}

/// Worker → scheduler.
#[derive(Clone, Debug)]
pub enum SchedulerMsg {
    /// `task-finished`.
    TaskFinished {
        /// Which task.
        key: Key,
        /// Which assignment.
        run_id: Option<RunId>,
        /// Size of the result in bytes.
        nbytes: u64,
        /// What else the execution told; nothing if the result was here before the order came: then the
        /// shell takes the type from the store.
        report: Option<Opaque>,
    },
    /// `task-erred`.
    TaskErred {
        /// Which task.
        key: Key,
        /// Which assignment.
        run_id: Option<RunId>,
        /// What the execution, or the transfer of an input, told.
        report: Opaque,
    },
    /// `release-worker-data`: a copy was dropped on request, or was never here.
    ReleaseWorkerData {
        /// Which.
        key: Key,
    },
    /// `add-keys`: data is here which the scheduler may not know of.
    AddKeys {
        /// What.
        keys: Vec<Key>,
    },
    /// `missing-data`: a peer does not have what it was said to have. Schedulers from 2022.6.0 on do not
    /// know this message.
    MissingData {
        /// What.
        key: Key,
        /// Address of the peer.
        errant_worker: Arc<str>,
    },
    /// `request-refresh-who-has` (since 2022.6.0; before, the RPC `who_has`).
    RequestRefreshWhoHas {
        /// What is wanted, and not known to be anywhere within reach.
        keys: Vec<Key>,
    },
    /// `long-running`.
    LongRunning {
        /// Which task.
        key: Key,
        /// Which assignment (sent since 2025.2.0).
        run_id: Option<RunId>,
        /// Seconds it had run, if known.
        compute_duration: Option<f64>,
    },
    /// `reschedule`.
    Reschedule {
        /// Which task.
        key: Key,
    },
    /// `steal-response`.
    StealResponse {
        /// Which task.
        key: Key,
        /// What the worker knew of it when asked. Up to and including `ready` and `constrained` it was
        /// given up.
        state: Option<TaskState>,
    },
    /// `worker-status-change`.
    StatusChanged {
        /// The status now.
        status: WorkerStatus,
    },
}
