//! How many workers the present work needs, and which could go: `adaptive_target`, `workers_to_close`.

use std::sync::Arc;

use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::views::{TaskView, WorkerView};
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::rpc::{Call, Reply, RpcError};

/// Waiting tasks whose durations are looked up; more are extrapolated.
const SAMPLE: usize = 100;
/// Memory in use above which twice the workers are asked for.
const CROWDED: f64 = 0.6;
/// Memory that must stay free when workers go: limits are at least so many times what is used.
const MEMORY_RATIO: f64 = 2.0;

/// The op. `target_duration` in seconds or as text; by default `adaptive.target-duration`.
pub async fn adaptive_target(context: Arc<Context>, call: Call) -> Reply {
    let duration = call.opt_seconds("target_duration")?;
    let target = context
        .core
        .query(move |scheduler| target(scheduler, duration))
        .await?;
    Ok(target.into())
}

/// The op. `n` (or `target`, what shall remain) closes exactly so many; without them those that
/// neither work nor are needed for their memory. `attribute`: `address` or `name`.
pub async fn workers_to_close(context: Arc<Context>, call: Call) -> Reply {
    if call.get("key").is_some() {
        return Err(RpcError::not_implemented(
            "workers_to_close(key=…) needs Python in the scheduler",
        ));
    }
    let by_name = match call.opt_str("attribute")? {
        None | Some("address") => false,
        Some("name") => true,
        Some(other) => {
            return Err(RpcError::value_error(format!(
                "workers cannot be listed by '{other}', only by address or name"
            )));
        }
    };
    let wanted = Wanted {
        close: call.opt_i64("n")?,
        remain: call.opt_i64("target")?,
        minimum: call.opt_i64("minimum")?,
        memory_ratio: call.opt_f64("memory_ratio")?,
    };
    let close = context
        .core
        .query(move |scheduler| choose(scheduler, wanted))
        .await?;
    if !by_name {
        return Ok(Value::array(close));
    }
    let name = |address: Arc<str>| {
        context
            .workers
            .at(&address)
            .map(|worker| worker.name.clone())
    };
    Ok(Value::Array(close.into_iter().filter_map(name).collect()))
}

/// Workers that would do the present work in the target duration and hold its results.
#[must_use]
pub fn target(scheduler: &Scheduler, target_duration: Option<f64>) -> u64 {
    let duration = target_duration.unwrap_or(scheduler.config().adaptive_target_duration);
    let waiting = scheduler.queued_count() + scheduler.unrunnable_count();
    let have = scheduler.workers_len();
    let work = scheduler.total_occupancy() + waiting_seconds(scheduler, waiting);
    let threads = ceil(work / duration.max(1e-9));
    // Few long tasks do not need many threads.
    let ready = waiting
        + scheduler
            .workers()
            .map(|worker| worker.processing_len())
            .sum::<usize>();
    let mut wanted = threads.min(u64::try_from(ready).unwrap_or(u64::MAX));
    if have > 0 {
        #[expect(clippy::cast_precision_loss, reason = "counts of workers and threads")]
        let each = scheduler.total_nthreads() as f64 / have as f64;
        #[expect(clippy::cast_precision_loss, reason = "counts of threads")]
        let workers = wanted as f64 / each.max(1e-9);
        wanted = ceil(workers);
    } else if waiting > 0 {
        wanted = wanted.max(1);
    }
    let have = u64::try_from(have).unwrap_or(u64::MAX);
    let wanted = wanted.max(if is_crowded(scheduler) {
        have.saturating_mul(2)
    } else {
        0
    });
    if wanted >= have {
        return wanted;
    }
    let close = u64::try_from(to_close(scheduler, None).len()).unwrap_or(0);
    have.saturating_sub(close)
}

fn ceil(amount: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates"
    )]
    let whole = amount.max(0.0).ceil() as u64;
    whole
}

/// Seconds of tasks that no worker has yet.
fn waiting_seconds(scheduler: &Scheduler, waiting: usize) -> f64 {
    let unknown = scheduler.config().unknown_task_duration;
    let seconds = |task: TaskView<'_>| task.prefix().duration_average().unwrap_or(unknown);
    let unrunnable = scheduler.unrunnable().map(|(task, _)| task);
    let sum: f64 = scheduler
        .queued()
        .take(SAMPLE)
        .chain(unrunnable)
        .take(SAMPLE)
        .map(seconds)
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let factor = (waiting as f64 / SAMPLE as f64).max(1.0);
    sum * factor
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn is_crowded(scheduler: &Scheduler) -> bool {
    let limit = scheduler.total_memory() as f64;
    let used: u64 = scheduler.workers().map(|worker| worker.nbytes()).sum();
    limit > 0.0 && used as f64 > CROWDED * limit
}

/// What [`choose`] is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    close: Option<i64>,
    remain: Option<i64>,
    minimum: Option<i64>,
    memory_ratio: Option<f64>,
}

/// Addresses of workers that may go: so many, or those without work whose memory is not needed.
#[must_use]
pub fn to_close(scheduler: &Scheduler, count: Option<usize>) -> Vec<Arc<str>> {
    let close = count.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    choose(
        scheduler,
        Wanted {
            close,
            ..Wanted::default()
        },
    )
}

fn choose(scheduler: &Scheduler, wanted: Wanted) -> Vec<Arc<str>> {
    let have = i64::try_from(scheduler.workers_len()).unwrap_or(i64::MAX);
    let close = match (wanted.close, wanted.remain) {
        (None, Some(remain)) => Some(have.saturating_sub(remain).max(0)),
        (close, _) => close.map(|count| count.max(0)),
    };
    let ratio = match (close, wanted.memory_ratio) {
        (None, None) => Some(MEMORY_RATIO),
        (_, ratio) => ratio,
    };
    let mut workers: Vec<WorkerView<'_>> = scheduler.workers().collect();
    if close.unwrap_or(0) == 0 && workers.iter().all(|worker| worker.processing_len() > 0) {
        return Vec::new();
    }
    // Idle ones first, then those with the least data.
    workers.sort_by_key(|worker| (worker.processing_len() > 0, worker.nbytes()));
    let mut limit: u64 = workers.iter().map(|worker| worker.memory_limit()).sum();
    let used: u64 = workers.iter().map(|worker| worker.nbytes()).sum();
    let mut remaining = have;
    let mut chosen = Vec::new();
    for worker in workers {
        let busy = worker.processing_len() > 0;
        let too_few = wanted
            .minimum
            .is_some_and(|minimum| minimum > 0 && remaining - 1 < minimum);
        if (close.is_none() && busy) || too_few {
            break;
        }
        limit = limit.saturating_sub(worker.memory_limit());
        let by_count = close.is_some_and(|close| remaining > have.saturating_sub(close).max(0));
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let by_memory = ratio.is_some_and(|ratio| limit as f64 >= ratio * used as f64);
        if !by_count && !by_memory {
            break;
        }
        chosen.push(Arc::clone(worker.address()));
        remaining -= 1;
    }
    chosen
}
