//! Log lines: `logs` of the scheduler itself, `worker_logs` of workers or nannies.

use std::sync::Arc;

use oxidask_wire::value::Value;

use super::broadcast;
use crate::context::Context;
use crate::logging;
use crate::rpc::{Call, Reply};

/// The op. Newest first: `(level, text)`, with `timestamps` `(created, level, text)`. `start` in seconds
/// since 1970, `n` at most so many.
pub async fn logs(_context: Arc<Context>, call: Call) -> Reply {
    let start = call.opt_f64("start")?.unwrap_or(0.0);
    let limit = call
        .opt_i64("n")?
        .and_then(|count| usize::try_from(count).ok());
    let timestamps = call.flag("timestamps", false);
    let lines = logging::buffer()
        .newest(start, limit)
        .into_iter()
        .map(|line| {
            let mut entry = vec![Value::from(line.level), Value::from(&*line.text)];
            if timestamps {
                entry.insert(0, line.created.into());
            }
            Value::Array(entry)
        });
    Ok(Value::Array(lines.collect()))
}

/// The op: `get_logs` of workers, by address.
pub async fn worker_logs(context: Arc<Context>, mut call: Call) -> Reply {
    let count = call.take("n");
    call.args.insert(
        "msg",
        Value::map([("op", Value::from("get_logs")), ("n", count)]),
    );
    broadcast::broadcast(context, call).await
}
