//! One worker process: its start, what it reports, and its end.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use oxidask_supervision::channel::{self, Receiver, Sender};
use oxidask_supervision::ledger::LedgerReader;
use oxidask_supervision::{FromWorker, ToWorker};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};

use super::obituary::{Evidence, Killer};
use crate::machine;

/// How long reports of a dead process are waited for: a process that it left behind may hold the channel.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A worker process that runs, or has just died.
pub(super) struct Process {
    child: Child,
    pid: u32,
    orders: Sender,
    reports: mpsc::UnboundedReceiver<FromWorker>,
    reports_ended: bool,
    begun: Instant,
    kill_at: Option<Instant>,
    look: Interval,
    evidence: Evidence,
    oom_kills: Option<u64>,
    ledger: Option<LedgerReader>,
}

/// Something that happened to a process.
#[derive(Debug)]
pub(super) enum ProcessEvent {
    Report(FromWorker),
    /// Time to look at its memory; resident bytes.
    Memory(u64),
    /// It has been killed because it did not end in time.
    Killed,
    /// With the reports that it left.
    Exited(ExitStatus, Vec<FromWorker>),
}

impl Process {
    /// Starts it. Must be called on the thread that lives as long as the nanny.
    pub(super) fn start(
        command: std::process::Command,
        limit: Option<u64>,
        monitor_interval: Duration,
    ) -> io::Result<Self> {
        let (ours, theirs) = channel::pair()?;
        let (receiver, orders) = channel::split(ours);
        let mut command = Command::from(command);
        command.stdin(Stdio::from(theirs)).kill_on_drop(true);
        let oom_kills = machine::oom_kills();
        let child = command.spawn()?;
        let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
        let (sender, reports) = mpsc::unbounded_channel();
        tokio::spawn(forward(receiver, sender));
        let mut look = interval(monitor_interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Ok(Self {
            child,
            pid,
            orders,
            reports,
            reports_ended: false,
            begun: Instant::now(),
            kill_at: None,
            look,
            evidence: Evidence {
                limit,
                ..Evidence::default()
            },
            oom_kills,
            ledger: None,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Where it writes what it runs.
    pub(super) fn open_ledger(&mut self, descriptor: i32) {
        match LedgerReader::open(self.pid, descriptor) {
            Ok(ledger) => self.ledger = Some(ledger),
            Err(error) => tracing::debug!("what the worker runs can not be read: {error}"),
        }
    }

    /// What is known of its end.
    pub(super) fn evidence(&self) -> Evidence {
        let running = self.ledger.as_ref().map(LedgerReader::running);
        Evidence {
            oom_kill: machine::oom_kills() > self.oom_kills,
            running: running.unwrap_or_default(),
            ..self.evidence.clone()
        }
    }

    /// Gives an order, and kills the process if it has not ended by then. An earlier end of another order
    /// stays.
    pub(super) async fn order(&mut self, order: &ToWorker, limit: Duration) {
        let at = Instant::now() + limit;
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
        // It may have died already; then its end is about to be noticed.
        self.orders.send(order).await.ok();
    }

    /// Kills it at once.
    pub(super) fn kill(&mut self, killer: Killer) {
        self.kill_at = None;
        self.evidence.killer = killer;
        // The only failure is that it has ended already.
        self.child.start_kill().ok();
    }

    /// The next thing that happens. May be cancelled.
    pub(super) async fn event(&mut self) -> ProcessEvent {
        loop {
            let kill_at = self.kill_at;
            let due = async move {
                match kill_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                report = self.reports.recv(), if !self.reports_ended => match report {
                    Some(report) => return ProcessEvent::Report(report),
                    None => self.reports_ended = true,
                },
                status = self.child.wait() => {
                    // `wait` fails only when somebody else has waited for the process: nobody does.
                    let status = status.unwrap_or_default();
                    return ProcessEvent::Exited(status, self.last_words().await);
                }
                () = due => {
                    self.kill(Killer::Impatience);
                    return ProcessEvent::Killed;
                }
                _ = self.look.tick() => {
                    if let Some(resident) = machine::resident(self.pid) {
                        self.evidence.resident = Some(resident);
                        return ProcessEvent::Memory(resident);
                    }
                }
            }
        }
    }

    async fn last_words(&mut self) -> Vec<FromWorker> {
        let mut words = Vec::new();
        let all = async {
            while let Some(report) = self.reports.recv().await {
                words.push(report);
            }
        };
        timeout(LAST_WORDS, all).await.ok();
        words
    }
}

/// Lines are read by a task of their own, since reading one must not be given up half way.
async fn forward(mut receiver: Receiver, sender: mpsc::UnboundedSender<FromWorker>) {
    loop {
        match receiver.next().await {
            Ok(report) => {
                if sender.send(report).is_err() {
                    return;
                }
            }
            Err(channel::ChannelError::Closed) => return,
            Err(error) => return tracing::warn!("from the worker process: {error}"),
        }
    }
}
