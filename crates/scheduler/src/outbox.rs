//! The queue in front of a peer's stream: what the core and the handlers want to tell it.
//!
//! Unbounded in principle, as a scheduler cannot drop messages, but a peer that does not read while
//! [`MAX_QUEUED_MESSAGES`] wait is given up: its queue is closed, which ends its session.
//!
//! A peer's requests have connections of their own. Where it matters to the peer whether it reads an
//! answer or its stream first, a [`Checkpoint`] keeps the two in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oxidask_scheduler_core::effect::{ClientMsg, WorkerMsg};
use oxidask_wire::value::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Messages that may wait for one peer.
pub const MAX_QUEUED_MESSAGES: usize = 20_000_000;

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
    queue: mpsc::UnboundedReceiver<Queued<M>>,
    queued: Arc<AtomicUsize>,
    /// A checkpoint that was come to.
    barrier: Option<Barrier>,
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
            barrier: None,
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
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn push(&self, count: usize, item: Outgoing<M>) {
        let queued = self.queued.fetch_add(count, Ordering::Relaxed);
        if queued > MAX_QUEUED_MESSAGES {
            let _ = self.queue.send(Queued::Item(Outgoing::Close));
            return;
        }
        let _ = self.queue.send(Queued::Item(item));
    }
}

impl<M> OutboxReader<M> {
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
        let count = match &item {
            Outgoing::Core(messages) => messages.len(),
            Outgoing::Message(_) => 1,
            Outgoing::Close => 0,
        };
        self.queued.fetch_sub(count, Ordering::Relaxed);
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(item: Option<Outgoing<ClientMsg>>) -> Option<String> {
        match item {
            Some(Outgoing::Message(value)) => Some(value.as_str()?.to_owned()),
            _ => None,
        }
    }

    #[tokio::test]
    async fn what_follows_a_checkpoint_waits_for_it() {
        let (sender, mut reader) = outbox::<ClientMsg>();
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
        let (sender, mut reader) = outbox::<ClientMsg>();
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
        let (sender, mut reader) = outbox::<ClientMsg>();
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
    async fn nobody_waits_for_a_session_that_ended() {
        let (sender, reader) = outbox::<ClientMsg>();
        let checkpoint = sender.checkpoint();
        drop(reader);
        checkpoint.reached().await;
        sender.checkpoint().reached().await;
    }
}
