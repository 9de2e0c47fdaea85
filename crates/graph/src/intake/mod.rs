//! From a submission to single tasks, one room per form of submission.
//!
//! | form | releases | where |
//! | --- | --- | --- |
//! | pickled expression (`expr_ser`) | ≥ 2025.4.0 | [`expr`] |
//! | packed layers (`update-graph-hlg`) | 2020.12.0 – 2023.3.2.1 | [`packed`] |
//! | one dump per task | ≤ 2.30.1 | nothing to split; the shell takes them as they are |
//!
//! A form whose meaning is not certain is never guessed: the answer is [`NeedsPython`].

pub mod expr;
mod hlg;
mod legacy;
mod map_expr;
mod names;
pub mod packed;
mod parse;
mod spec;
mod writer;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_key::numbering::{Numbering, TooLarge};

use crate::pickle::emit::{EmitError, Pickle};
use crate::pickle::plain::PlainValue;
use crate::pickle::walker::WalkError;

/// The answer to a submission that could be read.
#[derive(Clone, Debug)]
pub enum Intake {
    /// Its tasks.
    Split(SplitGraph),
    /// Only Python can tell.
    NeedsPython(NeedsPython),
}

/// The tasks of a submission.
#[derive(Clone, Debug, Default)]
pub struct SplitGraph {
    /// Each key once, in the order in which the client's graph holds them.
    pub tasks: Vec<SplitTask>,
    /// Which tasks they depend on, and which are wanted.
    pub numbering: Numbering,
    /// What the expression's layers annotate, in the order in which it is to be applied: a later
    /// entry of the same name replaces an earlier one for the keys it lists. These win over the
    /// annotations of the whole submission.
    pub annotations: Vec<Annotation>,
}

impl SplitGraph {
    /// Leaves out what is not needed for what is wanted.
    pub fn cull(&mut self) {
        let mut needed = self.numbering.cull().into_iter();
        self.tasks.retain(|_| needed.next() == Some(true));
    }
}

/// One task.
#[derive(Clone, Debug)]
pub struct SplitTask {
    /// Its name.
    pub key: Key,
    /// The keys whose results it needs; each once. They may belong to earlier graphs.
    pub dependencies: Vec<Key>,
    /// What a worker runs.
    pub spec: Spec,
    /// What `dask.order` takes it for.
    pub kind: TaskKind,
}

/// What kind of node of a graph a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// Something to run, or an alias of another key.
    Task,
    /// A mere value.
    Data,
}

/// What a worker runs: a pickle with its out-of-band buffers, `run_spec` as `__Pickled__` (≥ 2023.8.1). Holds a
/// `dask._task_spec` node (≥ 2024.11.0) or a triple `(function, args, kwargs)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The pickle.
    pub pickle: Pickle,
    /// Its buffers, in order; shared with the submission.
    pub buffers: Vec<Bytes>,
}

/// A value that a layer annotates its keys with.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// E.g. `priority`, `workers`, `retries`, `resources`, `allow_other_workers`, or a user's own.
    pub name: String,
    /// The value.
    pub value: PlainValue,
    /// The keys concerned.
    pub keys: Vec<Key>,
}

/// Why a submission cannot be split without Python.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NeedsPython(pub(crate) String);

impl NeedsPython {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Why a submission cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// Not a pickle that any Python could read, or too large a one.
    #[error("cannot read the submitted graph: {0}")]
    Walk(#[source] WalkError),
    /// Beyond the limits.
    #[error("cannot split the submitted graph: {0}")]
    Emit(#[source] EmitError),
    /// Beyond what can be counted.
    #[error("cannot split the submitted graph: {0}")]
    TooLarge(#[from] TooLarge),
}

/// How a function of this crate stops before the end.
#[derive(Debug)]
pub(crate) enum Stop {
    Python(NeedsPython),
    Error(IntakeError),
}

impl Stop {
    pub(crate) fn python(reason: impl Into<String>) -> Self {
        Self::Python(NeedsPython::new(reason))
    }
}

impl From<WalkError> for Stop {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Unsupported { .. } => Self::python(error.to_string()),
            _ => Self::Error(IntakeError::Walk(error)),
        }
    }
}

impl From<EmitError> for Stop {
    fn from(error: EmitError) -> Self {
        match error {
            EmitError::Cycle => Self::python(error.to_string()),
            EmitError::TooLarge(_) => Self::Error(IntakeError::Emit(error)),
        }
    }
}

impl From<TooLarge> for Stop {
    fn from(error: TooLarge) -> Self {
        Self::Error(IntakeError::TooLarge(error))
    }
}

/// Looks up what the tasks depend on.
pub(crate) fn numbers(tasks: &[SplitTask], wanted: &[Key]) -> Result<Numbering, TooLarge> {
    Numbering::of(tasks, |task| &task.key, |task| &task.dependencies, wanted)
}

/// Turns an internal result into the public one.
pub(crate) fn answer(result: Result<SplitGraph, Stop>) -> Result<Intake, IntakeError> {
    match result {
        Ok(graph) => Ok(Intake::Split(graph)),
        Err(Stop::Python(reason)) => Ok(Intake::NeedsPython(reason)),
        Err(Stop::Error(error)) => Err(error),
    }
}
