//! Answering callers: schedulers, clients through them, workers. What runs code of users goes to Python.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oxidask_wire::connection::{AcceptPolicy, SocketOptions, configure};
use oxidask_wire::pickle::Exception;
use oxidask_wire::rpc::{ErrorStatus, Request, error_reply};
use oxidask_wire::{Connection, Generation, Message, Release, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Nanny;

/// Connections at the same time; further callers wait.
const MAX_CONNECTIONS: usize = 512;
/// After an error of `accept` (mostly: no file descriptor left).
const PAUSE: Duration = Duration::from_millis(100);
/// First release whose `kill` is followed by a new process without being asked.
const KILL_RESTARTS: Release = Release::new(2022, 5, 1);
/// Longest time that a caller can ask for.
const LONGEST: f64 = 3600.0;

/// What is to be said to a request.
enum Answer {
    Value(Value),
    Message(Message),
}

/// Serves callers until the nanny has ended.
pub(super) async fn serve(nanny: Nanny, listener: TcpListener) {
    let policy = Arc::new(AcceptPolicy {
        // All peers have our release.
        silent: Generation::of(&nanny.0.settings.release),
        ..AcceptPolicy::default()
    });
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("can not accept a connection: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (nanny, policy) = (nanny.clone(), Arc::clone(&policy));
        tokio::spawn(async move {
            if let Some(connection) = settle(&nanny, &policy, stream).await {
                converse(&nanny, connection).await;
            }
            drop(permit);
        });
    }
}

async fn settle(nanny: &Nanny, policy: &AcceptPolicy, stream: TcpStream) -> Option<Connection> {
    let peer = stream.peer_addr().ok();
    if let Err(error) = configure(&stream, &SocketOptions::default()) {
        tracing::debug!("socket options of {peer:?}: {error}");
    }
    let settings = &nanny.0.settings;
    let settled = match (settings.scheme.is_encrypted(), settings.security.server()) {
        (false, _) => Connection::accept(stream, policy, peer, None).await,
        (true, Some(tls)) => match tls.accept(stream).await {
            Ok(stream) => Connection::accept(stream, policy, peer, None).await,
            Err(error) => {
                tracing::warn!(target: "distributed.comm.tcp", "TLS handshake failed with remote {peer:?}: {error}");
                return None;
            }
        },
        // Refused when the nanny was made.
        (true, None) => return None,
    };
    settled
        .inspect_err(|error| tracing::debug!("{peer:?} was not let in: {error}"))
        .ok()
}

/// Serves one caller until it leaves, or says something that is no request.
async fn converse(nanny: &Nanny, mut connection: Connection) {
    loop {
        let Ok(message) = connection.read().await else {
            return;
        };
        let request = match Request::decode(&message) {
            Ok(request) => request,
            Err(error) => return tracing::warn!("not a request: {error}"),
        };
        let (reply, close) = (request.reply, request.close || request.op == "close");
        let answer = match nanny.answer(request, &message).await {
            Answer::Value(value) => Message::from_value(&value),
            Answer::Message(message) => message,
        };
        if reply && connection.send(&answer).await.is_err() {
            return;
        }
        if close {
            return;
        }
    }
}

impl Nanny {
    async fn answer(&self, request: Request, message: &Message) -> Answer {
        let op = request.op.as_str();
        if self.0.settings.blocked.iter().any(|blocked| blocked == op) {
            let text = format!(
                "The '{op}' handler has been explicitly disallowed in Nanny, possibly due to security \
                 concerns."
            );
            return self.error(&Exception::value_error(text));
        }
        let args = &request.args;
        Answer::Value(match op {
            "close" => "OK".into(),
            "ping" => Value::Bin(Bytes::from_static(b"pong")),
            "echo" => args.get("data").cloned().unwrap_or_default(),
            "identity" => self.identity(),
            "dump_state" => self.dump(),
            "get_logs" => logs(args),
            "instantiate" => match self.instantiate().await {
                Ok(()) => status_of("running"),
                Err(error) => return self.error(&Exception::runtime_error(error)),
            },
            "kill" => {
                let timeout = seconds(args, "timeout", self.kill_timeout());
                let stay_down = self.0.settings.release < KILL_RESTARTS;
                self.kill(timeout, reason(args, "nanny-kill"), stay_down)
                    .await;
                Value::Nil
            }
            "restart" => return self.restart(args).await,
            "terminate" => {
                let timeout = seconds(args, "timeout", 5.0);
                self.close(timeout, false, reason(args, "nanny-close"))
                    .await;
                "OK".into()
            }
            "close_gracefully" => {
                self.close_gracefully(reason(args, "nanny-close-gracefully"));
                Value::Nil
            }
            "run" | "plugin_add" | "plugin_remove" => return self.by_python(op, message).await,
            _ => {
                tracing::warn!(target: "distributed.core", "No handler {op} found in Nanny");
                Value::Nil
            }
        })
    }

    /// Stock's default of `kill`, by release.
    fn kill_timeout(&self) -> f64 {
        if self.0.settings.release < Release::new(2023, 9, 0) {
            2.0
        } else {
            5.0
        }
    }

    async fn restart(&self, args: &Value) -> Answer {
        let limit = seconds(args, "timeout", 30.0);
        let own = Duration::try_from_secs_f64(self.kill_timeout()).unwrap_or(limit);
        let fresh = async {
            self.kill(own, reason(args, "nanny-restart"), true).await;
            self.instantiate().await
        };
        match tokio::time::timeout(limit, fresh).await {
            Ok(Ok(())) => Answer::Value("OK".into()),
            Ok(Err(error)) => self.error(&Exception::runtime_error(error)),
            Err(_) => {
                tracing::error!("Restart timed out after {limit:?}; returning before finished");
                Answer::Value("timed out".into())
            }
        }
    }

    async fn by_python(&self, op: &str, message: &Message) -> Answer {
        match self.ask_python("request", message).await {
            Ok(message) => Answer::Message(message),
            Err(error) => {
                tracing::error!("{op}: {error}");
                self.error(&Exception::runtime_error(format!("{op}: {error}")))
            }
        }
    }

    fn error(&self, exception: &Exception) -> Answer {
        let release = Some(&self.0.settings.release);
        Answer::Value(error_reply(exception, ErrorStatus::UncaughtError, release))
    }

    fn identity(&self) -> Value {
        Value::map([("type", "Nanny"), ("id", self.0.id.as_str())])
    }

    fn dump(&self) -> Value {
        let worker = self.0.worker.lock().clone();
        Value::map([
            ("type", Value::from("Nanny")),
            ("id", self.0.id.as_str().into()),
            ("address", self.0.address.as_str().into()),
            ("status", self.status().as_str().into()),
            ("worker_address", worker.address.as_deref().into()),
            ("worker_dir", worker.directory.as_deref().into()),
            ("pid", worker.pid.into()),
        ])
    }
}

/// A value of stock's enum `Status`.
fn status_of(name: &str) -> Value {
    Value::map([
        ("__Enum__", Value::from(true)),
        ("name", name.into()),
        ("__module__", "distributed.core".into()),
        ("__name__", "Status".into()),
    ])
}

fn reason<'a>(args: &'a Value, default: &'a str) -> &'a str {
    args.get("reason")
        .and_then(Value::as_str)
        .unwrap_or(default)
}

fn seconds(args: &Value, name: &str, default: f64) -> Duration {
    let given = args.get(name).and_then(Value::as_f64);
    let seconds = given.unwrap_or(default).clamp(0.0, LONGEST);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(5))
}

/// The last log lines, newest first.
fn logs(args: &Value) -> Value {
    let start = args.get("start").and_then(Value::as_f64).unwrap_or(0.0);
    let count = args.get("n").and_then(Value::as_u64);
    let count = count.and_then(|count| usize::try_from(count).ok());
    let timestamps = args.get("timestamps").and_then(Value::as_bool);
    let lines = oxidask_logging::buffer().newest(start, count);
    let entry = |line: oxidask_logging::LogLine| {
        let mut entry = vec![Value::from(line.level), Value::from(&*line.text)];
        if timestamps == Some(true) {
            entry.insert(0, line.created.into());
        }
        Value::Array(entry)
    };
    Value::Array(lines.into_iter().map(entry).collect())
}
