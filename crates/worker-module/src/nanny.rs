//! The worker's end of the channel to its nanny. Works without the interpreter: a worker whose Python is
//! busy can be told to leave, and notices the end of its nanny.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, dup2_stdin};
use oxidask_supervision::channel::{self, Receiver, Sender};
use oxidask_supervision::ledger::Ledger;
use oxidask_supervision::{FromWorker, ToWorker};
use oxidask_worker_host::Handle;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The channel between [`take_over`] and [`Link::open`]; a process has one worker.
static END: Mutex<Option<OwnedFd>> = Mutex::new(None);
/// Time for the last report.
const FAREWELL: Duration = Duration::from_secs(1);

/// Takes the channel from the standard input, where the nanny put it, and sees to it that this process
/// does not outlive the nanny.
pub(crate) fn take_over() -> io::Result<()> {
    let stdin = io::stdin();
    let end = stdin.as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    set_pdeathsig(Some(Signal::SIGKILL))?;
    *END.lock() = Some(end);
    Ok(())
}

/// The way to the nanny.
pub(crate) struct Link {
    reports: mpsc::UnboundedSender<FromWorker>,
    writing: JoinHandle<()>,
    leaving: JoinHandle<()>,
    quiet: Arc<AtomicBool>,
}

impl Link {
    /// Begins to listen to the nanny; none: there is no nanny.
    pub(crate) fn open(runtime: &Runtime, handle: &Handle) -> io::Result<Option<Self>> {
        let Some(end) = END.lock().take() else {
            return Ok(None);
        };
        let _inside = runtime.enter();
        let (receiver, sender) = channel::split(channel::inherited(end)?);
        let (reports, outgoing) = mpsc::unbounded_channel();
        let quiet = Arc::new(AtomicBool::new(false));
        tokio::spawn(obey(receiver, handle.clone(), Arc::clone(&quiet)));
        Ok(Some(Self {
            writing: tokio::spawn(write(sender, outgoing)),
            leaving: tokio::spawn(say_why(handle.clone(), Arc::clone(&quiet), reports.clone())),
            reports,
            quiet,
        }))
    }

    /// Something to write into what runs, for the nanny.
    pub(crate) fn ledger(&self) -> Option<Arc<Ledger>> {
        match Ledger::create() {
            Ok(ledger) => {
                let descriptor = ledger.descriptor();
                self.report(FromWorker::Ledger { descriptor });
                Some(Arc::new(ledger))
            }
            Err(error) => {
                tracing::debug!("no memory to share with the nanny: {error}");
                None
            }
        }
    }

    /// Tells the nanny something.
    pub(crate) fn report(&self, report: FromWorker) {
        // It ends only with the nanny, and then so does this process.
        self.reports.send(report).ok();
    }

    /// The nanny is to start another process when this one ends.
    pub(crate) fn expect_another(&self) {
        self.quiet.store(true, Ordering::Release);
    }

    /// Waits until everything is said. The worker must have been told to close.
    pub(crate) async fn finish(self) {
        let all = async {
            self.leaving.await.ok();
            drop(self.reports);
            self.writing.await.ok();
        };
        tokio::time::timeout(FAREWELL, all).await.ok();
    }
}

/// Does what the nanny says; ends the process when the nanny has.
async fn obey(mut receiver: Receiver, handle: Handle, quiet: Arc<AtomicBool>) {
    loop {
        match receiver.next::<ToWorker>().await {
            Ok(ToWorker::Stop { reason, .. }) => {
                quiet.store(true, Ordering::Release);
                handle.close(&reason);
            }
            Ok(ToWorker::CloseGracefully { reason, timeout }) => {
                quiet.store(true, Ordering::Release);
                // The rest is for leaving itself.
                let limit = Duration::try_from_secs_f64(timeout * 0.8).ok();
                handle.close_gracefully(&reason, limit);
            }
            Err(error) => {
                tracing::error!("the nanny has ended: {error}");
                // Nothing less ends a process whose Python is busy.
                kill(Pid::this(), Signal::SIGKILL).ok();
                return;
            }
        }
    }
}

/// Tells the nanny when the worker leaves on its own account.
async fn say_why(
    handle: Handle,
    quiet: Arc<AtomicBool>,
    reports: mpsc::UnboundedSender<FromWorker>,
) {
    let reason = handle.closing().await;
    if quiet.load(Ordering::Acquire) {
        return;
    }
    let report = match reason.strip_prefix("error: ") {
        Some(message) => FromWorker::Failed {
            message: message.to_owned(),
        },
        None => FromWorker::Leaving { reason },
    };
    reports.send(report).ok();
}

async fn write(mut sender: Sender, mut reports: mpsc::UnboundedReceiver<FromWorker>) {
    while let Some(report) = reports.recv().await {
        if let Err(error) = sender.send(&report).await {
            return tracing::debug!("the nanny does not hear: {error}");
        }
    }
}
