//! The read-only copy of the state that functions of clients see as `dask_scheduler`, in the form it
//! travels to `mirror.py`: a header map, and packed columns for the tasks.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use indexmap::IndexMap;
use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::effect::TaskError;
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_scheduler_core::task::TaskState;
use oxidask_scheduler_core::views::{GroupView, TaskView, WorkerView};
use oxidask_scheduler_core::worker::MemoryState;
use oxidask_wire::message::ErrorObject;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::exceptions;
use crate::workers::WorkerEntry;

/// A copy of this many tasks costs less than several questions about single ones.
const FEW_TASKS: usize = 500;

/// Everything but the tasks, and if wanted the tasks. Taken on the core thread in one go: what can
/// be done elsewhere is left to [`Snapshot::encode`].
pub(super) struct Snapshot {
    header: Value,
    tasks: Option<TaskColumns>,
}

/// One entry per task in each column. `*_starts` has one more; the entries of task `i` are
/// `starts[i]..starts[i + 1]`.
#[derive(Default)]
struct TaskColumns {
    keys: Vec<Key>,
    states: Vec<u8>,
    nbytes: Vec<i64>,
    dependencies_starts: Vec<u32>,
    dependencies: Vec<u32>,
    holders_starts: Vec<u32>,
    /// Indices into `worker_addresses`.
    holders: Vec<u32>,
    /// Index into `worker_addresses` plus one; 0 for none.
    processing_on: Vec<u32>,
    /// Index into `group_names`.
    groups: Vec<u32>,
    /// Index into `type_names`.
    types: Vec<u32>,
    retries: Vec<u32>,
    suspicious: Vec<u32>,
    /// 1: actor, 2: has lost dependencies.
    flags: Vec<u8>,
    /// Three each; not a number where there is none.
    priorities: Vec<f64>,
    worker_addresses: Names,
    group_names: Names,
    type_names: Names,
    /// Tasks that each client wants.
    wants: Vec<(Arc<str>, Vec<u32>)>,
    /// Only of single tasks: in a copy of all they follow from the dependencies.
    dependents: Option<Dependents>,
    /// The first so many keys have rows; the others are only referred to.
    rows: usize,
}

#[derive(Default)]
struct Dependents {
    starts: Vec<u32>,
    rows: Vec<u32>,
}

/// Texts and their indices, in order of first use.
#[derive(Default)]
struct Names {
    names: Vec<Arc<str>>,
    index: HashMap<Arc<str>, u32>,
}

impl Names {
    fn index(&mut self, name: &Arc<str>) -> u32 {
        // Neighbours mostly have the same group and type.
        if let Some(&index) = self.index.get(name) {
            return index;
        }
        let index = self.names.len() as u32;
        self.names.push(Arc::clone(name));
        self.index.insert(Arc::clone(name), index);
        index
    }

    fn value(&self) -> Value {
        Value::array(self.names.iter())
    }
}

impl Snapshot {
    /// Copies the state; the tasks only if wanted.
    pub(super) fn take(state: &Scheduler, with_tasks: bool) -> Self {
        Self {
            header: light(state),
            tasks: with_tasks.then(|| TaskColumns::take(state)),
        }
    }

    /// Copies some tasks only; those that do not exist are left out. All of them if there are few.
    pub(super) fn take_some(state: &Scheduler, keys: &[Key]) -> Self {
        if state.tasks_len() <= FEW_TASKS {
            return Self::take(state, true);
        }
        Self {
            header: Value::map([("counter", state.transition_counter())]),
            tasks: Some(TaskColumns::take_some(state, keys)),
        }
    }

    /// Header and frames; `more` completes the row of each worker, which is found by its address.
    pub(super) fn encode(mut self, more: impl Fn(&str, &mut Value)) -> (Value, Vec<Bytes>) {
        if let Some(Value::Array(workers)) = self.header.get_mut("workers") {
            for worker in workers {
                let address = worker.get("address").and_then(Value::as_str);
                let address = address.unwrap_or_default().to_owned();
                more(&address, worker);
            }
        }
        let frames = match self.tasks {
            Some(tasks) => tasks.encode(&mut self.header),
            None => Vec::new(),
        };
        (self.header, frames)
    }
}

fn light(state: &Scheduler) -> Value {
    let groups = state.task_groups().map(group);
    let prefixes = state.task_prefixes().map(|prefix| {
        Value::map([
            ("name", Value::from(prefix.name())),
            ("states", counts(prefix.states())),
            ("state_counts", counts(prefix.state_counts())),
            ("nbytes_total", prefix.nbytes_total().into()),
            ("duration", prefix.duration().into()),
            (
                "duration_average",
                prefix.duration_average().unwrap_or(-1.0).into(),
            ),
            (
                "max_exec_time",
                prefix.max_exec_time().unwrap_or(-1.0).into(),
            ),
            ("suspicious", prefix.suspicious().into()),
            (
                "groups",
                Value::array(prefix.groups().map(|g| g.name().clone())),
            ),
        ])
    });
    Value::map([
        (
            "workers",
            Value::array(state.workers_by_address().map(|w| worker(&w))),
        ),
        ("groups", Value::array(groups)),
        ("prefixes", Value::array(prefixes)),
        (
            "clients",
            Value::array(state.clients().map(|client| client.name().clone())),
        ),
        (
            "totals",
            Value::map([
                ("nthreads", Value::from(state.total_nthreads())),
                ("memory", state.total_memory().into()),
                ("occupancy", state.total_occupancy().into()),
                ("bandwidth", state.bandwidth().into()),
                ("is_idle", state.is_idle().into()),
                ("tasks", state.tasks_len().into()),
            ]),
        ),
        ("counter", state.transition_counter().into()),
    ])
}

fn group(group: GroupView<'_>) -> Value {
    Value::map([
        ("name", Value::from(group.name())),
        ("prefix", group.prefix().name().into()),
        ("states", counts(group.states())),
        ("nbytes_total", group.nbytes_total().into()),
        ("duration", group.duration().into()),
        ("start", group.start().into()),
        ("stop", group.stop().into()),
        ("span_id", group.span_id().map_or(Value::Nil, Value::from)),
        (
            "types",
            Value::set(group.types().map(|(name, _)| name.clone())),
        ),
        (
            "all_durations",
            Value::map(group.all_durations().map(|(name, s)| (name.to_string(), s))),
        ),
        (
            "dependencies",
            Value::array(group.dependencies().map(|g| g.name().clone())),
        ),
    ])
}

/// Spans, the oldest first, and the threads of the cluster over time.
pub(super) fn spans(state: &Scheduler) -> Value {
    let said = |note: &Opaque| note.get::<Value>().cloned().unwrap_or_default();
    let metric = |(what, value, whole): (&Key, f64, bool)| {
        let value = if whole {
            Value::Int(value as i64)
        } else {
            value.into()
        };
        Value::Array(vec![what.into(), value])
    };
    let spans = state.spans().map(|span| {
        Value::map([
            ("id", Value::from(span.id())),
            ("name", Value::array(span.name())),
            ("parent", span.parent().map_or(Value::Nil, Value::from)),
            ("enqueued", span.enqueued().0.into()),
            ("past_groups", Value::array(span.past_groups().map(group))),
            ("metrics", Value::array(span.metrics().map(metric))),
            ("metadata", Value::array(span.metadata().map(said))),
            ("code", Value::array(span.code().map(said))),
        ])
    });
    let threads = state.total_nthreads_history();
    let threads = threads.map(|(since, n)| Value::Array(vec![since.0.into(), n.into()]));
    Value::map([
        ("spans", Value::array(spans)),
        ("total_nthreads_history", Value::array(threads)),
    ])
}

fn counts(states: [(TaskState, u64); 8]) -> Value {
    Value::map(states.map(|(state, count)| (state.as_str(), count)))
}

fn worker(worker: &WorkerView<'_>) -> Value {
    let info = worker.info();
    let amounts = |from: &[(Arc<str>, f64)]| {
        Value::map(
            from.iter()
                .map(|(name, amount)| (name.to_string(), *amount)),
        )
    };
    Value::map([
        ("address", Value::from(worker.address())),
        ("name", worker.name().into()),
        ("host", (&info.host).into()),
        ("nthreads", u64::from(worker.nthreads()).into()),
        ("memory_limit", worker.memory_limit().into()),
        ("status", worker.status().as_str().into()),
        ("pid", u64::from(info.pid).into()),
        ("server_id", (&info.server_id).into()),
        ("local_directory", (&info.local_directory).into()),
        ("nanny", info.nanny.as_ref().map_or(Value::Nil, Value::from)),
        ("resources", amounts(worker.resources())),
        ("used_resources", amounts(worker.used_resources())),
        ("nbytes", worker.nbytes().into()),
        ("occupancy", worker.occupancy().into()),
        ("last_seen", worker.last_seen().0.into()),
        ("is_idle", worker.is_idle().into()),
        ("is_saturated", worker.is_saturated().into()),
        ("metrics", Value::Map(Vec::new())),
        (
            "long_running",
            Value::array(worker.long_running().map(|task| task.key())),
        ),
        ("memory", memory(worker.memory())),
    ])
}

/// The row of a worker that has just registered.
pub(super) fn new_worker(worker: &WorkerEntry) -> Value {
    let info = &worker.info;
    let resources = info.resources.iter();
    let resources = resources.map(|(name, amount)| (name.to_string(), *amount));
    Value::map([
        ("address", Value::from(&info.address)),
        ("name", worker.name.clone()),
        ("host", (&info.host).into()),
        ("nthreads", u64::from(info.nthreads).into()),
        ("memory_limit", worker.memory_limit.clone()),
        ("status", info.status.as_str().into()),
        ("pid", u64::from(info.pid).into()),
        ("server_id", (&info.server_id).into()),
        ("local_directory", (&info.local_directory).into()),
        ("nanny", info.nanny.as_ref().map_or(Value::Nil, Value::from)),
        ("resources", Value::map(resources)),
        ("used_resources", Value::Map(Vec::new())),
        ("nbytes", 0_u64.into()),
        ("occupancy", 0.0.into()),
        ("last_seen", worker.registered.0.into()),
        ("is_idle", true.into()),
        ("is_saturated", false.into()),
        ("long_running", Value::Array(Vec::new())),
        ("memory", memory(MemoryState::default())),
        ("services", worker.services.clone()),
        ("versions", Value::clone(&worker.versions)),
        ("extra", worker.extra.clone()),
        ("metrics", worker.live.lock().metrics.clone()),
    ])
}

fn memory(memory: MemoryState) -> Value {
    Value::map([
        ("process", memory.process),
        ("unmanaged_old", memory.unmanaged_old),
        ("managed", memory.managed),
        ("spilled", memory.spilled),
    ])
}

/// Stock's name of a state is its place in this list (`STATES` in `mirror.py`).
pub(super) fn state_code(state: TaskState) -> u8 {
    match state {
        TaskState::Released => 0,
        TaskState::Waiting => 1,
        TaskState::NoWorker => 2,
        TaskState::Queued => 3,
        TaskState::Processing => 4,
        TaskState::Memory => 5,
        TaskState::Erred => 6,
        TaskState::Forgotten => 7,
    }
}

impl TaskColumns {
    fn take(state: &Scheduler) -> Self {
        let mut columns = Self::default();
        // Where a task is stored tells it apart while the state is borrowed, without hashing its key.
        let place = |task: &TaskView<'_>| std::ptr::from_ref(task.key());
        let index: HashMap<*const Key, u32> = state
            .tasks()
            .enumerate()
            .map(|(i, task)| (place(&task), i as u32))
            .collect();
        columns.type_names.index(&Arc::default());
        for task in state.tasks() {
            columns.push(&task, |other| index.get(&place(other)).copied());
        }
        columns.rows = columns.keys.len();
        columns
            .dependencies_starts
            .push(columns.dependencies.len() as u32);
        columns.holders_starts.push(columns.holders.len() as u32);
        for client in state.clients() {
            let wanted = client.wants_what();
            let rows = wanted.filter_map(|task| index.get(&place(&task)).copied());
            columns.wants.push((client.name().clone(), rows.collect()));
        }
        columns
    }

    fn take_some(state: &Scheduler, keys: &[Key]) -> Self {
        let mut columns = Self::default();
        columns.type_names.index(&Arc::default());
        let tasks: Vec<TaskView<'_>> = keys.iter().filter_map(|key| state.task(key)).collect();
        let place = |task: &TaskView<'_>| std::ptr::from_ref(task.key());
        let rows = tasks.iter().enumerate();
        let mut index: HashMap<*const Key, u32> =
            rows.map(|(i, task)| (place(task), i as u32)).collect();
        columns.rows = tasks.len();
        // Keys that are only referred to follow those with rows.
        let mut others = Vec::new();
        let mut wants: IndexMap<Arc<str>, Vec<u32>> = IndexMap::new();
        let mut dependents = Dependents::default();
        for (row, task) in tasks.iter().enumerate() {
            for other in task.dependencies().chain(task.dependents()) {
                let next = (tasks.len() + others.len()) as u32;
                index.entry(place(&other)).or_insert_with(|| {
                    others.push(other.key().clone());
                    next
                });
            }
            columns.push(task, |other| index.get(&place(other)).copied());
            dependents.starts.push(dependents.rows.len() as u32);
            let found = task.dependents();
            let found = found.filter_map(|other| index.get(&place(&other)).copied());
            dependents.rows.extend(found);
            for client in task.who_wants() {
                let name = Arc::clone(client.name());
                wants.entry(name).or_default().push(row as u32);
            }
        }
        columns.keys.extend(others);
        columns
            .dependencies_starts
            .push(columns.dependencies.len() as u32);
        columns.holders_starts.push(columns.holders.len() as u32);
        dependents.starts.push(dependents.rows.len() as u32);
        columns.dependents = Some(dependents);
        columns.wants = wants.into_iter().collect();
        columns
    }

    fn push(&mut self, task: &TaskView<'_>, index: impl Fn(&TaskView<'_>) -> Option<u32>) {
        self.keys.push(task.key().clone());
        self.states.push(state_code(task.state()));
        let nbytes = task.nbytes().and_then(|n| i64::try_from(n).ok());
        self.nbytes.push(nbytes.unwrap_or(-1));
        self.dependencies_starts
            .push(self.dependencies.len() as u32);
        self.dependencies
            .extend(task.dependencies().filter_map(|d| index(&d)));
        self.holders_starts.push(self.holders.len() as u32);
        for worker in task.who_has() {
            self.holders
                .push(self.worker_addresses.index(worker.address()));
        }
        let on = task.processing_on();
        let on = on.map_or(0, |w| self.worker_addresses.index(w.address()) + 1);
        self.processing_on.push(on);
        self.groups
            .push(self.group_names.index(task.group().name()));
        let type_name = task.type_().map_or(0, |name| self.type_names.index(name));
        self.types.push(type_name);
        self.retries.push(task.retries());
        self.suspicious.push(task.suspicious());
        let lost = u8::from(task.has_lost_dependencies());
        self.flags.push(u8::from(task.actor()) | lost << 1);
        self.priorities
            .extend(task.priority().unwrap_or([f64::NAN; 3]));
    }

    fn encode(self, header: &mut Value) -> Vec<Bytes> {
        let numbers = |column: &[u32]| packed(column.iter().map(|n| n.to_le_bytes()));
        let mut columns: Vec<(&str, &str, Bytes)> = vec![
            ("states", "B", self.states.into()),
            (
                "nbytes",
                "q",
                packed(self.nbytes.iter().map(|n| n.to_le_bytes())),
            ),
            (
                "dependencies_starts",
                "I",
                numbers(&self.dependencies_starts),
            ),
            ("dependencies", "I", numbers(&self.dependencies)),
            ("holders_starts", "I", numbers(&self.holders_starts)),
            ("holders", "I", numbers(&self.holders)),
            ("processing_on", "I", numbers(&self.processing_on)),
            ("groups", "I", numbers(&self.groups)),
            ("types", "I", numbers(&self.types)),
            ("retries", "I", numbers(&self.retries)),
            ("suspicious", "I", numbers(&self.suspicious)),
            ("flags", "B", self.flags.into()),
            (
                "priorities",
                "d",
                packed(self.priorities.iter().map(|n| n.to_le_bytes())),
            ),
        ];
        if let Some(dependents) = &self.dependents {
            let (starts, rows) = (numbers(&dependents.starts), numbers(&dependents.rows));
            columns.push(("dependents_starts", "I", starts));
            columns.push(("dependents", "I", rows));
        }
        header.insert("rows", self.rows as u64);
        let described = columns
            .iter()
            .map(|(name, code, _)| Value::array([*name, *code]));
        header.insert("columns", Value::array(described));
        header.insert("worker_addresses", self.worker_addresses.value());
        header.insert("group_names", self.group_names.value());
        header.insert("type_names", self.type_names.value());
        let wants = self.wants.into_iter().map(|(client, rows)| {
            let rows = rows.into_iter().map(u64::from);
            (client.to_string(), Value::array(rows))
        });
        header.insert("wants", Value::map(wants));
        let keys = rmp_serde::to_vec(&self.keys).unwrap_or_default();
        std::iter::once(keys.into())
            .chain(columns.into_iter().map(|(_, _, column)| column))
            .collect()
    }
}

fn packed<const N: usize>(numbers: impl ExactSizeIterator<Item = [u8; N]>) -> Bytes {
    let mut out = BytesMut::with_capacity(numbers.len() * N);
    numbers.for_each(|number| out.put_slice(&number));
    out.freeze()
}

/// What is rarely asked of a task, as the mirror of a client of `release` has it.
pub(super) fn task_detail(state: &Scheduler, key: &Key, release: Release) -> Value {
    let Some(task) = state.task(key) else {
        return Value::Map(Vec::new());
    };
    let texts = |from: &[Arc<str>]| Value::array(from.iter());
    let mut detail = Value::map([
        ("worker_restrictions", texts(task.worker_restrictions())),
        ("host_restrictions", texts(task.host_restrictions())),
        ("loose_restrictions", task.loose_restrictions().into()),
        ("erred_on", texts(task.erred_on())),
        (
            "exception_blame",
            task.exception_blame().map_or(Value::Nil, Value::from),
        ),
        (
            "resource_restrictions",
            Value::map(
                task.resource_restrictions()
                    .iter()
                    .map(|(name, amount)| (name.to_string(), *amount)),
            ),
        ),
        ("run_id", task.run_id().map_or(Value::Nil, |id| id.0.into())),
        (
            "metadata",
            task.metadata()
                .and_then(|metadata| metadata.get::<Value>())
                .cloned()
                .unwrap_or_default(),
        ),
        (
            "annotations",
            task.annotations()
                .and_then(|annotations| Value::decode(annotations.get::<Bytes>()?).ok())
                .unwrap_or_default(),
        ),
    ]);
    if let Some(error) = task.error() {
        detail.insert("exception", object(exceptions::of_task(error, release)));
        if let TaskError::Remote {
            traceback,
            exception_text,
            traceback_text,
            ..
        } = error
        {
            let traceback = traceback
                .as_ref()
                .and_then(|traceback| traceback.get::<ErrorObject>());
            detail.insert("traceback", traceback.cloned().map_or(Value::Nil, object));
            detail.insert("exception_text", exception_text);
            detail.insert("traceback_text", traceback_text);
        }
    }
    detail
}

fn object(error: ErrorObject) -> Value {
    match error {
        ErrorObject::Payload(payload) => Value::Payload(payload),
        ErrorObject::Pickle(pickle) => Value::Bin(pickle),
        ErrorObject::Text(text) => text.into(),
    }
}
