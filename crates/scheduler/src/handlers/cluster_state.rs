//! `get_cluster_state`: everything known, as plain data for people and debugging tools. References
//! between entities are written as stock writes them, `<TaskState 'x' memory>` and the like.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::views::{ClientView, GroupView, TaskView, WorkerView};
use oxidask_scheduler_core::worker::MemoryState;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::exceptions;
use crate::handlers::broadcast::{OnError, all, ask_all};
use crate::handlers::identity::{amounts, number, scheduler_identity};
use crate::handlers::queries::{transition, versions};
use crate::rpc::{Call, Reply, RpcError};
use crate::workers::WorkerEntry;

/// Names of fields that are left out.
type Exclude = Arc<[String]>;

/// The op. The state is written out on the core thread, which does nothing else meanwhile.
pub async fn get_cluster_state(context: Arc<Context>, call: Call) -> Reply {
    let exclude: Exclude = call.opt_texts("exclude")?.unwrap_or_default().into();
    let targets = all(&context);
    let dump = Value::map([
        ("op", Value::from("dump_state")),
        ("exclude", Value::array(exclude.iter().cloned())),
    ]);
    let ask = Value::map([("op", "versions")]);
    let (dumps, versions_of_workers) = tokio::join!(
        ask_all(&context, &targets, dump, false, OnError::ReturnText),
        ask_all(&context, &targets, ask, false, OnError::Ignore),
    );
    let workers: Value = dumps?.into_iter().collect();
    let versions_of_workers: Value = versions_of_workers?.into_iter().collect();
    let scheduler = scheduler_state(&context, &call, exclude).await?;
    let own = versions(Arc::clone(&context), call).await?;
    let versions = Value::map([("scheduler", own), ("workers", versions_of_workers)]);
    Ok(Value::map([
        ("scheduler", scheduler),
        ("workers", workers),
        ("versions", versions),
    ]))
}

async fn scheduler_state(
    context: &Arc<Context>,
    call: &Call,
    exclude: Exclude,
) -> Result<Value, RpcError> {
    let mut state = scheduler_identity(context, 0).await?;
    state.insert("status", "running");
    state.insert("thread_id", i64::from(std::process::id()));
    let excluded = Arc::clone(&exclude);
    let shared = Arc::clone(context);
    let parts = context.core.query(move |scheduler| {
        let dump = Dump {
            scheduler,
            context: &shared,
            exclude: &excluded,
        };
        dump.parts()
    });
    for (name, value) in parts.await? {
        state.insert(name, value);
    }
    if !exclude.iter().any(|name| name == "events") {
        let events = Call {
            op: "events".into(),
            args: Value::Map(Vec::new()),
            ..call.clone()
        };
        if let Some(started) = context.rpc.start(context, events) {
            state.insert("events", started.future.await?);
        }
    }
    Ok(state)
}

struct Dump<'a> {
    scheduler: &'a Scheduler,
    context: &'a Context,
    exclude: &'a [String],
}

impl Dump<'_> {
    fn excluded(&self, name: &str) -> bool {
        self.exclude.iter().any(|other| other == name)
    }

    fn map<const N: usize>(&self, fields: [(&str, Value); N]) -> Value {
        Value::map(fields.into_iter().filter(|(name, _)| !self.excluded(name)))
    }

    fn parts(&self) -> Vec<(&'static str, Value)> {
        let state = self.scheduler;
        let mut parts = vec![
            ("transition_counter", state.transition_counter().into()),
            ("memory", memory(&state.memory())),
        ];
        let mut part = |name, make: &dyn Fn() -> Value| {
            if !self.excluded(name) {
                parts.push((name, make()));
            }
        };
        part("transition_log", &|| {
            Value::Array(state.transition_log().map(transition).collect())
        });
        part("tasks", &|| {
            let tasks = state.tasks();
            tasks.map(|t| (t.key().to_text(), self.task(t))).collect()
        });
        part("task_groups", &|| {
            let groups = state.task_groups();
            groups.map(|g| (g.name(), self.group(g))).collect()
        });
        part("workers", &|| {
            let workers = state.workers();
            workers.map(|w| (w.address(), self.worker(w))).collect()
        });
        part("clients", &|| {
            let clients = state.clients();
            clients.map(|c| (c.name(), self.client(c))).collect()
        });
        part("extensions", &|| self.extensions());
        parts
    }

    fn extensions(&self) -> Value {
        let state = self.scheduler;
        let running = Value::map([("running", state.memory_manager_running())]);
        let in_flight = Value::map([("in_flight", state.steal_requests_in_flight())]);
        Value::map([("amm", running), ("stealing", in_flight)])
    }

    fn task(&self, task: TaskView<'_>) -> Value {
        let error = task.error();
        let (exception_text, traceback_text) = match error {
            None => (Value::Nil, Value::Nil),
            Some(error) => {
                let (exception, traceback) = exceptions::texts_of_task(error);
                (exception.into(), traceback.into())
            }
        };
        let workers = |views: Vec<WorkerView<'_>>| Value::array(views.into_iter().map(worker_ref));
        let or_nil = |list: &[Arc<str>]| match list {
            [] => Value::Nil,
            list => Value::array(list),
        };
        let annotations = task.annotations().and_then(|a| a.get::<Bytes>());
        let annotations = annotations.and_then(|map| Value::decode(map).ok());
        let holders: Vec<WorkerView<'_>> = task.who_has().collect();
        let resources = task.resource_restrictions();
        let blame = task.exception_blame();
        let blamed = blame.map(|key| match self.scheduler.task(key) {
            Some(task) => task_ref(task),
            None => key.to_text().into(),
        });
        self.map([
            ("actor", task.actor().into()),
            ("annotations", annotations.unwrap_or(Value::Map(Vec::new()))),
            ("dependencies", task_refs(task.dependencies())),
            ("dependents", task_refs(task.dependents())),
            ("erred_on", or_nil(task.erred_on())),
            ("exception", exception_text.clone()),
            ("exception_blame", blamed.unwrap_or_default()),
            ("exception_text", exception_text),
            ("group", group_ref(task.group())),
            ("group_key", task.group().name().into()),
            ("has_lost_dependencies", task.has_lost_dependencies().into()),
            ("host_restrictions", or_nil(task.host_restrictions())),
            ("key", task.key().into()),
            ("loose_restrictions", task.loose_restrictions().into()),
            (
                "metadata",
                task.metadata()
                    .and_then(|m| m.get::<Value>().cloned())
                    .unwrap_or_default(),
            ),
            ("nbytes", task.nbytes().map_or(Value::Int(-1), Value::from)),
            ("prefix", group_ref(task.group())),
            (
                "priority",
                task.priority()
                    .map_or(Value::Nil, |p| Value::array(p.map(number))),
            ),
            (
                "processing_on",
                task.processing_on().map_or(Value::Nil, worker_ref),
            ),
            (
                "resource_restrictions",
                match resources {
                    [] => Value::Nil,
                    resources => amounts(resources.to_vec()),
                },
            ),
            ("retries", task.retries().into()),
            ("run_id", task.run_id().map_or(Value::Nil, |id| id.0.into())),
            ("state", task.state().as_str().into()),
            ("suspicious", task.suspicious().into()),
            ("traceback", Value::Nil),
            ("traceback_text", traceback_text),
            ("type", task.type_().map_or(Value::Nil, Value::from)),
            ("waiters", task_refs(task.waiters())),
            ("waiting_on", task_refs(task.waiting_on())),
            (
                "who_has",
                match holders.is_empty() {
                    true => Value::Nil,
                    false => workers(holders),
                },
            ),
            ("who_wants", client_refs(task)),
            ("worker_restrictions", or_nil(task.worker_restrictions())),
        ])
    }

    fn worker(&self, worker: WorkerView<'_>) -> Value {
        let info = worker.info();
        let entry = self.context.workers.get(worker.id());
        let live = |of: &dyn Fn(&WorkerEntry) -> Value| entry.as_deref().map_or(Value::Nil, of);
        let executing = worker.executing().iter().map(|(key, seconds)| {
            let task = self.scheduler.task(key).map(task_ref);
            (task.unwrap_or_else(|| key.into()), *seconds)
        });
        self.map([
            ("type", "WorkerState".into()),
            ("actors", task_refs(worker.actors())),
            ("address", worker.address().into()),
            (
                "bandwidth",
                worker.metrics().bandwidth.map_or(Value::Nil, number),
            ),
            ("executing", executing.collect()),
            ("extra", live(&|w| w.extra.clone())),
            ("has_what", task_refs(worker.has_what())),
            ("host", (&info.host).into()),
            ("id", live(&|w| w.name.clone())),
            ("last_seen", worker.last_seen().0.into()),
            ("local_directory", (&info.local_directory).into()),
            ("long_running", task_refs(worker.long_running())),
            ("memory", memory(&worker.memory())),
            ("memory_limit", info.memory_limit.into()),
            ("metrics", live(&|w| w.live.lock().metrics.clone())),
            ("name", live(&|w| w.name.clone())),
            ("nanny", info.nanny.as_ref().map_or(Value::Nil, Value::from)),
            ("nbytes", worker.nbytes().into()),
            (
                "needs_what",
                worker
                    .needs_what()
                    .map(|(task, n)| (task_ref(task), n))
                    .collect(),
            ),
            ("nthreads", info.nthreads.into()),
            ("occupancy", worker.occupancy().into()),
            ("pid", info.pid.into()),
            ("processing", task_refs(worker.processing())),
            ("resources", amounts(worker.resources().to_vec())),
            ("server_id", (&info.server_id).into()),
            ("services", live(&|w| w.services.clone())),
            ("status", worker.status().as_str().into()),
            ("task_prefix_count", worker.task_prefix_count().collect()),
            ("time_delay", live(&|w| w.live.lock().time_delay.into())),
            ("used_resources", amounts(worker.used_resources().to_vec())),
        ])
    }

    fn client(&self, client: ClientView<'_>) -> Value {
        let connection = self.context.clients.named(client.name());
        let connection = connection.as_ref().and_then(|c| c.connection.as_ref());
        let last_seen = connection.map_or(Value::Nil, |c| c.last_seen.lock().0.into());
        self.map([
            ("client_key", client.name().into()),
            ("wants_what", task_refs(client.wants_what())),
            ("last_seen", last_seen),
        ])
    }

    fn group(&self, group: GroupView<'_>) -> Value {
        self.map([
            ("all_durations", group.all_durations().collect()),
            (
                "dependencies",
                Value::array(group.dependencies().map(group_ref)),
            ),
            ("done", group.done().into()),
            ("duration", group.duration().into()),
            (
                "last_worker",
                group.last_worker().map_or(Value::Nil, worker_ref),
            ),
            ("last_worker_tasks_left", 0.into()),
            ("name", group.name().into()),
            ("nbytes_total", group.nbytes_total().into()),
            ("prefix", group_ref(group)),
            ("span_id", group.span_id().map_or(Value::Nil, Value::from)),
            ("start", group.start().into()),
            (
                "states",
                group
                    .states()
                    .into_iter()
                    .map(|(s, n)| (s.as_str(), n))
                    .collect(),
            ),
            ("stop", group.stop().into()),
            ("types", Value::array(group.types().map(|(name, _)| name))),
        ])
    }
}

fn memory(memory: &MemoryState) -> Value {
    Value::map([
        ("managed", memory.managed),
        ("managed_total", memory.managed_total()),
        ("optimistic", memory.optimistic()),
        ("process", memory.process),
        ("spilled", memory.spilled),
        ("unmanaged", memory.unmanaged()),
        ("unmanaged_old", memory.unmanaged_old),
        ("unmanaged_recent", memory.unmanaged_recent()),
    ])
}

fn task_ref(task: TaskView<'_>) -> Value {
    format!(
        "<TaskState {} {}>",
        task.key().repr(),
        task.state().as_str()
    )
    .into()
}

fn task_refs<'a>(tasks: impl Iterator<Item = TaskView<'a>>) -> Value {
    Value::array(tasks.map(task_ref))
}

fn client_refs(task: TaskView<'_>) -> Value {
    let clients = task.who_wants();
    Value::array(clients.map(|client| format!("<Client '{}'>", client.name())))
}

fn worker_ref(worker: WorkerView<'_>) -> Value {
    format!(
        "<WorkerState '{}', name: {}, status: {}, memory: {}, processing: {}>",
        worker.address(),
        worker.name(),
        worker.status().as_str(),
        worker.has_what_len(),
        worker.processing_len()
    )
    .into()
}

fn group_ref(group: GroupView<'_>) -> Value {
    let counts = group.states().into_iter().filter(|(_, n)| *n > 0);
    let counts: Vec<String> = counts
        .map(|(state, n)| format!("{}: {n}", state.as_str()))
        .collect();
    format!("<{}: {}>", group.name(), counts.join(" ")).into()
}
