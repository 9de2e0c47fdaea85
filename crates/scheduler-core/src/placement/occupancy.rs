//! How much workers have to do, and what follows: idle, saturated, free slots.

use crate::Scheduler;
use crate::ids::{TaskId, WorkerId};
use crate::state::{PrefixId, Worker};

/// From so many inputs on, room for them is made at once, and given back.
const MANY_NEEDS: usize = 1000;

/// Tasks that can be sent to the worker before it has more than its share; negative if it has.
/// `None` without queueing: then there is no limit.
pub(crate) fn slots_available(worker: &Worker, saturation: f64) -> Option<i64> {
    if !saturation.is_finite() {
        return None;
    }
    let slots = (saturation * f64::from(worker.nthreads())).ceil().max(1.0) as i64;
    Some(slots - (worker.processing.len() as i64 - worker.long_running.len() as i64))
}

impl Scheduler {
    /// Expected seconds of a task of this prefix.
    pub(crate) fn prefix_duration(&self, prefix: PrefixId) -> f64 {
        self.groups
            .prefix(prefix)
            .duration_or(self.config.unknown_task_duration)
    }

    /// Expected seconds of this task.
    pub(crate) fn task_duration(&self, id: TaskId) -> f64 {
        self.groups
            .prefix_of(self.tasks[id].group)
            .duration_or(self.config.unknown_task_duration)
    }

    /// Seconds of work assigned to the worker, with the fetching of inputs.
    pub(crate) fn occupancy(&self, worker: WorkerId) -> f64 {
        let w = &self.workers[worker];
        let compute: f64 = w
            .prefix_counts
            .iter()
            .map(|&(p, n)| self.prefix_duration(p) * f64::from(n))
            .sum();
        (compute + w.network_occ as f64 / self.bandwidth).max(0.0)
    }

    /// The same of all workers.
    pub(crate) fn total_occupancy_now(&self) -> f64 {
        let compute: f64 = self
            .groups
            .processing_prefixes
            .iter()
            .map(|&p| self.prefix_duration(p) * self.groups.prefix(p).in_processing as f64)
            .sum();
        (compute + self.network_occ as f64 / self.bandwidth).max(0.0)
    }

    /// Has fewer tasks than threads, or less than half of the average work per thread.
    pub(crate) fn is_unoccupied(&self, worker: WorkerId, occupancy: f64, processing: i64) -> bool {
        let nthreads = self.workers[worker].nthreads();
        processing < i64::from(nthreads)
            || occupancy
                < f64::from(nthreads)
                    * (self.total_occupancy_now() / self.workers.total_nthreads as f64)
                    / 2.0
    }

    /// Brings the sets of idle, saturated and open workers up to date for one worker. `occupancy`
    /// replaces the worker's own figure.
    pub(crate) fn check_idle_saturated(&mut self, worker: WorkerId, occupancy: Option<f64>) {
        let Some(w) = self.workers.get(worker) else {
            return;
        };
        if self.workers.total_nthreads == 0 {
            return;
        }
        let running = w.is_running();
        let processing = w.processing.len() as i64;
        let nthreads = i64::from(w.nthreads());
        let open = match slots_available(w, self.config.worker_saturation) {
            _ if !running => None,
            None => Some(0),
            Some(slots) if slots > 0 => Some(slots),
            Some(_) => None,
        };
        let load = processing as f64 / nthreads as f64;
        self.workers
            .set_open(worker, open.map(|slots| (load, slots)));

        if processing < nthreads || !running {
            self.workers.saturated.remove(&worker);
            self.workers.set_idle(worker, running);
            return;
        }
        let occupancy = occupancy.unwrap_or_else(|| self.occupancy(worker));
        let idle = self.is_unoccupied(worker, occupancy, processing);
        self.workers.set_idle(worker, idle);
        let mut saturated = false;
        if !idle && processing > nthreads {
            let pending =
                occupancy * (processing - nthreads) as f64 / (processing * nthreads) as f64;
            let average = self.total_occupancy_now() / self.workers.total_nthreads as f64;
            saturated = pending > 0.4 && pending > 1.9 * average;
        }
        if saturated {
            self.workers.saturated.insert(worker);
        } else {
            self.workers.saturated.remove(&worker);
        }
    }

    /// Assigns the task to the worker: counts, and inputs to be fetched.
    pub(crate) fn worker_add_to_processing(&mut self, id: TaskId, worker: WorkerId) {
        let prefix = self.groups.group(self.tasks[id].group).prefix;
        self.groups.count_processing(prefix, true);
        let w = &mut self.workers[worker];
        w.count_prefix(prefix);
        w.processing.insert(id);
        if self.is_ordered_later(id) {
            // They are counted while the order is made.
            let inputs = self.tasks[id].dependencies.len();
            return self.workers[worker].needs_what.reserve(inputs);
        }
        let dependencies = std::mem::take(&mut self.tasks[id].dependencies);
        for dependency in dependencies.iter() {
            if !self.tasks[dependency].who_has.contains(worker) {
                self.add_need(dependency, worker);
            }
        }
        self.tasks[id].dependencies = dependencies;
    }

    /// One more task on the worker needs this, which the worker has to fetch.
    pub(crate) fn add_need(&mut self, id: TaskId, worker: WorkerId) {
        let nbytes = self.get_nbytes(id);
        let w = &mut self.workers[worker];
        let needs = w.needs_what.entry(id).or_insert(0);
        *needs += 1;
        if *needs == 1 {
            w.network_occ = w.network_occ.saturating_add(nbytes);
            self.network_occ = self.network_occ.saturating_add(nbytes);
        }
    }

    /// Undoes [`Scheduler::worker_add_to_processing`].
    pub(crate) fn worker_remove_from_processing(&mut self, id: TaskId, worker: WorkerId) {
        let prefix = self.groups.group(self.tasks[id].group).prefix;
        let w = &mut self.workers[worker];
        if !w.long_running.remove(id) {
            w.uncount_prefix(prefix);
            self.groups.count_processing(prefix, false);
        }
        self.workers[worker].processing.remove(id);
        let counted = self.cancel_order(id, worker);
        if self.workers[worker].processing.is_empty() {
            return self.forget_needs(worker);
        }
        if let Some(counted) = counted {
            for dependency in counted {
                self.remove_need(dependency, worker);
            }
            return;
        }
        let dependencies = std::mem::take(&mut self.tasks[id].dependencies);
        for dependency in dependencies.iter() {
            self.remove_need(dependency, worker);
        }
        self.tasks[id].dependencies = dependencies;
    }

    /// One task less on the worker needs this.
    fn remove_need(&mut self, id: TaskId, worker: WorkerId) {
        let Some(needs) = self.workers[worker].needs_what.get_mut(&id) else {
            return;
        };
        *needs -= 1;
        if *needs == 0 {
            self.forget_need(id, worker);
        }
    }

    /// The worker has nothing to do, so nothing to fetch.
    fn forget_needs(&mut self, worker: WorkerId) {
        let w = &mut self.workers[worker];
        self.network_occ -= std::mem::take(&mut w.network_occ).min(self.network_occ);
        if w.needs_what.capacity() > MANY_NEEDS {
            w.needs_what = indexmap::IndexMap::default();
        } else {
            w.needs_what.clear();
        }
    }

    /// The worker does not have to fetch this any more.
    pub(crate) fn forget_need(&mut self, id: TaskId, worker: WorkerId) {
        let nbytes = self.get_nbytes(id);
        let w = &mut self.workers[worker];
        if w.needs_what.swap_remove(&id).is_some() {
            // The size may have changed since it was added.
            w.network_occ -= nbytes.min(w.network_occ);
            self.network_occ -= nbytes.min(self.network_occ);
            if w.needs_what.is_empty() && w.needs_what.capacity() > MANY_NEEDS {
                w.needs_what = indexmap::IndexMap::default();
            }
        }
    }

    /// The task left the thread pool: it no longer counts as work to be done.
    pub(crate) fn worker_add_to_long_running(&mut self, id: TaskId, worker: WorkerId) {
        let prefix = self.groups.group(self.tasks[id].group).prefix;
        let w = &mut self.workers[worker];
        if w.long_running.insert(id) {
            w.uncount_prefix(prefix);
            self.groups.count_processing(prefix, false);
        }
    }

    /// Takes (`sign` 1) or gives back (−1) the abstract resources of the task.
    pub(crate) fn use_resources(&mut self, id: TaskId, worker: WorkerId, sign: f64) {
        let Some(restrictions) = &self.tasks[id].restrictions else {
            return;
        };
        let used = &mut self.workers[worker].used_resources;
        for (name, required) in restrictions.resources.iter() {
            match used.iter_mut().find(|(n, _)| n == name) {
                Some((_, amount)) => *amount += sign * required,
                None => used.push((std::sync::Arc::clone(name), sign * required)),
            }
        }
    }

    /// The worker holds the result.
    pub(crate) fn add_replica(&mut self, id: TaskId, worker: WorkerId) {
        if !self.tasks[id].who_has.insert(worker) {
            return;
        }
        self.forget_need(id, worker);
        let nbytes = self.get_nbytes(id);
        let w = &mut self.workers[worker];
        w.nbytes += nbytes;
        w.has_what.insert(id);
        if self.tasks[id].who_has.len() == 2 {
            self.replicated.insert(id);
        }
    }

    /// The worker holds the result no more.
    pub(crate) fn remove_replica(&mut self, id: TaskId, worker: WorkerId) {
        if !self.tasks[id].who_has.remove(worker) {
            return;
        }
        let nbytes = self.get_nbytes(id);
        let w = &mut self.workers[worker];
        w.nbytes -= nbytes;
        w.has_what.remove(id);
        w.actors.remove(id);
        if self.tasks[id].who_has.len() == 1 {
            self.replicated.remove(id);
        }
        self.need_again(id, worker);
    }

    /// Tasks on the worker that counted on its copy will have to fetch it.
    fn need_again(&mut self, id: TaskId, worker: WorkerId) {
        if self.workers[worker].processing.is_empty() {
            return;
        }
        let waiting_here = self.tasks[id]
            .waiters
            .iter()
            .filter(|&t| self.tasks[t].processing_on.get() == Some(worker))
            .filter(|&t| !self.orders.will_count(t, worker, id))
            .count();
        if waiting_here > 0 {
            let nbytes = self.get_nbytes(id);
            let w = &mut self.workers[worker];
            w.needs_what.insert(id, waiting_here as u32);
            w.network_occ = w.network_occ.saturating_add(nbytes);
            self.network_occ = self.network_occ.saturating_add(nbytes);
        }
    }

    /// Nobody holds the result any more.
    pub(crate) fn remove_all_replicas(&mut self, id: TaskId) {
        let nbytes = self.get_nbytes(id);
        let who_has = std::mem::take(&mut self.tasks[id].who_has);
        for worker in who_has.iter() {
            let w = &mut self.workers[worker];
            w.nbytes -= nbytes;
            w.has_what.remove(id);
        }
        if who_has.len() > 1 {
            self.replicated.remove(id);
        }
    }
}
