//! What a nanny decides: when a worker process starts, ends, starts again, and when the nanny leaves.
//! One task owns the process; everybody else sends it commands.

use std::process::ExitStatus;
use std::time::Duration;

use oxidask_supervision::{FromWorker, ToWorker};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::obituary::{Bytes, Killer, obituary};
use super::process::{Process, ProcessEvent};
use super::{Ended, Nanny, Status, WorkerFacts, scheduler};

/// Part of the time for an end that the worker process gets before it is killed.
const OWN_PART: f64 = 0.8;

/// What others want of the supervisor.
#[derive(Debug)]
pub(super) enum Command {
    /// Have a process running; answered when it works.
    Instantiate(oneshot::Sender<Result<(), String>>),
    /// End the process; answered when it is gone. Another one follows unless it is to stay down.
    Kill {
        timeout: Duration,
        reason: String,
        stay_down: bool,
        done: oneshot::Sender<()>,
    },
    /// The process will end by itself, and the nanny then too.
    Leaving(String),
    /// End process and nanny.
    Close {
        timeout: Duration,
        hand_over: bool,
        reason: String,
        done: oneshot::Sender<()>,
    },
}

/// Something that happened.
enum Happened {
    Command(Command),
    Process(ProcessEvent),
    TimeToStart,
}

pub(super) struct Supervisor {
    nanny: Nanny,
    commands: mpsc::UnboundedReceiver<Command>,
    process: Option<Process>,
    /// Has reported that it works.
    started: bool,
    /// It is being ended: not its own fault.
    ending: bool,
    /// Has been told to end because of its memory.
    over_limit: bool,
    /// No process follows the one that ends.
    stay_down: bool,
    start_at: Option<Instant>,
    backoff: Backoff,
    /// A process has worked at least once: from then on failures are tried again.
    proven: bool,
    outcome: Ended,
    up: Vec<oneshot::Sender<Result<(), String>>>,
    down: Vec<oneshot::Sender<()>>,
    closed: Vec<oneshot::Sender<()>>,
}

impl Supervisor {
    pub(super) fn new(nanny: Nanny, commands: mpsc::UnboundedReceiver<Command>) -> Self {
        Self {
            nanny,
            commands,
            process: None,
            started: false,
            ending: false,
            over_limit: false,
            stay_down: false,
            start_at: None,
            backoff: Backoff::default(),
            proven: false,
            outcome: Ended::InOrder,
            up: Vec::new(),
            down: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// Works until the nanny is to end.
    pub(super) async fn run(mut self) -> Ended {
        while self.status() != Status::Closed {
            match self.next().await {
                Happened::Command(command) => self.obey(command).await,
                Happened::Process(event) => self.notice(event).await,
                Happened::TimeToStart => self.start(),
            }
        }
        tracing::info!("Nanny at '{}' closed.", self.nanny.0.address);
        for done in self.closed.drain(..).chain(self.down.drain(..)) {
            done.send(()).ok();
        }
        self.outcome
    }

    async fn next(&mut self) -> Happened {
        let start_at = self.start_at;
        let time_to_start = async move {
            match start_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let process = async {
            match self.process.as_mut() {
                Some(process) => process.event().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The handle keeps the other end.
            Some(command) = self.commands.recv() => Happened::Command(command),
            event = process => Happened::Process(event),
            () = time_to_start => Happened::TimeToStart,
        }
    }

    fn status(&self) -> Status {
        self.nanny.status()
    }

    fn set_status(&self, status: Status) {
        self.nanny.0.status.send_replace(status);
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Instantiate(done) if self.nanny.is_closing() => {
                done.send(Err("the nanny is closing".into())).ok();
            }
            Command::Instantiate(done)
                if self.process.is_some() && self.started && !self.ending =>
            {
                done.send(Ok(())).ok();
            }
            Command::Instantiate(done) => {
                self.stay_down = false;
                self.up.push(done);
                if self.process.is_none() {
                    self.start();
                }
            }
            Command::Kill {
                timeout,
                reason,
                stay_down,
                done,
            } => {
                self.stay_down = stay_down;
                match self.process {
                    None => {
                        if stay_down {
                            self.start_at = None;
                        }
                        done.send(()).ok();
                    }
                    Some(_) => {
                        self.down.push(done);
                        self.end(timeout, false, &reason).await;
                    }
                }
            }
            Command::Leaving(reason) => self.leaving(&reason),
            Command::Close {
                timeout,
                hand_over,
                reason,
                done,
            } => {
                self.closed.push(done);
                self.close(timeout, hand_over, &reason).await;
            }
        }
    }

    fn leaving(&mut self, reason: &str) {
        if self.nanny.is_closing() || self.status() == Status::ClosingGracefully {
            return;
        }
        let address = &self.nanny.0.address;
        tracing::info!("Closing Nanny gracefully at '{address}'. Reason: {reason}");
        self.set_status(Status::ClosingGracefully);
    }

    async fn close(&mut self, timeout: Duration, hand_over: bool, reason: &str) {
        if self.status() != Status::Closing {
            let address = &self.nanny.0.address;
            tracing::info!("Closing Nanny at '{address}'. Reason: {reason}");
            self.set_status(Status::Closing);
            self.nanny.tear_down(timeout).await;
        }
        self.start_at = None;
        for waiting in self.up.drain(..) {
            waiting.send(Err("the nanny is closing".into())).ok();
        }
        match self.process {
            Some(_) => self.end(timeout, hand_over, reason).await,
            None => self.set_status(Status::Closed),
        }
    }

    /// Has the process end, and kills it when it does not in time.
    async fn end(&mut self, timeout: Duration, hand_over: bool, reason: &str) {
        let Some(process) = self.process.as_mut() else {
            return;
        };
        self.ending = true;
        let limit = timeout.mul_f64(OWN_PART);
        if !self.started {
            // It holds nothing yet, and may not listen to us for long.
            process.kill(Killer::Impatience);
            return;
        }
        tracing::info!("Nanny asking worker to close. Reason: {reason}");
        let (reason, timeout) = (reason.to_owned(), limit.as_secs_f64());
        let order = match hand_over {
            true => ToWorker::CloseGracefully { reason, timeout },
            false => ToWorker::Stop { reason, timeout },
        };
        process.order(&order, limit).await;
    }

    fn start(&mut self) {
        self.start_at = None;
        let shared = &self.nanny.0;
        let limit = shared.settings.common.memory_limit;
        let interval = shared.settings.monitor_interval;
        match Process::start(self.nanny.worker_command(), limit, interval) {
            Ok(process) => {
                *shared.worker.lock() = WorkerFacts {
                    pid: Some(process.pid()),
                    ..WorkerFacts::default()
                };
                self.process = Some(process);
                self.started = false;
                self.ending = false;
                self.over_limit = false;
            }
            Err(error) => {
                let error = shared.interpreter.start_error(error).to_string();
                self.not_started(error, Duration::ZERO);
            }
        }
    }

    async fn notice(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::Report(report) => self.report(report),
            ProcessEvent::Memory(resident) => self.look_at_memory(resident),
            ProcessEvent::Killed => {
                tracing::warn!("Worker process still alive, killing");
            }
            ProcessEvent::Exited(status, reports) => {
                let mut failure = None;
                for report in reports {
                    match report {
                        FromWorker::Failed { message } => failure = Some(message),
                        report => self.report(report),
                    }
                }
                self.exited(status, failure).await;
            }
        }
    }

    fn report(&mut self, report: FromWorker) {
        match report {
            FromWorker::Directory { path } => {
                self.nanny.0.worker.lock().directory = Some(path);
            }
            FromWorker::Started { address } => {
                self.nanny.0.worker.lock().address = Some(address);
                self.started = true;
                self.proven = true;
                if self.status() == Status::Init {
                    self.set_status(Status::Running);
                }
                for waiting in self.up.drain(..) {
                    waiting.send(Ok(())).ok();
                }
            }
            FromWorker::Leaving { reason } => self.leaving(&reason),
            FromWorker::Ledger { descriptor } => {
                if let Some(process) = self.process.as_mut() {
                    process.open_ledger(descriptor);
                }
            }
            // It ends with a code that says so as well.
            FromWorker::Failed { message } => {
                tracing::error!("the worker process failed: {message}")
            }
        }
    }

    fn look_at_memory(&mut self, resident: u64) {
        let settings = &self.nanny.0.settings;
        let (Some(limit), Some(fraction)) = (settings.common.memory_limit, settings.terminate)
        else {
            return;
        };
        if self.over_limit || resident as f64 <= fraction * limit as f64 {
            return;
        }
        let Some(process) = self.process.as_mut() else {
            return;
        };
        let (pid, worker) = (process.pid(), self.nanny.0.worker.lock().address.clone());
        let address = worker.clone().unwrap_or_default();
        let percent = fraction * 100.0;
        tracing::warn!(
            "Worker {address} (pid={pid}) exceeded {percent:.0}% memory budget. Restarting... \
             ({} of {})",
            Bytes(resident),
            Bytes(limit)
        );
        // Not SIGTERM first: nothing in the process would clean up that the nanny does not, and every
        // moment counts.
        process.kill(Killer::MemoryGuard);
        self.over_limit = true;
        let nanny = self.nanny.clone();
        tokio::spawn(
            async move { scheduler::log_memory_event(&nanny, worker, pid, resident).await },
        );
    }

    async fn exited(&mut self, status: ExitStatus, failure: Option<String>) {
        let Some(process) = self.process.take() else {
            return;
        };
        let (age, pid, evidence) = (process.age(), process.pid(), process.evidence());
        let text = obituary(pid, status, &evidence);
        if !status.success() {
            tracing::info!("{text}");
        }
        let facts = std::mem::take(&mut *self.nanny.0.worker.lock());
        if let Some(directory) = facts.directory.clone() {
            // Spilled data may be large; nobody waits for it to be gone.
            tokio::task::spawn_blocking(move || std::fs::remove_dir_all(directory));
        }
        for waiting in self.down.drain(..) {
            waiting.send(()).ok();
        }
        match self.status() {
            Status::Closing | Status::Closed => return self.set_status(Status::Closed),
            Status::ClosingGracefully => {
                return self
                    .close(Duration::ZERO, false, "nanny-close-gracefully")
                    .await;
            }
            Status::Init | Status::Running => {}
        }
        if self.started
            && let Some(address) = facts.address
        {
            let nanny = self.nanny.clone();
            let (text, running) = (text.clone(), evidence.running);
            tokio::spawn(async move {
                scheduler::log_end(&nanny, &address, pid, &text, running).await;
                scheduler::unregister(&nanny, &address).await;
            });
        }
        let gave_up = failure.is_some() && self.nanny.0.settings.death_timeout.is_some();
        if !self.started && !self.ending && (!self.proven || gave_up) {
            let why = failure.unwrap_or(text);
            for waiting in self.up.drain(..) {
                waiting.send(Err(why.clone())).ok();
            }
            self.outcome = Ended::Failed;
            return self
                .close(Duration::ZERO, false, "nanny-instantiate-failed")
                .await;
        }
        if self.stay_down && self.up.is_empty() {
            return;
        }
        if self.ending {
            self.start();
        } else {
            self.again_after(age);
        }
    }

    /// The process died by itself: another one follows.
    fn again_after(&mut self, age: Duration) {
        let wait = self.backoff.died(age);
        if wait.is_zero() {
            tracing::warn!("Restarting worker");
        } else {
            let seconds = wait.as_secs_f64();
            tracing::warn!("Restarting worker in {seconds} s, as it has died young again");
        }
        self.start_at = Some(Instant::now() + wait);
    }

    /// There is not even a process.
    fn not_started(&mut self, error: String, age: Duration) {
        tracing::error!("{error}");
        if self.proven {
            return self.again_after(age);
        }
        for waiting in self.up.drain(..) {
            waiting.send(Err(error.clone())).ok();
        }
        self.outcome = Ended::Failed;
        self.set_status(Status::Closed);
    }
}
