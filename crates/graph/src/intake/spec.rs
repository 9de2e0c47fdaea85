//! `dask._task_spec` nodes in a pickle (layout since dask 2025.3.0): reading and making them.
//!
//! A `Task` is pickled as an empty object whose state is the tuple of its slots in alphabetical
//! order; containers (`List`, `Tuple`, `Set`, `Dict`) likewise with two slots more; `Alias`,
//! `DataNode` and `TaskRef` as calls.

use oxidask_key::Key;

use crate::pickle::arena::{Arena, Kind, NodeId, OpKind};
use crate::pickle::plain::to_key;

use super::Stop;
use super::names::Names;

pub(super) const MODULE: &str = "dask._task_spec";

/// Names of the container nodes.
const CONTAINERS: [&str; 4] = ["List", "Tuple", "Set", "Dict"];

/// Types that containers are made of.
const BUILTINS: [&str; 5] = ["tuple", "frozenset", "list", "set", "dict"];

/// `_data_producer, _dependencies, _is_coro, _repr, _token, args, func, key, kwargs`.
const TASK_SLOTS: usize = 9;

/// The same with `constructor` and `klass`.
const CONTAINER_SLOTS: usize = 11;

/// A node that is a `GraphNode` or stands for a future.
#[derive(Clone, Debug)]
pub(super) enum GraphNode {
    /// `Task` or a container of nodes.
    Task(TaskParts),
    /// `Alias(key, target)`.
    Alias {
        /// What it refers to.
        target: Key,
    },
    /// `DataNode(key, value)`.
    Data,
    /// `TaskRef` or `Future`: not a graph node yet, but turned into an alias.
    Reference {
        /// Node of the key.
        key: NodeId,
    },
}

/// Slots of a task that matter here.
#[derive(Clone, Debug)]
pub(super) struct TaskParts {
    pub(super) dependencies: Vec<Key>,
}

/// Reads a node as what it is to dask; `None` if it is neither a graph node nor a future.
///
/// # Errors
/// If it is a graph node of an unknown class or layout.
pub(super) fn graph_node(arena: &Arena, node: NodeId) -> Result<Option<GraphNode>, Stop> {
    match arena.kind(node) {
        Kind::Reduce { .. } => reduced(arena, node),
        Kind::NewObj { cls, .. } => match arena.global(cls) {
            Some((MODULE, name)) => match task(arena, node, name) {
                Some(parts) => Ok(Some(GraphNode::Task(parts))),
                None => Err(unknown(MODULE, name)),
            },
            // Subclasses of graph nodes elsewhere.
            Some((module, name)) if name.ends_with("Task") && is_dask(module) => {
                Err(unknown(module, name))
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

fn reduced(arena: &Arena, node: NodeId) -> Result<Option<GraphNode>, Stop> {
    let Some((module, name, args)) = arena.call(node) else {
        return Ok(None);
    };
    let known = match (module, name, args) {
        (MODULE, "Alias", &[_, target]) => {
            to_key(arena, target).map(|target| GraphNode::Alias { target })
        }
        (MODULE, "Alias", &[key]) => to_key(arena, key).map(|target| GraphNode::Alias { target }),
        (MODULE, "DataNode", &[_, _]) => Some(GraphNode::Data),
        (MODULE, "TaskRef", &[key]) => Some(GraphNode::Reference { key }),
        ("distributed.client", "Future", &[key, ..]) => Some(GraphNode::Reference { key }),
        // A handle of an actor stands for the task that made it, as a future does.
        ("distributed.actor", "Actor", &[_, _, key]) => Some(GraphNode::Reference { key }),
        (MODULE, "cull" | "identity" | "_identity_cast" | "_execute_subgraph", _) => {
            return Ok(None);
        }
        (MODULE, ..) | ("distributed.client", "Future", _) | ("distributed.actor", "Actor", _) => {
            None
        }
        _ => return Ok(None),
    };
    match known {
        // Changed after the call: not what dask writes.
        Some(_) if arena.ops(node).next().is_some() => Err(unknown(module, name)),
        Some(known) => Ok(Some(known)),
        None => Err(unknown(module, name)),
    }
}

fn task(arena: &Arena, node: NodeId, class: &str) -> Option<TaskParts> {
    let state = arena.state(node)?;
    let (slots, dependencies) = if class == "Task" {
        let slots = arena.tuple(state)?;
        (slots.len() == TASK_SLOTS, slots.get(1).copied())
    } else if CONTAINERS.contains(&class) {
        let slots = arena.list(state)?;
        (slots.len() == CONTAINER_SLOTS, slots.get(1).copied())
    } else {
        return None;
    };
    let Kind::FrozenSet(run) = arena.kind(dependencies.filter(|_| slots)?) else {
        return None;
    };
    let dependencies: Option<Vec<Key>> = arena
        .children(run)
        .iter()
        .map(|&dep| to_key(arena, dep))
        .collect();
    Some(TaskParts {
        dependencies: dependencies?,
    })
}

fn is_dask(module: &str) -> bool {
    module.starts_with("dask.") || module.starts_with("distributed.")
}

fn unknown(module: &str, name: &str) -> Stop {
    Stop::python(format!("unknown kind of graph node {module}.{name}"))
}

/// A value on its way into a task: the node to write, and what it depends on. `is_node` says
/// whether it is a `GraphNode` (then a container around it must be one as well).
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub(super) node: NodeId,
    pub(super) is_node: bool,
    pub(super) dependencies: Vec<Key>,
}

impl Parsed {
    pub(super) fn plain(node: NodeId) -> Self {
        Self {
            node,
            is_node: false,
            dependencies: Vec::new(),
        }
    }
}

/// Makes `dask._task_spec` nodes in an arena. Globals are made once.
pub(super) struct Maker {
    /// Nodes of keys that need not be made: a task names each of its dependencies several times, and says
    /// the text once if these are one node.
    pub(super) names: Names,
    task: NodeId,
    empty_tuple: NodeId,
    alias: Option<NodeId>,
    data: Option<NodeId>,
    identity_cast: Option<NodeId>,
    typ: Option<NodeId>,
    containers: [Option<NodeId>; 4],
    builtins: Vec<(&'static str, NodeId)>,
    none: NodeId,
    false_: NodeId,
}

impl Maker {
    pub(super) fn new(arena: &mut Arena) -> Self {
        Self {
            names: Names::default(),
            task: arena.add_global(MODULE, "Task"),
            empty_tuple: arena.add_tuple(&[]),
            alias: None,
            data: None,
            identity_cast: None,
            typ: None,
            containers: [None; 4],
            builtins: Vec::new(),
            none: arena.add(Kind::None),
            false_: arena.add(Kind::Bool(false)),
        }
    }

    /// Makes now what is else made when first needed, so that no node made later is needed for good.
    pub(super) fn complete(&mut self, arena: &mut Arena) {
        self.alias_class(arena);
        self.data_class(arena);
        self.cast(arena);
        for class in CONTAINERS {
            self.container_class(arena, class);
        }
        for name in BUILTINS {
            self.builtin(arena, name);
        }
    }

    /// The class `Task`.
    pub(super) fn task_class(&self) -> NodeId {
        self.task
    }

    /// `None`.
    pub(super) fn none(&self) -> NodeId {
        self.none
    }

    /// `Alias(key, target)`.
    pub(super) fn alias(&mut self, arena: &mut Arena, key: NodeId, target: NodeId) -> NodeId {
        let class = self.alias_class(arena);
        call(arena, class, &[key, target])
    }

    /// `DataNode(key, value)`.
    pub(super) fn data(&mut self, arena: &mut Arena, key: NodeId, value: NodeId) -> NodeId {
        let class = self.data_class(arena);
        call(arena, class, &[key, value])
    }

    /// `Task(key, func, *args, **kwargs)`; `kwargs` is a dict node.
    pub(super) fn task(
        &mut self,
        arena: &mut Arena,
        key: NodeId,
        func: NodeId,
        args: &[NodeId],
        kwargs: Option<NodeId>,
        dependencies: &[Key],
    ) -> NodeId {
        let dependencies = self.frozen_keys(arena, dependencies);
        let args = arena.add_tuple(args);
        let kwargs = kwargs.unwrap_or_else(|| arena.add(Kind::Dict));
        let (none, false_) = (self.none, self.false_);
        let state = arena.add_tuple(&[
            false_,
            dependencies,
            none,
            none,
            none,
            args,
            func,
            key,
            kwargs,
        ]);
        self.object(arena, self.task, state)
    }

    /// `Task(key, _identity_cast, *items, typ=<builtin type>)`.
    pub(super) fn identity_cast(
        &mut self,
        arena: &mut Arena,
        key: NodeId,
        items: &[NodeId],
        builtin: &'static str,
        dependencies: &[Key],
    ) -> NodeId {
        let (func, name) = self.cast(arena);
        let class = self.builtin(arena, builtin);
        let kwargs = arena.add(Kind::Dict);
        arena.add_op(kwargs, OpKind::SetItems, &[name, class]);
        self.task(arena, key, func, items, Some(kwargs), dependencies)
    }

    /// One of the containers of nodes; `items` alternate keys and values for `Dict`.
    pub(super) fn container(
        &mut self,
        arena: &mut Arena,
        class: &'static str,
        items: &[NodeId],
        dependencies: &[Key],
    ) -> Result<NodeId, Stop> {
        let class_node = self
            .container_class(arena, class)
            .ok_or_else(|| unknown(MODULE, class))?;
        // The state as dask pickles it: `constructor` and `func` are functions of the class.
        let (constructor, klass) = match class {
            "List" => (self.builtin(arena, "list"), self.builtin(arena, "list")),
            "Tuple" => (self.builtin(arena, "tuple"), self.builtin(arena, "tuple")),
            "Set" => (self.builtin(arena, "set"), self.builtin(arena, "set")),
            _ => (
                arena.add_global(MODULE, "Dict.constructor"),
                self.builtin(arena, "dict"),
            ),
        };
        let func = arena.add_global(MODULE, "NestedContainer.to_container");
        let dependencies = self.frozen_keys(arena, dependencies);
        let args = arena.add_tuple(items);
        let kwargs = arena.add(Kind::Dict);
        let (none, false_) = (self.none, self.false_);
        let state = arena.add(Kind::List);
        let slots = [
            false_,
            dependencies,
            none,
            none,
            none,
            args,
            constructor,
            func,
            none,
            klass,
            kwargs,
        ];
        arena.add_op(state, OpKind::Append, &slots);
        Ok(self.object(arena, class_node, state))
    }

    fn object(&self, arena: &mut Arena, class: NodeId, state: NodeId) -> NodeId {
        let object = arena.add(Kind::NewObj {
            cls: class,
            args: self.empty_tuple,
        });
        arena.add_op(object, OpKind::Build, &[state]);
        object
    }

    fn frozen_keys(&self, arena: &mut Arena, keys: &[Key]) -> NodeId {
        let node = |key: &Key| match self.names.node(key) {
            Some(node) => node,
            None => key_node(arena, key),
        };
        let nodes: Vec<NodeId> = keys.iter().map(node).collect();
        let run = arena.add_children(&nodes);
        arena.add(Kind::FrozenSet(run))
    }

    fn alias_class(&mut self, arena: &mut Arena) -> NodeId {
        *self
            .alias
            .get_or_insert_with(|| arena.add_global(MODULE, "Alias"))
    }

    fn data_class(&mut self, arena: &mut Arena) -> NodeId {
        *self
            .data
            .get_or_insert_with(|| arena.add_global(MODULE, "DataNode"))
    }

    /// `_identity_cast`, and the name of its argument.
    fn cast(&mut self, arena: &mut Arena) -> (NodeId, NodeId) {
        let func = *self
            .identity_cast
            .get_or_insert_with(|| arena.add_global(MODULE, "_identity_cast"));
        (func, *self.typ.get_or_insert_with(|| arena.add_str("typ")))
    }

    fn container_class(&mut self, arena: &mut Arena, class: &str) -> Option<NodeId> {
        let which = CONTAINERS.iter().position(|&c| c == class)?;
        let slot = self.containers.get_mut(which)?;
        Some(*slot.get_or_insert_with(|| arena.add_global(MODULE, class)))
    }

    fn builtin(&mut self, arena: &mut Arena, name: &'static str) -> NodeId {
        if let Some(&(_, node)) = self.builtins.iter().find(|(n, _)| *n == name) {
            return node;
        }
        let node = arena.add_global("builtins", name);
        self.builtins.push((name, node));
        node
    }
}

fn call(arena: &mut Arena, callable: NodeId, args: &[NodeId]) -> NodeId {
    let args = arena.add_tuple(args);
    arena.add(Kind::Reduce { callable, args })
}

/// A node for a key.
pub(super) fn key_node(arena: &mut Arena, key: &Key) -> NodeId {
    match key {
        Key::Str(s) => arena.add_str(s),
        Key::Bytes(b) => {
            let span = arena.add_side(b);
            arena.add(Kind::Bytes(span))
        }
        Key::Int(i) => arena.add(Kind::Int(*i)),
        Key::UInt(u) => {
            let mut bytes = u.to_le_bytes().to_vec();
            bytes.push(0);
            let span = arena.add_side(&bytes);
            arena.add(Kind::Long(span))
        }
        Key::Float(f) => arena.add(Kind::Float(*f)),
        Key::Bool(b) => arena.add(Kind::Bool(*b)),
        Key::None => arena.add(Kind::None),
        Key::Tuple(items) => {
            let items: Vec<NodeId> = items.iter().map(|item| key_node(arena, item)).collect();
            arena.add_tuple(&items)
        }
    }
}

/// Adds keys that are not there yet. For one addition; several belong into a [`KeySet`].
pub(super) fn union(to: &mut Vec<Key>, from: &[Key]) {
    let mut all = KeySet {
        keys: std::mem::take(to),
        seen: hashbrown::HashSet::new(),
    };
    all.extend(from);
    *to = all.keys;
}

/// Keys, each once, in the order in which they came.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// Filled when there are many: fan-ins of many thousands come from reductions over futures.
    seen: hashbrown::HashSet<Key>,
}

impl KeySet {
    /// Up to here looking at all of them is faster than hashing.
    const FEW: usize = 32;

    pub(super) fn extend(&mut self, keys: &[Key]) {
        for key in keys {
            if self.keys.len() < Self::FEW {
                if !self.keys.contains(key) {
                    self.keys.push(key.clone());
                }
                continue;
            }
            if self.seen.is_empty() {
                self.seen.extend(self.keys.iter().cloned());
            }
            if self.seen.insert(key.clone()) {
                self.keys.push(key.clone());
            }
        }
    }

    pub(super) fn into_vec(self) -> Vec<Key> {
        self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::{KeySet, union};
    use oxidask_key::Key;

    fn keys(range: std::ops::Range<i64>) -> Vec<Key> {
        range.map(Key::Int).collect()
    }

    #[test]
    fn many_keys_stay_in_order_and_each_once() {
        let mut set = KeySet::default();
        for key in keys(0..1000) {
            set.extend(std::slice::from_ref(&key));
            set.extend(&keys(0..3));
        }
        assert_eq!(set.into_vec(), keys(0..1000));
    }

    #[test]
    fn a_large_fan_in_takes_no_quadratic_time() {
        let mut set = KeySet::default();
        let started = std::time::Instant::now();
        for key in keys(0..100_000) {
            set.extend(&[key]);
        }
        // Seconds where each addition looks at all before; far below one otherwise.
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
        assert_eq!(set.into_vec().len(), 100_000);
    }

    #[test]
    fn a_union_keeps_what_was_there_first() {
        let mut some = keys(5..8);
        union(&mut some, &keys(0..100));
        let expected: Vec<Key> = keys(5..8)
            .into_iter()
            .chain(keys(0..5))
            .chain(keys(8..100))
            .collect();
        assert_eq!(some, expected);
    }
}
