//! `restart` and `restart_workers`: forget everything, and have nannies start fresh processes.

use std::sync::Arc;
use std::time::Duration;

use oxidask_scheduler_core::event::Event;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::clock;
use crate::context::Context;
use crate::peers::PeerError;
use crate::rpc::{Call, Reply, RpcError};
use crate::workers::WorkerEntry;

/// Between two looks whether workers are back.
const POLL: Duration = Duration::from_millis(100);
/// Longest that the answer waits for the streams of clients.
const TOLD: Duration = Duration::from_secs(1);
/// First release whose nannies have `kill` restart the process by themselves.
const KILL_RESTARTS: Release = Release::new(2022, 5, 1);
/// First release whose nannies accept a `reason`.
const KILL_REASON: Release = Release::new(2022, 10, 1);

/// What to restart and how long to wait for it.
pub struct Restart {
    /// Addresses; all when none are given.
    pub workers: Option<Vec<String>>,
    /// Seconds for the old processes to end and the new ones to come.
    pub timeout: f64,
    /// Whether to wait for the new ones.
    pub wait: bool,
    /// Whether a worker that does not make it fails the whole.
    pub raise: bool,
    /// Cause.
    pub stimulus_id: Arc<str>,
}

impl Restart {
    fn from_call(call: &Call) -> Result<Self, RpcError> {
        let stimulus_id = match call.opt_str("stimulus_id")? {
            Some(id) => id.into(),
            None => format!("restart-{}", clock::now().0).into(),
        };
        Ok(Self {
            workers: call.opt_texts("workers")?,
            timeout: call.opt_seconds("timeout")?.unwrap_or(30.0),
            wait: call.flag("wait_for_workers", true),
            raise: call.opt_str("on_error")? != Some("return"),
            stimulus_id,
        })
    }
}

/// `restart`: forgets all tasks, then restarts all workers.
pub async fn restart(context: Arc<Context>, call: Call) -> Reply {
    let mut restart = Restart::from_call(&call)?;
    restart.workers = None;
    restart_everything(&context, restart).await?;
    told(&context).await;
    Ok(Value::Nil)
}

/// Waits until the clients were sent what was queued for them: one that has the answer submits anew,
/// and would lose its new futures to the news of the restart.
async fn told(context: &Context) {
    let mut waiting = tokio::task::JoinSet::new();
    for client in context.clients.connected() {
        if let Some(connection) = &client.connection {
            waiting.spawn(connection.outbox.checkpoint().reached());
        }
    }
    let all = async { while waiting.join_next().await.is_some() {} };
    // A client that does not read must not hold up the others.
    let _ = tokio::time::timeout(TOLD, all).await;
}

/// Forgets all tasks, tells all clients, restarts all workers.
///
/// # Errors
/// `TimeoutError` when a worker does not end, or does not come back, in time.
pub async fn restart_everything(context: &Arc<Context>, restart: Restart) -> Result<(), RpcError> {
    tracing::info!(target: "distributed.scheduler", "Restarting workers and releasing all keys (stimulus_id='{}')", restart.stimulus_id);
    let stimulus_id = Arc::clone(&restart.stimulus_id);
    context
        .core
        .apply(vec![Event::Restart { stimulus_id }])
        .await?;
    for extension in &context.extensions {
        extension.restarted(context);
    }
    restart_processes(context, restart).await.map(drop)
}

/// `restart` on a client's stream (≤ 2022.7.0): the clients are told when it is done, not before.
///
/// # Errors
/// As [`restart_everything`].
pub async fn restart_then_tell(context: &Arc<Context>, restart: Restart) -> Result<(), RpcError> {
    let stimulus_id = Arc::clone(&restart.stimulus_id);
    let cause = Arc::clone(&stimulus_id);
    let release = move |state: &oxidask_scheduler_core::Scheduler| -> Vec<Event> {
        let of =
            |client: oxidask_scheduler_core::views::ClientView<'_>| Event::ClientReleasesKeys {
                client: client.id(),
                keys: client.wants_what().map(|task| task.key().clone()).collect(),
                stimulus_id: Arc::clone(&cause),
            };
        state.clients().map(of).collect()
    };
    // Nothing is to be computed again on the workers that come.
    let released = context.core.query(release).await?;
    context.core.apply(released).await?;
    let outcome = restart_processes(context, restart).await;
    let told = vec![Event::Restart { stimulus_id }];
    context.core.apply(told).await?;
    for extension in &context.extensions {
        extension.restarted(context);
    }
    outcome.map(drop)
}

/// `restart_workers`: only the processes; tasks are computed again where needed.
pub async fn restart_workers(context: Arc<Context>, call: Call) -> Reply {
    let restart = Restart::from_call(&call)?;
    let client = call.opt_str("client")?.map(str::to_owned);
    let outcome = restart_processes(&context, restart).await?;
    let workers = Value::array(outcome.iter().map(|(address, _)| address));
    let event = Value::map([
        ("action", Value::from("restart-workers")),
        ("workers", workers),
        ("client", client.as_deref().into()),
    ]);
    context.log_event(&["all"], &event);
    Ok(Value::map(
        outcome
            .into_iter()
            .map(|(address, outcome)| (address.to_string(), outcome)),
    ))
}

async fn restart_processes(
    context: &Arc<Context>,
    restart: Restart,
) -> Result<Vec<(Arc<str>, &'static str)>, RpcError> {
    let before = context.workers.len();
    let deadline = clock::now().after(restart.timeout);
    let chosen: Vec<Arc<WorkerEntry>> = match &restart.workers {
        None => context.workers.all(),
        Some(addresses) => {
            let workers = context.workers.all().into_iter();
            workers
                .filter(|w| addresses.iter().any(|a| **a == *w.info.address))
                .collect()
        }
    };
    let (nannied, alone): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|w| w.info.nanny.is_some());
    let mut outcome = Vec::new();
    if !alone.is_empty() {
        let addresses: Vec<&Arc<str>> = alone.iter().map(|w| &w.info.address).collect();
        tracing::warn!(target: "distributed.scheduler", "Workers {addresses:?} do not use a nanny and will be terminated without restarting them");
        remove(context, &alone, &restart.stimulus_id).await?;
        outcome.extend(
            alone
                .iter()
                .map(|w| (Arc::clone(&w.info.address), "removed")),
        );
    }
    let stuck = kill_by_nanny(context, &nannied, &restart).await;
    for worker in &nannied {
        let failed = stuck.iter().any(|w| w.id == worker.id);
        let result = if failed { "timed out" } else { "OK" };
        outcome.push((Arc::clone(&worker.info.address), result));
    }
    if !stuck.is_empty() {
        remove(context, &stuck, &restart.stimulus_id).await?;
        if restart.raise {
            let addresses: Vec<&str> = stuck.iter().map(|w| &*w.info.address).collect();
            return Err(RpcError::timeout(format!(
                "{}/{} nanny worker(s) did not shut down within {}s: {}",
                stuck.len(),
                nannied.len(),
                restart.timeout,
                addresses.join(", ")
            )));
        }
    }
    if restart.wait {
        wait_for_return(
            context,
            &nannied,
            before,
            deadline,
            &restart,
            &alone,
            &mut outcome,
        )
        .await?;
    }
    Ok(outcome)
}

/// Waits until as many workers are there as before, none of them an old one.
async fn wait_for_return(
    context: &Arc<Context>,
    nannied: &[Arc<WorkerEntry>],
    before: usize,
    deadline: oxidask_scheduler_core::ids::Timestamp,
    restart: &Restart,
    alone: &[Arc<WorkerEntry>],
    outcome: &mut [(Arc<str>, &'static str)],
) -> Result<(), RpcError> {
    let missing = || {
        let old = nannied
            .iter()
            .filter(|w| context.workers.get(w.id).is_some());
        before.saturating_sub(context.workers.len().saturating_sub(old.count()))
    };
    while missing() > 0 {
        if clock::now().since(deadline) >= 0.0 {
            if !restart.raise {
                let all = context.workers.all();
                for worker in nannied {
                    let back = all
                        .iter()
                        .any(|w| w.info.nanny == worker.info.nanny && w.id != worker.id);
                    let entry = outcome.iter_mut().find(|(a, _)| *a == worker.info.address);
                    if let (false, Some(entry)) = (back, entry) {
                        entry.1 = "timed out";
                    }
                }
                return Ok(());
            }
            let mut message = format!(
                "Waited for {} worker(s) to reconnect after restarting but, after {}s, {} have not \
                 returned. Consider a longer timeout, or `wait_for_workers=False`.",
                nannied.len() + alone.len(),
                restart.timeout,
                missing()
            );
            if !alone.is_empty() {
                message.push_str(&format!(
                    " The {} worker(s) not using Nannies were just shut down instead of restarted \
                     (restart is only possible with Nannies).",
                    alone.len()
                ));
            }
            return Err(RpcError::timeout(message));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Has the nanny of a silent worker start a fresh process, and removes the worker if that fails.
pub async fn restart_unresponsive(
    context: &Arc<Context>,
    worker: Arc<WorkerEntry>,
    stimulus_id: Arc<str>,
) {
    tracing::warn!(target: "distributed.scheduler", "Worker {} did not respond; its nanny restarts it", worker.info.address);
    let restart = Restart {
        workers: None,
        timeout: 60.0,
        wait: false,
        raise: false,
        stimulus_id,
    };
    let stuck = kill_by_nanny(context, &[worker], &restart).await;
    // The core may be gone, then so is the worker.
    let _ = remove(context, &stuck, &restart.stimulus_id).await;
}

async fn remove(
    context: &Context,
    workers: &[Arc<WorkerEntry>],
    stimulus_id: &Arc<str>,
) -> Result<(), RpcError> {
    let event = |worker: &Arc<WorkerEntry>| Event::RemoveWorker {
        worker: worker.id,
        expected: true,
        close: true,
        stimulus_id: Arc::clone(stimulus_id),
    };
    context
        .core
        .apply(workers.iter().map(event).collect())
        .await?;
    Ok(())
}

/// Has the nannies end their workers; those that did not in time.
async fn kill_by_nanny(
    context: &Arc<Context>,
    workers: &[Arc<WorkerEntry>],
    restart: &Restart,
) -> Vec<Arc<WorkerEntry>> {
    let mut tasks = tokio::task::JoinSet::new();
    for (i, worker) in workers.iter().enumerate() {
        let Some(nanny) = worker.info.nanny.clone() else {
            continue;
        };
        let request = kill_request(worker.release, restart);
        let (context, timeout) = (Arc::clone(context), clock::seconds(restart.timeout));
        tasks.spawn(async move {
            let answer = context.peers.ask_within(timeout, &nanny, &request).await;
            (i, answer)
        });
    }
    let mut done = vec![false; workers.len()];
    while let Some(joined) = tasks.join_next().await {
        let Ok((i, answer)) = joined else { continue };
        let ended = match answer {
            Ok(answer) => answer.as_str() != Some("timed out"),
            Err(PeerError::Remote(map)) => {
                tracing::error!(target: "distributed.scheduler", "A nanny could not restart its worker: {map:?}");
                false
            }
            Err(error) => {
                tracing::error!(target: "distributed.scheduler", "{error}");
                false
            }
        };
        if let Some(slot) = done.get_mut(i) {
            *slot = ended;
        }
    }
    let stuck = workers.iter().zip(done).filter(|(_, done)| !done);
    stuck.map(|(worker, _)| Arc::clone(worker)).collect()
}

fn kill_request(release: Release, restart: &Restart) -> Value {
    if release < KILL_RESTARTS {
        return Value::map([
            ("op", Value::from("restart")),
            ("reply", true.into()),
            ("timeout", (restart.timeout * 0.8).into()),
            ("executor_wait", false.into()),
        ]);
    }
    let mut request = Value::map([("op", Value::from("kill")), ("reply", true.into())]);
    if release >= KILL_REASON {
        request.insert("reason", &restart.stimulus_id);
    } else {
        request.insert("timeout", restart.timeout);
    }
    request
}
