//! `retire_workers`, and the ops of adaptive clusters that choose which: data that only a leaving
//! worker holds is copied elsewhere before it leaves.

use std::sync::Arc;
use std::time::Duration;

use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::policy::{Retirement, WorkersToClose};
use oxidask_scheduler_core::worker::WorkerStatus;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::handlers::identity::worker_identities;
use crate::rpc::{Call, Reply, RpcError};
use crate::session::stimulus;
use crate::workers::WorkerEntry;

/// Between two looks at the progress.
const POLL: Duration = Duration::from_millis(20);
/// First release whose workers are told of their status.
const STATUS_CHANGE: Release = Release::new(2022, 2, 0);
/// First release whose callers want a map when there is nothing to retire.
const EMPTY_MAP: Release = Release::new(2021, 9, 0);

/// The op. Workers by address (`workers`), by name (`names`), or chosen as `workers_to_close` does.
pub async fn retire_workers(context: Arc<Context>, call: Call) -> Reply {
    if call.get("names").is_some() && call.get("workers").is_some() {
        return Err(RpcError::type_error(
            "names and workers are mutually exclusive",
        ));
    }
    check_arguments(&call)?;
    let stimulus_id = match call.opt_str("stimulus_id")? {
        Some(id) => id.into(),
        None => stimulus("retire-workers"),
    };
    // Replication must not count on copies that are about to go.
    let _lock = context.replica_lock.read().await;
    let workers = chosen(&context, &call, &stimulus_id).await?;
    if workers.is_empty() {
        return Ok(match call.caller.release >= EMPTY_MAP {
            true => Value::Map(Vec::new()),
            false => Value::Array(Vec::new()),
        });
    }
    let retire = |worker: &Arc<WorkerEntry>| Event::RetireWorker {
        worker: worker.id,
        stimulus_id: Arc::clone(&stimulus_id),
    };
    context
        .core
        .apply(workers.iter().map(retire).collect())
        .await?;
    let identities = worker_identities(&context, &workers).await?;
    let remove = call.flag("remove", true);
    let close = call.flag("close_workers", false);
    let mut tasks = tokio::task::JoinSet::new();
    for (i, worker) in workers.iter().enumerate() {
        let (context, worker) = (Arc::clone(&context), Arc::clone(worker));
        let stimulus_id = Arc::clone(&stimulus_id);
        tasks.spawn(async move {
            let retired = track(&context, &worker, remove, close, stimulus_id).await;
            (i, retired)
        });
    }
    let mut retired = vec![false; workers.len()];
    while let Some(joined) = tasks.join_next().await {
        let (i, outcome) = joined.map_err(|_| RpcError::runtime_error("retirement aborted"))?;
        if let Some(slot) = retired.get_mut(i) {
            *slot = outcome?;
        }
    }
    // What the core says of the removals comes first in the event log.
    context.core.settle().await;
    let (done, given_up): (Vec<_>, Vec<_>) = identities
        .into_iter()
        .zip(retired)
        .partition(|(_, retired)| *retired);
    log(&context, &done, &given_up, &stimulus_id);
    Ok(done
        .into_iter()
        .map(|((address, identity), _)| (address, identity))
        .collect())
}

/// Refuses what contradicts itself, or is not known.
fn check_arguments(call: &Call) -> Result<(), RpcError> {
    const OWN: [&str; 5] = ["workers", "names", "close_workers", "remove", "stimulus_id"];
    const CHOOSING: [&str; 6] = ["memory_ratio", "n", "key", "minimum", "target", "attribute"];
    let named = call.get("names").is_some() || call.get("workers").is_some();
    for (name, _) in call.args.as_map().unwrap_or(&[]) {
        let name = name.as_str().unwrap_or_default();
        if OWN.contains(&name) {
            continue;
        }
        if !CHOOSING.contains(&name) {
            return Err(RpcError::type_error(format!(
                "Scheduler.workers_to_close() got an unexpected keyword argument '{name}'"
            )));
        }
        if named {
            return Err(RpcError::type_error(format!(
                "Parameters for workers_to_close() are mutually exclusive with names and workers: {name}"
            )));
        }
    }
    Ok(())
}

type Outcome = ((Arc<str>, Value), bool);

fn log(context: &Arc<Context>, done: &[Outcome], given_up: &[Outcome], stimulus_id: &Arc<str>) {
    let addresses = |outcomes: &[Outcome]| Value::array(outcomes.iter().map(|((a, _), _)| a));
    let all = Value::map([
        ("action", Value::from("retire-workers")),
        ("retired", addresses(done)),
        ("could-not-retire", addresses(given_up)),
        ("stimulus_id", stimulus_id.into()),
    ]);
    context.log_event(&["all"], &all);
    for (outcomes, action) in [(done, "retired"), (given_up, "could-not-retire")] {
        let event = Value::map([("action", action), ("stimulus_id", stimulus_id)]);
        for ((address, _), _) in outcomes {
            context.log_event(&[address], &event);
        }
    }
}

async fn chosen(
    context: &Arc<Context>,
    call: &Call,
    stimulus_id: &str,
) -> Result<Vec<Arc<WorkerEntry>>, RpcError> {
    let mut all = context.workers.all();
    if let Some(names) = call.opt_texts("names")? {
        tracing::info!(target: "distributed.scheduler", "Retire worker names {names:?}");
        all.retain(|worker| names.iter().any(|name| **name == *worker.info.name));
        return Ok(all);
    }
    if let Some(addresses) = call.opt_texts("workers")? {
        tracing::info!(target: "distributed.scheduler", "Retire worker addresses (stimulus_id='{stimulus_id}') {addresses:?}");
        all.retain(|worker| {
            addresses
                .iter()
                .any(|address| **address == *worker.info.address)
        });
        return Ok(all);
    }
    closable(context, call).await
}

/// Waits until the worker's data is safe, then lets it go. Whether it retired.
async fn track(
    context: &Arc<Context>,
    worker: &Arc<WorkerEntry>,
    remove: bool,
    close: bool,
    stimulus_id: Arc<str>,
) -> Result<bool, RpcError> {
    let id = worker.id;
    loop {
        match context
            .core
            .query(move |state| state.retirement(id))
            .await?
        {
            Some(Retirement::InProgress) => tokio::time::sleep(POLL).await,
            Some(Retirement::NoRecipients) => {
                tracing::warn!(target: "distributed.scheduler", "Could not retire worker '{}': unique data could not be moved to any other worker (stimulus_id='{stimulus_id}')", worker.info.address);
                if worker.release < STATUS_CHANGE {
                    // It was never told to leave, so it will not say that it stays.
                    let event = Event::WorkerStatusChanged {
                        worker: id,
                        status: WorkerStatus::Running,
                        stimulus_id,
                    };
                    context.core.apply(vec![event]).await?;
                }
                return Ok(false);
            }
            Some(Retirement::Done) | None => break,
        }
    }
    if remove {
        let event = Event::RemoveWorker {
            worker: id,
            expected: true,
            close,
            stimulus_id: Arc::clone(&stimulus_id),
        };
        context.core.apply(vec![event]).await?;
    } else if close {
        let close = oxidask_scheduler_core::effect::WorkerMsg::Close {
            reason: "scheduler-close-worker".into(),
        };
        worker.outbox.send_core(vec![close]);
    }
    tracing::info!(target: "distributed.scheduler", "Retired worker '{}' (stimulus_id='{stimulus_id}')", worker.info.address);
    Ok(true)
}

/// What a function of the client (`key`), or plugins with `valid_workers_downscaling`, choose.
async fn chosen_by_python(
    context: &Context,
    call: &Call,
) -> Result<Vec<Arc<WorkerEntry>>, RpcError> {
    let mut call = call.clone();
    for own in ["attribute", "close_workers", "remove", "stimulus_id"] {
        call.take(own);
    }
    let chosen = context.python.workers_to_close(&call).await?;
    let addresses = chosen.as_seq().unwrap_or_default().iter();
    Ok(addresses
        .filter_map(|address| context.workers.at(address.as_str()?))
        .collect())
}

/// Workers that can be closed at least cost.
async fn closable(context: &Context, call: &Call) -> Result<Vec<Arc<WorkerEntry>>, RpcError> {
    if call.get("key").is_some() {
        // A pickled function: as good as `run_function`.
        let blocked = context.settings.blocked_handlers.contains("run_function");
        if blocked || !call.caller.roles.may_run_code() {
            return Err(RpcError::runtime_error(
                "workers_to_close(key=...) runs a function of the caller in the scheduler's place, which the caller may not; choose without a key",
            ));
        }
    }
    if call.get("key").is_some() || context.python.has_choosers() {
        return chosen_by_python(context, call).await;
    }
    let count = |name: &str| -> Result<Option<usize>, RpcError> {
        // Below zero counts as zero, as in stock.
        Ok(call.opt_i64(name)?.map(|n| usize::try_from(n).unwrap_or(0)))
    };
    let how = WorkersToClose {
        memory_ratio: call.opt_f64("memory_ratio")?,
        n: count("n")?,
        minimum: count("minimum")?,
        target: count("target")?,
    };
    let ids = context.core.query(move |state| {
        let address = |id| match state.worker(id) {
            Some(worker) => Arc::clone(worker.address()),
            None => Arc::default(),
        };
        state.workers_to_close(&how, address)
    });
    let ids = ids.await?;
    Ok(ids
        .into_iter()
        .filter_map(|id| context.workers.get(id))
        .collect())
}

/// `workers_to_close`: what `retire_workers` would choose.
pub async fn workers_to_close(context: Arc<Context>, call: Call) -> Reply {
    let workers = closable(&context, &call).await?;
    let attribute = call.opt_str("attribute")?.unwrap_or("address");
    let of = |worker: &Arc<WorkerEntry>| {
        let info = &worker.info;
        Some(match attribute {
            "address" => Value::from(&info.address),
            "name" => worker.name.clone(),
            "host" => (&info.host).into(),
            "nanny" => info.nanny.as_ref().map_or(Value::Nil, Value::from),
            "pid" => info.pid.into(),
            "nthreads" => info.nthreads.into(),
            "memory_limit" => info.memory_limit.into(),
            "local_directory" => (&info.local_directory).into(),
            "server_id" => (&info.server_id).into(),
            _ => return None,
        })
    };
    let values: Option<Vec<Value>> = workers.iter().map(of).collect();
    values
        .map(Value::Array)
        .ok_or_else(|| RpcError::value_error(format!("workers have no attribute '{attribute}'")))
}

/// `adaptive_target`: how many workers the present work asks for.
pub async fn adaptive_target(context: Arc<Context>, call: Call) -> Reply {
    let target_duration = call.opt_seconds("target_duration")?;
    let target = context
        .core
        .look(move |state| state.adaptive_target(target_duration));
    Ok(target.await?.into())
}
