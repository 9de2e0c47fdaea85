//! What can happen to the scheduler. Each event is one *stimulus*; the shell makes them from
//! messages, RPCs and broken connections, the simulation from its script.
//!
//! Not here: questions. RPCs that only look (`who_has`, `processing`, …) use the read-only views of
//! [`crate::Scheduler`].

use std::sync::Arc;

use oxidask_key::Key;

use crate::graph::GraphUpdate;
use crate::graph::portions::{GraphOutline, GraphPortion};
use crate::ids::{ClientId, RunId, WorkerId};
use crate::opaque::Opaque;
use crate::worker::{WorkerInfo, WorkerMetrics, WorkerStatus};
use serde::{Deserialize, Serialize};

/// Name of the cause of a chain of transitions; kept in the transition log and sent to workers as
/// `stimulus_id` (since 2021.10.0).
pub type StimulusId = Arc<str>;

/// One figure of [`Event::SpansMeasured`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanMetric {
    /// Id of the span.
    pub span: Arc<str>,
    /// Context, what was measured, and its unit.
    pub what: Key,
    /// How much.
    pub value: f64,
    /// It is a count, not a duration.
    pub whole: bool,
}

/// One input to the state machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// A client (or a pseudo client such as `queue-x`) appeared.
    AddClient {
        /// Fresh id.
        client: ClientId,
        /// The client's own name, e.g. `Client-0b5c…`.
        name: Arc<str>,
    },
    /// A client is gone; its interests are released.
    RemoveClient {
        /// Who.
        client: ClientId,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Tasks to run.
    UpdateGraph(Box<GraphUpdate>),
    /// The same in portions, of which this is the announcement. Later messages of the same client must
    /// wait for the last portion.
    BeginGraph(Box<GraphOutline>),
    /// The next portion. Passed over if the graph was refused, or everything was forgotten since, or the
    /// client left.
    ContinueGraph(Box<GraphPortion>),
    /// The client wants these results kept (and told about). Unknown keys are passed over (as since
    /// 2024.9.0; a placeholder could neither run nor ever be forgotten).
    ClientDesiresKeys {
        /// Who.
        client: ClientId,
        /// What.
        keys: Vec<Key>,
    },
    /// The client no longer needs these results.
    ClientReleasesKeys {
        /// Who.
        client: ClientId,
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Stop and forget these tasks and, for the asking client, what depends on them.
    CancelKeys {
        /// Who.
        client: ClientId,
        /// What.
        keys: Vec<Key>,
        /// Also if other clients want them.
        force: bool,
        /// Told to clients (since 2025.3.0).
        reason: Option<Arc<str>>,
        /// Told to clients (since 2025.3.0).
        msg: Option<Arc<str>>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Run failed tasks again.
    RetryKeys {
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Tell the client the state of a key.
    ReportKey {
        /// Whom.
        client: ClientId,
        /// Which.
        key: Key,
    },
    /// Data exists on workers that no task made (`scatter`, `update_data`).
    UpdateData {
        /// Holders and size of each key, by worker address.
        data: Vec<DataPlacement>,
        /// Who wants the data, if anybody yet.
        client: Option<ClientId>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// A worker registered. The shell has checked that address and name are free.
    AddWorker {
        /// Fresh id.
        worker: WorkerId,
        /// What it told about itself.
        info: Box<WorkerInfo>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// A worker is gone.
    RemoveWorker {
        /// Who.
        worker: WorkerId,
        /// It said so before (retired, closed): its running tasks are not blamed.
        expected: bool,
        /// Whether to send it `close` first.
        close: bool,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// A worker's nanny told how its process died, before [`Event::RemoveWorker`]. Changes no task.
    WorkerDied {
        /// Who.
        worker: WorkerId,
        /// A sentence for people.
        death: Arc<str>,
    },
    /// `heartbeat_worker`.
    Heartbeat {
        /// Who.
        worker: WorkerId,
        /// Figures used for placement and memory policies.
        metrics: WorkerMetrics,
        /// Seconds each running task has taken so far (since 2021.01.0).
        executing: Vec<(Key, f64)>,
    },
    /// What a worker measured for spans since its last heartbeat (since 2023.6.0).
    SpansMeasured {
        /// Figures that are added up.
        measured: Vec<SpanMetric>,
    },
    /// Any other sign of life: resets the time-to-live.
    WorkerSeen {
        /// Who.
        worker: WorkerId,
    },
    /// The worker paused, resumed or is leaving.
    WorkerStatusChanged {
        /// Who.
        worker: WorkerId,
        /// New status.
        status: WorkerStatus,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// The scheduler tells a worker to change its status (`retire_workers`), and notes it.
    SetWorkerStatus {
        /// Who.
        worker: WorkerId,
        /// New status.
        status: WorkerStatus,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// `set_resources`: abstract resources of a worker changed.
    SetResources {
        /// Who.
        worker: WorkerId,
        /// New amounts; names not listed stay.
        resources: Vec<(Arc<str>, f64)>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// A task ended well.
    TaskFinished(Box<TaskFinished>),
    /// A task raised.
    TaskErred(Box<TaskErred>),
    /// A worker dropped a result (`release-worker-data`).
    ReleaseWorkerData {
        /// Who.
        worker: WorkerId,
        /// What.
        key: Key,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// A worker holds copies (`add-keys`).
    AddKeys {
        /// Who.
        worker: WorkerId,
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// A task left the worker's thread pool (`secede`).
    LongRunning {
        /// Who.
        worker: WorkerId,
        /// What.
        key: Key,
        /// Seconds it had run; unknown on some paths.
        compute_duration: Option<f64>,
        /// Since 2025.2.0.
        run_id: Option<RunId>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// A worker (or a task on it) asks to run the task elsewhere.
    Reschedule {
        /// Who asked; nobody when the scheduler itself decides.
        worker: Option<WorkerId>,
        /// What.
        key: Key,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Answer to a steal request.
    StealResponse {
        /// The victim.
        worker: WorkerId,
        /// What.
        key: Key,
        /// The victim's state of the task (`ready`, `executing`, …); nothing when unknown to it.
        state: Option<Arc<str>>,
        /// The id of the request; empty from workers before 2021.10, which do not repeat it.
        stimulus_id: StimulusId,
    },
    /// A worker found a peer without the data it should have (≤ 2022.05.2).
    MissingData {
        /// Who noticed.
        worker: WorkerId,
        /// What was missing.
        key: Key,
        /// Address where it was missing.
        errant_worker: Arc<str>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// A worker asks where data is (since 2022.6.0).
    RequestRefreshWhoHas {
        /// Who.
        worker: WorkerId,
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Forget the results of these tasks and compute them again as far as they are needed: the data
    /// of a P2P shuffle is gone although its tasks are done. Unknown keys are passed over.
    RecomputeTasks {
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Whether these tasks may wait in the scheduler's queue when they are root-like. The outputs of a
    /// P2P shuffle may not: each worker shall have its share at once. Unknown keys are passed over.
    SetQueueable {
        /// Which.
        keys: Vec<Key>,
        /// True is the default.
        queueable: bool,
    },
    /// These workers, and no others, take part in something the core does not know (a P2P shuffle):
    /// [`crate::Scheduler::workers_to_close`] leaves them out. Unknown addresses are passed over.
    KeepWorkers {
        /// Addresses.
        workers: Vec<Arc<str>>,
    },
    /// Pin keys to workers (`set_restrictions`); no addresses lifts the restriction.
    SetRestrictions {
        /// Addresses allowed for each key.
        restrictions: Vec<(Key, Option<Vec<Arc<str>>>)>,
    },
    /// Tell these workers to fetch copies.
    RequestAcquireReplicas {
        /// Who fetches.
        worker: WorkerId,
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Tell this worker to drop copies.
    RequestRemoveReplicas {
        /// Who drops.
        worker: WorkerId,
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Start or stop work stealing (`scheduler.extensions["stealing"].start`/`stop`). Requests on
    /// their way are still answered.
    SetStealing {
        /// Whether it runs.
        enabled: bool,
    },
    /// Start or stop the periodic run of the active memory manager (`amm_handler`: `start`, `stop`).
    SetMemoryManager {
        /// Whether it runs.
        enabled: bool,
    },
    /// Run the policies of the active memory manager now (`amm_handler`: `run_once`).
    RunMemoryManager,
    /// Move everything that only this worker holds elsewhere, so that it can be closed
    /// (`retire_workers`): sets its status to `closing_gracefully`, tells it, and makes the memory
    /// manager due at once ([`crate::Scheduler::poll_timeout`]), so that several workers can be named
    /// before it runs. Progress: [`crate::Scheduler::retirement`].
    RetireWorker {
        /// Who.
        worker: WorkerId,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// What became of a [`crate::effect::Suspicion`].
    Examined {
        /// Who was asked.
        worker: WorkerId,
        /// Which task and assignment the question was about.
        task: Option<(Key, RunId)>,
        /// What was found.
        verdict: Verdict,
        /// Cause.
        stimulus_id: StimulusId,
    },
    /// Look whether the cluster does nothing; [`crate::Scheduler::idle_since`] has the answer.
    CheckIdle {
        /// The shell knows of work the core does not (graphs being expanded).
        busy: bool,
    },
    /// Emit [`crate::effect::Effect::Transition`] from now on, or no longer.
    ObserveTransitions {
        /// Whether to emit.
        enabled: bool,
    },
    /// Emit [`crate::effect::Effect::Change`] from now on, or no longer.
    ObserveChanges {
        /// Whether to emit.
        enabled: bool,
    },
    /// Forget every task and tell all clients (`restart`). Workers stay registered.
    Restart {
        /// Cause.
        stimulus_id: StimulusId,
    },
}

/// What a worker knows of a task that the watchdog asked about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Verdict {
    /// The task runs, or will when its inputs have arrived.
    Progressing,
    /// The worker has nothing to run under that name.
    Unknown,
    /// What was asked for is not where it is believed to be: on these workers.
    InputsMissing(Vec<(Key, WorkerId)>),
    /// The worker could not be asked.
    NoAnswer,
}

/// Where scattered data lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DataPlacement {
    /// Name of the data.
    pub key: Key,
    /// Addresses of the workers that hold it.
    pub who_has: Vec<Arc<str>>,
    /// Size in bytes.
    pub nbytes: u64,
}

/// `task-finished`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskFinished {
    /// Who ran it.
    pub worker: WorkerId,
    /// Which task.
    pub key: Key,
    /// Which assignment; `None` from workers before 2023.1.1, which is taken as current.
    pub run_id: Option<RunId>,
    /// Size of the result in bytes, if the worker could tell.
    pub nbytes: Option<u64>,
    /// Pickled type of the result, for clients.
    pub type_: Option<Opaque>,
    /// Printable name of that type.
    pub typename: Arc<str>,
    /// What took how long.
    pub startstops: Vec<StartStop>,
    /// What the task left with `get_task_metadata`-style calls; opaque to the core.
    pub metadata: Option<Opaque>,
    /// Everything as it came, for the task stream and plugins; kept only while somebody records.
    pub raw: Option<Opaque>,
    /// Cause.
    pub stimulus_id: StimulusId,
}

/// One entry of `startstops`, in seconds since the epoch on the worker's clock, already corrected
/// by the worker for its difference to the scheduler's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartStop {
    /// `compute`, `transfer`, `deserialize`, `disk-read`, …
    pub action: Arc<str>,
    /// Begin.
    pub start: f64,
    /// End.
    pub stop: f64,
}

/// `task-erred`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskErred {
    /// Who ran it.
    pub worker: WorkerId,
    /// Which task.
    pub key: Key,
    /// Which assignment (since 2023.7.0).
    pub run_id: Option<RunId>,
    /// The exception as serialised by the worker.
    pub exception: Opaque,
    /// The traceback as serialised by the worker.
    pub traceback: Option<Opaque>,
    /// `repr` of the exception (since 2021.08.0).
    pub exception_text: Arc<str>,
    /// Printed traceback (since 2021.08.0).
    pub traceback_text: Arc<str>,
    /// Everything as it came, for the task stream and plugins; kept only while somebody records.
    pub raw: Option<Opaque>,
    /// Cause.
    pub stimulus_id: StimulusId,
}
