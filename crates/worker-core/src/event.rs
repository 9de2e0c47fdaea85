//! What can happen to the worker. Each event is one *stimulus*; the shell makes them from messages of
//! the scheduler, from threads and transfers that are done, and from requests of peers.
//!
//! Not here: questions. What only looks uses the read-only views of [`crate::Worker`].

use std::sync::Arc;

use oxidask_key::Key;

use crate::ids::{AttemptId, RequestId, RunId, TransferId};
use crate::opaque::Opaque;
use crate::status::WorkerStatus;

/// Name of the cause of a chain of transitions; kept in the story and sent to the scheduler as
/// `stimulus_id` (since 2022.04.2).
pub type StimulusId = Arc<str>;

/// One input to the state machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// `compute-task`.
    ComputeTask(Box<ComputeTask>),
    /// `free-keys` (`delete-data`, `release-task` and `superfluous-data` of older schedulers): these tasks
    /// are over here, running or not, and so is their data.
    FreeKeys {
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// `cancel-compute`: do not begin the task, unless it has begun.
    CancelCompute {
        /// Which.
        key: Key,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// `steal-request`: give the task back, unless it has begun.
    StealRequest {
        /// Which.
        key: Key,
        /// Repeated in the answer.
        stimulus_id: StimulusId,
    },
    /// `acquire-replicas`: fetch copies.
    AcquireReplicas {
        /// What, and where it can be had.
        replicas: Vec<Replica>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// `remove-replicas`: drop copies unless they are needed here.
    RemoveReplicas {
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// `refresh-who-has`: answer to [`crate::effect::SchedulerMsg::RequestRefreshWhoHas`].
    RefreshWhoHas {
        /// Addresses of the holders of each key; none is a legal answer.
        who_has: Vec<(Key, Vec<Arc<str>>)>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// `remove-worker`: a peer has left.
    RemoveWorker {
        /// Its address.
        worker: Arc<str>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// The worker is to pause, resume or leave: the memory guard, a signal or the scheduler
    /// (`worker-status-change`) says so.
    SetStatus {
        /// New status.
        status: WorkerStatus,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// The memory guard measured. A worker that runs pauses when memory is short, one that is paused
    /// resumes when it is not; whatever else it is up to (leaving, above all) goes on.
    MemoryPressure {
        /// Whether memory is short (`worker.memory.pause`).
        short: bool,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Abstract resources of this worker changed (`Worker.set_resources`).
    SetResources {
        /// New totals; names not listed stay.
        resources: Vec<(Arc<str>, f64)>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Data arrived that no task of ours made and nobody here asked for (`scatter`, `update_data`).
    UpdateData {
        /// The data.
        data: Vec<Datum>,
        /// Whether to tell the scheduler (`report` of releases before 2023.2.1).
        report: bool,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// A thread is done with what [`crate::effect::Effect::Execute`] told it to do.
    Executed {
        /// Which execution.
        attempt: AttemptId,
        /// How it ended.
        outcome: Outcome,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// The task left its slot and goes on (`secede()`).
    Seceded {
        /// Which execution.
        attempt: AttemptId,
        /// Seconds it had run, if known.
        compute_duration: Option<f64>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// What [`crate::effect::Effect::Gather`] came to.
    Gathered {
        /// Which transfer.
        transfer: TransferId,
        /// How it ended.
        outcome: GatherOutcome,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// `get_data`: somebody asks for our data. Answered at once with
    /// [`crate::effect::Effect::ServeData`] or [`crate::effect::Effect::RefuseData`].
    GetData {
        /// Names the request.
        request: RequestId,
        /// Address it comes from, to know who is on our host.
        who: Option<Arc<str>>,
        /// What.
        keys: Vec<Key>,
        /// `max_connections: false` (schedulers and clients up to 2023.8.0): never refused.
        unlimited: bool,
    },
    /// A request that was served is done, well or badly.
    DataSent {
        /// Which request.
        request: RequestId,
    },
    /// The worker registered again at a scheduler that came back. What had not begun is dropped, because
    /// that scheduler will order it again or does not want it; what runs goes on, and its result will
    /// be announced as data; what is held is told by the registration ([`crate::Worker::data`]).
    Reconnected {
        /// Cause.
        stimulus_id: StimulusId,
    },
}

/// `compute-task`: everything that is needed to run one task. It stays with the core until the task
/// begins, and leaves with [`crate::effect::Effect::Execute`].
#[derive(Clone, Debug)]
pub struct ComputeTask {
    /// Which task.
    pub key: Key,
    /// Which assignment (since 2023.1.1).
    pub run_id: Option<RunId>,
    /// The smaller runs first; of equals the last that came.
    pub priority: [f64; 3],
    /// Data it needs. In [`crate::effect::Effect::Execute`] the lists of holders are empty.
    pub inputs: Vec<Replica>,
    /// What to run.
    pub run_spec: Opaque,
    /// Abstract resources it takes while it runs.
    pub resource_restrictions: Vec<(Arc<str>, f64)>,
    /// Whether the result is an actor.
    pub actor: bool,
    /// Named executor (`annotations={"executor": …}`); for the shell. It takes one of the worker's
    /// threads in the books, whatever the executor has itself, as in stock.
    pub executor: Option<Arc<str>>,
    /// As the client gave them; for the shell.
    pub annotations: Option<Opaque>,
    /// Since 2023.6.0; for the shell.
    pub span_id: Option<Arc<str>>,
    /// Cause.
    pub stimulus_id: StimulusId,
}

/// Where data can be had.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its name.
    pub key: Key,
    /// Addresses of the workers that hold it.
    pub who_has: Vec<Arc<str>>,
    /// Size in bytes, if the scheduler told it (always since 2022.05.1).
    pub nbytes: Option<u64>,
}

/// Data in this process.
#[derive(Clone, Debug)]
pub struct Datum {
    /// Its name.
    pub key: Key,
    /// The object, or how the shell finds it.
    pub value: Opaque,
    /// Size in bytes.
    pub nbytes: u64,
}

/// How an execution ended. A result that can not be kept (it is larger than memory and can not be
/// spilled) is a failure: the shell finds out before it tells.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It returned.
    Finished {
        /// What it returned.
        value: Opaque,
        /// Size of that in bytes.
        nbytes: u64,
        /// What else goes into `task-finished`: type, thread, startstops, metadata.
        report: Opaque,
    },
    /// It raised.
    Failed {
        /// What goes into `task-erred`: exception, traceback, their texts, thread, startstops.
        report: Opaque,
    },
    /// It raised `Reschedule`.
    Rescheduled,
}

/// How a transfer ended.
#[derive(Clone, Debug)]
pub enum GatherOutcome {
    /// The peer answered. What was asked for and is in neither list is not there.
    Answered {
        /// What arrived.
        data: Vec<Datum>,
        /// What arrived and can not be used (it can not be deserialised, or not be kept), and for each
        /// what goes into `task-erred` of the tasks that need it.
        failed: Vec<(Key, Opaque)>,
    },
    /// The peer has too many connections.
    Busy,
    /// The connection failed: the peer is taken for dead.
    Unreachable,
}
