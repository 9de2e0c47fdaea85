//! Answers to what functions of clients ask about the scheduler.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use oxidask_scheduler_core::effect::TransitionEffect;
use oxidask_wire::message::Message;
use oxidask_wire::value::Value;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::delegate::BoxFuture;
use super::mirror::{Snapshot, state_code, task_detail};
use super::session::{Question, SessionHandle, StateSource};
use crate::context::Context;
use crate::rpc::{Call, Caller, error_reply};

/// Transitions that may wait for a session which does not take them, before it is told no more.
const MAX_WAITING: usize = 1_000_000;
/// Transitions are collected for so long, so that a busy scheduler sends few messages.
const COLLECT: Duration = Duration::from_millis(20);

/// The running scheduler, once it runs.
#[derive(Default)]
pub(super) struct SchedulerState {
    context: OnceLock<Weak<Context>>,
    observers: Mutex<Vec<Observer>>,
    /// Some observer is there: saves a lock for each transition when there is none.
    observed: AtomicBool,
}

/// A session with plugins.
struct Observer {
    session: SessionHandle,
    /// Its plugins want what the workers told with each result.
    detailed: bool,
    waiting: Waiting,
    news: Arc<Notify>,
}

/// Transitions not yet sent: their rows, and the frames of their details.
#[derive(Default)]
struct Waiting {
    items: Vec<Value>,
    frames: Vec<Bytes>,
    restarted: bool,
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
        let mut observers = self.observers.lock();
        for observer in observers.iter_mut() {
            let raw = transition.raw.as_ref().filter(|_| observer.detailed);
            observer.push(transition, raw.and_then(|raw| raw.get::<Value>()));
        }
        let full = |observer: &Observer| observer.waiting.items.len() > MAX_WAITING;
        while let Some(at) = observers.iter().position(full) {
            let observer = observers.swap_remove(at);
            tracing::warn!(
                "plugins of the Python host do not keep up with the scheduler; they are told no more"
            );
            self.let_go(observer);
        }
    }

    /// All tasks were forgotten.
    pub(super) fn restarted(&self) {
        for observer in self.observers.lock().iter_mut() {
            observer.waiting = Waiting {
                restarted: true,
                ..Waiting::default()
            };
            observer.news.notify_one();
        }
    }

    fn observe(self: &Arc<Self>, context: &Context, session: &SessionHandle, detailed: bool) {
        let mut observers = self.observers.lock();
        let known = observers.iter_mut().find(|o| o.session.id == session.id);
        if let Some(observer) = known {
            if detailed && !observer.detailed {
                observer.detailed = true;
                context.recorders.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        let news = Arc::<Notify>::default();
        observers.push(Observer {
            session: session.clone(),
            detailed,
            waiting: Waiting::default(),
            news: Arc::clone(&news),
        });
        self.observed.store(true, Ordering::Release);
        context
            .recorders
            .fetch_add(usize::from(detailed), Ordering::Relaxed);
        context.observe_transitions();
        tokio::spawn(pass_on(Arc::downgrade(self), session.clone(), news));
    }

    fn unobserve(&self, session: u64) {
        let mut observers = self.observers.lock();
        let Some(at) = observers.iter().position(|o| o.session.id == session) else {
            return;
        };
        let observer = observers.swap_remove(at);
        self.observed
            .store(!observers.is_empty(), Ordering::Release);
        drop(observers);
        self.let_go(observer);
    }

    fn let_go(&self, observer: Observer) {
        if let Some(context) = self.context() {
            context
                .recorders
                .fetch_sub(usize::from(observer.detailed), Ordering::Relaxed);
            context.unobserve_transitions();
        }
        // Lets its task see that it is gone.
        observer.news.notify_one();
    }

    /// What waits for this session; nothing when it observes no more.
    fn take_waiting(&self, session: u64) -> Option<Waiting> {
        let mut observers = self.observers.lock();
        let observer = observers.iter_mut().find(|o| o.session.id == session)?;
        Some(std::mem::take(&mut observer.waiting))
    }
}

impl Observer {
    fn push(&mut self, transition: &TransitionEffect, details: Option<&Value>) {
        let before = self.waiting.frames.len();
        if let Some(details) = details {
            let message = Message::from_value(details);
            self.waiting.frames.extend(message.frames().cloned());
        }
        self.waiting.items.push(Value::array([
            Value::from(transition.counter),
            (&transition.key).into(),
            u64::from(state_code(transition.start)).into(),
            u64::from(state_code(transition.finish)).into(),
            (&transition.stimulus_id).into(),
            (self.waiting.frames.len() - before).into(),
        ]));
        self.news.notify_one();
    }
}

/// Sends transitions to a session in batches, the next one when the last one was taken.
async fn pass_on(state: Weak<SchedulerState>, session: SessionHandle, news: Arc<Notify>) {
    loop {
        news.notified().await;
        tokio::time::sleep(COLLECT).await;
        while session.is_behind() {
            tokio::time::sleep(COLLECT).await;
        }
        let Some(waiting) = state.upgrade().and_then(|s| s.take_waiting(session.id)) else {
            return;
        };
        if waiting.restarted {
            session.push(&Value::map([("op", "restarted")]), Vec::new());
        }
        if !waiting.items.is_empty() {
            let header = Value::map([
                ("op", Value::from("transitions")),
                ("items", Value::Array(waiting.items)),
            ]);
            session.push(&header, waiting.frames);
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
                        let detailed = question.fields.get("detailed").and_then(Value::as_bool);
                        state.observe(&context, &session, detailed.unwrap_or(true));
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
