//! Random clusters: whatever happens in whatever order, the invariants hold after each event, nobody
//! who is gone gets a message, and once all workers behave every wanted result is there or failed.
#![allow(missing_docs)]

mod env;
mod ops;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use env::{ALICE, TestEnv, address, key, task, with, worker_info};
use ops::{Op, Pick, op};
use oxidask_key::Key;
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::effect::{ClientMsg, Effect, WorkerMsg};
use oxidask_scheduler_core::event::{DataPlacement, Event, TaskErred};
use oxidask_scheduler_core::graph::portions::{GraphId, Portions, Rest};
use oxidask_scheduler_core::graph::{LostDependencies, TaskOptions, numbering};
use oxidask_scheduler_core::ids::{ClientId, RunId, WorkerId};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_scheduler_core::task::TaskState;
use oxidask_scheduler_core::worker::{WorkerMetrics, WorkerStatus};
use proptest::prelude::*;

/// What a worker knows.
#[derive(Default)]
struct SimWorker {
    tasks: Vec<(String, RunId)>,
    data: BTreeSet<String>,
    steal_requests: Vec<(String, Arc<str>)>,
    status: WorkerStatus,
}

struct Sim {
    env: TestEnv,
    workers: BTreeMap<u32, SimWorker>,
    clients: BTreeSet<u32>,
    next_worker: u32,
    next_client: u32,
    next_task: u32,
    /// Graphs that clients have not finished to submit.
    open: Vec<(ClientId, Rest)>,
    graphs: u64,
    names: Vec<String>,
    past: Vec<Event>,
    trace: Vec<String>,
}

fn pick<T: Clone>(from: &[T], pick: Pick) -> Option<T> {
    from.get(usize::from(pick) % from.len().max(1)).cloned()
}

impl Sim {
    fn new(config: CoreConfig) -> Self {
        Self {
            env: TestEnv::with_config(config),
            workers: BTreeMap::new(),
            clients: [ALICE.0].into(),
            next_worker: 0,
            next_client: 1,
            next_task: 0,
            open: Vec::new(),
            graphs: 0,
            names: Vec::new(),
            past: Vec::new(),
            trace: Vec::new(),
        }
    }

    fn event(&mut self, event: Event) {
        self.trace.push(format!("{event:?}"));
        self.env.event(event);
        self.deliver();
    }

    /// Brings the messages to the workers; a message to somebody who is gone is a bug.
    fn deliver(&mut self) {
        for effect in self.env.effects() {
            match effect {
                Effect::ToWorker(WorkerId(w), message) => {
                    let Some(worker) = self.workers.get_mut(&w) else {
                        panic!("message to departed worker {w}: {message:?}");
                    };
                    match message {
                        WorkerMsg::ComputeTask(c) => {
                            for (k, holders) in &c.who_has {
                                assert!(!holders.is_empty(), "{} has no {k}", c.key);
                            }
                            let name = c.key.to_text();
                            worker.tasks.retain(|(n, _)| *n != name);
                            worker.tasks.push((name, c.run_id));
                        }
                        WorkerMsg::FreeKeys { keys, .. } => {
                            for k in keys {
                                let name = k.to_text();
                                worker.tasks.retain(|(n, _)| *n != name);
                                worker.data.remove(&name);
                            }
                        }
                        WorkerMsg::RemoveReplicas { keys, .. } => {
                            for k in keys {
                                worker.data.remove(&k.to_text());
                            }
                        }
                        WorkerMsg::AcquireReplicas { who_has, .. } => {
                            for (k, _) in who_has {
                                worker.data.insert(k.to_text());
                            }
                        }
                        WorkerMsg::StealRequest { key, stimulus_id } => {
                            worker.steal_requests.push((key.to_text(), stimulus_id));
                        }
                        WorkerMsg::StatusChange { status, .. } => worker.status = status,
                        WorkerMsg::RefreshWhoHas { .. }
                        | WorkerMsg::RemoveWorker { .. }
                        | WorkerMsg::Close { .. } => {}
                    }
                }
                Effect::ToClient(ClientId(c), message) => {
                    assert!(
                        self.clients.contains(&c) || matches!(message, ClientMsg::Restart),
                        "message to departed client {c}: {message:?}"
                    );
                }
                Effect::WorkerRemoved { worker, .. } => {
                    self.workers.remove(&worker.0);
                }
                _ => {}
            }
        }
    }

    fn worker(&self, p: Pick) -> Option<u32> {
        pick(&self.workers.keys().copied().collect::<Vec<_>>(), p)
    }

    fn client(&self, p: Pick) -> ClientId {
        ClientId(pick(&self.clients.iter().copied().collect::<Vec<_>>(), p).unwrap_or(0))
    }

    fn keys(&self, picks: &[Pick]) -> Vec<Key> {
        let recent = &self.names[self.names.len().saturating_sub(40)..];
        picks
            .iter()
            .filter_map(|&p| pick(recent, p))
            .map(|n| key(&n))
            .collect()
    }

    fn task_on(&self, worker: Pick, p: Pick) -> Option<(u32, String, RunId)> {
        let busy: Vec<u32> = self
            .workers
            .iter()
            .filter(|(_, w)| !w.tasks.is_empty())
            .map(|(&id, _)| id)
            .collect();
        let w = pick(&busy, worker)?;
        let (name, run_id) = pick(&self.workers[&w].tasks, p)?;
        Some((w, name, run_id))
    }

    fn finish(&mut self, w: u32, name: &str, run_id: RunId) {
        let worker = self.workers.get_mut(&w).expect("chosen from the map");
        worker.tasks.retain(|(n, _)| n != name);
        worker.data.insert(name.to_owned());
        let message = self.env.finished(w, name, Some(run_id));
        let event = Event::TaskFinished(Box::new(message));
        self.past.push(event.clone());
        self.event(event);
    }

    fn fail(&mut self, w: u32, name: &str, run_id: RunId) {
        if let Some(worker) = self.workers.get_mut(&w) {
            worker.tasks.retain(|(n, _)| n != name);
        }
        let event = Event::TaskErred(Box::new(TaskErred {
            worker: WorkerId(w),
            key: key(name),
            run_id: Some(run_id),
            exception: Opaque::new("boom"),
            traceback: None,
            exception_text: "boom".into(),
            traceback_text: "".into(),
            raw: None,
            stimulus_id: "erred".into(),
        }));
        self.past.push(event.clone());
        self.event(event);
    }

    fn answer_steal(&mut self, w: u32, given: Option<bool>) {
        let requests = match self.workers.get_mut(&w) {
            Some(worker) => std::mem::take(&mut worker.steal_requests),
            None => return,
        };
        for (name, stimulus_id) in requests {
            let Some(worker) = self.workers.get_mut(&w) else {
                return;
            };
            let has = worker.tasks.iter().any(|(n, _)| *n == name);
            let state: Option<Arc<str>> = match (has, given) {
                (false, _) => None,
                (true, Some(true)) => {
                    worker.tasks.retain(|(n, _)| *n != name);
                    Some("ready".into())
                }
                (true, Some(false)) => Some("executing".into()),
                (true, None) => {
                    worker.tasks.retain(|(n, _)| *n != name);
                    None
                }
            };
            let event = Event::StealResponse {
                worker: WorkerId(w),
                key: key(&name),
                state,
                stimulus_id,
            };
            self.past.push(event.clone());
            self.event(event);
        }
    }

    fn add_worker(&mut self, kind: u8) {
        let id = self.next_worker;
        self.next_worker += 1;
        let mut info = worker_info(id % 7, u32::from(kind % 3) + 1);
        if self.workers.len() > 8 || self.env.s.worker_by_address(&info.address).is_some() {
            return;
        }
        info.name = format!("name-{}", id % 7).into();
        if kind.is_multiple_of(5) {
            info.resources = vec![("GPU".into(), 1.0)];
        }
        if kind.is_multiple_of(11) {
            info.release = "2.30.1".into();
        }
        info.memory_limit = u64::from(kind % 2) * 1_000_000;
        self.workers.insert(
            id,
            SimWorker {
                status: WorkerStatus::Running,
                ..SimWorker::default()
            },
        );
        self.event(Event::AddWorker {
            worker: WorkerId(id),
            info: Box::new(info),
            stimulus_id: "add".into(),
        });
    }

    fn submit(
        &mut self,
        client: Pick,
        tasks: &[(Vec<Pick>, Pick)],
        wanted: &[Pick],
        group: u8,
        drop_lost: bool,
    ) {
        let mut new = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let old: Vec<String> = self.names.iter().rev().take(12).cloned().collect();
        for (dependencies, kind) in tasks {
            let name = if kind % 17 == 0 && !self.names.is_empty() {
                pick(&self.names, kind / 17).expect("not empty")
            } else {
                self.next_task += 1;
                format!(
                    "{}-{}",
                    ["inc", "add", "load"][usize::from(group % 3)],
                    self.next_task
                )
            };
            if names.contains(&name) {
                continue;
            }
            let pool: Vec<String> = names.iter().chain(&old).cloned().collect();
            // A task may not depend on itself by a detour through an earlier graph of that name.
            let dependencies: Vec<String> = dependencies
                .iter()
                .filter_map(|&d| pick(&pool, d))
                .filter(|d| *d != name && serial(d) < serial(&name))
                .collect();
            let dependencies: Vec<&str> = dependencies.iter().map(String::as_str).collect();
            let plain = task(&name, &dependencies);
            new.push(match kind % 13 {
                0 => with(
                    plain,
                    TaskOptions {
                        retries: 1,
                        ..TaskOptions::default()
                    },
                ),
                1 => with(
                    plain,
                    TaskOptions {
                        workers: Some(vec![address(u32::from(kind % 7))]),
                        allow_other_workers: kind % 2 == 0,
                        ..TaskOptions::default()
                    },
                ),
                2 => with(
                    plain,
                    TaskOptions {
                        resources: vec![("GPU".into(), 1.0)],
                        ..TaskOptions::default()
                    },
                ),
                3 => with(
                    plain,
                    TaskOptions {
                        actor: true,
                        ..TaskOptions::default()
                    },
                ),
                4 => with(
                    plain,
                    TaskOptions {
                        priority: Some(f64::from(kind % 3)),
                        ..TaskOptions::default()
                    },
                ),
                5 => with(
                    plain,
                    TaskOptions {
                        workers: Some(vec!["name-1".into(), "10.0.0.2".into()]),
                        ..TaskOptions::default()
                    },
                ),
                _ => plain,
            });
            names.push(name);
        }
        let mut keys: Vec<String> = wanted.iter().filter_map(|&p| pick(&names, p)).collect();
        keys.extend(names.last().cloned());
        keys.sort();
        keys.dedup();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut update = self.env.graph(new, &keys);
        update.client = self.client(client);
        if drop_lost {
            update.lost_dependencies = LostDependencies::DropTasks;
        }
        if group.is_multiple_of(16) {
            update.release = "2.30.1".into();
        }
        self.names.extend(names);
        self.finish_submission(update.client);
        self.graphs += 1;
        let limit = match group % 4 {
            0 => usize::MAX / 2,
            n => usize::from(n),
        };
        let numbering = numbering(&update.tasks, &update.keys).expect("few tasks");
        match Portions::of(update, numbering, GraphId(self.graphs), limit) {
            Err(update) => self.event(Event::UpdateGraph(update)),
            Ok(portions) => self.begin(portions),
        }
    }

    fn begin(&mut self, mut portions: Portions) {
        let known: Vec<_> = self
            .env
            .s
            .tasks()
            .map(|t| (t.key().clone(), t.state()))
            .collect();
        portions.found(&known);
        let (outline, rest) = portions.begin();
        self.open.push((outline.update.client, rest));
        self.event(Event::BeginGraph(Box::new(outline)));
    }

    fn continue_graph(&mut self, at: usize) {
        match self.open[at].1.next() {
            Some(portion) => self.event(Event::ContinueGraph(Box::new(portion))),
            None => drop(self.open.remove(at)),
        }
    }

    /// What a client says later comes after its graph.
    fn finish_submission(&mut self, client: ClientId) {
        while let Some(at) = self.open.iter().position(|(c, _)| *c == client) {
            self.continue_graph(at);
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Submit {
                client,
                tasks,
                wanted,
                group,
                drop_lost,
            } => {
                self.submit(client, &tasks, &wanted, group, drop_lost);
            }
            Op::Finish(w, t) => {
                if let Some((w, name, run_id)) = self.task_on(w, t) {
                    self.finish(w, &name, run_id);
                }
            }
            Op::Err(w, t) => {
                if let Some((w, name, run_id)) = self.task_on(w, t) {
                    self.fail(w, &name, run_id);
                }
            }
            Op::Secede(w, t) => {
                if let Some((w, name, run_id)) = self.task_on(w, t) {
                    self.event(Event::LongRunning {
                        worker: WorkerId(w),
                        key: key(&name),
                        compute_duration: Some(0.5),
                        run_id: Some(run_id),
                        stimulus_id: "secede".into(),
                    });
                }
            }
            Op::Reschedule(w, t) => {
                if let Some((w, name, _)) = self.task_on(w, t) {
                    let worker = self.workers.get_mut(&w).expect("chosen from the map");
                    worker.tasks.retain(|(n, _)| *n != name);
                    self.event(Event::Reschedule {
                        worker: Some(WorkerId(w)),
                        key: key(&name),
                        stimulus_id: "reschedule".into(),
                    });
                }
            }
            Op::Repeat(p) => {
                if let Some(event) = pick(&self.past, p) {
                    // A worker tells the truth about what it holds now.
                    if let Event::TaskFinished(m) = &event
                        && let Some(w) = self.workers.get_mut(&m.worker.0)
                    {
                        w.data.insert(m.key.to_text());
                    }
                    self.event(event);
                }
            }
            Op::AddWorker(kind) => self.add_worker(kind),
            Op::LoseWorker(w, expected) => {
                if let Some(w) = self.worker(w) {
                    self.event(Event::RemoveWorker {
                        worker: WorkerId(w),
                        expected,
                        close: expected,
                        stimulus_id: "lose".into(),
                    });
                }
            }
            Op::Status(w, s) => {
                if let Some(w) = self.worker(w) {
                    let status = [
                        WorkerStatus::Running,
                        WorkerStatus::Paused,
                        WorkerStatus::ClosingGracefully,
                    ][usize::from(s % 3)];
                    self.workers
                        .get_mut(&w)
                        .expect("chosen from the map")
                        .status = status;
                    self.event(Event::WorkerStatusChanged {
                        worker: WorkerId(w),
                        status,
                        stimulus_id: "status".into(),
                    });
                }
            }
            Op::Release(c, keys) => {
                let (client, keys) = (self.client(c), self.keys(&keys));
                self.finish_submission(client);
                self.event(Event::ClientReleasesKeys {
                    client,
                    keys,
                    stimulus_id: "release".into(),
                });
            }
            Op::Desire(c, keys) => {
                let (client, keys) = (self.client(c), self.keys(&keys));
                self.finish_submission(client);
                self.event(Event::ClientDesiresKeys { client, keys });
            }
            Op::Cancel(c, keys, force) => {
                let (client, keys) = (self.client(c), self.keys(&keys));
                self.finish_submission(client);
                self.event(Event::CancelKeys {
                    client,
                    keys,
                    force,
                    reason: None,
                    msg: None,
                    stimulus_id: "cancel".into(),
                });
            }
            Op::Retry(keys) => {
                let keys = self.keys(&keys);
                self.event(Event::RetryKeys {
                    keys,
                    stimulus_id: "retry".into(),
                });
            }
            Op::Scatter(w, t) => {
                let Some(w) = self.worker(w) else { return };
                let name = match pick(&self.names, t).filter(|_| t % 4 == 0) {
                    Some(name) => name,
                    None => {
                        self.next_task += 1;
                        format!("data-{}", self.next_task)
                    }
                };
                let address = Arc::clone(
                    self.env
                        .s
                        .worker(WorkerId(w))
                        .expect("registered")
                        .address(),
                );
                self.workers
                    .get_mut(&w)
                    .expect("chosen")
                    .data
                    .insert(name.clone());
                self.names.push(name.clone());
                let client = Some(self.client(t));
                self.event(Event::UpdateData {
                    data: vec![DataPlacement {
                        key: key(&name),
                        who_has: vec![address],
                        nbytes: 10,
                    }],
                    client,
                    stimulus_id: "scatter".into(),
                });
            }
            Op::DropData(w, t) => {
                let Some(w) = self.worker(w) else { return };
                let data: Vec<String> = self.workers[&w].data.iter().cloned().collect();
                if let Some(name) = pick(&data, t) {
                    self.workers.get_mut(&w).expect("chosen").data.remove(&name);
                    self.event(Event::ReleaseWorkerData {
                        worker: WorkerId(w),
                        key: key(&name),
                        stimulus_id: "drop".into(),
                    });
                }
            }
            Op::FetchData(w, t) => {
                let Some(w) = self.worker(w) else { return };
                let held: Vec<Key> = self
                    .env
                    .s
                    .tasks()
                    .filter(|t| t.state() == TaskState::Memory)
                    .map(|t| t.key().clone())
                    .collect();
                if let Some(k) = pick(&held, t) {
                    self.workers
                        .get_mut(&w)
                        .expect("chosen")
                        .data
                        .insert(k.to_text());
                    self.event(Event::AddKeys {
                        worker: WorkerId(w),
                        keys: vec![k],
                        stimulus_id: "fetched".into(),
                    });
                }
            }
            Op::AddClient => {
                let client = self.next_client;
                self.next_client += 1;
                self.clients.insert(client);
                self.event(Event::AddClient {
                    client: ClientId(client),
                    name: format!("c{client}").into(),
                });
            }
            Op::LoseClient(c) => {
                let client = self.client(c);
                if client != ALICE {
                    self.clients.remove(&client.0);
                    // Its session ends in the middle of whatever it does.
                    self.open.retain(|(c, _)| *c != client);
                    self.event(Event::RemoveClient {
                        client,
                        stimulus_id: "bye".into(),
                    });
                }
            }
            Op::Restrict(t, to) => {
                let addresses = to.map(|t| vec![address(u32::from(t % 7))]);
                if let Some(name) = pick(&self.names, t) {
                    self.event(Event::SetRestrictions {
                        restrictions: vec![(key(&name), addresses)],
                    });
                }
            }
            Op::Retire(w) => {
                if let Some(w) = self.worker(w) {
                    self.event(Event::RetireWorker {
                        worker: WorkerId(w),
                        stimulus_id: "retire".into(),
                    });
                }
            }
            Op::Continue(p) => {
                if !self.open.is_empty() {
                    self.continue_graph(usize::from(p) % self.open.len());
                }
            }
            Op::Restart => {
                self.event(Event::Restart {
                    stimulus_id: "restart".into(),
                });
                assert_eq!(self.env.s.tasks_len(), 0, "restart forgets everything");
            }
            Op::Heartbeat(w, memory) => {
                let Some(w) = self.worker(w) else { return };
                let executing = self.workers[&w]
                    .tasks
                    .iter()
                    .take(2)
                    .map(|(n, _)| (key(n), 1.5))
                    .collect();
                self.event(Event::Heartbeat {
                    worker: WorkerId(w),
                    metrics: WorkerMetrics {
                        memory: u64::from(memory),
                        bandwidth: Some(1e8),
                        ..WorkerMetrics::default()
                    },
                    executing,
                });
            }
            Op::Pass(n) => {
                self.trace.push(format!("pass {n}"));
                self.env.pass(f64::from(n % 8) / 2.0);
                self.deliver();
                if let Some(w) = self.worker(Pick::from(n)) {
                    let answer = [Some(true), Some(false), None][usize::from(n % 3)];
                    self.answer_steal(w, answer);
                }
            }
        }
    }

    /// From now on all workers behave and there are enough of them.
    fn settle(&mut self) {
        while !self.open.is_empty() {
            self.continue_graph(0);
        }
        for kind in [5, 10, 11] {
            // Room for workers of every kind.
            while self.workers.len() > 6 {
                let w = *self.workers.keys().next().expect("not empty");
                self.event(Event::RemoveWorker {
                    worker: WorkerId(w),
                    expected: true,
                    close: true,
                    stimulus_id: "make room".into(),
                });
            }
            for _ in 0..7 {
                self.add_worker(kind);
            }
        }
        for w in self.workers.keys().copied().collect::<Vec<_>>() {
            self.event(Event::WorkerStatusChanged {
                worker: WorkerId(w),
                status: WorkerStatus::Running,
                stimulus_id: "settle".into(),
            });
        }
        for _ in 0..10_000 {
            for w in self.workers.keys().copied().collect::<Vec<_>>() {
                self.answer_steal(w, Some(false));
            }
            if let Some((w, name, run_id)) = self.task_on(0, 0) {
                self.finish(w, &name, run_id);
            } else {
                self.env.pass(1.1);
                self.deliver();
                if self
                    .workers
                    .values()
                    .all(|w| w.tasks.is_empty() && w.steal_requests.is_empty())
                {
                    break;
                }
            }
        }
        for client in self.env.s.clients() {
            for task in client.wants_what() {
                let settled = match task.state() {
                    TaskState::Memory | TaskState::Erred => true,
                    // Only a restriction that nobody meets may hold a task up.
                    _ => held_up(task),
                };
                assert!(settled, "{task:?} never ends; {}", self.story(task.key()));
            }
        }
    }

    fn story(&self, key: &Key) -> String {
        let lines: Vec<String> = self
            .env
            .s
            .story(std::slice::from_ref(key))
            .iter()
            .map(|e| {
                format!(
                    "{} {}->{} {:?} {}",
                    e.key,
                    e.start.as_str(),
                    e.finish.as_str(),
                    e.recommendations().collect::<Vec<_>>(),
                    e.stimulus_id
                )
            })
            .collect();
        lines.join("\n")
    }
}

fn serial(name: &str) -> u32 {
    name.rsplit('-')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

fn held_up(task: oxidask_scheduler_core::views::TaskView<'_>) -> bool {
    match task.state() {
        TaskState::NoWorker => {
            !task.worker_restrictions().is_empty()
                || !task.host_restrictions().is_empty()
                || !task.resource_restrictions().is_empty()
                || !task.release().is_empty()
        }
        TaskState::Waiting => task.waiting_on().any(held_up),
        _ => false,
    }
}

fn run(ops: Vec<Op>, config: CoreConfig) {
    let mut sim = Sim::new(config);
    for op in ops {
        sim.apply(op);
    }
    sim.settle();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_with_queueing(ops in prop::collection::vec(op(), 1..120)) {
        run(ops, CoreConfig::default());
    }

    #[test]
    fn nothing_breaks_without_queueing(ops in prop::collection::vec(op(), 1..120)) {
        run(ops, CoreConfig { worker_saturation: f64::INFINITY, allowed_failures: 0, ..CoreConfig::default() });
    }

    /// Of every order that names two inputs or more, the rest is made later.
    #[test]
    fn nothing_breaks_while_orders_are_made(ops in prop::collection::vec(op(), 1..120), queueing in any::<bool>()) {
        let defaults = CoreConfig::default();
        let worker_saturation = if queueing { defaults.worker_saturation } else { f64::INFINITY };
        run(ops, CoreConfig { inputs_at_once: 1, worker_saturation, ..defaults });
    }

    #[test]
    fn the_same_events_give_the_same_effects(ops in prop::collection::vec(op(), 1..60)) {
        let play = || {
            let mut sim = Sim::new(CoreConfig::default());
            for op in ops.clone() {
                sim.apply(op);
            }
            sim.trace
        };
        prop_assert_eq!(play(), play());
    }
}
