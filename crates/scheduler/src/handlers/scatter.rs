//! `scatter`: data from a client to workers through the scheduler.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oxidask_key::Key;
use oxidask_scheduler_core::event::{DataPlacement, Event};
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::clock;
use crate::context::Context;
use crate::handlers::replicate;
use crate::rpc::{Call, Reply, RpcError};
use crate::views;

/// Between two looks for a usable worker.
const POLL: Duration = Duration::from_millis(50);
/// First release whose workers do not know `report` in `update_data`.
const NO_REPORT: Release = Release::new(2023, 2, 1);

/// Where the next round begins, so that small scatters do not all go to the first worker.
static ROUND_ROBIN: AtomicUsize = AtomicUsize::new(0);

/// The op.
pub async fn scatter(context: Arc<Context>, mut call: Call) -> Reply {
    let Value::Map(data) = call.take("data") else {
        return Err(RpcError::type_error(
            "scatter() argument 'data' must be dict",
        ));
    };
    let wanted = call.opt_texts("workers")?;
    let timeout = call.opt_seconds("timeout")?.unwrap_or(2.0);
    let client_name = call.opt_str("client")?.map(str::to_owned);
    let workers = usable_workers(&context, wanted.as_deref(), timeout).await?;
    let count = data.len();
    let (keys, placements) = send_round_robin(&context, &workers, data).await?;
    let client = client_name
        .as_deref()
        .map(|name| context.clients.pseudo(&context.core, name));
    let event = Event::UpdateData {
        data: placements,
        client,
        stimulus_id: format!("scatter-{}", clock::now().0).into(),
    };
    context.core.apply(vec![event]).await?;
    if let Some(copies) = copies(call.get("broadcast"), workers.len()) {
        let targets = workers
            .iter()
            .filter_map(|address| context.workers.at(address));
        let targets = Some(targets.collect());
        replicate::replicate_keys(&context, keys.clone(), Some(copies), targets, 2, true).await?;
    }
    let client_name = client_name.unwrap_or_default();
    context.log_event(
        &[&client_name, "all"],
        &Value::map([
            ("action", Value::from("scatter")),
            ("client", client_name.as_str().into()),
            ("count", count.into()),
        ]),
    );
    Ok(Value::array(keys))
}

/// How many copies `broadcast` asks for.
fn copies(broadcast: Option<&Value>, workers: usize) -> Option<usize> {
    match broadcast? {
        Value::Bool(true) => Some(workers),
        Value::Bool(false) => None,
        number => {
            let n = number.as_u64().and_then(|n| usize::try_from(n).ok());
            n.filter(|n| *n > 0)
        }
    }
}

/// Running workers among those wanted (addresses or names), waiting for the first one.
async fn usable_workers(
    context: &Context,
    wanted: Option<&[String]>,
    timeout: f64,
) -> Result<Vec<Arc<str>>, RpcError> {
    let deadline = clock::now().after(timeout);
    loop {
        let mut running = views::running_workers(&context.core).await?;
        if let Some(wanted) = wanted {
            let mut addresses = Vec::new();
            for alias in wanted {
                let worker = context
                    .workers
                    .resolve(alias)
                    .ok_or_else(|| RpcError::key_error(alias.as_str()))?;
                addresses.push(Arc::clone(&worker.info.address));
            }
            running.retain(|address| addresses.contains(address));
        }
        if !running.is_empty() {
            running.sort();
            return Ok(running);
        }
        if clock::now().since(deadline) > 0.0 {
            return Err(RpcError::timeout("No valid workers found"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Sends item after item to worker after worker; the keys in order, and what lies where.
async fn send_round_robin(
    context: &Arc<Context>,
    workers: &[Arc<str>],
    data: Vec<(Value, Value)>,
) -> Result<(Vec<Key>, Vec<DataPlacement>), RpcError> {
    let first = ROUND_ROBIN.fetch_add(data.len(), Ordering::Relaxed);
    let mut keys = Vec::new();
    let mut holders: HashMap<Key, Arc<str>> = HashMap::new();
    let mut by_worker: HashMap<Arc<str>, Vec<(Value, Value)>> = HashMap::new();
    for (i, (key, value)) in data.into_iter().enumerate() {
        let Some(worker) = workers.get(first.wrapping_add(i) % workers.len().max(1)) else {
            break;
        };
        let name = key
            .to_key()
            .ok_or_else(|| RpcError::type_error("scatter() got a key of an illegal type"))?;
        holders.insert(name.clone(), Arc::clone(worker));
        keys.push(name);
        by_worker
            .entry(Arc::clone(worker))
            .or_default()
            .push((key, value));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (worker, items) in by_worker {
        let context = Arc::clone(context);
        tasks.spawn(async move {
            let mut request = Value::map([
                ("op", Value::from("update_data")),
                ("reply", true.into()),
                ("data", Value::Map(items)),
            ]);
            if context.peers.release_of(&worker) < NO_REPORT {
                request.insert("report", false);
            }
            context.peers.ask(&worker, &request).await
        });
    }
    let mut sizes: HashMap<Key, u64> = HashMap::new();
    while let Some(joined) = tasks.join_next().await {
        let answer = joined.map_err(|_| RpcError::runtime_error("scatter was aborted"))??;
        let nbytes = answer.get("nbytes").and_then(Value::as_map).unwrap_or(&[]);
        sizes.extend(
            nbytes
                .iter()
                .filter_map(|(key, size)| Some((key.to_key()?, size.as_u64()?))),
        );
    }
    let placements = holders
        .into_iter()
        .map(|(key, worker)| DataPlacement {
            nbytes: sizes.get(&key).copied().unwrap_or(0),
            who_has: vec![worker],
            key,
        })
        .collect();
    Ok((keys, placements))
}
