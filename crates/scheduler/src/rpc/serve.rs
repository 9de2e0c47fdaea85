//! Running the handler of one request so that nothing it does can end the process.

use std::sync::Arc;

use oxidask_wire::connection::Reader;
use oxidask_wire::pickle::Exception;
use oxidask_wire::rpc::{self, ErrorStatus};
use oxidask_wire::value::Value;

use super::{Call, Caller, Reply, RpcError, StreamPeer};
use crate::context::Context;
use crate::core_thread::panic_message;

/// The answer to a request; nothing when the caller went away while its handler waited.
pub async fn answer(context: &Arc<Context>, call: Call, reader: &mut Reader) -> Option<Value> {
    let op = Arc::clone(&call.op);
    let caller = Arc::clone(&call.caller);
    match run(context, call, reader).await {
        Some(Ok(value)) => Some(value),
        Some(Err(error)) => Some(failed(context, &op, &caller, &error)),
        None => None,
    }
}

fn failed(context: &Context, op: &str, caller: &Caller, error: &RpcError) -> Value {
    match error {
        RpcError::Forward(map) => map.clone(),
        RpcError::Raise(_) => {
            tracing::info!(target: "distributed.core", "Exception while handling op {op}: {error}");
            error_reply(error, caller, context.settings.max_error_length)
        }
    }
}

/// The error map that makes the caller raise. A text longer than `limit` characters is cut.
pub fn error_reply(error: &RpcError, caller: &Caller, limit: usize) -> Value {
    let mut exception = error.exception();
    if exception.message().len() > limit {
        let short: String = exception.message().chars().take(limit).collect();
        exception = Exception::plain(format!("Long error message: {short}"));
    }
    rpc::error_reply(
        &exception,
        ErrorStatus::UncaughtError,
        Some(&caller.release),
    )
}

/// Runs the handler of an op on a stream (a map with `op`). A failure is logged; the stream goes on.
pub async fn run_stream_handler(context: &Arc<Context>, peer: StreamPeer, mut message: Value) {
    let call_peer = peer.clone();
    let op: Arc<str> = match message.remove("op") {
        Some(Value::Str(op)) => op.into(),
        _ => return,
    };
    let call = Call {
        op: Arc::clone(&op),
        args: message,
        serializers: None,
        caller: peer.caller(),
    };
    if !context.rpc.knows_stream(&op)
        && context
            .python
            .handle_stream(&op, &call.args, &call_peer)
            .await
    {
        return;
    }
    let Some(future) = context.rpc.start_stream(context, peer, call) else {
        tracing::warn!(target: "distributed.core", "Unknown stream operation {op}; ignored");
        return;
    };
    match tokio::spawn(future).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(target: "distributed.core", "Exception while handling {op}: {error}");
        }
        Err(error) => tracing::error!("bug: the handler of {op} ended with {error}"),
    }
}

async fn run(context: &Arc<Context>, call: Call, reader: &mut Reader) -> Option<Reply> {
    let op = Arc::clone(&call.op);
    if &*op == "close" {
        return Some(Ok("OK".into()));
    }
    if context.settings.blocked_handlers.contains(&*op) {
        return Some(Err(RpcError::value_error(format!(
            "The '{op}' handler has been explicitly disallowed in Scheduler, possibly due to \
             security concerns."
        ))));
    }
    if !context.rpc.knows(&op)
        && let Some(reply) = context.python.handle(&op, &call.args).await
    {
        return Some(reply);
    }
    let Some(started) = context.rpc.start(context, call) else {
        tracing::warn!(target: "distributed.core", "No handler {op} found in Scheduler");
        return Some(Ok(Value::Nil));
    };
    let mut task = AbortOnDrop(tokio::spawn(started.future), started.waits);
    let joined = if started.waits {
        tokio::select! {
            joined = &mut task.0 => joined,
            // A caller never sends while it waits: this is its end.
            _ = reader.read() => return None,
        }
    } else {
        (&mut task.0).await
    };
    match joined {
        Ok(reply) => Some(reply),
        Err(error) if error.is_panic() => {
            let panic = error.into_panic();
            let message = panic_message(&*panic);
            tracing::error!("bug: the handler of {op} panicked: {message}");
            Some(Err(RpcError::runtime_error(format!(
                "internal error of the scheduler in {op}: {message}"
            ))))
        }
        Err(_) => Some(Err(RpcError::runtime_error(
            "the scheduler is shutting down",
        ))),
    }
}

/// Ends a waiting handler with its caller.
struct AbortOnDrop(tokio::task::JoinHandle<Reply>, bool);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if self.1 {
            self.0.abort();
        }
    }
}
