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
mod frames;
mod pool;
mod process;
mod service;
mod source;

use std::sync::Arc;

use oxidask_wire::release::Release;

pub use config::{Mode, PythonHostConfig, UnknownMode};
pub use delegate::{BoxFuture, Delegate, DelegateError, DelegateRpc};
pub use error::{HostError, Raised};
pub use expand::{Annotations, ExpandRequest, ExpandedGraph, ExpandedTask, SubmittedGraph};
pub use process::Hello;
pub use service::PythonService;

use delegate::Delegated;
use frames::Message;
use pool::Pool;

/// Access to Python. One per scheduler.
pub struct PythonHost {
    config: Arc<PythonHostConfig>,
    pool: Arc<Pool>,
    delegated: Option<Delegated>,
}

/// Who does it.
enum Backend<'a> {
    Local,
    Delegated(&'a Delegated),
}

impl PythonHost {
    /// Starts nothing yet. Without `delegates` there is only the local backend.
    pub fn new(config: PythonHostConfig, delegates: Option<Arc<dyn DelegateRpc>>) -> Self {
        let config = Arc::new(config);
        Self {
            pool: Pool::new(Arc::clone(&config)),
            delegated: delegates.map(Delegated::new),
            config,
        }
    }

    /// Expands a graph by the release of the client that submitted it. Other requests go on
    /// meanwhile.
    ///
    /// # Errors
    /// See [`HostError`]; each fails this graph only.
    pub async fn expand(&self, request: &ExpandRequest) -> Result<ExpandedGraph, HostError> {
        let message = expand::encode_request(request)?;
        let (answer, host) = self.ask(request.release, &message).await?;
        let answer = expand::check_status(answer, &host, request.release)?;
        expand::decode_answer(answer, &host)
    }

    /// Ends all processes; requests under way fail.
    pub fn close(&self) {
        self.pool.close();
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
    async fn backend(&self, release: Release) -> Result<Backend<'_>, HostError> {
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
            Some(peers) => Ok(Backend::Delegated(peers)),
            None => Err(HostError::NoBackend {
                release,
                local: "local processes are turned off (--python-host delegated)".to_owned(),
                delegated: "asking workers is not possible here".to_owned(),
            }),
        }
    }
}
