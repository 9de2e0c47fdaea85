//! What the core knows of the tasks of a shuffle: its inputs, the barrier behind them, the outputs
//! behind the barrier. Only looks.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::task::TaskState;
use oxidask_scheduler_core::views::TaskView;
use oxidask_wire::message::worker::RunSpec;
use oxidask_wire::value::Value;

use super::spec::{PickledSpec, SpecError};
use super::state::ConsistencyError;

/// What the key of a barrier task begins with.
const BARRIER_PREFIX: &str = "shuffle-barrier-";

/// The barrier task of shuffle `id`.
pub(super) fn barrier_key(id: &str) -> Key {
    Key::from(format!("{BARRIER_PREFIX}{id}"))
}

/// The shuffle that the task is the barrier of, if it is one.
pub(super) fn id_of_barrier(key: &Key) -> Option<&str> {
    key.as_str()?.strip_prefix(BARRIER_PREFIX)
}

/// A task that takes what the shuffle brought to its worker.
#[derive(Clone, Debug)]
pub(super) struct OutputTask {
    pub(super) key: Key,
    /// Which partition it makes (annotation `shuffle`, up to 2023.10.1).
    pub(super) annotation: Option<Value>,
    /// Workers it is restricted to.
    pub(super) workers: Option<Vec<Arc<str>>>,
}

/// What is needed to set a shuffle up.
pub(super) struct Surroundings {
    /// Who may get outputs.
    pub(super) workers: Vec<Arc<str>>,
    /// Shuffles with the same outputs, e.g. the other side of a join.
    pub(super) siblings: Vec<String>,
    /// The span of the inputs.
    pub(super) span_id: Option<Arc<str>>,
    pub(super) outputs: Vec<OutputTask>,
}

impl Surroundings {
    /// Of shuffle `id`, asked for by the task `input` if the worker's release tells (since 2023.8.0).
    ///
    /// # Errors
    /// There is no such shuffle, or the input is not supposed to run.
    pub(super) fn look(
        scheduler: &Scheduler,
        id: &str,
        input: Option<&Key>,
    ) -> Result<Self, ConsistencyError> {
        let key = barrier_key(id);
        let barrier = scheduler
            .task(&key)
            .ok_or_else(|| ConsistencyError::NoBarrier(key.clone()))?;
        if let Some(input) = input {
            let state = scheduler.task(input).map(|task| task.state());
            if state != Some(TaskState::Processing) {
                return Err(ConsistencyError::NotProcessing {
                    key: input.clone(),
                    state: state.map_or("forgotten", TaskState::as_str),
                });
            }
        }
        let input = input.and_then(|input| scheduler.task(input));
        let span_id = input.and_then(|task| task.group().span_id().cloned());
        Ok(Self {
            workers: workers(scheduler, barrier),
            siblings: siblings(barrier),
            span_id,
            outputs: barrier.dependents().map(output).collect(),
        })
    }
}

/// Those that the barrier is restricted to, or all that can run it: workers of different releases
/// cannot shuffle with each other.
fn workers(scheduler: &Scheduler, barrier: TaskView<'_>) -> Vec<Arc<str>> {
    let release = barrier.release();
    let compatible = |other: &str| release.is_empty() || other.is_empty() || other == release;
    match barrier.worker_restrictions() {
        [] => scheduler
            .workers()
            .filter(|worker| compatible(&worker.info().release))
            .map(|worker| Arc::clone(worker.address()))
            .collect(),
        restricted => restricted.to_vec(),
    }
}

fn siblings(barrier: TaskView<'_>) -> Vec<String> {
    let mut siblings: Vec<String> = Vec::new();
    for output in barrier.dependents() {
        let others = output.dependencies().filter(|o| o.key() != barrier.key());
        for other in others {
            if let Some(id) = id_of_barrier(other.key())
                && !siblings.iter().any(|known| known == id)
            {
                siblings.push(id.to_owned());
            }
        }
    }
    siblings
}

fn output(task: TaskView<'_>) -> OutputTask {
    let annotations = task.annotations().and_then(|map| map.get::<Bytes>());
    let mut annotations = annotations.and_then(|map| Value::decode(map).ok());
    let workers = task.worker_restrictions();
    OutputTask {
        key: task.key().clone(),
        annotation: annotations.as_mut().and_then(|map| map.remove("shuffle")),
        workers: (!workers.is_empty()).then(|| workers.to_vec()),
    }
}

/// The spec that the barrier task of shuffle `id` carries (since 2024.11.0).
///
/// # Errors
/// See [`SpecError`].
pub(super) fn spec_of_barrier(scheduler: &Scheduler, id: &str) -> Result<PickledSpec, SpecError> {
    let barrier = scheduler.task(&barrier_key(id));
    let run_spec = barrier
        .and_then(|task| task.run_spec())
        .and_then(|spec| spec.get::<RunSpec>());
    match run_spec {
        Some(RunSpec::Pickled { pickle, buffers }) => {
            PickledSpec::of_barrier(pickle.to_bytes(), buffers.to_vec())
        }
        _ => Err(SpecError::Unknown),
    }
}

/// Outputs, barrier and inputs; none if the shuffle failed for good.
pub(super) fn tasks_of_shuffle(scheduler: &Scheduler, barrier: &Key) -> Vec<Key> {
    let Some(barrier) = scheduler.task(barrier) else {
        return Vec::new();
    };
    let outputs = barrier.dependents();
    let all = outputs.chain([barrier]).chain(barrier.dependencies());
    let mut keys = Vec::new();
    for task in all {
        if task.state() == TaskState::Erred {
            return Vec::new();
        }
        keys.push(task.key().clone());
    }
    keys
}

/// Which of the shuffles `runs` the task `key` belongs to, if the task failed by itself.
pub(super) fn shuffle_of_culprit(
    scheduler: &Scheduler,
    key: &Key,
    runs: Vec<(String, i64)>,
) -> Option<(String, i64)> {
    let task = scheduler.task(key)?;
    if task.exception_blame() != Some(key) {
        return None;
    }
    let belongs = |(id, _): &(String, i64)| {
        let barrier = barrier_key(id);
        *key == barrier
            || task.dependents().any(|other| *other.key() == barrier)
            || task.dependencies().any(|other| *other.key() == barrier)
    };
    runs.into_iter().find(belongs)
}
