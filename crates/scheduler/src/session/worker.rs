//! A worker's connection: registration, then a stream in both directions.

mod incoming;
mod outgoing;
mod register;

use std::sync::Arc;
use std::time::Duration;

use oxidask_scheduler_core::effect::WorkerMsg;
use oxidask_scheduler_core::event::Event;
use oxidask_wire::connection::{Reader, Writer};
use oxidask_wire::dialect::Dialect;
use oxidask_wire::error::{DecodeError, ReadError};
use oxidask_wire::message::Message;
use oxidask_wire::message::worker::ToWorker;

use super::{Pace, stimulus};
use crate::aside::aside;
use crate::context::Context;
use crate::handlers::replicate::gather_on_workers;
use crate::outbox::{OutboxReader, Outgoing};
use crate::rpc::{self, Call, RpcError, StreamPeer};
use crate::traffic::{PeerKind, Tally, Traffic};
use crate::workers::WorkerEntry;
use incoming::{Repeated, Step};

/// How long a worker that was removed may take to close its end.
const LINGER: Duration = Duration::from_secs(60);
/// Effects encoded into one message.
const MAX_BATCH: usize = 4096;

/// Tells a worker why it is not let in.
pub(super) async fn deny(context: &Context, call: &Call, error: RpcError, mut writer: Writer) {
    let refused = register::Refused::Message(error.exception().message().to_owned());
    let answer = refused.into_answer(context, call);
    // A worker that is gone does not need to know.
    let _ = writer.send(&Message::from_value(&answer)).await;
    let _ = writer.shutdown().await;
}

/// Serves a worker from its registration to its end.
pub async fn run(context: Arc<Context>, call: Call, mut reader: Reader, mut writer: Writer) {
    let (outbox, queue) = crate::outbox::outbox(context.settings.max_queued_bytes);
    let worker = match register::register(&context, &call, outbox).await {
        Ok(worker) => worker,
        Err(refused) => {
            let answer = refused.into_answer(&context, &call);
            // A worker that is gone does not need to know.
            let _ = writer.send(&Message::from_value(&answer)).await;
            let _ = writer.shutdown().await;
            return;
        }
    };
    let reply = register::reply(&context, &worker);
    if writer.send(&Message::from_value(&reply)).await.is_ok() {
        tracing::info!(target: "distributed.scheduler", "Starting worker compute stream, {}", worker.info.address);
        let mut writing = tokio::spawn(write(
            Arc::clone(&context),
            Arc::clone(&worker),
            writer,
            queue,
        ));
        tokio::select! {
            () = read(&context, &worker, &mut reader) => {}
            _ = &mut writing => {}
        }
        writing.abort();
    }
    leave(&context, &worker).await;
}

/// The stream has ended. A worker that closes by itself says so, yet its running tasks are blamed as
/// if it had died: who may leave is removed before (`retire_workers`, `unregister`).
async fn leave(context: &Arc<Context>, worker: &WorkerEntry) {
    if context.workers.get(worker.id).is_some() {
        if let Some(death) = context.obituaries.of(worker).await {
            tracing::info!(target: "distributed.scheduler", "The process of worker {} ended: {death}", worker.info.address);
            context.core.send(Event::WorkerDied {
                worker: worker.id,
                death,
            });
        }
        context.core.send(Event::RemoveWorker {
            worker: worker.id,
            expected: false,
            close: false,
            stimulus_id: stimulus("handle-worker-cleanup"),
        });
    }
}

/// Reads the stream until it ends.
async fn read(context: &Arc<Context>, worker: &Arc<WorkerEntry>, reader: &mut Reader) {
    let mut events = Vec::new();
    let mut tally = context.traffic.tally(PeerKind::Worker);
    let mut repeated = Repeated::default();
    loop {
        context.core.ready().await;
        let message = match reader.read().await {
            Ok(message) => message,
            Err(ReadError::Closed) => return,
            Err(error) => {
                tracing::warn!("stream of worker {} broke: {error}", worker.info.address);
                return;
            }
        };
        let handled = handle(
            context,
            worker,
            &message,
            &mut repeated,
            &mut events,
            &mut tally,
        );
        match handled.await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::error!("worker {} is dropped: {error}", worker.info.address);
                return;
            }
        }
    }
}

/// Handles one batch; whether the stream goes on.
async fn handle(
    context: &Arc<Context>,
    worker: &Arc<WorkerEntry>,
    message: &Message,
    repeated: &mut Repeated,
    events: &mut Vec<Event>,
    tally: &mut Tally<'_>,
) -> Result<bool, DecodeError> {
    let record = context.is_recording();
    let mut open = true;
    let received = message.wire_bytes();
    context.traffic.received(PeerKind::Worker, received);
    for item in message.items() {
        let item = item?;
        tally.add(item.op, item.raw.len());
        match incoming::step(worker, &item, record, repeated, events)? {
            Step::Continue => {}
            Step::Extension(value) => {
                context.core.send_batch(std::mem::take(events));
                let peer = StreamPeer::Worker(Arc::clone(worker));
                rpc::run_stream_handler(context, peer, value).await;
            }
            Step::Close => {
                open = false;
                break;
            }
        }
    }
    tally.flush();
    context.core.send_batch(std::mem::take(events));
    Ok(open)
}

/// Writes what is queued until told to close or the connection breaks.
async fn write(
    context: Arc<Context>,
    worker: Arc<WorkerEntry>,
    mut writer: Writer,
    mut queue: OutboxReader<WorkerMsg>,
) {
    let dialect = Dialect::for_release(&worker.release);
    let mut pace = Pace::even();
    while let Some(first) = queue.next().await {
        pace.turn().await;
        fetch_for(&context, &worker, &dialect, &first);
        let mut stream = Stream {
            dialect: &dialect,
            traffic: &context.traffic,
            writer: &mut writer,
            orders: Vec::new(),
        };
        let mut closing = stream.feed(first);
        while !closing && let Some(more) = queue.try_next() {
            fetch_for(&context, &worker, &dialect, &more);
            closing = stream.feed(more);
        }
        stream.feed_orders();
        let flushed = tokio::select! {
            biased;
            () = queue.overrun() => {
                tracing::warn!(target: "distributed.scheduler", "Worker {} is given up: it does not read, and too much waits for it", worker.info.address);
                return;
            }
            flushed = writer.flush() => flushed,
        };
        if let Err(error) = flushed {
            tracing::debug!("stream to worker {} broke: {error}", worker.info.address);
            return;
        }
        pace.wrote(1);
        if closing {
            // The worker ends the connection when it has read what it was told.
            tokio::time::sleep(LINGER).await;
            let _ = writer.shutdown().await;
            return;
        }
    }
}

/// Workers up to 2021.09.1 do not know `acquire-replicas`: they are asked to fetch by RPC.
fn fetch_for(
    context: &Arc<Context>,
    worker: &Arc<WorkerEntry>,
    dialect: &Dialect,
    item: &Outgoing<WorkerMsg>,
) {
    if dialect.has_acquire_replicas() {
        return;
    }
    let Outgoing::Core(effects) = item else {
        return;
    };
    for effect in effects {
        if let WorkerMsg::AcquireReplicas { who_has, .. } = effect {
            let fetches = vec![(Arc::clone(&worker.info.address), who_has.clone())];
            let context = Arc::clone(context);
            tokio::spawn(async move {
                // What could not be fetched is asked for again by the memory manager.
                let _ = gather_on_workers(&context, fetches).await;
            });
        }
    }
}

/// What goes into one write.
struct Stream<'a> {
    dialect: &'a Dialect,
    traffic: &'a Traffic,
    writer: &'a mut Writer,
    /// Orders of the core that go into one message: a worker pays for each message.
    orders: Vec<WorkerMsg>,
}

impl Stream<'_> {
    /// Queues one item for writing; whether it is the last.
    fn feed(&mut self, item: Outgoing<WorkerMsg>) -> bool {
        match item {
            Outgoing::Core(effects) if self.orders.is_empty() => self.orders = effects,
            Outgoing::Core(effects) => self.orders.extend(effects),
            Outgoing::Message(value) => {
                self.feed_orders();
                self.feed_batch(&[ToWorker::Other(&value)]);
            }
            Outgoing::Close => return true,
        }
        false
    }

    fn feed_orders(&mut self) {
        let orders = std::mem::take(&mut self.orders);
        let inputs = orders.iter().map(|order| match order {
            WorkerMsg::ComputeTask(task) => task.who_has.len(),
            _ => 0,
        });
        aside(inputs.sum(), || {
            for chunk in orders.chunks(MAX_BATCH) {
                let batch: Vec<ToWorker<'_>> = chunk.iter().filter_map(outgoing::message).collect();
                self.feed_batch(&batch);
            }
            // Of a task with very many inputs this takes as long as writing it.
            drop(orders);
        });
    }

    fn feed_batch(&mut self, batch: &[ToWorker<'_>]) {
        let message = self.dialect.encode_worker_batch(batch);
        self.traffic.sent(PeerKind::Worker, message.wire_bytes());
        if let Err(error) = self.writer.feed(&message) {
            tracing::error!("bug: a message for a worker could not be encoded: {error}");
        }
    }
}
