//! `Client.get_metadata` and `set_metadata`: a tree of user data by path.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use indexmap::IndexMap;
use oxidask_key::Key;
use oxidask_wire::value::Value;

use super::ops::Ops;
use super::wait::lock;
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable};

/// Longest path.
const MAX_PATH: usize = 64;

/// Why there is nothing under a path.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
enum LookupError {
    /// No such entry; Python's `KeyError`.
    #[error("{}", .0.repr())]
    Missing(Key),
    /// No such element; Python's `IndexError`, which no default covers.
    #[error("tuple index out of range")]
    Index,
    /// The value before has no entries; Python's `TypeError`.
    #[error("'{0}' object is not subscriptable")]
    Leaf(&'static str),
}

/// A node of the tree. A map that was set as one value stays as it came until something is set
/// inside of it.
#[derive(Debug, Default)]
struct Node {
    /// What was set here; nil once there are entries.
    value: Value,
    entries: Option<IndexMap<Key, Node>>,
}

impl Node {
    /// The entries below; a value that is no map is replaced by an empty one.
    fn entries(&mut self) -> &mut IndexMap<Key, Node> {
        let value = &mut self.value;
        self.entries.get_or_insert_with(|| {
            let entries = match std::mem::take(value) {
                Value::Map(entries) => entries,
                _ => Vec::new(),
            };
            let entries = entries.into_iter();
            let keyed = entries.filter_map(|(k, v)| Some((k.to_key()?, Self::leaf(v))));
            keyed.collect()
        })
    }

    fn leaf(value: Value) -> Self {
        Self {
            value,
            entries: None,
        }
    }

    fn set(&mut self, path: &[Key], value: Value) {
        let mut node = self;
        for key in path {
            node = node.entries().entry(key.clone()).or_default();
        }
        *node = Self::leaf(value);
    }

    fn get(&self, path: &[Key]) -> Result<Value, LookupError> {
        let mut node = self;
        for (i, key) in path.iter().enumerate() {
            let Some(entries) = &node.entries else {
                return get_inside(&node.value, path.get(i..).unwrap_or_default());
            };
            let missing = || LookupError::Missing(key.clone());
            node = entries.get(key).ok_or_else(missing)?;
        }
        Ok(node.to_value())
    }

    fn to_value(&self) -> Value {
        match &self.entries {
            Some(entries) => entries.iter().map(|(k, v)| (k, v.to_value())).collect(),
            None => self.value.clone(),
        }
    }
}

/// The root: a map even when nothing is set.
fn root() -> Node {
    Node {
        entries: Some(IndexMap::new()),
        ..Node::default()
    }
}

/// What lies under `path` inside of a value that was set as a whole.
fn get_inside(mut value: &Value, path: &[Key]) -> Result<Value, LookupError> {
    for key in path {
        value = match value {
            Value::Map(entries) => entries
                .iter()
                .find(|(k, _)| k.to_key().as_ref() == Some(key))
                .map(|(_, v)| v)
                .ok_or_else(|| LookupError::Missing(key.clone()))?,
            Value::Array(items) => {
                let Key::Int(index) = *key else {
                    return Err(LookupError::Leaf("tuple"));
                };
                let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let index = if index < 0 {
                    index.saturating_add(length)
                } else {
                    index
                };
                let index = usize::try_from(index).map_err(|_| LookupError::Index)?;
                items.get(index).ok_or(LookupError::Index)?
            }
            other => return Err(LookupError::Leaf(other.type_name())),
        };
    }
    Ok(value.clone())
}

/// Entries that are named like a task, whose end they share.
#[derive(Debug, Default)]
struct OfTasks {
    keys: HashSet<Key>,
    /// So many at the last look for those whose task is gone.
    left: usize,
}

impl OfTasks {
    /// Fewest entries that a look at all of them is worth.
    const FEW: usize = 64;

    /// Notes one; true when it is time to look at all.
    fn add(&mut self, key: Key) -> bool {
        self.keys.insert(key);
        self.keys.len() >= Self::FEW && self.keys.len() > 2 * self.left
    }
}

/// The ops of metadata.
pub(crate) struct MetadataExtension {
    tree: Mutex<Node>,
    of_tasks: Mutex<OfTasks>,
}

impl Default for MetadataExtension {
    fn default() -> Self {
        Self {
            tree: Mutex::new(root()),
            of_tasks: Mutex::default(),
        }
    }
}

impl MetadataExtension {
    async fn set(self: Arc<Self>, context: Arc<Context>, mut call: Call) -> Reply {
        let path = path_of(&call)?;
        let Some(name) = path.first().cloned() else {
            return Err(RpcError::value_error(
                "set_metadata() needs at least one key",
            ));
        };
        self.drop_if_forgotten(&context, Some(&name)).await?;
        lock(&self.tree).set(&path, call.take("value").detached());
        let asked = name.clone();
        let of_task = context
            .core
            .query(move |state| state.task(&asked).is_some());
        if of_task.await? && lock(&self.of_tasks).add(name) {
            self.drop_if_forgotten(&context, None).await?;
        }
        Ok(Value::Nil)
    }

    /// Drops the entry `name`, or all entries, if a task of that name was there when they were set
    /// and is not any more. Done when it shows, so that forgetting a task costs nothing.
    async fn drop_if_forgotten(
        &self,
        context: &Context,
        name: Option<&Key>,
    ) -> Result<(), RpcError> {
        let suspects: Vec<Key> = {
            let of_tasks = lock(&self.of_tasks);
            match name {
                Some(name) => of_tasks.keys.get(name).into_iter().cloned().collect(),
                None => of_tasks.keys.iter().cloned().collect(),
            }
        };
        if suspects.is_empty() {
            return Ok(());
        }
        let forgotten = context.core.query(move |state| {
            let gone = |key: &Key| state.task(key).is_none();
            suspects.into_iter().filter(gone).collect::<Vec<_>>()
        });
        let forgotten = forgotten.await?;
        let mut tree = lock(&self.tree);
        let mut of_tasks = lock(&self.of_tasks);
        for key in &forgotten {
            of_tasks.keys.remove(key);
            tree.entries().swap_remove(key);
        }
        if name.is_none() {
            of_tasks.left = of_tasks.keys.len();
        }
        Ok(())
    }

    async fn get(self: Arc<Self>, context: Arc<Context>, mut call: Call) -> Reply {
        let path = path_of(&call)?;
        self.drop_if_forgotten(&context, path.first()).await?;
        let found = lock(&self.tree).get(&path);
        match found {
            Ok(value) => Ok(value),
            Err(error @ LookupError::Missing(_)) => {
                let has_default = call.args.get("default").is_some_and(|d| !is_no_default(d));
                if has_default {
                    Ok(call.take("default"))
                } else {
                    Err(error.into())
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// `keys`: a path, or a single key.
fn path_of(call: &Call) -> Result<Vec<Key>, RpcError> {
    let path = match call.required("keys")?.as_seq() {
        Some(_) => call.keys("keys")?,
        None => vec![call.key("keys")?],
    };
    if path.len() > MAX_PATH {
        return Err(RpcError::value_error(format!(
            "metadata can be nested at most {MAX_PATH} levels deep"
        )));
    }
    Ok(path)
}

/// How clients say that they gave no default: an enum member since 2023.4.0, text before.
fn is_no_default(value: &Value) -> bool {
    if let Some(text) = value.as_str() {
        return text == "__no_default__";
    }
    let is = |field, text| value.get(field).and_then(Value::as_str) == Some(text);
    value.get("__Enum__").is_some() && is("name", "no_default")
}

impl Extension for MetadataExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .request("set_metadata", Self::set)
            .request("get_metadata", Self::get);
    }
}

impl From<LookupError> for RpcError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Missing(key) => Self::key_error(key),
            LookupError::Index => Self::index_error(error.to_string()),
            LookupError::Leaf(_) => Self::type_error(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(keys: &[&str]) -> Vec<Key> {
        keys.iter().map(|&key| key.into()).collect()
    }

    fn missing(key: &str) -> Result<Value, LookupError> {
        Err(LookupError::Missing(key.into()))
    }

    #[test]
    fn values_are_found_under_their_path() {
        let mut tree = root();
        tree.set(&path(&["a", "b"]), 1.into());
        tree.set(&path(&["a", "c"]), 2.into());
        assert_eq!(tree.get(&path(&["a", "b"])), Ok(1.into()));
        let all = Value::map([("b", 1), ("c", 2)]);
        assert_eq!(tree.get(&path(&["a"])), Ok(all));
        assert_eq!(tree.get(&path(&["a", "d"])), missing("d"));
        assert_eq!(tree.get(&path(&["x", "y"])), missing("x"));
        let leaf = Err(LookupError::Leaf("int"));
        assert_eq!(tree.get(&path(&["a", "b", "c"])), leaf);
    }

    #[test]
    fn setting_below_a_plain_value_replaces_it() {
        let mut tree = root();
        tree.set(&path(&["a"]), 1.into());
        tree.set(&path(&["a", "b"]), 2.into());
        assert_eq!(tree.get(&path(&["a"])), Ok(Value::map([("b", 2)])));
        tree.set(&path(&["a"]), Value::Nil);
        assert_eq!(tree.get(&path(&["a"])), Ok(Value::Nil));
    }

    #[test]
    fn maps_that_were_set_whole_can_be_entered() {
        let mut tree = Node::default();
        let list = Value::array([10, 20]);
        tree.set(&path(&["a"]), Value::map([("b", list), ("c", 3.into())]));
        assert_eq!(tree.get(&path(&["a", "c"])), Ok(3.into()));
        let mut element = path(&["a", "b"]);
        element.push(Key::Int(-1));
        assert_eq!(tree.get(&element), Ok(20.into()));
        element[2] = Key::Int(2);
        assert_eq!(tree.get(&element), Err(LookupError::Index));
        assert_eq!(tree.get(&path(&["a", "z"])), missing("z"));
        tree.set(&path(&["a", "c"]), 4.into());
        assert_eq!(tree.get(&path(&["a", "c"])), Ok(4.into()));
        let list = Value::array([10, 20]);
        assert_eq!(tree.get(&path(&["a", "b"])), Ok(list), "its sibling stays");
    }

    #[test]
    fn every_spelling_of_no_default_is_known() {
        let member = Value::map([
            ("__Enum__", Value::from(true)),
            ("name", "no_default".into()),
            ("__module__", "dask.typing".into()),
            ("__name__", "_NoDefault".into()),
        ]);
        assert!(is_no_default(&member));
        assert!(is_no_default(&"__no_default__".into()));
        for default in [Value::Nil, "x".into(), Value::map([("name", "no_default")])] {
            assert!(!is_no_default(&default), "{default:?}");
        }
    }
}
