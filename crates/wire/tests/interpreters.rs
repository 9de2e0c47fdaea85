//! What the dialects compose is read by the protocol functions of the stock releases and held
//! against their handlers: a field too many or too few ends a worker's stream. Run when
//! `OXIDASK_PY_<release>` names an interpreter with that release (`cargo xtask test` sets them).

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_wire::connection::Writer;
use oxidask_wire::message::ErrorObject;
use oxidask_wire::message::client::ToClient;
use oxidask_wire::message::worker::{ComputeTask, LegacySpec, Pickle, RunSpec, ToWorker};
use oxidask_wire::pickle::{Exception, LastWorker, Object};
use oxidask_wire::{Dialect, Message, Payload, Release, Value};
use serde::Deserialize;

const RELEASES: [(&str, &str); 3] = [
    ("2.30.1", "OXIDASK_PY_2_30_1"),
    ("2022.12.0", "OXIDASK_PY_2022_12_0"),
    ("2026.8.0", "OXIDASK_PY_2026_8_0"),
];

/// What `check_batch.py` prints per operation.
#[derive(Debug, Deserialize)]
struct Line {
    op: String,
    key: Option<String>,
    result: Option<String>,
}

/// Runs `test` for each release whose interpreter is there.
fn for_each_release(test: impl Fn(&Dialect, &dyn Fn(&str, &Message) -> Vec<Line>)) {
    for (release, variable) in RELEASES {
        let Ok(python) = std::env::var(variable) else {
            println!("skipped for {release}: {variable} names no interpreter");
            continue;
        };
        let dialect = Dialect::for_release(&Release::parse(release).expect("release"));
        test(&dialect, &|role, message| {
            check(&python, role, message, &dialect)
        });
    }
}

fn check(python: &str, role: &str, message: &Message, dialect: &Dialect) -> Vec<Line> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime");
    let raw = runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut writer = Writer::over(ours, dialect.generation());
        writer.send(message).await.expect("encoded");
        drop(writer);
        let mut raw = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut raw)
            .await
            .expect("read");
        raw
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/check_batch.py");
    let mut child = Command::new(python)
        .args([script, role])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("interpreter starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(&raw)
        .expect("written");
    let output = child.wait_with_output().expect("ended");
    assert!(
        output.status.success(),
        "{role} of {} refused the batch",
        dialect.release()
    );
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

/// Tasks that add 1 and 2 in each form the release knows.
fn specs(dialect: &Dialect) -> Vec<RunSpec> {
    let add = || Object::global("operator", "add");
    let args = || Object::Tuple(vec![Object::Int(1), Object::Int(2)]);
    let all = [
        RunSpec::from(LegacySpec::Parts {
            function: add().pickle(),
            args: Some(args().pickle()),
            kwargs: None,
        }),
        RunSpec::from(LegacySpec::Parts {
            function: Object::global("builtins", "dict").pickle(),
            args: Some(Object::Tuple(Vec::new()).pickle()),
            kwargs: Some(Object::Dict(vec![("a".into(), Object::Int(1))]).pickle()),
        }),
        RunSpec::from(LegacySpec::Serialized(Arc::new(Payload::pickle_object(
            Object::Tuple(vec![add(), Object::Int(1), Object::Int(2)]).pickle(),
            Vec::new(),
        )))),
        RunSpec::pickled(
            &Object::call(
                Object::global("dask._task_spec", "Task"),
                vec!["k".into(), add(), Object::Int(1), Object::Int(2)],
            )
            .pickle()[..],
            Vec::new(),
        ),
        RunSpec::pickled(
            // PROTO 5, Task("k", len, <buffer 0>)
            // In two pieces.
            Pickle {
                prefix: Some(Arc::new(Bytes::from_static(
                    b"\x80\x05cdask._task_spec\nTask\n",
                ))),
                body: (*b"(X\x01\x00\x00\x00kcbuiltins\nlen\n\x97tR.").into(),
            },
            vec![Bytes::from_static(b"12345")],
        ),
    ];
    all.into_iter()
        .filter(|spec| dialect.accepts(spec))
        .collect()
}

#[test]
fn stock_workers_accept_every_operation() {
    for_each_release(|dialect, check| {
        let specs = specs(dialect);
        let keys = [Key::from("x"), Key::from("y")];
        let who_has = [(Key::from("dep"), vec![Arc::from("tcp://10.0.0.1:1")])];
        let nbytes = [(Key::from("dep"), 5)];
        let resources = [(Arc::from("GPU"), 2.0)];
        let annotations = Value::map([("executor", "default")]).encode();
        let mut batch = Vec::new();
        for spec in &specs {
            for rich in [false, true] {
                batch.push(ToWorker::ComputeTask(ComputeTask {
                    key: &keys[0],
                    run_id: 7,
                    priority: [-1.0, 2.99, 3.0],
                    duration: 0.5,
                    run_spec: spec,
                    unproven: rich,
                    who_has: if rich { &who_has } else { &[] },
                    nbytes: if rich { &nbytes } else { &[] },
                    resource_restrictions: if rich { &resources } else { &[] },
                    actor: rich,
                    annotations: rich.then_some(annotations.as_ref()),
                    span_id: rich.then_some("span"),
                    stimulus_id: "stimulus",
                }));
            }
        }
        let tasks = batch.len();
        let stimulus_id = "stimulus";
        batch.extend([
            ToWorker::FreeKeys {
                keys: &keys,
                stimulus_id,
            },
            ToWorker::RemoveReplicas {
                keys: &keys,
                stimulus_id,
            },
            ToWorker::AcquireReplicas {
                who_has: &who_has,
                nbytes: &nbytes,
                stimulus_id,
            },
            ToWorker::RefreshWhoHas {
                who_has: &who_has,
                stimulus_id,
            },
            ToWorker::StealRequest {
                key: &keys[0],
                stimulus_id,
            },
            ToWorker::StatusChange {
                status: "paused",
                stimulus_id,
            },
            ToWorker::RemoveWorker {
                worker: "tcp://10.0.0.2:1",
                stimulus_id,
            },
            ToWorker::Close { reason: "test" },
            ToWorker::CloseStream,
        ]);
        let lines = check("worker", &dialect.encode_worker_batch(&batch));
        let ops: Vec<&str> = lines[tasks..].iter().map(|line| line.op.as_str()).collect();
        let expected: &[&str] = match dialect.release().to_string().as_str() {
            "2.30.1" => &[
                "release-task",
                "release-task",
                "delete-data",
                "delete-data",
                "steal-request",
                "close",
                "close-stream",
            ],
            "2022.12.0" => &[
                "free-keys",
                "remove-replicas",
                "acquire-replicas",
                "refresh-who-has",
                "steal-request",
                "worker-status-change",
                "close",
                "close-stream",
            ],
            _ => &[
                "free-keys",
                "remove-replicas",
                "acquire-replicas",
                "refresh-who-has",
                "steal-request",
                "worker-status-change",
                "remove-worker",
                "close",
                "close-stream",
            ],
        };
        assert_eq!(ops, expected, "{}", dialect.release());
        let results: Vec<&str> = lines[..tasks]
            .iter()
            .map(|line| line.result.as_deref().expect("computed"))
            .collect();
        let expected: &[&str] = if dialect.release() == Release::NEWEST {
            &["3", "3", "5", "5"]
        } else {
            &["3", "3", "{'a': 1}", "{'a': 1}", "3", "3"]
        };
        assert_eq!(results, expected, "{}", dialect.release());
    });
}

#[test]
fn a_task_that_cannot_be_unpickled_fails_alone() {
    for_each_release(|dialect, check| {
        if dialect.release() != Release::NEWEST {
            return;
        }
        let broken = || Object::call(Object::global("no_such_module", "function"), Vec::new());
        for release in ["2023.8.1", "2024.10.0", "2024.11.0", "2026.8.0"] {
            let dialect = Dialect::for_release(&Release::parse(release).expect("release"));
            let key = Key::from("x");
            let mut lines = Vec::new();
            for (pickle, buffers) in [
                (broken().pickle(), Vec::new()),
                (broken().pickle(), vec![Bytes::from_static(b"buffer")]),
                // `(partial(len, <buffer>), (), {})`.
                (
                    Bytes::from_static(
                        b"\x80\x05cfunctools\npartial\n(cbuiltins\nlen\n\x97tR)}\x87.",
                    ),
                    vec![Bytes::from_static(b"buffer")],
                ),
            ] {
                let spec = RunSpec::pickled(&pickle[..], buffers);
                let task = ComputeTask {
                    key: &key,
                    run_id: 7,
                    priority: [0.0, 1.0, 2.0],
                    duration: 0.5,
                    run_spec: &spec,
                    unproven: true,
                    who_has: &[],
                    nbytes: &[],
                    resource_restrictions: &[],
                    actor: false,
                    annotations: None,
                    span_id: None,
                    stimulus_id: "stimulus",
                };
                let batch = dialect.encode_worker_batch(&[ToWorker::ComputeTask(task)]);
                lines.extend(check("spec", &batch).into_iter().map(|line| line.result));
            }
            let failed =
                "RuntimeError <- ModuleNotFoundError(\"No module named 'no_such_module'\")";
            let expected = [failed, failed, "6"].map(|line| Some(line.to_owned()));
            assert_eq!(lines, expected, "{release}");
        }
    });
}

#[test]
fn keys_of_every_type_arrive_unchanged() {
    for_each_release(|dialect, check| {
        if !dialect.has_any_keys() {
            return;
        }
        let nested = Key::from(vec![
            Key::from("x"),
            Key::Int(0),
            Key::from(vec![Key::Float(0.5)]),
        ]);
        let keys = [
            (Key::from("text"), "'text'"),
            (Key::Bytes(b"raw".as_slice().into()), "b'raw'"),
            (Key::Int(-5), "-5"),
            (Key::UInt(u64::MAX), "18446744073709551615"),
            (Key::Float(1e300), "1e+300"),
            (nested, "('x', 0, (0.5,))"),
        ];
        let batch: Vec<ToWorker<'_>> = keys
            .iter()
            .map(|(key, _)| ToWorker::StealRequest {
                key,
                stimulus_id: "s",
            })
            .collect();
        let lines = check("worker", &dialect.encode_worker_batch(&batch));
        let arrived: Vec<Option<String>> = lines.into_iter().map(|line| line.key).collect();
        let expected: Vec<Option<String>> = keys
            .iter()
            .map(|(_, repr)| Some((*repr).to_owned()))
            .collect();
        assert_eq!(arrived, expected);
    });
}

#[test]
fn stock_clients_accept_every_operation_and_raise_our_exceptions() {
    for_each_release(|dialect, check| {
        let release = dialect.release();
        let key = Key::from("x");
        let keys = [Key::from("x"), Key::from("y")];
        let last_worker = LastWorker {
            address: "tcp://10.0.0.1:1",
            name: "w",
            nthreads: 2,
            memory_limit: 1 << 30,
            pid: 17,
            server_id: "Worker-1",
            local_directory: "/tmp",
            nanny: None,
        };
        let exceptions = [
            (
                Exception::value_error("it's\nwrong"),
                "ValueError: it's\nwrong",
            ),
            (Exception::key_error(&key), "KeyError: 'x'"),
            (Exception::timeout_error("late"), "TimeoutError: late"),
            (Exception::memory_error("much"), "MemoryError: much"),
            (Exception::comm_closed("gone"), "CommClosedError: gone"),
            (
                Exception::killed_worker(&release, &key, &last_worker, 3),
                "KilledWorker: ",
            ),
            (
                Exception::killed_worker(&release, &key, &last_worker, 3).caused_by("SIGKILL"),
                "KilledWorker: ",
            ),
            (
                Exception::no_valid_worker(&release, &key, (&["h"], &[], &[("GPU", 1.0)]), 2.0),
                if release == Release::NEWEST {
                    "NoValidWorkerError: "
                } else {
                    "TimeoutError: "
                },
            ),
            (
                Exception::no_worker(&release, &key, 2.0),
                if release == Release::NEWEST {
                    "NoWorkerError: "
                } else {
                    "TimeoutError: "
                },
            ),
        ];
        let errors: Vec<ErrorObject> = exceptions
            .iter()
            .flat_map(|(exception, _)| {
                let pickle = exception.pickle();
                [
                    ErrorObject::Pickle(pickle.clone()),
                    ErrorObject::Payload(Payload::bytes(pickle).into()),
                ]
            })
            .collect();
        let payload = Value::map([("action", "seen")]);
        let address: [Arc<str>; 1] = [Arc::from("tcp://10.0.0.1:1")];
        let mut batch: Vec<ToClient<'_>> = errors
            .iter()
            .map(|error| ToClient::TaskErred {
                key: &key,
                exception: Some(error),
                traceback: None,
            })
            .collect();
        batch.extend([
            ToClient::StreamStart {
                warning: "",
                error: "",
            },
            ToClient::KeyInMemory {
                key: &key,
                type_: Some(b"type"),
                workers: None,
            },
            ToClient::KeyInMemory {
                key: &key,
                type_: None,
                workers: Some(&address),
            },
            ToClient::TaskRetried { key: &key },
            ToClient::LostData { key: &key },
            ToClient::CancelledKeys {
                keys: &keys,
                reason: Some("because"),
                msg: None,
            },
            ToClient::Restart,
            ToClient::Event {
                topic: "t",
                time: 1.5,
                payload: &payload,
            },
            ToClient::AdjustHeartbeatInterval { interval: 5.0 },
            ToClient::Error {
                exception: &errors[0],
            },
            ToClient::StreamClosed,
        ]);
        let lines = check("client", &dialect.encode_client_batch(&batch));
        for (pair, (_, expected)) in lines.chunks(2).zip(&exceptions) {
            for line in pair {
                let result = line.result.as_deref().expect("an exception");
                assert!(
                    result.starts_with(expected),
                    "{release}: {result} is not {expected}"
                );
            }
        }
        let killed = lines[10].result.as_deref().expect("KilledWorker");
        assert!(killed.contains("10.0.0.1:1"), "{killed}");
        let ops: Vec<&str> = lines[errors.len()..]
            .iter()
            .map(|line| line.op.as_str())
            .collect();
        let mut expected = vec![
            "stream-start",
            "key-in-memory",
            "key-in-memory",
            "task-retried",
            "lost-data",
        ];
        expected.extend(if release == Release::NEWEST {
            vec![
                "cancelled-keys",
                "restart",
                "event",
                "adjust-heartbeat-interval",
            ]
        } else if release.to_string() == "2022.12.0" {
            vec!["cancelled-key", "cancelled-key", "restart", "event"]
        } else {
            vec!["cancelled-key", "cancelled-key", "restart"]
        });
        expected.extend(["error", "stream-closed"]);
        assert_eq!(ops, expected, "{release}");
    });
}
