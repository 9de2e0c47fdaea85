//! How messages travel to and from a session, the Python that runs functions of clients: through the
//! pipes of a process of ours, or by exchanging batches with a peer over its `run` RPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::delegate::{Delegate, Delegated, Session};
use super::error::HostError;
use super::frames::{Message, read_message, write_message};
use super::process::Process;

/// Longest pause between two exchanges with a peer while it works on something.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Both directions. Closing is noticed on `incoming`; dropping ends the other side.
pub(super) struct Link {
    /// To Python.
    pub(super) outgoing: mpsc::UnboundedSender<Message>,
    /// From Python; an error is the last item.
    pub(super) incoming: mpsc::Receiver<Result<Message, HostError>>,
    /// Messages put into `outgoing` that have not left yet.
    pub(super) unsent: Arc<AtomicUsize>,
    /// How many requests are under way: a peer is only asked while there are any.
    pub(super) busy: Arc<AtomicUsize>,
    /// For messages to people.
    pub(super) name: Arc<str>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Over the pipes of `process`.
    pub(super) fn local(process: Process) -> Self {
        let (outgoing, to_write) = mpsc::unbounded_channel();
        let (arrived, incoming) = mpsc::channel(64);
        let unsent = Arc::<AtomicUsize>::default();
        Self {
            outgoing,
            incoming,
            busy: Arc::default(),
            name: process.name.as_str().into(),
            unsent: Arc::clone(&unsent),
            task: tokio::spawn(over_pipes(process, to_write, arrived, unsent)),
        }
    }

    /// Over the `run` RPC of a peer.
    pub(super) fn delegated(peers: Arc<Delegated>, peer: Delegate) -> Self {
        let (outgoing, to_write) = mpsc::unbounded_channel();
        let (arrived, incoming) = mpsc::channel(64);
        let busy = Arc::<AtomicUsize>::default();
        let unsent = Arc::<AtomicUsize>::default();
        Self {
            outgoing,
            incoming,
            name: peer.name(),
            unsent: Arc::clone(&unsent),
            busy: Arc::clone(&busy),
            task: tokio::spawn(over_rpc(
                peers,
                peer,
                to_write,
                arrived,
                Counts { busy, unsent },
            )),
        }
    }
}

async fn over_pipes(
    mut process: Process,
    mut to_write: mpsc::UnboundedReceiver<Message>,
    arrived: mpsc::Sender<Result<Message, HostError>>,
    unsent: Arc<AtomicUsize>,
) {
    let limit = process.max_answer;
    let (stdin, stdout) = (&mut process.stdin, &mut process.stdout);
    let write = async {
        while let Some(message) = to_write.recv().await {
            write_message(stdin, &message).await?;
            unsent.fetch_sub(1, Ordering::Relaxed);
        }
        // Nobody wants anything any more.
        std::future::pending::<std::io::Result<()>>().await
    };
    let read = async {
        loop {
            let message = read_message(stdout, limit).await?;
            if arrived.send(Ok(message)).await.is_err() {
                return Ok(());
            }
        }
    };
    let end = tokio::select! {
        end = write => end.map_err(super::frames::FrameError::Io),
        end = read => end,
    };
    if let Err(error) = end {
        let words = process.last_words().await;
        let error = HostError::pipe(&process.name, error, &words);
        let _ = arrived.send(Err(error)).await;
    }
}

/// See [`Link`].
struct Counts {
    busy: Arc<AtomicUsize>,
    unsent: Arc<AtomicUsize>,
}

async fn over_rpc(
    peers: Arc<Delegated>,
    peer: Delegate,
    mut to_write: mpsc::UnboundedReceiver<Message>,
    arrived: mpsc::Sender<Result<Message, HostError>>,
    counts: Counts,
) {
    let ticket = uuid::Uuid::new_v4().simple().to_string();
    let mut fresh = true;
    let mut pause = Duration::ZERO;
    loop {
        let first = if counts.busy.load(Ordering::Relaxed) == 0 {
            match to_write.recv().await {
                Some(message) => Some(message),
                None => return,
            }
        } else {
            tokio::time::timeout(pause, to_write.recv())
                .await
                .ok()
                .flatten()
        };
        let mut batch: Vec<Message> = first.into_iter().collect();
        while let Ok(more) = to_write.try_recv() {
            batch.push(more);
        }
        let sent = !batch.is_empty();
        let session = Session {
            ticket: &ticket,
            fresh: std::mem::take(&mut fresh),
        };
        let answers = match peers.exchange(&peer, &session, &batch).await {
            Ok(answers) => answers,
            Err(error) => {
                let _ = arrived.send(Err(error)).await;
                return;
            }
        };
        counts.unsent.fetch_sub(batch.len(), Ordering::Relaxed);
        pause = if sent || !answers.is_empty() {
            Duration::from_millis(2)
        } else {
            (pause * 2).clamp(Duration::from_millis(2), MAX_PAUSE)
        };
        for answer in answers {
            if arrived.send(Ok(answer)).await.is_err() {
                return;
            }
        }
    }
}
