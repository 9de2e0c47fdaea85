//! Workers come, go, pause and report figures.

use std::sync::Arc;

use oxidask_key::Key;

use crate::Scheduler;
use crate::effect::{ChangeEffect, Effect, LoggedEvent, PlainValue, TaskError, WorkerMsg};
use crate::ids::{TaskId, WorkerId};
use crate::state::{Failure, Worker};
use crate::task::TaskState;
use crate::transitions::Cause;
use crate::worker::{WorkerInfo, WorkerMetrics, WorkerStatus};

impl Scheduler {
    pub(super) fn add_worker(&mut self, id: WorkerId, info: Box<WorkerInfo>) {
        let release = self.release_id(&info.release);
        let address = Arc::clone(&info.address);
        let (resources, metrics, status) = (info.resources.clone(), info.metrics, info.status);
        if !self.workers.add(id, Worker::new(info, release, self.now)) {
            self.violation(format!("a worker at {address} is registered already"));
            return;
        }
        let threads = self.workers.total_nthreads;
        self.spans.threads_changed(self.now, threads);
        if let Some(n) = self.worker_releases.get_mut(usize::from(release.0)) {
            *n += 1;
        }
        for topic in [Arc::clone(&address), "all".into()] {
            self.out.push(Effect::LogEvent {
                topics: vec![topic],
                event: LoggedEvent::AddWorker {
                    worker: Arc::clone(&address),
                },
            });
        }
        self.note_change(|_| Some(ChangeEffect::WorkerAdded { worker: id }));
        if status == WorkerStatus::Running {
            self.refresh_no_workers_since();
        }
        self.heartbeat(id, metrics, Vec::new());
        self.merge_resources(id, resources);
        self.check_idle_saturated(id, None);
        if status == WorkerStatus::Running {
            self.give_work(id);
        }
    }

    /// Tasks that waited for such a worker, then queued ones.
    fn give_work(&mut self, id: WorkerId) {
        self.recommend_unrunnable_on(id);
        self.run_recommendations();
        self.fill_open_slots();
    }

    pub(crate) fn remove_worker(&mut self, id: WorkerId, expected: bool, close: bool) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let address = Arc::clone(worker.address());
        let release = worker.release;
        if close {
            self.send(id, |_| WorkerMsg::Close {
                reason: "scheduler-remove-worker".into(),
            });
        }
        self.tell_what_waits(id);
        self.workers.remove(id);
        let threads = self.workers.total_nthreads;
        self.spans.threads_changed(self.now, threads);
        if let Some(n) = self.worker_releases.get_mut(usize::from(release.0)) {
            *n = n.saturating_sub(1);
        }
        let processing_tasks = self.take_tasks_off(id, &address, expected);
        let (lost_computed_tasks, lost_scattered_tasks) = self.take_replicas_off(id);
        for topic in [Arc::clone(&address), "all".into()] {
            self.out.push(Effect::LogEvent {
                topics: vec![topic],
                event: LoggedEvent::RemoveWorker {
                    worker: Arc::clone(&address),
                    processing_tasks: processing_tasks.clone(),
                    lost_computed_tasks: lost_computed_tasks.clone(),
                    lost_scattered_tasks: lost_scattered_tasks.clone(),
                    stimulus_id: Arc::clone(&self.stimulus),
                    expected,
                },
            });
        }
        self.run_recommendations();
        self.refresh_no_workers_since();
        if !self.workers_drained(id) {
            self.violation(format!("tasks are left on removed worker {address}"));
        }
        self.memory_manager.forget_worker(id);
        self.workers.drop_removed(id);
        self.out.push(Effect::WorkerRemoved {
            worker: id,
            stimulus_id: Arc::clone(&self.stimulus),
        });
        for other in self.workers.registered().to_vec() {
            let worker = Arc::clone(&address);
            self.send(other, |stimulus_id| WorkerMsg::RemoveWorker {
                worker,
                stimulus_id,
            });
        }
    }

    fn workers_drained(&self, id: WorkerId) -> bool {
        let worker = &self.workers[id];
        worker.processing.is_empty() && worker.has_what.is_empty()
    }

    /// Tasks running on a worker that is gone: somewhere else, unless they have killed too many.
    fn take_tasks_off(&mut self, id: WorkerId, address: &Arc<str>, expected: bool) -> Vec<Key> {
        let processing: Vec<TaskId> = self.workers[id].processing.iter().collect();
        let mut keys = Vec::with_capacity(processing.len());
        let mut summary = None;
        for task in processing {
            keys.push(self.tasks[task].key.clone());
            if !expected {
                self.tasks[task].rare.get_or_insert_default().suspicious += 1;
                let group = self.tasks[task].group;
                self.groups.prefix_of_mut(group).suspicious += 1;
            }
            if expected || self.tasks[task].suspicious() <= self.config.allowed_failures {
                self.recommend(task, TaskState::Released);
                continue;
            }
            self.withdraw_recommendation(task);
            let last_worker = summary
                .get_or_insert_with(|| Arc::new(self.workers[id].summary()))
                .clone();
            let failure = Arc::new(Failure {
                task: self.tasks[task].key.clone(),
                error: TaskError::KilledWorker {
                    task: self.tasks[task].key.clone(),
                    last_worker,
                    allowed_failures: self.config.allowed_failures,
                },
            });
            self.transition(
                task,
                TaskState::Erred,
                Cause::Failed {
                    failure: &failure,
                    worker: Some(address),
                    raw: None,
                },
            );
        }
        keys
    }

    /// Results on a worker that is gone: (computed again, lost for good).
    fn take_replicas_off(&mut self, id: WorkerId) -> (Vec<Key>, Vec<Key>) {
        let (mut recompute, mut lost) = (Vec::new(), Vec::new());
        let held: Vec<TaskId> = self.workers[id].has_what.iter().collect();
        for task in held {
            let is_home_of_actor = self.workers[id].actors.contains(task);
            self.remove_replica(task, id);
            if is_home_of_actor {
                self.lost_actor_on(task, id);
                self.recommend(task, TaskState::Erred);
            } else if self.tasks[task].who_has.is_empty() {
                let key = self.tasks[task].key.clone();
                if self.tasks[task].run_spec.is_some() {
                    recompute.push(key);
                    self.recommend(task, TaskState::Released);
                } else {
                    lost.push(key);
                    self.recommend(task, TaskState::Forgotten);
                }
            }
        }
        (recompute, lost)
    }

    fn lost_actor_on(&mut self, task: TaskId, worker: WorkerId) {
        let key = self.tasks[task].key.clone();
        let error = TaskError::ActorLost {
            task: key.clone(),
            worker: Arc::clone(self.workers[worker].address()),
        };
        self.tasks[task].set_blame(Some(Arc::new(Failure { task: key, error })));
    }

    pub(super) fn worker_status_changed(&mut self, id: WorkerId, status: WorkerStatus) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let previous = worker.status;
        if previous == status {
            return;
        }
        worker.status = status;
        let address = Arc::clone(worker.address());
        self.out.push(Effect::LogEvent {
            topics: vec![address],
            event: LoggedEvent::Plain(vec![
                ("action", PlainValue::Str("worker-status-change".into())),
                ("prev-status", PlainValue::Str(previous.as_str().into())),
                ("status", PlainValue::Str(status.as_str().into())),
                ("stimulus_id", PlainValue::Str(Arc::clone(&self.stimulus))),
            ]),
        });
        let running = status == WorkerStatus::Running;
        self.workers.set_running(id, running);
        self.check_idle_saturated(id, None);
        if running {
            self.give_work(id);
        }
        self.refresh_no_workers_since();
    }

    pub(crate) fn set_worker_status(&mut self, id: WorkerId, status: WorkerStatus) {
        self.worker_status_changed(id, status);
        self.send(id, |stimulus_id| WorkerMsg::StatusChange {
            status,
            stimulus_id,
        });
    }

    pub(super) fn worker_seen(&mut self, id: WorkerId) {
        let now = self.now;
        if let Some(worker) = self.workers.get_mut(id) {
            worker.last_seen = now;
            worker.unresponsive = false;
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        id: WorkerId,
        metrics: WorkerMetrics,
        executing: Vec<(Key, f64)>,
    ) {
        self.worker_seen(id);
        let (now, keep) = (self.now, self.config.memory_recent_to_old_time);
        let share = 1.0 / self.workers.len().max(1) as f64;
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if let Some(seen) = metrics.bandwidth.filter(|b| b.is_finite() && *b > 0.0) {
            self.bandwidth = self.bandwidth * (1.0 - share) + seen * share;
        }
        worker.metrics = metrics;
        let unmanaged = (i128::from(metrics.memory) - i128::from(worker.nbytes)
            + i128::from(metrics.spilled_memory))
        .clamp(0, i128::from(u64::MAX)) as u64;
        worker.memory_history.record(now, unmanaged, keep);
        worker.executing = executing;
        for i in 0..self.workers[id].executing.len() {
            let Some((key, seconds)) = self.workers[id].executing.get(i) else {
                break;
            };
            if let Some(task) = self.tasks.id(key) {
                let seconds = *seconds;
                let group = self.tasks[task].group;
                self.groups.prefix_of_mut(group).add_exec_time(seconds);
            }
        }
    }

    pub(super) fn set_resources(&mut self, id: WorkerId, resources: Vec<(Arc<str>, f64)>) {
        self.merge_resources(id, resources);
        if self.workers.get(id).is_some_and(Worker::is_running) {
            self.give_work(id);
        }
    }

    fn merge_resources(&mut self, id: WorkerId, resources: Vec<(Arc<str>, f64)>) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        for (name, amount) in resources {
            if !worker.used_resources.iter().any(|(n, _)| *n == name) {
                worker.used_resources.push((Arc::clone(&name), 0.0));
            }
            match worker.resources.iter_mut().find(|(n, _)| *n == name) {
                Some(entry) => entry.1 = amount,
                None => worker.resources.push((name, amount)),
            }
        }
    }
}
