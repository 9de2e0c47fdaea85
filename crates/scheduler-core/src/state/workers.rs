//! The worker table: registered workers, who is running, idle, saturated or has a free slot.

use std::collections::{BTreeSet, VecDeque};
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use hashbrown::HashMap;
use indexmap::IndexMap;
use oxidask_key::Key;

use crate::effect::WorkerSummary;
use crate::ids::{TaskId, Timestamp, WorkerId};
use crate::sets::{IdHasher, IdSet, OrderedIdSet};
use crate::state::{PrefixId, ReleaseId};
use crate::worker::{MemoryState, WorkerInfo, WorkerMetrics, WorkerStatus};
use std::hash::BuildHasherDefault;

/// Levels of the stealable sets of a worker.
pub(crate) const STEAL_LEVELS: usize = 15;

/// Process memory beyond results, over the last while.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryHistory {
    /// Smallest value in the window.
    pub(crate) old: u64,
    window: VecDeque<(Timestamp, u64)>,
}

impl MemoryHistory {
    /// Notes a measurement and drops those older than `keep` seconds.
    pub(crate) fn record(&mut self, now: Timestamp, size: u64, keep: f64) {
        let mut old = self.old;
        while let Some(&(at, size)) = self.window.front() {
            if at.0 >= now.0 - keep {
                break;
            }
            self.window.pop_front();
            if size == old {
                old = 0;
            }
        }
        self.window.push_back((now, size));
        if old == 0 {
            self.old = self.window.iter().map(|&(_, s)| s).min().unwrap_or(0);
        } else if size < old {
            self.old = size;
        }
    }
}

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) info: Box<WorkerInfo>,
    pub(crate) status: WorkerStatus,
    pub(crate) release: ReleaseId,
    /// Bytes of `has_what`.
    pub(crate) nbytes: i64,
    pub(crate) has_what: OrderedIdSet<TaskId>,
    pub(crate) processing: IdSet<TaskId>,
    /// The part of `processing` that left the thread pool.
    pub(crate) long_running: IdSet<TaskId>,
    /// Actors that live here.
    pub(crate) actors: IdSet<TaskId>,
    /// Seconds each running task has taken, as of the last heartbeat.
    pub(crate) executing: Vec<(Key, f64)>,
    pub(crate) resources: Vec<(Arc<str>, f64)>,
    pub(crate) used_resources: Vec<(Arc<str>, f64)>,
    /// Tasks on this worker by prefix, without those that seceded.
    pub(crate) prefix_counts: Vec<(PrefixId, u32)>,
    /// Inputs to be fetched and how many tasks here need each.
    pub(crate) needs_what: IndexMap<TaskId, u32, BuildHasherDefault<IdHasher>>,
    /// Bytes of `needs_what`.
    pub(crate) network_occ: i64,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) memory_history: MemoryHistory,
    pub(crate) last_seen: Timestamp,
    pub(crate) idle: bool,
    /// Sort key in [`WorkerTable::idle_task_count`], while it is there, and its free slots.
    pub(crate) open: Option<(u64, i64)>,
    /// Occupancy and tasks that steal requests on their way will bring or take.
    pub(crate) in_flight_occupancy: f64,
    pub(crate) in_flight_tasks: i64,
    /// Tasks that could be stolen, by cost; made on first need.
    pub(crate) stealable: Vec<IdSet<TaskId>>,
    /// Told to restart because it was silent; not told again.
    pub(crate) unresponsive: bool,
    /// How its process died, if somebody told.
    pub(crate) death: Option<Arc<str>>,
    /// Place among the workers in order of address.
    rank: u32,
    removed: bool,
}

impl Worker {
    pub(crate) fn new(info: Box<WorkerInfo>, release: ReleaseId, now: Timestamp) -> Self {
        Self {
            status: info.status,
            release,
            nbytes: 0,
            has_what: OrderedIdSet::default(),
            processing: IdSet::default(),
            long_running: IdSet::default(),
            actors: IdSet::default(),
            executing: Vec::new(),
            resources: Vec::new(),
            used_resources: Vec::new(),
            prefix_counts: Vec::new(),
            needs_what: IndexMap::default(),
            network_occ: 0,
            metrics: info.metrics,
            memory_history: MemoryHistory::default(),
            last_seen: now,
            idle: false,
            open: None,
            in_flight_occupancy: 0.0,
            in_flight_tasks: 0,
            stealable: Vec::new(),
            unresponsive: false,
            death: None,
            rank: 0,
            removed: false,
            info,
        }
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.info.address
    }

    pub(crate) fn nthreads(&self) -> u32 {
        self.info.nthreads.max(1)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.status == WorkerStatus::Running && !self.removed
    }

    pub(crate) fn count_prefix(&mut self, prefix: PrefixId) {
        match self.prefix_counts.iter_mut().find(|(p, _)| *p == prefix) {
            Some((_, n)) => *n += 1,
            None => self.prefix_counts.push((prefix, 1)),
        }
    }

    pub(crate) fn uncount_prefix(&mut self, prefix: PrefixId) {
        if let Some(at) = self.prefix_counts.iter().position(|&(p, _)| p == prefix)
            && let Some((_, n)) = self.prefix_counts.get_mut(at)
        {
            *n -= 1;
            if *n == 0 {
                self.prefix_counts.remove(at);
            }
        }
    }

    /// Memory figures that add up, whatever the worker told.
    pub(crate) fn memory(&self) -> MemoryState {
        let managed = u64::try_from(self.nbytes).unwrap_or(0);
        MemoryState::new(
            self.metrics.memory,
            self.memory_history.old,
            managed.saturating_sub(self.metrics.spilled_memory),
            self.metrics.spilled_disk,
        )
    }

    pub(crate) fn summary(&self) -> WorkerSummary {
        WorkerSummary {
            address: Arc::clone(&self.info.address),
            name: Arc::clone(&self.info.name),
            nthreads: self.info.nthreads,
            memory_limit: self.info.memory_limit,
            pid: self.info.pid,
            server_id: Arc::clone(&self.info.server_id),
            local_directory: Arc::clone(&self.info.local_directory),
            nanny: self.info.nanny.clone(),
            memory: self.metrics.memory,
            death: self.death.clone(),
        }
    }

    pub(crate) fn supplies(&self, resource: &str, required: f64) -> bool {
        self.resources
            .iter()
            .any(|(name, supplied)| &**name == resource && *supplied >= required)
    }
}

/// Workers of one release that have free slots, least loaded first.
#[derive(Debug, Default)]
pub(crate) struct OpenWorkers {
    by_load: BTreeSet<(u64, WorkerId)>,
    pub(crate) slots: i64,
}

/// All workers.
pub(crate) struct WorkerTable {
    slots: Vec<Option<Box<Worker>>>,
    by_address: HashMap<Arc<str>, WorkerId, foldhash::fast::FixedState>,
    by_name: HashMap<Arc<str>, WorkerId, foldhash::fast::FixedState>,
    by_host: HashMap<Arc<str>, Vec<WorkerId>, foldhash::fast::FixedState>,
    /// In order of registration.
    registered: Vec<WorkerId>,
    /// In order of address, as stock keeps them.
    sorted: Vec<WorkerId>,
    /// Status `running`, in order of registration.
    pub(crate) running: Vec<WorkerId>,
    /// Too little to do, in order of address.
    idle: Vec<WorkerId>,
    /// Their places in `sorted`, to find one without visiting them.
    idle_ranks: Vec<u32>,
    /// More to do than others.
    pub(crate) saturated: BTreeSet<WorkerId>,
    /// Free slots, by release.
    open: Vec<OpenWorkers>,
    pub(crate) total_nthreads: u64,
    pub(crate) total_memory: u64,
    /// Stands in for a worker that should be there and is not: a bug, but none to die of.
    missing: Box<Worker>,
}

impl Default for WorkerTable {
    fn default() -> Self {
        let mut missing = Worker::new(Box::default(), ReleaseId::default(), Timestamp::default());
        missing.removed = true;
        Self {
            slots: Vec::new(),
            by_address: HashMap::default(),
            by_name: HashMap::default(),
            by_host: HashMap::default(),
            registered: Vec::new(),
            sorted: Vec::new(),
            running: Vec::new(),
            idle: Vec::new(),
            idle_ranks: Vec::new(),
            saturated: BTreeSet::new(),
            open: Vec::new(),
            total_nthreads: 0,
            total_memory: 0,
            missing: Box::new(missing),
        }
    }
}

impl WorkerTable {
    pub(crate) fn len(&self) -> usize {
        self.registered.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.registered.is_empty()
    }

    /// Adds a worker; `false` if id or address are taken.
    pub(crate) fn add(&mut self, id: WorkerId, worker: Worker) -> bool {
        let at = id.0 as usize;
        if self.by_address.contains_key(worker.address())
            || self.slots.get(at).is_some_and(Option::is_some)
        {
            return false;
        }
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        let info = &worker.info;
        self.by_address.insert(Arc::clone(&info.address), id);
        self.by_name.insert(Arc::clone(&info.name), id);
        self.by_host
            .entry(Arc::clone(&info.host))
            .or_default()
            .push(id);
        self.total_nthreads += u64::from(worker.nthreads());
        self.total_memory += info.memory_limit;
        let running = worker.is_running();
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Some(Box::new(worker));
        }
        self.registered.push(id);
        let place = self
            .sorted
            .partition_point(|&w| self[w].address() < self[id].address());
        self.sorted.insert(place, id);
        self.rerank(place);
        if running {
            self.set_running(id, true);
        }
        true
    }

    fn rerank(&mut self, from: usize) {
        for i in from..self.sorted.len() {
            if let Some(&id) = self.sorted.get(i) {
                self[id].rank = i as u32;
            }
        }
        self.idle_ranks = self.idle.iter().map(|&w| self[w].rank).collect();
    }

    /// Takes the worker out of all sets, but keeps it readable until [`WorkerTable::drop_removed`]:
    /// its tasks still have to leave it.
    pub(crate) fn remove(&mut self, id: WorkerId) {
        self.set_running(id, false);
        self.set_idle(id, false);
        self.set_open(id, None);
        self.saturated.remove(&id);
        self.registered.retain(|&w| w != id);
        if let Some(place) = self.sorted.iter().position(|&w| w == id) {
            self.sorted.remove(place);
            self.rerank(place);
        }
        let worker = &mut self[id];
        worker.removed = true;
        worker.status = WorkerStatus::Closed;
        let (address, name, host) = (
            Arc::clone(&worker.info.address),
            Arc::clone(&worker.info.name),
            Arc::clone(&worker.info.host),
        );
        let (nthreads, memory) = (u64::from(worker.nthreads()), worker.info.memory_limit);
        self.total_nthreads = self.total_nthreads.saturating_sub(nthreads);
        self.total_memory = self.total_memory.saturating_sub(memory);
        self.by_address.remove(&address);
        if self.by_name.get(&name) == Some(&id) {
            self.by_name.remove(&name);
        }
        if let Some(workers) = self.by_host.get_mut(&host) {
            workers.retain(|&w| w != id);
            if workers.is_empty() {
                self.by_host.remove(&host);
            }
        }
    }

    pub(crate) fn drop_removed(&mut self, id: WorkerId) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize)
            && slot.as_ref().is_some_and(|w| w.removed)
        {
            *slot = None;
        }
    }

    /// A registered worker.
    pub(crate) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.slots
            .get(id.0 as usize)?
            .as_deref()
            .filter(|w| !w.removed)
    }

    /// A registered worker.
    pub(crate) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.slots
            .get_mut(id.0 as usize)?
            .as_deref_mut()
            .filter(|w| !w.removed)
    }

    pub(crate) fn is_live(&self, id: WorkerId) -> bool {
        self.get(id).is_some()
    }

    pub(crate) fn by_address(&self, address: &str) -> Option<WorkerId> {
        self.by_address.get(address).copied()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<WorkerId> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn on_host(&self, host: &str) -> &[WorkerId] {
        self.by_host.get(host).map_or(&[], Vec::as_slice)
    }

    /// In order of registration.
    pub(crate) fn registered(&self) -> &[WorkerId] {
        &self.registered
    }

    /// In order of address.
    pub(crate) fn sorted(&self) -> &[WorkerId] {
        &self.sorted
    }

    /// Workers with too little to do, in order of address.
    pub(crate) fn idle(&self) -> &[WorkerId] {
        &self.idle
    }

    pub(crate) fn set_running(&mut self, id: WorkerId, running: bool) {
        match (self.running.binary_search(&id), running) {
            (Err(at), true) => self.running.insert(at, id),
            (Ok(at), false) => {
                self.running.remove(at);
            }
            _ => {}
        }
    }

    pub(crate) fn set_idle(&mut self, id: WorkerId, idle: bool) {
        if self[id].idle == idle {
            return;
        }
        self[id].idle = idle;
        let rank = self[id].rank;
        match (self.idle_ranks.binary_search(&rank), idle) {
            (Err(at), true) => {
                self.idle_ranks.insert(at, rank);
                self.idle.insert(at, id);
            }
            (Ok(at), false) => {
                self.idle_ranks.remove(at);
                self.idle.remove(at);
            }
            _ => {}
        }
    }

    /// Notes load and free slots of a worker that may take queued tasks; `None`: it may not.
    pub(crate) fn set_open(&mut self, id: WorkerId, load_and_slots: Option<(f64, i64)>) {
        // Loads are never negative, so their bits order like the numbers.
        let new = load_and_slots.map(|(load, slots)| (load.to_bits(), slots));
        let worker = &mut self[id];
        let (old, release) = (worker.open, worker.release);
        if old == new {
            return;
        }
        worker.open = new;
        let at = usize::from(release.0);
        if self.open.len() <= at {
            self.open.resize_with(at + 1, OpenWorkers::default);
        }
        let Some(open) = self.open.get_mut(at) else {
            return;
        };
        if let Some((load, slots)) = old {
            open.by_load.remove(&(load, id));
            open.slots -= slots;
        }
        if let Some((load, slots)) = new {
            open.by_load.insert((load, id));
            open.slots += slots;
        }
    }

    /// The least loaded worker with a free slot that can run tasks of `release`.
    pub(crate) fn least_loaded_open(&self, release: ReleaseId) -> Option<WorkerId> {
        self.compatible_open(release)
            .filter_map(|o| o.by_load.first().copied())
            .min()
            .map(|(_, id)| id)
    }

    /// Free slots for tasks of `release`.
    pub(crate) fn open_slots(&self, release: ReleaseId) -> i64 {
        self.compatible_open(release).map(|o| o.slots).sum()
    }

    fn compatible_open(&self, release: ReleaseId) -> impl Iterator<Item = &OpenWorkers> {
        self.open
            .iter()
            .enumerate()
            .filter(move |(i, _)| ReleaseId(*i as u8).compatible(release))
            .map(|(_, o)| o)
    }

    /// Workers that have free slots for queued tasks.
    pub(crate) fn open_workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.open
            .iter()
            .flat_map(|o| o.by_load.iter().map(|&(_, id)| id))
    }
}

impl Index<WorkerId> for WorkerTable {
    type Output = Worker;
    fn index(&self, id: WorkerId) -> &Worker {
        let worker = self.slots.get(id.0 as usize).and_then(Option::as_deref);
        debug_assert!(worker.is_some(), "a worker id in a relation is registered");
        worker.unwrap_or(&self.missing)
    }
}

impl IndexMut<WorkerId> for WorkerTable {
    fn index_mut(&mut self, id: WorkerId) -> &mut Worker {
        match self.slots.get_mut(id.0 as usize) {
            Some(Some(worker)) => worker,
            _ => {
                debug_assert!(false, "a worker id in a relation is registered");
                &mut self.missing
            }
        }
    }
}
