//! Releases up to 2.30.1 (and empty graphs of any release): the client dumps each task by itself,
//! and says what it wants for single tasks in fields of its own.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_scheduler_core::graph::{NewTask, TaskOptions, numbering};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_wire::message::worker::{LegacySpec, RunSpec};
use oxidask_wire::value::Value;

use super::fields::Fields;
use super::options::{amounts, texts};
use super::{GraphError, Taken};
use crate::rpc::keys_of;

/// The tasks of the message.
pub(super) fn expand(message: &mut Value, fields: &Fields) -> Result<Taken, GraphError> {
    let Value::Map(tasks) = message.remove("tasks").unwrap_or(Value::Map(Vec::new())) else {
        return Err(GraphError::Malformed("`tasks` is not a map".to_owned()));
    };
    let mut dependencies = by_key(message.remove("dependencies"));
    let wishes = Wishes::take(message)?;
    let order = fields.order.as_ref();
    let mut made = Vec::new();
    for (i, (key, dumped)) in tasks.into_iter().enumerate() {
        let key = key
            .to_key()
            .ok_or_else(|| GraphError::Malformed("a key of an illegal type".to_owned()))?;
        let needs = dependencies.remove(&key).and_then(|keys| keys_of(&keys));
        made.push(NewTask {
            run_spec: Some(Opaque::new(RunSpec::from(run_spec(&key, dumped)?))),
            dependencies: needs.unwrap_or_default(),
            order: match order {
                Some(order) => order.get(&key).copied().unwrap_or(0),
                None => i64::try_from(i).unwrap_or(i64::MAX),
            },
            options: wishes.of(&key, fields),
            key,
        });
    }
    let numbering = numbering(&made, &fields.keys)?;
    Ok(Taken {
        tasks: made,
        numbering,
    })
}

/// A dumped task: function and arguments, or one serialised object.
pub(super) fn run_spec(key: &Key, dumped: Value) -> Result<LegacySpec, GraphError> {
    match dumped {
        Value::Payload(payload) => Ok(LegacySpec::Serialized(payload)),
        mut map @ Value::Map(_) => {
            let mut part = |name: &str| map.remove(name).unwrap_or_default();
            let (args, kwargs, task) = (part("args"), part("kwargs"), part("task"));
            match (part("function"), task) {
                (Value::Bin(function), _) => Ok(call(function, args, kwargs)),
                (_, Value::Payload(task)) => Ok(LegacySpec::Serialized(task)),
                _ => Err(GraphError::Malformed(format!("task {key} has no function"))),
            }
        }
        other => Err(GraphError::Malformed(format!(
            "task {key} is a {}",
            other.type_name()
        ))),
    }
}

fn call(function: Bytes, args: Value, kwargs: Value) -> LegacySpec {
    let whole = |part: &Value| matches!(part, Value::Nil | Value::Bin(_));
    if !(whole(&args) && whole(&kwargs)) {
        return LegacySpec::Call {
            function,
            args,
            kwargs,
        };
    }
    LegacySpec::Parts {
        function,
        args: args.as_bin().cloned(),
        kwargs: kwargs.as_bin().cloned(),
    }
}

/// What is asked for single tasks.
struct Wishes {
    restrictions: HashMap<Key, Value>,
    loose: Vec<Key>,
    resources: HashMap<Key, Value>,
    retries: HashMap<Key, Value>,
    retries_of_all: u32,
    user_priority: HashMap<Key, Value>,
}

impl Wishes {
    fn take(message: &mut Value) -> Result<Self, GraphError> {
        let loose = message.remove("loose_restrictions").unwrap_or_default();
        let retries = message.remove("retries").unwrap_or_default();
        let retries_of_all = retries
            .as_u64()
            .map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX));
        Ok(Self {
            restrictions: by_key(message.remove("restrictions")),
            loose: keys_of(&loose).unwrap_or_default(),
            resources: by_key(message.remove("resources")),
            retries: by_key(Some(retries)),
            retries_of_all,
            user_priority: by_key(message.remove("user_priority")),
        })
    }

    fn of(&self, key: &Key, fields: &Fields) -> Option<Arc<TaskOptions>> {
        let options = TaskOptions {
            priority: self.user_priority.get(key).and_then(Value::as_f64),
            workers: self.restrictions.get(key).map(texts),
            allow_other_workers: self.loose.contains(key),
            retries: self
                .retries
                .get(key)
                .and_then(Value::as_u64)
                .map_or(self.retries_of_all, |n| {
                    u32::try_from(n).unwrap_or(u32::MAX)
                }),
            resources: amounts(self.resources.get(key)),
            actor: fields.has_actors() && fields.is_actor(key),
            ..TaskOptions::default()
        };
        (options != TaskOptions::default()).then(|| Arc::new(options))
    }
}

fn by_key(map: Option<Value>) -> HashMap<Key, Value> {
    let Some(Value::Map(entries)) = map else {
        return HashMap::new();
    };
    entries
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_key()?, value)))
        .collect()
}
