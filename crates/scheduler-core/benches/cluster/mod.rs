//! A scheduler played against workers that finish at once, all in one thread: what the core costs, and nothing else.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use oxidask_key::Key;
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::effect::{Effect, WorkerMsg};
use oxidask_scheduler_core::event::{Event, StartStop, TaskFinished};
use oxidask_scheduler_core::graph::{GraphUpdate, LostDependencies, NewTask};
use oxidask_scheduler_core::ids::{ClientId, RunId, Timestamp, WorkerId};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_scheduler_core::worker::{WorkerInfo, WorkerStatus};
use oxidask_scheduler_core::{Effects, Scheduler};

/// Processor time of this thread: the machine may have other things to do.
pub fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long an event takes, not when it happens"
)]
fn begun() -> Instant {
    Instant::now()
}

/// A scheduler with workers that finish whatever they are sent at once.
pub struct Cluster {
    pub scheduler: Scheduler,
    pub effects: Effects,
    pub now: f64,
    pub spec: Opaque,
    action: Arc<str>,
    typename: Arc<str>,
    stimulus: Arc<str>,
    pub finished: usize,
    longest: Duration,
}

impl Cluster {
    pub fn new(workers: u32, config: CoreConfig) -> Self {
        let mut cluster = Self {
            scheduler: Scheduler::new(config),
            effects: Vec::new(),
            now: 1e9,
            spec: Opaque::new(()),
            action: "compute".into(),
            typename: "int".into(),
            stimulus: "task-finished-1".into(),
            finished: 0,
            longest: Duration::ZERO,
        };
        cluster.event(Event::AddClient {
            client: ClientId(0),
            name: "client".into(),
        });
        for i in 0..workers {
            cluster.event(Event::AddWorker {
                worker: WorkerId(i),
                info: Box::new(WorkerInfo {
                    address: format!("tcp://10.0.{}.{}:4000", i / 250, i % 250).into(),
                    host: format!("10.0.{}.{}", i / 250, i % 250).into(),
                    name: i.to_string().into(),
                    nthreads: 2,
                    memory_limit: 1 << 34,
                    status: WorkerStatus::Running,
                    ..WorkerInfo::default()
                }),
                stimulus_id: "add".into(),
            });
        }
        cluster.effects.clear();
        cluster
    }

    pub fn event(&mut self, event: Event) {
        self.now += 1e-6;
        let began = begun();
        self.scheduler
            .handle(Timestamp(self.now), event, &mut self.effects);
        self.longest = self.longest.max(began.elapsed());
    }

    /// The timers, when they are due.
    pub fn timeout(&mut self) {
        if let Some(due) = self.scheduler.poll_timeout() {
            self.now = self.now.max(due.0) + 1e-6;
        }
        let began = begun();
        self.scheduler
            .handle_timeout(Timestamp(self.now), &mut self.effects);
        self.longest = self.longest.max(began.elapsed());
    }

    /// The longest time that one event took since this was asked last.
    pub fn take_longest(&mut self) -> Duration {
        std::mem::take(&mut self.longest)
    }

    /// Workers finish whatever they are sent, until there is nothing left.
    pub fn drain(&mut self) {
        let mut inbox: Vec<(WorkerId, Key, RunId)> = Vec::new();
        loop {
            for effect in self.effects.drain(..) {
                if let Effect::ToWorker(worker, WorkerMsg::ComputeTask(c)) = effect {
                    inbox.push((worker, c.key, c.run_id));
                }
            }
            if inbox.is_empty() {
                // An order for a task with many inputs is made little by little.
                match self.scheduler.poll_timeout() {
                    Some(due) if due.0 <= self.now => self.timeout(),
                    _ => return,
                }
                continue;
            }
            for (worker, key, run_id) in std::mem::take(&mut inbox) {
                let message = TaskFinished {
                    worker,
                    key,
                    run_id: Some(run_id),
                    nbytes: Some(28),
                    type_: None,
                    typename: Arc::clone(&self.typename),
                    startstops: vec![StartStop {
                        action: Arc::clone(&self.action),
                        start: self.now,
                        stop: self.now + 0.001,
                    }],
                    metadata: None,
                    raw: None,
                    stimulus_id: Arc::clone(&self.stimulus),
                };
                self.finished += 1;
                self.event(Event::TaskFinished(Box::new(message)));
            }
        }
    }
}

pub fn graph(tasks: Vec<NewTask>, keys: Vec<Key>, now: f64) -> Event {
    Event::UpdateGraph(Box::new(GraphUpdate {
        client: ClientId(0),
        tasks,
        keys,
        submitting_task: None,
        fifo_timeout: 0.06,
        user_priority: 0.0,
        lost_dependencies: LostDependencies::RefuseGraph,
        received: Timestamp(now),
        release: "".into(),
        span_notes: Default::default(),
        stimulus_id: "update-graph".into(),
    }))
}

/// `inc-<32 hex digits>`, as `Client.map` names its tasks.
pub fn name(prefix: &str, i: usize) -> Key {
    Key::from(format!(
        "{prefix}-{:032x}",
        (i as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    ))
}

pub fn map_like(n: usize, spec: &Opaque) -> (Vec<NewTask>, Vec<Key>) {
    let keys: Vec<Key> = (0..n).map(|i| name("inc", i)).collect();
    let tasks = keys
        .iter()
        .enumerate()
        .map(|(i, key)| NewTask {
            key: key.clone(),
            run_spec: Some(spec.clone()),
            dependencies: Vec::new(),
            order: i as i64,
            options: None,
        })
        .collect();
    (tasks, keys)
}

/// Chunks, one step on each, and a tree over the results.
pub fn tree_like(n: usize, spec: &Opaque) -> (Vec<NewTask>, Vec<Key>) {
    let mut tasks = Vec::new();
    let mut order = 0;
    let mut add = |key: Key, dependencies: Vec<Key>| {
        order += 1;
        tasks.push(NewTask {
            key,
            run_spec: Some(spec.clone()),
            dependencies,
            order,
            options: None,
        });
    };
    let chunk = |name: &str, i: usize| Key::from([Key::from(name), Key::Int(i as i64)]);
    let leaves = n * 10 / 23;
    let mut level: Vec<Key> = Vec::new();
    for i in 0..leaves {
        add(chunk("random-1f2e", i), Vec::new());
        add(chunk("add-9a8b", i), vec![chunk("random-1f2e", i)]);
        level.push(chunk("add-9a8b", i));
    }
    let mut depth = 0;
    while level.len() > 1 {
        depth += 1;
        level = level
            .chunks(4)
            .enumerate()
            .map(|(i, part)| {
                let key = chunk(&format!("sum-{depth}"), i);
                add(key.clone(), part.to_vec());
                key
            })
            .collect();
    }
    (tasks, level)
}

/// Layers of a hundred tasks; each task needs the `needs` next ones of the layer before.
pub fn layers_like(n: usize, needs: usize, spec: &Opaque) -> (Vec<NewTask>, Vec<Key>) {
    const WIDTH: usize = 100;
    let key = |layer: usize, at: usize| {
        Key::from([
            Key::from(format!("layer{layer}-5c1e")),
            Key::Int((at % WIDTH) as i64),
        ])
    };
    let layers = n.div_ceil(WIDTH);
    let places = (0..layers).flat_map(|layer| (0..WIDTH).map(move |at| (layer, at)));
    let tasks = places.zip(0..).map(|((layer, at), order)| NewTask {
        key: key(layer, at),
        run_spec: Some(spec.clone()),
        dependencies: match layer.checked_sub(1) {
            Some(below) => (at..at + needs.min(WIDTH))
                .map(|at| key(below, at))
                .collect(),
            None => Vec::new(),
        },
        order,
        options: None,
    });
    (
        tasks.collect(),
        (0..WIDTH).map(|at| key(layers - 1, at)).collect(),
    )
}
