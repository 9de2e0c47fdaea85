//! A client's connection: registration, then a stream in both directions.

pub(crate) mod incoming;
mod outgoing;

use std::sync::Arc;
use std::time::Duration;

use oxidask_key::Key;
use oxidask_scheduler_core::effect::ClientMsg;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::ids::ClientId;
use oxidask_wire::connection::{Reader, Writer};
use oxidask_wire::dialect::Dialect;
use oxidask_wire::error::{DecodeError, ReadError};
use oxidask_wire::message::client::ToClient;
use oxidask_wire::message::{Item, Message};
use oxidask_wire::value::Value;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::{Pace, release_of, stimulus};
use crate::clients::{ClientConnection, ClientEntry};
use crate::clock;
use crate::context::Context;
use crate::graph_intake;
use crate::handlers::restart::{Restart, restart_then_tell};
use crate::outbox::{OutboxReader, Outgoing};
use crate::roles::Roles;
use crate::rpc::{self, Call, RpcError, StreamPeer};
use crate::traffic::{PeerKind, Traffic};
use crate::versions;
use incoming::Step;

/// Messages of a client that are read ahead while a graph of it is being expanded.
const READ_AHEAD: usize = 64;
/// Graphs from so many bytes on are taken in by other threads than those that serve requests.
const LARGE_GRAPH: usize = 100 << 10;
/// Effects encoded into one message.
const MAX_BATCH: usize = 4096;
/// How long a client whose session ended may take to read what is left.
const LINGER: Duration = Duration::from_secs(2);

/// Tells a client why it is not let in. Stock clients raise this text.
pub(super) async fn deny(call: &Call, error: &RpcError, mut writer: Writer) {
    let versions = call.args.get("versions").cloned().unwrap_or_default();
    let dialect = Dialect::for_release(&release_of(&versions));
    let text = error.exception();
    let start = ToClient::StreamStart {
        warning: "",
        error: text.message(),
    };
    // A client that is gone does not need to know.
    let _ = writer.send(&dialect.encode_client_batch(&[start])).await;
    let _ = writer.shutdown().await;
}

/// Serves a client from its registration to its end.
pub async fn run(context: Arc<Context>, call: Call, reader: Reader, mut writer: Writer) {
    let (outbox, queue) = crate::outbox::outbox(context.settings.max_queued_bytes);
    let name: Arc<str> = match call.str("client") {
        Ok(name) => name.into(),
        Err(error) => {
            let answer = rpc::error_reply(&error, &call.caller, context.settings.max_error_length);
            // A client that is gone does not need to know.
            let _ = writer.send(&Message::from_value(&answer)).await;
            return;
        }
    };
    let versions = call.args.get("versions").cloned().unwrap_or_default();
    let release = release_of(&versions);
    context.releases.note(call.caller.ip, release);
    context.python.admitted().await;
    tracing::info!(target: "distributed.scheduler", "Receive client connection: {name}");
    let dialect = Dialect::for_release(&release);
    let warning = mismatch(&context, &versions);
    let start = ToClient::StreamStart {
        warning: &warning,
        error: "",
    };
    // Clients insist that this message comes alone.
    let start = dialect.encode_client_batch(&[start]);
    if writer.send(&start).await.is_err() {
        return;
    }
    let connection = ClientConnection {
        release,
        versions,
        peer: Arc::clone(&call.caller.address),
        roles: call.caller.roles,
        outbox,
        last_seen: Mutex::new(clock::now()),
    };
    let client = context.clients.connect(&context.core, &name, connection);
    tracing::info!(target: "distributed.core", "Starting established connection to {}", call.caller.address);
    log_client(&context, &client, "add-client");
    for extension in &context.extensions {
        extension.client_added(&context, &client);
    }
    let traffic = Arc::clone(&context.traffic);
    let mut writing = tokio::spawn(write(Arc::clone(&client), traffic, dialect, writer, queue));
    let written = tokio::select! {
        () = serve(&context, &client, reader) => false,
        _ = &mut writing => true,
    };
    leave(&context, &client);
    if let Some(connection) = &client.connection {
        if !context.shutdown.is_requested() {
            let closed = Value::map([("op", "stream-closed")]);
            connection.outbox.send_message(closed);
        }
        connection.outbox.close();
    }
    if !written && tokio::time::timeout(LINGER, &mut writing).await.is_err() {
        writing.abort();
    }
}

fn mismatch(context: &Context, versions: &Value) -> String {
    versions::mismatch_warning(versions, "Client", &context.workers.versions(None))
}

fn log_client(context: &Arc<Context>, client: &ClientEntry, action: &str) {
    let event = Value::map([("action", action), ("client", &*client.name)]);
    context.log_event(&["all", &client.name], &event);
}

fn leave(context: &Arc<Context>, client: &Arc<ClientEntry>) {
    tracing::info!(target: "distributed.scheduler", "Remove client {}", client.name);
    log_client(context, client, "remove-client");
    context
        .clients
        .remove(&context.core, client.id, &stimulus("remove-client"));
    for extension in &context.extensions {
        extension.client_removed(context, client);
    }
}

/// Handles the client's messages in order until it leaves. Reading goes on while a graph is being
/// expanded, so that the end of the connection ends the expansion.
async fn serve(context: &Arc<Context>, client: &Arc<ClientEntry>, reader: Reader) {
    let (sender, mut messages) = mpsc::channel(READ_AHEAD);
    let (gone, is_gone) = watch::channel(false);
    let name = Arc::clone(&client.name);
    let core = context.core.clone();
    let reading = tokio::spawn(async move {
        let mut reader = reader;
        loop {
            core.ready().await;
            match reader.read().await {
                Ok(message) => {
                    if sender.send(message).await.is_err() {
                        return;
                    }
                }
                Err(ReadError::Closed) => break,
                Err(error) => {
                    tracing::warn!("stream of client {name} broke: {error}");
                    break;
                }
            }
        }
        gone.send_replace(true);
    });
    let mut events = Vec::new();
    while let Some(message) = messages.recv().await {
        match handle(context, client, message, &mut events, &is_gone).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                tracing::error!("client {} is dropped: {error}", client.name);
                break;
            }
        }
    }
    reading.abort();
}

/// Handles one batch; whether the stream goes on.
async fn handle(
    context: &Arc<Context>,
    client: &Arc<ClientEntry>,
    message: Message,
    events: &mut Vec<Event>,
    is_gone: &watch::Receiver<bool>,
) -> Result<bool, DecodeError> {
    context
        .traffic
        .received(PeerKind::Client, message.wire_bytes());
    let mut items = message.items();
    while let Some(item) = items.next() {
        let item = item?;
        context
            .traffic
            .tally(PeerKind::Client)
            .add(item.op, item.raw.len());
        if !may_ask(client, item.op) {
            refuse(client, &item)?;
            continue;
        }
        let step = incoming::step(context, client, &item, events)?;
        if matches!(step, Step::Continue) {
            continue;
        }
        context.core.send_batch(std::mem::take(events));
        match step {
            Step::Continue => {}
            Step::Graph(graph) => {
                // What workers sent before comes first: a worker that has just said that it runs
                // takes part. The runtime would else go on here with what arrived last.
                tokio::task::yield_now().await;
                let bytes = message.wire_bytes();
                if items.is_at_end() {
                    // It may be large; what is still needed of it is in the graph.
                    drop(message);
                    take_in(context, client, graph, bytes, is_gone).await;
                    return Ok(true);
                }
                take_in(context, client, graph, bytes, is_gone).await;
            }
            Step::Release {
                client,
                keys,
                stimulus_id,
            } => release(context, client, &keys, &stimulus_id).await,
            Step::Handler(value) => {
                let peer = StreamPeer::Client(Arc::clone(client));
                rpc::run_stream_handler(context, peer, value).await;
            }
            Step::Restart { timeout } => restart(context, timeout),
            Step::Heartbeat => heartbeat(context, client),
            Step::Close => return Ok(false),
        }
    }
    context.core.send_batch(std::mem::take(events));
    Ok(true)
}

/// Takes a graph of so many bytes in, unless the client leaves before that is done.
async fn take_in(
    context: &Arc<Context>,
    client: &Arc<ClientEntry>,
    graph: Value,
    bytes: usize,
    is_gone: &watch::Receiver<bool>,
) {
    let places = context.places.clone();
    let (context, client) = (Arc::clone(context), Arc::clone(client));
    let mut gone = is_gone.clone();
    let taken = async move {
        tokio::select! {
            biased;
            () = graph_intake::update_graph(&context, &client, graph) => {}
            _ = gone.wait_for(|gone| *gone) => {
                tracing::info!("client {} left while its graph was being expanded", client.name);
            }
        }
    };
    match bytes >= LARGE_GRAPH {
        true => places.take_in(taken).await,
        false => taken.await,
    }
}

/// Releases many results, some at a time.
async fn release(context: &Context, client: ClientId, keys: &[Key], stimulus_id: &Arc<str>) {
    for keys in keys.chunks(incoming::RELEASED_AT_ONCE) {
        let event = Event::ClientReleasesKeys {
            client,
            keys: keys.to_vec(),
            stimulus_id: Arc::clone(stimulus_id),
        };
        // An error means that the scheduler ends.
        let _ = context.core.apply(vec![event]).await;
    }
}

/// Whether the client's certificate allows an op of its stream.
fn may_ask(client: &ClientEntry, op: &str) -> bool {
    let looks = matches!(
        op,
        "heartbeat-client"
            | "close-client"
            | "close-stream"
            | "subscribe-topic"
            | "unsubscribe-topic"
            | "client-releases-keys"
    );
    let roles = client
        .connection
        .as_ref()
        .map(|connection| connection.roles);
    looks || roles.is_none_or(Roles::may_submit)
}

/// Fails the keys of a graph that may not be submitted; other messages have no answer.
fn refuse(client: &ClientEntry, item: &Item<'_>) -> Result<(), DecodeError> {
    let reason = format!("client {} may only look, not '{}'", client.name, item.op);
    tracing::warn!(target: "distributed.scheduler", "Permission denied: {reason}");
    if item.op.starts_with("update-graph") {
        graph_intake::deny_graph(client, item.value()?, reason);
    }
    Ok(())
}

/// Notes that the client lives. Clients from 2025.4.0 on are told how often to say that they live.
fn heartbeat(context: &Context, client: &ClientEntry) {
    const ADJUSTABLE: oxidask_wire::release::Release =
        oxidask_wire::release::Release::new(2025, 4, 0);
    let Some(connection) = &client.connection else {
        return;
    };
    *connection.last_seen.lock() = clock::now();
    if connection.release >= ADJUSTABLE {
        let clients = context.clients.connected().len();
        let interval = 10.0 * crate::workers::heartbeat_interval(clients);
        connection.outbox.send_message(Value::map([
            ("op", Value::from("adjust-heartbeat-interval")),
            ("interval", interval.into()),
        ]));
    }
}

/// `restart` on the stream (≤ 2022.7.0) is answered on the stream, by the core.
fn restart(context: &Arc<Context>, timeout: Option<f64>) {
    let context = Arc::clone(context);
    tokio::spawn(async move {
        let restart = Restart {
            workers: None,
            timeout: timeout.unwrap_or(30.0),
            wait: true,
            raise: true,
            stimulus_id: stimulus("restart"),
        };
        if let Err(error) = restart_then_tell(&context, restart).await {
            tracing::error!("restart: {error}");
        }
    });
}

/// Writes what is queued until told to close or the connection breaks.
async fn write(
    client: Arc<ClientEntry>,
    traffic: Arc<Traffic>,
    dialect: Dialect,
    mut writer: Writer,
    mut queue: OutboxReader<ClientMsg>,
) {
    let mut pace = Pace::of_flow();
    while let Some(first) = queue.next().await {
        pace.turn().await;
        let mut items = 1;
        let mut stream = Stream {
            dialect: &dialect,
            traffic: &traffic,
            writer: &mut writer,
            news: Vec::new(),
        };
        let mut closing = stream.feed(first);
        while !closing && let Some(more) = queue.try_next() {
            closing = stream.feed(more);
            items += 1;
        }
        stream.feed_news();
        let flushed = tokio::select! {
            biased;
            () = queue.overrun() => {
                tracing::warn!(target: "distributed.scheduler", "Client {} is given up: it does not read, and too much waits for it", client.name);
                return;
            }
            flushed = writer.flush() => flushed,
        };
        if let Err(error) = flushed {
            tracing::debug!("stream to client {} broke: {error}", client.name);
            return;
        }
        pace.wrote(items);
        if closing {
            let _ = writer.shutdown().await;
            return;
        }
    }
}

/// What goes into one write.
struct Stream<'a> {
    dialect: &'a Dialect,
    traffic: &'a Traffic,
    writer: &'a mut Writer,
    /// News of the core that go into one message: a client pays for each message.
    news: Vec<ClientMsg>,
}

impl Stream<'_> {
    /// Queues one item for writing; whether it is the last.
    fn feed(&mut self, item: Outgoing<ClientMsg>) -> bool {
        match item {
            Outgoing::Core(effects) if self.news.is_empty() => self.news = effects,
            Outgoing::Core(effects) => self.news.extend(effects),
            Outgoing::Message(value) => {
                self.feed_news();
                self.feed_batch(&[ToClient::Other(&value)]);
            }
            Outgoing::Close => return true,
        }
        false
    }

    fn feed_news(&mut self) {
        let news = std::mem::take(&mut self.news);
        for chunk in news.chunks(MAX_BATCH) {
            let prepared: Vec<_> = chunk
                .iter()
                .map(|effect| outgoing::prepare(effect, self.dialect.release()))
                .collect();
            let batch: Vec<ToClient<'_>> = prepared.iter().map(outgoing::message).collect();
            self.feed_batch(&batch);
        }
    }

    fn feed_batch(&mut self, batch: &[ToClient<'_>]) {
        let message = self.dialect.encode_client_batch(batch);
        self.traffic.sent(PeerKind::Client, message.wire_bytes());
        if let Err(error) = self.writer.feed(&message) {
            tracing::error!("bug: a message for a client could not be encoded: {error}");
        }
    }
}
