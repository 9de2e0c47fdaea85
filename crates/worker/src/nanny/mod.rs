//! A nanny: keeps one worker process running, and answers what stock's nannies answer.
//!
//! [`Nanny`] is the handle that everything shares. `supervisor` decides (start, stop, start again, leave),
//! `process` is one worker process, `backoff` and `obituary` say when the next one starts and why the last
//! one ended; `scheduler` and `server` are the connections out and in; `python` is the process that runs
//! what only Python can, started when it is first needed.

mod backoff;
mod obituary;
mod process;
mod python;
mod scheduler;
mod server;
mod supervisor;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use oxidask_wire::connection::Address;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::environment::Variables;
use crate::interpreter::Interpreter;
use crate::settings::{Settings, Share};
use python::{Python, PythonError};
use supervisor::{Command, Supervisor};

/// Why a nanny did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("can not listen on {address}: {source}")]
    Listen {
        address: String,
        source: std::io::Error,
    },
    #[error("{0}")]
    Timeout(String),
    #[error("a nanny preload failed: {0}")]
    Preload(PythonError),
    #[error("the nanny failed to start its worker process: {0}")]
    Worker(String),
}

/// How a nanny that was up has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to, or its worker left for good.
    InOrder,
    /// Its worker gave up (`--death-timeout`).
    Failed,
}

/// What a nanny is doing, in stock's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Init,
    Running,
    ClosingGracefully,
    Closing,
    Closed,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Running => "running",
            Self::ClosingGracefully => "closing_gracefully",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

/// The handle of a nanny. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Nanny(Arc<Shared>);

struct Shared {
    settings: Arc<Settings>,
    interpreter: Interpreter,
    words: Vec<String>,
    share: Share,
    address: String,
    id: String,
    status: watch::Sender<Status>,
    worker: Mutex<WorkerFacts>,
    overlay: Mutex<Overlay>,
    commands: mpsc::UnboundedSender<Command>,
    /// What [`Nanny::run`] takes.
    begin: Mutex<Option<Begin>>,
    python: Python,
}

struct Begin {
    listener: TcpListener,
    commands: mpsc::UnboundedReceiver<Command>,
}

/// What is known of the worker process of the moment.
#[derive(Clone, Debug, Default)]
struct WorkerFacts {
    address: Option<String>,
    directory: Option<String>,
    pid: Option<u32>,
}

/// What plugins and functions of clients have changed for the next worker process.
#[derive(Clone, Debug, Default)]
struct Overlay {
    environment: Variables,
    sys_path: Vec<String>,
}

impl Nanny {
    /// Listens, and does nothing else yet.
    pub(crate) async fn listen(
        settings: Arc<Settings>,
        interpreter: Interpreter,
        words: Vec<String>,
        share: Share,
    ) -> Result<Self, StartError> {
        let listener = bind(&settings, &share).await?;
        let bound = listener.local_addr();
        let port = bound.map_or(0, |address| address.port());
        let address = Address {
            scheme: settings.scheme,
            host: settings.ip.to_string(),
            port,
        };
        let (commands, receiver) = mpsc::unbounded_channel();
        Ok(Self(Arc::new(Shared {
            address: address.to_string(),
            id: format!("Nanny-{}", uuid::Uuid::new_v4()),
            status: watch::Sender::new(Status::Init),
            worker: Mutex::default(),
            overlay: Mutex::new(Overlay {
                environment: settings.environment.clone(),
                sys_path: Vec::new(),
            }),
            commands,
            begin: Mutex::new(Some(Begin {
                listener,
                commands: receiver,
            })),
            python: Python::new(interpreter.clone()),
            settings,
            interpreter,
            words,
            share,
        })))
    }

    /// Starts the worker and looks after it until the nanny ends. To be called once.
    pub(crate) async fn run(&self) -> Result<Ended, StartError> {
        let Some(begin) = self.0.begin.lock().take() else {
            return Ok(Ended::InOrder);
        };
        let serving = tokio::spawn(server::serve(self.clone(), begin.listener));
        let supervisor = Supervisor::new(self.clone(), begin.commands);
        let supervising = tokio::spawn(supervisor.run());
        let mut status = self.0.status.subscribe();
        let closed = status.wait_for(|status| *status == Status::Closed);
        let come_up = tokio::select! {
            outcome = self.come_up() => outcome,
            _ = closed => Err(StartError::Worker("the nanny was closed".into())),
        };
        let outcome = match come_up {
            Ok(()) => Ok(supervising.await.unwrap_or(Ended::Failed)),
            Err(_) if self.is_closing() => Ok(supervising.await.unwrap_or(Ended::Failed)),
            Err(error) => {
                self.close(Duration::from_secs(2), false, "nanny-start-failed")
                    .await;
                Err(error)
            }
        };
        serving.abort();
        self.0.python.end();
        outcome
    }

    /// Preloads, registration, plugins, worker: in stock's order.
    async fn come_up(&self) -> Result<(), StartError> {
        if !self.0.settings.preload.is_empty() {
            let loaded = self.preload().await;
            loaded.map_err(StartError::Preload)?;
        }
        let registration = scheduler::register(self).await?;
        let registration = registration.set_plugins_up(self).await;
        tracing::info!("        Start Nanny at: '{}'", self.0.address);
        self.instantiate().await.map_err(StartError::Worker)?;
        registration.finish().await;
        Ok(())
    }

    /// Has a worker process running; returns when it is registered.
    async fn instantiate(&self) -> Result<(), String> {
        let (done, up) = oneshot::channel();
        self.command(Command::Instantiate(done));
        up.await
            .unwrap_or_else(|_| Err("the nanny is closing".into()))
    }

    /// Ends the worker process; returns when it is gone.
    async fn kill(&self, timeout: Duration, reason: &str, stay_down: bool) {
        let (done, down) = oneshot::channel();
        self.command(Command::Kill {
            timeout,
            reason: reason.to_owned(),
            stay_down,
            done,
        });
        down.await.ok();
    }

    /// The worker will leave on its own account: no other is to follow.
    fn close_gracefully(&self, reason: &str) {
        self.command(Command::Leaving(reason.to_owned()));
    }

    /// Ends worker and nanny. `hand_over`: the worker gives its data away first, as far as time allows.
    pub(crate) async fn close(&self, timeout: Duration, hand_over: bool, reason: &str) {
        let (done, closed) = oneshot::channel();
        self.command(Command::Close {
            timeout,
            hand_over,
            reason: reason.to_owned(),
            done,
        });
        closed.await.ok();
    }

    fn command(&self, command: Command) {
        // Who waits for an answer notices that the supervisor has gone.
        self.0.commands.send(command).ok();
    }

    fn status(&self) -> Status {
        *self.0.status.borrow()
    }

    fn is_closing(&self) -> bool {
        matches!(self.status(), Status::Closing | Status::Closed)
    }
}

/// One of the ports, or any.
async fn bind(settings: &Settings, share: &Share) -> Result<TcpListener, StartError> {
    let any = [0];
    let ports = match share.ports.nanny.as_slice() {
        [] => &any,
        ports => ports,
    };
    let mut last = None;
    for port in ports {
        let address = SocketAddr::new(settings.ip, *port);
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(source) => last = Some((address, source)),
        }
    }
    let (address, source) = last.unwrap_or((
        SocketAddr::new(settings.ip, 0),
        std::io::ErrorKind::AddrNotAvailable.into(),
    ));
    Err(StartError::Listen {
        address: address.to_string(),
        source,
    })
}
