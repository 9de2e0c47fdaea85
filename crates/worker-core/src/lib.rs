//! The brain of the worker: a state machine without I/O, clock, randomness, threads or Python.
//!
//! Events and the time go in ([`Worker::handle`]), effects come out. The same events give the same
//! effects. It knows which task may run, what has to be fetched for it and from whom, and what the
//! scheduler has to be told; threads, sockets, objects and spilling are the shell's.
//!
//! Reading order: [`ids`], [`event`], [`effect`], [`task`]; then `state` (the tables), `stimuli` (what
//! each event does), `transitions` (how one task changes), `dispatch` (what begins next), [`views`]
//! (questions), `validate` (invariants).
//! It must never depend on a wire type, an async runtime or a clock.

pub mod config;
mod dispatch;
pub mod effect;
pub mod event;
pub mod ids;
pub mod opaque;
mod state;
pub mod status;
mod stimuli;
pub mod story;
pub mod task;
mod transitions;
pub mod validate;
pub mod views;

use std::sync::Arc;

use effect::{Effect, SchedulerMsg};
use event::{Event, StimulusId};
use ids::{PeerId, Timestamp};
use state::{PeerTable, Resources, RunQueue, Serving, Slots, TaskSet, TaskTable, Transfers};
use status::WorkerStatus;
use story::Transition;

/// Output buffer of the core, owned by the caller and reused.
pub type Effects = Vec<Effect>;

/// The worker's state and its only entry points.
pub struct Worker {
    config: config::WorkerConfig,
    status: WorkerStatus,

    tasks: TaskTable,
    peers: PeerTable,
    queue: RunQueue,
    resources: Resources,
    slots: Slots,
    transfers: Transfers,
    serving: Serving,
    /// Bytes of all data here.
    nbytes: u64,
    /// Counts down: of equally important tasks the last that came runs first.
    turn: i64,

    /// Tasks in state `missing`.
    missing: TaskSet,
    /// Tasks to ask the scheduler about when the event is done, unless they were asked about lately.
    to_ask: TaskSet,
    /// When to ask about all that is missing.
    ask_at: Option<Timestamp>,
    busy_peers: Vec<PeerId>,

    story: story::Story,
    transition_counter: u64,
    /// Changes of states since [`Worker::take_transitions`]; none unless somebody wants to be told.
    observed: Option<Vec<Transition>>,
    /// Tasks that changed in the event under way. Only while `validate` is set.
    changed: Vec<oxidask_key::Key>,
    violations: Vec<String>,

    /// Of the event being handled.
    now: Timestamp,
    stimulus: StimulusId,
    out: Effects,
}

impl Worker {
    /// A worker with nothing to do, in status `running`.
    pub fn new(config: config::WorkerConfig) -> Self {
        Self {
            status: WorkerStatus::default(),
            tasks: TaskTable::new(config.seed),
            peers: PeerTable::new(Arc::clone(&config.address), config.seed),
            queue: RunQueue::default(),
            resources: Resources::new(&config.resources),
            slots: Slots::default(),
            transfers: Transfers::default(),
            serving: Serving::default(),
            nbytes: 0,
            turn: 0,
            missing: TaskSet::default(),
            to_ask: TaskSet::default(),
            ask_at: None,
            busy_peers: Vec::new(),
            story: story::Story::new(config.story_bytes),
            transition_counter: 0,
            observed: None,
            changed: Vec::new(),
            violations: Vec::new(),
            now: Timestamp::default(),
            stimulus: "".into(),
            out: Effects::new(),
            config,
        }
    }

    /// Applies one event; what is to be done is appended to `effects`, in order.
    pub fn handle(&mut self, now: Timestamp, event: Event, effects: &mut Effects) {
        self.handle_batch(now, [event], effects);
    }

    /// Applies events that came together, and decides only then what begins: the most important of the
    /// tasks ordered at once runs first, and their inputs are asked for in few requests.
    pub fn handle_batch(
        &mut self,
        now: Timestamp,
        events: impl IntoIterator<Item = Event>,
        effects: &mut Effects,
    ) {
        self.begin(now, effects);
        for event in events {
            self.dispatch(event);
        }
        self.end(effects);
    }

    /// When [`Worker::handle_timeout`] wants to be called next: busy peers, missing data, transfers from
    /// peers that have left.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.next_timer()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp, effects: &mut Effects) {
        self.begin(now, effects);
        self.run_due_timers();
        self.end(effects);
    }

    fn begin(&mut self, now: Timestamp, effects: &mut Effects) {
        if now > self.now {
            self.now = now;
        }
        // Left over only if an earlier event ended in a panic.
        effects.append(&mut self.out);
        // The buffer lives in the state while an event is handled, so that no function has to pass
        // it on.
        std::mem::swap(&mut self.out, effects);
    }

    fn end(&mut self, effects: &mut Effects) {
        self.ask_who_has();
        self.start_transfers();
        self.start_tasks();
        if self.config.validate {
            self.validate_after_event();
        }
        std::mem::swap(&mut self.out, effects);
    }

    /// Broken invariants found so far, in words; the list is emptied. Each one is a bug of the core:
    /// it went on as best it could.
    pub fn take_violations(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }

    /// Whether changes of states are kept for [`Worker::take_transitions`].
    pub fn observe_transitions(&mut self, wanted: bool) {
        self.observed = wanted.then(|| self.observed.take().unwrap_or_default());
    }

    /// The changes of states since the last call, while they are observed.
    pub fn take_transitions(&mut self) -> Vec<Transition> {
        self.observed
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn violation(&mut self, what: String) {
        // One bug can be met by every task.
        if self.violations.len() < 100 {
            self.violations.push(format!("{what} [{}]", self.stimulus));
        }
    }

    fn tell(&mut self, msg: SchedulerMsg) {
        self.out.push(Effect::ToScheduler {
            msg,
            stimulus_id: Arc::clone(&self.stimulus),
        });
    }
}
