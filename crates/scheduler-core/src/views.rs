//! Questions: read-only views of the state, for RPC handlers, pages and the mirror of the Python
//! host. Everything is named as stock names it.

mod spans;

pub use spans::SpanView;

use std::sync::Arc;

use hashbrown::HashSet;
use oxidask_key::Key;

use crate::Scheduler;
use crate::effect::{TaskError, WorkerSummary};
use crate::graph::TaskOptions;
use crate::ids::{ClientId, RunId, TaskId, Timestamp, WorkerId};
use crate::opaque::Opaque;
use crate::sets::{Id, IdSet};
use crate::state::{Client, Group, Prefix, Restrictions, StateCounts, Task, Totals, Worker};
use crate::story::{ErredTask, LogEntry};
use crate::task::TaskState;
use crate::worker::{MemoryState, WorkerInfo, WorkerMetrics, WorkerStatus};

/// One task.
#[derive(Clone, Copy)]
pub struct TaskView<'a> {
    scheduler: &'a Scheduler,
    task: &'a Task,
}

impl<'a> TaskView<'a> {
    /// Its name.
    pub fn key(&self) -> &'a Key {
        &self.task.key
    }
    /// Where it is in its life.
    pub fn state(&self) -> TaskState {
        self.task.state
    }
    /// Size of the result in bytes, if known.
    pub fn nbytes(&self) -> Option<u64> {
        u64::try_from(self.task.nbytes).ok()
    }
    /// Size of the result in bytes, or the default for unknown ones.
    pub fn get_nbytes(&self) -> u64 {
        self.nbytes()
            .unwrap_or(self.scheduler.config.default_data_size)
    }
    /// Printable name of the result's type.
    pub fn type_(&self) -> Option<&'a Arc<str>> {
        let groups = &self.scheduler.groups;
        groups.type_name(self.task.group, self.task.typename?)
    }
    /// Workers that hold the result, longest first.
    pub fn who_has(&self) -> impl Iterator<Item = WorkerView<'a>> + use<'a> {
        let scheduler = self.scheduler;
        self.task
            .who_has
            .iter()
            .filter_map(move |w| scheduler.worker(w))
    }
    /// Clients that want the result.
    pub fn who_wants(&self) -> impl Iterator<Item = ClientView<'a>> + use<'a> {
        let scheduler = self.scheduler;
        self.task
            .who_wants
            .iter()
            .filter_map(move |c| scheduler.client(c))
    }
    /// The worker that runs it.
    pub fn processing_on(&self) -> Option<WorkerView<'a>> {
        self.scheduler.worker(self.task.processing_on.get()?)
    }
    fn tasks(&self, ids: &'a IdSet<TaskId>) -> impl Iterator<Item = TaskView<'a>> + use<'a> {
        let scheduler = self.scheduler;
        ids.iter().filter_map(move |id| scheduler.task_by_id(id))
    }
    /// Dependencies that have no result yet.
    pub fn waiting_on(&self) -> impl Iterator<Item = TaskView<'a>> + use<'a> {
        self.tasks(&self.task.waiting_on)
    }
    /// Dependents that will need the result.
    pub fn waiters(&self) -> impl Iterator<Item = TaskView<'a>> + use<'a> {
        self.tasks(&self.task.waiters)
    }
    /// What it needs.
    pub fn dependencies(&self) -> impl Iterator<Item = TaskView<'a>> + use<'a> {
        self.tasks(&self.task.dependencies)
    }
    /// What needs it.
    pub fn dependents(&self) -> impl Iterator<Item = TaskView<'a>> + use<'a> {
        self.tasks(&self.task.dependents)
    }
    /// (−user priority, generation, order), once a graph gave it one.
    pub fn priority(&self) -> Option<[f64; 3]> {
        self.task
            .priority
            .is_set()
            .then(|| self.task.priority.wire())
    }
    /// Tries left.
    pub fn retries(&self) -> u32 {
        self.task.retries
    }
    /// Workers that died while they ran it.
    pub fn suspicious(&self) -> u32 {
        self.task.suspicious()
    }
    /// The last assignment to a worker.
    pub fn run_id(&self) -> Option<RunId> {
        (self.task.run_id >= 0).then_some(RunId(self.task.run_id))
    }
    /// Whether the result is an actor.
    pub fn actor(&self) -> bool {
        self.task.actor
    }
    /// A dependency was forgotten, so it can never run again.
    pub fn has_lost_dependencies(&self) -> bool {
        self.task.has_lost_dependencies
    }
    fn restrictions(&self) -> Option<&'a Restrictions> {
        self.task.restrictions.as_deref()
    }
    /// Addresses of allowed workers.
    pub fn worker_restrictions(&self) -> &'a [Arc<str>] {
        self.restrictions().map_or(&[], |r| &r.workers)
    }
    /// Allowed hosts.
    pub fn host_restrictions(&self) -> &'a [Arc<str>] {
        self.restrictions().map_or(&[], |r| &r.hosts)
    }
    /// Abstract resources needed.
    pub fn resource_restrictions(&self) -> &'a [(Arc<str>, f64)] {
        self.restrictions().map_or(&[], |r| &r.resources)
    }
    /// Workers and hosts are a wish only.
    pub fn loose_restrictions(&self) -> bool {
        self.task.is_loose()
    }
    /// Options it was submitted with.
    pub fn options(&self) -> Option<&'a Arc<TaskOptions>> {
        self.task.options.as_ref()
    }
    /// Annotations as the client gave them.
    pub fn annotations(&self) -> Option<&'a Opaque> {
        Some(&self.task.options.as_ref()?.annotations.as_ref()?.0)
    }
    /// What to run; nothing for scattered data.
    pub fn run_spec(&self) -> Option<&'a Opaque> {
        self.task.run_spec.as_ref()
    }
    /// Why it, or the task it depends on, failed.
    pub fn error(&self) -> Option<&'a TaskError> {
        Some(&self.task.blame()?.error)
    }
    /// The task whose failure made this one fail; itself if it is its own.
    pub fn exception_blame(&self) -> Option<&'a Key> {
        Some(&self.task.blame()?.task)
    }
    /// Addresses of the workers it failed on.
    pub fn erred_on(&self) -> &'a [Arc<str>] {
        self.task.rare.as_ref().map_or(&[], |r| &r.erred_on)
    }
    /// What the task left with its result ([`crate::event::TaskFinished::metadata`]).
    pub fn metadata(&self) -> Option<&'a Opaque> {
        self.task.rare.as_ref()?.metadata.as_ref()
    }
    /// Its group.
    pub fn group(&self) -> GroupView<'a> {
        GroupView {
            scheduler: self.scheduler,
            group: self.scheduler.groups.group(self.task.group),
        }
    }
    /// Its prefix.
    pub fn prefix(&self) -> PrefixView<'a> {
        self.group().prefix()
    }
    /// Release of the client that submitted it; empty: any.
    pub fn release(&self) -> &'a str {
        self.scheduler
            .releases
            .get(usize::from(self.task.release.0))
            .map_or("", |r| r)
    }
}

/// One worker.
#[derive(Clone, Copy)]
pub struct WorkerView<'a> {
    scheduler: &'a Scheduler,
    id: WorkerId,
    worker: &'a Worker,
}

impl<'a> WorkerView<'a> {
    /// Its id.
    pub fn id(&self) -> WorkerId {
        self.id
    }
    /// Contact address.
    pub fn address(&self) -> &'a Arc<str> {
        self.worker.address()
    }
    /// Name as text.
    pub fn name(&self) -> &'a Arc<str> {
        &self.worker.info.name
    }
    /// What it told when it registered.
    pub fn info(&self) -> &'a WorkerInfo {
        &self.worker.info
    }
    /// What stays known after it is gone.
    pub fn summary(&self) -> WorkerSummary {
        self.worker.summary()
    }
    /// Its status now.
    pub fn status(&self) -> WorkerStatus {
        self.worker.status
    }
    /// Threads for tasks.
    pub fn nthreads(&self) -> u32 {
        self.worker.info.nthreads
    }
    /// Bytes; 0 means no limit.
    pub fn memory_limit(&self) -> u64 {
        self.worker.info.memory_limit
    }
    /// Tasks sent to it, oldest first.
    pub fn processing(&self) -> impl Iterator<Item = TaskView<'a>> + use<'a> {
        let scheduler = self.scheduler;
        self.worker
            .processing
            .iter()
            .filter_map(move |id| scheduler.task_by_id(id))
    }
    /// Number of tasks sent to it.
    pub fn processing_len(&self) -> usize {
        self.worker.processing.len()
    }
    /// Tasks that left its thread pool.
    pub fn long_running(&self) -> impl Iterator<Item = TaskView<'a>> + use<'a> {
        let scheduler = self.scheduler;
        self.worker
            .long_running
            .iter()
            .filter_map(move |id| scheduler.task_by_id(id))
    }
    /// Seconds each running task has taken, as of the last heartbeat.
    pub fn executing(&self) -> &'a [(Key, f64)] {
        &self.worker.executing
    }
    /// Results it holds, oldest first.
    pub fn has_what(&self) -> impl Iterator<Item = TaskView<'a>> + use<'a> {
        let scheduler = self.scheduler;
        self.worker
            .has_what
            .iter()
            .filter_map(move |id| scheduler.task_by_id(id))
    }
    /// Number of results it holds.
    pub fn has_what_len(&self) -> usize {
        self.worker.has_what.len()
    }
    /// Actors that live on it.
    pub fn actors(&self) -> impl Iterator<Item = TaskView<'a>> + use<'a> {
        let scheduler = self.scheduler;
        self.worker
            .actors
            .iter()
            .filter_map(move |id| scheduler.task_by_id(id))
    }
    /// Inputs to be fetched and how many tasks need each.
    pub fn needs_what(&self) -> impl Iterator<Item = (TaskView<'a>, u32)> + use<'a> {
        let scheduler = self.scheduler;
        self.worker
            .needs_what
            .iter()
            .filter_map(move |(&id, &n)| Some((scheduler.task_by_id(id)?, n)))
    }
    /// Tasks by prefix, without those that left the thread pool.
    pub fn task_prefix_count(&self) -> impl Iterator<Item = (&'a Arc<str>, u32)> + use<'a> {
        let scheduler = self.scheduler;
        self.worker
            .prefix_counts
            .iter()
            .map(move |&(p, n)| (&scheduler.groups.prefix(p).name, n))
    }
    /// Bytes of the results it holds.
    pub fn nbytes(&self) -> u64 {
        u64::try_from(self.worker.nbytes).unwrap_or(0)
    }
    /// Seconds of work it has.
    pub fn occupancy(&self) -> f64 {
        self.scheduler.occupancy(self.id)
    }
    /// Memory figures.
    pub fn memory(&self) -> MemoryState {
        self.worker.memory()
    }
    /// Of the last heartbeat.
    pub fn metrics(&self) -> &'a WorkerMetrics {
        &self.worker.metrics
    }
    /// Abstract resources it offers.
    pub fn resources(&self) -> &'a [(Arc<str>, f64)] {
        &self.worker.resources
    }
    /// Abstract resources in use.
    pub fn used_resources(&self) -> &'a [(Arc<str>, f64)] {
        &self.worker.used_resources
    }
    /// The last sign of life.
    pub fn last_seen(&self) -> Timestamp {
        self.worker.last_seen
    }
    /// Has too little to do.
    pub fn is_idle(&self) -> bool {
        self.worker.idle
    }
    /// Has more to do than others.
    pub fn is_saturated(&self) -> bool {
        self.scheduler.workers.saturated.contains(&self.id)
    }
}

/// One client.
#[derive(Clone, Copy)]
pub struct ClientView<'a> {
    scheduler: &'a Scheduler,
    id: ClientId,
    client: &'a Client,
}

impl<'a> ClientView<'a> {
    /// Its id.
    pub fn id(&self) -> ClientId {
        self.id
    }
    /// Its own name, e.g. `Client-0b5c…`.
    pub fn name(&self) -> &'a Arc<str> {
        &self.client.name
    }
    /// Results it wants, longest first.
    pub fn wants_what(&self) -> impl Iterator<Item = TaskView<'a>> + use<'a> {
        let scheduler = self.scheduler;
        self.client
            .wants_what
            .iter()
            .filter_map(move |id| scheduler.task_by_id(id))
    }
    /// Number of results it wants.
    pub fn wants_what_len(&self) -> usize {
        self.client.wants_what.len()
    }
}

/// What group and prefix have in common.
macro_rules! totals {
    () => {
        /// Tasks ever added, as far as not forgotten with their group.
        pub fn size(&self) -> u64 {
            self.totals().size
        }
        /// Tasks in a state.
        pub fn count(&self, state: TaskState) -> u64 {
            self.totals().states.get(state)
        }
        /// Tasks in each state.
        pub fn states(&self) -> [(TaskState, u64); 8] {
            counts(&self.totals().states)
        }
        /// Bytes of all results so far.
        pub fn nbytes_total(&self) -> i64 {
            self.totals().nbytes_total
        }
        /// Seconds spent.
        pub fn duration(&self) -> f64 {
            self.totals().duration as f64 / 1e6
        }
        /// Seconds spent by action.
        pub fn all_durations(&self) -> impl Iterator<Item = (&'a Arc<str>, f64)> + use<'a> {
            self.totals()
                .all_durations
                .iter()
                .map(|(name, &us)| (name, us as f64 / 1e6))
        }
        /// Result types and how many of each.
        pub fn types(&self) -> impl Iterator<Item = (&'a Arc<str>, u64)> + use<'a> {
            self.totals().types.iter().map(|(name, &n)| (name, n))
        }
    };
}

fn counts(states: &StateCounts) -> [(TaskState, u64); 8] {
    TaskState::ALL.map(|s| (s, states.get(s)))
}

/// Tasks of one collection.
#[derive(Clone, Copy)]
pub struct GroupView<'a> {
    scheduler: &'a Scheduler,
    group: &'a Group,
}

impl<'a> GroupView<'a> {
    fn totals(&self) -> &'a Totals {
        &self.group.totals
    }
    totals!();
    /// Its name.
    pub fn name(&self) -> &'a Arc<str> {
        &self.group.name
    }
    /// Its prefix.
    pub fn prefix(&self) -> PrefixView<'a> {
        PrefixView {
            scheduler: self.scheduler,
            prefix: self.scheduler.groups.prefix(self.group.prefix),
        }
    }
    /// Groups it depends on.
    pub fn dependencies(&self) -> impl Iterator<Item = GroupView<'a>> + use<'a> {
        let scheduler = self.scheduler;
        self.group.dependencies.iter().map(move |g| GroupView {
            scheduler,
            group: scheduler.groups.group(g),
        })
    }
    /// Begin of its first computation, seconds since the epoch; 0: none yet.
    pub fn start(&self) -> f64 {
        self.group.start
    }
    /// End of its last computation.
    pub fn stop(&self) -> f64 {
        self.group.stop
    }
    /// Nothing of it is left to compute.
    pub fn done(&self) -> bool {
        self.group.done()
    }
    /// Its span.
    pub fn span_id(&self) -> Option<&'a Arc<str>> {
        self.group.span_id.as_ref()
    }
    /// Worker that gets the next sibling (without queueing).
    pub fn last_worker(&self) -> Option<WorkerView<'a>> {
        self.scheduler.worker(self.group.last_worker?)
    }
}

/// Tasks of one kind.
#[derive(Clone, Copy)]
pub struct PrefixView<'a> {
    scheduler: &'a Scheduler,
    prefix: &'a Prefix,
}

impl<'a> PrefixView<'a> {
    fn totals(&self) -> &'a Totals {
        &self.prefix.totals
    }
    totals!();
    /// Its name.
    pub fn name(&self) -> &'a Arc<str> {
        &self.prefix.name
    }
    /// Groups that exist.
    pub fn groups(&self) -> impl Iterator<Item = GroupView<'a>> + use<'a> {
        let scheduler = self.scheduler;
        self.prefix.groups.iter().map(move |&g| GroupView {
            scheduler,
            group: scheduler.groups.group(g),
        })
    }
    /// Average seconds of a task, if known.
    pub fn duration_average(&self) -> Option<f64> {
        (self.prefix.duration_average >= 0.0).then_some(self.prefix.duration_average)
    }
    /// Longest run time seen while still running, in seconds, if any.
    pub fn max_exec_time(&self) -> Option<f64> {
        (self.prefix.max_exec_time >= 0.0).then_some(self.prefix.max_exec_time)
    }
    /// Worker deaths during tasks of this prefix.
    pub fn suspicious(&self) -> u64 {
        self.prefix.suspicious
    }
    /// How often a task of this prefix entered each state.
    pub fn state_counts(&self) -> [(TaskState, u64); 8] {
        counts(&self.prefix.state_counts)
    }
}

impl Scheduler {
    pub(crate) fn task_by_id(&self, id: TaskId) -> Option<TaskView<'_>> {
        let task = self.tasks.get(id)?;
        Some(TaskView {
            scheduler: self,
            task,
        })
    }

    /// The task of this name.
    pub fn task(&self, key: &Key) -> Option<TaskView<'_>> {
        self.task_by_id(self.tasks.id(key)?)
    }

    /// All tasks, in no particular order.
    pub fn tasks(&self) -> impl Iterator<Item = TaskView<'_>> {
        self.tasks.iter().map(|(_, task)| TaskView {
            scheduler: self,
            task,
        })
    }

    /// Number of tasks.
    pub fn tasks_len(&self) -> usize {
        self.tasks.len()
    }

    /// A registered worker.
    pub fn worker(&self, id: WorkerId) -> Option<WorkerView<'_>> {
        Some(WorkerView {
            scheduler: self,
            id,
            worker: self.workers.get(id)?,
        })
    }

    /// The worker at this address.
    pub fn worker_by_address(&self, address: &str) -> Option<WorkerView<'_>> {
        self.worker(self.workers.by_address(address)?)
    }

    /// The worker of this name.
    pub fn worker_by_name(&self, name: &str) -> Option<WorkerView<'_>> {
        self.worker(self.workers.by_name(name)?)
    }

    fn worker_views<'a>(
        &'a self,
        ids: impl Iterator<Item = WorkerId> + 'a,
    ) -> impl Iterator<Item = WorkerView<'a>> + 'a {
        ids.filter_map(|id| self.worker(id))
    }

    /// Workers in order of registration.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.worker_views(self.workers.registered().iter().copied())
    }

    /// Workers in order of address, as stock lists them.
    pub fn workers_by_address(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.worker_views(self.workers.sorted().iter().copied())
    }

    /// Number of workers.
    pub fn workers_len(&self) -> usize {
        self.workers.len()
    }

    /// Workers on a host.
    pub fn workers_on_host(&self, host: &str) -> impl Iterator<Item = WorkerView<'_>> {
        self.worker_views(self.workers.on_host(host).iter().copied())
    }

    /// Workers in status `running`.
    pub fn running(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.worker_views(self.workers.running.iter().copied())
    }

    /// Workers with too little to do, in order of address.
    pub fn idle(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.worker_views(self.workers.idle().iter().copied())
    }

    /// Workers with more to do than others.
    pub fn saturated(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.worker_views(self.workers.saturated.iter().copied())
    }

    /// Workers that take queued tasks, least loaded first.
    pub fn idle_task_count(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.worker_views(self.workers.open_workers())
    }

    /// A client or pseudo client.
    pub fn client(&self, id: ClientId) -> Option<ClientView<'_>> {
        Some(ClientView {
            scheduler: self,
            id,
            client: self.clients.get(id)?,
        })
    }

    /// The client of this name.
    pub fn client_by_name(&self, name: &str) -> Option<ClientView<'_>> {
        self.client(self.clients.id_of(name)?)
    }

    /// Clients and pseudo clients in order of appearance.
    pub fn clients(&self) -> impl Iterator<Item = ClientView<'_>> {
        self.clients.ids().filter_map(|id| self.client(id))
    }

    /// Task groups, oldest first.
    pub fn task_groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.groups.groups().into_iter().map(|group| GroupView {
            scheduler: self,
            group,
        })
    }

    /// The group of this name.
    pub fn task_group(&self, name: &str) -> Option<GroupView<'_>> {
        Some(GroupView {
            scheduler: self,
            group: self.groups.group_by_name(name)?,
        })
    }

    /// Task prefixes, oldest first.
    pub fn task_prefixes(&self) -> impl Iterator<Item = PrefixView<'_>> {
        self.groups.prefixes().into_iter().map(|prefix| PrefixView {
            scheduler: self,
            prefix,
        })
    }

    /// The prefix of this name.
    pub fn task_prefix(&self, name: &str) -> Option<PrefixView<'_>> {
        Some(PrefixView {
            scheduler: self,
            prefix: self.groups.prefix_by_name(name)?,
        })
    }

    /// Queued tasks, next one first.
    pub fn queued(&self) -> impl Iterator<Item = TaskView<'_>> {
        self.queues
            .iter()
            .flat_map(|q| q.sorted())
            .filter_map(|id| self.task_by_id(id))
    }

    /// Number of queued tasks.
    pub fn queued_count(&self) -> usize {
        self.queued_len()
    }

    /// Tasks that no worker may run, oldest first, and since when.
    pub fn unrunnable(&self) -> impl Iterator<Item = (TaskView<'_>, Timestamp)> {
        self.unrunnable
            .ids()
            .filter_map(|id| Some((self.task_by_id(id)?, self.unrunnable.since(id))))
    }

    /// Number of tasks that no worker may run.
    pub fn unrunnable_count(&self) -> usize {
        self.unrunnable.len()
    }

    /// Results that more than one worker holds.
    pub fn replicated_tasks(&self) -> impl Iterator<Item = TaskView<'_>> {
        self.replicated.iter().filter_map(|id| self.task_by_id(id))
    }

    /// Seconds of work on all workers.
    pub fn total_occupancy(&self) -> f64 {
        self.total_occupancy_now()
    }

    /// Threads of all workers.
    pub fn total_nthreads(&self) -> u64 {
        self.workers.total_nthreads
    }

    /// Threads of all workers since each time, oldest first; bounded.
    pub fn total_nthreads_history(&self) -> impl Iterator<Item = (Timestamp, u64)> {
        self.spans.thread_changes()
    }

    /// Spans that are remembered, oldest first; a span comes after those it is in.
    pub fn spans(&self) -> impl Iterator<Item = SpanView<'_>> {
        self.spans.iter().map(|span| SpanView::new(self, span))
    }

    /// Memory limits of all workers, bytes.
    pub fn total_memory(&self) -> u64 {
        self.workers.total_memory
    }

    /// Bytes per second between workers, as they see it.
    pub fn bandwidth(&self) -> f64 {
        self.bandwidth
    }

    /// Memory of all workers.
    pub fn memory(&self) -> MemoryState {
        MemoryState::sum(self.workers().map(|w| w.memory()))
    }

    /// Transitions made so far.
    pub fn transition_counter(&self) -> u64 {
        self.transition_counter
    }

    /// No task is left to compute.
    pub fn is_idle(&self) -> bool {
        self.groups.iter().all(|(_, g)| g.done())
    }

    /// The last transitions, oldest first.
    pub fn transition_log(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.log.iter()
    }

    /// The last failures, latest first.
    pub fn erred_tasks(&self) -> impl Iterator<Item = &ErredTask> {
        self.erred_tasks.iter()
    }

    /// Transitions of these tasks, transitions that led to theirs, and (where a text is a stimulus id)
    /// transitions of that cause.
    pub fn story(&self, keys: &[Key]) -> Vec<&LogEntry> {
        let wanted: HashSet<&Key, foldhash::fast::FixedState> = keys.iter().collect();
        self.log
            .iter()
            .filter(|entry| {
                wanted.contains(&entry.key)
                    || entry.recommendations().any(|(k, _)| wanted.contains(k))
                    || wanted
                        .iter()
                        .any(|k| k.as_str() == Some(&*entry.stimulus_id))
            })
            .collect()
    }

    /// Steal requests that victims have not answered yet.
    pub fn steal_requests_in_flight(&self) -> usize {
        self.stealing.in_flight()
    }

    /// Steal requests so far and their cost in seconds, by level.
    pub fn steal_metrics(&self) -> Vec<(u64, f64)> {
        let counts = self.stealing.request_count_total.iter();
        counts
            .copied()
            .zip(self.stealing.request_cost_total)
            .collect()
    }

    /// Whether stealing runs periodically.
    pub fn stealing_enabled(&self) -> bool {
        self.stealing.enabled
    }

    /// Bytes that the core holds for tasks: table, keys, relations. What the shell put in (run specs,
    /// exceptions) is not counted.
    pub fn task_memory(&self) -> usize {
        let tasks: usize = self.tasks.iter().map(|(_, t)| t.heap_bytes()).sum();
        tasks + self.tasks.table_bytes()
    }
}

/// For debug prints.
impl std::fmt::Debug for TaskView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<TaskState {:?} {}>", self.key(), self.state().as_str())
    }
}

impl std::fmt::Debug for WorkerView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "<WorkerState {} #{} {}>",
            self.address(),
            self.id.raw(),
            self.status().as_str()
        )
    }
}
