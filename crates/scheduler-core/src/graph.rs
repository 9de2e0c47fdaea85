//! A graph as the core takes it in: tasks with opaque run specs, dependencies as indexes, order
//! already computed. Reading it out of a client's message is the business of `oxidask-graph` and
//! the shell.

pub mod portions;

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_key::numbering::{Numbering, TooLarge};

use crate::event::StimulusId;
use crate::ids::ClientId;
use crate::opaque::Opaque;
use serde::{Deserialize, Serialize};

/// One submission of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GraphUpdate {
    /// Who submits.
    pub client: ClientId,
    /// The tasks, culled to what `keys` needs.
    pub tasks: Vec<NewTask>,
    /// Outputs the client wants; may name tasks of earlier graphs.
    pub keys: Vec<Key>,
    /// The task that submits from a worker, if any: its children run before its siblings.
    pub submitting_task: Option<Key>,
    /// Graphs that arrive within this time share a generation, in seconds.
    pub fifo_timeout: f64,
    /// Applies to tasks without a priority of their own; larger runs first.
    pub user_priority: f64,
    /// What a dependency that nobody knows leads to: the whole submission is refused (since
    /// 2025.3.0) or only the tasks concerned are dropped (before).
    pub lost_dependencies: LostDependencies,
    /// When the message arrived (decides the generation).
    pub received: crate::ids::Timestamp,
    /// Release of `distributed` the client runs: the tasks go only to workers of that release. Empty:
    /// to any.
    pub release: Arc<str>,
    /// For the spans of the tasks.
    pub span_notes: SpanNotes,
    /// Cause.
    pub stimulus_id: StimulusId,
}

/// See [`GraphUpdate::lost_dependencies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostDependencies {
    /// One `cancelled-keys` for all wanted keys; they are released.
    RefuseGraph,
    /// `cancelled-keys` per task that cannot run.
    DropTasks,
}

/// One task of a [`GraphUpdate`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewTask {
    /// Name.
    pub key: Key,
    /// What to run; `None` for a mere reference to data of an earlier graph.
    pub run_spec: Option<Opaque>,
    /// Tasks of this or earlier graphs whose results it needs.
    pub dependencies: Vec<Key>,
    /// Position in the order of the graph (`dask.order`); smaller runs first.
    pub order: i64,
    /// Options, shared by the tasks that have the same ones.
    pub options: Option<Arc<TaskOptions>>,
}

/// Which tasks those of a graph depend on, and which are wanted.
///
/// # Errors
/// [`TooLarge`].
pub fn numbering(tasks: &[NewTask], wanted: &[Key]) -> Result<Numbering, TooLarge> {
    Numbering::of(tasks, |task| &task.key, |task| &task.dependencies, wanted)
}

/// What annotations (or, up to 2.30.1, arguments of `update-graph`) ask for a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskOptions {
    /// Larger runs first; replaces the graph's `user_priority`.
    pub priority: Option<f64>,
    /// Allowed workers: addresses with scheme, or (as given) names and hosts to be resolved.
    pub workers: Option<Vec<Arc<str>>>,
    /// The restriction is a wish only.
    pub allow_other_workers: bool,
    /// How often to try again after an exception.
    pub retries: u32,
    /// Abstract resources needed.
    pub resources: Vec<(Arc<str>, f64)>,
    /// The result stays on its worker as an actor.
    pub actor: bool,
    /// The run spec says that the task produces data (reads a file, …) and is to be queued like a
    /// root task, whatever its group looks like (since 2025.3.0).
    pub data_producer: bool,
    /// The span of the task, after those it is in, outermost first (since 2023.6.0). Of a group's
    /// tasks the first one counts; none: the default span.
    pub span: Vec<SpanTag>,
    /// All annotations as the worker shall see them (`compute-task.annotations`).
    pub annotations: Option<OpaqueAnnotations>,
}

/// One of the names under which a client put tasks (`distributed.span`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanTag {
    /// As the user gave it.
    pub tag: Arc<str>,
    /// Of the span, not of its name.
    pub id: Arc<str>,
}

/// What a client says about a graph; kept for the spans of its tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SpanNotes {
    /// What kind of collection it was (since 2024.5.2).
    pub metadata: Option<SpanNote>,
    /// The source code that submitted it.
    pub code: Option<SpanNote>,
}

/// One of the [`SpanNotes`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpanNote {
    /// The text of the client.
    pub data: Opaque,
    /// Its size.
    pub bytes: usize,
    /// The same for equal ones.
    pub digest: u64,
}

/// The annotations map in the form the shell sends it on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpaqueAnnotations(pub Opaque);

impl PartialEq for OpaqueAnnotations {
    /// Opaque values cannot be compared; two are taken as different.
    fn eq(&self, _: &Self) -> bool {
        false
    }
}
