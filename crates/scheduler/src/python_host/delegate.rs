//! Graphs expanded by a connected peer: a nanny or worker of the client's release, asked over the
//! `run` RPC that every stock one has.
//!
//! The peer is first given our Python sources (kept in its `sys.modules`), then requests. Work runs
//! in a thread of the peer and is polled for, so that its event loop stays free; a thread that hangs
//! is abandoned, nothing of the peer is killed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use oxidask_wire::release::Release;
use serde::Serialize;
use tokio::time::Instant;

use super::error::HostError;
use super::expand::encode_header;
use super::frames::{Message, joined};
use super::source::{BUNDLE, LOADER};

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Longest pause between two polls.
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// Peers tried for one request. A connection that breaks may have other reasons than the request,
/// but what kills every peer it meets must not meet them all.
const MAX_PEERS: usize = 2;

/// A peer that can evaluate Python.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    /// Where its RPC server listens.
    pub address: Arc<str>,
    /// Nannies are preferred: their process is idle.
    pub is_nanny: bool,
}

impl Delegate {
    /// For messages to people.
    pub(super) fn name(&self) -> Arc<str> {
        let kind = if self.is_nanny { "nanny" } else { "worker" };
        format!("{kind} at {}", self.address).into()
    }
}

/// A session at a peer.
pub(super) struct Session<'a> {
    /// Names it.
    pub(super) ticket: &'a str,
    /// It is to be opened.
    pub(super) fresh: bool,
}

/// Why a call of the `run` RPC brought no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelegateError {
    /// No connection: the request did not reach the peer.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke before the answer.
    #[error("the connection broke: {0}")]
    Lost(String),
    /// The peer refuses `run` (its `blocked-handlers`), or the call raised there.
    #[error("{0}")]
    Refused(String),
}

/// The scheduler's side of asking peers; implemented over its pool of connections.
pub trait DelegateRpc: Send + Sync + 'static {
    /// Connected peers of exactly this release of `distributed`, in any order.
    fn delegates(&self, release: Release) -> Vec<Delegate>;

    /// Resolves when a worker has connected since the call.
    fn worker_added(&self) -> BoxFuture<'static, ()>;

    /// Sends `{op: "run", function, args, wait: true}` to `address`; returns the frames, joined, of
    /// the `bytes` object that is the `result` of the answer.
    fn run(
        &self,
        address: &str,
        function: Bytes,
        args: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, DelegateError>>;
}

/// Asks peers.
pub(super) struct Delegated {
    rpc: Arc<dyn DelegateRpc>,
    turn: AtomicUsize,
}

#[derive(Serialize)]
struct Call<'a> {
    call: &'static str,
    ticket: &'a str,
}

impl Delegated {
    /// Over these connections.
    pub(super) fn new(rpc: Arc<dyn DelegateRpc>) -> Self {
        Self {
            rpc,
            turn: AtomicUsize::new(0),
        }
    }

    /// Passes messages to a session at `peer` and takes those that have come up since.
    ///
    /// # Errors
    /// [`HostError::Crashed`] when the peer or its session is gone.
    pub(super) async fn exchange(
        &self,
        peer: &Delegate,
        session: &Session<'_>,
        messages: &[Message],
    ) -> Result<Vec<Message>, HostError> {
        let gone = |reason: String| HostError::Crashed {
            host: peer.name().to_string(),
            reason,
        };
        let mut parts = vec![encode_header(&Call {
            call: if session.fresh { "open" } else { "exchange" },
            ticket: session.ticket,
        })?];
        parts.extend(messages.iter().map(joined));
        let lost = |error: DelegateError| gone(error.to_string());
        let mut answer = self.call(peer, &parts).await.map_err(lost)?;
        if answer.is_empty() {
            self.load(peer).await.map_err(lost)?;
            answer = self.call(peer, &parts).await.map_err(lost)?;
        }
        if answer.first() != Some(&b'+') {
            return Err(gone("it has no such session any more".to_owned()));
        }
        Message::decode(answer.slice(1..))
            .and_then(|all| all.frames.into_iter().map(Message::decode).collect())
            .map_err(|error| HostError::garbage(&peer.name(), error))
    }

    /// Has a peer of `release` answer, waiting for the first one to connect.
    ///
    /// # Errors
    /// [`HostError::NoBackend`] when none has come within `timeout`; else what happened at the peer.
    pub(super) async fn ask(
        &self,
        release: Release,
        request: &Message,
        timeout: Duration,
    ) -> Result<(Message, Arc<str>), HostError> {
        let deadline = Instant::now() + timeout;
        let mut tried: Vec<Arc<str>> = Vec::new();
        loop {
            let delegate = self.choose(release, &tried, deadline).await?;
            let name = delegate.name();
            let error = match self.ask_one(&delegate, &name, request, timeout).await {
                Ok(answer) => return Ok((answer, name)),
                Err(Failure::Host(error)) => return Err(error),
                Err(Failure::Rpc(error)) => error,
            };
            tracing::info!("Python host: {name}: {error}");
            tried.push(delegate.address);
            let done = matches!(error, DelegateError::Refused(_)) || tried.len() >= MAX_PEERS;
            if done {
                return Err(HostError::Crashed {
                    host: name.to_string(),
                    reason: error.to_string(),
                });
            }
        }
    }

    /// A peer of `release` that is not among those tried, waiting for one to connect.
    ///
    /// # Errors
    /// [`HostError::NoBackend`] when none has come in time.
    pub(super) async fn choose(
        &self,
        release: Release,
        tried: &[Arc<str>],
        deadline: Instant,
    ) -> Result<Delegate, HostError> {
        let mut told = false;
        loop {
            // Before the look, so that nobody who comes after it is missed.
            let added = self.rpc.worker_added();
            let mut peers = self.rpc.delegates(release);
            peers.retain(|peer| !tried.contains(&peer.address));
            peers.sort_by(|a, b| (!a.is_nanny, &a.address).cmp(&(!b.is_nanny, &b.address)));
            let nannies = peers.iter().filter(|peer| peer.is_nanny).count();
            let preferred = if nannies > 0 { nannies } else { peers.len() };
            if preferred > 0 {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % preferred;
                return Ok(peers.swap_remove(turn));
            }
            if !told {
                tracing::info!(
                    "Waiting for a worker of distributed {release}, whose Python is needed to expand a graph or to run a function"
                );
                told = true;
            }
            if tokio::time::timeout_at(deadline, added).await.is_err() {
                return Err(HostError::NoBackend {
                    release,
                    local: "no local Python has it".to_owned(),
                    delegated: "no worker of that release connected in time".to_owned(),
                });
            }
        }
    }

    async fn ask_one(
        &self,
        delegate: &Delegate,
        name: &str,
        request: &Message,
        timeout: Duration,
    ) -> Result<Message, Failure> {
        let deadline = Instant::now() + timeout;
        let ticket = uuid::Uuid::new_v4().simple().to_string();
        let call = |call| -> Result<Vec<Bytes>, HostError> {
            Ok(vec![encode_header(&Call {
                call,
                ticket: &ticket,
            })?])
        };
        let mut start = call("start")?;
        start.push(joined(request));
        let mut answer = self.call(delegate, &start).await?;
        if answer.is_empty() {
            self.load(delegate).await?;
            answer = self.call(delegate, &start).await?;
        }
        drop(start);
        let poll = call("poll")?;
        let mut pause = Duration::from_millis(5);
        // One byte says whether it is done; the answer follows.
        while answer.first() == Some(&b'-') {
            if Instant::now() > deadline {
                let _ = self.call(delegate, &call("abandon")?).await;
                return Err(Failure::Host(HostError::TimedOut {
                    host: name.to_owned(),
                    timeout,
                    setting: "timeout",
                }));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
            answer = self.call(delegate, &poll).await?;
        }
        if answer.first() != Some(&b'+') {
            return Err(Failure::Host(HostError::garbage(
                name,
                "it does not know the request any more",
            )));
        }
        Message::decode(answer.slice(1..))
            .map_err(|error| Failure::Host(HostError::garbage(name, error)))
    }

    async fn call(&self, delegate: &Delegate, parts: &[Bytes]) -> Result<Bytes, DelegateError> {
        let source = format!(
            "(lambda m: m.delegate.call(parts) if m else b'')(__import__('sys').modules.get('{}'))",
            BUNDLE.name
        );
        self.rpc
            .run(
                &delegate.address,
                Bytes::from_static(EVAL),
                eval_args(&source, parts),
            )
            .await
    }

    async fn load(&self, delegate: &Delegate) -> Result<(), DelegateError> {
        let source = "exec(parts[0].decode(), {'NAME': parts[1].decode(), 'BUNDLE': parts[2].decode()}) or b'+'";
        let parts = [
            Bytes::from_static(LOADER.as_bytes()),
            Bytes::from_static(BUNDLE.name.as_bytes()),
            Bytes::from_static(BUNDLE.json.as_bytes()),
        ];
        self.rpc
            .run(
                &delegate.address,
                Bytes::from_static(EVAL),
                eval_args(source, &parts),
            )
            .await
            .map(drop)
    }
}

enum Failure {
    Rpc(DelegateError),
    Host(HostError),
}

impl From<DelegateError> for Failure {
    fn from(error: DelegateError) -> Self {
        Self::Rpc(error)
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

/// Pickle of `builtins.eval`. Text instead of code objects: byte code differs between releases.
const EVAL: &[u8] = b"\x80\x04cbuiltins\neval\n.";

/// Pickle of `(source, {"parts": [bytes, …]})`.
fn eval_args(source: &str, parts: &[Bytes]) -> Bytes {
    let mut out = Vec::with_capacity(
        source.len() + parts.iter().map(|part| part.len() + 9).sum::<usize>() + 64,
    );
    out.extend(b"\x80\x04X");
    out.extend((source.len() as u32).to_le_bytes());
    out.extend(source.as_bytes());
    out.extend(b"}\x8c\x05parts](");
    for part in parts {
        // BINBYTES8
        out.push(0x8e);
        out.extend((part.len() as u64).to_le_bytes());
        out.extend(part);
    }
    // APPENDS, SETITEM, TUPLE2, STOP
    out.extend(b"es\x86.");
    out.into()
}
