//! The running scheduler as the source of the pages.

use std::collections::HashSet;
use std::sync::Arc;

use oxidask_config::{ConfigValue, interpret_value};
use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::policy::WorkersToClose;
use oxidask_scheduler_core::task::TaskState;
use oxidask_scheduler_core::views::{TaskView, WorkerView};
use oxidask_scheduler_core::worker::WorkerStatus;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::feed::{Snapshot, Topics};
use super::process::ProcessFigures;
use super::source::{
    Answer, Counts, ErredTask, Health, HttpSource, LogRow, Metrics, PrefixFigures, SourceError,
    TaskPage, TaskRow, TransitionRow, WorkerPage, WorkerRow, WorkerStates,
};
use super::ticks::Ticks;
use super::values::{from_json, to_json};
use super::watch::{Happenings, Watch};
use super::{live_feed, live_own};
use crate::context::Context;
use crate::core_thread::CoreStopped;
use crate::exceptions::texts_of_task;
use crate::handlers;
use crate::rpc::{Call, Caller, RpcError};
use crate::{clock, logging};

/// Keys of other types than text are looked for one by one only among so many tasks, because the core
/// waits meanwhile.
const MAX_SEARCH: usize = 100_000;

/// The source.
pub struct Live {
    context: Arc<Context>,
    ticks: Arc<Ticks>,
    watch: Arc<Watch>,
}

impl Live {
    /// Shows this scheduler.
    #[must_use]
    pub fn new(context: Arc<Context>, ticks: Arc<Ticks>, watch: Arc<Watch>) -> Self {
        Self {
            context,
            ticks,
            watch,
        }
    }

    async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&Scheduler) -> R + Send + 'static,
    ) -> Answer<R> {
        Ok(self.context.core.look(question).await?)
    }

    /// Runs an op as a client could.
    async fn call(&self, op: &'static str, args: Value) -> Answer<Value> {
        let caller = Arc::new(Caller {
            address: "http".into(),
            ip: None,
            release: Release::NEWEST,
            roles: crate::roles::Roles::ADMIN,
        });
        let call = Call {
            op: op.into(),
            args,
            serializers: None,
            caller,
        };
        let Some(started) = self.context.rpc.start(&self.context, call) else {
            return Err(SourceError::NotSupported(op));
        };
        Ok(started.future.await?)
    }

    fn row(&self, mut row: WorkerRow) -> WorkerRow {
        if let Some(worker) = self.context.workers.at(&row.address) {
            row.dashboard_port = worker.services.get("dashboard").and_then(Value::as_u64);
        }
        row
    }
}

impl From<CoreStopped> for SourceError {
    fn from(_: CoreStopped) -> Self {
        Self::Stopped
    }
}

impl From<RpcError> for SourceError {
    fn from(error: RpcError) -> Self {
        Self::Failed(error.exception().repr())
    }
}

fn worker_row(worker: WorkerView<'_>) -> WorkerRow {
    WorkerRow {
        address: worker.address().to_string(),
        name: worker.name().to_string(),
        host: worker.info().host.to_string(),
        dashboard_port: None,
        nthreads: worker.nthreads(),
        memory_limit: worker.memory_limit(),
        memory: worker.memory().process,
        occupancy: worker.occupancy(),
        processing: worker.processing_len(),
        in_memory: worker.has_what_len(),
        last_seen: clock::now().since(worker.last_seen()).max(0.0),
    }
}

fn task_row(task: TaskView<'_>) -> TaskRow {
    TaskRow {
        key: task.key().to_text(),
        state: task.state().as_str(),
    }
}

fn counts(scheduler: &Scheduler) -> Counts {
    let mut counts = Counts {
        clients: scheduler.clients().count(),
        cores: scheduler.total_nthreads(),
        idle: scheduler.idle().count(),
        saturated: scheduler.saturated().count(),
        tasks: scheduler.tasks_len(),
        unrunnable: scheduler.unrunnable_count(),
        workers: scheduler.workers_len(),
        desired_workers: adaptive_target(scheduler),
        ..Counts::default()
    };
    for task in scheduler.tasks() {
        match task.state() {
            TaskState::Erred => counts.erred += 1,
            TaskState::Released => counts.released += 1,
            _ => {}
        }
        counts.waiting += usize::from(task.waiting_on().next().is_some());
        counts.waiting_data += usize::from(task.waiters().next().is_some());
    }
    let mut hosts = HashSet::new();
    for worker in scheduler.workers() {
        hosts.insert(Arc::clone(&worker.info().host));
        counts.memory += worker.has_what_len();
        counts.bytes = counts.bytes.saturating_add(worker.nbytes());
        counts.processing += worker.processing_len();
    }
    counts.hosts = hosts.len();
    counts
}

/// The part of the metrics that the core knows.
fn metrics(scheduler: &Scheduler) -> Metrics {
    let mut states = TaskState::ALL.map(|state| (state.as_str(), 0));
    let mut prefixes = Vec::new();
    for prefix in scheduler.task_prefixes() {
        for ((_, total), (_, count)) in states.iter_mut().zip(prefix.states()) {
            *total += count;
        }
        let spent = |action: &str| {
            prefix
                .all_durations()
                .filter(|(name, _)| ***name == *action)
                .map(|(_, time)| time)
                .fold(0.0, |sum, time| sum + time)
        };
        prefixes.push(PrefixFigures {
            name: prefix.name().to_string(),
            suspicious: prefix.suspicious(),
            compute: spent("compute"),
            transfer: spent("transfer"),
            nbytes: prefix.nbytes_total(),
            state_totals: prefix
                .state_counts()
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(state, count)| (state.as_str(), count))
                .collect(),
        });
    }
    let forgotten = TaskState::Forgotten.as_str();
    let (gone, here): (Vec<_>, Vec<_>) = states
        .into_iter()
        .partition(|(state, _)| *state == forgotten);
    Metrics {
        desired_workers: adaptive_target(scheduler),
        workers: worker_states(scheduler),
        tasks: here,
        tasks_forgotten: gone.first().map_or(0, |(_, count)| *count),
        task_groups: scheduler.task_groups().count(),
        prefixes,
        stealing: if scheduler.stealing_enabled() {
            scheduler.steal_metrics()
        } else {
            Vec::new()
        },
        ..Metrics::default()
    }
}

fn worker_states(scheduler: &Scheduler) -> WorkerStates {
    let (all, running) = (scheduler.workers_len(), scheduler.running().count());
    let (idle, saturated) = (scheduler.idle().count(), scheduler.saturated().count());
    let paused = scheduler
        .workers()
        .filter(|worker| worker.status() == WorkerStatus::Paused)
        .count();
    WorkerStates {
        idle,
        partially_saturated: running.saturating_sub(idle + saturated),
        saturated,
        paused,
        retiring: all.saturating_sub(paused + running),
    }
}

/// A key by the text that `str()` gives for it.
fn find<'a>(scheduler: &'a Scheduler, text: &str) -> Option<TaskView<'a>> {
    if let Some(task) = scheduler.task(&Key::from(text)) {
        return Some(task);
    }
    if let Some(task) = literal_key(&interpret_value(text)).and_then(|key| scheduler.task(&key)) {
        return Some(task);
    }
    if scheduler.tasks_len() > MAX_SEARCH {
        return None;
    }
    scheduler
        .tasks()
        .find(|task| task.key().as_str().is_none() && task.key().to_text() == text)
}

fn literal_key(value: &ConfigValue) -> Option<Key> {
    Some(match value {
        ConfigValue::None => Key::None,
        ConfigValue::Bool(value) => Key::Bool(*value),
        ConfigValue::Int(value) => Key::Int(*value),
        ConfigValue::Float(value) => Key::Float(*value),
        ConfigValue::Str(text) => Key::from(text.as_str()),
        ConfigValue::List(items) => items
            .iter()
            .map(literal_key)
            .collect::<Option<Vec<Key>>>()?
            .into(),
        ConfigValue::Map(_) => return None,
    })
}

fn priority(task: TaskView<'_>) -> Option<String> {
    task.priority()
        .map(|[user, generation, order]| format!("({}, {generation}, {order})", user + 0.0))
}

fn worker_page(worker: WorkerView<'_>) -> WorkerPage {
    let mut processing: Vec<_> = worker.processing().collect();
    processing.sort_by(|a, b| {
        a.priority()
            .partial_cmp(&b.priority())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let used = |name: &str| {
        worker
            .used_resources()
            .iter()
            .find(|(used, _)| **used == *name)
            .map_or(0.0, |(_, amount)| *amount)
    };
    WorkerPage {
        row: worker_row(worker),
        has_what: worker
            .has_what()
            .map(|task| (task.key().to_text(), task.get_nbytes()))
            .collect(),
        processing: processing
            .into_iter()
            .map(|task| (task.key().to_text(), priority(task).unwrap_or_default()))
            .collect(),
        resources: worker
            .resources()
            .iter()
            .map(|(name, total)| (name.to_string(), used(name), *total))
            .collect(),
    }
}

fn task_page(scheduler: &Scheduler, task: TaskView<'_>) -> TaskPage {
    let list = |names: &[Arc<str>]| names.join(", ");
    let resources: Vec<String> = task
        .resource_restrictions()
        .iter()
        .map(|(name, amount)| format!("{name}: {amount}"))
        .collect();
    let mut facts = vec![
        ("Host Restrictions", list(task.host_restrictions())),
        ("Worker Restrictions", list(task.worker_restrictions())),
        ("Resource Restrictions", resources.join(", ")),
    ];
    let flag = |set: bool| {
        if set {
            "True".to_owned()
        } else {
            String::new()
        }
    };
    facts.push(("Loose Restrictions", flag(task.loose_restrictions())));
    facts.push(("Has Lost Dependencies", flag(task.has_lost_dependencies())));
    let number = |count: u32| {
        if count == 0 {
            String::new()
        } else {
            count.to_string()
        }
    };
    facts.push(("Suspicious", number(task.suspicious())));
    facts.push(("Retries", number(task.retries())));
    facts.retain(|(_, value)| !value.is_empty());
    let waiting = task.state() == TaskState::Waiting;
    let story = scheduler.story(std::slice::from_ref(task.key()));
    TaskPage {
        key: task.key().to_text(),
        state: task.state().as_str(),
        processing_on: task
            .processing_on()
            .map(|worker| worker.address().to_string()),
        type_name: task.type_().map(ToString::to_string),
        nbytes: task.nbytes(),
        priority: priority(task),
        facts,
        error: task.error().map(texts_of_task),
        waiting_on: if waiting {
            task.waiting_on().map(task_row).collect()
        } else {
            Vec::new()
        },
        dependencies: task.dependencies().map(task_row).collect(),
        dependents: task.dependents().map(task_row).collect(),
        who_has: task.who_has().map(worker_row).collect(),
        who_wants: task
            .who_wants()
            .map(|client| client.name().to_string())
            .collect(),
        story: story
            .into_iter()
            .map(|entry| TransitionRow {
                time: entry.time.0,
                key: entry.key.to_text(),
                start: entry.start.as_str(),
                finish: entry.finish.as_str(),
                stimulus_id: entry.stimulus_id.to_string(),
                recommendations: entry
                    .recommendations()
                    .map(|(key, state)| TaskRow {
                        key: key.to_text(),
                        state: state.as_str(),
                    })
                    .collect(),
            })
            .collect(),
    }
}

/// `[[level, text], …]` of `get_logs`.
fn log_rows(value: &Value) -> Vec<LogRow> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let rows = value
        .as_seq()
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_seq);
    rows.map(|row| (text(row.first()), text(row.get(1))))
        .collect()
}

impl HttpSource for Live {
    fn health(&self) -> Health {
        Health {
            silence: self.ticks.core_silence(),
            stopping: self.context.shutdown.is_requested(),
        }
    }

    async fn snapshot(&self, topics: Topics) -> Answer<Snapshot> {
        Ok(live_feed::snapshot(&self.context, topics).await?)
    }

    fn happenings(&self) -> Happenings {
        self.watch.happenings(&self.context)
    }

    async fn counts(&self) -> Answer<Counts> {
        self.ask(counts).await
    }

    async fn identity(&self) -> Answer<serde_json::Value> {
        let identity = handlers::identity::scheduler_identity(&self.context, usize::MAX).await?;
        Ok(to_json(&identity))
    }

    async fn metrics(&self) -> Answer<Metrics> {
        let mut metrics = self.ask(metrics).await?;
        let clients = self.context.clients.connected().len();
        let (clients_added, workers_added) = (
            self.context.clients.connected_total(),
            self.context.workers.registered_total(),
        );
        let now = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        metrics.clients = clients;
        metrics.clients_added = clients_added;
        metrics.clients_removed = clients_added.saturating_sub(now(clients));
        metrics.workers_added = workers_added;
        metrics.workers_removed = workers_added.saturating_sub(now(self.context.workers.len()));
        metrics.last_time = clock::now().0;
        metrics.tick_count = self.ticks.count();
        metrics.tick_duration_max = self.ticks.take_longest();
        for extension in &self.context.extensions {
            metrics.extensions.extend(extension.metrics());
        }
        metrics.process = ProcessFigures::read();
        metrics.started = self.context.identity.started.0;
        metrics.own = live_own::families(&self.context, &self.ticks);
        Ok(metrics)
    }

    fn address(&self) -> String {
        self.context.identity.address.to_string()
    }

    async fn workers(&self) -> Answer<Vec<WorkerRow>> {
        let rows = self
            .ask(|scheduler| scheduler.workers().map(worker_row).collect::<Vec<_>>())
            .await?;
        let mut rows: Vec<WorkerRow> = rows.into_iter().map(|row| self.row(row)).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }

    async fn worker(&self, address: String) -> Answer<Option<WorkerPage>> {
        let page = self
            .ask(move |scheduler| scheduler.worker_by_address(&address).map(worker_page))
            .await?;
        Ok(page.map(|page| WorkerPage {
            row: self.row(page.row),
            ..page
        }))
    }

    async fn task(&self, key: String) -> Answer<Option<TaskPage>> {
        let page = self
            .ask(move |scheduler| find(scheduler, &key).map(|task| task_page(scheduler, task)))
            .await?;
        Ok(page.map(|mut page| {
            page.who_has = page.who_has.into_iter().map(|row| self.row(row)).collect();
            page
        }))
    }

    async fn erred_tasks(&self) -> Answer<Vec<ErredTask>> {
        self.ask(|scheduler| {
            let erred = scheduler.erred_tasks().map(|task| {
                let (exception, traceback) = texts_of_task(&task.error);
                let erred_on = task.erred_on.iter().map(ToString::to_string).collect();
                ErredTask {
                    key: task.key.to_text(),
                    erred_on,
                    exception,
                    traceback,
                }
            });
            erred.collect()
        })
        .await
    }

    async fn logs(&self) -> Answer<Vec<LogRow>> {
        let lines = logging::buffer().newest(0.0, None);
        Ok(lines
            .into_iter()
            .map(|line| (line.level.to_owned(), line.text.to_string()))
            .collect())
    }

    async fn worker_logs(&self, address: String) -> Answer<Option<Vec<LogRow>>> {
        if self.context.workers.at(&address).is_none() {
            return Ok(None);
        }
        let args = Value::map([("workers", Value::array([address.as_str()]))]);
        let logs = self.call("worker_logs", args).await?;
        Ok(Some(logs.get(&address).map(log_rows).unwrap_or_default()))
    }

    async fn worker_call_stacks(&self, address: String) -> Answer<Option<serde_json::Value>> {
        let keys = self
            .ask(move |scheduler| {
                let worker = scheduler.worker_by_address(&address)?;
                Some(
                    worker
                        .processing()
                        .map(|task| task.key().clone())
                        .collect::<Vec<_>>(),
                )
            })
            .await?;
        let Some(keys) = keys else { return Ok(None) };
        let args = Value::map([("keys", Value::array(keys))]);
        Ok(Some(to_json(&self.call("call_stack", args).await?)))
    }

    async fn task_call_stack(&self, key: String) -> Answer<Option<serde_json::Value>> {
        let key = self
            .ask(move |scheduler| find(scheduler, &key).map(|task| task.key().clone()))
            .await?;
        let Some(key) = key else { return Ok(None) };
        let args = Value::map([("keys", Value::array([key]))]);
        Ok(Some(to_json(&self.call("call_stack", args).await?)))
    }

    async fn retire_workers(&self, params: serde_json::Value) -> Answer<serde_json::Value> {
        let count = params
            .get("n")
            .and_then(serde_json::Value::as_u64)
            .filter(|count| *count > 0);
        let workers = match count {
            Some(count) => {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                let close = move |scheduler: &Scheduler| to_close(scheduler, count);
                Value::array(self.ask(close).await?)
            }
            None => params
                .get("workers")
                .map_or(Value::Array(Vec::new()), from_json),
        };
        let retired = self
            .call("retire_workers", Value::map([("workers", workers)]))
            .await?;
        Ok(to_json(&retired))
    }

    async fn adaptive_target(&self) -> Answer<u64> {
        self.ask(adaptive_target).await
    }

    async fn check_idle(&self) -> Answer<Option<f64>> {
        Ok(handlers::idle::check(&self.context)
            .await?
            .map(|since| since.0))
    }
}

/// Workers that the present work asks for.
fn adaptive_target(scheduler: &Scheduler) -> u64 {
    u64::try_from(scheduler.adaptive_target(None)).unwrap_or(u64::MAX)
}

/// Addresses of so many workers that can be closed at least cost.
fn to_close(scheduler: &Scheduler, count: usize) -> Vec<Arc<str>> {
    let how = WorkersToClose {
        n: Some(count),
        ..WorkersToClose::default()
    };
    let address = |id| {
        scheduler
            .worker(id)
            .map(|worker| Arc::clone(worker.address()))
    };
    let chosen = scheduler.workers_to_close(&how, |id| address(id).unwrap_or_default());
    chosen.into_iter().filter_map(address).collect()
}
