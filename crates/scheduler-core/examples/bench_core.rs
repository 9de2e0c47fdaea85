//! Cost of the core per task: graphs like those of `Client.map`, played against workers that finish
//! at once. `cargo run --release -p oxidask-scheduler-core --example bench_core [tasks [workers]]`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oxidask_key::Key;
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::effect::{Effect, WorkerMsg};
use oxidask_scheduler_core::event::{Event, StartStop, TaskFinished};
use oxidask_scheduler_core::graph::{GraphUpdate, LostDependencies, NewTask};
use oxidask_scheduler_core::ids::{ClientId, RunId, Timestamp, WorkerId};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_scheduler_core::worker::{WorkerInfo, WorkerStatus};
use oxidask_scheduler_core::{Effects, Scheduler};

/// Counts live bytes.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: same contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: same contract.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Processor time of this thread: the machine may have other things to do.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

struct Bench {
    scheduler: Scheduler,
    effects: Effects,
    now: f64,
    spec: Opaque,
    action: Arc<str>,
    typename: Arc<str>,
    stimulus: Arc<str>,
    finished: usize,
}

impl Bench {
    fn new(workers: u32, config: CoreConfig) -> Self {
        let mut bench = Self {
            scheduler: Scheduler::new(config),
            effects: Vec::new(),
            now: 1e9,
            spec: Opaque::new(()),
            action: "compute".into(),
            typename: "int".into(),
            stimulus: "task-finished-1".into(),
            finished: 0,
        };
        bench.event(Event::AddClient {
            client: ClientId(0),
            name: "client".into(),
        });
        for i in 0..workers {
            bench.event(Event::AddWorker {
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
        bench.effects.clear();
        bench
    }

    fn event(&mut self, event: Event) {
        self.now += 1e-6;
        self.scheduler
            .handle(Timestamp(self.now), event, &mut self.effects);
    }

    /// Workers finish whatever they are sent, until there is nothing left.
    fn drain(&mut self) {
        let mut inbox: Vec<(WorkerId, Key, RunId)> = Vec::new();
        loop {
            for effect in self.effects.drain(..) {
                if let Effect::ToWorker(worker, WorkerMsg::ComputeTask(c)) = effect {
                    inbox.push((worker, c.key, c.run_id));
                }
            }
            if inbox.is_empty() {
                return;
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

fn graph(tasks: Vec<NewTask>, keys: Vec<Key>, now: f64) -> Event {
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
fn name(prefix: &str, i: usize) -> Key {
    Key::from(format!(
        "{prefix}-{:032x}",
        (i as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    ))
}

fn map_like(n: usize, spec: &Opaque) -> (Vec<NewTask>, Vec<Key>) {
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
fn tree_like(n: usize, spec: &Opaque) -> (Vec<NewTask>, Vec<Key>) {
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

type Shape = fn(usize, &Opaque) -> (Vec<NewTask>, Vec<Key>);

/// Microseconds per task to submit, compute and release; bytes held per task.
struct Figures {
    times: [f64; 3],
    table: usize,
    all: usize,
}

fn run(label: &str, shape: Shape, n: usize, workers: u32, config: &CoreConfig) {
    let best = (0..5)
        .map(|_| play(shape, n, workers, config.clone()))
        .min_by(|a, b| a.times.iter().sum::<f64>().total_cmp(&b.times.iter().sum()));
    let Some(Figures { times, table, all }) = best else {
        return;
    };
    let [submit, compute, release] = times;
    println!(
        "{label:16} {n} tasks, {workers:4} workers: submit {submit:4.2}, compute {compute:4.2}, \
         release {release:4.2}, all {:5.2} µs/task; {table} B/task in tables, keys and relations, \
         {all} B/task in all",
        times.iter().sum::<f64>(),
    );
}

fn play(shape: Shape, n: usize, workers: u32, config: CoreConfig) -> Figures {
    let mut bench = Bench::new(workers, config);
    let (tasks, keys) = shape(n, &bench.spec);
    let n = tasks.len();
    let event = graph(tasks, keys.clone(), bench.now);
    // The keys exist already: they count as the client's. Their text is shared with the core.
    let live = LIVE.load(Ordering::Relaxed);
    let start = cpu_time();
    bench.event(event);
    let submitted = cpu_time() - start;
    bench.drain();
    let computed = cpu_time() - start - submitted;
    bench.effects = Vec::new();
    let held = LIVE.load(Ordering::Relaxed).saturating_sub(live);
    let table = bench.scheduler.task_memory();
    let in_memory = bench.scheduler.tasks_len();
    bench.event(Event::ClientReleasesKeys {
        client: ClientId(0),
        keys,
        stimulus_id: "release".into(),
    });
    let total = cpu_time() - start;
    bench.effects.clear();
    let per = |d: Duration| d.as_secs_f64() * 1e6 / n as f64;
    assert_eq!(bench.finished, n);
    assert_eq!(bench.scheduler.tasks_len(), 0);
    Figures {
        times: [
            per(submitted),
            per(computed),
            per(total - submitted - computed),
        ],
        table: table / in_memory.max(1),
        all: held / in_memory.max(1),
    }
}

fn main() {
    let n = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    let only = std::env::args().nth(2).and_then(|n| n.parse().ok());
    for workers in only.map_or(vec![10, 100, 1000], |n| vec![n]) {
        let quiet = CoreConfig {
            amm_start: false,
            ..CoreConfig::default()
        };
        run("map, queueing", map_like, n, workers, &quiet);
        let unlimited = CoreConfig {
            worker_saturation: f64::INFINITY,
            ..quiet.clone()
        };
        run("map, no queueing", map_like, n, workers, &unlimited);
        run("chunks and tree", tree_like, n, workers, &quiet);
    }
}
