//! Ops that only look at the state.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::task::TaskState;
use oxidask_scheduler_core::views::{TaskView, WorkerView};
use oxidask_scheduler_core::worker::WorkerStatus;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::rpc::{Call, Reply, RpcError};
use crate::versions;

/// Addresses of the workers an argument names (addresses or names); nothing when it is missing.
fn workers_of(context: &Context, call: &Call) -> Result<Option<Vec<Arc<str>>>, RpcError> {
    let Some(aliases) = call.opt_texts("workers")? else {
        return Ok(None);
    };
    let resolve = |alias: String| match context.workers.resolve(&alias) {
        Some(worker) => Arc::clone(&worker.info.address),
        None => alias.into(),
    };
    Ok(Some(aliases.into_iter().map(resolve).collect()))
}

/// Asks something of each of these workers, or of all: `{address: answer}`. `unknown` answers for
/// those that are not there; without it they are left out.
async fn by_worker(
    context: &Context,
    workers: Option<Vec<Arc<str>>>,
    unknown: Option<Value>,
    ask: fn(WorkerView<'_>) -> Option<Value>,
) -> Reply {
    let answers = context.core.look(move |state| {
        let mut answers: Vec<(Arc<str>, Value)> = Vec::new();
        match workers {
            None => {
                for worker in state.workers() {
                    answers.extend(ask(worker).map(|a| (Arc::clone(worker.address()), a)));
                }
            }
            Some(addresses) => {
                for address in addresses {
                    let answer = match state.worker_by_address(&address) {
                        Some(worker) => ask(worker),
                        None => unknown.clone(),
                    };
                    answers.extend(answer.map(|a| (address, a)));
                }
            }
        }
        answers
    });
    Ok(answers.await?.into_iter().collect())
}

fn keys_of<'a>(tasks: impl Iterator<Item = TaskView<'a>>) -> Value {
    Value::array(tasks.map(|task| task.key()))
}

/// `who_has`: holders of these keys, or of all.
pub async fn who_has(context: Arc<Context>, call: Call) -> Reply {
    let keys = call.opt_keys("keys")?;
    let answers = context.core.look(move |state| {
        let holders = |task: Option<TaskView<'_>>| {
            let workers = task.iter().flat_map(|task| task.who_has());
            Value::array(workers.map(|worker| worker.address()))
        };
        match keys {
            Some(keys) => keys
                .into_iter()
                .map(|key| {
                    let holders = holders(state.task(&key));
                    (key, holders)
                })
                .collect::<Vec<_>>(),
            None => state
                .tasks()
                .map(|task| (task.key().clone(), holders(Some(task))))
                .collect(),
        }
    });
    Ok(answers.await?.into_iter().collect())
}

/// `has_what`: results of these workers, or of all.
pub async fn has_what(context: Arc<Context>, call: Call) -> Reply {
    let workers = workers_of(&context, &call)?;
    let none = Some(Value::Array(Vec::new()));
    by_worker(&context, workers, none, |w| Some(keys_of(w.has_what()))).await
}

/// `processing`: tasks sent to these workers, or to all.
pub async fn processing(context: Arc<Context>, call: Call) -> Reply {
    let workers = workers_of(&context, &call)?;
    by_worker(&context, workers, None, |w| Some(keys_of(w.processing()))).await
}

/// `ncores`: threads of these workers, or of all.
pub async fn ncores(context: Arc<Context>, call: Call) -> Reply {
    let workers = workers_of(&context, &call)?;
    by_worker(&context, workers, None, |w| Some(w.nthreads().into())).await
}

/// `ncores_running`: the same, of workers that take tasks.
pub async fn ncores_running(context: Arc<Context>, call: Call) -> Reply {
    let workers = workers_of(&context, &call)?;
    by_worker(&context, workers, None, |worker| {
        (worker.status() == WorkerStatus::Running).then(|| worker.nthreads().into())
    })
    .await
}

/// `nbytes`: sizes of results, by key or (with `summary`) by prefix.
pub async fn nbytes(context: Arc<Context>, call: Call) -> Reply {
    let keys = call.opt_keys("keys")?;
    let summary = call.flag("summary", true);
    let sizes = context.core.look(move |state| {
        let sized = |task: TaskView<'_>| Some((task.key().clone(), task.nbytes()?));
        let sizes: Vec<(Key, u64)> = match &keys {
            Some(keys) => keys
                .iter()
                .filter_map(|key| Some((key.clone(), state.task(key)?.nbytes().unwrap_or(0))))
                .collect(),
            None => state.tasks().filter_map(sized).collect(),
        };
        if !summary {
            return sizes;
        }
        let mut sums = indexmap::IndexMap::<Key, u64>::new();
        for (key, size) in sizes {
            let prefix = match state.task(&key) {
                Some(task) => Key::Str(Arc::clone(task.prefix().name())),
                None => continue,
            };
            *sums.entry(prefix).or_default() += size;
        }
        sums.into_iter().collect()
    });
    Ok(sizes.await?.into_iter().collect())
}

/// `get_task_status`: the state of each key, `None` for unknown ones.
pub async fn get_task_status(context: Arc<Context>, call: Call) -> Reply {
    let keys = call.keys("keys")?;
    let states = context.core.look(move |state| {
        let status = |key: Key| {
            let status = state.task(&key).map(|task| task.state().as_str());
            (key, Value::from(status))
        };
        keys.into_iter().map(status).collect::<Vec<_>>()
    });
    Ok(states.await?.into_iter().collect())
}

/// `get_task_prefix_states`: how many tasks of each prefix are in which state.
pub async fn get_task_prefix_states(context: Arc<Context>, _call: Call) -> Reply {
    const SHOWN: [TaskState; 5] = [
        TaskState::Memory,
        TaskState::Erred,
        TaskState::Released,
        TaskState::Processing,
        TaskState::Waiting,
    ];
    let states = context.core.look(|state: &Scheduler| {
        let prefixes = state.task_prefixes().filter_map(|prefix| {
            let counts = SHOWN.map(|s| (s.as_str(), prefix.count(s)));
            let any = counts.iter().any(|(_, count)| *count > 0);
            any.then(|| (Arc::clone(prefix.name()), Value::map(counts)))
        });
        prefixes.collect::<Vec<_>>()
    });
    Ok(states.await?.into_iter().collect())
}

/// `get_story`: transitions of these keys or causes.
pub async fn get_story(context: Arc<Context>, call: Call) -> Reply {
    let keys = call.keys("keys_or_stimuli")?;
    let story = context.core.look(move |state| {
        let entries = state.story(&keys).into_iter();
        Value::Array(entries.map(transition).collect())
    });
    Ok(story.await?)
}

/// One transition as stock tells it: key, start, finish, recommendations, stimulus, time.
pub fn transition(entry: &oxidask_scheduler_core::story::LogEntry) -> Value {
    let recommendations = entry.recommendations();
    Value::Array(vec![
        (&entry.key).into(),
        entry.start.as_str().into(),
        entry.finish.as_str().into(),
        recommendations
            .map(|(key, state)| (key, state.as_str()))
            .collect(),
        (&entry.stimulus_id).into(),
        entry.time.0.into(),
    ])
}

/// `versions`: packages of the Python that works for the scheduler. When none runs, those of a peer: the
/// scheduler goes along with any, so that a comparison tells what peers have against each other.
pub async fn versions(context: Arc<Context>, call: Call) -> Reply {
    let release = call.caller.release;
    let asked = call.opt_texts("packages")?.unwrap_or_default();
    if let Some(versions) = context.python.versions(release, &asked).await {
        return Ok(versions);
    }
    let packages = versions::packages_of_a_peer(&context, release);
    let mut packages = packages.unwrap_or_else(|| {
        let release = Value::from(release.to_string());
        Value::map([("dask", release.clone()), ("distributed", release)])
    });
    for name in asked {
        if packages.get(&name).is_none() {
            packages.insert(&name, Value::Nil);
        }
    }
    packages.insert("oxidask", env!("CARGO_PKG_VERSION"));
    Ok(Value::map([
        ("host", versions::host()),
        ("packages", packages),
    ]))
}
