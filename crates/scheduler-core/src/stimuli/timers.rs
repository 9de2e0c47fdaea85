//! What happens when nothing happens: time-outs.

use std::sync::Arc;

use crate::Scheduler;
use crate::effect::{Effect, LoggedEvent, PlainValue, TaskError};
use crate::ids::{TaskId, Timestamp, WorkerId};
use crate::state::Failure;
use crate::task::TaskState;
use crate::transitions::Cause;

/// Seconds between looks at tasks without workers.
const NO_WORKERS_INTERVAL: f64 = 0.25;

/// Seconds between heartbeats that `n` workers are asked for.
pub fn heartbeat_interval(n: usize) -> f64 {
    match n {
        0..=10 => 0.5,
        11..=49 => 1.0,
        50..=199 => 2.0,
        // No more than 200 heartbeats per second in all.
        _ => n as f64 / 200.0 + 1.0,
    }
}

/// When things that happen regularly are due.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timers {
    ttl: Option<Timestamp>,
    no_workers: Option<Timestamp>,
    stealing: Option<Timestamp>,
    memory_manager: Option<Timestamp>,
    retirement: Option<Timestamp>,
    watchdog: Option<Timestamp>,
    /// A worker began to retire.
    memory_manager_once: Option<Timestamp>,
}

impl Timers {
    /// Runs the memory manager as soon as the events at hand are done.
    pub(crate) fn run_memory_manager_now(&mut self, now: Timestamp) {
        self.memory_manager_once = Some(now);
    }
}

impl Scheduler {
    /// Starts or stops the clocks according to the configuration and the state.
    pub(crate) fn set_timers(&mut self) {
        let now = self.now;
        let arm =
            |timer: &mut Option<Timestamp>, wanted: bool, interval: f64| match (wanted, &timer) {
                (true, None) => *timer = Some(now.after(interval.max(0.001))),
                (false, Some(_)) => *timer = None,
                _ => {}
            };
        let workers = !self.workers.is_empty();
        let ttl = self.config.worker_ttl.unwrap_or(0.0);
        arm(&mut self.timers.ttl, ttl > 0.0 && workers, ttl);
        let waiting = self.config.no_workers_timeout.is_some()
            && (!self.unrunnable.is_empty() || self.has_queued());
        arm(&mut self.timers.no_workers, waiting, NO_WORKERS_INTERVAL);
        let stealing = self.stealing.enabled && self.workers.len() > 1;
        let interval = self.config.work_stealing_interval;
        arm(&mut self.timers.stealing, stealing, interval);
        let managing = self.memory_manager.running && workers;
        let interval = self.config.amm_interval;
        arm(&mut self.timers.memory_manager, managing, interval);
        let patience = self.config.watchdog_patience.unwrap_or(0.0);
        let watching = patience > 0.0 && !self.tasks.is_empty();
        arm(&mut self.timers.watchdog, watching, patience / 2.0);
        let retiring = !self.memory_manager.running && self.memory_manager.is_retiring();
        arm(&mut self.timers.retirement, retiring, 2.0);
    }

    /// See [`Scheduler::poll_timeout`].
    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        if !self.letting_go.is_empty() || !self.orders.is_empty() {
            return Some(self.now);
        }
        let t = &self.timers;
        [
            t.ttl,
            t.no_workers,
            t.stealing,
            t.memory_manager,
            t.retirement,
            t.memory_manager_once,
            t.watchdog,
        ]
        .into_iter()
        .flatten()
        .min_by(|a, b| a.0.total_cmp(&b.0))
    }

    pub(crate) fn run_due_timers(&mut self) {
        let now = self.now;
        let due = |timer: &mut Option<Timestamp>| timer.take_if(|at| *at <= now).is_some();
        // A timer that has gone off is armed again by `set_timers`.
        if due(&mut self.timers.ttl) {
            self.check_worker_ttl();
        }
        if due(&mut self.timers.no_workers) {
            self.check_no_workers();
        }
        if due(&mut self.timers.stealing) {
            self.balance();
        }
        if due(&mut self.timers.watchdog) {
            self.run_watchdog();
        }
        let periodic = due(&mut self.timers.memory_manager);
        let retiring = due(&mut self.timers.retirement);
        let once = due(&mut self.timers.memory_manager_once);
        if periodic || retiring || once {
            self.run_memory_manager(self.memory_manager.running);
        }
    }

    fn check_worker_ttl(&mut self) {
        let Some(ttl) = self.config.worker_ttl else {
            return;
        };
        let ttl = ttl.max(10.0 * heartbeat_interval(self.workers.len()));
        let silent: Vec<WorkerId> = self
            .workers
            .registered()
            .iter()
            .copied()
            .filter(|&w| {
                let w = &self.workers[w];
                self.now.since(w.last_seen) > ttl && !w.unresponsive
            })
            .collect();
        if silent.is_empty() {
            return;
        }
        self.own_stimulus("check-worker-ttl");
        let addresses: Vec<&str> = silent
            .iter()
            .map(|&w| &**self.workers[w].address())
            .collect();
        let event = LoggedEvent::Plain(vec![
            ("action", PlainValue::Str("worker-ttl-timed-out".into())),
            ("workers", PlainValue::Str(addresses.join(" ").into())),
            ("ttl", PlainValue::Float(ttl)),
        ]);
        self.out.push(Effect::LogEvent {
            topics: vec!["scheduler".into()],
            event,
        });
        for worker in silent {
            if self.workers[worker].info.nanny.is_some() {
                self.workers[worker].unresponsive = true;
                self.out.push(Effect::WorkerUnresponsive {
                    worker,
                    stimulus_id: Arc::clone(&self.stimulus),
                });
            } else {
                self.remove_worker(worker, false, true);
            }
        }
    }

    /// Notes since when there has been work but no worker.
    pub(crate) fn refresh_no_workers_since(&mut self) {
        let work = self.has_queued() || !self.unrunnable.is_empty();
        if !self.workers.running.is_empty() || !work {
            self.no_workers_since = None;
        } else if self.no_workers_since.is_none() {
            self.no_workers_since = Some(self.now);
        }
    }

    /// Fails tasks that have waited for a worker for too long.
    fn check_no_workers(&mut self) {
        let Some(timeout) = self.config.no_workers_timeout else {
            return;
        };
        self.own_stimulus("check-no-workers-timeout");
        self.refresh_no_workers_since();
        let mut failed = Vec::new();
        let overdue: Vec<TaskId> = self
            .unrunnable
            .ids()
            .take_while(|&id| self.now.since(self.unrunnable.since(id)) > timeout)
            .collect();
        for id in overdue {
            // Were there workers at some time while it waited?
            let restricted = self
                .no_workers_since
                .is_none_or(|since| since >= self.unrunnable.since(id));
            let error = if restricted {
                self.no_valid_worker(id, timeout)
            } else {
                self.no_worker(id, timeout)
            };
            self.fail_waiting(id, error, &mut failed);
        }
        if self
            .no_workers_since
            .is_some_and(|since| self.now.since(since) > timeout)
        {
            let queued: Vec<TaskId> = self.queues.iter().flat_map(|q| q.sorted()).collect();
            for id in queued {
                let error = self.no_worker(id, timeout);
                self.fail_waiting(id, error, &mut failed);
            }
        }
        self.run_recommendations();
        if !failed.is_empty() {
            self.out.push(Effect::LogEvent {
                topics: vec!["scheduler".into()],
                event: LoggedEvent::Plain(vec![
                    (
                        "action",
                        PlainValue::Str("no-workers-timeout-exceeded".into()),
                    ),
                    ("keys", PlainValue::KeySet(failed)),
                ]),
            });
        }
    }

    fn fail_waiting(&mut self, id: TaskId, error: TaskError, failed: &mut Vec<oxidask_key::Key>) {
        let key = self.tasks[id].key.clone();
        failed.push(key.clone());
        let failure = Arc::new(Failure { task: key, error });
        self.transition(
            id,
            TaskState::Erred,
            Cause::Failed {
                failure: &failure,
                worker: None,
                raw: None,
            },
        );
    }

    fn no_worker(&self, id: TaskId, timeout: f64) -> TaskError {
        TaskError::NoWorker {
            task: self.tasks[id].key.clone(),
            timeout,
        }
    }

    fn no_valid_worker(&self, id: TaskId, timeout: f64) -> TaskError {
        let task = &self.tasks[id];
        let restrictions = task.restrictions.as_deref().cloned().unwrap_or_default();
        TaskError::NoValidWorker {
            task: task.key.clone(),
            host_restrictions: restrictions.hosts,
            worker_restrictions: restrictions.workers,
            resource_restrictions: restrictions.resources.to_vec(),
            timeout,
        }
    }

    /// Looks whether anything happened since the last look.
    pub(super) fn check_idle(&mut self, busy: bool) {
        let quiet = self.transition_counter == self.idle_transition_counter
            && !busy
            && !self.has_queued()
            && self.unrunnable.is_empty()
            && self
                .workers
                .registered()
                .iter()
                .all(|&w| self.workers[w].processing.is_empty());
        self.idle_transition_counter = self.transition_counter;
        if !quiet {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(self.now);
        }
    }
}
