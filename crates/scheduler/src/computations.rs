//! What clients computed lately: the source code that submitted it and the groups of its tasks, as
//! `Scheduler.computations` has it. Bounded by count (`distributed.diagnostics.computations.max-history`)
//! and by bytes of code.

use std::collections::VecDeque;
use std::sync::Arc;

use indexmap::IndexSet;
use oxidask_config::Config;
use oxidask_key::Key;
use oxidask_wire::value::Value;
use parking_lot::Mutex;

use crate::clock;
use crate::context::Context;

/// Bytes of code kept over all computations.
const MAX_BYTES: usize = 16 << 20;
/// Seconds of work below which the cluster counts as done: then a graph begins a new computation.
const BUSY: f64 = 1e-9;

/// The last computations.
#[derive(Debug)]
pub struct Computations {
    kept: Mutex<Kept>,
    max_history: usize,
}

#[derive(Debug, Default)]
struct Kept {
    computations: VecDeque<Computation>,
    bytes: usize,
}

#[derive(Debug)]
struct Computation {
    id: String,
    start: f64,
    /// Each the frames of one submission.
    code: Vec<Value>,
    bytes: usize,
    groups: IndexSet<Arc<str>>,
    annotations: Vec<(Value, Value)>,
}

/// Names of the groups of a graph's tasks.
#[derive(Debug, Default)]
pub struct GroupNames(IndexSet<Arc<str>>);

impl GroupNames {
    /// Those of `keys`; cheap when neighbours are of the same group.
    pub fn of<'a>(keys: impl Iterator<Item = &'a Key>) -> Self {
        let mut names = IndexSet::new();
        let mut collection: Option<&Key> = None;
        for key in keys {
            if let Key::Tuple(items) = key {
                let first = items.first();
                if first == collection {
                    continue;
                }
                collection = first;
            }
            let group = key.group();
            if !names.contains(&*group) {
                names.insert(Arc::from(group));
            }
        }
        Self(names)
    }
}

impl Computations {
    /// None yet.
    pub fn new(config: &Config) -> Self {
        let max = config.count("distributed.diagnostics.computations.max-history");
        Self {
            kept: Mutex::default(),
            max_history: max.and_then(|n| usize::try_from(n).ok()).unwrap_or(100),
        }
    }

    /// A graph is about to be handed to the core: it belongs to the last computation while that is
    /// under way, else to a new one.
    pub fn note(context: &Context, groups: GroupNames, code: &Value, annotations: &Value) {
        let this = Arc::clone(&context.computations);
        let (code, annotations) = (code.clone(), annotations.clone());
        let now = clock::now().0;
        // On the core thread, as the answer depends on what came before.
        context.core.inspect(move |state| {
            let busy = state.total_occupancy() > BUSY;
            this.add(busy, now, groups, code, &annotations);
        });
    }

    fn add(&self, busy: bool, now: f64, groups: GroupNames, code: Value, annotations: &Value) {
        let mut guard = self.kept.lock();
        let kept = &mut *guard;
        if !busy || kept.computations.is_empty() {
            kept.computations.push_back(Computation {
                id: uuid::Uuid::new_v4().to_string(),
                start: now,
                code: Vec::new(),
                bytes: 0,
                groups: IndexSet::new(),
                annotations: Vec::new(),
            });
        }
        let Some(last) = kept.computations.back_mut() else {
            return;
        };
        last.groups.extend(groups.0);
        for (name, value) in annotations.as_map().unwrap_or_default() {
            match last.annotations.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => *old = value.clone(),
                None => last.annotations.push((name.clone(), value.clone())),
            }
        }
        let bytes = text_bytes(&code);
        if bytes > 0 && last.bytes + bytes <= MAX_BYTES && !last.code.contains(&code) {
            last.code.push(code);
            last.bytes += bytes;
            kept.bytes += bytes;
        }
        while kept.computations.len() > self.max_history
            || (kept.bytes > MAX_BYTES && kept.computations.len() > 1)
        {
            let oldest = kept.computations.pop_front();
            kept.bytes -= oldest.map_or(0, |computation| computation.bytes);
        }
    }

    /// All of them, the oldest first.
    pub fn value(&self) -> Value {
        let kept = self.kept.lock();
        Value::array(kept.computations.iter().map(|computation| {
            Value::map([
                ("id", Value::from(&*computation.id)),
                ("start", computation.start.into()),
                ("code", Value::array(computation.code.iter().cloned())),
                ("groups", Value::array(computation.groups.iter())),
                ("annotations", Value::Map(computation.annotations.clone())),
            ])
        }))
    }
}

/// Bytes of code in a value, pickled (since 2023.4.0) or as texts; 0 if there is none.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Str(text) => text.len(),
        Value::Payload(payload) => payload.wire_bytes(),
        other => other
            .as_seq()
            .unwrap_or_default()
            .iter()
            .map(text_bytes)
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Value {
        Value::array([Value::array([Value::from(text)])])
    }

    fn add(computations: &Computations, busy: bool, group: &str, text: &str) {
        let groups = GroupNames(IndexSet::from([Arc::from(group)]));
        computations.add(busy, 1.0, groups, code(text), &Value::default());
    }

    #[test]
    fn a_graph_joins_what_is_under_way_and_history_is_bounded() {
        let computations = Computations::new(&Config::defaults());
        add(&computations, false, "x", "one");
        add(&computations, true, "y", "two");
        add(&computations, true, "y", "two");
        let first = computations.value();
        let first = &first.as_seq().unwrap()[0];
        assert_eq!(first.get("groups"), Some(&Value::array(["x", "y"])));
        assert_eq!(
            first.get("code"),
            Some(&Value::array([code("one"), code("two")]))
        );
        for _ in 0..150 {
            add(&computations, false, "z", "three");
        }
        assert_eq!(computations.value().as_seq().unwrap().len(), 100);
    }
}
