//! `replicate` and `rebalance`: copies made and moved at the scheduler's request. Workers fetch on
//! the RPC `gather`, which tells when they are done.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::policy::PlanError;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::clock;
use crate::context::Context;
use crate::rpc::{Call, Reply, RpcError};
use crate::workers::WorkerEntry;

/// First release whose workers have `free_keys` (before: `delete_data`).
const FREE_KEYS: Release = Release::new(2021, 6, 1);

/// Keys a worker fetches, with their holders.
pub(crate) type Fetches = Vec<(Key, Vec<Arc<str>>)>;

/// `replicate`.
pub async fn replicate(context: Arc<Context>, call: Call) -> Reply {
    let keys = call.keys("keys")?;
    let n = call.opt_i64("n")?.map(|n| usize::try_from(n).unwrap_or(0));
    let branching = call.opt_i64("branching_factor")?.unwrap_or(2);
    let branching = usize::try_from(branching).unwrap_or(0);
    if branching == 0 {
        return Err(RpcError::value_error("branching_factor must be positive"));
    }
    let workers = named_workers(&context, &call)?;
    let delete = call.flag("delete", true);
    match replicate_keys(&context, keys, n, workers, branching, delete).await? {
        missing if missing.is_empty() => Ok(Value::Nil),
        missing => Ok(partial_fail(missing)),
    }
}

fn partial_fail(keys: Vec<Key>) -> Value {
    Value::map([
        ("status", "partial-fail".into()),
        ("keys", Value::array(keys)),
    ])
}

/// The workers that `workers` names by address, name or host; nothing when it is missing.
fn named_workers(
    context: &Context,
    call: &Call,
) -> Result<Option<Vec<Arc<WorkerEntry>>>, RpcError> {
    let Some(aliases) = call.opt_texts("workers")? else {
        return Ok(None);
    };
    let mut found: Vec<Arc<WorkerEntry>> = Vec::new();
    for alias in aliases {
        match context.workers.resolve(&alias) {
            Some(worker) => found.push(worker),
            None => {
                let all = context.workers.all().into_iter();
                found.extend(all.filter(|worker| *worker.info.host == *alias));
            }
        }
    }
    Ok(Some(found))
}

/// Copies results until each is on `n` of the workers (all of them, if not given), each holder
/// serving `branching` others at a time. The keys that nobody holds, if any: then nothing is done.
///
/// # Errors
/// `ValueError` when no copy at all is asked for.
pub async fn replicate_keys(
    context: &Arc<Context>,
    keys: Vec<Key>,
    n: Option<usize>,
    workers: Option<Vec<Arc<WorkerEntry>>>,
    branching: usize,
    delete: bool,
) -> Result<Vec<Key>, RpcError> {
    let _lock = context.replica_lock.write().await;
    let ids: Option<Vec<_>> = workers.map(|workers| workers.iter().map(|w| w.id).collect());
    let keys = Arc::new(keys);
    // Each round at least doubles the copies; rounds that fail make no progress and end it.
    let mut failed_rounds = 0;
    let mut first = true;
    loop {
        let (asked, ids) = (Arc::clone(&keys), ids.clone());
        let plan = context.core.query(move |state| {
            let known: Vec<Key> = match first {
                true => asked.to_vec(),
                // Forgotten in the meantime: no longer needed.
                false => asked
                    .iter()
                    .filter(|key| state.task(key).is_some())
                    .cloned()
                    .collect(),
            };
            state.plan_replicate(&known, n, ids.as_deref(), branching, delete && first)
        });
        let plan = match plan.await? {
            Ok(plan) => plan,
            Err(PlanError::MissingData(missing)) if first => return Ok(missing),
            Err(PlanError::MissingData(_)) => break,
            Err(error) => return Err(RpcError::value_error(error.to_string())),
        };
        first = false;
        delete_on_workers(context, plan.drop).await?;
        if plan.fetch.is_empty() {
            break;
        }
        let fetches = plan.fetch.clone();
        let asked: usize = plan.fetch.iter().map(|(_, keys)| keys.len()).sum();
        let failed = gather_on_workers(context, plan.fetch).await?;
        for (worker, fetched) in fetches {
            let who_has = fetched.into_iter().map(|(k, h)| (k, Value::array(h)));
            let event = Value::map([
                ("action", Value::from("replicate-add")),
                ("who_has", who_has.collect()),
            ]);
            context.log_event(&[&worker], &event);
        }
        if failed.values().map(HashSet::len).sum::<usize>() == asked {
            failed_rounds += 1;
            if failed_rounds >= 3 {
                break;
            }
        }
    }
    let event = Value::map([
        ("action", Value::from("replicate")),
        ("key-count", keys.len().into()),
        ("branching-factor", branching.into()),
    ]);
    context.log_event(&["all"], &event);
    Ok(Vec::new())
}

/// `rebalance`: moves results from full workers to empty ones.
pub async fn rebalance(context: Arc<Context>, call: Call) -> Reply {
    let ok = || Value::map([("status", "OK")]);
    let keys = call.opt_keys("keys")?;
    let names = call.opt_texts("workers")?;
    let known = |name: &String| match context.workers.resolve(name) {
        Some(worker) => Ok(worker.id),
        None => Err(RpcError::key_error(name.as_str())),
    };
    let ids = names
        .map(|names| names.iter().map(known).collect::<Result<Vec<_>, _>>())
        .transpose()?;
    if keys.as_ref().is_some_and(Vec::is_empty) {
        return Ok(ok());
    }
    let _lock = context.replica_lock.write().await;
    let asked = keys.clone();
    let plan = context
        .core
        .query(move |state| state.plan_rebalance(asked.as_deref(), ids.as_deref()));
    let moves = match plan.await? {
        Ok(moves) => moves,
        Err(PlanError::MissingData(missing)) => return Ok(partial_fail(missing)),
        Err(error) => return Err(RpcError::value_error(error.to_string())),
    };
    if moves.is_empty() {
        return Ok(ok());
    }
    let mut fetches: HashMap<Arc<str>, Fetches> = HashMap::new();
    for copy in &moves {
        let entry = fetches.entry(Arc::clone(&copy.recipient)).or_default();
        entry.push((copy.key.clone(), vec![Arc::clone(&copy.sender)]));
    }
    let failed = gather_on_workers(&context, fetches.into_iter().collect()).await?;
    let mut drops: HashMap<Arc<str>, Vec<Key>> = HashMap::new();
    for copy in &moves {
        let failed = failed.get(&copy.recipient);
        if !failed.is_some_and(|keys| keys.contains(&copy.key)) {
            let entry = drops.entry(Arc::clone(&copy.sender)).or_default();
            entry.push(copy.key.clone());
        }
    }
    log_rebalance(&context, &moves, &drops);
    delete_on_workers(&context, drops.into_iter().collect()).await?;
    let missing: HashSet<Key> = failed.into_values().flatten().collect();
    if missing.is_empty() || keys.is_none() {
        return Ok(ok());
    }
    Ok(partial_fail(missing.into_iter().collect()))
}

fn log_rebalance(
    context: &Arc<Context>,
    moves: &[oxidask_scheduler_core::policy::Move],
    drops: &HashMap<Arc<str>, Vec<Key>>,
) {
    let mut recipients: indexmap::IndexMap<&Arc<str>, usize> = indexmap::IndexMap::new();
    for copy in moves {
        *recipients.entry(&copy.recipient).or_default() += 1;
    }
    let event = Value::map([
        ("action", Value::from("rebalance")),
        (
            "senders",
            drops.iter().map(|(w, keys)| (w, keys.len())).collect(),
        ),
        ("recipients", recipients.into_iter().collect()),
        ("moved_keys", moves.len().into()),
    ]);
    context.log_event(&["all"], &event);
}

/// Has workers fetch copies; the keys that each could not get. A worker that cannot be asked got
/// nothing.
pub(crate) async fn gather_on_workers(
    context: &Arc<Context>,
    fetches: Vec<(Arc<str>, Fetches)>,
) -> Result<HashMap<Arc<str>, HashSet<Key>>, RpcError> {
    let mut tasks = tokio::task::JoinSet::new();
    for (worker, fetch) in fetches {
        let context = Arc::clone(context);
        tasks.spawn(async move {
            let keys: HashSet<Key> = fetch.iter().map(|(key, _)| key.clone()).collect();
            let failed = gather_on_worker(&context, &worker, fetch).await;
            let failed = failed.unwrap_or_else(|| keys.clone());
            let copied: Vec<Key> = keys.difference(&failed).cloned().collect();
            if let Some(entry) = context.workers.at(&worker)
                && !copied.is_empty()
            {
                let event = Event::AddKeys {
                    worker: entry.id,
                    keys: copied,
                    stimulus_id: format!("replicate-{}", clock::now().0).into(),
                };
                // Handled before the next plan is made.
                let _ = context.core.apply(vec![event]).await;
            }
            (worker, failed)
        });
    }
    let mut failed = HashMap::new();
    while let Some(joined) = tasks.join_next().await {
        let (worker, keys) = joined.map_err(|_| RpcError::runtime_error("replication aborted"))?;
        if !keys.is_empty() {
            failed.insert(worker, keys);
        }
    }
    Ok(failed)
}

/// The keys it could not get; nothing when it could not be asked.
async fn gather_on_worker(
    context: &Context,
    worker: &Arc<str>,
    fetch: Fetches,
) -> Option<HashSet<Key>> {
    let who_has = fetch
        .into_iter()
        .map(|(key, holders)| (key, Value::array(holders)));
    let request = Value::map([
        ("op", Value::from("gather")),
        ("reply", true.into()),
        ("who_has", who_has.collect()),
    ]);
    let answer = match context.peers.ask(worker, &request).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(target: "distributed.scheduler", "Communication with worker {worker} failed during replication: {error}");
            return None;
        }
    };
    if answer.get("status").and_then(Value::as_str) == Some("OK") {
        return Some(HashSet::new());
    }
    let failed = answer.get("keys").and_then(crate::rpc::keys_of)?;
    tracing::warn!(target: "distributed.scheduler", "Worker {worker} failed to acquire keys: {failed:?}");
    Some(failed.into_iter().collect())
}

/// Has workers drop copies.
async fn delete_on_workers(
    context: &Arc<Context>,
    drops: Vec<(Arc<str>, Vec<Key>)>,
) -> Result<(), RpcError> {
    for (address, keys) in drops {
        let Some(worker) = context.workers.at(&address) else {
            continue;
        };
        let stimulus_id: Arc<str> = format!("delete-data-{}", clock::now().0).into();
        let mut request = Value::map([
            ("op", Value::from("free_keys")),
            ("reply", true.into()),
            ("keys", Value::array(&keys)),
            ("stimulus_id", (&stimulus_id).into()),
        ]);
        if worker.release < FREE_KEYS {
            request.insert("op", "delete_data");
            request.remove("stimulus_id");
        }
        if let Err(error) = context.peers.ask(&address, &request).await {
            tracing::warn!(target: "distributed.scheduler", "Communication with worker {address} failed during replication: {error}");
            continue;
        }
        let release = |key: &Key| Event::ReleaseWorkerData {
            worker: worker.id,
            key: key.clone(),
            stimulus_id: Arc::clone(&stimulus_id),
        };
        context
            .core
            .apply(keys.iter().map(release).collect())
            .await?;
        let event = Value::map([
            ("action", Value::from("remove-worker-data")),
            ("keys", Value::array(keys)),
        ]);
        context.log_event(&[&address], &event);
    }
    Ok(())
}
