//! A whole cluster in one thread on a virtual clock: the real scheduler core, simulated workers and
//! clients, a network with delays, and faults. A failure is reproduced by its seed alone.
//!
//! Reading order: [`Scenario`] (what to run), [`Sim::run`] (how), `oracle.rs` (what must hold),
//! then the peers. The core's own `validate` runs after every event.

pub mod client;
pub mod faults;
pub mod graphs;
pub mod network;
mod oracle;
pub mod worker;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::effect::{ClientMsg, Effect, WorkerMsg};
use oxidask_scheduler_core::event::{Event, TaskFinished};
use oxidask_scheduler_core::graph::{GraphUpdate, LostDependencies, NewTask};
use oxidask_scheduler_core::ids::{ClientId, RunId, Timestamp, WorkerId};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_scheduler_core::worker::{WorkerInfo, WorkerMetrics, WorkerStatus};
use oxidask_scheduler_core::{Effects, Scheduler};

use crate::rng::Rng;
use client::SimClient;
use faults::{FaultKind, Faults};
use graphs::SimGraph;
use network::{Link, Network, Peer};
use worker::{Action, SimWorker};

/// Virtual time at which a simulation begins; some moment in the past, so that mix-ups with
/// durations show.
const START: f64 = 1_600_000_000.0;
/// More steps than any scenario here needs; a run that takes more does not terminate.
const STEPS_MAX: u64 = 400_000;
/// Seconds until the scheduler's side notices that a killed worker's connection is gone.
const DETECTION: f64 = 0.05;

/// What a simulation does.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Names the run.
    pub seed: u64,
    /// Workers at the start, and the least number at the end.
    pub workers: usize,
    /// Threads of each.
    pub nthreads: usize,
    /// Clients, each submitting its graphs.
    pub clients: usize,
    /// Graphs per client.
    pub graphs: usize,
    /// Tasks per graph, about.
    pub tasks: usize,
    /// Share of tasks that raise.
    pub failing: f64,
    /// What goes wrong during the first `turmoil` seconds.
    pub faults: Faults,
    /// Seconds with faults.
    pub turmoil: f64,
    /// Seconds, one way.
    pub latency: f64,
    /// Virtual seconds after which a run that is not done counts as stuck.
    pub patience: f64,
    /// Settings of the core.
    pub config: CoreConfig,
}

impl Scenario {
    /// A small cluster in which a lot goes wrong.
    pub fn turbulent(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            seed,
            workers: 3 + rng.below(8),
            nthreads: 1 + rng.below(3),
            clients: 1 + rng.below(2),
            graphs: 1 + rng.below(3),
            tasks: 30 + rng.below(170),
            failing: if rng.chance(0.3) { 0.02 } else { 0.0 },
            faults: Faults::all(rng.range(0.2, 3.0)),
            turmoil: rng.range(1.0, 8.0),
            latency: 0.002,
            patience: 120.0,
            config: CoreConfig {
                // Kills are frequent here on purpose; `KilledWorker` has tests of its own.
                allowed_failures: 10_000,
                worker_saturation: if rng.chance(0.3) { f64::INFINITY } else { 1.1 },
                work_stealing: rng.chance(0.8),
                work_stealing_interval: 0.1,
                amm_start: rng.chance(0.7),
                amm_interval: 0.5,
                validate: true,
                seed,
                ..CoreConfig::default()
            },
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Events the core handled.
    pub events: u64,
    /// Virtual seconds until every client had its answers.
    pub makespan: f64,
    /// Messages to workers.
    pub worker_messages: u64,
    /// Longest queue of tasks at one worker.
    pub backlog_max: usize,
    /// Workers killed.
    pub kills: u64,
}

enum Occurrence {
    ToCore(Peer, Event),
    /// Delivered again or invented: not subject to the order of the link.
    Spurious(Event),
    ToWorker(WorkerId, WorkerMsg),
    ToClient(ClientId, ClientMsg),
    Done(WorkerId, Key, u64),
    FetchArrives(WorkerId, Arc<str>, Key),
    Fetched(WorkerId, Arc<str>, Key, Option<u64>),
    Refresh(WorkerId, Key),
    Heartbeat(WorkerId),
    Submit(ClientId, usize),
    Fault(FaultKind),
    Unpause(WorkerId),
    CoreTimeout,
    ConnectionLost(WorkerId),
}

struct Scheduled {
    at: f64,
    order: u64,
    what: Occurrence,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    /// Earliest first out of a max-heap; ties in the order they were scheduled.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order)
            .partial_cmp(&(self.at, self.order))
            .unwrap_or(Ordering::Equal)
    }
}

/// A running simulation.
pub struct Sim {
    scenario: Scenario,
    rng: Rng,
    now: f64,
    order: u64,
    agenda: BinaryHeap<Scheduled>,
    core: Scheduler,
    network: Network,
    workers: BTreeMap<u32, SimWorker>,
    /// Registered at the scheduler, whether or not the process still lives.
    registered: BTreeMap<u32, Arc<str>>,
    clients: BTreeMap<u32, SimClient>,
    graphs: BTreeMap<u32, Vec<SimGraph>>,
    submitted: usize,
    next_worker: u32,
    timeout_at: Option<f64>,
    report: Report,
}

impl Sim {
    /// A cluster ready to run `scenario`.
    pub fn new(scenario: Scenario) -> Self {
        let mut sim = Self {
            rng: Rng::new(scenario.seed),
            now: START,
            order: 0,
            agenda: BinaryHeap::new(),
            core: Scheduler::new(scenario.config.clone()),
            network: Network::new(scenario.seed ^ 0xabcd, scenario.latency),
            workers: BTreeMap::new(),
            registered: BTreeMap::new(),
            clients: BTreeMap::new(),
            graphs: BTreeMap::new(),
            submitted: 0,
            next_worker: 0,
            timeout_at: None,
            report: Report::default(),
            scenario,
        };
        for client in 0..sim.scenario.clients as u32 {
            sim.add_client(client);
        }
        for _ in 0..sim.scenario.workers {
            let delay = sim.rng.range(0.0, 0.5);
            sim.schedule(START + delay, Occurrence::Fault(FaultKind::Arrive));
        }
        sim.plan_faults();
        sim
    }

    fn add_client(&mut self, number: u32) {
        let id = ClientId(number);
        let event = Event::AddClient {
            client: id,
            name: format!("Client-{number}").into(),
        };
        self.schedule(START, Occurrence::ToCore(Peer::Client(number), event));
        self.clients.insert(number, SimClient::new(id));
        let scenario = self.scenario.clone();
        let graphs = (0..scenario.graphs).map(|i| {
            let name = format!("c{number}g{i}");
            SimGraph::random(&mut self.rng, &name, scenario.tasks, scenario.failing)
        });
        let graphs: Vec<SimGraph> = graphs.collect();
        self.graphs.insert(number, graphs);
        for i in 0..scenario.graphs {
            let at = START + self.rng.range(0.01, 2.0);
            self.schedule(at, Occurrence::Submit(id, i));
        }
    }

    fn plan_faults(&mut self) {
        for (rate, kind) in self.scenario.faults.rates() {
            let expected = rate * self.scenario.turmoil;
            let mut count = expected.floor() as usize;
            if self.rng.chance(expected.fract()) {
                count += 1;
            }
            for _ in 0..count {
                let at = START + self.rng.range(0.1, 0.1 + self.scenario.turmoil);
                self.schedule(at, Occurrence::Fault(kind));
            }
        }
    }

    fn schedule(&mut self, at: f64, what: Occurrence) {
        self.order += 1;
        let order = self.order;
        self.agenda.push(Scheduled { at, order, what });
    }

    /// Runs to the end. An error says which property was violated, when, and under which seed.
    pub fn run(mut self) -> Result<Report, String> {
        let seed = self.scenario.seed;
        let fail = |now: f64, what: String| format!("seed {seed}, t={:.3}: {what}", now - START);
        for _ in 0..STEPS_MAX {
            let Some(next) = self.agenda.pop() else {
                return Err(fail(self.now, "the cluster fell silent".to_owned()));
            };
            self.now = self.now.max(next.at);
            self.step(next.what).map_err(|e| fail(self.now, e))?;
            if self.is_done() {
                self.report.makespan = self.now - START;
                self.check_end().map_err(|e| fail(self.now, e))?;
                return Ok(self.report);
            }
            if self.now - START > self.scenario.patience {
                let stuck = self.stuck();
                return Err(fail(self.now, stuck));
            }
        }
        let stuck = self.stuck();
        Err(fail(self.now, format!("too many steps: {stuck}")))
    }

    fn is_done(&self) -> bool {
        self.submitted == self.scenario.clients * self.scenario.graphs
            && self.now - START > self.scenario.turmoil
            && self.clients.values().all(|c| c.pending().next().is_none())
    }

    fn step(&mut self, what: Occurrence) -> Result<(), String> {
        match what {
            Occurrence::ToCore(peer, event) => {
                if let Peer::Worker(id) = peer
                    && !self.registered.contains_key(&id)
                {
                    // The session is gone with the connection; nothing of it reaches the core.
                    return Ok(());
                }
                self.core_event(event)
            }
            Occurrence::Spurious(event) => self.core_event(event),
            Occurrence::ToWorker(id, msg) => {
                if let Some(worker) = self.workers.get_mut(&id.0) {
                    let actions = worker.on_message(msg);
                    self.act(id, actions);
                }
                Ok(())
            }
            Occurrence::ToClient(id, msg) => {
                if let Some(client) = self.clients.get_mut(&id.0) {
                    client.on_message(&msg);
                }
                Ok(())
            }
            Occurrence::Done(id, key, token) => {
                let now = self.now;
                if let Some(worker) = self.workers.get_mut(&id.0) {
                    let actions = worker.on_done(&key, token, now);
                    self.act(id, actions);
                }
                Ok(())
            }
            Occurrence::FetchArrives(id, holder, key) => {
                let live = self.workers.values().find(|w| w.address == holder);
                let value = live.and_then(|w| w.value(&key));
                let back = self.now + self.network.transfer(1 << 16);
                self.schedule(back, Occurrence::Fetched(id, holder, key, value));
                Ok(())
            }
            Occurrence::Fetched(id, holder, key, value) => {
                if let Some(worker) = self.workers.get_mut(&id.0) {
                    let actions = worker.on_fetched(&holder, key, value);
                    self.act(id, actions);
                }
                Ok(())
            }
            Occurrence::Refresh(id, key) => {
                if let Some(worker) = self.workers.get_mut(&id.0)
                    && let Some(event) = worker.on_refresh_due(key.clone())
                {
                    self.tell(id, event);
                    self.schedule(self.now + 0.5, Occurrence::Refresh(id, key));
                }
                Ok(())
            }
            Occurrence::Heartbeat(id) => {
                self.heartbeat(id);
                Ok(())
            }
            Occurrence::Submit(client, graph) => {
                self.submit(client, graph);
                Ok(())
            }
            Occurrence::Fault(kind) => self.fault(kind),
            Occurrence::Unpause(id) => {
                if let Some(worker) = self.workers.get_mut(&id.0)
                    && worker.status == WorkerStatus::Paused
                {
                    let actions = worker.resume();
                    self.tell_status(id, WorkerStatus::Running);
                    self.act(id, actions);
                }
                Ok(())
            }
            Occurrence::CoreTimeout => {
                self.timeout_at = None;
                let mut effects = Effects::new();
                self.core.handle_timeout(Timestamp(self.now), &mut effects);
                self.after_core(effects)
            }
            Occurrence::ConnectionLost(id) => self.core_event(Event::RemoveWorker {
                worker: id,
                expected: false,
                close: false,
                stimulus_id: "connection-lost".into(),
            }),
        }
    }

    fn core_event(&mut self, event: Event) -> Result<(), String> {
        self.report.events += 1;
        let mut effects = Effects::new();
        self.core.handle(Timestamp(self.now), event, &mut effects);
        self.after_core(effects)
    }

    fn after_core(&mut self, effects: Effects) -> Result<(), String> {
        self.check_core()?;
        for effect in effects {
            self.check_effect(&effect)?;
            match effect {
                Effect::ToWorker(id, msg) => {
                    self.report.worker_messages += 1;
                    let at = self
                        .network
                        .delivery(Link::Down(Peer::Worker(id.0)), self.now);
                    self.schedule(at, Occurrence::ToWorker(id, msg));
                }
                Effect::ToClient(id, msg) => {
                    let at = self
                        .network
                        .delivery(Link::Down(Peer::Client(id.0)), self.now);
                    self.schedule(at, Occurrence::ToClient(id, msg));
                }
                Effect::WorkerRemoved { worker, .. } => {
                    self.registered.remove(&worker.0);
                    self.workers.remove(&worker.0);
                }
                _ => {}
            }
        }
        if let Some(Timestamp(due)) = self.core.poll_timeout() {
            let due = due.max(self.now);
            if self.timeout_at.is_none_or(|at| due < at) {
                self.timeout_at = Some(due);
                self.schedule(due, Occurrence::CoreTimeout);
            }
        }
        Ok(())
    }

    fn tell(&mut self, id: WorkerId, event: Event) {
        let link = Link::Up(Peer::Worker(id.0));
        let at = self.network.delivery(link, self.now);
        // A late claim to hold data is a lie that only asking the worker could disprove; streams
        // cannot repeat themselves, so such claims are not repeated here either.
        let claims_data = matches!(event, Event::AddKeys { .. } | Event::TaskFinished(_));
        if !claims_data && self.rng.chance(self.scenario.faults.duplicates) && self.in_turmoil() {
            let later = at + self.rng.range(0.0, 1.0);
            self.schedule(later, Occurrence::Spurious(event.clone()));
        }
        self.schedule(at, Occurrence::ToCore(Peer::Worker(id.0), event));
    }

    fn tell_status(&mut self, id: WorkerId, status: WorkerStatus) {
        let event = Event::WorkerStatusChanged {
            worker: id,
            status,
            stimulus_id: "worker-status".into(),
        };
        self.tell(id, event);
    }

    fn in_turmoil(&self) -> bool {
        self.now - START < self.scenario.turmoil
    }

    fn act(&mut self, id: WorkerId, actions: Vec<Action>) {
        if let Some(worker) = self.workers.get(&id.0) {
            self.report.backlog_max = self.report.backlog_max.max(worker.backlog());
        }
        for action in actions {
            match action {
                Action::Tell(event) => self.tell(id, event),
                Action::Fetch { holder, key } => {
                    let at = self.now + self.network.transfer(0);
                    self.schedule(at, Occurrence::FetchArrives(id, holder, key));
                }
                Action::Run {
                    key,
                    token,
                    duration,
                } => self.schedule(self.now + duration, Occurrence::Done(id, key, token)),
                Action::RefreshLater { key } => {
                    self.schedule(self.now + 0.1, Occurrence::Refresh(id, key));
                }
                Action::Leave => {
                    self.workers.remove(&id.0);
                    self.schedule(self.now + DETECTION, Occurrence::ConnectionLost(id));
                }
            }
        }
    }

    fn heartbeat(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id.0) else {
            return;
        };
        let event = Event::Heartbeat {
            worker: id,
            metrics: WorkerMetrics {
                memory: 100 << 20,
                time: self.now,
                ..WorkerMetrics::default()
            },
            executing: worker.executing().into_iter().map(|k| (k, 0.1)).collect(),
        };
        self.tell(id, event);
        self.schedule(self.now + 0.5, Occurrence::Heartbeat(id));
    }

    fn submit(&mut self, client: ClientId, index: usize) {
        let Some(graph) = self.graphs.get(&client.0).and_then(|g| g.get(index)) else {
            return;
        };
        let mut tasks: Vec<NewTask> = Vec::new();
        for (order, task) in graph.tasks.iter().enumerate() {
            tasks.push(NewTask {
                key: task.key.clone(),
                run_spec: Some(Opaque::from_arc(Arc::new(task.clone()))),
                dependencies: task.dependencies.clone(),
                order: order as i64,
                options: None,
            });
        }
        let update = GraphUpdate {
            client,
            tasks,
            keys: graph.wanted.clone(),
            submitting_task: None,
            fifo_timeout: 0.06,
            user_priority: 0.0,
            lost_dependencies: LostDependencies::RefuseGraph,
            received: Timestamp(self.now),
            release: "".into(),
            stimulus_id: format!("update-graph-{}-{index}", client.0).into(),
        };
        let wanted = graph.wanted.clone();
        if let Some(c) = self.clients.get_mut(&client.0) {
            c.expect(&wanted);
        }
        self.submitted += 1;
        self.send_as_client(client, Event::UpdateGraph(Box::new(update)));
    }

    fn send_as_client(&mut self, client: ClientId, event: Event) {
        let peer = Peer::Client(client.0);
        let at = self.network.delivery(Link::Up(peer), self.now);
        self.schedule(at, Occurrence::ToCore(peer, event));
    }

    fn fault(&mut self, kind: FaultKind) -> Result<(), String> {
        let ids: Vec<u32> = self.workers.keys().copied().collect();
        let chosen = self.rng.pick(&ids).copied();
        match (kind, chosen) {
            (FaultKind::Arrive, _) => return self.arrive(),
            (FaultKind::Cancel, _) => self.cancel(),
            (FaultKind::Kill, Some(id)) => {
                self.report.kills += 1;
                self.workers.remove(&id);
                self.schedule(
                    self.now + DETECTION,
                    Occurrence::ConnectionLost(WorkerId(id)),
                );
                // The cluster must be able to finish: somebody starts a new one.
                let delay = self.rng.range(0.1, 3.0);
                self.schedule(self.now + delay, Occurrence::Fault(FaultKind::Arrive));
            }
            (FaultKind::Partition, Some(id)) => {
                let until = self.now + self.rng.range(0.1, 2.0);
                self.network.partition(Peer::Worker(id), until);
            }
            (FaultKind::SlowLink, Some(id)) => self.network.slow_down(Peer::Worker(id), 10.0),
            (FaultKind::Pause, Some(id)) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.status = WorkerStatus::Paused;
                }
                self.tell_status(WorkerId(id), WorkerStatus::Paused);
                let until = self.now + self.rng.range(0.1, 1.0);
                self.schedule(until, Occurrence::Unpause(WorkerId(id)));
            }
            (FaultKind::Retire, Some(id)) => {
                let delay = self.rng.range(0.1, 3.0);
                self.schedule(self.now + delay, Occurrence::Fault(FaultKind::Arrive));
                return self.core_event(Event::RetireWorker {
                    worker: WorkerId(id),
                    stimulus_id: "retire".into(),
                });
            }
            (FaultKind::Lie, Some(id)) => self.lie(WorkerId(id)),
            (_, None) => {}
        }
        Ok(())
    }

    fn arrive(&mut self) -> Result<(), String> {
        self.next_worker += 1;
        let number = self.next_worker;
        let id = WorkerId(number);
        let address: Arc<str> = format!("tcp://10.0.0.1:{}", 10_000 + number).into();
        let nthreads = self.scenario.nthreads;
        let info = WorkerInfo {
            address: address.clone(),
            host: "10.0.0.1".into(),
            name: format!("worker-{number}").into(),
            nthreads: nthreads as u32,
            memory_limit: 4 << 30,
            status: WorkerStatus::Running,
            ..WorkerInfo::default()
        };
        self.workers
            .insert(number, SimWorker::new(id, address.clone(), nthreads));
        self.registered.insert(number, address);
        self.schedule(self.now + 0.5, Occurrence::Heartbeat(id));
        self.core_event(Event::AddWorker {
            worker: id,
            info: Box::new(info),
            stimulus_id: "add-worker".into(),
        })
    }

    fn lie(&mut self, worker: WorkerId) {
        let known = self.workers.get(&worker.0).and_then(SimWorker::some_key);
        let (key, run_id) = match known {
            Some((key, RunId(run))) if self.rng.chance(0.5) => (key, RunId(run - 1)),
            _ => (Key::from("never-heard-of"), RunId(-5)),
        };
        let stimulus_id: Arc<str> = "lie".into();
        let unknown = Key::from("never-heard-of");
        let event = match self.rng.below(5) {
            0 => Event::AddKeys {
                worker,
                keys: vec![unknown],
                stimulus_id,
            },
            1 => Event::ReleaseWorkerData {
                worker,
                key: unknown,
                stimulus_id,
            },
            2 => Event::StealResponse {
                worker,
                key,
                state: Some("ready".into()),
                stimulus_id,
            },
            3 => Event::LongRunning {
                worker,
                key: unknown,
                compute_duration: Some(-1.0),
                run_id: Some(run_id),
                stimulus_id,
            },
            _ => Event::TaskFinished(Box::new(TaskFinished {
                worker,
                key,
                run_id: Some(run_id),
                nbytes: Some(u64::MAX),
                type_: None,
                typename: "lie".into(),
                startstops: Vec::new(),
                metadata: None,
                raw: None,
                stimulus_id,
            })),
        };
        self.tell(worker, event);
    }

    fn cancel(&mut self) {
        let ids: Vec<u32> = self.clients.keys().copied().collect();
        let Some(id) = self.rng.pick(&ids).copied() else {
            return;
        };
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let held: Vec<Key> = client.futures.values().map(|(k, _)| k.clone()).collect();
        let Some(key) = self.rng.pick(&held).cloned() else {
            return;
        };
        let client_id = client.id;
        let stimulus_id: Arc<str> = "client".into();
        let event = if self.rng.chance(0.5) {
            client.forget(&key);
            Event::ClientReleasesKeys {
                client: client_id,
                keys: vec![key],
                stimulus_id,
            }
        } else {
            Event::CancelKeys {
                client: client_id,
                keys: vec![key],
                force: self.rng.chance(0.3),
                reason: None,
                msg: None,
                stimulus_id,
            }
        };
        self.send_as_client(client_id, event);
    }
}
