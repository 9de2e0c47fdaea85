//! The fields of what is sent, release by release, as they were found in the sources of every
//! release at which they change.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_wire::message::client::ToClient;
use oxidask_wire::message::worker::{ComputeTask, LegacySpec, RunSpec, ToWorker};
use oxidask_wire::pickle::Exception;
use oxidask_wire::rpc::{ErrorStatus, error_reply};
use oxidask_wire::{Dialect, Payload, Release, Value};

fn release(text: &str) -> Release {
    Release::parse(text).expect(text)
}

fn parts() -> RunSpec {
    RunSpec::from(LegacySpec::Parts {
        function: Bytes::from_static(b"f"),
        args: Some(Bytes::from_static(b"a")),
        kwargs: None,
    })
}

fn pickled() -> RunSpec {
    RunSpec::pickled(&b"p"[..], vec![Bytes::from_static(b"b")])
}

/// The names of the fields of each operation, sorted, in front of them the operation.
fn fields(batch: &Value) -> Vec<String> {
    let line = |item: &Value| {
        let entries = item.as_map().expect("a map");
        let mut names: Vec<&str> = entries.iter().filter_map(|(k, _)| k.as_str()).collect();
        names.retain(|name| *name != "op");
        names.sort_unstable();
        let op = item.get("op").and_then(Value::as_str).expect("op");
        format!("{op} {}", names.join(" ")).trim().to_owned()
    };
    batch.as_seq().expect("a batch").iter().map(line).collect()
}

fn compute(dialect: &Dialect, spec: &RunSpec, rich: bool) -> Value {
    let key = Key::from("x");
    let who_has = [(Key::from("d"), vec![Arc::from("tcp://h:1")])];
    let nbytes = [(Key::from("d"), 1)];
    let resources = [(Arc::from("GPU"), 1.0)];
    let annotations = Value::map([("a", 1)]).encode();
    let task = ComputeTask {
        key: &key,
        run_id: 3,
        priority: [0.0, 1.5, 2.0],
        duration: 0.5,
        run_spec: spec,
        unproven: false,
        who_has: if rich { &who_has } else { &[] },
        nbytes: if rich { &nbytes } else { &[] },
        resource_restrictions: if rich { &resources } else { &[] },
        actor: rich,
        annotations: rich.then_some(annotations.as_ref()),
        span_id: None,
        stimulus_id: "s",
    };
    dialect
        .encode_worker_batch(&[ToWorker::ComputeTask(task)])
        .value()
        .expect("ours")
}

#[test]
fn compute_task_has_the_fields_of_the_release() {
    let middle = "actor annotations args duration function key kwargs nbytes priority \
                  resource_restrictions run_spec stimulus_id who_has";
    let table: [(&str, RunSpec, &str); 13] = [
        ("2.17.0", parts(), "args duration function key priority"),
        ("2021.06.0", parts(), "args duration function key priority"),
        ("2021.09.1", parts(), "args duration function key priority"),
        (
            "2021.10.0",
            parts(),
            "args duration function key priority stimulus_id who_has",
        ),
        (
            "2022.05.0",
            parts(),
            "args duration function key priority stimulus_id who_has",
        ),
        (
            "2022.05.1",
            parts(),
            "args duration function key nbytes priority stimulus_id who_has",
        ),
        (
            "2022.6.0",
            parts(),
            "actor annotations duration key nbytes priority resource_restrictions run_spec \
             stimulus_id who_has",
        ),
        ("2022.6.1", parts(), middle),
        ("2022.12.0", parts(), middle),
        (
            "2023.1.1",
            parts(),
            "actor annotations args duration function key kwargs nbytes priority \
             resource_restrictions run_id run_spec stimulus_id who_has",
        ),
        (
            "2023.6.0",
            parts(),
            "actor annotations args duration function key kwargs nbytes priority \
             resource_restrictions run_id run_spec span_id stimulus_id who_has",
        ),
        (
            "2023.8.1",
            pickled(),
            "actor annotations duration key nbytes priority resource_restrictions run_id run_spec \
             span_id stimulus_id who_has",
        ),
        (
            "2025.2.0",
            pickled(),
            "actor annotations key nbytes priority resource_restrictions run_id run_spec span_id \
             stimulus_id who_has",
        ),
    ];
    for (text, spec, expected) in table {
        let batch = compute(&Dialect::for_release(&release(text)), &spec, false);
        assert_eq!(
            fields(&batch),
            [format!("compute-task {expected}")],
            "{text}"
        );
    }
}

#[test]
fn optional_fields_of_older_releases_are_sent_when_there_is_something_to_say() {
    let plain = "actor args duration function key nbytes priority resource_restrictions who_has";
    for (text, expected) in [
        ("2.30.1", plain),
        (
            "2021.06.0",
            "actor annotations args duration function key nbytes priority resource_restrictions \
             who_has",
        ),
    ] {
        let batch = compute(&Dialect::for_release(&release(text)), &parts(), true);
        assert_eq!(
            fields(&batch),
            [format!("compute-task {expected}")],
            "{text}"
        );
    }
}

#[test]
fn whole_tasks_go_where_the_release_looks_for_them() {
    let payload = Arc::new(Payload::pickle_object("task", Vec::new()));
    let spec = RunSpec::from(LegacySpec::Serialized(Arc::clone(&payload)));
    for (text, field) in [
        ("2.30.1", "task"),
        ("2022.05.2", "task"),
        ("2022.6.0", "run_spec"),
        ("2022.12.0", "run_spec"),
    ] {
        let batch = compute(&Dialect::for_release(&release(text)), &spec, false);
        let found = batch
            .as_seq()
            .and_then(|items| items.first())
            .and_then(|t| t.get(field));
        assert_eq!(found.and_then(Value::as_payload), Some(&payload), "{text}");
    }
}

#[test]
fn tasks_of_several_objects_go_where_the_release_looks_for_them() {
    let object = Value::from(Arc::new(Payload::pickle_object("object", Vec::new())));
    let items = Value::array([object, "key".into()]);
    let function = Bytes::from_static(b"f");
    let call = RunSpec::from(LegacySpec::Call {
        function: function.clone(),
        args: items.clone(),
        kwargs: Value::Nil,
    });
    let task = RunSpec::from(LegacySpec::Task(items.clone()));
    for (text, at_call, at_task) in [
        ("2021.03.0", &[][..], &["task"][..]),
        ("2022.6.0", &["run_spec"], &["run_spec"]),
        ("2022.12.0", &[], &["run_spec"]),
    ] {
        let find = |spec: &RunSpec, path: &[&str]| {
            let batch = compute(&Dialect::for_release(&release(text)), spec, false);
            let first = batch.as_seq().and_then(|items| items.first()).cloned();
            path.iter()
                .try_fold(first?, |value, name| value.get(name).cloned())
        };
        let call = find(&call, at_call).expect(text);
        assert_eq!(call.get("args"), Some(&items), "{text}");
        assert_eq!(call.get("function"), Some(&function.clone().into()));
        assert!(call.get("kwargs").is_none_or(Value::is_nil), "{text}");
        assert_eq!(find(&task, at_task), Some(items.clone()), "{text}");
    }
}

#[test]
fn a_run_spec_of_another_era_is_never_sent() {
    for (text, spec) in [
        ("2026.8.0", LegacySpec::Task("task".into()).into()),
        ("2026.8.0", parts()),
        ("2023.8.0", pickled()),
        ("2.30.1", pickled()),
    ] {
        let dialect = Dialect::for_release(&release(text));
        assert!(!dialect.accepts(&spec), "{text}");
        assert_eq!(
            compute(&dialect, &spec, false),
            Value::Array(Vec::new()),
            "{text}"
        );
    }
}

#[test]
fn worker_operations_have_the_fields_of_the_release() {
    let keys = [Key::from("x")];
    let who_has = [(Key::from("d"), vec![Arc::from("tcp://h:1")])];
    let nbytes = [(Key::from("d"), 1)];
    let stimulus_id = "s";
    let batch = [
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
            worker: "tcp://h:2",
            stimulus_id,
        },
        ToWorker::Close { reason: "r" },
    ];
    let table: [(&str, &[&str]); 10] = [
        (
            "2021.06.0",
            &[
                "release-task key",
                "delete-data keys report",
                "delete-data keys report",
                "steal-request key",
                "close report",
            ],
        ),
        (
            "2021.06.1",
            &[
                "free-keys keys reason",
                "superfluous-data keys reason",
                "steal-request key",
                "close report",
            ],
        ),
        (
            "2021.10.0",
            &[
                "free-keys keys stimulus_id",
                "remove-replicas keys stimulus_id",
                "acquire-replicas keys priorities stimulus_id who_has",
                "steal-request key stimulus_id",
                "close report",
            ],
        ),
        (
            "2022.01.0",
            &[
                "free-keys keys stimulus_id",
                "remove-replicas keys stimulus_id",
                "acquire-replicas keys stimulus_id who_has",
                "steal-request key stimulus_id",
                "close report",
            ],
        ),
        (
            "2022.02.0",
            &[
                "free-keys keys stimulus_id",
                "remove-replicas keys stimulus_id",
                "acquire-replicas keys stimulus_id who_has",
                "steal-request key stimulus_id",
                "worker-status-change status",
                "close report",
            ],
        ),
        (
            "2022.05.1",
            &[
                "free-keys keys stimulus_id",
                "remove-replicas keys stimulus_id",
                "acquire-replicas keys stimulus_id who_has",
                "steal-request key stimulus_id",
                "worker-status-change status stimulus_id",
                "close",
            ],
        ),
        (
            "2022.6.0",
            &[
                "free-keys keys stimulus_id",
                "remove-replicas keys stimulus_id",
                "acquire-replicas stimulus_id who_has",
                "refresh-who-has stimulus_id who_has",
                "steal-request key stimulus_id",
                "worker-status-change status stimulus_id",
                "close",
            ],
        ),
        (
            "2022.6.1",
            &[
                "free-keys keys stimulus_id",
                "remove-replicas keys stimulus_id",
                "acquire-replicas nbytes stimulus_id who_has",
                "refresh-who-has stimulus_id who_has",
                "steal-request key stimulus_id",
                "worker-status-change status stimulus_id",
                "close",
            ],
        ),
        (
            "2022.10.1",
            &[
                "free-keys keys stimulus_id",
                "remove-replicas keys stimulus_id",
                "acquire-replicas nbytes stimulus_id who_has",
                "refresh-who-has stimulus_id who_has",
                "steal-request key stimulus_id",
                "worker-status-change status stimulus_id",
                "close reason",
            ],
        ),
        (
            "2023.3.2",
            &[
                "free-keys keys stimulus_id",
                "remove-replicas keys stimulus_id",
                "acquire-replicas nbytes stimulus_id who_has",
                "refresh-who-has stimulus_id who_has",
                "steal-request key stimulus_id",
                "worker-status-change status stimulus_id",
                "remove-worker stimulus_id worker",
                "close reason",
            ],
        ),
    ];
    for (text, expected) in table {
        let dialect = Dialect::for_release(&release(text));
        let sent = dialect.encode_worker_batch(&batch).value().expect("ours");
        assert_eq!(fields(&sent), expected, "{text}");
    }
}

#[test]
fn client_operations_have_the_fields_of_the_release() {
    let keys = [Key::from("x"), Key::from("y")];
    let payload = Value::Nil;
    let batch = [
        ToClient::CancelledKeys {
            keys: &keys,
            reason: Some("r"),
            msg: None,
        },
        ToClient::Event {
            topic: "t",
            time: 1.0,
            payload: &payload,
        },
        ToClient::AdjustHeartbeatInterval { interval: 1.0 },
        ToClient::PubsubMsg {
            name: &payload,
            msg: &payload,
        },
    ];
    let table: [(&str, &[&str]); 5] = [
        (
            "2.30.1",
            &[
                "cancelled-key key",
                "cancelled-key key",
                "pubsub-msg msg name",
            ],
        ),
        (
            "2021.09.1",
            &[
                "cancelled-key key",
                "cancelled-key key",
                "event event topic",
                "pubsub-msg msg name",
            ],
        ),
        (
            "2023.3.1",
            &[
                "cancelled-keys keys",
                "event event topic",
                "pubsub-msg msg name",
            ],
        ),
        (
            "2025.3.0",
            &[
                "cancelled-keys keys msg reason",
                "event event topic",
                "pubsub-msg msg name",
            ],
        ),
        (
            "2025.4.0",
            &[
                "cancelled-keys keys msg reason",
                "event event topic",
                "adjust-heartbeat-interval interval",
            ],
        ),
    ];
    for (text, expected) in table {
        let dialect = Dialect::for_release(&release(text));
        let sent = dialect.encode_client_batch(&batch).value().expect("ours");
        assert_eq!(fields(&sent), expected, "{text}");
    }
}

#[test]
fn error_replies_have_what_the_caller_reads() {
    let exception = Exception::value_error("no such thing");
    let old = error_reply(
        &exception,
        ErrorStatus::UncaughtError,
        Some(&release("2.30.1")),
    );
    assert_eq!(
        old.get("status").and_then(Value::as_str),
        Some("uncaught-error")
    );
    assert_eq!(
        old.get("text").and_then(Value::as_str),
        Some("no such thing")
    );
    assert_eq!(
        old.get("exception").and_then(Value::as_bin),
        Some(&exception.pickle())
    );
    assert_eq!(old.get("exception_text"), None);
    let new = error_reply(&exception, ErrorStatus::Error, Some(&Release::NEWEST));
    assert_eq!(new.get("status").and_then(Value::as_str), Some("error"));
    let payload = new
        .get("exception")
        .and_then(Value::as_payload)
        .expect("lifted");
    assert_eq!(
        payload.as_plain_bytes(1000).expect("valid"),
        Some(exception.pickle())
    );
    let text = new.get("exception_text").and_then(Value::as_str);
    assert_eq!(text, Some("ValueError('no such thing')"));
    let unknown = error_reply(&exception, ErrorStatus::UncaughtError, None);
    assert!(unknown.get("text").is_some() && unknown.get("exception_text").is_some());
    assert!(unknown.get("traceback").is_some_and(Value::is_nil));
}
