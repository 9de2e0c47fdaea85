//! The brain of the scheduler: a state machine without I/O, clock, randomness, threads or Python.
//!
//! Events and the time go in ([`Scheduler::handle`]), effects come out. The same events give the
//! same effects, so a recorded run can be replayed, and whole clusters can be simulated.
//!
//! Reading order: [`ids`], [`event`], [`effect`], [`graph`]; then `state` (the tables), `stimuli`
//! (what each event does), `transitions` (how one task changes), `placement` (which worker),
//! `policy` (stealing, memory manager, scaling), [`views`] (questions), `validate` (invariants),
//! [`recording`] (events kept in a file, and run again).
//! It must never depend on a wire type, an async runtime or a clock.

pub mod config;
mod dense;
pub mod effect;
pub mod event;
mod extract;
pub mod graph;
pub mod ids;
pub mod opaque;
mod placement;
pub mod policy;
pub mod recording;
mod sets;
mod state;
mod stimuli;
pub mod story;
mod tables;
pub mod task;
mod transitions;
pub mod validate;
pub mod views;
pub mod worker;

pub use stimuli::heartbeat_interval;

use std::collections::VecDeque;
use std::sync::Arc;

use event::{Event, StimulusId};
use ids::{TaskId, Timestamp};
use sets::{IdMap, OrderedIdSet};
use state::{ClientTable, GroupTable, OpenGraphs, SpanTable, TaskQueue, TaskTable, WorkerTable};

/// Output buffer of the core, owned by the caller and reused.
pub type Effects = Vec<effect::Effect>;

/// The scheduler's state and its only entry points.
pub struct Scheduler {
    config: config::CoreConfig,
    default_nbytes: i64,

    tasks: TaskTable,
    groups: GroupTable,
    spans: SpanTable,
    workers: WorkerTable,
    clients: ClientTable,
    /// Tasks in state `queued`, by release of their client.
    queues: Vec<TaskQueue>,
    /// Tasks in state `no-worker`.
    unrunnable: Unrunnable,
    /// Results and tasks that nobody needs and that are let go little by little.
    letting_go: VecDeque<TaskId>,
    /// Orders that are made little by little.
    orders: transitions::Orders,
    open_graphs: OpenGraphs,
    /// Results held by more than one worker.
    replicated: OrderedIdSet<TaskId>,
    /// Releases of `distributed` seen; the first is "any".
    releases: Vec<Arc<str>>,
    /// Registered workers by release.
    worker_releases: Vec<u32>,

    /// Bytes per second, averaged over the workers' heartbeats.
    bandwidth: f64,
    /// Bytes that workers still have to fetch.
    network_occ: i64,
    /// Tasks sent to workers so far; gives the turn in round-robin placement.
    n_tasks: u64,
    next_run_id: i64,
    generation: f64,
    last_graph: f64,
    transition_counter: u64,
    /// Its value when the event began.
    transitions_before: u64,

    recommendations: transitions::Recommendations,
    log: story::TransitionLog,
    erred_tasks: VecDeque<story::ErredTask>,
    violations: Vec<String>,
    observe: bool,
    observe_changes: bool,

    /// Addresses of workers that must not be closed to save resources.
    kept_workers: Vec<Arc<str>>,

    stealing: policy::stealing::Stealing,
    memory_manager: policy::memory_manager::MemoryManager,
    watchdog: policy::watchdog::Watchdog,
    timers: stimuli::Timers,
    /// Since when there has been work but no worker.
    no_workers_since: Option<Timestamp>,
    idle_since: Option<Timestamp>,
    idle_transition_counter: u64,

    /// Of the event being handled.
    now: Timestamp,
    stimulus: StimulusId,
    /// `compute-task-<time>`, and the time.
    compute_stimulus: (Timestamp, StimulusId),
    out: Effects,
}

/// Tasks that no worker may run, oldest first, and since when.
#[derive(Default)]
pub(crate) struct Unrunnable {
    order: OrderedIdSet<TaskId>,
    since: IdMap<u32, Timestamp>,
}

impl Unrunnable {
    fn insert(&mut self, id: TaskId, now: Timestamp) {
        if self.order.insert(id) {
            self.since.insert(id.0, now);
        }
    }
    fn remove(&mut self, id: TaskId) {
        if self.order.remove(id) {
            self.since.remove(&id.0);
        }
    }
    fn contains(&self, id: TaskId) -> bool {
        self.order.contains(id)
    }
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
    fn len(&self) -> usize {
        self.order.len()
    }
    fn ids(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.order.iter()
    }
    fn since(&self, id: TaskId) -> Timestamp {
        self.since.get(&id.0).copied().unwrap_or_default()
    }
}

impl Scheduler {
    /// An empty cluster.
    pub fn new(config: config::CoreConfig) -> Self {
        Self {
            default_nbytes: i64::try_from(config.default_data_size).unwrap_or(i64::MAX),
            tasks: TaskTable::new(config.seed),
            groups: GroupTable::new(&config.default_task_durations),
            spans: SpanTable::new(config.seed),
            workers: WorkerTable::default(),
            clients: ClientTable::default(),
            queues: Vec::new(),
            unrunnable: Unrunnable::default(),
            letting_go: VecDeque::new(),
            orders: transitions::Orders::default(),
            open_graphs: OpenGraphs::default(),
            replicated: OrderedIdSet::default(),
            releases: vec!["".into()],
            worker_releases: vec![0],
            bandwidth: config.bandwidth.max(1.0),
            network_occ: 0,
            n_tasks: 0,
            next_run_id: 0,
            generation: 0.0,
            last_graph: 0.0,
            transition_counter: 0,
            transitions_before: 0,
            recommendations: transitions::Recommendations::default(),
            log: story::TransitionLog::new(config.transition_log_length),
            erred_tasks: VecDeque::new(),
            violations: Vec::new(),
            observe: false,
            observe_changes: false,
            stealing: policy::stealing::Stealing::new(config.work_stealing),
            kept_workers: Vec::new(),
            memory_manager: policy::memory_manager::MemoryManager::new(config.amm_start),
            watchdog: policy::watchdog::Watchdog::default(),
            timers: stimuli::Timers::default(),
            no_workers_since: None,
            idle_since: None,
            idle_transition_counter: 0,
            now: Timestamp::default(),
            stimulus: "".into(),
            compute_stimulus: (Timestamp::default(), "compute-task-0".into()),
            out: Effects::new(),
            config,
        }
    }

    /// Applies one event; what is to be done is appended to `effects`, in order.
    pub fn handle(&mut self, now: Timestamp, event: Event, effects: &mut Effects) {
        self.begin(now, effects);
        self.dispatch(event);
        self.end(effects);
    }

    /// When [`Scheduler::handle_timeout`] wants to be called next (stealing, memory manager,
    /// time-to-live, time-outs). At once while there is something that is done little by little: whoever waits
    /// should be served first.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.next_timer()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp, effects: &mut Effects) {
        self.begin(now, effects);
        self.go_on();
        self.run_due_timers();
        self.end(effects);
    }

    /// Does a part of what takes long. Not with each event: many of them may wait already.
    fn go_on(&mut self) {
        if !self.letting_go.is_empty() {
            self.let_some_go();
        }
        if !self.orders.is_empty() {
            self.continue_orders();
        }
    }

    fn begin(&mut self, now: Timestamp, effects: &mut Effects) {
        self.transitions_before = self.transition_counter;
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
        self.fill_open_slots();
        self.set_timers();
        if self.config.validate {
            self.validate_after_event(self.transitions_before);
        }
        std::mem::swap(&mut self.out, effects);
    }

    /// Since when the cluster has done nothing, as of the last [`Event::CheckIdle`].
    pub fn idle_since(&self) -> Option<Timestamp> {
        self.idle_since
    }

    /// The settings in force.
    pub fn config(&self) -> &config::CoreConfig {
        &self.config
    }

    /// Emit [`effect::Effect::Transition`] from now on, or no longer.
    pub fn observe_transitions(&mut self, enabled: bool) {
        self.observe = enabled;
    }

    /// Broken invariants found so far, in words; the list is emptied. Each one is a bug of the core:
    /// it went on as best it could.
    pub fn take_violations(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }

    fn violation(&mut self, what: String) {
        // One bug can be met by every task.
        if self.violations.len() < 100 {
            self.violations.push(format!("{what} [{}]", self.stimulus));
        }
    }
}
