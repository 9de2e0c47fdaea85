//! `call_stack`: what the threads of workers do for given tasks.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::task::TaskState;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::rpc::{Call, Reply, RpcError};

/// Running tasks by address of their worker.
type ByWorker = BTreeMap<Arc<str>, Vec<Key>>;

/// The op. Without `keys`: everything that runs. By worker, those without an answer left out.
pub async fn call_stack(context: Arc<Context>, call: Call) -> Reply {
    let asked: Vec<(Arc<str>, Value)> = match call.opt_keys("keys")? {
        None => {
            let workers = context.workers.all().into_iter();
            workers
                .map(|worker| (Arc::clone(&worker.info.address), Value::Nil))
                .collect()
        }
        Some(keys) => {
            let running = context
                .core
                .look(move |scheduler| running(scheduler, keys))
                .await?;
            let running = running.map_err(RpcError::key_error)?;
            running
                .into_iter()
                .map(|(worker, keys)| (worker, Value::array(keys)))
                .collect()
        }
    };
    let mut tasks = tokio::task::JoinSet::new();
    for (index, (worker, keys)) in asked.into_iter().enumerate() {
        let context = Arc::clone(&context);
        tasks.spawn(async move {
            let message = Value::map([
                ("op", Value::from("call_stack")),
                ("keys", keys),
                ("reply", true.into()),
            ]);
            let answer = context.peers.ask(&worker, &Arc::new(message)).await;
            (index, worker, answer)
        });
    }
    let mut answers = BTreeMap::new();
    while let Some(joined) = tasks.join_next().await {
        let (index, worker, answer) =
            joined.map_err(|_| RpcError::runtime_error("call_stack was aborted"))?;
        answers.insert(index, (worker, answer?));
    }
    let given = answers
        .into_values()
        .filter(|(_, answer)| answer.as_map().is_some_and(|map| !map.is_empty()));
    Ok(given.collect())
}

/// The running ones among these tasks and those that waiting ones wait for; the unknown key, if any.
fn running(scheduler: &Scheduler, keys: Vec<Key>) -> Result<ByWorker, Key> {
    let mut by_worker = ByWorker::new();
    let mut seen: HashSet<Key> = HashSet::new();
    let mut stack = keys;
    while let Some(key) = stack.pop() {
        let Some(task) = scheduler.task(&key) else {
            return Err(key);
        };
        if !seen.insert(key.clone()) {
            continue;
        }
        match (task.state(), task.processing_on()) {
            (TaskState::Waiting, _) => {
                stack.extend(task.dependencies().map(|task| task.key().clone()))
            }
            (TaskState::Processing, Some(worker)) => {
                by_worker
                    .entry(Arc::clone(worker.address()))
                    .or_default()
                    .push(key);
            }
            _ => {}
        }
    }
    Ok(by_worker)
}
