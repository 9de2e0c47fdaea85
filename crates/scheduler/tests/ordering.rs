//! What a client sees first: the answer to its request or the news on its stream.

use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oxidask_wire::connection::{ConnectOptions, Reader, Writer};
use oxidask_wire::dialect::Dialect;
use oxidask_wire::message::worker::{FromWorker, TaskErred, TaskFinished};
use oxidask_wire::{Connection, Generation, Message, Release, Value};

const RELEASE: Release = Release::new(2, 30, 1);
const WORKER: &str = "tcp://127.0.0.1:1";
const ROUNDS: usize = 100;
/// Keys besides the failed one: the answer takes its time, and still goes over in one piece.
const OTHERS: usize = 5_000;

struct Scheduler {
    process: Child,
    address: String,
}

impl Scheduler {
    fn start(folder: &Path) -> Self {
        let file = folder.join("scheduler.json");
        let beside = Path::new(env!("CARGO_BIN_EXE_dask"));
        let process = Command::new(beside.with_file_name("dask-scheduler"))
            .args(["--host", "127.0.0.1", "--port", "0", "--no-dashboard"])
            .args(["--dashboard-address", "127.0.0.1:0", "--scheduler-file"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("scheduler");
        let mut scheduler = Self {
            process,
            address: String::new(),
        };
        for _ in 0..600 {
            let written = std::fs::read_to_string(&file).unwrap_or_default();
            let identity: serde_json::Value = serde_json::from_str(&written).unwrap_or_default();
            if let Some(address) = identity["address"].as_str() {
                scheduler.address = address.to_owned();
                return scheduler;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no scheduler");
    }

    async fn connect(&self) -> Connection {
        let options = ConnectOptions {
            generation: Generation::of(&RELEASE),
            ..ConnectOptions::default()
        };
        Connection::connect(&self.address, &options)
            .await
            .expect("connection")
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn versions() -> Value {
    let packages = [("distributed", RELEASE.to_string())];
    Value::map([("packages", Value::map(packages))])
}

fn no_entries() -> Value {
    Value::Map(Vec::new())
}

async fn send(writer: &mut Writer, value: &Value) {
    writer
        .send(&Message::from_value(value))
        .await
        .expect("written");
}

/// The ops of a message, with their keys.
fn ops(message: &Message) -> Vec<(String, Value)> {
    let items = message.items().map(|item| item.expect("item"));
    items
        .map(|item| {
            let mut value = item.value().expect("value");
            (item.op.to_owned(), value.remove("key").unwrap_or_default())
        })
        .collect()
}

async fn next_op(reader: &mut Reader, wanted: &str) {
    loop {
        let message = reader.read().await.expect("stream");
        if ops(&message).iter().any(|(op, _)| op == wanted) {
            return;
        }
    }
}

/// Registers a worker that answers at once: the first run of a task fails, the next succeeds.
async fn worker(scheduler: &Scheduler) -> impl Future<Output = ()> + use<> {
    let (mut reader, mut writer) = scheduler.connect().await.split();
    let metrics = [("cpu", Value::from(1.0)), ("memory", 1.into())];
    let registration = Value::map([
        ("op", Value::from("register-worker")),
        ("reply", false.into()),
        ("address", WORKER.into()),
        ("nthreads", 1u32.into()),
        ("name", "stub".into()),
        ("now", 1.0.into()),
        ("resources", no_entries()),
        ("memory_limit", (1u64 << 30).into()),
        ("local_directory", "/nowhere".into()),
        ("services", no_entries()),
        ("nanny", Value::Nil),
        ("pid", 1u32.into()),
        ("versions", versions()),
        ("metrics", Value::map(metrics)),
        ("extra", no_entries()),
    ]);
    send(&mut writer, &registration).await;
    let welcome = reader.read().await.expect("welcome");
    let welcome = welcome.value().expect("value");
    assert_eq!(welcome.get("status").and_then(Value::as_str), Some("OK"));
    async move {
        let dialect = Dialect::for_release(&RELEASE);
        let mut failed = std::collections::HashSet::new();
        while let Ok(message) = reader.read().await {
            for (op, key) in ops(&message) {
                if op != "compute-task" {
                    continue;
                }
                let key = key.to_key().expect("key");
                let answer = if failed.insert(key.clone()) {
                    FromWorker::TaskErred(erred(key))
                } else {
                    FromWorker::TaskFinished(finished(key))
                };
                let batch = dialect.encode_scheduler_batch(&[answer]);
                if writer.send(&batch).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn erred(key: oxidask_key::Key) -> TaskErred<'static> {
    TaskErred {
        key,
        run_id: None,
        exception: None,
        traceback: None,
        exception_text: "",
        traceback_text: "",
        startstops: Vec::new(),
        thread: None,
        stimulus_id: None,
    }
}

fn finished(key: oxidask_key::Key) -> TaskFinished<'static> {
    TaskFinished {
        key,
        run_id: None,
        nbytes: Some(28),
        type_: Some(b"type"),
        typename: Some("int"),
        startstops: None,
        metadata: Value::Nil,
        thread: None,
        stimulus_id: None,
    }
}

fn graph(key: &str) -> Value {
    let function = Value::Bin(bytes::Bytes::from_static(b"function"));
    let task = Value::map([("function", function)]);
    Value::map([
        ("op", Value::from("update-graph")),
        ("tasks", Value::map([(key, task)])),
        (
            "dependencies",
            Value::map([(key, Value::Array(Vec::new()))]),
        ),
        ("keys", Value::array([key])),
        ("priority", Value::map([(key, 0)])),
        ("client", "Client-1".into()),
    ])
}

fn held_by_the_worker(keys: &[String]) -> Value {
    let who_has = keys.iter().map(|key| (&**key, Value::array([WORKER])));
    let nbytes = keys.iter().map(|key| (&**key, 1));
    Value::map([
        ("op", Value::from("update_data")),
        ("reply", true.into()),
        ("who_has", Value::map(who_has)),
        ("nbytes", Value::map(nbytes)),
        ("client", "Client-1".into()),
    ])
}

/// A stock client sets its futures back when it has the answer to `retry`. A result that it is told
/// before is forgotten, and it waits for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_retry_comes_before_what_it_leads_to() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start(folder.path());
    let working = tokio::spawn(worker(&scheduler).await);
    let (mut stream, mut writer) = scheduler.connect().await.split();
    let registration = Value::map([
        ("op", Value::from("register-client")),
        ("client", "Client-1".into()),
        ("reply", false.into()),
        ("versions", versions()),
    ]);
    send(&mut writer, &registration).await;
    next_op(&mut stream, "stream-start").await;
    let (mut answers, mut requests) = scheduler.connect().await.split();
    let others: Vec<String> = (0..OTHERS).map(|i| i.to_string()).collect();
    send(&mut requests, &held_by_the_worker(&others)).await;
    answers.read().await.expect("answer");
    let mut early = 0;
    for round in 0..ROUNDS {
        let key = format!("x-{round}");
        send(&mut writer, &Value::array([graph(&key)])).await;
        next_op(&mut stream, "task-erred").await;
        let request = Value::map([
            ("op", Value::from("retry")),
            ("reply", true.into()),
            ("keys", Value::array(others.iter().chain([&key]))),
            ("client", "Client-1".into()),
        ]);
        send(&mut requests, &request).await;
        next_op(&mut stream, "key-in-memory").await;
        let mut answer = pin!(tokio::task::unconstrained(answers.read()));
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = std::future::ready(()) => {
                early += 1;
                answer.await
            }
        };
        let answer = answer.expect("answer").value().expect("value");
        assert_eq!(answer.as_seq().map(<[Value]>::len), Some(OTHERS + 1));
    }
    working.abort();
    assert_eq!(early, 0, "results before the answer, in {ROUNDS} rounds");
}
