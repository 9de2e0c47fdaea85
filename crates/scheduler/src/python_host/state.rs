//! Answers to what functions of clients ask about the scheduler.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::event::Event;
use oxidask_wire::message::Message;
use oxidask_wire::value::Value;
use parking_lot::Mutex;

use super::delegate::BoxFuture;
use super::followers::{Followers, Wants};
use super::mirror::{self, Snapshot, task_detail};
use super::session::{Question, SessionHandle, StateSource};
use crate::context::Context;
use crate::observers::Observed;
use crate::rpc::{Call, Caller, error_reply};

/// The running scheduler, once it runs.
#[derive(Default)]
pub(super) struct SchedulerState {
    context: OnceLock<Weak<Context>>,
    pub(super) followers: Arc<Followers>,
    /// Ops that plugins and preloads added, and the session that has them.
    handlers: Mutex<HashMap<Ops, HashMap<String, u64>>>,
}

/// Where an op can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ops {
    /// In a request.
    Request,
    /// On the stream of a client or worker.
    Stream,
}

impl SchedulerState {
    /// The scheduler is up.
    pub(super) fn started(&self, context: &Arc<Context>) {
        let _ = self.context.set(Arc::downgrade(context));
    }

    /// The scheduler, unless it is not up yet or gone.
    pub(super) fn context(&self) -> Option<Arc<Context>> {
        self.context.get()?.upgrade()
    }

    /// Something happened in the core.
    pub(super) fn observed(&self, observed: &Observed) {
        self.followers.observed(self.context().as_deref(), observed);
    }

    /// An entry was written to the event log.
    pub(super) fn event_logged(&self, topics: &[Key], event: &Value) {
        self.followers
            .event_logged(self.context().as_deref(), topics, event);
    }

    /// Which session answers an op that the scheduler itself does not know.
    pub(super) fn handler(&self, op: &str, of: Ops) -> Option<u64> {
        let handlers = self.handlers.lock();
        handlers.get(&of)?.get(op).copied()
    }

    fn forget(&self, session: u64) {
        self.followers.leave(self.context().as_deref(), session);
        for ops in self.handlers.lock().values_mut() {
            ops.retain(|_, owner| *owner != session);
        }
    }

    fn set_handlers(&self, question: &Question, session: u64) {
        for (of, field) in [(Ops::Request, "requests"), (Ops::Stream, "streams")] {
            let names = question.fields.get(field).and_then(Value::as_seq);
            let mut handlers = self.handlers.lock();
            let ops = handlers.entry(of).or_default();
            ops.retain(|_, owner| *owner != session);
            for name in names.unwrap_or_default().iter().filter_map(Value::as_str) {
                ops.insert(name.to_owned(), session);
            }
        }
    }
}

/// [`SchedulerState`] as sessions see it.
pub(super) struct Source(pub(super) Arc<SchedulerState>);

impl StateSource for Source {
    fn basics(&self) -> Value {
        let Some(context) = self.0.context() else {
            return Value::Map(Vec::new());
        };
        let identity = &context.identity;
        Value::map([
            ("address", Value::from(&identity.address)),
            ("id", identity.id.as_str().into()),
            ("started", identity.started.0.into()),
            (
                "dashboard_port",
                identity.dashboard_port.map(u64::from).into(),
            ),
        ])
    }

    fn answer(
        &self,
        question: Question,
        session: SessionHandle,
    ) -> BoxFuture<'static, Result<(Value, Vec<Bytes>), String>> {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let context = state
                .context()
                .ok_or_else(|| "the scheduler is shutting down".to_owned())?;
            match question.what.as_str() {
                "snapshot" => {
                    let scope = question.fields.get("scope").and_then(Value::as_str);
                    snapshot(&context, scope == Some("tasks")).await
                }
                "spans" => spans(&context).await,
                "task" => task(&context, &question).await,
                "tasks" => tasks(&context, &question).await,
                "observe" => {
                    let hooks = question.fields.get("hooks").and_then(Value::as_seq);
                    let details = question.fields.get("detailed").and_then(Value::as_bool);
                    let wants = Wants::from_hooks(hooks.unwrap_or_default(), details == Some(true));
                    // Before the snapshot, so that nothing falls between the two.
                    state.followers.follow(&context, &session, wants);
                    snapshot(&context, wants.transitions).await
                }
                "handlers" => {
                    state.set_handlers(&question, session.id);
                    Ok((Value::Map(Vec::new()), Vec::new()))
                }
                "send" => send(&context, question),
                "replicas" => replicas(&context, &question).await,
                "computations" => Ok(message(&Value::map([(
                    "computations",
                    context.computations.value(),
                )]))),
                "transition_log" => transition_log(&context, &question).await,
                "rpc" => rpc(&context, question).await,
                other => Err(format!("the scheduler knows no question {other:?}")),
            }
        })
    }

    fn settle(&self, id: u64) -> BoxFuture<'static, ()> {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            if state.followers.has(id)
                && let Some(context) = state.context()
            {
                context.core.settle().await;
                state.followers.catch_up(id).await;
            }
        })
    }

    fn session_ended(&self, id: u64) {
        self.0.forget(id);
    }
}

async fn snapshot(context: &Context, with_tasks: bool) -> Result<(Value, Vec<Bytes>), String> {
    let snapshot = context
        .core
        .query(move |state| Snapshot::take(state, with_tasks))
        .await
        .map_err(|error| error.to_string())?;
    Ok(complete(context, snapshot))
}

/// A snapshot without tasks, and the spans of the same moment.
async fn spans(context: &Context) -> Result<(Value, Vec<Bytes>), String> {
    let both = |state: &Scheduler| (Snapshot::take(state, false), mirror::spans(state));
    let both = context.core.query(both).await;
    let (snapshot, spans) = both.map_err(|error| error.to_string())?;
    let (header, _) = complete(context, snapshot);
    let (_, frames) = message(&spans);
    Ok((header, frames))
}

/// Some tasks.
async fn tasks(context: &Context, question: &Question) -> Result<(Value, Vec<Bytes>), String> {
    let keys = question.fields.get("keys").and_then(Value::to_keys);
    let keys = keys.ok_or_else(|| "the keys of the tasks are missing".to_owned())?;
    let snapshot = context
        .core
        .query(move |state| Snapshot::take_some(state, &keys))
        .await
        .map_err(|error| error.to_string())?;
    Ok(complete(context, snapshot))
}

fn complete(context: &Context, snapshot: Snapshot) -> (Value, Vec<Bytes>) {
    snapshot.encode(|address, row| {
        let Some(worker) = context.workers.at(address) else {
            return;
        };
        row.insert("name", worker.name.clone());
        row.insert("memory_limit", worker.memory_limit.clone());
        row.insert("services", worker.services.clone());
        row.insert("versions", Value::clone(&worker.versions));
        row.insert("extra", worker.extra.clone());
        let live = worker.live.lock();
        row.insert("metrics", live.metrics.clone());
        row.insert("last_seen", live.last_seen.0);
        row.insert("time_delay", live.time_delay);
    })
}

/// A message on the streams of some workers (by address) or clients (by name).
fn send(context: &Context, question: Question) -> Result<(Value, Vec<Bytes>), String> {
    let decoded = Message::from_frames(question.frames.into_iter())
        .and_then(|message| message.value())
        .map_err(|error| error.to_string())?;
    let names = |field: &str| -> Vec<&str> {
        let names = question.fields.get(field).and_then(Value::as_seq);
        let names = names.unwrap_or_default().iter();
        names.filter_map(Value::as_str).collect()
    };
    for address in names("workers") {
        if let Some(worker) = context.workers.at(address) {
            worker.outbox.send_message(decoded.clone());
        }
    }
    for name in names("clients") {
        if let Some(client) = context.clients.named(name) {
            context.clients.tell(client.id, decoded.clone());
        }
    }
    Ok((Value::Map(Vec::new()), Vec::new()))
}

/// `request_acquire_replicas` and `request_remove_replicas`.
async fn replicas(context: &Context, question: &Question) -> Result<(Value, Vec<Bytes>), String> {
    let field = |name: &str| question.fields.get(name);
    let text = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default();
    let Some(worker) = context.workers.at(text("worker")) else {
        return Err(format!("there is no worker at {}", text("worker")));
    };
    let keys = field("keys").and_then(Value::to_keys).unwrap_or_default();
    let (worker, stimulus_id) = (worker.id, text("stimulus_id").into());
    let event = match text("action") {
        "acquire" => Event::RequestAcquireReplicas {
            worker,
            keys,
            stimulus_id,
        },
        _ => Event::RequestRemoveReplicas {
            worker,
            keys,
            stimulus_id,
        },
    };
    let applied = context.core.apply(vec![event]).await;
    applied.map_err(|error| error.to_string())?;
    Ok((Value::Map(Vec::new()), Vec::new()))
}

/// The last transitions, oldest first, as stock's rows.
async fn transition_log(
    context: &Context,
    question: &Question,
) -> Result<(Value, Vec<Bytes>), String> {
    let limit = question.fields.get("limit").and_then(Value::as_u64);
    let limit = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let rows = context.core.query(move |state| {
        let last = state.transition_log().rev().take(limit);
        let mut rows: Vec<Value> = last.map(log_row).collect();
        rows.reverse();
        Value::Array(rows)
    });
    let rows = rows.await.map_err(|error| error.to_string())?;
    Ok(message(&Value::map([("rows", rows)])))
}

fn log_row(entry: &oxidask_scheduler_core::story::LogEntry) -> Value {
    let recommended = entry.recommendations();
    let recommended = recommended.map(|(key, state)| (Value::from(key), state.as_str().into()));
    Value::Array(vec![
        (&entry.key).into(),
        entry.start.as_str().into(),
        entry.finish.as_str().into(),
        Value::Map(recommended.collect()),
        (&entry.stimulus_id).into(),
        entry.time.0.into(),
    ])
}

async fn task(context: &Context, question: &Question) -> Result<(Value, Vec<Bytes>), String> {
    let key = question.fields.get("key").and_then(Value::to_key);
    let key = key.ok_or_else(|| "the key of a task is missing".to_owned())?;
    let release = question.release;
    let detail = context
        .core
        .query(move |state| task_detail(state, &key, release))
        .await
        .map_err(|error| error.to_string())?;
    Ok(message(&detail))
}

/// Calls a handler as a client would.
async fn rpc(context: &Arc<Context>, question: Question) -> Result<(Value, Vec<Bytes>), String> {
    let request = Message::from_frames(question.frames.into_iter())
        .and_then(|message| message.value())
        .map_err(|error| error.to_string())?;
    let mut args = request;
    let op = match args.remove("op") {
        Some(Value::Str(op)) => op,
        _ => return Err("the request has no op".to_owned()),
    };
    let caller = Arc::new(Caller {
        address: Arc::clone(&context.identity.address),
        ip: None,
        release: question.release,
        roles: crate::roles::Roles::ADMIN,
    });
    let call = Call {
        op: op.as_str().into(),
        args,
        serializers: None,
        caller: Arc::clone(&caller),
    };
    let Some(started) = context.rpc.start(context, call) else {
        return Err(format!("the scheduler has no handler of {op:?} yet"));
    };
    let result = tokio::spawn(started.future)
        .await
        .map_err(|error| error.to_string())?;
    let result = match result {
        Ok(result) => result,
        Err(crate::rpc::RpcError::Forward(map)) => map,
        Err(error) => error_reply(&error, &caller, context.settings.max_error_length),
    };
    Ok(message(&Value::map([("result", result)])))
}

fn message(value: &Value) -> (Value, Vec<Bytes>) {
    let frames = Message::from_value(value).frames().cloned().collect();
    (Value::Map(Vec::new()), frames)
}
