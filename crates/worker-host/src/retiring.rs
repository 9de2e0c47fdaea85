//! Leaving in order: nothing new begins, the scheduler takes the data to other workers, then the worker
//! goes.

use std::time::Duration;

use oxidask_wire::rpc::Request;
use oxidask_wire::{Connection, Release, Value};
use oxidask_worker_core::event::Event;
use oxidask_worker_core::status::WorkerStatus;

use crate::clock::stimulus;
use crate::error::SchedulerError;
use crate::host::Handle;
use crate::peers::connect_options;

/// First release whose schedulers know `stimulus_id` in `retire_workers`.
const STIMULUS: Release = Release::new(2022, 4, 2);

/// Hands over, and closes with `reason` whatever came of it.
pub(crate) async fn retire(handle: &Handle, reason: &str, limit: Option<Duration>) {
    tracing::info!(
        "Closing worker gracefully: {}. Reason: {reason}",
        handle.address()
    );
    handle.event(Event::SetStatus {
        status: WorkerStatus::ClosingGracefully,
        stimulus_id: stimulus("worker-close-gracefully"),
    });
    let usual = Duration::try_from_secs_f64(handle.settings().retire_timeout);
    let limit = limit.unwrap_or_else(|| usual.unwrap_or_default());
    match tokio::time::timeout(limit, hand_over(handle)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!("the scheduler did not take the data of this worker: {error}");
        }
        Err(_) => tracing::warn!(
            "handing over the data took longer than {} s; leaving without",
            limit.as_secs_f64()
        ),
    }
    handle.close(reason);
}

async fn hand_over(handle: &Handle) -> Result<(), SchedulerError> {
    let settings = handle.settings();
    let mut args = Value::map([
        ("workers", Value::array([handle.address()])),
        ("close_workers", false.into()),
        ("remove", true.into()),
    ]);
    if settings.release >= STIMULUS {
        args.insert("stimulus_id", stimulus("worker-close-gracefully"));
    }
    let request = Request::new("retire_workers", args).to_message();
    let mut connection =
        Connection::connect(&settings.scheduler, &connect_options(settings)).await?;
    connection.send(&request).await?;
    let reply = connection.read().await?.value()?;
    match reply.get("status").and_then(Value::as_str) {
        Some(status) if status.contains("error") => {
            let text = reply.get("exception_text").and_then(Value::as_str);
            Err(SchedulerError::Refused(text.unwrap_or(status).to_owned()))
        }
        _ => Ok(()),
    }
}
