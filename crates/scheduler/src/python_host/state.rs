//! Answers to what functions of clients ask about the scheduler.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use oxidask_scheduler_core::effect::TransitionEffect;
use oxidask_wire::message::Message;
use oxidask_wire::value::Value;
use parking_lot::Mutex;

use super::delegate::BoxFuture;
use super::mirror::{Snapshot, state_code, task_detail};
use super::session::{Question, SessionHandle, StateSource};
use crate::context::Context;
use crate::rpc::{Call, Caller, error_reply};

/// The running scheduler, once it runs.
#[derive(Default)]
pub(super) struct SchedulerState {
    context: OnceLock<Weak<Context>>,
    observers: Mutex<Vec<SessionHandle>>,
    observed: AtomicBool,
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

    /// A task changed state: sessions with plugins are told.
    pub(super) fn transition(&self, transition: &TransitionEffect) {
        if !self.observed.load(Ordering::Acquire) {
            return;
        }
        let raw = transition.raw.as_ref().and_then(|raw| raw.get::<Value>());
        let frames: Vec<Bytes> = raw.map_or_else(Vec::new, |raw| {
            Message::from_value(raw).frames().cloned().collect()
        });
        let item = Value::array([
            Value::from(transition.counter),
            (&transition.key).into(),
            u64::from(state_code(transition.start)).into(),
            u64::from(state_code(transition.finish)).into(),
            (&transition.stimulus_id).into(),
            frames.len().into(),
        ]);
        let header = Value::map([
            ("op", Value::from("transitions")),
            ("items", Value::array([item])),
        ]);
        for session in self.observers.lock().iter() {
            session.push(&header, frames.clone());
        }
    }

    /// All tasks were forgotten.
    pub(super) fn restarted(&self) {
        let header = Value::map([("op", "restarted")]);
        for session in self.observers.lock().iter() {
            session.push(&header, Vec::new());
        }
    }

    fn observe(&self, context: &Context, session: &SessionHandle) {
        let mut observers = self.observers.lock();
        if observers.iter().any(|observer| observer.id == session.id) {
            return;
        }
        observers.push(session.clone());
        self.observed.store(true, Ordering::Release);
        // Plugins want to know what the workers told.
        context.recorders.fetch_add(1, Ordering::Relaxed);
        context.observe_transitions();
    }

    fn unobserve(&self, session: u64) {
        let mut observers = self.observers.lock();
        let before = observers.len();
        observers.retain(|observer| observer.id != session);
        if observers.len() == before {
            return;
        }
        self.observed
            .store(!observers.is_empty(), Ordering::Release);
        if let Some(context) = self.context() {
            context.recorders.fetch_sub(1, Ordering::Relaxed);
            context.unobserve_transitions();
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
                "task" => task(&context, &question).await,
                "observe" => {
                    let on = question.fields.get("on").and_then(Value::as_bool);
                    if on == Some(true) {
                        // Before the snapshot, so that nothing falls between the two.
                        state.observe(&context, &session);
                        snapshot(&context, true).await
                    } else {
                        state.unobserve(session.id);
                        Ok((Value::Map(Vec::new()), Vec::new()))
                    }
                }
                "rpc" => rpc(&context, question).await,
                other => Err(format!("the scheduler knows no question {other:?}")),
            }
        })
    }

    fn session_ended(&self, id: u64) {
        self.0.unobserve(id);
    }
}

async fn snapshot(context: &Context, with_tasks: bool) -> Result<(Value, Vec<Bytes>), String> {
    let snapshot = context
        .core
        .query(move |state| Snapshot::take(state, with_tasks))
        .await
        .map_err(|error| error.to_string())?;
    Ok(snapshot.encode(|address, row| {
        let Some(worker) = context.workers.at(address) else {
            return;
        };
        row.insert("name", worker.name.clone());
        row.insert("memory_limit", worker.memory_limit.clone());
        row.insert("services", worker.services.clone());
        row.insert("versions", worker.versions.clone());
        row.insert("extra", worker.extra.clone());
        let live = worker.live.lock();
        row.insert("metrics", live.metrics.clone());
        row.insert("last_seen", live.last_seen.0);
        row.insert("time_delay", live.time_delay);
    }))
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
