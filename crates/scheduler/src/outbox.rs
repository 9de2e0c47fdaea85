//! The queue in front of a peer's stream: what the core and the handlers want to tell it.
//!
//! A scheduler cannot drop messages, and whoever has something to tell never waits for a peer. So a peer that does not
//! read while more waits for it than `oxidask.comm.max-queued-bytes` is given up: what would come after that is
//! dropped, and its session ends ([`OutboxReader::overrun`]), with all that waits. It may come back as a new one.
//!
//! A peer's requests have connections of their own. Where it matters to the peer whether it reads an
//! answer or its stream first, a [`Checkpoint`] keeps the two in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use oxidask_scheduler_core::effect::{ClientMsg, WorkerMsg};
use oxidask_wire::value::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::weight::Weigh;

/// How long a [`Checkpoint`] can hold a stream up: who holds it may itself wait for a peer that does
/// not read.
pub const MAX_HOLD: Duration = Duration::from_secs(1);

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

/// What is in the queue.
#[derive(Debug)]
enum Queued<M> {
    Item(Outgoing<M>),
    Checkpoint(Barrier),
}

/// The reader's side of a checkpoint.
#[derive(Debug)]
struct Barrier {
    /// Dropped when the reader comes to it.
    reached: Option<oneshot::Sender<()>>,
    /// Ends when the reader may go on.
    open: oneshot::Receiver<()>,
    /// When it goes on anyway; known once it has come here.
    until: Option<Instant>,
}

impl Barrier {
    /// Says that the reader is here, and waits until it may go on.
    async fn pass(&mut self) {
        self.reached = None;
        let until = *self.until.get_or_insert_with(|| Instant::now() + MAX_HOLD);
        // Nothing is ever sent: its holder lets go of it.
        let _ = timeout_at(until, &mut self.open).await;
    }
}

/// A place in the queue: what was queued before it is written, what is queued after it waits until
/// this is dropped, [`MAX_HOLD`] at most.
#[derive(Debug)]
pub struct Checkpoint {
    reached: oneshot::Receiver<()>,
    _open: oneshot::Sender<()>,
}

impl Checkpoint {
    /// Resolves when everything before it was written, or the session has ended.
    pub async fn reached(mut self) {
        // An error says that the barrier is gone: reached, or lost with the session.
        let _ = (&mut self.reached).await;
    }
}

/// Sending side; cheap to clone.
#[derive(Debug)]
pub struct Outbox<M> {
    queue: mpsc::UnboundedSender<Queued<M>>,
    load: Arc<Load>,
}

/// What waits.
#[derive(Debug)]
struct Load {
    messages: AtomicUsize,
    /// Roughly.
    bytes: AtomicUsize,
    limit: usize,
    is_overrun: AtomicBool,
    overrun: Notify,
}

impl<M: Weigh> Outgoing<M> {
    /// Messages, and their bytes.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Core(messages) => {
                let bytes = messages.iter().map(Weigh::weight).sum();
                (messages.len(), bytes)
            }
            Self::Message(message) => (1, message.weight()),
            Self::Close => (0, 0),
        }
    }
}

impl<M> Clone for Outbox<M> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            load: Arc::clone(&self.load),
        }
    }
}

/// Receiving side, owned by the session that writes to the peer.
#[derive(Debug)]
pub struct OutboxReader<M> {
    queue: mpsc::UnboundedReceiver<Queued<M>>,
    load: Arc<Load>,
    /// A checkpoint that was come to.
    barrier: Option<Barrier>,
}

/// Messages to a worker.
pub type WorkerOutbox = Outbox<WorkerMsg>;
/// Messages to a client.
pub type ClientOutbox = Outbox<ClientMsg>;

/// A new queue, of `limit` bytes.
pub fn outbox<M>(limit: usize) -> (Outbox<M>, OutboxReader<M>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let load = Arc::new(Load {
        messages: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        limit,
        is_overrun: AtomicBool::new(false),
        overrun: Notify::new(),
    });
    (
        Outbox {
            queue: sender,
            load: Arc::clone(&load),
        },
        OutboxReader {
            queue: receiver,
            load,
            barrier: None,
        },
    )
}

impl<M: Weigh> Outbox<M> {
    /// Queues messages of the core. Ignored when the session has ended.
    pub fn send_core(&self, messages: Vec<M>) {
        self.push(Outgoing::Core(messages));
    }

    /// Queues one composed message. Ignored when the session has ended.
    pub fn send_message(&self, message: Value) {
        self.push(Outgoing::Message(Box::new(message)));
    }

    /// Asks the session to write what is queued and to end.
    pub fn close(&self) {
        let _ = self.queue.send(Queued::Item(Outgoing::Close));
    }

    /// Marks the place behind what is queued now. Nothing further is written while it is held, up to
    /// [`MAX_HOLD`].
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        let (reached, is_reached) = oneshot::channel();
        let (open, is_open) = oneshot::channel();
        let barrier = Barrier {
            reached: Some(reached),
            open: is_open,
            until: None,
        };
        let _ = self.queue.send(Queued::Checkpoint(barrier));
        Checkpoint {
            reached: is_reached,
            _open: open,
        }
    }

    /// Messages that wait to be written.
    pub fn queued(&self) -> usize {
        self.load.messages.load(Ordering::Relaxed)
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn push(&self, item: Outgoing<M>) {
        let load = &self.load;
        if load.is_overrun.load(Ordering::Relaxed) {
            return;
        }
        let (messages, bytes) = item.size();
        let waiting = load.bytes.fetch_add(bytes, Ordering::Relaxed);
        load.messages.fetch_add(messages, Ordering::Relaxed);
        // One message alone may be larger.
        if waiting > load.limit {
            load.is_overrun.store(true, Ordering::Relaxed);
            load.overrun.notify_one();
            return;
        }
        let _ = self.queue.send(Queued::Item(item));
    }
}

impl<M: Weigh> OutboxReader<M> {
    /// Resolves when more waits than may: messages were dropped, and the session has to end.
    pub async fn overrun(&self) {
        self.load.overrun.notified().await;
    }

    /// The next item; waits for it. Nothing when every sender is gone.
    ///
    /// To ask for it says that all earlier ones were written. Can be given up and asked again.
    pub async fn next(&mut self) -> Option<Outgoing<M>> {
        loop {
            if let Some(barrier) = &mut self.barrier {
                barrier.pass().await;
                self.barrier = None;
            }
            match self.queue.recv().await? {
                Queued::Item(item) => return Some(self.taken(item)),
                Queued::Checkpoint(barrier) => self.barrier = Some(barrier),
            }
        }
    }

    /// The next item if one is there that belongs into the same write.
    pub fn try_next(&mut self) -> Option<Outgoing<M>> {
        if self.barrier.is_some() {
            return None;
        }
        match self.queue.try_recv().ok()? {
            Queued::Item(item) => Some(self.taken(item)),
            Queued::Checkpoint(barrier) => {
                self.barrier = Some(barrier);
                None
            }
        }
    }

    fn taken(&self, item: Outgoing<M>) -> Outgoing<M> {
        let (messages, bytes) = item.size();
        self.load.messages.fetch_sub(messages, Ordering::Relaxed);
        self.load.bytes.fetch_sub(bytes, Ordering::Relaxed);
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn op(item: Option<Outgoing<ClientMsg>>) -> Option<String> {
        match item {
            Some(Outgoing::Message(value)) => Some(value.as_str()?.to_owned()),
            _ => None,
        }
    }

    #[tokio::test]
    async fn what_follows_a_checkpoint_waits_for_it() {
        let (sender, mut reader) = outbox::<ClientMsg>(LIMIT);
        sender.send_message("before".into());
        let checkpoint = sender.checkpoint();
        sender.send_message("after".into());
        assert_eq!(op(reader.next().await).as_deref(), Some("before"));
        assert!(reader.try_next().is_none(), "not in the same write");
        let reading = tokio::spawn(async move { op(reader.next().await) });
        tokio::task::yield_now().await;
        assert!(!reading.is_finished());
        drop(checkpoint);
        assert_eq!(reading.await.unwrap().as_deref(), Some("after"));
        assert_eq!(sender.queued(), 0);
    }

    #[tokio::test]
    async fn a_checkpoint_is_reached_when_what_came_before_was_written() {
        let (sender, mut reader) = outbox::<ClientMsg>(LIMIT);
        sender.send_message("before".into());
        let waiting = tokio::spawn(sender.checkpoint().reached());
        assert_eq!(op(reader.next().await).as_deref(), Some("before"));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "read, not yet written");
        let reading = tokio::spawn(async move { op(reader.next().await) });
        waiting.await.unwrap();
        sender.send_message("after".into());
        assert_eq!(reading.await.unwrap().as_deref(), Some("after"));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_holds_a_stream_up_for_long() {
        let (sender, mut reader) = outbox::<ClientMsg>(LIMIT);
        let _checkpoint = sender.checkpoint();
        sender.send_message("after".into());
        let begin = Instant::now();
        // Given up and asked again, as beside other work.
        let given_up = tokio::time::timeout(MAX_HOLD / 2, reader.next()).await;
        assert!(given_up.is_err(), "it is held");
        assert_eq!(op(reader.next().await).as_deref(), Some("after"));
        assert_eq!(begin.elapsed(), MAX_HOLD);
    }

    #[tokio::test]
    async fn more_than_may_wait_ends_the_session() {
        let (sender, mut reader) = outbox::<ClientMsg>(10_000);
        let text = || Value::from("x".repeat(1000));
        // Whoever reads is never given up.
        for _ in 0..100 {
            sender.send_message(text());
            assert!(reader.next().await.is_some());
        }
        let ended = tokio::time::timeout(Duration::ZERO, reader.overrun()).await;
        assert!(ended.is_err(), "not yet");
        for _ in 0..100 {
            sender.send_message(text());
        }
        reader.overrun().await;
        assert!(sender.queued() < 15, "the rest is dropped");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_session_that_ended() {
        let (sender, reader) = outbox::<ClientMsg>(LIMIT);
        let checkpoint = sender.checkpoint();
        drop(reader);
        checkpoint.reached().await;
        sender.checkpoint().reached().await;
    }
}
