//! What the core wants done. Effects are values; the caller owns the buffer, delivers the messages
//! in order per peer, and may coalesce what goes to one peer into one write.

use std::sync::Arc;

use oxidask_key::Key;

use crate::event::StimulusId;
use crate::ids::{ClientId, RunId, WorkerId};
use crate::opaque::Opaque;
use crate::worker::WorkerStatus;

/// One output of the state machine.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A message on a worker's stream.
    ToWorker(WorkerId, WorkerMsg),
    /// A message on a client's stream.
    ToClient(ClientId, ClientMsg),
    /// An entry for the event log (`Client.get_events`, topic subscribers).
    LogEvent {
        /// One or more topics.
        topics: Vec<Arc<str>>,
        /// What happened.
        event: LoggedEvent,
    },
    /// A worker is out of the state (removed, lost, time-to-live): the shell closes its stream,
    /// tells status subscribers and starts what depends on it.
    WorkerRemoved {
        /// Who.
        worker: WorkerId,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// A worker with a nanny was silent for longer than the time-to-live. It is still in the state:
    /// the shell has the nanny restart it, and removes it if that fails. (Workers without a nanny are
    /// removed by the core.)
    WorkerUnresponsive {
        /// Who.
        worker: WorkerId,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// A task should have begun on its worker and did not: the shell asks the worker, and answers with
    /// [`crate::event::Event::Examined`].
    Suspicious(Box<Suspicion>),
    /// A task changed state. Emitted only while transitions are observed
    /// ([`crate::Scheduler::observe_transitions`]): task stream, plugins, mirror.
    Transition(Box<TransitionEffect>),
    /// Something else that plugins are told. Emitted only while changes are observed
    /// ([`crate::event::Event::ObserveChanges`]), in order with the transitions.
    Change(Box<ChangeEffect>),
}

/// What happened besides transitions.
#[derive(Clone, Debug)]
pub enum ChangeEffect {
    /// A worker is in the state; nothing was assigned to it yet.
    WorkerAdded {
        /// Who.
        worker: WorkerId,
    },
    /// A client is in the state.
    ClientAdded {
        /// Its name.
        client: Arc<str>,
    },
    /// A client is out of the state, and what only it wanted is released.
    ClientRemoved {
        /// Its name.
        client: Arc<str>,
    },
    /// A graph is in the state; none of its tasks has changed state yet.
    GraphUpdated(GraphEffect),
    /// All tasks were forgotten (`restart`).
    Restarted,
}

/// A graph that was taken in.
#[derive(Clone, Debug)]
pub struct GraphEffect {
    /// Name of the client.
    pub client: Arc<str>,
    /// What the client wants.
    pub keys: Vec<Key>,
    /// All its tasks with their priorities and annotations.
    pub tasks: Vec<(Key, Option<[f64; 3]>, Option<Opaque>)>,
    /// Cause.
    pub stimulus_id: StimulusId,
}

/// What the watchdog wants to know.
#[derive(Clone, Debug)]
pub struct Suspicion {
    /// Whom to ask.
    pub worker: WorkerId,
    /// A task that stands still there, and which assignment it is; to be repeated in the answer. None:
    /// the retirement of the worker stands still.
    pub task: Option<(Key, RunId)>,
    /// For how long, in seconds.
    pub seconds: f64,
    /// The inputs of the task, or what only the retiring worker holds, and who is believed to hold
    /// them.
    pub inputs: Vec<(Key, Vec<WorkerId>)>,
}

/// A state change for observers.
#[derive(Clone, Debug)]
pub struct TransitionEffect {
    /// Which task.
    pub key: Key,
    /// State before.
    pub start: crate::task::TaskState,
    /// State after.
    pub finish: crate::task::TaskState,
    /// The worker message that caused it ([`crate::event::TaskFinished::raw`]), if one did.
    pub raw: Option<Opaque>,
    /// The worker concerned.
    pub worker: Option<WorkerId>,
    /// Value of [`crate::Scheduler::transition_counter`] afterwards: says whether a copy of the state
    /// has seen it already.
    pub counter: u64,
    /// Cause.
    pub stimulus_id: StimulusId,
}

/// Scheduler → worker.
#[derive(Clone, Debug)]
pub enum WorkerMsg {
    /// Run a task.
    ComputeTask(Box<ComputeTask>),
    /// Forget these tasks and their results, running or not.
    FreeKeys {
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Drop copies unless needed.
    RemoveReplicas {
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Fetch copies.
    AcquireReplicas {
        /// Where each key can be had.
        who_has: Vec<(Key, Vec<Arc<str>>)>,
        /// Sizes in bytes.
        nbytes: Vec<(Key, u64)>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Answer to `request-refresh-who-has`.
    RefreshWhoHas {
        /// Where each key can be had; an empty list is legal.
        who_has: Vec<(Key, Vec<Arc<str>>)>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Give a task back if it has not begun.
    StealRequest {
        /// Which.
        key: Key,
        /// Names this request; the response must repeat it.
        stimulus_id: StimulusId,
    },
    /// Change status.
    StatusChange {
        /// New status.
        status: WorkerStatus,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Another worker left.
    RemoveWorker {
        /// Its address.
        worker: Arc<str>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Shut down.
    Close {
        /// Why (sent since 2022.10.1).
        reason: Arc<str>,
    },
}

/// Abstract resources and how much of each, shared by the tasks that need the same.
pub type SharedResources = Arc<[(Arc<str>, f64)]>;

/// Everything a worker needs to run one task.
#[derive(Clone, Debug)]
pub struct ComputeTask {
    /// Which task.
    pub key: Key,
    /// Which assignment.
    pub run_id: RunId,
    /// (−user priority, generation, order); smaller runs first.
    pub priority: [f64; 3],
    /// Expected seconds (sent up to 2025.1.0).
    pub duration: f64,
    /// What to run.
    pub run_spec: Opaque,
    /// No task of its group has finished yet, or a worker was lost with this one: the worker may be
    /// unable to unpickle it.
    pub unproven: bool,
    /// Holders of each dependency.
    pub who_has: Vec<(Key, Vec<Arc<str>>)>,
    /// Size of each dependency in bytes.
    pub nbytes: Vec<(Key, u64)>,
    /// Abstract resources it takes.
    pub resource_restrictions: Option<SharedResources>,
    /// Whether the result is an actor.
    pub actor: bool,
    /// As the client gave them.
    pub annotations: Option<Opaque>,
    /// Span of the task's group (since 2023.6.0).
    pub span_id: Option<Arc<str>>,
    /// Cause.
    pub stimulus_id: StimulusId,
}

/// Scheduler → client.
#[derive(Clone, Debug)]
pub enum ClientMsg {
    /// A result exists.
    KeyInMemory {
        /// Which.
        key: Key,
        /// Pickled type, when known from the worker.
        type_: Option<Opaque>,
    },
    /// A task failed for good.
    TaskErred {
        /// Which.
        key: Key,
        /// Why.
        error: TaskError,
    },
    /// A failed task runs again.
    TaskRetried {
        /// Which.
        key: Key,
    },
    /// A result is gone and will not come back by itself.
    LostData {
        /// Which.
        key: Key,
    },
    /// Futures of these keys are cancelled.
    CancelledKeys {
        /// Which.
        keys: Vec<Key>,
        /// Since 2025.3.0.
        reason: Option<Arc<str>>,
        /// Since 2025.3.0.
        msg: Option<Arc<str>>,
    },
    /// All futures are cancelled.
    Restart,
}

/// Why a task failed. What the scheduler itself finds is told in plain terms; the shell knows how
/// each release wants the exception.
#[derive(Clone, Debug)]
pub enum TaskError {
    /// The task raised on a worker.
    Remote {
        /// Serialised exception.
        exception: Opaque,
        /// Serialised traceback.
        traceback: Option<Opaque>,
        /// `repr` of the exception.
        exception_text: Arc<str>,
        /// Printed traceback.
        traceback_text: Arc<str>,
    },
    /// More than `allowed-failures` workers died while it ran.
    KilledWorker {
        /// The task that was running.
        task: Key,
        /// The last of those workers.
        last_worker: Arc<WorkerSummary>,
        /// The limit.
        allowed_failures: u32,
    },
    /// `no-workers-timeout`: workers exist, none may run it.
    NoValidWorker {
        /// Which task.
        task: Key,
        /// Hosts it is restricted to.
        host_restrictions: Vec<Arc<str>>,
        /// Addresses it is restricted to.
        worker_restrictions: Vec<Arc<str>>,
        /// Resources it needs.
        resource_restrictions: Vec<(Arc<str>, f64)>,
        /// Seconds waited.
        timeout: f64,
    },
    /// `no-workers-timeout`: there is no worker at all.
    NoWorker {
        /// Which task.
        task: Key,
        /// Seconds waited.
        timeout: f64,
    },
    /// The inputs are larger than the memory of the worker chosen.
    Memory {
        /// What to tell the user.
        message: Arc<str>,
    },
    /// The worker that held the actor is gone.
    ActorLost {
        /// The actor's key.
        task: Key,
        /// Address of the worker.
        worker: Arc<str>,
    },
}

/// What stays known of a worker after it is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerSummary {
    /// Address.
    pub address: Arc<str>,
    /// Its name as text.
    pub name: Arc<str>,
    /// Thread count.
    pub nthreads: u32,
    /// Bytes; 0 means no limit.
    pub memory_limit: u64,
    /// Process id.
    pub pid: u32,
    /// `Worker-<uuid>` (since 2022.6.1).
    pub server_id: Arc<str>,
    /// Local directory.
    pub local_directory: Arc<str>,
    /// Nanny address.
    pub nanny: Option<Arc<str>>,
    /// Bytes of its process, as it last told.
    pub memory: u64,
    /// How its process died, if its nanny told ([`crate::event::Event::WorkerDied`]).
    pub death: Option<Arc<str>>,
}

/// Entries of the event log that the core itself makes.
#[derive(Clone, Debug)]
pub enum LoggedEvent {
    /// `{"action": "add-worker"}`.
    AddWorker {
        /// Address, when the topic is `all`.
        worker: Arc<str>,
    },
    /// `{"action": "remove-worker", …}`.
    RemoveWorker {
        /// Address.
        worker: Arc<str>,
        /// Tasks that were running.
        processing_tasks: Vec<Key>,
        /// Results that will be computed again.
        lost_computed_tasks: Vec<Key>,
        /// Data that is gone.
        lost_scattered_tasks: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
        /// Whether it was told before.
        expected: bool,
    },
    /// `{"action": "update-graph", …}`: a graph was taken in.
    UpdateGraph {
        /// Cause.
        stimulus_id: StimulusId,
        /// When it arrived.
        received: crate::ids::Timestamp,
        /// How many tasks it had, and how many of them were new; nothing when it was refused because
        /// dependencies are lost.
        tasks: Option<(usize, usize)>,
    },
    /// Any other map of plain values: `(name, value)` pairs.
    Plain(Vec<(&'static str, PlainValue)>),
    /// A tuple, in which form work stealing tells of itself.
    Row(Vec<PlainValue>),
}

/// Value in a [`LoggedEvent::Plain`] or [`LoggedEvent::Row`].
#[derive(Clone, Debug)]
pub enum PlainValue {
    /// Nothing.
    None,
    /// Text.
    Str(Arc<str>),
    /// Number.
    Int(i64),
    /// Number.
    Float(f64),
    /// The key of a task.
    Key(Key),
    /// Keys, in no order.
    KeySet(Vec<Key>),
    /// Flag.
    Bool(bool),
    /// Several.
    Row(Vec<PlainValue>),
}
