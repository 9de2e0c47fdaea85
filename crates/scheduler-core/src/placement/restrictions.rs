//! Where a task may run: workers, hosts, resources, release.

use std::sync::Arc;

use crate::Scheduler;
use crate::graph::TaskOptions;
use crate::ids::{TaskId, WorkerId};
use crate::state::{ReleaseId, Restrictions};

impl Scheduler {
    /// The running workers that may run the task; `None` if all may.
    pub(crate) fn valid_workers(&self, id: TaskId) -> Option<Vec<WorkerId>> {
        let task = &self.tasks[id];
        let mut valid = match &task.restrictions {
            Some(r) if r.restricts() => Some(self.restricted_workers(r)),
            _ => None,
        };
        if self.release_matters(task.release) {
            match &mut valid {
                Some(workers) => {
                    workers.retain(|&w| self.workers[w].release.compatible(task.release));
                }
                None => valid = Some(self.compatible_running(task.release)),
            }
        }
        valid
    }

    fn restricted_workers(&self, r: &Restrictions) -> Vec<WorkerId> {
        let mut valid: Vec<WorkerId> = Vec::new();
        if r.workers.is_empty() && r.hosts.is_empty() {
            valid.extend_from_slice(self.workers.registered());
        } else {
            valid.extend(r.workers.iter().filter_map(|a| self.workers.by_address(a)));
            for host in &r.hosts {
                valid.extend_from_slice(self.workers.on_host(&self.coerce_hostname(host)));
            }
            valid.sort_unstable();
            valid.dedup();
        }
        valid.retain(|&w| {
            let worker = &self.workers[w];
            worker.is_running()
                && r.resources
                    .iter()
                    .all(|(name, n)| worker.supplies(name, *n))
        });
        valid
    }

    /// Whether some worker cannot run tasks of this release.
    fn release_matters(&self, release: ReleaseId) -> bool {
        release.0 != 0
            && self
                .worker_releases
                .iter()
                .enumerate()
                .any(|(i, &n)| n > 0 && !ReleaseId(i as u8).compatible(release))
    }

    pub(crate) fn compatible_running(&self, release: ReleaseId) -> Vec<WorkerId> {
        self.workers
            .running
            .iter()
            .copied()
            .filter(|&w| self.workers[w].release.compatible(release))
            .collect()
    }

    /// The id of a release; text beyond what the table holds counts as "any".
    pub(crate) fn release_id(&mut self, release: &Arc<str>) -> ReleaseId {
        if let Some(at) = self.releases.iter().position(|r| r == release) {
            return ReleaseId(at as u8);
        }
        if self.releases.len() >= usize::from(u8::MAX) {
            return ReleaseId::default();
        }
        self.releases.push(Arc::clone(release));
        self.worker_releases.push(0);
        ReleaseId(self.releases.len() as u8 - 1)
    }

    /// A worker's name stands for its host.
    fn coerce_hostname(&self, host: &Arc<str>) -> Arc<str> {
        match self.workers.by_name(host) {
            Some(worker) => Arc::clone(&self.workers[worker].info.host),
            None => Arc::clone(host),
        }
    }

    /// The address that a name or address stands for; `None` if it is neither, so perhaps a host.
    /// Host names inside addresses are not looked up (that is I/O; the shell does it).
    pub fn coerce_address(&self, text: &str) -> Option<Arc<str>> {
        if let Some(worker) = self.workers.by_name(text) {
            return Some(Arc::clone(self.workers[worker].address()));
        }
        let (scheme, location) = text.split_once("://").unwrap_or(("tcp", text));
        if matches!(scheme, "inproc" | "ipc") {
            return Some(text.into());
        }
        let port = match location.rsplit_once("]:") {
            Some((_, port)) => port,
            None if location.matches(':').count() == 1 => location.rsplit_once(':')?.1,
            None => return None,
        };
        port.parse::<u16>().ok()?;
        let location = match location.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => location.to_owned(),
        };
        Some(format!("{scheme}://{location}").into())
    }

    /// What options restrict a task to, with names resolved as of now.
    pub(crate) fn restrictions_from(&self, options: &TaskOptions) -> Option<Arc<Restrictions>> {
        let mut r = Restrictions {
            resources: options.resources.clone().into(),
            loose: options.allow_other_workers,
            ..Restrictions::default()
        };
        for worker in options.workers.iter().flatten() {
            match self.coerce_address(worker) {
                Some(address) => r.workers.push(address),
                None => r.hosts.push(Arc::clone(worker)),
            }
        }
        (r.restricts() || r.loose).then(|| Arc::new(r))
    }
}
