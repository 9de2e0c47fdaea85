//! Taking graphs in: reading pickles, splitting expressions into tasks, `dask.order`.
//! `cargo bench -p oxidask-graph --bench intake`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::path::Path;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oxidask_graph::intake::expr::split_expr;
use oxidask_graph::order::{Algorithm, OrderTask, order};
use oxidask_graph::pickle::plain::to_key;
use oxidask_graph::pickle::walker::walk;
use oxidask_graph::{Intake, Limits, TaskKind};
use oxidask_key::Key;
use oxidask_key::numbering::Numbering;

/// Byte strings, each behind its length (four bytes, little-endian), as the fixtures hold them.
fn items(mut rest: Bytes) -> Vec<Bytes> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = rest.split_to(4);
        let length = u32::from_le_bytes(length[..].try_into().expect("four bytes"));
        found.push(rest.split_to(length as usize));
    }
    found
}

/// Frames of the recorded submissions of a stock client, and the keys that it wants.
fn submissions() -> Vec<(Vec<Bytes>, Vec<Key>)> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/expressions-2026.8.0.bin");
    let recorded = items(std::fs::read(file).expect("fixture").into());
    let cases = recorded.chunks(3).filter_map(|case| case.get(1));
    cases
        .map(|case| {
            let mut frames = items(case.clone());
            let (arena, root) =
                walk(frames.remove(0), Vec::new(), Limits::default()).expect("keys");
            let keys = arena.list(root).expect("a list");
            let keys = keys.iter().filter_map(|&key| to_key(&arena, key));
            (frames, keys.collect())
        })
        .collect()
}

fn pickles(criterion: &mut Criterion) {
    let submissions = submissions();
    let bytes: usize = submissions
        .iter()
        .flat_map(|(frames, _)| frames)
        .map(Bytes::len)
        .sum();
    let mut group = criterion.benchmark_group("recorded submissions");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("walk the pickles", |bencher| {
        bencher.iter(|| {
            for (frames, _) in &submissions {
                let buffers = frames.iter().skip(1).cloned().collect();
                let _ = black_box(walk(frames[0].clone(), buffers, Limits::default()));
            }
        });
    });
    let tasks =
        |(frames, keys): &(Vec<Bytes>, Vec<Key>)| match split_expr(frames, keys, Limits::default())
        {
            Ok(Intake::Split(graph)) => graph.tasks.len(),
            _ => 0,
        };
    let count: usize = submissions.iter().map(tasks).sum();
    assert!(count > 100, "{count} tasks only");
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("split into tasks", |bencher| {
        bencher.iter(|| submissions.iter().map(tasks).sum::<usize>());
    });
    group.finish();
}

/// Chunks, one step on each, a tree over the results; keys and dependencies.
fn tree(leaves: i64) -> Vec<(Key, Vec<Key>)> {
    let name = |name: String, at: i64| Key::from([Key::from(name), Key::Int(at)]);
    let mut tasks = Vec::new();
    let mut level: Vec<Key> = Vec::new();
    for at in 0..leaves {
        let (chunk, step) = (name("random-1f2e".into(), at), name("add-9a8b".into(), at));
        tasks.push((chunk.clone(), Vec::new()));
        tasks.push((step.clone(), vec![chunk]));
        level.push(step);
    }
    let mut depth = 0;
    while level.len() > 1 {
        depth += 1;
        let sums = level.chunks(4).zip(0..);
        let sums: Vec<_> = sums
            .map(|(part, at)| (name(format!("sum-{depth}"), at), part.to_vec()))
            .collect();
        level = sums.iter().map(|(key, _)| key.clone()).collect();
        tasks.extend(sums);
    }
    tasks
}

fn orders(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dask.order of a tree");
    for leaves in [1000, 10_000] {
        let tasks = tree(leaves);
        let numbering = Numbering::of(&tasks, |task| &task.0, |task| &task.1, &[]);
        let numbering = numbering.expect("few tasks");
        group.throughput(Throughput::Elements(tasks.len() as u64));
        for algorithm in [Algorithm::V2022, Algorithm::V2026] {
            let id = BenchmarkId::new(format!("{algorithm:?}"), tasks.len());
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let views = tasks.iter().map(|(key, _)| OrderTask {
                        key,
                        kind: TaskKind::Task,
                    });
                    order(views, &numbering, algorithm).expect("no cycle")
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pickles, orders);
criterion_main!(benches);
