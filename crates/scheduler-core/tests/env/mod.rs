//! A scheduler under test: speaks in intentions, collects what the core wants done.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::effect::{ClientMsg, ComputeTask, Effect, WorkerMsg};
use oxidask_scheduler_core::event::{Event, StartStop, TaskErred, TaskFinished};
use oxidask_scheduler_core::graph::{GraphUpdate, LostDependencies, NewTask, TaskOptions};
use oxidask_scheduler_core::ids::{ClientId, RunId, Timestamp, WorkerId};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_scheduler_core::task::TaskState;
use oxidask_scheduler_core::worker::{WorkerInfo, WorkerMetrics, WorkerStatus};
use oxidask_scheduler_core::{Effects, Scheduler};

pub const ALICE: ClientId = ClientId(0);

pub struct TestEnv {
    pub s: Scheduler,
    pub now: Timestamp,
    effects: Effects,
    order: i64,
}

pub fn key(name: &str) -> Key {
    Key::from(name)
}

pub fn address(worker: u32) -> Arc<str> {
    format!("tcp://10.0.0.{worker}:1000").into()
}

pub fn worker_info(worker: u32, nthreads: u32) -> WorkerInfo {
    WorkerInfo {
        address: address(worker),
        host: format!("10.0.0.{worker}").into(),
        name: format!("w{worker}").into(),
        nthreads,
        memory_limit: 0,
        status: WorkerStatus::Running,
        metrics: WorkerMetrics::default(),
        ..WorkerInfo::default()
    }
}

/// One task of a graph in a test: name and names of dependencies.
pub fn task(name: &str, dependencies: &[&str]) -> NewTask {
    NewTask {
        key: key(name),
        run_spec: Some(Opaque::new(name.to_owned())),
        dependencies: dependencies.iter().map(|d| key(d)).collect(),
        order: 0,
        options: None,
    }
}

pub fn with(mut task: NewTask, options: TaskOptions) -> NewTask {
    task.options = Some(Arc::new(options));
    task
}

impl TestEnv {
    pub fn new() -> Self {
        Self::with_config(CoreConfig::default())
    }

    /// With a client, without workers.
    pub fn with_config(config: CoreConfig) -> Self {
        let mut env = Self {
            s: Scheduler::new(CoreConfig {
                validate: true,
                ..config
            }),
            now: Timestamp(1000.0),
            effects: Vec::new(),
            order: 0,
        };
        env.event(Event::AddClient {
            client: ALICE,
            name: "alice".into(),
        });
        env
    }

    /// With workers of so many threads each, numbered from 0.
    pub fn cluster(nthreads: &[u32]) -> Self {
        let mut env = Self::new();
        for (i, &n) in nthreads.iter().enumerate() {
            env.add_worker(i as u32, n);
        }
        env.forget_effects();
        env
    }

    pub fn event(&mut self, event: Event) {
        self.now = self.now.after(0.001);
        self.s.handle(self.now, event, &mut self.effects);
        let violations = self.s.take_violations();
        assert!(violations.is_empty(), "{violations:?}\n{}", self.log());
    }

    /// The latest transitions.
    pub fn log(&self) -> String {
        let mut lines: Vec<String> = self
            .s
            .transition_log()
            .rev()
            .take(60)
            .map(|e| {
                let to: Vec<String> = e
                    .recommendations()
                    .map(|(k, s)| format!("{k}:{}", s.as_str()))
                    .collect();
                format!(
                    "{} {}->{} [{}] {}",
                    e.key,
                    e.start.as_str(),
                    e.finish.as_str(),
                    to.join(" "),
                    e.stimulus_id
                )
            })
            .collect();
        lines.reverse();
        lines.join("\n")
    }

    pub fn pass(&mut self, seconds: f64) {
        let end = self.now.after(seconds);
        while let Some(at) = self.s.poll_timeout().filter(|at| *at <= end) {
            if at > self.now {
                self.now = at;
            }
            self.s.handle_timeout(self.now, &mut self.effects);
            assert_eq!(self.s.take_violations(), Vec::<String>::new());
        }
        self.now = end;
    }

    pub fn add_worker(&mut self, worker: u32, nthreads: u32) {
        self.add_worker_as(worker, worker_info(worker, nthreads));
    }

    pub fn add_worker_as(&mut self, worker: u32, info: WorkerInfo) {
        self.event(Event::AddWorker {
            worker: WorkerId(worker),
            info: Box::new(info),
            stimulus_id: "add-worker".into(),
        });
    }

    pub fn lose_worker(&mut self, worker: u32) {
        self.event(Event::RemoveWorker {
            worker: WorkerId(worker),
            expected: false,
            close: false,
            stimulus_id: "lost".into(),
        });
    }

    pub fn graph(&mut self, mut tasks: Vec<NewTask>, keys: &[&str]) -> GraphUpdate {
        for t in &mut tasks {
            if t.order == 0 {
                self.order += 1;
                t.order = self.order;
            }
        }
        GraphUpdate {
            client: ALICE,
            tasks,
            keys: keys.iter().map(|k| key(k)).collect(),
            submitting_task: None,
            fifo_timeout: 0.0,
            user_priority: 0.0,
            lost_dependencies: LostDependencies::RefuseGraph,
            received: self.now,
            release: "".into(),
            span_notes: Default::default(),
            stimulus_id: "update-graph".into(),
        }
    }

    pub fn submit(&mut self, tasks: Vec<NewTask>, keys: &[&str]) {
        let update = self.graph(tasks, keys);
        self.event(Event::UpdateGraph(Box::new(update)));
    }

    pub fn release(&mut self, keys: &[&str]) {
        self.event(Event::ClientReleasesKeys {
            client: ALICE,
            keys: keys.iter().map(|k| key(k)).collect(),
            stimulus_id: "release".into(),
        });
    }

    pub fn finished(&self, worker: u32, name: &str, run_id: Option<RunId>) -> TaskFinished {
        TaskFinished {
            worker: WorkerId(worker),
            key: key(name),
            run_id,
            nbytes: Some(8),
            type_: Some(Opaque::new("int")),
            typename: "int".into(),
            startstops: vec![StartStop {
                action: "compute".into(),
                start: self.now.0,
                stop: self.now.0 + 0.1,
            }],
            metadata: None,
            raw: None,
            stimulus_id: "finished".into(),
        }
    }

    /// The worker finishes the run it was last sent.
    pub fn finish(&mut self, worker: u32, name: &str) {
        let run_id = self.run_id(name);
        let message = self.finished(worker, name, run_id);
        self.event(Event::TaskFinished(Box::new(message)));
    }

    pub fn err(&mut self, worker: u32, name: &str) {
        let message = TaskErred {
            worker: WorkerId(worker),
            key: key(name),
            run_id: self.run_id(name),
            exception: Opaque::new(format!("error in {name}")),
            traceback: None,
            exception_text: format!("Error({name})").into(),
            traceback_text: "".into(),
            raw: None,
            stimulus_id: "erred".into(),
        };
        self.event(Event::TaskErred(Box::new(message)));
    }

    pub fn run_id(&self, name: &str) -> Option<RunId> {
        self.s.task(&key(name))?.run_id()
    }

    pub fn state(&self, name: &str) -> TaskState {
        self.s
            .task(&key(name))
            .map_or(TaskState::Forgotten, |t| t.state())
    }

    pub fn on(&self, name: &str) -> Option<u32> {
        Some(self.s.task(&key(name))?.processing_on()?.id().0)
    }

    pub fn who_has(&self, name: &str) -> Vec<u32> {
        self.s
            .task(&key(name))
            .map(|t| t.who_has().map(|w| w.id().0).collect())
            .unwrap_or_default()
    }

    pub fn effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    pub fn forget_effects(&mut self) {
        self.effects.clear();
    }

    /// What was sent since the last look, as short texts; everything, in order.
    pub fn sent(&mut self) -> Vec<String> {
        self.effects().iter().filter_map(describe).collect()
    }

    /// Asserts that exactly this was sent since the last look.
    #[track_caller]
    pub fn expect(&mut self, expected: &[&str]) {
        assert_eq!(self.sent(), expected);
    }
}

fn names(keys: &[Key]) -> String {
    let names: Vec<String> = keys.iter().map(Key::to_text).collect();
    names.join(",")
}

fn compute(c: &ComputeTask) -> String {
    let inputs: Vec<String> = c
        .who_has
        .iter()
        .map(|(k, holders)| format!("{k}@{}", holders.len()))
        .collect();
    format!("compute {} [{}]", c.key, inputs.join(" "))
}

/// A message in a few words; nothing for log entries and observed transitions.
pub fn describe(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::ToWorker(w, message) => {
            let text = match message {
                WorkerMsg::ComputeTask(c) => compute(c),
                WorkerMsg::FreeKeys { keys, .. } => format!("free {}", names(keys)),
                WorkerMsg::RemoveReplicas { keys, .. } => {
                    format!("remove-replicas {}", names(keys))
                }
                WorkerMsg::AcquireReplicas { who_has, .. } => {
                    let keys: Vec<Key> = who_has.iter().map(|(k, _)| k.clone()).collect();
                    format!("acquire-replicas {}", names(&keys))
                }
                WorkerMsg::RefreshWhoHas { who_has, .. } => {
                    let holders: Vec<String> = who_has
                        .iter()
                        .map(|(k, h)| format!("{k}@{}", h.len()))
                        .collect();
                    format!("who-has {}", holders.join(" "))
                }
                WorkerMsg::StealRequest { key, .. } => format!("steal {key}"),
                WorkerMsg::StatusChange { status, .. } => format!("status {}", status.as_str()),
                WorkerMsg::RemoveWorker { worker, .. } => format!("remove-worker {worker}"),
                WorkerMsg::Close { reason } => format!("close {reason}"),
            };
            format!("w{}: {text}", w.0)
        }
        Effect::ToClient(c, message) => {
            let text = match message {
                ClientMsg::KeyInMemory { key, .. } => format!("memory {key}"),
                ClientMsg::TaskErred { key, .. } => format!("erred {key}"),
                ClientMsg::TaskRetried { key } => format!("retried {key}"),
                ClientMsg::LostData { key } => format!("lost {key}"),
                ClientMsg::CancelledKeys { keys, .. } => format!("cancelled {}", names(keys)),
                ClientMsg::Restart => "restart".to_owned(),
            };
            format!("c{}: {text}", c.0)
        }
        Effect::WorkerRemoved { worker, .. } => format!("removed w{}", worker.0),
        Effect::WorkerUnresponsive { worker, .. } => format!("unresponsive w{}", worker.0),
        Effect::LogEvent { .. }
        | Effect::Transition(_)
        | Effect::Change(_)
        | Effect::Suspicious(_) => return None,
    })
}

impl TestEnv {
    pub fn add_client(&mut self, client: u32, name: &str) -> ClientId {
        let client = ClientId(client);
        self.event(Event::AddClient {
            client,
            name: name.into(),
        });
        client
    }

    pub fn submit_as(&mut self, client: ClientId, tasks: Vec<NewTask>, keys: &[&str]) {
        let mut update = self.graph(tasks, keys);
        update.client = client;
        self.event(Event::UpdateGraph(Box::new(update)));
    }

    /// Submits `n` tasks `prefix-0…` without dependencies, all wanted.
    pub fn map(&mut self, prefix: &str, n: usize) -> Vec<String> {
        let names: Vec<String> = (0..n).map(|i| format!("{prefix}-{i}")).collect();
        let tasks = names.iter().map(|name| task(name, &[])).collect();
        let keys: Vec<&str> = names.iter().map(String::as_str).collect();
        self.submit(tasks, &keys);
        names
    }

    /// Tasks on a worker.
    pub fn processing(&self, worker: u32) -> Vec<String> {
        self.s.worker(WorkerId(worker)).map_or(Vec::new(), |w| {
            w.processing().map(|t| t.key().to_text()).collect()
        })
    }

    pub fn states(&self, names: &[&str]) -> Vec<&'static str> {
        names.iter().map(|n| self.state(n).as_str()).collect()
    }

    pub fn set_status(&mut self, worker: u32, status: WorkerStatus) {
        self.event(Event::WorkerStatusChanged {
            worker: WorkerId(worker),
            status,
            stimulus_id: "status".into(),
        });
    }

    pub fn scatter(&mut self, name: &str, workers: &[u32]) {
        self.scatter_sized(name, workers, 10);
    }

    pub fn scatter_sized(&mut self, name: &str, workers: &[u32], nbytes: u64) {
        self.event(Event::UpdateData {
            data: vec![oxidask_scheduler_core::event::DataPlacement {
                key: key(name),
                who_has: workers.iter().map(|&w| address(w)).collect(),
                nbytes,
            }],
            client: Some(ALICE),
            stimulus_id: "scatter".into(),
        });
    }

    pub fn add_keys(&mut self, worker: u32, names: &[&str]) {
        self.event(Event::AddKeys {
            worker: WorkerId(worker),
            keys: names.iter().map(|n| key(n)).collect(),
            stimulus_id: "add-keys".into(),
        });
    }
}
