//! Questions about tasks that several extensions ask.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::effect::TaskError;
use oxidask_wire::message::ErrorObject;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::wait::Deadline;
use crate::context::Context;
use crate::exceptions;
use crate::rpc::{Call, Caller, RpcError};

/// A task, as answers about futures tell it.
pub(super) struct KnownTask {
    /// Stock's spelling; `lost` when nobody knows the task.
    pub(super) state: &'static str,
    /// Exception and traceback, if the state is `erred`.
    pub(super) error: Option<(Value, Value)>,
}

/// The state of the task `key`, with its failure as the caller's release wants it.
///
/// # Errors
/// When the core has stopped.
pub(super) async fn key_state(
    context: &Arc<Context>,
    call: &Call,
    key: &Key,
) -> Result<KnownTask, RpcError> {
    let (state, error) = {
        let key = key.clone();
        let look = move |scheduler: &Scheduler| match scheduler.task(&key) {
            Some(task) => (task.state().as_str(), task.error().cloned()),
            None => ("lost", None),
        };
        context.core.query(look).await?
    };
    let error = error.map(|error| {
        let exception = exceptions::of_task(&error, call.caller.release);
        (object(exception), traceback(&error))
    });
    Ok(KnownTask { state, error })
}

fn traceback(error: &TaskError) -> Value {
    match error {
        TaskError::Remote {
            traceback: Some(traceback),
            ..
        } => traceback
            .get::<ErrorObject>()
            .cloned()
            .map_or(Value::Nil, object),
        _ => Value::Nil,
    }
}

fn object(error: ErrorObject) -> Value {
    match error {
        ErrorObject::Payload(payload) => Value::Payload(payload),
        ErrorObject::Pickle(pickle) => Value::Bin(pickle),
        ErrorObject::Text(text) => Value::Str(text),
    }
}

/// Since this release, storing a future of a task that stays unknown fails; before, it was stored
/// all the same.
const UNKNOWN_TASKS_ARE_REFUSED: Release = Release::new(2024, 8, 2);
/// How long a graph may be on its way, in seconds, when none is being expanded.
const PATIENCE: f64 = 2.0;

/// Waits until the scheduler knows all of `keys`, before they are kept for others. A client's
/// requests overtake the messages on its stream, so the graph may still be on its way.
///
/// # Errors
/// `TimeoutError` when a key is unknown at the deadline, to callers that expect it.
pub(super) async fn wait_for_graph(
    context: &Arc<Context>,
    caller: &Caller,
    keys: &[Key],
    deadline: Deadline,
) -> Result<(), RpcError> {
    if caller.release >= UNKNOWN_TASKS_ARE_REFUSED {
        return match wait_until_known(context, keys, deadline).await? {
            None => Ok(()),
            Some(key) => Err(RpcError::timeout(format!(
                "Task {key} unknown to scheduler."
            ))),
        };
    }
    match deadline.limit(wait_patiently(context, keys)).await {
        Ok(waited) => waited,
        Err(_) => Ok(()),
    }
}

/// Waits a while until the scheduler knows all of `keys`, and longer while graphs are being expanded;
/// goes on without an error if it still does not.
///
/// # Errors
/// When the core has stopped.
pub(super) async fn wait_patiently(context: &Arc<Context>, keys: &[Key]) -> Result<(), RpcError> {
    loop {
        let expanding = context.active_graphs.load(Ordering::Relaxed) > 0;
        let patience = Deadline::after(Some(PATIENCE));
        let Some(key) = wait_until_known(context, keys, patience).await? else {
            return Ok(());
        };
        if !expanding {
            tracing::debug!("{key} is kept for others, but no graph has it yet");
            return Ok(());
        }
    }
}

/// First and longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// Waits until all of `keys` are known. One that is unknown at the deadline, if any.
async fn wait_until_known(
    context: &Arc<Context>,
    keys: &[Key],
    deadline: Deadline,
) -> Result<Option<Key>, RpcError> {
    let mut pause = PAUSES.0;
    let mut unknown = keys.to_vec();
    loop {
        unknown = context
            .core
            .query(move |scheduler| only_unknown(scheduler, unknown))
            .await?;
        if unknown.is_empty() || deadline.has_passed() {
            return Ok(unknown.into_iter().next());
        }
        let _ = deadline.limit(tokio::time::sleep(pause)).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn only_unknown(scheduler: &Scheduler, mut keys: Vec<Key>) -> Vec<Key> {
    keys.retain(|key| scheduler.task(key).is_none());
    keys
}
