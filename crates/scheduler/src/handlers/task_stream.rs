//! What finished tasks told, for `get_task_stream` and `get_task_metadata`. Nothing is recorded
//! before the first call, as keeping the messages costs memory and time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use oxidask_key::Key;
use oxidask_scheduler_core::effect::TransitionEffect;
use oxidask_scheduler_core::task::TaskState;
use oxidask_wire::value::Value;
use parking_lot::Mutex;

use crate::clock;
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable};

/// The records.
#[derive(Default)]
pub struct TaskStream {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    recording: bool,
    /// Messages of finished tasks with `key`, `worker` and `stimulus_id`.
    records: VecDeque<Value>,
    /// Records ever made.
    index: usize,
    length: usize,
    /// Collections of task metadata by name.
    collections: HashMap<String, Collection>,
}

/// `get_task_metadata`: tasks of graphs submitted while it is open.
#[derive(Default)]
struct Collection {
    keys: HashSet<Key>,
    finished: Vec<(Key, &'static str)>,
}

impl TaskStream {
    /// Keeps at most so many records
    /// (`distributed.scheduler.dashboard.{status,tasks}.task-stream-length`).
    pub fn new(config: &oxidask_config::Config) -> Self {
        let length = |page: &str| {
            let key = format!("distributed.scheduler.dashboard.{page}.task-stream-length");
            config.count(&key).and_then(|n| usize::try_from(n).ok())
        };
        let length = length("status").max(length("tasks")).unwrap_or(100_000);
        let stream = Self::default();
        stream.state.lock().length = length;
        stream
    }

    fn record(&self, context: &Context) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.recording, true) {
            context.recorders.fetch_add(1, Ordering::Relaxed);
            context.observe_transitions();
        }
    }

    fn get_task_stream(&self, context: &Context, call: &Call) -> Reply {
        self.record(context);
        let state = self.state.lock();
        let records = &state.records;
        let len = records.len();
        let signed = |n: i64| usize::try_from(n).unwrap_or(0);
        if let Some(index) = call.opt_i64("start_index")? {
            let from = signed(index).saturating_sub(state.index - len).min(len);
            return Ok(Value::array(records.range(from..).cloned()));
        }
        let bound = |name: &str| -> Result<Option<usize>, RpcError> {
            let time = match call.get(name) {
                None => return Ok(None),
                // A text is a time before now.
                Some(Value::Str(_)) => clock::now().0 - call.opt_seconds(name)?.unwrap_or(0.0),
                Some(_) => call.opt_f64(name)?.unwrap_or(0.0),
            };
            Ok(Some(
                records.partition_point(|record| last_stop(record) < time),
            ))
        };
        let count = call.opt_i64("count")?.map(signed);
        let (start, stop) = match (bound("start")?, bound("stop")?, count) {
            (None, None, Some(count)) => (len.saturating_sub(count), len),
            (None, Some(stop), Some(count)) => (stop.saturating_sub(count), stop),
            (Some(start), None, Some(count)) => (start, start.saturating_add(count)),
            (start, stop, _) => (start.unwrap_or(0), stop.unwrap_or(len)),
        };
        let (start, stop) = (start.min(len), stop.min(len));
        Ok(Value::array(records.range(start..stop.max(start)).cloned()))
    }

    fn start_metadata(&self, context: &Context, call: &Call) -> Reply {
        let name = call.str("name")?.to_owned();
        context.observe_transitions();
        self.state
            .lock()
            .collections
            .insert(name, Collection::default());
        Ok(Value::Nil)
    }

    async fn stop_metadata(&self, context: &Context, call: &Call) -> Reply {
        let name = call.text("name").unwrap_or_else(|| "None".to_owned());
        let collection = self.state.lock().collections.remove(&name);
        let Some(collection) = collection else {
            return Err(RpcError::value_error(format!(
                "Expected to find exactly one CollectTaskMetaDataPlugin with name {name} but found 0."
            )));
        };
        context.unobserve_transitions();
        let finished = collection.finished;
        let states: Value = finished.iter().map(|(key, state)| (key, *state)).collect();
        let metadata = context.core.query(move |scheduler| {
            let of = |key: Key| {
                let task = scheduler.task(&key);
                let metadata = task.and_then(|task| task.metadata()?.get::<Value>().cloned());
                (key, metadata.unwrap_or(Value::Map(Vec::new())))
            };
            finished
                .into_iter()
                .map(|(key, _)| of(key))
                .collect::<Value>()
        });
        Ok(Value::map([
            ("metadata", metadata.await?),
            ("state", states),
        ]))
    }
}

/// When the last action of a record ended.
fn last_stop(record: &Value) -> f64 {
    let actions = record
        .get("startstops")
        .and_then(Value::as_seq)
        .unwrap_or(&[]);
    let stops = actions
        .iter()
        .filter_map(|action| action.get("stop")?.as_f64());
    stops.fold(0.0, f64::max)
}

impl Extension for TaskStream {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        let this = Arc::clone(&self);
        table.add("get_task_stream", move |context, call| {
            let this = Arc::clone(&this);
            async move { this.get_task_stream(&context, &call) }
        });
        let this = Arc::clone(&self);
        table.add("get_task_stream_index", move |context, _call| {
            let this = Arc::clone(&this);
            async move {
                this.record(&context);
                Ok(this.state.lock().index.into())
            }
        });
        let this = Arc::clone(&self);
        table.add("start_task_metadata", move |context, call| {
            let this = Arc::clone(&this);
            async move { this.start_metadata(&context, &call) }
        });
        table.add("stop_task_metadata", move |context, call| {
            let this = Arc::clone(&self);
            async move { this.stop_metadata(&context, &call).await }
        });
    }

    fn graph_updated(&self, _context: &Arc<Context>, keys: &[Key]) {
        let mut state = self.state.lock();
        for collection in state.collections.values_mut() {
            collection.keys.extend(keys.iter().cloned());
        }
    }

    fn transition(&self, context: &Arc<Context>, transition: &TransitionEffect) {
        if !matches!(transition.finish, TaskState::Memory | TaskState::Erred) {
            return;
        }
        let mut state = self.state.lock();
        for collection in state.collections.values_mut() {
            if collection.keys.remove(&transition.key) {
                let finish = transition.finish.as_str();
                collection.finished.push((transition.key.clone(), finish));
            }
        }
        let raw = transition.raw.as_ref().and_then(|raw| raw.get::<Value>());
        if let (TaskState::Processing, Some(raw), true) = (transition.start, raw, state.recording) {
            let mut record = raw.clone();
            record.remove("op");
            record.insert("key", &transition.key);
            record.insert("stimulus_id", &transition.stimulus_id);
            let worker = transition.worker.and_then(|id| context.workers.get(id));
            if let Some(worker) = worker {
                record.insert("worker", &worker.info.address);
            }
            if state.records.len() >= state.length {
                state.records.pop_front();
            }
            state.records.push_back(record);
            state.index += 1;
        }
    }
}
