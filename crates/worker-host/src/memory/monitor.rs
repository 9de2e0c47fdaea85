//! Looking at the process regularly: pausing and resuming, and spilling when it is too large.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use oxidask_worker_core::Worker;
use oxidask_worker_core::event::Event;
use oxidask_worker_core::status::WorkerStatus;

use super::format_bytes;
use super::spilling::Memory;
use crate::clock::stimulus;
use crate::host::Handle;
use crate::metrics::resident_bytes;

/// Part of the time that may be spent on collecting garbage.
const GARBAGE_PART: f64 = 0.05;

/// Until the worker ends.
pub(crate) async fn watch(memory: Arc<Memory>, handle: Handle) {
    let thresholds = memory.settings.thresholds;
    if !thresholds.watches_process() {
        return;
    }
    let mut ticks = tokio::time::interval(memory.settings.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let garbage = Arc::new(Garbage::default());
    loop {
        ticks.tick().await;
        let Some(mut process) = resident_bytes() else {
            continue;
        };
        // What is of no use to anybody goes before anything else does.
        if memory.landing.process_has(process) {
            process = resident_bytes().unwrap_or(process);
        }
        let Some(status) = handle.ask(Worker::status).await else {
            return;
        };
        let short = thresholds.is_short(process);
        if short {
            garbage.collect(&memory);
        }
        let (verb, blanks) = match (status, short) {
            (WorkerStatus::Running, true) => ("Pausing worker.", "  "),
            (WorkerStatus::Paused, false) => ("Resuming worker.", " "),
            _ => ("", ""),
        };
        if !verb.is_empty() {
            tracing::warn!(
                target: "distributed.worker.memory",
                "Worker is at {}% memory usage. {verb}{blanks}Process memory: {} -- Worker memory limit: {}",
                thresholds.percent(process),
                format_bytes(process),
                format_bytes(thresholds.limit.unwrap_or(0)),
            );
            handle.event(Event::MemoryPressure {
                short,
                stimulus_id: stimulus("worker-status-change"),
            });
        }
        if thresholds.is_large(process) {
            memory.shrink_process();
        }
    }
}

/// Collecting garbage, one at a time and not too often.
#[derive(Default)]
struct Garbage {
    busy: AtomicBool,
    not_before: parking_lot::Mutex<Option<Instant>>,
}

impl Garbage {
    fn collect(self: &Arc<Self>, memory: &Arc<Memory>) {
        let early = self.not_before.lock().is_some_and(|at| Instant::now() < at);
        if early || self.busy.swap(true, Ordering::Relaxed) {
            return;
        }
        let (this, memory) = (Arc::clone(self), Arc::clone(memory));
        tokio::spawn(async move {
            let start = Instant::now();
            memory.interpreter.forget(Vec::new(), true).await.ok();
            let rest = start.elapsed().div_f64(GARBAGE_PART);
            *this.not_before.lock() = Some(Instant::now() + rest);
            this.busy.store(false, Ordering::Relaxed);
        });
    }
}
