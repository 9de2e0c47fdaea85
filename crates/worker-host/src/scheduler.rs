//! The connection to the scheduler: registration, then orders in and reports out.

use std::sync::Arc;
use std::time::Duration;

use oxidask_wire::connection::Reader;
use oxidask_wire::message::order::Order;
use oxidask_wire::message::worker::FromWorker;
use oxidask_wire::{Connection, Dialect, Message, Release, Value};
use oxidask_worker_core::event::Event;
use oxidask_worker_core::status::WorkerStatus;

use crate::books::Input;
use crate::clock::{now, stimulus};
use crate::error::SchedulerError;
use crate::heartbeat::{beat, interval_in};
use crate::host::Handle;
use crate::interpreter::Interpreter;
use crate::metrics::{Figures, Meter};
use crate::outlet::Outlet;
use crate::peers::connect_options;
use crate::settings::Settings;
use crate::translate::{Meaning, meaning};

/// Between two attempts to reach the scheduler.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two signs of life on the stream.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Bytes of a run spec that may be produced anew by decompressing and joining.
const SPEC_LIMIT: usize = 4 << 30;
/// First release whose schedulers know `status` in a registration.
const STATUS: Release = Release::new(2021, 10, 0);
/// First release whose schedulers know `stimulus_id` in a registration.
const STIMULUS: Release = Release::new(2022, 4, 2);
/// First release whose schedulers know `server_id` in a registration.
const SERVER_ID: Release = Release::new(2022, 6, 1);

/// Registers and serves the stream until it ends; returns why.
pub(crate) async fn serve(
    settings: Arc<Settings>,
    handle: Handle,
    interpreter: Arc<dyn Interpreter>,
) -> Result<String, SchedulerError> {
    let (connection, reply) = register_in_time(&settings, &handle).await?;
    let value = reply.value()?;
    let warning = value.get("warning").and_then(Value::as_str);
    if let Some(warning) = warning.filter(|text| !text.is_empty()) {
        tracing::warn!("{warning}");
    }
    let (mut reader, writer) = connection.split();
    // Plugins first: tasks may need them.
    let frames = reply.frames().cloned().collect();
    interpreter.registered(frames).await.ok();
    let outlet = Arc::new(Outlet::new(writer));
    let dialect = Dialect::for_release(&settings.release);
    let sign = dialect.encode_scheduler_batch(&[FromWorker::KeepAlive]);
    let writing = tokio::spawn({
        let outlet = Arc::clone(&outlet);
        async move { outlet.keep_writing(&sign, KEEP_ALIVE).await }
    });
    handle.send(Input::Connected(Arc::clone(&outlet)));
    handle.event(Event::SetStatus {
        status: WorkerStatus::Running,
        stimulus_id: stimulus("worker-status-change"),
    });
    let beating = tokio::spawn(beat(settings, handle.clone(), interval_in(&value)));
    let reason = tokio::select! {
        reason = read(&mut reader, &handle, &interpreter) => reason,
        reason = handle.closing() => Ok(reason),
    };
    beating.abort();
    handle.send(Input::Say(
        Dialect::for_release(&Release::NEWEST).encode_scheduler_batch(&[FromWorker::CloseStream]),
    ));
    handle.send(Input::End);
    writing.abort();
    let flushed = tokio::time::timeout(Duration::from_secs(2), outlet.flush()).await;
    if !matches!(flushed, Ok(Ok(()))) {
        tracing::debug!("the last messages to the scheduler were not written");
    }
    reason
}

async fn register_in_time(
    settings: &Settings,
    handle: &Handle,
) -> Result<(Connection, Message), SchedulerError> {
    let begin = tokio::time::Instant::now();
    loop {
        let error = match register(settings, handle).await {
            Ok(done) => return Ok(done),
            Err(error @ (SchedulerError::Refused(_) | SchedulerError::Decode(_))) => {
                return Err(error);
            }
            Err(error) => error,
        };
        tracing::info!("Waiting to connect to: {} ({error})", settings.scheduler);
        if let Some(limit) = settings.death_timeout
            && begin.elapsed().as_secs_f64() >= limit
        {
            return Err(SchedulerError::Death {
                address: settings.scheduler.clone(),
                seconds: limit,
                last: error.to_string(),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn register(
    settings: &Settings,
    handle: &Handle,
) -> Result<(Connection, Message), SchedulerError> {
    let mut connection =
        Connection::connect(&settings.scheduler, &connect_options(settings)).await?;
    let figures = handle.ask(Figures::of).await.unwrap_or_default();
    let metrics = Meter::new().metrics(&figures, handle.store().sizes(), &settings.release);
    let request = registration(settings, handle, metrics);
    connection.send(&Message::from_value(&request)).await?;
    let reply = connection.read().await?;
    let value = reply.value()?;
    if value.get("status").and_then(Value::as_str) != Some("OK") {
        let message = ["message", "exception_text", "text"]
            .iter()
            .find_map(|name| value.get(name)?.as_str().map(str::to_owned));
        return Err(SchedulerError::Refused(
            message.unwrap_or_else(|| format!("{value:?}")),
        ));
    }
    Ok((connection, reply))
}

fn registration(settings: &Settings, handle: &Handle, metrics: Value) -> Value {
    let empty = || Value::Map(Vec::new());
    let resources = settings.resources.iter();
    let mut fields = Value::map([
        ("op", Value::from("register-worker")),
        ("reply", false.into()),
        ("address", handle.address().into()),
        ("nthreads", settings.nthreads.into()),
        ("name", name(settings, handle)),
        ("now", now().0.into()),
        (
            "resources",
            resources.map(|(name, amount)| (name, *amount)).collect(),
        ),
        ("memory_limit", settings.memory_limit.into()),
        ("local_directory", settings.local_directory.as_str().into()),
        ("services", empty()),
        ("nanny", settings.nanny.as_deref().into()),
        ("pid", std::process::id().into()),
        ("versions", settings.versions.clone()),
        ("metrics", metrics),
        ("extra", empty()),
    ]);
    if settings.release >= STATUS {
        // It becomes `running` when the plugins are set up.
        fields.insert("status", WorkerStatus::Init.as_str());
    }
    if settings.release >= STIMULUS {
        fields.insert("stimulus_id", stimulus("worker-connect"));
    }
    if settings.release >= SERVER_ID {
        fields.insert("server_id", handle.id());
    }
    fields
}

fn name(settings: &Settings, handle: &Handle) -> Value {
    match &settings.name {
        Value::Nil => handle.address().into(),
        name => name.clone(),
    }
}

async fn read(
    reader: &mut Reader,
    handle: &Handle,
    interpreter: &Arc<dyn Interpreter>,
) -> Result<String, SchedulerError> {
    loop {
        let message = match reader.read().await {
            Ok(message) => message,
            Err(error) => {
                tracing::info!("Connection to scheduler broken: {error}");
                return Ok("worker-handle-scheduler-connection-broken".into());
            }
        };
        let mut events = Vec::new();
        for item in message.items() {
            match meaning(Order::decode(&item?, SPEC_LIMIT)?) {
                Meaning::Event(event) => events.push(event),
                Meaning::Close(reason) => return Ok(reason),
                Meaning::Other(op, mut fields) => {
                    fields.insert("op", op);
                    let message = Message::from_value(&fields);
                    interpreter.stream(message.frames().cloned().collect());
                }
            }
        }
        if !events.is_empty() {
            handle.send(Input::Events(events));
        }
    }
}
