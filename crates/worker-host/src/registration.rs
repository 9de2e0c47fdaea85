//! Registering with the scheduler, for the first time and again.

use std::sync::Arc;
use std::time::Duration;

use oxidask_key::Key;
use oxidask_wire::{Connection, Message, Release, Value, obituary};
use oxidask_worker_core::status::WorkerStatus;

use crate::clock::{now, stimulus};
use crate::error::SchedulerError;
use crate::host::Handle;
use crate::metrics::{Figures, Meter, Surroundings};
use crate::peers::connect_options;
use crate::settings::Settings;

/// Between two attempts to reach the scheduler: at first, and at most.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(2);
/// First release whose schedulers know `status` in a registration.
const STATUS: Release = Release::new(2021, 10, 0);
/// First release whose schedulers know `stimulus_id` in a registration.
const STIMULUS: Release = Release::new(2022, 4, 2);
/// First release whose schedulers refuse workers that tell what they hold (`nbytes`).
pub(crate) const EMPTY_HANDED: Release = Release::new(2022, 5, 1);
/// First release whose schedulers know `server_id` in a registration.
const SERVER_ID: Release = Release::new(2022, 6, 1);

/// Registers, however long it takes: up to the death timeout, or, if there was a scheduler before
/// (`again`), as long as that is waited for.
pub(crate) async fn register_in_time(
    settings: &Settings,
    handle: &Handle,
    again: bool,
) -> Result<(Connection, Message), SchedulerError> {
    let begin = tokio::time::Instant::now();
    let limit = match settings.death_timeout {
        None if again => Some(settings.reconnect_timeout),
        limit => limit,
    };
    let mut pause = PAUSE.start;
    loop {
        let error = match register(settings, handle, again).await {
            Ok(done) => return Ok(done),
            Err(error @ SchedulerError::Decode(_)) => return Err(error),
            // It may not have noticed yet that the former stream is gone.
            Err(error @ SchedulerError::Refused(_)) if !again => return Err(error),
            Err(error) => error,
        };
        tracing::info!("Waiting to connect to: {} ({error})", settings.scheduler);
        if let Some(limit) = limit
            && begin.elapsed().as_secs_f64() >= limit
        {
            return Err(SchedulerError::Death {
                address: settings.scheduler.clone(),
                seconds: limit,
                last: error.to_string(),
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.end);
    }
}

async fn register(
    settings: &Settings,
    handle: &Handle,
    again: bool,
) -> Result<(Connection, Message), SchedulerError> {
    let mut connection =
        Connection::connect(&settings.scheduler, &connect_options(settings)).await?;
    let figures = handle.ask(Figures::of).await.unwrap_or_default();
    let around = Surroundings {
        sizes: handle.store().sizes(),
        ..Surroundings::default()
    };
    let metrics = Meter::new().metrics(&figures, around, &settings.release);
    let mut request = registration(settings, handle, metrics);
    if again && settings.release < EMPTY_HANDED {
        tell_data(&mut request, handle).await;
    }
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

/// What the worker holds, for schedulers that take it from the registration.
async fn tell_data(request: &mut Value, handle: &Handle) {
    let data = handle.ask(|core| {
        let data = core.data();
        data.map(|(key, nbytes)| (key.clone(), nbytes))
            .collect::<Vec<(Key, u64)>>()
    });
    let data = data.await.unwrap_or_default();
    let typename = |key: &Key| -> Arc<str> {
        let kind = handle.store().kind(key);
        kind.map_or_else(|| "object".into(), |kind| kind.typename)
    };
    request.insert("keys", Value::array(data.iter().map(|(key, _)| key)));
    request.insert(
        "nbytes",
        data.iter().map(|(k, n)| (k, *n)).collect::<Value>(),
    );
    let types = data.iter().map(|(key, _)| (key, typename(key)));
    request.insert("types", types.collect::<Value>());
}

fn registration(settings: &Settings, handle: &Handle, metrics: Value) -> Value {
    let resources = settings.resources.iter();
    let services = handle.http_port().map(|port| ("dashboard", port));
    let services: Value = services.into_iter().collect();
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
        ("services", services),
        ("nanny", settings.nanny.as_deref().into()),
        ("pid", std::process::id().into()),
        ("versions", settings.versions.clone()),
        ("metrics", metrics),
        ("extra", extra(settings, handle)),
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

/// What users' code tells of the worker, and what makes us different from stock's. Schedulers show it among
/// the facts of a worker.
fn extra(settings: &Settings, handle: &Handle) -> Value {
    let mut extra = Value::Map(handle.startup_information());
    // Its nanny is ours, too, if it has one.
    let will_be_told = settings.nanny.is_some();
    extra.insert(
        obituary::EXTRA,
        obituary::extra(env!("CARGO_PKG_VERSION"), will_be_told),
    );
    extra
}

fn name(settings: &Settings, handle: &Handle) -> Value {
    match &settings.name {
        Value::Nil => handle.address().into(),
        name => name.clone(),
    }
}
