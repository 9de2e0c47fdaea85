//! A stock worker of each release registers with a scheduler that is nothing but this crate, runs a
//! task and lives on: greeting of silent peers, registration, batches in both directions. Run when
//! `OXIDASK_PY_<release>` names an interpreter with that release.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oxidask_key::Key;
use oxidask_wire::connection::{AcceptPolicy, ConnectOptions};
use oxidask_wire::dialect::WorkerPluginsForm;
use oxidask_wire::error::AcceptError;
use oxidask_wire::message::worker::{ComputeTask, FromWorker, LegacySpec, RunSpec, ToWorker};
use oxidask_wire::pickle::Object;
use oxidask_wire::rpc::Request;
use oxidask_wire::{Connection, Dialect, Generation, Message, Release, Value};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

const RELEASES: [(&str, &str); 3] = [
    ("2.30.1", "OXIDASK_PY_2_30_1"),
    ("2022.12.0", "OXIDASK_PY_2022_12_0"),
    ("2026.8.0", "OXIDASK_PY_2026_8_0"),
];

/// Ends the worker when the test ends, however it ends.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_worker(python: &str, port: u16) -> Worker {
    let code = "from distributed.cli.dask_worker import main; main()";
    let address = format!("tcp://127.0.0.1:{port}");
    let args = [
        "-c",
        code,
        &address,
        "--no-nanny",
        "--nthreads",
        "1",
        "--no-dashboard",
    ];
    let child = Command::new(python)
        .args(args)
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("interpreter starts");
    Worker(child)
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

fn add(dialect: &Dialect, key: &Key) -> RunSpec {
    let function = Object::global("operator", "add");
    let args = [Object::Int(1), Object::Int(2)];
    if dialect.release() >= Release::new(2024, 11, 0) {
        let task = Object::global("dask._task_spec", "Task");
        let mut all = vec![Object::from(key), function];
        all.extend(args);
        return RunSpec::pickled(&Object::call(task, all).pickle()[..], Vec::new());
    }
    let args = Object::Tuple(args.into());
    if dialect.release() >= Release::new(2023, 8, 1) {
        let triple = Object::Tuple(vec![function, args, Object::Dict(Vec::new())]);
        return RunSpec::pickled(&triple.pickle()[..], Vec::new());
    }
    RunSpec::from(LegacySpec::Parts {
        function: function.pickle(),
        args: Some(args.pickle()),
        kwargs: None,
    })
}

/// Serves one connection: a worker's stream is handed over, requests are answered.
async fn serve(mut connection: Connection, streams: mpsc::Sender<(Connection, Value)>) {
    while let Ok(message) = connection.read().await {
        let request = Request::decode(&message).expect("a request");
        let reply = match request.op.as_str() {
            "register-worker" => {
                let _ = streams.send((connection, request.args)).await;
                return;
            }
            "heartbeat_worker" => Value::map([
                ("status", Value::from("OK")),
                ("time", now().into()),
                ("heartbeat-interval", 0.5.into()),
            ]),
            _ => Value::Nil,
        };
        if request.reply && connection.send(&Message::from_value(&reply)).await.is_err() {
            return;
        }
    }
}

async fn listen(
    listener: TcpListener,
    policy: AcceptPolicy,
    streams: mpsc::Sender<(Connection, Value)>,
) {
    while let Ok((stream, peer)) = listener.accept().await {
        let (policy, streams) = (policy.clone(), streams.clone());
        tokio::spawn(async move {
            match Connection::accept(stream, &policy, Some(peer), None).await {
                Ok(connection) => serve(connection, streams).await,
                Err(AcceptError::Unanswered | AcceptError::ClosedEarly) => {}
                Err(error) => panic!("{error}"),
            }
        });
    }
}

async fn run_two_tasks(release: &str, python: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (send, mut streams) = mpsc::channel(4);
    let server = tokio::spawn(listen(listener, AcceptPolicy::default(), send));
    let _worker = start_worker(python, port);
    let arrived = timeout(Duration::from_secs(60), streams.recv()).await;
    let (mut connection, registration) = arrived.expect("in time").expect("a worker");

    let told = registration
        .get("versions")
        .and_then(|v| v.get("packages"))
        .and_then(|p| p.get("distributed"))
        .and_then(Value::as_str);
    assert_eq!(told, Some(release));
    let dialect = Dialect::for_release(&Release::parse(release).expect("release"));
    assert_eq!(connection.generation(), dialect.generation());
    assert_eq!(connection.capabilities(), None, "stock");
    let plugins = match dialect.worker_plugins() {
        WorkerPluginsForm::ByName => Value::Map(Vec::new()),
        _ => Value::Array(Vec::new()),
    };
    let reply = Value::map([
        ("status", Value::from("OK")),
        ("time", now().into()),
        ("heartbeat-interval", 0.5.into()),
        ("worker-plugins", plugins),
    ]);
    connection
        .send(&Message::from_value(&reply))
        .await
        .expect("registered");

    for name in ["first", "second"] {
        let key = Key::from(name);
        let other = Key::from("other");
        let spec = add(&dialect, &key);
        let task = ComputeTask {
            key: &key,
            run_id: 1,
            priority: [0.0, 1.0, 0.0],
            duration: 0.5,
            run_spec: &spec,
            unproven: name == "second",
            who_has: &[],
            nbytes: &[],
            resource_restrictions: &[],
            actor: false,
            annotations: None,
            span_id: None,
            stimulus_id: "test",
        };
        let batch = [
            ToWorker::FreeKeys {
                keys: std::slice::from_ref(&other),
                stimulus_id: "test",
            },
            ToWorker::ComputeTask(task),
        ];
        connection
            .send(&dialect.encode_worker_batch(&batch))
            .await
            .expect("sent");
        let finished = timeout(Duration::from_secs(20), finished(&mut connection)).await;
        assert_eq!(finished.expect("in time"), key, "{release}");
    }

    // The scheduler's own calls to the worker.
    let address = registration
        .get("address")
        .and_then(Value::as_str)
        .expect("address");
    let options = ConnectOptions {
        generation: dialect.generation(),
        ..Default::default()
    };
    let mut rpc = Connection::connect(address, &options)
        .await
        .expect("connected");
    assert_eq!(
        rpc.handshake().is_some(),
        dialect.generation() > Generation::M0
    );
    let arguments = Value::map([
        ("keys", Value::array(["second"])),
        ("who", Value::Nil),
        ("serializers", Value::Nil),
    ]);
    rpc.send(&Request::new("get_data", arguments).to_message())
        .await
        .expect("sent");
    let answer = rpc.read().await.expect("answer").value().expect("decoded");
    rpc.send(&Message::from_value(&"OK".into()))
        .await
        .expect("sent");
    assert_eq!(
        answer.get("status").and_then(Value::as_str),
        Some("OK"),
        "{release}"
    );
    let data = answer
        .get("data")
        .and_then(|d| d.get("second"))
        .expect("the result");
    let (pickle, _) = data
        .as_payload()
        .expect("lifted")
        .as_pickle(100)
        .expect("valid")
        .expect("pickle");
    assert!(pickle.ends_with(b"K\x03."), "3, pickled: {pickle:?}");
    rpc.send(&Request::new("identity", Value::Map(Vec::new())).to_message())
        .await
        .expect("sent");
    let identity = rpc.read().await.expect("answer").value().expect("decoded");
    assert_eq!(identity.get("type").and_then(Value::as_str), Some("Worker"));

    let bye = [ToWorker::Close { reason: "test" }, ToWorker::CloseStream];
    connection
        .send(&dialect.encode_worker_batch(&bye))
        .await
        .expect("sent");
    server.abort();
}

/// Reads the stream until a task is done; returns its key.
async fn finished(connection: &mut Connection) -> Key {
    loop {
        let message = connection.read().await.expect("the stream lives");
        for item in message.items() {
            match FromWorker::decode(&item.expect("an item")).expect("decoded") {
                FromWorker::TaskFinished(task) => return task.key,
                FromWorker::TaskErred(task) => panic!("{task:?}"),
                FromWorker::Unknown(item) => panic!("unknown op {}", item.op),
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_workers_register_and_run_tasks() {
    for (release, variable) in RELEASES {
        match std::env::var(variable) {
            Ok(python) => run_two_tasks(release, &python).await,
            Err(_) => println!("skipped for {release}: {variable} names no interpreter"),
        }
    }
    // Any other releases at hand, as a list of interpreters.
    for python in std::env::var("OXIDASK_PY_OTHERS")
        .iter()
        .flat_map(|list| list.split(':'))
    {
        let code = "import distributed; print(distributed.__version__, end='')";
        let output = Command::new(python)
            .args(["-c", code])
            .output()
            .expect("interpreter starts");
        let release = String::from_utf8(output.stdout).expect("text");
        println!("{release}");
        run_two_tasks(&release, python).await;
    }
}

#[tokio::test]
async fn our_own_peers_recognise_each_other_in_every_generation() {
    for generation in [Generation::M0, Generation::M1, Generation::M3] {
        let (caller, listener) = tokio::io::duplex(4096);
        let policy = AcceptPolicy {
            capabilities: vec!["a".into()],
            ..Default::default()
        };
        let options = ConnectOptions {
            generation,
            capabilities: vec!["b".into()],
            ..Default::default()
        };
        let call = async {
            let mut caller = Connection::establish("test", caller, &options)
                .await
                .expect("caller");
            let ping = Request::new("ping", Value::Map(Vec::new()));
            caller.send(&ping.to_message()).await.expect("sent");
            caller
        };
        let accept = Connection::accept(listener, &policy, None, None);
        let (caller, accepted) = tokio::join!(call, accept);
        let mut accepted = accepted.expect("accepted");
        assert_eq!(accepted.generation(), generation);
        assert_eq!(
            Request::decode(&accepted.read().await.expect("ping"))
                .expect("ping")
                .op,
            "ping"
        );
        if generation > Generation::M0 {
            assert_eq!(caller.capabilities(), Some(&["a".to_owned()][..]));
            assert_eq!(accepted.capabilities(), Some(&["b".to_owned()][..]));
        }
    }
}
