//! The local processes that expand graphs: as many as configured, each with one graph at a time, so
//! that the long expansion of one client does not hold up another's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::config::PythonHostConfig;
use super::error::HostError;
use super::frames::Message;
use super::process::{Hello, Process, Role};

/// A Python that could not be started is tried again after this time: somebody may have repaired it.
const RETRY_START: Duration = Duration::from_secs(30);

/// The processes of one interpreter.
pub(super) struct Pool {
    config: Arc<PythonHostConfig>,
    slots: Semaphore,
    idle: Mutex<Vec<Idle>>,
    probed: tokio::sync::Mutex<Option<Probe>>,
}

struct Idle {
    process: Process,
    since: Instant,
}

struct Probe {
    outcome: Result<Hello, String>,
    at: Instant,
}

impl Pool {
    /// No process is started yet.
    pub(super) fn new(config: Arc<PythonHostConfig>) -> Arc<Self> {
        Arc::new(Self {
            slots: Semaphore::new(config.processes.max(1)),
            config,
            idle: Mutex::default(),
            probed: tokio::sync::Mutex::default(),
        })
    }

    /// What the configured Python has, or why it cannot be used. Starts it once to find out.
    pub(super) async fn hello(self: &Arc<Self>) -> Result<Hello, String> {
        let mut probed = self.probed.lock().await;
        if let Some(probe) = &*probed
            && (probe.outcome.is_ok() || probe.at.elapsed() < RETRY_START)
        {
            return probe.outcome.clone();
        }
        let outcome = match Process::start(&self.config, Role::Serve).await {
            Ok(process) => {
                let hello = process.hello.clone();
                self.keep(process);
                Ok(hello)
            }
            Err(error) => Err(error.to_string()),
        };
        *probed = Some(Probe {
            outcome: outcome.clone(),
            at: Instant::now(),
        });
        outcome
    }

    /// Sends a request to a free process, waiting for one if all are busy. A process that failed is
    /// ended; the next request starts another.
    ///
    /// # Errors
    /// See [`Process::start`] and [`Process::ask`].
    pub(super) async fn ask(
        self: &Arc<Self>,
        request: &Message,
        timeout: Duration,
    ) -> Result<(Message, Arc<str>), HostError> {
        let _slot = self
            .slots
            .acquire()
            .await
            .map_err(|_| HostError::ShuttingDown)?;
        let mut process = match self.take() {
            Some(process) => process,
            None => Process::start(&self.config, Role::Serve).await?,
        };
        let answer = process.ask(request, timeout).await?;
        let name = Arc::from(process.name.as_str());
        self.keep(process);
        Ok((answer, name))
    }

    /// Ends processes that do nothing, so that the next request meets one that imports everything afresh.
    pub(super) fn renew(&self) {
        self.lock_idle().clear();
    }

    /// Processes that work, and that wait for work.
    pub(super) fn figures(&self) -> (usize, usize) {
        let most = self.config.processes.max(1);
        let busy = most.saturating_sub(self.slots.available_permits());
        (busy, self.lock_idle().len())
    }

    /// Ends all processes; requests that wait for one fail.
    pub(super) fn close(&self) {
        self.slots.close();
        self.lock_idle().clear();
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Process> {
        let mut idle = self.lock_idle();
        while let Some(Idle { mut process, .. }) = idle.pop() {
            if process.is_alive() {
                return Some(process);
            }
        }
        None
    }

    fn keep(self: &Arc<Self>, process: Process) {
        if self.slots.is_closed() {
            return;
        }
        self.lock_idle().push(Idle {
            process,
            since: Instant::now(),
        });
        let pool = Arc::downgrade(self);
        let idle_timeout = self.config.idle_timeout;
        tokio::spawn(async move {
            tokio::time::sleep(idle_timeout).await;
            if let Some(pool) = pool.upgrade() {
                pool.lock_idle()
                    .retain(|idle| idle.since.elapsed() < idle_timeout);
            }
        });
    }
}
