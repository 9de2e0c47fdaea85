//! Cost of the core per task: graphs like those of `Client.map`, played against workers that finish
//! at once. `cargo run --release -p oxidask-scheduler-core --example bench_core [tasks [workers]]`;
//! with `scaling` instead, the tables of `docs/scaling.md`; with `longest`, which single events take longest when one task
//! needs all others.

#[path = "../benches/cluster/mod.rs"]
mod cluster;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster::{Cluster, cpu_time, graph, layers_like, map_like, tree_like};
use oxidask_key::Key;
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::graph::portions::{GraphId, Portions};
use oxidask_scheduler_core::graph::{NewTask, numbering};
use oxidask_scheduler_core::ids::ClientId;
use oxidask_scheduler_core::opaque::Opaque;

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

type Graph = (Vec<NewTask>, Vec<Key>);
type Shape = fn(usize, &Opaque) -> Graph;

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

fn play(
    shape: impl Fn(usize, &Opaque) -> Graph,
    n: usize,
    workers: u32,
    config: CoreConfig,
) -> Figures {
    let mut bench = Cluster::new(workers, config);
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
    // Many are let go little by little.
    while bench
        .scheduler
        .poll_timeout()
        .is_some_and(|when| when.0 <= bench.now)
    {
        bench.timeout();
    }
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

/// Tables in Markdown: the cost of the core by tasks, workers and dependencies.
fn scaling() {
    // As a scheduler runs: stealing and the memory manager are on.
    let config = CoreConfig::default();
    let head = "| | submit | compute | release | all, µs per task | bytes per result |\n| --- | --- | --- | --- | --- | --- |";
    let row = |what: String, shape: &dyn Fn(usize, &Opaque) -> Graph, n, workers| {
        let found = (0..3).map(|_| play(shape, n, workers, config.clone()));
        let best =
            found.min_by(|a, b| a.times.iter().sum::<f64>().total_cmp(&b.times.iter().sum()));
        let Some(Figures { times, all, .. }) = best else {
            return;
        };
        let [submit, compute, release] = times;
        let sum: f64 = times.iter().sum();
        println!("| {what} | {submit:.2} | {compute:.2} | {release:.2} | {sum:.2} | {all} |");
    };
    println!("Dependencies (20,000 tasks in layers of 100; 100 workers of 2 threads)\n\n{head}");
    for needs in [1, 2, 5, 10, 20, 50, 100] {
        let shape = move |n: usize, spec: &Opaque| layers_like(n, needs, spec);
        row(format!("{needs} per task"), &shape, 20_000, 100);
    }
    println!("\nTasks (independent; 100 workers of 2 threads)\n\n{head}");
    for n in [10_000, 100_000, 1_000_000] {
        row(format!("{n} tasks"), &map_like, n, 100);
    }
    println!("\nTasks (chunks and a tree over them; 100 workers of 2 threads)\n\n{head}");
    for n in [10_000, 100_000, 1_000_000] {
        row(format!("{n} tasks"), &tree_like, n, 100);
    }
    println!("\nWorkers (100,000 independent tasks)\n\n{head}");
    for workers in [1, 10, 100, 1000, 5000, 10_000] {
        row(format!("{workers} workers"), &map_like, 100_000, workers);
    }
    println!("\nWorkers (100,000 tasks, chunks and a tree over them)\n\n{head}");
    for workers in [1, 10, 100, 1000, 5000, 10_000] {
        row(format!("{workers} workers"), &tree_like, 100_000, workers);
    }
}

/// Milliseconds of the longest event of each kind, the least of some runs: for so long nobody else is served.
fn longest(n: usize) {
    let mut least = [f64::INFINITY; 4];
    for _ in 0..5 {
        let mut bench = Cluster::new(100, CoreConfig::default());
        let (mut tasks, keys) = map_like(n, &bench.spec);
        let total = Key::from("total-1");
        tasks.push(NewTask {
            key: total.clone(),
            run_spec: Some(bench.spec.clone()),
            dependencies: keys,
            order: n as i64,
            options: None,
        });
        let Event::UpdateGraph(update) = graph(tasks, vec![total.clone()], bench.now) else {
            return;
        };
        let Ok(numbering) = numbering(&update.tasks, &update.keys) else {
            return;
        };
        let Ok(portions) = Portions::of(*update, numbering, GraphId(1), 1000) else {
            return;
        };
        let (outline, rest) = portions.begin();
        bench.event(Event::BeginGraph(Box::new(outline)));
        for portion in rest {
            bench.event(Event::ContinueGraph(Box::new(portion)));
        }
        let taken_in = bench.take_longest();
        bench.drain();
        let computed = bench.take_longest();
        bench.event(Event::ClientReleasesKeys {
            client: ClientId(0),
            keys: vec![total],
            stimulus_id: "release".into(),
        });
        let released = bench.take_longest();
        for _ in 0..n {
            bench.timeout();
        }
        assert_eq!(bench.scheduler.tasks_len(), 0);
        let forgotten = bench.take_longest();
        let found = [taken_in, computed, released, forgotten];
        for (least, found) in least.iter_mut().zip(found) {
            *least = least.min(found.as_secs_f64() * 1e3);
        }
    }
    let [taken_in, computed, released, forgotten] = least;
    println!(
        "{n} tasks and one that needs them all, longest event in ms: intake {taken_in:.1}, running {computed:.1}, \
         release {released:.1}, forgetting {forgotten:.1}"
    );
}

fn main() {
    let first = std::env::args().nth(1);
    if first.as_deref() == Some("longest") {
        return [1000, 10_000, 100_000].into_iter().for_each(longest);
    }
    if first.as_deref() == Some("scaling") {
        return scaling();
    }
    let n = first.and_then(|n| n.parse().ok()).unwrap_or(100_000);
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
