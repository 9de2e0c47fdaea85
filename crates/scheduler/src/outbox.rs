//! The queue in front of a peer's stream: what the core and the handlers want to tell it.
//!
//! Unbounded in principle, as a scheduler cannot drop messages, but a peer that does not read while
//! [`MAX_QUEUED_MESSAGES`] wait is given up: its queue is closed, which ends its session.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oxidask_scheduler_core::effect::{ClientMsg, WorkerMsg};
use oxidask_wire::value::Value;
use tokio::sync::mpsc;

/// Messages that may wait for one peer.
pub const MAX_QUEUED_MESSAGES: usize = 20_000_000;

/// One item of the queue.
#[derive(Debug)]
pub enum Outgoing<M> {
    /// What the core says; composed for the peer's release by its session.
    Core(Vec<M>),
    /// A stream message that a handler composed for this peer (`event`, `pubsub-msg`, …): a map
    /// with `op`.
    Message(Box<Value>),
    /// Write what came before, then end the stream.
    Close,
}

/// Sending side; cheap to clone.
#[derive(Debug)]
pub struct Outbox<M> {
    queue: mpsc::UnboundedSender<Outgoing<M>>,
    queued: Arc<AtomicUsize>,
}

impl<M> Clone for Outbox<M> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            queued: Arc::clone(&self.queued),
        }
    }
}

/// Receiving side, owned by the session that writes to the peer.
#[derive(Debug)]
pub struct OutboxReader<M> {
    queue: mpsc::UnboundedReceiver<Outgoing<M>>,
    queued: Arc<AtomicUsize>,
}

/// Messages to a worker.
pub type WorkerOutbox = Outbox<WorkerMsg>;
/// Messages to a client.
pub type ClientOutbox = Outbox<ClientMsg>;

/// A new queue.
pub fn outbox<M>() -> (Outbox<M>, OutboxReader<M>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let queued = Arc::<AtomicUsize>::default();
    (
        Outbox {
            queue: sender,
            queued: Arc::clone(&queued),
        },
        OutboxReader {
            queue: receiver,
            queued,
        },
    )
}

impl<M> Outbox<M> {
    /// Queues messages of the core. Ignored when the session has ended.
    pub fn send_core(&self, messages: Vec<M>) {
        let count = messages.len();
        self.push(count, Outgoing::Core(messages));
    }

    /// Queues one composed message. Ignored when the session has ended.
    pub fn send_message(&self, message: Value) {
        self.push(1, Outgoing::Message(Box::new(message)));
    }

    /// Asks the session to write what is queued and to end.
    pub fn close(&self) {
        let _ = self.queue.send(Outgoing::Close);
    }

    /// Messages that wait to be written.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn push(&self, count: usize, item: Outgoing<M>) {
        let queued = self.queued.fetch_add(count, Ordering::Relaxed);
        if queued > MAX_QUEUED_MESSAGES {
            let _ = self.queue.send(Outgoing::Close);
            return;
        }
        let _ = self.queue.send(item);
    }
}

impl<M> OutboxReader<M> {
    /// The next item; waits for it. Nothing when every sender is gone.
    pub async fn next(&mut self) -> Option<Outgoing<M>> {
        let item = self.queue.recv().await?;
        self.taken(&item);
        Some(item)
    }

    /// The next item if one is there.
    pub fn try_next(&mut self) -> Option<Outgoing<M>> {
        let item = self.queue.try_recv().ok()?;
        self.taken(&item);
        Some(item)
    }

    fn taken(&self, item: &Outgoing<M>) {
        let count = match item {
            Outgoing::Core(messages) => messages.len(),
            Outgoing::Message(_) => 1,
            Outgoing::Close => 0,
        };
        self.queued.fetch_sub(count, Ordering::Relaxed);
    }
}
