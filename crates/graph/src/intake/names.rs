//! The keys of a graph while it is taken in: which values among the arguments of its tasks mean a task.

use std::hash::{Hash, Hasher};

use hashbrown::{Equivalent, HashMap};
use oxidask_key::Key;

use crate::pickle::arena::{Arena, Kind, NodeId};
use crate::pickle::plain::to_key;

/// Keys, each with a node that says it, and its place among them.
#[derive(Default)]
pub(super) struct Names {
    nodes: HashMap<Key, (NodeId, u32)>,
    /// Of which types there are keys: most values are of another, and need no look-up.
    texts: bool,
    numbers: bool,
    tuples: bool,
}

/// A key that is looked up without being made.
struct Text<'a>(&'a str);

impl Hash for Text<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As a key of type `str` does it.
        self.0.hash(state);
    }
}

impl Equivalent<Key> for Text<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        key.as_str() == Some(self.0)
    }
}

impl Names {
    /// Of equal keys the last counts.
    pub(super) fn new(keys: impl Iterator<Item = (Key, NodeId)>) -> Self {
        let mut names = Self::default();
        names.nodes.reserve(keys.size_hint().0);
        for ((key, node), place) in keys.zip(0..) {
            match &key {
                Key::Str(_) => names.texts = true,
                Key::Tuple(_) => names.tuples = true,
                _ => names.numbers = true,
            }
            names.nodes.insert(key, (node, place));
        }
        names
    }

    /// How many different keys there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node of a key.
    pub(super) fn node(&self, key: &Key) -> Option<NodeId> {
        self.nodes.get(key).map(|&(node, _)| node)
    }

    /// Which of the keys this is.
    pub(super) fn place(&self, key: &Key) -> Option<u32> {
        self.nodes.get(key).map(|&(_, place)| place)
    }

    /// The key that a value equals.
    pub(super) fn meant_by(&self, arena: &Arena, node: NodeId) -> Option<Key> {
        let found = match arena.kind(node) {
            Kind::Str(_) if self.texts => {
                let text = arena.text(node)?;
                self.nodes.get_key_value(&Text(text))
            }
            Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) if self.numbers => {
                self.nodes.get_key_value(&to_key(arena, node)?)
            }
            Kind::Tuple(_) if self.tuples => self.nodes.get_key_value(&to_key(arena, node)?),
            _ => None,
        };
        found.map(|(key, _)| key.clone())
    }

    /// Whether a key is a tuple of so many items.
    pub(super) fn has_tuple_of(&self, items: usize) -> bool {
        let is_such = |key: &Key| matches!(key, Key::Tuple(found) if found.len() == items);
        self.tuples && self.nodes.keys().any(is_such)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn values_mean_the_keys_that_they_equal() {
        let mut arena = Arena::new(Bytes::new(), Vec::new());
        let text = arena.add_str("x");
        let other = arena.add_str("y");
        let one = arena.add(Kind::Float(1.0));
        let pair = arena.add_tuple(&[text, one]);
        let keys = [
            Key::from("x"),
            Key::Int(1),
            Key::from([Key::from("x"), Key::Bool(true)]),
        ];
        let names = Names::new(keys.iter().cloned().zip([text; 3]));
        let found = [text, other, one, pair].map(|node| names.meant_by(&arena, node));
        let [x, number, tuple] = keys.map(Some);
        assert_eq!(found, [x, None, number, tuple]);
        assert!(names.has_tuple_of(2) && !names.has_tuple_of(3));
        let texts = Names::new([(Key::from("x"), text)].into_iter());
        assert_eq!(texts.meant_by(&arena, one), None);
        assert_eq!(texts.meant_by(&arena, pair), None);
    }
}
