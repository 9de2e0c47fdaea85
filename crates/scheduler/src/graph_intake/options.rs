//! What annotations ask for single tasks.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use oxidask_graph::{Annotation, PlainValue};
use oxidask_key::Key;
use oxidask_scheduler_core::graph::{OpaqueAnnotations, TaskOptions};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_wire::value::Value;

use super::fields::Fields;
use super::spans;

/// Options of each task, shared between the tasks that have the same ones.
pub(super) struct Options {
    /// Annotations of the whole submission.
    common: Vec<(String, Value)>,
    /// Annotations of layers, in the order of application, and the tasks they are for.
    layers: Vec<(String, Value)>,
    by_key: HashMap<Key, Vec<usize>>,
    /// Finished options by layers and actor flag.
    made: HashMap<(Vec<usize>, bool), Option<Arc<TaskOptions>>>,
}

/// What a layer annotates its tasks with.
pub(super) struct Layer {
    pub(super) name: String,
    pub(super) value: Value,
    pub(super) keys: Vec<Key>,
}

impl From<Annotation> for Layer {
    fn from(annotation: Annotation) -> Self {
        Self {
            name: annotation.name,
            value: value_of(annotation.value),
            keys: annotation.keys,
        }
    }
}

impl Options {
    /// `common` as a map; `layers` win over it.
    pub(super) fn of_layers(common: &Value, layers: impl IntoIterator<Item = Layer>) -> Self {
        let entries = common.as_map().unwrap_or(&[]).iter();
        let common = entries
            .filter_map(|(name, value)| Some((name.as_str()?.to_owned(), value.clone())))
            .collect();
        let mut by_key: HashMap<Key, Vec<usize>> = HashMap::new();
        let mut values = Vec::new();
        for (i, layer) in layers.into_iter().enumerate() {
            for key in layer.keys {
                by_key.entry(key).or_default().push(i);
            }
            values.push((layer.name, layer.value));
        }
        Self {
            common,
            layers: values,
            by_key,
            made: HashMap::new(),
        }
    }

    /// The options of a task; nothing when nothing is asked for.
    pub(super) fn of(&mut self, key: &Key, fields: &Fields) -> Option<Arc<TaskOptions>> {
        let layers = self.by_key.get(key).cloned().unwrap_or_default();
        let actor = fields.has_actors() && fields.is_actor(key);
        if let Some(made) = self.made.get(&(layers.clone(), actor)) {
            return made.clone();
        }
        let mut all = self.common.clone();
        for i in &layers {
            if let Some((name, value)) = self.layers.get(*i) {
                all.retain(|(other, _)| other != name);
                all.push((name.clone(), value.clone()));
            }
        }
        let made = (actor || !all.is_empty()).then(|| Arc::new(make(all, actor)));
        self.made.insert((layers, actor), made.clone());
        made
    }
}

/// The options that these annotations ask for.
fn make(annotations: Vec<(String, Value)>, actor: bool) -> TaskOptions {
    let get = |name: &str| {
        let found = annotations.iter().find(|(other, _)| other == name);
        found
            .map(|(_, value)| value)
            .filter(|value| !value.is_nil())
    };
    TaskOptions {
        priority: get("priority").and_then(Value::as_f64),
        workers: get("workers").map(texts),
        allow_other_workers: get("allow_other_workers")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        retries: get("retries")
            .and_then(Value::as_u64)
            .map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        resources: amounts(get("resources")),
        actor,
        data_producer: false,
        span: get("span").map(spans::tags).unwrap_or_default(),
        annotations: (!annotations.is_empty()).then(|| {
            let map: Bytes = Value::map(annotations).encode();
            OpaqueAnnotations(Opaque::new(map))
        }),
    }
}

/// One text or number, or several.
pub(super) fn texts(value: &Value) -> Vec<Arc<str>> {
    let one = |value: &Value| value.to_key().map(|key| Arc::from(key.to_text()));
    match value.as_seq() {
        Some(items) => items.iter().filter_map(one).collect(),
        None => one(value).into_iter().collect(),
    }
}

/// Abstract resources.
pub(super) fn amounts(value: Option<&Value>) -> Vec<(Arc<str>, f64)> {
    let entries = value.and_then(Value::as_map).unwrap_or(&[]).iter();
    entries
        .filter_map(|(name, amount)| Some((Arc::from(name.as_str()?), amount.as_f64()?)))
        .collect()
}

/// A plain Python value as msgpack has it.
pub(super) fn value_of(plain: PlainValue) -> Value {
    match plain {
        PlainValue::None => Value::Nil,
        PlainValue::Bool(flag) => flag.into(),
        PlainValue::Int(number) => number.into(),
        PlainValue::Float(number) => number.into(),
        PlainValue::Str(text) => text.into(),
        PlainValue::Bytes(bytes) => Value::Bin(bytes.into()),
        PlainValue::List(items) | PlainValue::Tuple(items) | PlainValue::Set(items) => {
            Value::Array(items.into_iter().map(value_of).collect())
        }
        PlainValue::Dict(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (value_of(key), value_of(value)))
                .collect(),
        ),
    }
}
