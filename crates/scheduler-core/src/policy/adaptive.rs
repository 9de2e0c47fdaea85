//! How many workers the work would need, and which ones it could do without.

use std::sync::Arc;

use crate::Scheduler;
use crate::ids::WorkerId;

/// Queued tasks looked at one by one for an estimate; the rest is taken to be like them.
const SAMPLE: usize = 100;

/// How to choose workers to close; see [`Scheduler::workers_to_close`].
#[derive(Clone, Debug, Default)]
pub struct WorkersToClose {
    /// Close as long as the memory left is so many times the data. 2 if neither this, `n` nor
    /// `target` is given.
    pub memory_ratio: Option<f64>,
    /// How many to close.
    pub n: Option<usize>,
    /// Keep at least so many.
    pub minimum: Option<usize>,
    /// How many to keep.
    pub target: Option<usize>,
}

impl Scheduler {
    /// Number of workers that would finish the present work within `target_duration` seconds (as
    /// configured, if not given).
    pub fn adaptive_target(&self, target_duration: Option<f64>) -> usize {
        let target_duration = target_duration
            .unwrap_or(self.config.adaptive_target_duration)
            .max(1e-3);
        let n_workers = self.workers.len();
        let waiting = self.queued_len() + self.unrunnable.len();
        let sample = self
            .queues
            .iter()
            .flat_map(|q| q.unordered())
            .chain(self.unrunnable.ids())
            .take(SAMPLE);
        let mut queued: f64 = sample.map(|id| self.task_duration(id)).sum();
        if waiting > SAMPLE {
            queued *= waiting as f64 / SAMPLE as f64;
        }
        let cpu = ((self.total_occupancy_now() + queued) / target_duration).ceil();
        let mut cpu = if cpu < 1e9 {
            cpu as usize
        } else {
            1_000_000_000
        };

        // A few long tasks do not need many threads.
        let mut ready = waiting;
        for &w in self.workers.sorted() {
            if ready > cpu {
                break;
            }
            ready += self.workers[w].processing.len();
        }
        cpu = cpu.min(ready);
        if n_workers > 0 {
            let threads = self.workers.total_nthreads.max(1) as f64;
            cpu = (cpu as f64 / threads * n_workers as f64).ceil() as usize;
        } else if waiting > 0 {
            cpu = cpu.max(1);
        }

        let used: i64 = self
            .workers
            .registered()
            .iter()
            .map(|&w| self.workers[w].nbytes)
            .sum();
        let limit = self.workers.total_memory as f64;
        let memory = if limit > 0.0 && used as f64 > 0.6 * limit {
            2 * n_workers
        } else {
            0
        };
        let target = memory.max(cpu);
        if target >= n_workers {
            return target;
        }
        let closing = self.workers_to_close(&WorkersToClose::default(), |w| w.0.to_string().into());
        n_workers - closing.len()
    }

    /// Workers that can be closed at least cost: idle ones with little data. `group` names the group
    /// of a worker; groups are closed together. Without limits, enough workers stay to hold twice the
    /// present data. Workers with tasks that left their thread pool are never chosen, nor those of
    /// [`crate::event::Event::KeepWorkers`].
    pub fn workers_to_close(
        &self,
        how: &WorkersToClose,
        group: impl Fn(WorkerId) -> Arc<str>,
    ) -> Vec<WorkerId> {
        let n_workers = self.workers.len();
        let n = how
            .n
            .or_else(|| how.target.map(|t| n_workers.saturating_sub(t)))
            .map(|n| n.min(n_workers));
        let target = n.map_or(0, |n| n_workers - n);
        let memory_ratio = match (n, how.memory_ratio) {
            (None, None) => Some(2.0),
            (_, ratio) => ratio,
        };
        let busy = |w: &WorkerId| !self.workers[*w].processing.is_empty();
        if n.unwrap_or(0) == 0 && self.workers.sorted().iter().all(busy) {
            return Vec::new();
        }
        let mut groups = self.closable_groups(group);
        let mut limit: f64 = groups.iter().map(|g| g.limit).sum();
        let total: f64 = groups.iter().map(|g| g.bytes).sum();
        // Best to close last: idle, then with least data.
        groups.sort_by(|a, b| {
            let idle = (!a.busy).cmp(&!b.busy);
            idle.then(b.bytes.total_cmp(&a.bytes))
        });
        let mut chosen = Vec::new();
        let mut remain = n_workers;
        while let Some(group) = groups.pop() {
            let left = remain.saturating_sub(group.workers.len());
            if n.is_none() && group.busy {
                break;
            }
            if how
                .minimum
                .is_some_and(|minimum| minimum > 0 && left < minimum)
            {
                break;
            }
            limit -= group.limit;
            let by_number = n.is_some() && remain >= group.workers.len() && left >= target;
            let by_memory = memory_ratio.is_some_and(|ratio| limit >= ratio * total);
            if !by_number && !by_memory {
                break;
            }
            remain = left;
            chosen.extend(group.workers);
        }
        chosen
    }

    fn closable_groups(&self, group: impl Fn(WorkerId) -> Arc<str>) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for &id in self.workers.sorted() {
            let w = &self.workers[id];
            if !w.long_running.is_empty() || self.kept_workers.contains(&w.info.address) {
                continue;
            }
            let name = group(id);
            let at = match groups.iter().position(|g| g.name == name) {
                Some(at) => at,
                None => {
                    groups.push(Group {
                        name,
                        ..Group::default()
                    });
                    groups.len() - 1
                }
            };
            if let Some(group) = groups.get_mut(at) {
                group.workers.push(id);
                group.limit += w.info.memory_limit as f64;
                group.bytes += w.nbytes as f64;
                group.busy |= !w.processing.is_empty();
            }
        }
        groups
    }
}

#[derive(Default)]
struct Group {
    name: Arc<str>,
    workers: Vec<WorkerId>,
    limit: f64,
    bytes: f64,
    busy: bool,
}
