//! The owner of the state machine and of the store: everything that changes them comes over one desk
//! (`desk.rs`), in batches, and what the state machine wants done is done here, without waiting for anything.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_wire::message::order::OrderedSpec;
use oxidask_wire::{Dialect, Message, Value};
use oxidask_worker_core::effect::{Effect, SchedulerMsg};
use oxidask_worker_core::event::{ComputeTask, Event, GatherOutcome, Outcome};
use oxidask_worker_core::ids::{AttemptId, RequestId, Timestamp, TransferId};
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_core::story::Transition;
use oxidask_worker_core::{Effects, Worker};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::clock::{now, stimulus};
use crate::host::Handle;
use crate::interpreter::{Change, Execution, Failure, Interpreter, Object};
use crate::introspection;
use crate::memory::LoadError;
use crate::outlet::Outlet;
use crate::patience::brief;
use crate::peers::Peers;
use crate::store::{Held, Kind, Store};
use crate::transfers::Moved;
use crate::translate::{report, run_of};

/// So many tasks may have metadata before those are looked for that are gone.
const MAX_NOTES: usize = 1000;

/// A question to the state machine.
pub(crate) type Question = Box<dyn FnOnce(&Worker) + Send>;

/// What comes over the desk.
pub(crate) enum Input {
    /// For the state machine, applied together.
    Events(Vec<Event>),
    /// Data has come, whose event follows.
    Moved(Moved),
    /// Asks, when all before it is applied.
    Ask(Question),
    /// Whether the interpreter wants to be told of changes of states.
    Observe(bool),
    /// What the scheduler is to keep of a task when it is done: a map.
    Metadata(Key, Value),
    /// `get_data` of somebody.
    GetData {
        /// Address it says it has.
        who: Option<Arc<str>>,
        keys: Vec<Key>,
        unlimited: bool,
        answer: oneshot::Sender<Served>,
    },
    /// The stream to the scheduler is there; `again`: not for the first time.
    Connected { outlet: Arc<Outlet>, again: bool },
    /// There is no stream for the moment. What there is to say waits.
    Disconnected,
    /// A message that is not the state machine's.
    Say(Message),
    /// What the state machine waits for is due.
    TimeUp,
    /// Nothing more is to begin.
    End,
}

/// Answer to `get_data`.
pub(crate) enum Served {
    /// What of it is here. [`Event::DataSent`] is due.
    Data(RequestId, Vec<(Key, Held)>),
    /// Too many requests at once.
    Busy,
}

pub(crate) struct Books {
    core: Worker,
    /// Of tasks that are not done.
    metadata: HashMap<Key, Value>,
    store: Store,
    interpreter: Arc<dyn Interpreter>,
    peers: Arc<Peers>,
    handle: Handle,
    dialect: Dialect,
    scheduler: Option<Arc<Outlet>>,
    /// Said before there is a stream, in the batch under way, and what waits for more.
    said: Vec<(SchedulerMsg, Arc<str>)>,
    transfers: HashMap<TransferId, AbortHandle>,
    requests: HashMap<RequestId, oneshot::Sender<Served>>,
    /// Transfers by the task that they were made for, until that is told.
    moves: HashMap<Key, Vec<Moved>>,
    next_request: u64,
    released: Vec<Object>,
    /// The interpreter is told of changes of states.
    observed: bool,
    /// What begins when the interpreter was told of them.
    beginning: Vec<Execution>,
    effects: Effects,
    /// Where transfers run, whichever thread begins them.
    runtime: runtime::Handle,
}

impl Books {
    /// On the runtime that transfers are to run on.
    pub(crate) fn new(
        core: Worker,
        store: Store,
        interpreter: Arc<dyn Interpreter>,
        peers: Arc<Peers>,
        handle: Handle,
        dialect: Dialect,
    ) -> Self {
        Self {
            core,
            metadata: HashMap::new(),
            store,
            interpreter,
            peers,
            handle,
            dialect,
            scheduler: None,
            said: Vec::new(),
            transfers: HashMap::new(),
            requests: HashMap::new(),
            moves: HashMap::new(),
            next_request: 0,
            released: Vec::new(),
            observed: false,
            beginning: Vec::new(),
            effects: Effects::new(),
            runtime: runtime::Handle::current(),
        }
    }

    /// When [`Input::TimeUp`] is due.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.core.poll_timeout()
    }

    /// Does what the inputs ask for; nothing when the worker has ended.
    pub(crate) fn work_off(&mut self, inputs: VecDeque<Input>) -> Option<()> {
        let mut events = Vec::new();
        let (said, begun) = (self.said.len(), self.core.executed_total());
        let (mut brief_only, mut can_wait) = (true, true);
        for input in inputs {
            match input {
                Input::Events(more) => {
                    brief_only &= brief(&more);
                    events.extend(more);
                }
                Input::GetData {
                    who,
                    keys,
                    unlimited,
                    answer,
                } => {
                    let request = RequestId(self.next_request);
                    self.next_request += 1;
                    self.requests.insert(request, answer);
                    events.push(Event::GetData {
                        request,
                        who,
                        keys,
                        unlimited,
                    });
                }
                other => {
                    can_wait &= !matches!(other, Input::TimeUp | Input::Connected { .. });
                    self.apply(&mut events);
                    self.other(other)?;
                }
            }
        }
        self.apply(&mut events);
        let goes_on = brief_only && self.core.executed_total() > begun;
        can_wait &= goes_on || self.said.len() == said;
        let patience = self.handle.patience();
        if !brief_only {
            patience.expect(self.core.ready_count() > 0);
        }
        if !(can_wait && patience.has_time(now())) {
            self.speak();
        }
        if !self.released.is_empty() {
            self.interpreter.release(std::mem::take(&mut self.released));
        }
        Some(())
    }

    /// What is no event. Nothing when this is the end.
    fn other(&mut self, input: Input) -> Option<()> {
        match input {
            Input::Ask(question) => question(&self.core),
            Input::Moved(moved) => self.moved(moved),
            Input::Observe(wanted) => {
                self.observed = wanted;
                self.core.observe_transitions(wanted);
            }
            Input::Metadata(key, metadata) => self.note(key, metadata),
            Input::Connected { outlet, again } => {
                if again {
                    // It was meant for a scheduler that is gone, or does not remember.
                    self.said.clear();
                    let stimulus_id = stimulus("reconnect");
                    self.apply(&mut vec![Event::Reconnected { stimulus_id }]);
                }
                self.scheduler = Some(outlet);
            }
            Input::Disconnected => self.scheduler = None,
            Input::Say(message) => {
                self.speak();
                if let Some(scheduler) = &self.scheduler {
                    scheduler.send(&message);
                }
            }
            Input::TimeUp => {
                // What has waited has mostly come in a row.
                self.handle.patience().expect(!self.said.is_empty());
                let mut effects = std::mem::take(&mut self.effects);
                self.core.handle_timeout(now(), &mut effects);
                self.perform(effects);
            }
            Input::Events(_) | Input::GetData { .. } => {}
            Input::End => {
                self.speak();
                self.transfers.drain().for_each(|(_, task)| task.abort());
                return None;
            }
        }
        Some(())
    }

    fn apply(&mut self, events: &mut Vec<Event>) {
        if !events.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            self.core
                .handle_batch(now(), events.drain(..), &mut effects);
            self.perform(effects);
        }
    }

    fn perform(&mut self, mut effects: Effects) {
        for effect in effects.drain(..) {
            match effect {
                Effect::ToScheduler { msg, stimulus_id } => self.said.push((msg, stimulus_id)),
                Effect::Execute { attempt, task, .. } => self.execute(attempt, *task),
                Effect::Gather {
                    transfer,
                    worker,
                    keys,
                    ..
                } => self.gather(transfer, worker, keys),
                Effect::AbortGather { transfer } => {
                    if let Some(task) = self.transfers.remove(&transfer) {
                        task.abort();
                    }
                }
                Effect::Store {
                    key,
                    value,
                    nbytes,
                    actor,
                } => self.store(key, &value, nbytes, actor),
                Effect::Drop { key } => self.released.extend(self.store.remove(&key)),
                Effect::ServeData { request, keys } => self.serve(request, keys),
                Effect::RefuseData { request } => {
                    if let Some(answer) = self.requests.remove(&request) {
                        answer.send(Served::Busy).ok();
                    }
                }
                // A thread goes on; what it returns is dropped when it comes.
                Effect::Abandon { .. } => {}
            }
        }
        if self.observed {
            self.tell_changes();
        }
        for violation in self.core.take_violations() {
            tracing::error!("broken invariant of the worker's state: {violation}");
        }
        self.effects = effects;
    }

    /// After the data was stored, and before tasks begin: as plugins are told in stock.
    fn tell_changes(&mut self) {
        let transitions = self.core.take_transitions();
        let core = &self.core;
        let change = |transition: Transition| Change {
            task: introspection::task(core, &transition.key),
            transition,
        };
        let changes: Vec<Change> = transitions.into_iter().map(change).collect();
        if !changes.is_empty() {
            self.interpreter.transitions(changes);
        }
        for execution in self.beginning.drain(..) {
            self.interpreter.execute(execution);
        }
    }

    fn store(&mut self, key: Key, value: &Opaque, nbytes: u64, actor: bool) {
        let Some(object) = value.get::<Object>().cloned() else {
            return;
        };
        let memory = self.handle.memory();
        let large = nbytes > memory.most_managed();
        let old = self.store.insert(key, object, nbytes, actor, large);
        self.released.extend(old);
        memory.check();
    }

    /// Sends what was said in this batch as one message.
    fn speak(&mut self) {
        let Some(scheduler) = &self.scheduler else {
            return;
        };
        if self.said.is_empty() {
            return;
        }
        let stored: Vec<Option<Kind>> = self.said.iter().map(|(msg, _)| self.held(msg)).collect();
        for (msg, _) in &self.said {
            if let SchedulerMsg::TaskErred { key, report, .. } = msg {
                self.handle.note_failure(key, report);
            }
        }
        let metadata = &mut self.metadata;
        let noted = self.said.iter().map(|(msg, _)| match msg {
            SchedulerMsg::TaskFinished { key, .. } | SchedulerMsg::TaskErred { key, .. } => {
                taken(metadata, key)
            }
            _ => None,
        });
        let noted: Vec<Option<Value>> = noted.collect();
        let release = self.dialect.release();
        let batch: Vec<_> = self
            .said
            .iter()
            .zip(stored.iter().zip(noted))
            .filter_map(|((msg, cause), (kind, noted))| {
                let moves = of(msg, &self.moves);
                report(msg, cause, &release, kind.as_ref(), moves, noted)
            })
            .collect();
        let message = self.dialect.encode_scheduler_batch(&batch);
        drop(batch);
        scheduler.send(&message);
        for (msg, _) in &self.said {
            if let Some(key) = ended(msg) {
                let moves = taken(&mut self.moves, key).unwrap_or_default();
                self.handle.times().note(key, run_of(msg), moves);
            }
        }
        if !self.moves.is_empty() {
            // Some are of tasks that were given up.
            let core = &self.core;
            if self.moves.len() > core.tasks_len() {
                self.moves.retain(|key, _| core.task(key).is_some());
            }
        }
        self.said.clear();
    }

    fn note(&mut self, key: Key, metadata: Value) {
        if self.metadata.len() >= MAX_NOTES {
            let core = &self.core;
            self.metadata.retain(|key, _| core.task(key).is_some());
        }
        if self.core.task(&key).is_some() {
            self.metadata.insert(key, metadata);
        }
    }

    /// The type of what a message is about that does not bring it along.
    fn held(&self, msg: &SchedulerMsg) -> Option<Kind> {
        match msg {
            SchedulerMsg::TaskFinished {
                key, report: None, ..
            } => self.store.kind(key),
            _ => None,
        }
    }

    fn execute(&mut self, attempt: AttemptId, task: ComputeTask) {
        let Some(spec) = task.run_spec.arc::<OrderedSpec>() else {
            return fail(
                &self.handle,
                attempt,
                "the run spec of this task is not one",
            );
        };
        let mut inputs = Vec::with_capacity(task.inputs.len());
        for input in &task.inputs {
            let Some(held) = self.store.get(&input.key) else {
                let what = "an input of this task is not in the store";
                return fail(&self.handle, attempt, what);
            };
            inputs.push((input.key.clone(), held));
        }
        let annotations = task.annotations.as_ref().and_then(Opaque::get::<Value>);
        let mut execution = Execution {
            attempt,
            key: task.key,
            spec,
            inputs: Vec::with_capacity(inputs.len()),
            actor: task.actor,
            annotations: annotations.cloned().unwrap_or_default(),
            span_id: task.span_id,
        };
        let here = |(_, held): &(Key, Held)| matches!(held, Held::Here(_));
        if inputs.iter().all(here) && self.handle.memory().has_room() {
            let here = inputs.into_iter().filter_map(|(key, held)| match held {
                Held::Here(object) => Some((key, object)),
                Held::Spilled(_) => None,
            });
            execution.inputs.extend(here);
            if self.observed {
                self.beginning.push(execution);
                return;
            }
            return self.interpreter.execute(execution);
        }
        let (handle, interpreter) = (self.handle.clone(), Arc::clone(&self.interpreter));
        let begins = execute_with_memory(handle, interpreter, execution, inputs);
        self.runtime.spawn(begins);
    }

    fn gather(&mut self, transfer: TransferId, worker: Arc<str>, keys: Vec<Key>) {
        let (peers, handle) = (Arc::clone(&self.peers), self.handle.clone());
        let task = self.runtime.spawn(async move {
            let start = now().0;
            let outcome = match peers.get_data(&worker, &keys).await {
                Ok(outcome) => {
                    handle.received(&worker, start, &outcome);
                    outcome
                }
                Err(error) => {
                    tracing::warn!("no data from {worker}: {error}");
                    GatherOutcome::Unreachable
                }
            };
            handle.event(Event::Gathered {
                transfer,
                outcome,
                stimulus_id: stimulus("gather-dep"),
            });
        });
        self.transfers.retain(|_, task| !task.is_finished());
        self.transfers.insert(transfer, task.abort_handle());
    }

    /// Remembers a transfer for the task that it was made for.
    fn moved(&mut self, moved: Moved) {
        let dependent = |key: &Key| self.core.task(key)?.dependents().next().cloned();
        let cause = moved.keys.iter().find_map(|(key, _)| dependent(key));
        if let Some(cause) = cause {
            self.moves.entry(cause).or_default().push(moved);
        }
    }

    fn serve(&mut self, request: RequestId, keys: Vec<Key>) {
        let Some(answer) = self.requests.remove(&request) else {
            return self.handle.event(Event::DataSent { request });
        };
        let held = |key: Key| self.store.get(&key).map(|object| (key, object));
        let data = keys.into_iter().filter_map(held).collect();
        if answer.send(Served::Data(request, data)).is_err() {
            self.handle.event(Event::DataSent { request });
        }
    }
}

/// The task that a message is about which has come to its end.
fn ended(msg: &SchedulerMsg) -> Option<&Key> {
    match msg {
        SchedulerMsg::TaskFinished { key, .. } | SchedulerMsg::TaskErred { key, .. } => Some(key),
        _ => None,
    }
}

/// Removes what is noted of a task. Mostly there is nothing of any.
fn taken<T>(notes: &mut HashMap<Key, T>, key: &Key) -> Option<T> {
    match notes.is_empty() {
        true => None,
        false => notes.remove(key),
    }
}

fn of<'a>(msg: &SchedulerMsg, moves: &'a HashMap<Key, Vec<Moved>>) -> &'a [Moved] {
    // Mostly there is none at all.
    match ended(msg).filter(|_| !moves.is_empty()) {
        Some(key) => moves.get(key).map_or(&[], Vec::as_slice),
        None => &[],
    }
}

/// Begins a task when there is room for its result, and all its inputs are in memory.
async fn execute_with_memory(
    handle: Handle,
    interpreter: Arc<dyn Interpreter>,
    mut execution: Execution,
    inputs: Vec<(Key, Held)>,
) {
    handle.memory().room().await;
    for (key, held) in inputs {
        match handle.memory().load(&key, held).await {
            Ok(object) => execution.inputs.push((key, object)),
            Err(LoadError::Unpickle { failure, .. }) => {
                interpreter.release(execution.inputs.into_iter().map(|(_, o)| o).collect());
                return handle.executed(execution.attempt, Err(*failure));
            }
            Err(LoadError::Ending) => return,
            Err(error) => {
                tracing::error!(target: "distributed.spill", "{error}");
                interpreter.release(execution.inputs.into_iter().map(|(_, o)| o).collect());
                // Somebody makes it anew, and then the task is ordered again.
                handle.event(Event::RemoveReplicas {
                    keys: vec![key],
                    stimulus_id: stimulus("spilled-data-lost"),
                });
                return handle.rescheduled(execution.attempt);
            }
        }
    }
    interpreter.execute(execution);
}

/// A task that can not begin: a bug of ours, or data that is lost.
fn fail(handle: &Handle, attempt: AttemptId, what: &str) {
    tracing::error!("{what} ({attempt:?})");
    let exception = oxidask_wire::pickle::Exception::runtime_error(what);
    let report = Opaque::new(Failure {
        exception: exception.pickle(),
        traceback: None,
        exception_text: exception.repr(),
        traceback_text: String::new(),
        run: None,
    });
    handle.event(Event::Executed {
        attempt,
        outcome: Outcome::Failed { report },
        stimulus_id: stimulus("execute-unknown-error"),
    });
}
