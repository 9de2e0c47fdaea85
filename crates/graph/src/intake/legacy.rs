//! Low-level graphs: a dict from keys to tasks, as `submit` and `get` send them (≥ 2025.4.0).
//!
//! Values are `dask._task_spec` nodes, or in the older notation tuples `(callable, *args)`, keys of
//! other tasks, containers of those, and literals; the latter are converted as dask's
//! `convert_legacy_graph` does it.

use hashbrown::HashMap;

use oxidask_key::Key;
use oxidask_key::numbering::Numbering;

use crate::pickle::arena::{Arena, Kind, NodeId, OpKind};
use crate::pickle::plain::to_key;
use crate::pickle::walker::Limits;

use super::names::Names;
use super::parse::{MAX_DEPTH, References, as_node, gather};
use super::spec::{GraphNode, KeySet, Maker, Parsed, graph_node};
use super::writer::TaskWriter;
use super::{SplitGraph, SplitTask, Stop, TaskKind, numbers};

/// Splits a low-level graph, culled to `wanted`.
pub(super) fn split_low_level_graph(
    arena: &mut Arena,
    dsk: NodeId,
    wanted: &[Key],
    limits: Limits,
) -> Result<SplitGraph, Stop> {
    let items = arena
        .dict(dsk)
        .ok_or_else(|| Stop::python("low-level graph that is not a dict"))?;
    let mut graph = convert_graph(arena, &items, wanted, limits)?;
    graph.cull();
    Ok(graph)
}

/// Converts the items of a graph to nodes of `dask._task_spec`, and writes them. What is made for one
/// task is gone before the next: the nodes of all of them would be most of what a graph takes.
pub(super) fn convert_graph(
    arena: &mut Arena,
    items: &[(NodeId, NodeId)],
    wanted: &[Key],
    limits: Limits,
) -> Result<SplitGraph, Stop> {
    let references = References::new(arena);
    let mut maker = Maker::new(arena);
    maker.complete(arena);
    let mut writer = TaskWriter::new(limits);
    let mut keys = Vec::with_capacity(items.len());
    for &(key, _) in items {
        keys.push(to_key(arena, key).ok_or_else(|| Stop::python("key of unknown type"))?);
    }
    let nodes = items.iter().map(|&(node, _)| node);
    maker.names = Names::new(keys.iter().cloned().zip(nodes));
    let unique = maker.names.len() == keys.len();
    let mut converter = Converter { references };
    let mut index: HashMap<&Key, usize> = HashMap::new();
    let mut tasks: Vec<SplitTask> = Vec::with_capacity(keys.len());
    let mark = arena.mark();
    for (key, &(key_node, value)) in keys.iter().zip(items) {
        arena.cut_back(mark);
        let parsed = converter.convert(arena, &mut maker, Some(key_node), value, MAX_DEPTH)?;
        if is_alias_of_itself(arena, &parsed, key)? {
            continue;
        }
        let node = if parsed.is_node {
            parsed.node
        } else {
            maker.data(arena, key_node, parsed.node)
        };
        let kind = match graph_node(arena, node)? {
            Some(GraphNode::Data) => TaskKind::Data,
            _ => TaskKind::Task,
        };
        let task = SplitTask {
            spec: writer.write(arena, node)?,
            key: key.clone(),
            dependencies: parsed.dependencies,
            kind,
        };
        if unique {
            tasks.push(task);
            continue;
        }
        // As in a dict, the last value of a key counts, in the place of the first.
        match index.get(key).and_then(|&i| tasks.get_mut(i)) {
            Some(earlier) => *earlier = task,
            None => {
                index.insert(key, tasks.len());
                tasks.push(task);
            }
        }
    }
    arena.cut_back(mark);
    let numbering = if unique && tasks.len() == keys.len() {
        let names = &maker.names;
        Numbering::found(
            &tasks,
            |place| keys.get(place as usize),
            |task| &task.dependencies,
            wanted,
            |key| names.place(key),
        )?
    } else {
        numbers(&tasks, wanted)?
    };
    Ok(SplitGraph {
        tasks,
        numbering,
        annotations: Vec::new(),
    })
}

fn is_alias_of_itself(arena: &Arena, parsed: &Parsed, key: &Key) -> Result<bool, Stop> {
    if parsed.dependencies.as_slice() != std::slice::from_ref(key) {
        return Ok(false);
    }
    let found = graph_node(arena, parsed.node)?;
    Ok(matches!(found, Some(GraphNode::Alias { .. })))
}

/// Whether Python's `callable` is true of a node.
enum Callable {
    Yes,
    No,
    Unknown,
}

struct Converter {
    references: References,
}

impl Converter {
    /// dask's `convert_legacy_task`; `key` is given at the top of a graph's value only.
    fn convert(
        &mut self,
        arena: &mut Arena,
        maker: &mut Maker,
        key: Option<NodeId>,
        node: NodeId,
        depth: usize,
    ) -> Result<Parsed, Stop> {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| Stop::python("task nested too deeply"))?;
        let kind = arena.kind(node);
        if let Some(found) = graph_node(arena, node)? {
            return as_node(arena, maker, key, node, &found);
        }
        if let Kind::Tuple(run) = kind
            && let [func, args @ ..] = arena.children(run)
        {
            let (func, args) = (*func, args.to_vec());
            if is_task(arena, &[func])? {
                return self.task(arena, maker, key, func, &args, depth);
            }
        }
        if let Some(target) = reference(arena, &maker.names, node, kind)? {
            return Ok(Parsed {
                node: maker.alias(arena, key.unwrap_or(node), node),
                is_node: true,
                dependencies: vec![target],
            });
        }
        let (builtin, items) = match kind {
            Kind::Tuple(run) => ("tuple", arena.children(run).to_vec()),
            Kind::FrozenSet(run) => ("frozenset", arena.children(run).to_vec()),
            Kind::List => ("list", known(arena.list(node))?),
            Kind::Set => ("set", known(arena.set(node))?),
            _ => {
                self.opaque(arena, node, kind)?;
                return Ok(Parsed::plain(node));
            }
        };
        let mut parts = Vec::with_capacity(items.len());
        for item in items {
            parts.push(self.convert(arena, maker, None, item, depth)?);
        }
        if !parts.iter().any(|part| part.is_node) {
            return Ok(Parsed::plain(node));
        }
        let (nodes, dependencies) = gather(&parts);
        let key = key.unwrap_or(maker.none());
        Ok(Parsed {
            node: maker.identity_cast(arena, key, &nodes, builtin, &dependencies),
            is_node: true,
            dependencies,
        })
    }

    fn task(
        &mut self,
        arena: &mut Arena,
        maker: &mut Maker,
        key: Option<NodeId>,
        func: NodeId,
        args: &[NodeId],
        depth: usize,
    ) -> Result<Parsed, Stop> {
        let mut parts = Vec::with_capacity(args.len());
        for &arg in args {
            let is_dict = matches!(arena.kind(arg), Kind::Dict);
            parts.push(if is_dict {
                dict(arena, maker, arg)?
            } else {
                self.convert(arena, maker, None, arg, depth)?
            });
        }
        let (nodes, dependencies) = gather(&parts);
        let key = key.unwrap_or(maker.none());
        Ok(Parsed {
            node: maker.task(arena, key, func, &nodes, None, &dependencies),
            is_node: true,
            dependencies,
        })
    }

    /// Refuses objects that dask may look into: subclasses of containers, of `str`, `int`, …
    fn opaque(&mut self, arena: &Arena, node: NodeId, kind: Kind) -> Result<(), Stop> {
        if kind.is_atom() || matches!(kind, Kind::Dict | Kind::ByteArray(_) | Kind::Buffer { .. }) {
            return Ok(());
        }
        self.references.refuse(arena, node)?;
        let filled = arena
            .ops(node)
            .any(|(op, _)| matches!(op, OpKind::Append | OpKind::SetItems | OpKind::AddItems));
        let subclass = match kind {
            Kind::NewObj { args, .. } => !arena.tuple(args).unwrap_or_default().is_empty(),
            Kind::NewObjEx { .. } | Kind::Obj(_) => true,
            Kind::Reduce { callable, .. } => {
                matches!(arena.global(callable), Some(("collections", _)))
            }
            _ => true,
        };
        if filled || subclass {
            return Err(Stop::python("object that may be a container or a key"));
        }
        Ok(())
    }
}

/// The key of the graph that a value refers to.
fn reference(arena: &Arena, names: &Names, node: NodeId, kind: Kind) -> Result<Option<Key>, Stop> {
    match kind {
        Kind::Str(_) | Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) => {}
        Kind::Tuple(run) => {
            // E.g. `("x", numpy.int64(0))` equals `("x", 0)`, and a list makes it unhashable.
            let odd = arena
                .children(run)
                .iter()
                .any(|&item| matches!(arena.kind(item), Kind::Reduce { .. } | Kind::NewObj { .. }));
            if odd && names.has_tuple_of(run.len as usize) {
                return Err(Stop::python("tuple that may or may not be a key"));
            }
        }
        _ => return Ok(None),
    }
    Ok(names.meant_by(arena, node))
}

fn known(items: Option<Vec<NodeId>>) -> Result<Vec<NodeId>, Stop> {
    items.ok_or_else(|| Stop::python("container with unknown content"))
}

/// `Dict(value)` for a dict among the arguments of a task; its values are not converted.
fn dict(arena: &mut Arena, maker: &mut Maker, node: NodeId) -> Result<Parsed, Stop> {
    let items = arena
        .dict(node)
        .ok_or_else(|| Stop::python("dict with unknown content"))?;
    let mut dependencies = KeySet::default();
    let mut flat = Vec::with_capacity(items.len());
    for (key, value) in items {
        for part in [key, value] {
            match graph_node(arena, part)? {
                None => {}
                // A future in here is a dependency without an alias; rare enough for Python.
                Some(GraphNode::Reference { .. }) => {
                    return Err(Stop::python("future in a dict of an old-style task"));
                }
                Some(GraphNode::Task(task)) => {
                    dependencies.extend(&task.dependencies);
                }
                Some(GraphNode::Alias { target }) => {
                    dependencies.extend(&[target]);
                }
                Some(GraphNode::Data) => {}
            }
            flat.push(part);
        }
    }
    let dependencies = dependencies.into_vec();
    Ok(Parsed {
        node: maker.container(arena, "Dict", &flat, &dependencies)?,
        is_node: true,
        dependencies,
    })
}

/// Whether a tuple of these elements is an old-style task.
pub(super) fn is_task(arena: &Arena, elements: &[NodeId]) -> Result<bool, Stop> {
    let Some(&first) = elements.first() else {
        return Ok(false);
    };
    match callable(arena, first)? {
        Callable::Yes => Ok(true),
        Callable::No => Ok(false),
        Callable::Unknown => Err(Stop::python("tuple that may or may not be a task")),
    }
}

fn callable(arena: &Arena, node: NodeId) -> Result<Callable, Stop> {
    Ok(match arena.kind(node) {
        Kind::Global { .. } => match arena.global(node) {
            Some(("builtins", "Ellipsis" | "NotImplemented")) => Callable::No,
            Some(_) => Callable::Yes,
            None => Callable::Unknown,
        },
        Kind::Reduce { callable, .. } => match graph_node(arena, node)? {
            Some(GraphNode::Reference { .. }) => Callable::No,
            Some(_) => Callable::Unknown,
            None => match arena.global(callable) {
                Some((module, name)) => made_by(module, name),
                None => Callable::Unknown,
            },
        },
        Kind::NewObj { .. } | Kind::NewObjEx { .. } | Kind::Obj(_) => Callable::Unknown,
        _ => Callable::No,
    })
}

/// Whether what this function makes can be called.
fn made_by(module: &str, name: &str) -> Callable {
    match (module, name) {
        (
            "cloudpickle.cloudpickle",
            "_make_function" | "_make_skeleton_class" | "_builtin_type" | "_make_dynamic_class",
        )
        | ("dask.utils", "methodcaller")
        | ("functools", "partial")
        | ("operator", "itemgetter" | "attrgetter" | "methodcaller")
        | ("_operator", "itemgetter" | "attrgetter" | "methodcaller")
        | ("types", "MethodType")
        | ("builtins", "getattr") => Callable::Yes,
        ("builtins", "slice" | "range" | "complex" | "set" | "frozenset" | "bytearray")
        | ("datetime", _)
        | ("decimal", "Decimal")
        | ("numpy", "dtype")
        | ("numpy._core.multiarray" | "numpy.core.multiarray", "scalar" | "_reconstruct")
        | ("numpy._core.numeric" | "numpy.core.numeric", "_frombuffer") => Callable::No,
        _ => Callable::Unknown,
    }
}
