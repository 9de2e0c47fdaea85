//! The scheduler's part of P2P shuffles: workers move the data among themselves; here is agreed who
//! gets which output, when all inputs are in, and what happens when somebody leaves.
//!
//! Served for every release whose workers have shuffles of this kind (since 2022.05.1), also where
//! stock of that release would fail when a worker leaves: the run starts again if workers can be told
//! that it is over.
//!
//! Reading order: `protocol` (how releases differ), `request` and `spec` (what a worker says of a
//! shuffle), `tasks` (what the core knows of it), `state` (shuffles going on), here the ops.

mod protocol;
mod request;
mod spec;
mod state;
mod tasks;

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::effect::TransitionEffect;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::task::TaskState;
use oxidask_wire::value::Value;

use super::ops::Ops;
use super::wait::lock;
use crate::context::Context;
use crate::core_thread::CoreStopped;
use crate::handlers::broadcast::{self, OnError};
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable};
use crate::workers::WorkerEntry;
use protocol::{AnswerForm, Protocol};
use request::{Description, Request};
use spec::{Partition, SpecError};
use state::{ConsistencyError, Ended, NewShuffle, Shuffles};
use tasks::{OutputTask, Surroundings};

/// Ended shuffles remembered until the worker whose loss ended them is reported.
const MAX_ARCHIVED: usize = 1000;
/// Pause before workers that could not be reached are told again that all inputs are in.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often in a row that may bring nothing.
const MAX_RETRIES: u32 = 3;

/// The ops of shuffles.
#[derive(Default)]
pub(crate) struct ShuffleExtension {
    shuffles: Arc<Mutex<Shuffles>>,
    /// Cause and id of shuffles that ended because their barrier was released.
    archived: Mutex<VecDeque<(Arc<str>, String)>>,
}

/// Why a shuffle cannot be set up.
#[derive(Debug, thiserror::Error)]
enum SetUpError {
    #[error(transparent)]
    Consistency(#[from] ConsistencyError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Stopped(#[from] CoreStopped),
}

/// What came of a request to set a shuffle up.
struct SetUp {
    answer: Value,
    /// It was not going on before.
    fresh: bool,
    /// What the core shall know.
    events: Vec<Event>,
}

impl ShuffleExtension {
    async fn get(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let request = Request::get(&context, &call)?;
        self.take_part(context, request).await
    }

    async fn get_or_create(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let request = Request::get_or_create(&context, &call)?;
        self.take_part(context, request).await
    }

    async fn take_part(self: Arc<Self>, context: Arc<Context>, request: Request) -> Reply {
        // The run may be over without our knowing yet: whoever joined it would have to start again.
        context.core.settle().await;
        let going_on = lock(&self.shuffles).join(&request.id, request.worker.as_ref());
        if let Some(answer) = going_on {
            self.keep_workers(&context);
            return Ok(answer);
        }
        let protocol = request.protocol;
        if matches!(request.shuffle, Description::GoingOn) {
            return Err(protocol.refusal(&ConsistencyError::Inactive(request.id)));
        }
        // From now on, so that nothing is missed between setting up and observing.
        context.observe_transitions();
        let shuffles = Arc::clone(&self.shuffles);
        let set_up = move |state: &Scheduler| set_up(&mut lock(&shuffles), state, &request);
        let done = match context.core.query(set_up).await {
            Ok(done) => done,
            Err(stopped) => Err(SetUpError::from(stopped)),
        };
        match done {
            Ok(done) => {
                if !done.fresh {
                    context.unobserve_transitions();
                }
                context.core.send_batch(done.events);
                self.keep_workers(&context);
                Ok(done.answer)
            }
            Err(error) => {
                context.unobserve_transitions();
                Err(match error {
                    SetUpError::Consistency(error) => protocol.refusal(&error),
                    SetUpError::Spec(error) => error.into(),
                    SetUpError::Stopped(stopped) => stopped.into(),
                })
            }
        }
    }

    /// The workers that a worker has to tell that all inputs are in (2022.12.1 to 2023.1.1).
    async fn participating_workers(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let id = call.str("id")?;
        let all = lock(&self.shuffles).all_participants(id);
        Ok(Value::array(all.map_err(|_| RpcError::key_error(id))?))
    }

    /// A worker has handed out all outputs (up to 2023.1.0). The shuffle ends with its barrier.
    async fn register_complete(self: Arc<Self>, _: Arc<Context>, _: Call) -> Reply {
        Ok(Value::Nil)
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
        let release = context.workers.release_at(&worker);
        let protocol = Protocol::of(release.unwrap_or(call.caller.release));
        let pinned = lock(&self.shuffles).pin(&id, run_id, &key, before);
        if pinned.map_err(|error| protocol.refusal(&error))? {
            let restrictions = vec![(key, Some(vec![worker]))];
            context.core.send(Event::SetRestrictions { restrictions });
        }
        Ok(Value::map([("status", "OK")]))
    }

    /// Tells the core who takes part in shuffles, if that has changed: they must not be closed to save
    /// resources.
    fn keep_workers(&self, context: &Arc<Context>) {
        // Told under the lock, so that the core hears in order.
        let mut shuffles = lock(&self.shuffles);
        if let Some(workers) = shuffles.changed_busy_workers() {
            context.core.send(Event::KeepWorkers { workers });
        }
    }

    /// Ends a shuffle: those who take part drop its data. Whether it can be run again.
    fn end(&self, context: &Arc<Context>, id: &str, reason: impl FnOnce(&Ended) -> String) -> bool {
        let Some(ended) = lock(&self.shuffles).end(id) else {
            return false;
        };
        context.unobserve_transitions();
        self.keep_workers(context);
        let over = ended.protocol.over(id, ended.run_id, &reason(&ended));
        for address in &ended.participants {
            if let (Some(worker), Some(over)) = (context.workers.at(address), &over) {
                worker.outbox.send_message(over.clone());
            }
        }
        if !ended.pinned.is_empty() {
            context.core.send(Event::SetRestrictions {
                restrictions: ended.pinned,
            });
        }
        over.is_some()
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
            let look = move |state: &Scheduler| tasks::shuffle_of_culprit(state, &key, candidates);
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
        let (context, key) = (Arc::clone(context), tasks::barrier_key(id));
        let stimulus_id: Arc<str> = stimulus_id.into();
        tokio::spawn(async move {
            let keys = context
                .core
                .query(move |state| tasks::tasks_of_shuffle(state, &key));
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

/// Sets the shuffle up, unless somebody else was faster. On the core thread, so that no task changes
/// in between.
fn set_up(
    shuffles: &mut Shuffles,
    scheduler: &Scheduler,
    request: &Request,
) -> Result<SetUp, SetUpError> {
    let Request { id, protocol, .. } = request;
    if let Some(answer) = shuffles.join(id, request.worker.as_ref()) {
        return Ok(SetUp {
            answer,
            fresh: false,
            events: Vec::new(),
        });
    }
    let tasks = Surroundings::look(scheduler, id, request.input.as_ref())?;
    let (outputs, form) = match &request.shuffle {
        Description::GoingOn => return Err(ConsistencyError::Inactive(id.clone()).into()),
        Description::Here(outputs, form) => (outputs.clone(), form.clone()),
        Description::InBarrier => {
            let spec = tasks::spec_of_barrier(scheduler, id)?;
            (spec.outputs.clone(), AnswerForm::Object(spec))
        }
    };
    let partition_of =
        |task: &OutputTask| outputs.partition_of(&task.key, task.annotation.as_ref());
    let made: Vec<(Partition, &OutputTask)> = match protocol.restricts_at_once() {
        true => {
            let outputs = tasks.outputs.iter();
            outputs
                .filter_map(|task| Some((partition_of(task)?, task)))
                .collect()
        }
        false => Vec::new(),
    };
    // A worker is done with a shuffle when all its outputs were taken, so it must not get others.
    let all_known = protocol.restricts_at_once() && made.len() == tasks.outputs.len();
    let wanted: HashSet<Partition> = made.iter().map(|(p, _)| p.clone()).collect();
    let answer = shuffles.create(NewShuffle {
        id,
        protocol: *protocol,
        outputs: &outputs,
        wanted: all_known.then_some(&wanted),
        form: &form,
        workers: tasks.workers,
        siblings: &tasks.siblings,
        span_id: tasks.span_id.as_deref(),
        worker: request.worker.as_ref(),
    });
    let run_id = shuffles.run_id(id)?;
    let mut restrictions = Vec::new();
    for (partition, task) in made {
        if let Some(worker) = shuffles.worker_for(id, &partition)
            && shuffles.pin(id, run_id, &task.key, task.workers.clone())?
        {
            restrictions.push((task.key.clone(), Some(vec![worker])));
        }
    }
    let input = request.input.as_ref().map_or_else(String::new, Key::repr);
    let worker = request.worker.as_deref().unwrap_or_default();
    tracing::info!("Shuffle {id} initialized by task {input} executed on worker {worker}");
    let keys = tasks.outputs.iter().map(|task| task.key.clone()).collect();
    Ok(SetUp {
        answer,
        fresh: true,
        events: vec![
            Event::SetRestrictions { restrictions },
            Event::SetQueueable {
                keys,
                queueable: false,
            },
        ],
    })
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

fn run_id(call: &Call) -> Result<i64, RpcError> {
    let missing = || call.wrong("run_id", "int", &Value::Nil);
    call.opt_i64("run_id")?.ok_or_else(missing)
}

impl Extension for ShuffleExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .request("shuffle_get", Self::get)
            .request("shuffle_get_or_create", Self::get_or_create)
            .request("shuffle_barrier", Self::barrier)
            .request("shuffle_restrict_task", Self::restrict_task)
            .request(
                "shuffle_get_participating_workers",
                Self::participating_workers,
            )
            .request("shuffle_register_complete", Self::register_complete);
    }

    fn transition(&self, context: &Arc<Context>, transition: &TransitionEffect) {
        let ended = matches!(
            transition.finish,
            TaskState::Released | TaskState::Erred | TaskState::Forgotten
        );
        if transition.finish == TaskState::Erred {
            self.task_erred(context, transition);
        }
        let Some(id) = tasks::id_of_barrier(&transition.key).filter(|_| ended) else {
            return;
        };
        if transition.finish == TaskState::Forgotten {
            lock(&self.archived).retain(|(_, other)| other != id);
        }
        let again = self.end(context, id, |ended| {
            format!("{} forgotten", ended.description)
        });
        if again && transition.finish != TaskState::Forgotten {
            let mut archived = lock(&self.archived);
            if archived.len() >= MAX_ARCHIVED {
                archived.pop_front();
            }
            archived.push_back((Arc::clone(&transition.stimulus_id), id.to_owned()));
        }
    }

    fn worker_removed(&self, context: &Arc<Context>, worker: &Arc<WorkerEntry>, cause: &str) {
        let address = &worker.info.address;
        let mut ids = lock(&self.shuffles).of_worker(address);
        ids.retain(|id| {
            self.end(context, id, |ended| {
                format!("Worker {address} left during active {}", ended.description)
            })
        });
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
        drop(shuffles);
        self.keep_workers(context);
        lock(&self.archived).clear();
    }
}
