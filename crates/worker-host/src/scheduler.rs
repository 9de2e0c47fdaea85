//! The stream of the scheduler: orders in and reports out, and what happens when it breaks.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use oxidask_wire::Value;
use oxidask_wire::connection::Reader;
use oxidask_wire::error::ReadError;
use oxidask_wire::message::order::Order;
use oxidask_wire::message::worker::FromWorker;
use oxidask_wire::{Connection, Dialect, Message, Release};
use oxidask_worker_core::Worker;
use oxidask_worker_core::event::Event;
use oxidask_worker_core::status::WorkerStatus;

use crate::books::Input;
use crate::clock::{self, now, stimulus};
use crate::error::SchedulerError;
use crate::heartbeat::{beat, interval_in};
use crate::host::Handle;
use crate::interpreter::Interpreter;
use crate::outlet::Outlet;
use crate::patience::Watch;
use crate::registration::{EMPTY_HANDED, register_in_time};
use crate::settings::Settings;
use crate::translate::{Meaning, meaning};

/// Between two signs of life on the stream.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Bytes of a run spec that may be produced anew by decompressing and joining.
const SPEC_LIMIT: usize = 4 << 30;
/// A scheduler that does not know this worker has mostly told it to close, which is on its way.
const FAREWELL: Duration = Duration::from_secs(1);
/// After a scheduler has come back it orders anew what it knows of, and is answered with what is here;
/// then it is told of the rest.
const ORDERS_FIRST: Duration = Duration::from_secs(2);

/// How a stream ended.
enum End {
    /// The worker is to leave.
    Leave(String),
    /// It broke, or the scheduler forgot the worker.
    Lost(String),
}

/// Registers and serves the stream until the worker leaves; returns why.
pub(crate) async fn serve(
    settings: Arc<Settings>,
    handle: Handle,
    interpreter: Arc<dyn Interpreter>,
) -> Result<String, SchedulerError> {
    let mut again = false;
    loop {
        let (connection, reply) = match register_in_time(&settings, &handle, again).await {
            // As stock's worker leaves with its scheduler: in order, and for good.
            Err(error) if again => {
                tracing::error!("{error}");
                return Ok("worker-handle-scheduler-connection-broken".into());
            }
            registered => registered?,
        };
        let end = session(&settings, &handle, &interpreter, connection, reply, again).await?;
        match end {
            End::Leave(reason) => return Ok(reason),
            // It has taken the data and let the worker go.
            End::Lost(_) if handle.is_retiring() => return Ok(handle.closing().await),
            End::Lost(_)
                if settings.reconnect_timeout <= 0.0 && settings.death_timeout.is_none() =>
            {
                return Ok("worker-handle-scheduler-connection-broken".into());
            }
            End::Lost(why) => {
                tracing::warn!("Connection to scheduler broken ({why}). Reconnecting...");
                handle.send(Input::Disconnected);
                again = true;
            }
        }
    }
}

async fn session(
    settings: &Arc<Settings>,
    handle: &Handle,
    interpreter: &Arc<dyn Interpreter>,
    connection: Connection,
    reply: Message,
    again: bool,
) -> Result<End, SchedulerError> {
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
    // It may be paused, or leaving, when it comes back.
    let status = match handle.ask(Worker::status).await {
        Some(status) if again => status,
        _ => WorkerStatus::Running,
    };
    let connected = Arc::clone(&outlet);
    handle.send(Input::Connected {
        outlet: connected,
        again,
    });
    handle.set_connected(true);
    handle.event(Event::SetStatus {
        status,
        stimulus_id: stimulus("worker-status-change"),
    });
    let mut beating = tokio::spawn(beat(
        Arc::clone(settings),
        handle.clone(),
        interval_in(&value),
    ));
    let telling = tokio::spawn(tell_what_is_here(handle.clone(), again, settings.release));
    let end = tokio::select! {
        end = read(&mut reader, handle, interpreter) => end,
        reason = handle.closing() => Ok(End::Leave(reason)),
        _ = &mut beating => match tokio::time::timeout(FAREWELL, read(&mut reader, handle, interpreter)).await {
            Ok(end) => end,
            Err(_) => Ok(End::Lost("the scheduler does not know this worker".into())),
        },
    };
    handle.set_connected(false);
    beating.abort();
    telling.abort();
    if matches!(end, Ok(End::Lost(_))) {
        writing.abort();
        return end;
    }
    handle.send(Input::Say(
        Dialect::for_release(&Release::NEWEST).encode_scheduler_batch(&[FromWorker::CloseStream]),
    ));
    handle.send(Input::End);
    writing.abort();
    let flushed = tokio::time::timeout(Duration::from_secs(2), outlet.flush()).await;
    if !matches!(flushed, Ok(Ok(()))) {
        tracing::debug!("the last messages to the scheduler were not written");
    }
    end
}

/// Schedulers that do not take data from a registration are told on the stream; what they have no use
/// for they order to be dropped.
async fn tell_what_is_here(handle: Handle, again: bool, release: Release) {
    if !again || release < EMPTY_HANDED {
        return;
    }
    tokio::time::sleep(ORDERS_FIRST).await;
    let keys = handle.ask(|core| core.data().map(|(key, _)| key.clone()).collect::<Vec<_>>());
    let keys = keys.await.unwrap_or_default();
    if !keys.is_empty() {
        let stimulus_id = stimulus("reconnect");
        let message = FromWorker::AddKeys {
            keys,
            stimulus_id: Some(&stimulus_id),
        };
        handle.say(Dialect::for_release(&release).encode_scheduler_batch(&[message]));
    }
}

async fn read(
    reader: &mut Reader,
    handle: &Handle,
    interpreter: &Arc<dyn Interpreter>,
) -> Result<End, SchedulerError> {
    let mut watch = Watch::new(handle.patience());
    loop {
        let message = match next_message(reader, handle, &mut watch).await {
            Ok(message) => message,
            Err(error) => {
                return Ok(End::Lost(error.to_string()));
            }
        };
        let mut events = Vec::new();
        for item in message.items() {
            match meaning(Order::decode(&item?, SPEC_LIMIT)?) {
                Meaning::Event(event) => events.push(event),
                Meaning::Close(reason) => return Ok(End::Leave(reason)),
                Meaning::Other(op, mut fields) => {
                    fields.insert("op", op);
                    let message = Message::from_value(&fields);
                    interpreter.stream(message.frames().cloned().collect());
                }
            }
        }
        if events.len() > 1 || handle.patience().is_expected() {
            watch.begin(now());
        }
        if !events.is_empty() {
            handle.send(Input::Events(events));
        }
    }
}

/// Looks at the clock until there is one, for reports that wait.
async fn next_message(
    reader: &mut Reader,
    handle: &Handle,
    watch: &mut Watch<'_>,
) -> Result<Message, ReadError> {
    let mut reading = pin!(reader.read());
    while let Some(until) = watch.until() {
        tokio::select! {
            biased;
            message = &mut reading => return message,
            () = tokio::time::sleep(clock::until(until)) => {
                handle.send(Input::TimeUp);
                watch.looked(now());
            }
        }
    }
    reading.await
}
