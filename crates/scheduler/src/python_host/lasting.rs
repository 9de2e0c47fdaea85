//! What lives in sessions as long as the scheduler does: scheduler plugins, preload modules, handlers
//! that they add, policies of the memory manager. A session that dies is started again with them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oxidask_wire::message::Message;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::error::HostError;
use super::session::Session;
use super::{Mode, PythonHost};

/// Pause before a session that died with plugins in it is started again.
const REVIVAL: Duration = Duration::from_secs(1);
/// How long plugins and preloads may take for each part of their end.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long plugins may take to choose workers, and policies for one round.
const CHOICE: Duration = Duration::from_secs(30);

/// Something to be put into each new session of a release.
#[derive(Clone, Debug)]
pub(super) enum Lasting {
    /// A scheduler plugin.
    Plugin {
        /// Its name.
        name: String,
        /// Pickled.
        plugin: Bytes,
    },
    /// Modules with `dask_setup`, as the request that loads them.
    Preloads(Value),
}

/// Why preload modules keep the scheduler from starting.
#[derive(Debug, thiserror::Error)]
pub enum PreloadError {
    /// There is no Python for them, or a module cannot be imported.
    #[error("cannot load {modules}: {source}")]
    Host {
        /// Which.
        modules: String,
        /// Why.
        source: HostError,
    },
    /// The command line is not what their own options allow.
    #[error("{0}")]
    Usage(String),
    /// A module ended the process.
    #[error("a preload module ended the scheduler (exit status {0}); its messages stand above")]
    Exit(i64),
}

/// When the scheduler ends, plugins are told twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// `before_close` of plugins, then `dask_teardown` of preloads.
    Before,
    /// `close` of plugins.
    Close,
}

/// Who sent a message for a handler of a plugin.
#[derive(Clone, Debug)]
pub(super) enum Sender {
    /// A request.
    Request,
    /// The stream of the client of this name.
    Client(Arc<str>),
    /// The stream of the worker at this address.
    Worker(Arc<str>),
}

impl PythonHost {
    /// Registers a scheduler plugin; its `start` has run when this returns.
    ///
    /// # Errors
    /// See [`HostError`]; [`HostError::Raised`] with what the plugin raised.
    pub(super) async fn register_plugin(
        &self,
        release: Release,
        name: Option<String>,
        plugin: Bytes,
        idempotent: bool,
    ) -> Result<(), HostError> {
        let session = self.sessions.get(self, release).await?;
        let answer = install_plugin(&session, name.as_deref(), &plugin, idempotent).await?;
        if answer.get("added").and_then(Value::as_bool) == Some(true)
            && let Some(name) = answer.get("name").and_then(Value::as_str)
        {
            let name = name.to_owned();
            let lasting = Lasting::Plugin { name, plugin };
            self.sessions.keep(release, lasting);
        }
        // What it uploaded or installed is to be found by graphs that come.
        self.pool.renew();
        Ok(())
    }

    /// Takes a scheduler plugin out.
    ///
    /// # Errors
    /// See [`HostError`]; [`HostError::Raised`] when there is none of that name.
    pub(super) async fn unregister_plugin(
        &self,
        release: Release,
        name: &str,
    ) -> Result<(), HostError> {
        let session = self.sessions.get(self, release).await?;
        let fields = Value::map([("name", name)]);
        session
            .ask("unregister_plugin", fields, Vec::new(), CHOICE)
            .await?;
        self.sessions.let_go(release, name);
        Ok(())
    }

    /// Imports preload modules; `request` has `names` and `argv`.
    ///
    /// # Errors
    /// See [`PreloadError`].
    pub(super) async fn import_preloads(
        &self,
        modules: String,
        request: Value,
    ) -> Result<(), PreloadError> {
        let failed = |source| PreloadError::Host {
            modules: modules.clone(),
            source,
        };
        let release = self.home().await.map_err(failed)?;
        let session = self.sessions.get(self, release).await.map_err(failed)?;
        let timeout = self.config.function_timeout;
        let asked = session.ask("import_preloads", request.clone(), Vec::new(), timeout);
        let (answer, _) = asked.await.map_err(failed)?;
        if let Some(usage) = answer.get("usage").and_then(Value::as_str) {
            return Err(PreloadError::Usage(usage.to_owned()));
        }
        exit_status(&answer)?;
        self.sessions.keep(release, Lasting::Preloads(request));
        self.pool.renew();
        Ok(())
    }

    /// Runs `dask_setup` of imported preload modules; returns when it has ended, or waits for
    /// something.
    ///
    /// # Errors
    /// See [`PreloadError`]. A `dask_setup` that raises is logged and keeps nothing from starting, as
    /// in stock.
    pub(super) async fn start_preloads(&self, modules: String) -> Result<(), PreloadError> {
        let failed = |source| PreloadError::Host {
            modules: modules.clone(),
            source,
        };
        let release = self.home().await.map_err(failed)?;
        let session = self.sessions.get(self, release).await.map_err(failed)?;
        let (fields, timeout) = (Value::Map(Vec::new()), self.config.function_timeout);
        let asked = session.ask("start_preloads", fields, Vec::new(), timeout);
        let (answer, _) = asked.await.map_err(failed)?;
        exit_status(&answer)
    }

    /// The release of `distributed` in the Python of our own processes.
    pub(super) async fn home(&self) -> Result<Release, HostError> {
        let reason = match self.config.mode {
            Mode::Off => return Err(HostError::Off),
            Mode::Delegated => {
                "local processes are turned off (--python-host delegated)".to_owned()
            }
            Mode::Auto | Mode::Local => match self.pool.hello().await {
                Ok(hello) => match hello.distributed.as_deref().and_then(Release::parse) {
                    Some(release) => return Ok(release),
                    None => format!("{} has no distributed", hello.executable),
                },
                Err(reason) => reason,
            },
        };
        Err(HostError::NoHome { reason })
    }

    /// Tells plugins and preloads of the end. What they raise is logged there; who takes too long is
    /// not waited for.
    pub async fn closing(&self, closing: Closing) {
        let mut told = tokio::task::JoinSet::new();
        for session in self.sessions.lasting_ones() {
            let phase = match closing {
                Closing::Before => "before",
                Closing::Close => "close",
            };
            let sessions = Arc::clone(&self.sessions);
            told.spawn(async move {
                sessions.settle(&session).await;
                let fields = Value::map([("phase", phase)]);
                if let Err(error) = session.ask("closing", fields, Vec::new(), FAREWELL).await {
                    tracing::warn!("the end of plugins and preload modules: {error}");
                }
            });
        }
        while told.join_next().await.is_some() {}
    }

    /// Has a handler that a plugin or preload added work on a message.
    ///
    /// # Errors
    /// See [`HostError`].
    pub(super) async fn handle(
        &self,
        session: u64,
        op: &str,
        args: &Value,
        sender: Sender,
    ) -> Result<Value, HostError> {
        let Some(session) = self.sessions.by_id(session) else {
            return Err(HostError::ShuttingDown);
        };
        let (kind, name) = match sender {
            Sender::Request => ("request", Value::Nil),
            Sender::Client(name) => ("client", Value::from(name)),
            Sender::Worker(address) => ("worker", Value::from(address)),
        };
        let fields = Value::map([
            ("handler", Value::from(op)),
            ("sender", kind.into()),
            ("name", name),
        ]);
        let frames = Message::from_value(args).frames().cloned().collect();
        let timeout = self.config.function_timeout;
        let (_, frames) = session.ask("handle", fields, frames, timeout).await?;
        decode_result(&session, frames)
    }

    /// Stock's choice of workers to close, for what only Python can answer: a function as `key`, or
    /// plugins that have a say.
    ///
    /// # Errors
    /// See [`HostError`].
    pub(super) async fn workers_to_close(
        &self,
        release: Release,
        chooser: Option<u64>,
        args: &Value,
    ) -> Result<Value, HostError> {
        let session = match chooser.and_then(|id| self.sessions.by_id(id)) {
            Some(session) => session,
            None => self.sessions.get(self, release).await?,
        };
        let frames = Message::from_value(args).frames().cloned().collect();
        let fields = Value::Map(Vec::new());
        let asked = session.ask("workers_to_close", fields, frames, CHOICE);
        let (_, frames) = asked.await?;
        decode_result(&session, frames)
    }

    /// Stock's report, drawn from the mirror.
    ///
    /// # Errors
    /// See [`HostError`].
    pub(super) async fn performance_report(
        &self,
        release: Release,
        args: &Value,
    ) -> Result<Value, HostError> {
        let session = self.sessions.get(self, release).await?;
        let frames = Message::from_value(args).frames().cloned().collect();
        let fields = Value::Map(Vec::new());
        let timeout = self.config.timeout;
        let asked = session.ask("performance_report", fields, frames, timeout);
        let (_, frames) = asked.await?;
        decode_result(&session, frames)
    }

    /// Loads the user's policies of the memory manager.
    ///
    /// # Errors
    /// See [`HostError`]; [`HostError::Raised`] with what their modules raised.
    pub(super) async fn load_policies(&self) -> Result<(), HostError> {
        self.policies("load_policies").await
    }

    /// One round of the user's policies of the memory manager.
    ///
    /// # Errors
    /// See [`HostError`]; [`HostError::Raised`] with what a policy raised.
    pub(super) async fn run_policies(&self) -> Result<(), HostError> {
        self.policies("run_policies").await
    }

    async fn policies(&self, op: &str) -> Result<(), HostError> {
        let release = self.home().await?;
        let session = self.sessions.get(self, release).await?;
        let fields = Value::Map(Vec::new());
        session.ask(op, fields, Vec::new(), CHOICE).await?;
        Ok(())
    }

    /// Puts what lasts into a session that has just been started, and sees to it that the session is
    /// started again when it dies.
    pub(super) async fn furnish(&self, session: &Arc<Session>, lasting: Vec<Lasting>) {
        for one in lasting {
            let outcome = match &one {
                Lasting::Plugin { name, plugin } => {
                    install_plugin(session, Some(name), plugin, false).await
                }
                Lasting::Preloads(request) => {
                    let timeout = self.config.function_timeout;
                    let asked =
                        session.ask("import_preloads", request.clone(), Vec::new(), timeout);
                    match asked.await {
                        Ok(_) => {
                            let fields = Value::Map(Vec::new());
                            let asked = session.ask("start_preloads", fields, Vec::new(), timeout);
                            asked.await.map(|(answer, _)| answer)
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            if let Err(error) = outcome {
                tracing::error!("after a restart of the Python host, {one:?}: {error}");
            }
        }
        let (host, release) = (self.clone(), session.release);
        let mut ended = session.ended();
        tokio::spawn(async move {
            // The sender may be gone already, which is an end as well.
            let _ = ended.wait_for(|ended| *ended).await;
            if !host.sessions.has_lasting(release) {
                return;
            }
            tracing::error!(
                "the Python host died with plugins or preload modules in it; it is started again, and they with it"
            );
            tokio::time::sleep(REVIVAL).await;
            let sessions = Arc::clone(&host.sessions);
            if let Err(error) = sessions.revive(host, release).await {
                tracing::error!("the Python host was not started again: {error}");
            }
        });
    }
}

/// An error when a module ended its process.
fn exit_status(answer: &Value) -> Result<(), PreloadError> {
    match answer.get("exit").and_then(Value::as_i64) {
        Some(code) => Err(PreloadError::Exit(code)),
        None => Ok(()),
    }
}

async fn install_plugin(
    session: &Arc<Session>,
    name: Option<&str>,
    plugin: &Bytes,
    idempotent: bool,
) -> Result<Value, HostError> {
    let fields = Value::map([
        ("name", Value::from(name)),
        ("idempotent", idempotent.into()),
    ]);
    // Plugins may install software.
    let timeout = Duration::from_secs(3600);
    let asked = session.ask("register_plugin", fields, vec![plugin.clone()], timeout);
    Ok(asked.await?.0)
}

fn decode_result(session: &Session, frames: Vec<Bytes>) -> Result<Value, HostError> {
    let mut answer = session.decode(frames)?;
    Ok(answer.remove("result").unwrap_or_default())
}
