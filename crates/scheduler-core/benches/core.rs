//! Inner parts of the core: `cargo bench -p oxidask-scheduler-core --bench core`.
#![allow(missing_docs)]

mod cluster;

use cluster::{Cluster, graph, layers_like, map_like, name, tree_like};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oxidask_key::Key;
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::graph::NewTask;
use oxidask_scheduler_core::opaque::Opaque;

/// A cluster, and a graph for it.
fn with(workers: u32, shape: impl Fn(&Opaque) -> (Vec<NewTask>, Vec<Key>)) -> (Cluster, Event) {
    let cluster = Cluster::new(workers, CoreConfig::default());
    let (tasks, keys) = shape(&cluster.spec);
    let event = graph(tasks, keys, cluster.now);
    (cluster, event)
}

/// From the submission to the last result: every transition of every task.
fn transitions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transitions");
    type Shape = fn(&Opaque) -> (Vec<NewTask>, Vec<Key>);
    let shapes: [(&str, Shape); 3] = [
        ("1,000 independent tasks", |spec| map_like(1000, spec)),
        ("1,000 tasks, chunks and a tree", |spec| {
            tree_like(1000, spec)
        }),
        ("1,000 tasks in layers, 10 dependencies each", |spec| {
            layers_like(1000, 10, spec)
        }),
    ];
    for (what, shape) in shapes {
        group.throughput(Throughput::Elements(1000));
        group.bench_function(what, |bencher| {
            bencher.iter_batched(
                || with(10, shape),
                |(mut cluster, event)| {
                    cluster.event(event);
                    cluster.drain();
                    cluster
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// Tasks that need three results each, which lie on different workers.
fn placed(spec: &Opaque) -> (Vec<NewTask>, Vec<Key>) {
    let keys: Vec<Key> = (0..1000).map(|at| name("join", at)).collect();
    let task = |(at, key): (usize, &Key)| NewTask {
        key: key.clone(),
        run_spec: Some(spec.clone()),
        dependencies: (0..3)
            .map(|n| name("inc", (at * 7 + n * 331) % 1000))
            .collect(),
        order: at as i64,
        options: None,
    };
    (keys.iter().enumerate().map(task).collect(), keys)
}

/// Choosing workers: the submission of tasks that can run at once.
fn placement(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("placement of 1,000 tasks with 3 inputs");
    group.throughput(Throughput::Elements(1000));
    for workers in [10, 100, 1000] {
        group.bench_function(BenchmarkId::new("workers", workers), |bencher| {
            bencher.iter_batched(
                || {
                    let (mut cluster, inputs) = with(workers, |spec| map_like(1000, spec));
                    cluster.event(inputs);
                    cluster.drain();
                    let (tasks, keys) = placed(&cluster.spec);
                    let event = graph(tasks, keys, cluster.now);
                    (cluster, event)
                },
                |(mut cluster, event)| {
                    cluster.event(event);
                    cluster
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, transitions, placement);
criterion_main!(benches);
