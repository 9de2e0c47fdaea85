//! The scheduler's part of P2P shuffles: workers move the data among themselves; here is agreed who
//! gets which output, when all inputs are in, and what happens when somebody leaves.
//!
//! Served for workers from 2024.11.0 on, whose barrier task carries the spec of the shuffle. Others
//! get an error that says so.
//!
//! Reading order: `spec` (what the barrier task says), `state` (shuffles going on), here the ops.

mod spec;
mod state;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::effect::TransitionEffect;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::task::TaskState;
use oxidask_wire::message::worker::RunSpec;
use oxidask_wire::value::Value;

use super::ops::Ops;
use super::wait::lock;
use crate::context::Context;
use crate::handlers::broadcast::{self, OnError};
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable};
use crate::workers::WorkerEntry;
use spec::{ShuffleSpec, SpecError};
use state::{ConsistencyError, Ended, Shuffles};

/// What the key of a barrier task begins with.
const BARRIER_PREFIX: &str = "shuffle-barrier-";
/// Ended shuffles remembered until the worker whose loss ended them is reported.
const MAX_ARCHIVED: usize = 1000;
/// Pause before workers that could not be reached are told again that all inputs are in.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often in a row that may bring nothing.
const MAX_RETRIES: u32 = 3;

fn barrier_key(id: &str) -> Key {
    Key::from(format!("{BARRIER_PREFIX}{id}"))
}

fn id_of_barrier(key: &Key) -> Option<&str> {
    key.as_str()?.strip_prefix(BARRIER_PREFIX)
}

/// The ops of shuffles.
#[derive(Default)]
pub(crate) struct ShuffleExtension {
    shuffles: Arc<Mutex<Shuffles>>,
    /// Cause and id of shuffles that ended because their barrier was released.
    archived: Mutex<VecDeque<(Arc<str>, String)>>,
}

/// What is needed to set a shuffle up.
struct Barrier {
    spec: ShuffleSpec,
    workers: Vec<Arc<str>>,
    siblings: Vec<String>,
    span_id: Option<Arc<str>>,
}

/// Why a shuffle cannot be set up.
#[derive(Debug, thiserror::Error)]
enum SetUpError {
    #[error(transparent)]
    Consistency(#[from] ConsistencyError),
    #[error(transparent)]
    Spec(#[from] SpecError),
}

impl Barrier {
    /// Looks at the barrier task of shuffle `id` for the input task `input`.
    fn look(scheduler: &Scheduler, id: &str, input: &Key) -> Result<Self, SetUpError> {
        let key = barrier_key(id);
        let barrier = scheduler
            .task(&key)
            .ok_or_else(|| ConsistencyError::NoBarrier(key.clone()))?;
        let state = scheduler.task(input).map(|task| task.state());
        if state != Some(TaskState::Processing) {
            return Err(SetUpError::Consistency(ConsistencyError::NotProcessing {
                key: input.clone(),
                state: state.map_or("forgotten", TaskState::as_str),
            }));
        }
        let run_spec = barrier.run_spec().and_then(|spec| spec.get::<RunSpec>());
        let Some(RunSpec::Pickled { pickle, buffers }) = run_spec else {
            return Err(SetUpError::Spec(SpecError::Unknown));
        };
        let workers = match barrier.worker_restrictions() {
            [] => scheduler
                .workers()
                .map(|w| Arc::clone(w.address()))
                .collect(),
            restricted => restricted.to_vec(),
        };
        let mut siblings: Vec<String> = Vec::new();
        for output in barrier.dependents() {
            for other in output.dependencies().filter(|other| *other.key() != key) {
                if let Some(id) = id_of_barrier(other.key())
                    && !siblings.iter().any(|known| known == id)
                {
                    siblings.push(id.to_owned());
                }
            }
        }
        let span = scheduler
            .task(input)
            .and_then(|task| task.group().span_id().cloned());
        Ok(Self {
            spec: ShuffleSpec::of_barrier(pickle.clone(), buffers.clone())?,
            workers,
            siblings,
            span_id: span,
        })
    }
}

impl ShuffleExtension {
    async fn get(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let worker = known_worker(&context, &call)?;
        let id = call.str("id")?;
        let run_spec = lock(&self.shuffles).join(id, &worker.info.address);
        let inactive = || ConsistencyError::Inactive(id.to_owned());
        Ok(run_spec_reply(run_spec.ok_or_else(inactive)?))
    }

    async fn get_or_create(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let worker = known_worker(&context, &call)?;
        let address = &worker.info.address;
        let Some(id) = call.opt_str("shuffle_id")?.map(str::to_owned) else {
            return Err(RpcError::not_implemented(
                "P2P shuffles of releases before 2024.11.0 are not supported by this scheduler",
            ));
        };
        if let Some(run_spec) = lock(&self.shuffles).join(&id, address) {
            return Ok(run_spec_reply(run_spec));
        }
        let key = call.key("key")?;
        let barrier = {
            let (id, key) = (id.clone(), key.clone());
            let look = move |scheduler: &Scheduler| Barrier::look(scheduler, &id, &key);
            context.core.query(look).await??
        };
        let mut shuffles = lock(&self.shuffles);
        // Another input task may have been faster.
        if let Some(run_spec) = shuffles.join(&id, address) {
            return Ok(run_spec_reply(run_spec));
        }
        let run_spec = shuffles.create(
            &id,
            &barrier.spec,
            barrier.workers,
            &barrier.siblings,
            barrier.span_id.as_deref(),
            address,
        );
        context.observe_transitions();
        tracing::info!("Shuffle {id} initialized by task {key} executed on worker {address}");
        Ok(run_spec_reply(run_spec))
    }

    /// All inputs have been sent: tells everybody who takes part, then lets the barrier task end.
    async fn barrier(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let id = call.str("id")?;
        let run_id = run_id(&call)?;
        let participants = lock(&self.shuffles).participants(id, run_id);
        let mut workers = match participants {
            Ok(workers) => workers,
            Err(ConsistencyError::Inactive(id)) => return Err(RpcError::key_error(id)),
            Err(error) => return Err(RpcError::value_error(error.to_string())),
        };
        if !call.flag("consistent", true) {
            tracing::warn!("Shuffle {id} restarted due to data inconsistency during barrier");
            self.restart(&context, id, "p2p-barrier-inconsistent");
            return Ok(Value::Nil);
        }
        let message = Value::map([
            ("op", Value::from("shuffle_inputs_done")),
            ("shuffle_id", id.into()),
            ("run_id", run_id.into()),
        ]);
        let mut in_vain = 0;
        while !workers.is_empty() {
            let left = tell_inputs_done(&context, &workers, &message).await?;
            if let Some(gone) = left.iter().find(|w| context.workers.at(w).is_none()) {
                return Err(RpcError::runtime_error(format!(
                    "Worker {gone} left during shuffle {id}"
                )));
            }
            in_vain = if left.len() == workers.len() {
                in_vain + 1
            } else {
                0
            };
            if in_vain >= MAX_RETRIES {
                return Err(RpcError::runtime_error(format!(
                    "Broadcast not making progress for shuffle {id}. Aborting. This is possibly due to overloaded workers. Increasing config `distributed.comm.timeouts.connect` timeout may help."
                )));
            }
            workers = left;
            if !workers.is_empty() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        Ok(Value::Nil)
    }

    /// An output task came to the wrong worker: from now on it may run only where its data is.
    async fn restrict_task(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let (id, key) = (call.str("id")?.to_owned(), call.key("key")?);
        let run_id = run_id(&call)?;
        let worker: Arc<str> = call.str("worker")?.into();
        let before = {
            let key = key.clone();
            let look = move |scheduler: &Scheduler| {
                let task = scheduler.task(&key)?;
                let workers = task.worker_restrictions();
                Some((!workers.is_empty()).then(|| workers.to_vec()))
            };
            context.core.query(look).await?
        };
        let before = before.ok_or_else(|| RpcError::key_error(key.clone()))?;
        if lock(&self.shuffles).pin(&id, run_id, &key, before)? {
            let restrictions = vec![(key, Some(vec![worker]))];
            context.core.send(Event::SetRestrictions { restrictions });
        }
        Ok(Value::map([("status", "OK")]))
    }

    /// Ends a shuffle: those who take part drop its data.
    fn end(&self, context: &Arc<Context>, id: &str, reason: impl FnOnce(&Ended) -> String) {
        let Some(ended) = lock(&self.shuffles).end(id) else {
            return;
        };
        context.unobserve_transitions();
        let message = Value::map([
            ("op", Value::from("shuffle-fail")),
            ("shuffle_id", id.into()),
            ("run_id", ended.run_id.into()),
            ("message", reason(&ended).into()),
        ]);
        for address in &ended.participants {
            if let Some(worker) = context.workers.at(address) {
                worker.outbox.send_message(message.clone());
            }
        }
        if !ended.pinned.is_empty() {
            context.core.send(Event::SetRestrictions {
                restrictions: ended.pinned,
            });
        }
    }

    /// A task failed: if a shuffle fails with it, that is told once (topic `p2p`).
    fn task_erred(&self, context: &Arc<Context>, transition: &TransitionEffect) {
        let candidates = lock(&self.shuffles).healthy();
        if candidates.is_empty() {
            return;
        }
        let (shuffles, context) = (Arc::clone(&self.shuffles), Arc::clone(context));
        let (key, stimulus_id) = (transition.key.clone(), Arc::clone(&transition.stimulus_id));
        tokio::spawn(async move {
            let look = move |state: &Scheduler| shuffle_of_culprit(state, &key, candidates);
            if let Ok(Some((id, run_id))) = context.core.query(look).await
                && lock(&shuffles).fail(run_id)
            {
                let event = Value::map([
                    ("action", Value::from("p2p-failed")),
                    ("shuffle", id.into()),
                    ("stimulus", stimulus_id.into()),
                ]);
                context.log_event(&["p2p"], &event);
            }
        });
    }

    /// Has the inputs, the barrier and the outputs of a shuffle computed again.
    fn restart(&self, context: &Arc<Context>, id: &str, stimulus_id: &str) {
        let (context, key) = (Arc::clone(context), barrier_key(id));
        let stimulus_id: Arc<str> = stimulus_id.into();
        tokio::spawn(async move {
            let keys = context
                .core
                .query(move |state| tasks_of_shuffle(state, &key));
            if let Ok(keys) = keys.await
                && !keys.is_empty()
            {
                context
                    .core
                    .send(Event::RecomputeTasks { keys, stimulus_id });
            }
        });
    }
}

/// Outputs, barrier and inputs; none if the shuffle failed for good.
fn tasks_of_shuffle(scheduler: &Scheduler, barrier: &Key) -> Vec<Key> {
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
fn shuffle_of_culprit(
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

/// Sends `message` to all of `workers`; those that could not be reached.
async fn tell_inputs_done(
    context: &Arc<Context>,
    workers: &[Arc<str>],
    message: &Value,
) -> Result<Vec<Arc<str>>, RpcError> {
    let targets = broadcast::targets(context, workers);
    let answers =
        broadcast::ask_all(context, &targets, message.clone(), false, OnError::Return).await?;
    let mut left = Vec::new();
    for (worker, answer) in answers {
        match answer {
            Value::Nil => {}
            // What `OnError::Return` puts in the place of an answer that never came.
            Value::Bin(_) | Value::Payload(_) => left.push(worker),
            error => return Err(RpcError::Forward(error)),
        }
    }
    Ok(left)
}

fn known_worker(context: &Context, call: &Call) -> Result<Arc<WorkerEntry>, RpcError> {
    let address = call.str("worker")?;
    let unknown = || ConsistencyError::UnknownWorker(address.to_owned());
    Ok(context.workers.at(address).ok_or_else(unknown)?)
}

fn run_id(call: &Call) -> Result<i64, RpcError> {
    let missing = || call.wrong("run_id", "int", &Value::Nil);
    call.opt_i64("run_id")?.ok_or_else(missing)
}

fn run_spec_reply(run_spec: Value) -> Value {
    Value::map([("status", "OK".into()), ("run_spec", run_spec)])
}

impl Extension for ShuffleExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .request("shuffle_get", Self::get)
            .request("shuffle_get_or_create", Self::get_or_create)
            .request("shuffle_barrier", Self::barrier)
            .request("shuffle_restrict_task", Self::restrict_task);
    }

    fn transition(&self, context: &Arc<Context>, transition: &TransitionEffect) {
        let ended = matches!(
            transition.finish,
            TaskState::Released | TaskState::Erred | TaskState::Forgotten
        );
        if transition.finish == TaskState::Erred {
            self.task_erred(context, transition);
        }
        let Some(id) = id_of_barrier(&transition.key).filter(|_| ended) else {
            return;
        };
        let mut archived = lock(&self.archived);
        if transition.finish == TaskState::Forgotten {
            archived.retain(|(_, other)| other != id);
        } else if lock(&self.shuffles).ids().iter().any(|active| active == id) {
            if archived.len() >= MAX_ARCHIVED {
                archived.pop_front();
            }
            archived.push_back((Arc::clone(&transition.stimulus_id), id.to_owned()));
        }
        drop(archived);
        self.end(context, id, |ended| {
            format!("{} forgotten", ended.description)
        });
    }

    fn worker_removed(&self, context: &Arc<Context>, worker: &Arc<WorkerEntry>, cause: &str) {
        let address = &worker.info.address;
        let mut ids = lock(&self.shuffles).of_worker(address);
        for id in &ids {
            self.end(context, id, |ended| {
                format!("Worker {address} left during active {}", ended.description)
            });
        }
        // The loss may have released the barrier already, which ended the shuffle.
        lock(&self.archived).retain(|(stimulus_id, id)| {
            let same = **stimulus_id == *cause;
            if same && !ids.contains(id) {
                ids.push(id.clone());
            }
            !same
        });
        for id in ids {
            tracing::warn!("Shuffle {id} restarted due to stimulus '{cause}'");
            self.restart(context, &id, cause);
        }
    }

    fn restarted(&self, context: &Arc<Context>) {
        let mut shuffles = lock(&self.shuffles);
        for id in shuffles.ids() {
            shuffles.end(&id);
            context.unobserve_transitions();
        }
        lock(&self.archived).clear();
    }
}

impl From<ConsistencyError> for RpcError {
    fn from(error: ConsistencyError) -> Self {
        Self::p2p_consistency(error.to_string())
    }
}

impl From<SetUpError> for RpcError {
    fn from(error: SetUpError) -> Self {
        match error {
            SetUpError::Consistency(error) => error.into(),
            SetUpError::Spec(error) => Self::runtime_error(error.to_string()),
        }
    }
}
