//! What the wire costs the scheduler once per task: `cargo bench -p oxidask-wire --bench frames`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oxidask_key::Key;
use oxidask_wire::connection::{Limits, Reader};
use oxidask_wire::message::client::{FromClient, ToClient};
use oxidask_wire::message::worker::{ComputeTask, FromWorker, LegacySpec, RunSpec, ToWorker};
use oxidask_wire::{Dialect, Generation, Message, Release, Value};

const TASKS: usize = 1000;

/// Measures work on [`TASKS`] tasks.
fn report(criterion: &mut Criterion, what: &str, mut work: impl FnMut()) {
    let mut group = criterion.benchmark_group("frames");
    group.throughput(Throughput::Elements(TASKS as u64));
    group.bench_function(what, |bencher| bencher.iter(&mut work));
    group.finish();
}

fn task_finished(n: usize) -> Value {
    let entry = Value::map([
        ("action", Value::from("compute")),
        ("start", 1_795_248_690.6.into()),
        ("stop", 1_795_248_690.7.into()),
    ]);
    Value::map([
        ("op", Value::from("task-finished")),
        ("status", "OK".into()),
        ("key", format!("inc-8ab3c0de8ab3c0de8ab3c0de8ab3-{n}").into()),
        ("run_id", (1000 + n).into()),
        ("nbytes", 28.into()),
        ("type", Bytes::from_static(b"\x80\x04\x95\x14\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x03int\x94\x93\x94.").into()),
        ("typename", "builtins.int".into()),
        ("metadata", Value::Map(Vec::new())),
        ("thread", 140_234_567_890_123i64.into()),
        ("startstops", Value::array([entry])),
        ("stimulus_id", "task-finished-1795248690.7".into()),
    ])
}

fn decode(criterion: &mut Criterion) {
    let batch = Message::from_value(&Value::array((0..TASKS).map(task_finished)));
    report(criterion, "find one item", || {
        black_box(batch.items().filter_map(Result::ok).count());
    });
    report(criterion, "find and decode task-finished", || {
        for item in batch.items() {
            black_box(FromWorker::decode(&item.expect("item")).expect("decoded"));
        }
    });
    report(criterion, "decode task-finished as a Value", || {
        black_box(batch.value().expect("value"));
    });
    let release = Message::from_value(&Value::map([
        ("op", Value::from("client-releases-keys")),
        (
            "keys",
            Value::array((0..TASKS).map(|n| format!("inc-8ab3c0de8ab3c0de8ab3c0de8ab3-{n}"))),
        ),
    ]));
    report(criterion, "decode one key of client-releases-keys", || {
        for item in release.items() {
            black_box(FromClient::decode(&item.expect("item")).expect("decoded"));
        }
    });
}

fn encode(criterion: &mut Criterion) {
    let keys: Vec<Key> = (0..TASKS)
        .map(|n| Key::from(format!("inc-8ab3c0de8ab3c0de8ab3c0de8ab3-{n}")))
        .collect();
    let pickled = RunSpec::pickled(&[7; 200][..], Vec::new());
    let parts = RunSpec::from(LegacySpec::Parts {
        function: vec![7; 180].into(),
        args: Some(vec![7; 20].into()),
        kwargs: None,
    });
    let who_has = [(keys[0].clone(), vec![Arc::from("tcp://127.0.0.1:40000")])];
    let nbytes = [(keys[0].clone(), 28)];
    for (release, spec) in [
        ("2026.8.0", &pickled),
        ("2022.12.0", &parts),
        ("2.30.1", &parts),
    ] {
        let dialect = Dialect::for_release(&Release::parse(release).expect("release"));
        let tasks: Vec<ToWorker<'_>> = keys
            .iter()
            .map(|key| {
                ToWorker::ComputeTask(ComputeTask {
                    key,
                    run_id: 1,
                    priority: [0.0, 1.0, 5.0],
                    duration: 0.5,
                    run_spec: spec,
                    unproven: false,
                    who_has: &who_has,
                    nbytes: &nbytes,
                    resource_restrictions: &[],
                    actor: false,
                    annotations: None,
                    span_id: Some("b9d4e5a0-8ab3-4d8c-9a3a-0c0de8ab3c0d"),
                    stimulus_id: "update-graph-1795248690.6",
                })
            })
            .collect();
        report(
            criterion,
            &format!("encode compute-task for {release}"),
            || {
                black_box(dialect.encode_worker_batch(&tasks));
            },
        );
    }
    let dialect = Dialect::for_release(&Release::NEWEST);
    let told: Vec<ToClient<'_>> = keys
        .iter()
        .map(|key| ToClient::KeyInMemory {
            key,
            type_: Some(&[7; 30]),
            workers: None,
        })
        .collect();
    report(criterion, "encode key-in-memory", || {
        black_box(dialect.encode_client_batch(&told));
    });
}

fn read(criterion: &mut Criterion) {
    let message = Message::from_value(&Value::array([task_finished(1)]));
    let mut raw = Vec::new();
    let len = message.body().len() as u64;
    for _ in 0..TASKS {
        for word in [16 + len, 1, len] {
            raw.extend_from_slice(&word.to_le_bytes());
        }
        raw.extend_from_slice(message.body());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime");
    report(criterion, "read a small message off a stream", || {
        let source = std::io::Cursor::new(raw.clone());
        let mut reader = Reader::over(source, Generation::M3, Limits::default());
        runtime.block_on(async {
            for _ in 0..TASKS {
                black_box(reader.read().await.expect("message"));
            }
        });
    });
}

criterion_group!(benches, decode, encode, read);
criterion_main!(benches);
