//! What a nanny says to the scheduler: registration, the end of a worker, events.

use std::time::Duration;

use oxidask_wire::connection::ConnectOptions;
use oxidask_wire::error::{ConnectError, DecodeError, ReadError, WriteError};
use oxidask_wire::rpc::Request;
use oxidask_wire::{Connection, Generation, Message, Release, Value, obituary};
use tokio::time::{Instant, sleep, timeout};

use super::{Nanny, StartError};

/// First release whose nannies register.
const REGISTRATION: Release = Release::new(2021, 7, 2);
/// First release whose nannies keep the connection until they are up, and say who they are.
const REPORT: Release = Release::new(2023, 9, 0);
/// First release whose schedulers want to know why a worker is unregistered.
const STIMULUS: Release = Release::new(2022, 4, 2);
/// Between two attempts to reach the scheduler.
const PAUSE: Duration = Duration::from_millis(250);
/// For a message that nothing depends on.
const COURTESY: Duration = Duration::from_secs(10);

/// Why the scheduler was not told, or did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// A registration that is under way.
pub(super) struct Registration {
    connection: Option<Connection>,
    reply: Option<Message>,
}

/// Tells the scheduler that a nanny starts. Tries until `--death-timeout`, for good without one: a
/// scheduler that comes later is not an error.
pub(super) async fn register(nanny: &Nanny) -> Result<Registration, StartError> {
    let settings = &nanny.0.settings;
    if settings.release < REGISTRATION {
        return Ok(Registration {
            connection: None,
            reply: None,
        });
    }
    let begin = Instant::now();
    let mut told = false;
    loop {
        let error = match begin_registration(nanny).await {
            Ok(registration) => return Ok(registration),
            Err(error) => error,
        };
        let scheduler = &settings.common.scheduler;
        if let Some(limit) = settings.death_timeout
            && begin.elapsed().as_secs_f64() >= limit
        {
            return Err(StartError::Timeout(format!(
                "no scheduler at {scheduler} within {limit} s (--death-timeout); last error: {error}"
            )));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("Waiting to connect to: {scheduler} ({error})");
        }
        sleep(PAUSE).await;
    }
}

async fn begin_registration(nanny: &Nanny) -> Result<Registration, CallError> {
    let mut args = Value::Map(Vec::new());
    let keeps = nanny.0.settings.release >= REPORT;
    if keeps {
        args.insert("address", nanny.0.address.as_str());
    }
    let mut connection = connect(nanny).await?;
    let request = Request::new("register_nanny", args);
    connection.send(&request.to_message()).await?;
    let reply = connection.read().await?;
    reply.value()?;
    Ok(Registration {
        connection: keeps.then_some(connection),
        reply: Some(reply),
    })
}

impl Registration {
    /// Hands the plugins of the scheduler's answer to Python, if there are any. One that fails says so in
    /// the log, as in stock.
    pub(super) async fn set_plugins_up(mut self, nanny: &Nanny) -> Self {
        let Some(reply) = self.reply.take() else {
            return self;
        };
        let plugins = reply.value().ok();
        let plugins = plugins
            .as_ref()
            .and_then(|value| value.get("nanny-plugins"));
        let any = plugins
            .and_then(Value::as_map)
            .is_some_and(|map| !map.is_empty());
        if any && let Err(error) = nanny.set_plugins_up(&reply).await {
            tracing::error!("the nanny's plugins could not be set up: {error}");
        }
        self
    }

    /// Tells the scheduler that the nanny is up.
    pub(super) async fn finish(self) {
        if let Some(mut connection) = self.connection {
            let message = Message::from_value(&Value::map([("status", "ok")]));
            connection.send(&message).await.ok();
        }
    }
}

/// A worker has ended. The scheduler has noticed the end of its connection already, mostly.
pub(super) async fn unregister(nanny: &Nanny, worker: &str) {
    let mut args = Value::map([("address", worker)]);
    if nanny.0.settings.release >= STIMULUS {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs_f64();
        args.insert("stimulus_id", format!("nanny-close-{now}"));
    }
    call(nanny, "unregister", args).await;
}

/// Event `worker-restart-memory`, since 2023.9 at the latest; older schedulers keep it as well.
pub(super) async fn log_memory_event(nanny: &Nanny, worker: Option<String>, pid: u32, rss: u64) {
    let event = Value::map([
        ("worker", Value::from(worker.as_deref())),
        ("pid", pid.into()),
        ("rss", rss.into()),
    ]);
    log_event(nanny, "worker-restart-memory".into(), event).await;
}

/// Event [`obituary::ACTION`]. Schedulers of ours put the reason into what they tell of tasks that ran there
/// (`obituaries`); others keep it in their logs of events.
pub(super) async fn log_end(
    nanny: &Nanny,
    worker: &str,
    pid: u32,
    reason: &str,
    running: Vec<String>,
) {
    let event = Value::map([
        ("action", Value::from(obituary::ACTION)),
        ("worker", worker.into()),
        ("pid", pid.into()),
        ("reason", reason.into()),
        ("running", Value::array(running)),
    ]);
    let topics = Value::array([worker, "all"]);
    log_event(nanny, topics, event).await;
}

/// An event for the scheduler's log of events.
pub(super) async fn log_event(nanny: &Nanny, topic: Value, msg: Value) {
    let args = Value::map([("topic", topic), ("msg", msg)]);
    call(nanny, "log_event", args).await;
}

async fn call(nanny: &Nanny, op: &str, args: Value) {
    let answered = async {
        let mut connection = connect(nanny).await?;
        connection
            .send(&Request::new(op, args).to_message())
            .await?;
        connection.read().await?;
        Ok(())
    };
    let answered = timeout(COURTESY, answered).await;
    if let Err(error) = answered.unwrap_or(Err(CallError::Timeout(COURTESY))) {
        tracing::debug!("{op}: {error}");
    }
}

async fn connect(nanny: &Nanny) -> Result<Connection, ConnectError> {
    let settings = &nanny.0.settings;
    let options = ConnectOptions {
        generation: Generation::of(&settings.release),
        timeout: settings.connect_timeout,
        security: settings.security.clone(),
        server_name: settings.server_name.clone(),
        ..ConnectOptions::default()
    };
    Connection::connect(&settings.common.scheduler.to_string(), &options).await
}
