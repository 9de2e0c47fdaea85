//! Python for what only Python can do, outside of the scheduler's process.
//!
//! Some submissions are pickled Python objects whose meaning only their own code knows (DataFrame
//! expressions, parts of array and bag). [`PythonHost`] has them expanded into single tasks, by a
//! process of our own ([`process`], [`pool`]) or by a connected peer ([`delegate`]); both run the
//! same sources (`python/`), which travel inside this binary. [`service`] connects it with the rest of
//! the scheduler. Nothing is ever unpickled in this
//! process, and with mode `off` nowhere on behalf of the scheduler.
//!
//! Whatever that code does (raise, crash, hang, answer nonsense) fails the one request it worked on.

mod config;
mod delegate;
mod error;
mod expand;
mod followers;
mod frames;
mod lasting;
mod link;
mod mirror;
mod policies;
mod pool;
mod process;
mod server;
mod service;
mod session;
mod sessions;
mod source;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

pub use config::{Mode, PythonHostConfig, UnknownMode};
pub use delegate::{BoxFuture, Delegate, DelegateError, DelegateRpc};
pub use error::{HostError, Raised};
pub use expand::{Annotations, ExpandRequest, ExpandedGraph, ExpandedTask, SubmittedGraph};
pub use lasting::{Closing, PreloadError};
pub use process::Hello;
pub use service::PythonService;
pub use session::{Feed, Function, Question, SessionHandle, StateSource};

use delegate::Delegated;
use frames::Message;
use pool::Pool;
use sessions::Sessions;

/// How much Python is used, for the metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFigures {
    /// Local processes that expand a graph.
    pub busy: usize,
    /// Local processes that wait for one.
    pub idle: usize,
    /// Graphs so far.
    pub requests: u64,
    /// Of these, how many failed.
    pub failures: u64,
}

/// Access to Python. One per scheduler; clones share everything.
#[derive(Clone)]
pub struct PythonHost {
    config: Arc<PythonHostConfig>,
    pool: Arc<Pool>,
    delegated: Option<Arc<Delegated>>,
    sessions: Arc<Sessions>,
    requests: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
}

/// Who does it.
enum Backend {
    Local,
    Delegated(Arc<Delegated>),
}

impl PythonHost {
    /// Starts nothing yet. Without `delegates` there is only the local backend, without `state`
    /// functions of clients cannot be run.
    pub fn new(
        config: PythonHostConfig,
        delegates: Option<Arc<dyn DelegateRpc>>,
        state: Option<Arc<dyn StateSource>>,
    ) -> Self {
        let config = Arc::new(config);
        Self {
            pool: Pool::new(Arc::clone(&config)),
            delegated: delegates.map(|rpc| Arc::new(Delegated::new(rpc))),
            sessions: Sessions::new(state),
            config,
            requests: Arc::default(),
            failures: Arc::default(),
        }
    }

    /// Expands a graph by the release of the client that submitted it. Other requests go on
    /// meanwhile.
    ///
    /// # Errors
    /// See [`HostError`]; each fails this graph only.
    pub async fn expand(&self, request: &ExpandRequest) -> Result<ExpandedGraph, HostError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let expanded = self.try_expand(request).await;
        if expanded.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        expanded
    }

    /// How much it is used.
    pub fn figures(&self) -> HostFigures {
        let (busy, idle) = self.pool.figures();
        HostFigures {
            busy,
            idle,
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    async fn try_expand(&self, request: &ExpandRequest) -> Result<ExpandedGraph, HostError> {
        let message = expand::encode_request(request)?;
        let (answer, host) = self.ask(request.release, &message).await?;
        let answer = expand::check_status(answer, &host, request.release)?;
        expand::decode_answer(answer, &host)
    }

    /// Runs a function of `run_on_scheduler`; the answer for the client, which may be an error map.
    ///
    /// # Errors
    /// See [`HostError`]; each fails this call only.
    pub async fn run_function(
        &self,
        function: Function,
        release: Release,
    ) -> Result<Value, HostError> {
        let session = self.sessions.get(self, release).await?;
        self.sessions.settle(&session).await;
        session
            .run_function(function, self.config.function_timeout)
            .await
    }

    /// Starts a feed: a function whose values go to a client at an interval.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn feed(&self, function: Function, release: Release) -> Result<Feed, HostError> {
        self.sessions.get(self, release).await?.feed(function)
    }

    /// Ends all processes; requests under way fail.
    pub fn close(&self) {
        self.sessions.close();
        self.pool.close();
        if !self.config.directory.as_os_str().is_empty() {
            // Mostly it was never made.
            let _ = std::fs::remove_dir_all(&self.config.directory);
        }
    }

    async fn ask(
        &self,
        release: Release,
        message: &Message,
    ) -> Result<(Message, Arc<str>), HostError> {
        let timeout = self.config.timeout;
        match self.backend(release).await? {
            Backend::Local => self.pool.ask(message, timeout).await,
            Backend::Delegated(peers) => peers.ask(release, message, timeout).await,
        }
    }

    /// Chooses by the mode, the local Python's release, and who is connected.
    async fn backend(&self, release: Release) -> Result<Backend, HostError> {
        let delegated = self.delegated.as_ref();
        if self.config.mode == Mode::Off {
            return Err(HostError::Off);
        }
        if self.config.mode != Mode::Delegated {
            let local = match self.pool.hello().await {
                Ok(Hello {
                    distributed: Some(has),
                    ..
                }) if Release::parse(&has) == Some(release) => return Ok(Backend::Local),
                Ok(Hello {
                    distributed: Some(has),
                    executable,
                    ..
                }) => format!("{executable} has distributed {has}"),
                Ok(Hello { executable, .. }) => format!("{executable} has no distributed"),
                Err(reason) => reason,
            };
            if self.config.mode == Mode::Local || delegated.is_none() {
                return Err(HostError::NoBackend {
                    release,
                    local,
                    delegated: "asking workers is turned off".to_owned(),
                });
            }
        }
        match delegated {
            Some(peers) => Ok(Backend::Delegated(Arc::clone(peers))),
            None => Err(HostError::NoBackend {
                release,
                local: "local processes are turned off (--python-host delegated)".to_owned(),
                delegated: "asking workers is not possible here".to_owned(),
            }),
        }
    }
}
