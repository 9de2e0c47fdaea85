//! A whole cluster in one thread on a virtual clock: the real scheduler core, simulated workers and
//! clients, a network with delays, and faults. A failure is reproduced by its seed alone.
//!
//! Reading order: [`Scenario`] (what to run), [`Sim::run`] (how), `shell.rs` (what the scheduler's
//! process does around its core), `injection.rs` (what goes wrong), `oracle.rs` (what must hold),
//! then the peers. The core's own `validate` runs after every event.

pub mod client;
pub mod core_worker;
pub mod faults;
pub mod graphs;
mod injection;
pub mod network;
mod oracle;
pub mod process;
mod scenario;
mod shell;
mod submission;
pub mod worker;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::effect::{ClientMsg, WorkerMsg};
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::graph::{GraphUpdate, LostDependencies, NewTask, TaskOptions};
use oxidask_scheduler_core::ids::{ClientId, Timestamp, WorkerId};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_scheduler_core::recording::{Encoder, Entry};
use oxidask_scheduler_core::worker::WorkerStatus;
use oxidask_scheduler_core::{Effects, Scheduler};

use crate::rng::Rng;
use client::SimClient;
use faults::FaultKind;
use graphs::SimGraph;
use network::{Link, Network, Peer};
use process::{Gathered, WorkerProcess};
pub use scenario::{Scenario, WorkerKind};
use submission::Submissions;

/// Virtual time at which a simulation begins; some moment in the past, so that mix-ups with
/// durations show.
const START: f64 = 1_600_000_000.0;
/// More steps than any scenario here needs; a run that takes more does not terminate.
const STEPS_MAX: u64 = 1_000_000;
/// Virtual seconds that everything takes to come to rest when all clients have left.
const AFTERMATH: f64 = 30.0;

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
    /// Workers retired with their data moved first.
    pub retired: u64,
    /// Tasks and copies that the watchdog set right.
    pub repaired: u64,
    /// Requests for data between workers with the real core, and how many of these were refused, or
    /// found nobody.
    pub requests: u64,
    /// See [`Self::requests`].
    pub refused: u64,
    /// See [`Self::requests`].
    pub unreachable: u64,
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
    GatherArrives(WorkerId, u64, Arc<str>, Vec<Key>),
    Gathered(WorkerId, u64, Gathered),
    /// The holder is done with a request for its data.
    Sent(u32, u64),
    Secede(WorkerId, u64),
    Time(WorkerId),
    Heartbeat(WorkerId),
    Submit(ClientId, usize),
    /// The next portion of the graph that a client submits.
    Portion(u32),
    Fault(FaultKind),
    /// Somebody starts a worker in the place of one that is gone.
    Replace,
    Unpause(WorkerId),
    /// The shell looks how far a retirement is.
    Retirement(WorkerId),
    /// The shell's answer to a question of the watchdog arrives at the core.
    Examined(Event),
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
    workers: BTreeMap<u32, Box<dyn WorkerProcess>>,
    /// Registered at the scheduler, whether or not the process still lives.
    registered: BTreeMap<u32, Arc<str>>,
    by_address: BTreeMap<Arc<str>, u32>,
    clients: BTreeMap<u32, SimClient>,
    /// Clients the core knows of.
    connected: BTreeSet<u32>,
    graphs: BTreeMap<u32, Vec<SimGraph>>,
    submitted: usize,
    submissions: Submissions,
    next_worker: u32,
    /// Workers that are being started.
    arriving: usize,
    timeout_at: Option<f64>,
    /// Mistakes that workers found of their own.
    broken: Vec<String>,
    /// A recording of everything the core was told.
    recording: Option<Encoder>,
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
            by_address: BTreeMap::new(),
            clients: BTreeMap::new(),
            connected: BTreeSet::new(),
            graphs: BTreeMap::new(),
            submitted: 0,
            submissions: Submissions::new(scenario.seed),
            next_worker: 0,
            arriving: 0,
            timeout_at: None,
            broken: Vec::new(),
            recording: None,
            report: Report::default(),
            scenario,
        };
        for client in 0..sim.scenario.clients as u32 {
            sim.add_client(client);
        }
        for _ in 0..sim.scenario.workers {
            let delay = sim.rng.range(0.0, 0.5);
            sim.arriving += 1;
            sim.schedule(START + delay, Occurrence::Replace);
        }
        sim.plan_faults();
        sim.plan_peace();
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

    fn schedule(&mut self, at: f64, what: Occurrence) {
        self.order += 1;
        let order = self.order;
        self.agenda.push(Scheduled { at, order, what });
    }

    /// Runs to the end and keeps a recording.
    ///
    /// # Errors
    /// What was violated.
    pub fn run_recorded(mut self) -> Result<(Report, Vec<u8>), String> {
        self.recording = Some(Encoder::new(&self.scenario.config));
        let report = self.run_all()?;
        let recording = self.recording.map(|mut encoder| encoder.take());
        Ok((report, recording.unwrap_or_default()))
    }

    fn record(&mut self, entry: impl FnOnce() -> Entry) {
        if let Some(encoder) = &mut self.recording {
            encoder.push(&entry());
        }
    }

    /// Runs to the end. An error says which property was violated, when, and under which seed.
    ///
    /// # Errors
    /// What was violated.
    pub fn run(mut self) -> Result<Report, String> {
        self.run_all()
    }

    fn run_all(&mut self) -> Result<Report, String> {
        let done = self.run_until(|sim| sim.is_done(), self.scenario.patience);
        done.and_then(|()| {
            self.report.makespan = self.now - START;
            self.check_end()?;
            self.send_clients_away();
            let rest = self.now + AFTERMATH;
            self.run_until(|sim| sim.now >= rest, f64::INFINITY)?;
            self.check_aftermath()
        })
        .map_err(|what| {
            let (seed, now) = (self.scenario.seed, self.now - START);
            format!("seed {seed}, t={now:.3}: {what}")
        })?;
        let figures = self.core.watchdog_figures();
        self.report.repaired = figures.rescheduled + figures.replicas_corrected;
        Ok(self.report.clone())
    }

    fn run_until(&mut self, done: impl Fn(&Self) -> bool, patience: f64) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            let Some(next) = self.agenda.pop() else {
                return Err("the cluster fell silent".to_owned());
            };
            self.now = self.now.max(next.at);
            self.step(next.what)?;
            if done(self) {
                return Ok(());
            }
            if self.now - START > patience {
                return Err(self.stuck());
            }
        }
        Err(format!("too many steps: {}", self.stuck()))
    }

    fn is_done(&self) -> bool {
        self.submitted == self.scenario.clients * self.scenario.graphs
            && self.now - START > self.scenario.turmoil
            && self.clients.values().all(|c| !c.is_waiting())
    }

    fn send_clients_away(&mut self) {
        for number in self.clients.keys().copied().collect::<Vec<_>>() {
            self.depart(number);
        }
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
                match peer {
                    Peer::Client(number) => self.client_event(number, event),
                    _ => self.core_event(event),
                }
            }
            Occurrence::Portion(client) => self.portion(client),
            Occurrence::Spurious(event) | Occurrence::Examined(event) => self.core_event(event),
            Occurrence::Submit(client, graph) => {
                self.submit(client, graph);
                Ok(())
            }
            Occurrence::Fault(kind) => self.fault(kind),
            Occurrence::Replace => {
                self.arriving -= 1;
                self.arrive()
            }
            Occurrence::Retirement(id) => self.look_at_retirement(id),
            Occurrence::CoreTimeout => {
                self.timeout_at = None;
                let now = Timestamp(self.now);
                let mut effects = Effects::new();
                self.record(|| Entry::Timeout(now));
                self.core.handle_timeout(now, &mut effects);
                self.after_core(effects)
            }
            Occurrence::ConnectionLost(id) => self.core_event(Event::RemoveWorker {
                worker: id,
                expected: false,
                close: false,
                stimulus_id: "connection-lost".into(),
            }),
            Occurrence::ToClient(id, msg) => {
                if let Some(client) = self.clients.get_mut(&id.0) {
                    client.on_message(&msg);
                }
                Ok(())
            }
            what => {
                self.worker_step(what);
                match self.broken.pop() {
                    Some(what) => Err(format!("a worker: {what}")),
                    None => Ok(()),
                }
            }
        }
    }

    /// What happens at workers.
    fn worker_step(&mut self, what: Occurrence) {
        let now = self.now;
        match what {
            Occurrence::ToWorker(id, msg) => {
                let paused = matches!(
                    msg,
                    WorkerMsg::StatusChange {
                        status: WorkerStatus::Paused,
                        ..
                    }
                );
                if let Some(worker) = self.workers.get_mut(&id.0) {
                    let actions = worker.on_message(now, msg);
                    self.act(id, actions);
                }
                if paused {
                    // A retirement was given up. Workers go by their memory, which they look at all the time.
                    self.schedule(now + 0.2, Occurrence::Unpause(id));
                }
            }
            Occurrence::Done(id, key, token) => {
                if let Some(worker) = self.workers.get_mut(&id.0) {
                    let actions = worker.on_done(now, &key, token);
                    self.act(id, actions);
                }
            }
            Occurrence::FetchArrives(id, holder, key) => {
                let number = self.by_address.get(&holder).copied();
                let reachable = number.filter(|&n| !self.network.is_cut_off(Peer::Worker(n), now));
                let live = reachable.and_then(|n| self.workers.get(&n));
                let value = live.and_then(|w| w.value(&key));
                let back = now + self.network.transfer(1 << 16);
                self.schedule(back, Occurrence::Fetched(id, holder, key, value));
            }
            Occurrence::Fetched(id, holder, key, value) => {
                if let Some(worker) = self.workers.get_mut(&id.0) {
                    let actions = worker.on_fetched(&holder, key, value);
                    self.act(id, actions);
                }
            }
            Occurrence::Refresh(id, key) => {
                if let Some(worker) = self.workers.get_mut(&id.0)
                    && let Some(event) = worker.on_refresh_due(key.clone())
                {
                    self.tell(id, event);
                    self.schedule(now + 0.5, Occurrence::Refresh(id, key));
                }
            }
            Occurrence::Heartbeat(id) => self.heartbeat(id),
            Occurrence::Unpause(id) => {
                if let Some(worker) = self.workers.get_mut(&id.0)
                    && worker.status() == WorkerStatus::Paused
                {
                    let actions = worker.set_status(now, WorkerStatus::Running);
                    self.act(id, actions);
                }
            }
            what => self.core_worker_step(what),
        }
    }

    /// What happens at workers with the real core only.
    fn core_worker_step(&mut self, what: Occurrence) {
        let now = self.now;
        match what {
            Occurrence::GatherArrives(id, transfer, holder, keys) => {
                self.gather_arrives(id, transfer, &holder, &keys);
            }
            Occurrence::Gathered(id, transfer, outcome) => {
                if let Some(worker) = self.workers.get_mut(&id.0) {
                    let actions = worker.on_gathered(now, transfer, outcome);
                    self.act(id, actions);
                }
            }
            Occurrence::Sent(holder, request) => {
                if let Some(worker) = self.workers.get_mut(&holder) {
                    worker.on_sent(now, request);
                }
            }
            Occurrence::Secede(id, token) => {
                if let Some(worker) = self.workers.get_mut(&id.0) {
                    let actions = worker.on_secede(now, token);
                    self.act(id, actions);
                }
            }
            Occurrence::Time(id) => {
                if let Some(worker) = self.workers.get_mut(&id.0) {
                    let actions = worker.on_time(now);
                    self.act(id, actions);
                }
            }
            _ => {}
        }
    }

    fn submit(&mut self, client: ClientId, index: usize) {
        self.submitted += 1;
        let graph = self.graphs.get(&client.0).and_then(|g| g.get(index));
        let (Some(graph), Some(c)) = (graph, self.clients.get_mut(&client.0)) else {
            // It has left.
            return;
        };
        let mut tasks: Vec<NewTask> = Vec::new();
        for (order, task) in graph.tasks.iter().enumerate() {
            tasks.push(NewTask {
                key: task.key.clone(),
                run_spec: Some(Opaque::from_arc(Arc::new(task.clone()))),
                dependencies: task.dependencies.clone(),
                order: order as i64,
                options: task.needs_gpu.then(|| {
                    Arc::new(TaskOptions {
                        resources: vec![("GPU".into(), 1.0)],
                        ..TaskOptions::default()
                    })
                }),
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
            span_notes: Default::default(),
            stimulus_id: format!("update-graph-{}-{index}", client.0).into(),
        };
        c.expect(&graph.wanted);
        self.send_as_client(client, Event::UpdateGraph(Box::new(update)));
    }

    fn send_as_client(&mut self, client: ClientId, event: Event) {
        let peer = Peer::Client(client.0);
        let at = self.network.delivery(Link::Up(peer), self.now);
        self.schedule(at, Occurrence::ToCore(peer, event));
    }
}
