//! The end: signals, an RPC, or idleness; workers and clients are told.

use std::sync::Arc;
use std::time::Duration;

use oxidask_scheduler_core::effect::WorkerMsg;
use oxidask_wire::value::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::Running;
use crate::context::Context;

/// Time for peers to read what they are told.
const FAREWELL: Duration = Duration::from_secs(2);

/// Waits for a reason to end.
pub(super) async fn wait(context: &Context) -> Arc<str> {
    let on = |kind| signal(kind);
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (on(SignalKind::terminate()), on(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be caught; the process can only be killed");
        return context.shutdown.wait().await;
    };
    tokio::select! {
        reason = context.shutdown.wait() => reason,
        _ = terminate.recv() => "signal-15".into(),
        _ = interrupt.recv() => "signal-2".into(),
    }
}

/// Tells workers and clients, and ends all tasks.
pub(super) async fn close(running: Running, reason: &str) {
    let Running { context, mut tasks } = running;
    tracing::info!(target: "distributed.scheduler", "Closing scheduler. Reason: {reason}");
    context.shutdown.request(reason);
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
