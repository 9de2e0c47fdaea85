//! `gather`: results from workers to a client through the scheduler. Frames pass through as they
//! came.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use oxidask_key::Key;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::peers::PeerError;
use crate::rpc::{Call, Reply};
use crate::views;

/// Workers answer `busy` when they already serve many; as long stock waits before it asks again.
const BUSY_PAUSE: Duration = Duration::from_millis(150);
/// First release whose clients want missing keys as a list.
const MISSING_AS_LIST: Release = Release::new(2023, 8, 1);
/// First release whose workers do not know `max_connections` in `get_data`.
const NO_MAX_CONNECTIONS: Release = Release::new(2023, 8, 1);

/// What could be had.
pub struct Gathered {
    /// Key and value, in the order of arrival.
    pub data: Vec<(Key, Value)>,
    /// Keys nobody could give, with the workers that should have had them.
    pub missing: Vec<(Key, Vec<Arc<str>>)>,
}

/// The op.
pub async fn gather(context: Arc<Context>, call: Call) -> Reply {
    let keys = call.keys("keys")?;
    let count = keys.len();
    let serializers = call.serializers.clone();
    let gathered = gather_keys(&context, keys, serializers.as_ref()).await?;
    context.log_event(
        &["all"],
        &Value::map([("action", Value::from("gather")), ("count", count.into())]),
    );
    if gathered.missing.is_empty() {
        let data = gathered.data.into_iter().collect::<Value>();
        return Ok(Value::map([("status", "OK".into()), ("data", data)]));
    }
    let keys: Vec<&Key> = gathered.missing.iter().map(|(key, _)| key).collect();
    tracing::error!(target: "distributed.scheduler", "Couldn't gather keys: {keys:?}");
    let keys = if call.caller.release >= MISSING_AS_LIST {
        Value::array(gathered.missing.into_iter().map(|(key, _)| key))
    } else {
        let entry = |(key, holders): (Key, Vec<Arc<str>>)| (key, Value::array(holders));
        gathered.missing.into_iter().map(entry).collect()
    };
    Ok(Value::map([
        ("status", Value::from("error")),
        ("keys", keys),
    ]))
}

/// Fetches results from their holders, asking again while workers are busy and trying other
/// holders when one fails.
///
/// # Errors
/// When the core has stopped.
pub async fn gather_keys(
    context: &Arc<Context>,
    keys: Vec<Key>,
    serializers: Option<&Value>,
) -> Result<Gathered, crate::core_thread::CoreStopped> {
    let mut open: HashSet<Key> = keys.iter().cloned().collect();
    let mut failed_holders: HashSet<(Arc<str>, Option<Key>)> = HashSet::new();
    let mut gathered = Gathered {
        data: Vec::new(),
        missing: Vec::new(),
    };
    let mut round = 0usize;
    while !open.is_empty() {
        let asked: Vec<Key> = open.iter().cloned().collect();
        let who_has = views::who_has(&context.core, asked).await?;
        let mut by_worker: HashMap<Arc<str>, Vec<Key>> = HashMap::new();
        for (key, holders) in who_has {
            let usable = |holder: &&Arc<str>| {
                !failed_holders.contains(&(Arc::clone(holder), None))
                    && !failed_holders.contains(&(Arc::clone(holder), Some(key.clone())))
            };
            let holders_left: Vec<&Arc<str>> = holders.iter().filter(usable).collect();
            // Spreads the load over the holders without a random number.
            match holders_left.get(round % holders_left.len().max(1)) {
                Some(holder) => by_worker.entry(Arc::clone(holder)).or_default().push(key),
                None => {
                    open.remove(&key);
                    gathered.missing.push((key, holders));
                }
            }
        }
        round += 1;
        let busy = fetch_round(context, by_worker, serializers, |outcome| match outcome {
            Outcome::Got(key, value) => {
                open.remove(&key);
                gathered.data.push((key, value));
            }
            Outcome::HasNot(holder, key) => {
                failed_holders.insert((holder, Some(key)));
            }
            Outcome::Unreachable(holder) => {
                failed_holders.insert((holder, None));
            }
        })
        .await;
        if busy {
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }
    // Clients expect the data in the order they asked for it.
    let order: HashMap<&Key, usize> = keys.iter().enumerate().map(|(i, key)| (key, i)).collect();
    gathered
        .data
        .sort_by_key(|(key, _)| order.get(key).copied());
    gathered
        .missing
        .sort_by_key(|(key, _)| order.get(key).copied());
    Ok(gathered)
}

enum Outcome {
    Got(Key, Value),
    HasNot(Arc<str>, Key),
    Unreachable(Arc<str>),
}

/// Asks each worker for its keys, all at the same time. Whether one was busy.
async fn fetch_round(
    context: &Arc<Context>,
    by_worker: HashMap<Arc<str>, Vec<Key>>,
    serializers: Option<&Value>,
    mut report: impl FnMut(Outcome),
) -> bool {
    let mut tasks = tokio::task::JoinSet::new();
    for (worker, keys) in by_worker {
        let context = Arc::clone(context);
        let serializers = serializers.cloned();
        tasks.spawn(async move {
            let answer = get_data(&context, &worker, &keys, serializers).await;
            (worker, keys, answer)
        });
    }
    let mut busy = false;
    while let Some(joined) = tasks.join_next().await {
        let Ok((worker, keys, answer)) = joined else {
            continue;
        };
        match answer {
            Ok(Some(data)) => {
                let mut left: HashSet<Key> = keys.into_iter().collect();
                for (key, value) in data {
                    if let Some(key) = key.to_key()
                        && left.remove(&key)
                    {
                        report(Outcome::Got(key, value));
                    }
                }
                for key in left {
                    report(Outcome::HasNot(Arc::clone(&worker), key));
                }
            }
            Ok(None) => busy = true,
            Err(error) => {
                tracing::info!(target: "distributed.scheduler", "Could not gather from {worker}: {error}");
                report(Outcome::Unreachable(worker));
            }
        }
    }
    busy
}

/// `get_data` with its third message; nothing when the worker is busy.
async fn get_data(
    context: &Context,
    worker: &Arc<str>,
    keys: &[Key],
    serializers: Option<Value>,
) -> Result<Option<Vec<(Value, Value)>>, PeerError> {
    let mut retried = false;
    loop {
        let mut connection = context.peers.connect(worker).await?;
        let mut request = Value::map([
            ("op", Value::from("get_data")),
            ("reply", true.into()),
            ("keys", Value::array(keys)),
            ("who", Value::Nil),
            ("serializers", serializers.clone().unwrap_or_default()),
        ]);
        if connection.release() < NO_MAX_CONNECTIONS {
            request.insert("max_connections", false);
        }
        let answer = match connection.ask(&request).await {
            Err(_) if connection.is_reused() && !retried => {
                retried = true;
                context.peers.forget(worker);
                continue;
            }
            answer => answer?,
        };
        return match answer.get("status").and_then(Value::as_str) {
            Some("OK") => {
                connection.send(&"OK".into()).await?;
                connection.give_back();
                match answer {
                    Value::Map(mut fields) => {
                        let data = fields.iter().position(|(k, _)| k.as_str() == Some("data"));
                        match data.map(|at| fields.swap_remove(at).1) {
                            Some(Value::Map(data)) => Ok(Some(data)),
                            _ => Ok(Some(Vec::new())),
                        }
                    }
                    _ => Ok(Some(Vec::new())),
                }
            }
            Some("busy") => {
                connection.give_back();
                Ok(None)
            }
            _ => Err(PeerError::Remote(answer)),
        };
    }
}
