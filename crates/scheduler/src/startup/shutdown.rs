//! The end: signals, an RPC, or idleness; workers and clients are told.

use std::sync::Arc;
use std::time::Duration;

use oxidask_scheduler_core::effect::WorkerMsg;
use oxidask_wire::value::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Running;
use crate::context::Context;
use crate::python_host::Closing;

/// Time for peers to read what they are told.
const FAREWELL: Duration = Duration::from_secs(2);

/// The signals that end the scheduler, caught from the moment this exists: whoever reads the
/// address in the log may send one at once.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// When the operating system refuses handlers.
    pub(super) fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Waits for a reason to end.
pub(super) async fn wait(context: &Context, mut signals: Signals) -> Arc<str> {
    tokio::select! {
        reason = context.shutdown.wait() => reason,
        _ = signals.terminate.recv() => "signal-15".into(),
        _ = signals.interrupt.recv() => "signal-2".into(),
    }
}

/// Tells workers and clients, and ends all tasks.
pub(super) async fn close(running: Running, reason: &str) {
    let Running {
        context,
        mut tasks,
        scheduler_file: _removed_at_the_end,
    } = running;
    tracing::info!(target: "distributed.scheduler", "Closing scheduler. Reason: {reason}");
    context.shutdown.request(reason);
    context.python.closing(Closing::Before).await;
    context.python.closing(Closing::Close).await;
    tracing::info!(target: "distributed.scheduler", "Scheduler closing all comms");
    for worker in context.workers.all() {
        worker.outbox.send_core(vec![WorkerMsg::Close {
            reason: "scheduler-close".into(),
        }]);
        worker
            .outbox
            .send_message(Value::map([("op", "close-stream")]));
        worker.outbox.close();
    }
    for client in context.clients.connected() {
        if let Some(connection) = &client.connection {
            // No `stream-closed`: clients would take it for their own doing, and not cancel futures.
            connection.outbox.close();
        }
    }
    // Peers close their ends when they have read it.
    let all_gone = async {
        while !context.workers.is_empty() || !context.clients.connected().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(FAREWELL, all_gone).await;
    context.python.close();
    tasks.abort_all();
    context.core.stop().await;
    tracing::info!(target: "distributed.scheduler", "Stopped scheduler at '{}'", context.identity.address);
}
