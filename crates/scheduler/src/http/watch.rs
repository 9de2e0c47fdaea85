//! What happens in the scheduler, for whoever watches: the event stream of stock and the live pages.
//! Costs nothing while nobody does.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use oxidask_scheduler_core::effect::TransitionEffect;
use oxidask_wire::value::Value;
use serde::Serialize;
use serde_json::{Map, Value as Json};
use tokio::sync::broadcast;

use super::values::to_json;
use crate::clients::ClientEntry;
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::RpcTable;
use crate::workers::WorkerEntry;

/// A watcher that is further behind loses the oldest.
const MAX_BEHIND: usize = 16_384;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// All tasks were forgotten.
    Restart,
    /// A worker registered.
    AddWorker(Arc<str>),
    /// A worker left.
    RemoveWorker(Arc<str>),
    /// A client connected.
    AddClient(Arc<str>),
    /// A client left.
    RemoveClient(Arc<str>),
    /// A client submitted a graph.
    UpdateGraph(Arc<str>),
    /// A worker told how a task ended.
    Ran(Arc<Ran>),
}

/// The end of a task on a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ran {
    /// Its key as text.
    pub key: String,
    /// The name of its kind.
    pub prefix: String,
    /// Address of the worker.
    pub worker: String,
    /// Thread of the worker, by its number there.
    pub thread: Json,
    /// `memory` or `erred`.
    pub finish: &'static str,
    /// What was done: action, seconds since 1970 when it began and ended.
    pub actions: Vec<(String, f64, f64)>,
    /// The worker's message, as far as JSON can say it.
    #[serde(skip)]
    pub message: Map<String, Json>,
}

/// Happenings from a moment on. Dropping it ends the watch.
pub struct Happenings {
    receiver: broadcast::Receiver<Arc<Happening>>,
    /// Undoes what watching costs.
    _guard: Box<dyn Any + Send>,
}

impl Happenings {
    /// From `sender`, for as long as `guard` is to be kept.
    #[must_use]
    pub fn new(sender: &broadcast::Sender<Arc<Happening>>, guard: Box<dyn Any + Send>) -> Self {
        Self {
            receiver: sender.subscribe(),
            _guard: guard,
        }
    }

    /// Waits for the next one; `Err` is how many were lost. None: the scheduler ends.
    pub async fn next(&mut self) -> Option<Result<Arc<Happening>, u64>> {
        match self.receiver.recv().await {
            Ok(happening) => Some(Ok(happening)),
            Err(broadcast::error::RecvError::Lagged(lost)) => Some(Err(lost)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next one if it is there; `Err` is how many were lost.
    pub fn try_next(&mut self) -> Option<Result<Arc<Happening>, u64>> {
        match self.receiver.try_recv() {
            Ok(happening) => Some(Ok(happening)),
            Err(broadcast::error::TryRecvError::Lagged(lost)) => Some(Err(lost)),
            Err(_) => None,
        }
    }
}

/// Tells watchers what happens.
pub struct Watch {
    sender: broadcast::Sender<Arc<Happening>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(MAX_BEHIND),
        }
    }
}

impl Watch {
    /// Starts a watch.
    pub fn happenings(&self, context: &Arc<Context>) -> Happenings {
        context.recorders.fetch_add(1, Ordering::Relaxed);
        context.observe_transitions();
        let guard = Recording(Arc::clone(context));
        Happenings::new(&self.sender, Box::new(guard))
    }

    fn tell(&self, happening: impl FnOnce() -> Happening) {
        if self.sender.receiver_count() > 0 {
            // A watcher that left meanwhile does not matter.
            let _ = self.sender.send(Arc::new(happening()));
        }
    }
}

/// While it lives, messages of finished tasks are kept whole and transitions observed.
struct Recording(Arc<Context>);

impl Drop for Recording {
    fn drop(&mut self) {
        self.0.recorders.fetch_sub(1, Ordering::Relaxed);
        self.0.unobserve_transitions();
    }
}

/// What a worker said when a task ended there.
fn ran(context: &Context, transition: &TransitionEffect, message: &Value) -> Ran {
    let worker = transition.worker.and_then(|id| context.workers.get(id));
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_f64);
    let actions = message.get("startstops").and_then(Value::as_seq);
    let actions = actions.unwrap_or_default().iter().filter_map(|action| {
        let name = action.get("action")?.as_str()?.to_owned();
        Some((name, number(action, "start")?, number(action, "stop")?))
    });
    let fields = match to_json(message) {
        Json::Object(fields) => fields,
        _ => Map::new(),
    };
    Ran {
        key: transition.key.to_text(),
        prefix: transition.key.prefix(),
        worker: worker.map_or_else(String::new, |worker| worker.info.address.to_string()),
        thread: fields.get("thread").cloned().unwrap_or_default(),
        finish: transition.finish.as_str(),
        actions: actions.collect(),
        message: fields,
    }
}

impl Extension for Watch {
    fn register(self: Arc<Self>, _table: &mut RpcTable) {}

    fn client_added(&self, _context: &Arc<Context>, client: &Arc<ClientEntry>) {
        self.tell(|| Happening::AddClient(Arc::clone(&client.name)));
    }

    fn client_removed(&self, _context: &Arc<Context>, client: &Arc<ClientEntry>) {
        self.tell(|| Happening::RemoveClient(Arc::clone(&client.name)));
    }

    fn worker_added(&self, _context: &Arc<Context>, worker: &Arc<WorkerEntry>) {
        self.tell(|| Happening::AddWorker(Arc::clone(&worker.info.address)));
    }

    fn worker_removed(&self, _: &Arc<Context>, worker: &Arc<WorkerEntry>, _stimulus_id: &str) {
        self.tell(|| Happening::RemoveWorker(Arc::clone(&worker.info.address)));
    }

    fn transition(&self, context: &Arc<Context>, transition: &TransitionEffect) {
        let message = transition.raw.as_ref().and_then(|raw| raw.get::<Value>());
        if let Some(message) = message {
            self.tell(|| Happening::Ran(Arc::new(ran(context, transition, message))));
        }
    }

    fn restarted(&self, _context: &Arc<Context>) {
        self.tell(|| Happening::Restart);
    }

    fn log_event(&self, _context: &Arc<Context>, topics: &[Arc<str>], event: &Value) {
        if event.get("action").and_then(Value::as_str) != Some("update-graph") {
            return;
        }
        let client = topics
            .iter()
            .find(|topic| !matches!(&***topic, "all" | "scheduler"));
        if let Some(client) = client {
            self.tell(|| Happening::UpdateGraph(Arc::clone(client)));
        }
    }
}
