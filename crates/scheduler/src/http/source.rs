//! What the pages show, and the trait that gives it.

use std::future::Future;

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::feed::{Snapshot, Topics};
use super::openmetrics::Kind;
use super::process::ProcessFigures;
use super::watch::Happenings;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// The scheduler is shutting down.
    #[error("the scheduler is shutting down")]
    Stopped,
    /// The scheduler does not offer this.
    #[error("{0} is not supported by this scheduler")]
    NotSupported(&'static str),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

/// Shorthand for answers.
pub type Answer<T> = Result<T, SourceError>;

/// `/json/counts.json`; names are stock's.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Bytes of results, copies included.
    pub bytes: u64,
    /// Clients and pseudo clients.
    pub clients: usize,
    /// Threads of all workers.
    pub cores: u64,
    /// Failed tasks.
    pub erred: usize,
    /// Machines.
    pub hosts: usize,
    /// Workers with too little to do.
    pub idle: usize,
    /// Results, copies included.
    pub memory: usize,
    /// Tasks sent to workers.
    pub processing: usize,
    /// Tasks known but not wanted.
    pub released: usize,
    /// Workers with more to do than others.
    pub saturated: usize,
    /// All tasks.
    pub tasks: usize,
    /// Tasks that no worker may run.
    pub unrunnable: usize,
    /// Tasks that wait for others.
    pub waiting: usize,
    /// Tasks that others wait for.
    pub waiting_data: usize,
    /// Workers.
    pub workers: usize,
    /// Workers that would be enough.
    pub desired_workers: u64,
}

/// A worker in a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerRow {
    /// Contact address.
    pub address: String,
    /// Name.
    pub name: String,
    /// Host.
    pub host: String,
    /// Port of its own HTTP server.
    pub dashboard_port: Option<u64>,
    /// Threads.
    pub nthreads: u32,
    /// Bytes; 0: no limit.
    pub memory_limit: u64,
    /// Bytes of its process.
    pub memory: u64,
    /// Seconds of work it has.
    pub occupancy: f64,
    /// Tasks sent to it.
    pub processing: usize,
    /// Results it holds.
    pub in_memory: usize,
    /// Seconds since it was heard of.
    pub last_seen: f64,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerPage {
    /// Its row.
    pub row: WorkerRow,
    /// Results it holds and their bytes.
    pub has_what: Vec<(String, u64)>,
    /// Tasks sent to it and their priorities.
    pub processing: Vec<(String, String)>,
    /// Resource, in use, offered.
    pub resources: Vec<(String, f64, f64)>,
}

/// A task in a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskRow {
    /// Its key as text.
    pub key: String,
    /// Its state.
    pub state: &'static str,
}

/// One line of a task's story.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TransitionRow {
    /// Seconds since 1970.
    pub time: f64,
    /// The task.
    pub key: String,
    /// State before.
    pub start: &'static str,
    /// State after.
    pub finish: &'static str,
    /// Cause.
    pub stimulus_id: String,
    /// What it led to.
    pub recommendations: Vec<TaskRow>,
}

/// One task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskPage {
    /// Its key as text.
    pub key: String,
    /// Its state.
    pub state: &'static str,
    /// The worker that runs it.
    pub processing_on: Option<String>,
    /// Type of its result.
    pub type_name: Option<String>,
    /// Bytes of its result.
    pub nbytes: Option<u64>,
    /// Priority.
    pub priority: Option<String>,
    /// Further facts by name, only those that hold.
    pub facts: Vec<(&'static str, String)>,
    /// Exception and traceback.
    pub error: Option<(String, String)>,
    /// Dependencies without a result.
    pub waiting_on: Vec<TaskRow>,
    /// What it needs.
    pub dependencies: Vec<TaskRow>,
    /// What needs it.
    pub dependents: Vec<TaskRow>,
    /// Workers with its result.
    pub who_has: Vec<WorkerRow>,
    /// Clients that want its result.
    pub who_wants: Vec<String>,
    /// Its last transitions.
    pub story: Vec<TransitionRow>,
}

/// A failure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErredTask {
    /// The task.
    pub key: String,
    /// Addresses of workers.
    pub erred_on: Vec<String>,
    /// Exception.
    pub exception: String,
    /// Traceback.
    pub traceback: String,
}

/// A log line: level and text.
pub type LogRow = (String, String);

/// Workers by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStates {
    /// Too little to do.
    pub idle: usize,
    /// In between.
    pub partially_saturated: usize,
    /// More to do than others.
    pub saturated: usize,
    /// Out of memory.
    pub paused: usize,
    /// Leaving.
    pub retiring: usize,
}

/// Figures of one task prefix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrefixFigures {
    /// Its name.
    pub name: String,
    /// Worker deaths during its tasks.
    pub suspicious: u64,
    /// Seconds computed.
    pub compute: f64,
    /// Seconds of transfers.
    pub transfer: f64,
    /// Bytes of results in memory, copies not counted.
    pub nbytes: i64,
    /// How often a task entered each state.
    pub state_totals: Vec<(&'static str, u64)>,
}

/// `/metrics`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Clients that are connected.
    pub clients: usize,
    /// Connections of clients so far.
    pub clients_added: u64,
    /// Of these, how many ended.
    pub clients_removed: u64,
    /// Workers that would be enough.
    pub desired_workers: u64,
    /// Workers by what they do.
    pub workers: WorkerStates,
    /// Workers so far.
    pub workers_added: u64,
    /// Of these, how many left.
    pub workers_removed: u64,
    /// Seconds since 1970 of the last look at the process.
    pub last_time: f64,
    /// Tasks by state.
    pub tasks: Vec<(&'static str, u64)>,
    /// Forgotten tasks of groups that still exist.
    pub tasks_forgotten: u64,
    /// Task groups.
    pub task_groups: usize,
    /// By prefix.
    pub prefixes: Vec<PrefixFigures>,
    /// Longest delay of the I/O runtime since the last look at this, seconds.
    pub tick_duration_max: f64,
    /// Ticks of the I/O runtime.
    pub tick_count: u64,
    /// Requests to steal and their cost in seconds, by level; none when stealing is off.
    pub stealing: Vec<(u64, f64)>,
    /// Families of extensions.
    pub extensions: Vec<Family>,
    /// The process.
    pub process: ProcessFigures,
    /// Seconds since 1970 when it started.
    pub started: f64,
    /// Families that stock does not have.
    pub own: Vec<OwnFamily>,
}

/// A family of metrics that stock does not have.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnFamily {
    /// Name without `oxidask_`.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// What kind.
    pub kind: Kind,
    /// Labels and figures.
    pub samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

/// What probes want to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How long the core has owed an answer.
    pub silence: Duration,
    /// The process is ending.
    pub stopping: bool,
}

/// A family of metrics that an extension adds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    /// Name without the namespace: `semaphore_max_leases`.
    pub name: String,
    /// What it is.
    pub help: String,
    /// Only ever grows; its name gets `_total`.
    pub counter: bool,
    /// Name of the label.
    pub label: &'static str,
    /// Value of the label, and figure.
    pub samples: Vec<(String, f64)>,
}

/// Gives the pages what they show. Errors become status 500 (501 for what is not supported).
pub trait HttpSource: Send + Sync + 'static {
    /// `/health` and `/ready`.
    fn health(&self) -> Health;
    /// What the live pages show, as far as asked for.
    fn snapshot(&self, topics: Topics) -> impl Future<Output = Answer<Snapshot>> + Send;
    /// What happens from now on, for as long as the value is kept.
    fn happenings(&self) -> Happenings;
    /// `/json/counts.json`.
    fn counts(&self) -> impl Future<Output = Answer<Counts>> + Send;
    /// `/json/identity.json`.
    fn identity(&self) -> impl Future<Output = Answer<Value>> + Send;
    /// `/metrics`.
    fn metrics(&self) -> impl Future<Output = Answer<Metrics>> + Send;
    /// The scheduler's address.
    fn address(&self) -> String;
    /// All workers, by name.
    fn workers(&self) -> impl Future<Output = Answer<Vec<WorkerRow>>> + Send;
    /// The worker at an address.
    fn worker(&self, address: String) -> impl Future<Output = Answer<Option<WorkerPage>>> + Send;
    /// The task whose key reads like this.
    fn task(&self, key: String) -> impl Future<Output = Answer<Option<TaskPage>>> + Send;
    /// The last failures.
    fn erred_tasks(&self) -> impl Future<Output = Answer<Vec<ErredTask>>> + Send;
    /// The scheduler's own log, newest first.
    fn logs(&self) -> impl Future<Output = Answer<Vec<LogRow>>> + Send;
    /// The log of a worker; None: no such worker.
    fn worker_logs(
        &self,
        address: String,
    ) -> impl Future<Output = Answer<Option<Vec<LogRow>>>> + Send;
    /// Call stacks of all tasks of a worker, by worker and task; None: no such worker.
    fn worker_call_stacks(
        &self,
        address: String,
    ) -> impl Future<Output = Answer<Option<Value>>> + Send;
    /// The call stack of a task; None: no such task. Empty when it does not run.
    fn task_call_stack(&self, key: String) -> impl Future<Output = Answer<Option<Value>>> + Send;
    /// `/api/v1/retire_workers`; the request's parameters.
    fn retire_workers(&self, params: Value) -> impl Future<Output = Answer<Value>> + Send;
    /// `/api/v1/adaptive_target`.
    fn adaptive_target(&self) -> impl Future<Output = Answer<u64>> + Send;
    /// `/api/v1/check_idle`: seconds since 1970.
    fn check_idle(&self) -> impl Future<Output = Answer<Option<f64>>> + Send;
}
