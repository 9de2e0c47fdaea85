//! Which worker runs a task.

mod inputs;
mod occupancy;
mod restrictions;

pub(crate) use occupancy::slots_available;

use inputs::Inputs;

use crate::Scheduler;
use crate::ids::{TaskId, WorkerId};
use crate::state::ReleaseId;
use crate::task::TaskState;

/// Where a ready task goes.
pub(crate) enum Placement {
    /// To this worker.
    Worker(WorkerId),
    /// Root-like, and every thread is busy.
    Queue,
    /// No worker may run it.
    Nowhere,
}

/// Result of the objective function; the smallest wins.
pub(crate) type Objective = (i64, f64, i64);

fn less(a: Objective, b: Objective) -> bool {
    a.0.cmp(&b.0)
        .then(a.1.total_cmp(&b.1))
        .then(a.2.cmp(&b.2))
        .is_lt()
}

/// The first of the smallest.
pub(crate) fn min_by_objective(
    workers: impl IntoIterator<Item = WorkerId>,
    mut objective: impl FnMut(WorkerId) -> Objective,
) -> Option<WorkerId> {
    let mut best: Option<(Objective, WorkerId)> = None;
    for worker in workers {
        let value = objective(worker);
        if best.is_none_or(|(b, _)| less(value, b)) {
            best = Some((value, worker));
        }
    }
    best.map(|(_, w)| w)
}

impl Scheduler {
    /// Decides for a task whose inputs are all there.
    pub(crate) fn place(&mut self, id: TaskId) -> Placement {
        if !self.is_rootish(id) {
            return match self.decide_worker_non_rootish(id) {
                Some(worker) => Placement::Worker(worker),
                None => Placement::Nowhere,
            };
        }
        let release = self.tasks[id].release;
        if !self.workers.is_empty() && !self.some_worker_runs(release) {
            return Placement::Nowhere;
        }
        let task = &self.tasks[id];
        if self.queueing() && task.queueable && !task.actor {
            match self.workers.least_loaded_open(release) {
                Some(worker) => Placement::Worker(worker),
                None => Placement::Queue,
            }
        } else {
            match self.decide_worker_rootish_queuing_disabled(id) {
                Some(worker) => Placement::Worker(worker),
                None => Placement::Nowhere,
            }
        }
    }

    /// Whether root-like tasks wait here until a thread is free.
    pub(crate) fn queueing(&self) -> bool {
        self.config.worker_saturation.is_finite()
    }

    /// Root-like: one of many in a group that depends on next to nothing. The sum and the size of
    /// such groups are larger than the cluster, so their place matters less than their pace.
    pub(crate) fn is_rootish(&self, id: TaskId) -> bool {
        let task = &self.tasks[id];
        if task.is_restricted() {
            return false;
        }
        if task.data_producer {
            return true;
        }
        let group = self.groups.group(task.group);
        group.size() > 2 * self.workers.total_nthreads
            && group.dependency_count() < self.config.rootish_taskgroup
            && self.groups.dependency_tasks(task.group)
                < self.config.rootish_taskgroup_dependencies as u64
    }

    /// Siblings go to the same worker, so many at a time that each worker gets its share of the group.
    fn decide_worker_rootish_queuing_disabled(&mut self, id: TaskId) -> Option<WorkerId> {
        let (group_id, release) = (self.tasks[id].group, self.tasks[id].release);
        let group = self.groups.group(group_id);
        let last = group
            .last_worker
            .filter(|_| group.last_worker_tasks_left > 0)
            .filter(|&w| {
                self.workers
                    .get(w)
                    .is_some_and(|w| w.is_running() && w.release.compatible(release))
            });
        let pool = if self.workers.idle().is_empty() {
            &self.workers.running
        } else {
            self.workers.idle()
        };
        if pool.is_empty() {
            return None;
        }
        let (worker, tasks_left) = match last {
            Some(worker) => (worker, group.last_worker_tasks_left),
            None => {
                let worker = self
                    .best_of(id, pool.iter().copied())
                    .or_else(|| self.best_of(id, self.workers.running.iter().copied()))?;
                let share = group.size() as f64 / self.workers.total_nthreads as f64;
                let nthreads = f64::from(self.workers[worker].nthreads());
                (worker, (share * nthreads).floor() as i64)
            }
        };
        let states = group.totals.states;
        let more = states.get(TaskState::Released) + states.get(TaskState::Waiting) + group.to_come;
        let group = self.groups.group_mut(group_id);
        group.last_worker = (more > 1).then_some(worker);
        group.last_worker_tasks_left = tasks_left - 1;
        Some(worker)
    }

    fn best_of(&self, id: TaskId, pool: impl Iterator<Item = WorkerId>) -> Option<WorkerId> {
        let release = self.tasks[id].release;
        min_by_objective(
            pool.filter(|&w| self.workers[w].release.compatible(release)),
            |w| self.worker_objective(id, w),
        )
    }

    /// Where the task would start soonest, among those that hold inputs, under its restrictions.
    pub(crate) fn decide_worker_non_rootish(&self, id: TaskId) -> Option<WorkerId> {
        if self.workers.running.is_empty() {
            return None;
        }
        let valid = self.valid_workers(id);
        let task = &self.tasks[id];
        if !task.dependencies.is_empty() || valid.is_some() {
            return self.decide_worker(id, valid.as_deref());
        }
        if self.workers.running.len() < self.workers.len() {
            return self.decide_worker(id, Some(&self.workers.running));
        }
        self.decide_worker_unrelated()
    }

    /// For a task without inputs and restrictions: whoever has least to do, in turns.
    fn decide_worker_unrelated(&self) -> Option<WorkerId> {
        let pool = if self.workers.idle().is_empty() {
            self.workers.sorted()
        } else {
            self.workers.idle()
        };
        let n = pool.len();
        let turn = (self.n_tasks % n.max(1) as u64) as usize;
        if n >= 20 {
            // Good enough where looking at all would cost too much.
            return pool.get(turn).copied();
        }
        let occupancies: Vec<f64> = pool.iter().map(|&w| self.occupancy(w)).collect();
        let best = (0..n).min_by(|&a, &b| match (occupancies.get(a), occupancies.get(b)) {
            (Some(a), Some(b)) => a.total_cmp(b),
            _ => std::cmp::Ordering::Equal,
        })?;
        let unoccupied = (0..n)
            .map(|i| (turn + i) % n)
            .find(|&i| occupancies.get(i) == Some(&0.0));
        pool.get(unoccupied.unwrap_or(best)).copied()
    }

    fn decide_worker(&self, id: TaskId, valid: Option<&[WorkerId]>) -> Option<WorkerId> {
        let task = &self.tasks[id];
        let running = |w: &WorkerId| self.workers[*w].is_running();
        let inputs = Inputs::of(self, id);
        let mut candidates: Vec<WorkerId> = Vec::new();
        if task.actor {
            candidates.extend_from_slice(&self.workers.running);
        } else {
            candidates.extend(inputs.holders().filter(running));
        }
        match valid {
            None if candidates.is_empty() => candidates.extend_from_slice(&self.workers.running),
            None => {}
            Some(valid) => {
                candidates.retain(|w| valid.contains(w));
                if candidates.is_empty() {
                    candidates.extend(valid.iter().copied().filter(running));
                }
                if candidates.is_empty() && task.is_loose() {
                    let allowed = self.compatible_running(task.release);
                    if allowed.is_empty() {
                        return None;
                    }
                    return self.decide_worker(id, Some(&allowed));
                }
            }
        }
        match *candidates {
            [] => None,
            [only] => Some(only),
            _ => min_by_objective(candidates, |w| {
                let missing = inputs.missing(w) as f64 / self.bandwidth;
                self.objective(id, w, missing)
            }),
        }
    }

    /// Expected start of the task on the worker, then how much data the worker has; for actors first
    /// how many of them it has.
    pub(crate) fn worker_objective(&self, id: TaskId, worker: WorkerId) -> Objective {
        self.objective(id, worker, self.get_comm_cost(id, worker))
    }

    fn objective(&self, id: TaskId, worker: WorkerId, comm_cost: f64) -> Objective {
        let w = &self.workers[worker];
        let stack_time = self.occupancy(worker) / f64::from(w.nthreads());
        let start_time = stack_time + comm_cost;
        let actors = if self.tasks[id].actor {
            w.actors.len() as i64
        } else {
            0
        };
        (actors, start_time, w.nbytes)
    }

    /// Seconds to fetch the inputs that the worker does not hold.
    pub(crate) fn get_comm_cost(&self, id: TaskId, worker: WorkerId) -> f64 {
        let bytes: i64 = self.tasks[id]
            .dependencies
            .iter()
            .filter(|&d| !self.tasks[d].who_has.contains(worker))
            .map(|d| self.get_nbytes(d))
            .sum();
        bytes as f64 / self.bandwidth
    }

    /// Tasks waiting for a worker that this one may run, recommended in order of priority.
    pub(crate) fn recommend_unrunnable_on(&mut self, worker: WorkerId) {
        let mut runnable: Vec<TaskId> = self
            .unrunnable
            .ids()
            .filter(|&id| match self.valid_workers(id) {
                None => true,
                Some(valid) => valid.contains(&worker) || self.tasks[id].is_loose(),
            })
            .collect();
        runnable.sort_by(|&a, &b| self.tasks[b].priority.cmp(&self.tasks[a].priority));
        for id in runnable {
            self.recommend(id, TaskState::Processing);
        }
    }

    fn some_worker_runs(&self, release: ReleaseId) -> bool {
        self.worker_releases
            .iter()
            .enumerate()
            .any(|(i, &n)| n > 0 && ReleaseId(i as u8).compatible(release))
    }
}
