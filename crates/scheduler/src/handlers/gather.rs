//! `gather`: results from workers to a client through the scheduler.
//!
//! Workers are asked first ([`search`]); what they answer stays with them until the client takes it,
//! except for a bounded part that is read ahead. [`forward`] passes the frames on as they come, so
//! that neither large results nor a slow client cost memory here; [`succession`] is for workers that
//! are lost meanwhile.

mod forward;
mod search;
mod succession;

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::rpc::{Call, Reply};

pub use forward::{ForwardError, forward};
use search::{Found, search};

/// First release whose clients want missing keys as a list.
const MISSING_AS_LIST: Release = Release::new(2023, 8, 1);

/// The op for clients whose frames have another form than ours, and so cannot be passed on as they
/// are: everything is collected first.
pub async fn gather(context: Arc<Context>, call: Call) -> Reply {
    let keys = call.keys("keys")?;
    let found = find(&context, &keys, &call).await?;
    if let Some(answer) = missing(&found, &call) {
        return Ok(answer);
    }
    let mut data = Vec::new();
    for part in found.parts {
        data.extend(part.into_values().await?);
    }
    order(&mut data, &keys);
    Ok(answer(data))
}

/// Asks the workers, and notes it in the event log.
async fn find(
    context: &Arc<Context>,
    keys: &[Key],
    call: &Call,
) -> Result<Found, crate::core_thread::CoreStopped> {
    let found = search(context, keys, call.serializers.as_ref()).await?;
    let event = Value::map([
        ("action", Value::from("gather")),
        ("count", keys.len().into()),
    ]);
    context.log_event(&["all"], &event);
    Ok(found)
}

/// The answer when some keys could not be had.
fn missing(found: &Found, call: &Call) -> Option<Value> {
    if found.missing.is_empty() {
        return None;
    }
    let keys: Vec<&Key> = found.missing.iter().map(|(key, _)| key).collect();
    tracing::error!(target: "distributed.scheduler", "Couldn't gather keys: {keys:?}");
    let keys = if call.caller.release >= MISSING_AS_LIST {
        Value::array(keys)
    } else {
        let entry = |(key, holders): &(Key, Vec<Arc<str>>)| (key.clone(), Value::array(holders));
        found.missing.iter().map(entry).collect()
    };
    Some(Value::map([
        ("status", Value::from("error")),
        ("keys", keys),
    ]))
}

/// Clients expect the data in the order they asked for it.
fn order(data: &mut [(Key, Value)], keys: &[Key]) {
    let order: std::collections::HashMap<&Key, usize> =
        keys.iter().enumerate().map(|(i, key)| (key, i)).collect();
    data.sort_by_key(|(key, _)| order.get(key).copied());
}

fn answer(data: Vec<(Key, Value)>) -> Value {
    let data = data.into_iter().collect::<Value>();
    Value::map([("status", "OK".into()), ("data", data)])
}
