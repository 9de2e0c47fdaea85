//! What the submissions of all eras have in common.

use std::collections::HashMap;

use oxidask_key::Key;
use oxidask_wire::value::Value;

use super::GraphError;
use crate::rpc::keys_of;

/// Common fields, as the core wants them.
#[derive(Debug)]
pub(super) struct Fields {
    /// Outputs.
    pub(super) keys: Vec<Key>,
    /// Order numbers that the client computed.
    pub(super) order: Option<HashMap<Key, i64>>,
    /// The task that submits.
    pub(super) submitting_task: Option<Key>,
    /// Seconds.
    pub(super) fifo_timeout: f64,
    /// For tasks without one of their own.
    pub(super) user_priority: f64,
    /// Whose results stay on their workers.
    pub(super) actors: Actors,
    /// Annotations of the whole submission; a map, or a pickled one.
    pub(super) annotations: Value,
    /// The source code that submitted it (since 2021.08.1), outermost frame first.
    pub(super) code: Value,
    /// What kind of collection it is (since 2024.5.2); a map, or a pickled one.
    pub(super) span_metadata: Value,
}

/// `actors` of a submission.
#[derive(Debug)]
pub(super) enum Actors {
    /// None, or all outputs.
    All(bool),
    /// These.
    Keys(Vec<Key>),
}

impl Fields {
    /// Takes them out of the message.
    pub(super) fn take(message: &mut Value) -> Result<Self, GraphError> {
        // A map of them (≤ 2.30.1) is read with the other wishes for single tasks.
        let user_priority = message.get("user_priority").and_then(Value::as_f64);
        let malformed =
            |what: &str| GraphError::Malformed(format!("`{what}` is not what it should be"));
        let mut take = |name: &str| message.remove(name).unwrap_or_default();
        let keys = match take("keys") {
            Value::Nil => Vec::new(),
            keys => keys_of(&keys).ok_or_else(|| malformed("keys"))?,
        };
        // `priority` up to 2023.3.2.1, then `internal_priority`.
        let order = match (take("internal_priority"), take("priority")) {
            (Value::Nil, Value::Nil) => None,
            (Value::Nil, order) | (order, _) => {
                Some(numbers(&order).ok_or_else(|| malformed("priority"))?)
            }
        };
        let fifo_timeout = match take("fifo_timeout") {
            Value::Str(text) => oxidask_config::parse_timedelta(&text, "s").unwrap_or(0.0),
            number => number.as_f64().unwrap_or(0.0),
        };
        let actors = match take("actors") {
            Value::Nil => Actors::All(false),
            flag if flag.as_bool().is_some() => Actors::All(flag.as_bool().unwrap_or(false)),
            keys => Actors::Keys(keys_of(&keys).ok_or_else(|| malformed("actors"))?),
        };
        Ok(Self {
            keys,
            order,
            submitting_task: take("submitting_task")
                .to_key()
                .filter(|key| *key != Key::None),
            fifo_timeout,
            user_priority: user_priority.unwrap_or(0.0),
            actors,
            // Kept for longer than the graph they came with.
            annotations: take("annotations").detached(),
            code: take("code").detached(),
            span_metadata: take("span_metadata").detached(),
        })
    }

    /// Whether the result of `key` stays on its worker.
    pub(super) fn is_actor(&self, key: &Key) -> bool {
        match &self.actors {
            Actors::All(false) => false,
            Actors::All(true) => self.keys.contains(key),
            Actors::Keys(keys) => keys.contains(key),
        }
    }

    /// Whether any result stays on its worker.
    pub(super) fn has_actors(&self) -> bool {
        match &self.actors {
            Actors::All(all) => *all,
            Actors::Keys(keys) => !keys.is_empty(),
        }
    }
}

fn numbers(map: &Value) -> Option<HashMap<Key, i64>> {
    map.as_map()?
        .iter()
        .map(|(key, number)| Some((key.to_key()?, number.as_f64()? as i64)))
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_said_of_a_graph_does_not_keep_its_message() {
        let message = Bytes::from(vec![7; 1000]);
        let part = |at: usize| Value::Bin(message.slice(at..at + 1));
        let told = [
            ("annotations", Value::map([("note", part(0))])),
            ("code", Value::array([part(1)])),
            ("span_metadata", part(2)),
        ];
        let mut value = Value::map(told.clone());
        let fields = Fields::take(&mut value).expect("a submission");
        assert_eq!(fields.code, told[1].1);
        drop((value, told));
        assert!(message.is_unique(), "nothing else holds it");
    }
}
