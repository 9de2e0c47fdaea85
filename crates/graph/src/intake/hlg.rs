//! High-level graphs inside expressions: `delayed`, and `get` of a `HighLevelGraph` (≥ 2025.4.0).
//!
//! Only layers that hold their tasks (`MaterializedLayer`) and no optimisation but that of `delayed`
//! (which culls) are taken.

use hashbrown::HashSet;

use indexmap::IndexMap;
use oxidask_key::Key;

use crate::pickle::arena::{Arena, Kind, NodeId};
use crate::pickle::plain::{PlainValue, to_key, to_plain};
use crate::pickle::walker::Limits;

use super::expr::Expr;
use super::legacy::{convert_graph, is_task};
use super::parse::MAX_DEPTH;
use super::spec::{GraphNode, graph_node};
use super::{Annotation, SplitGraph, Stop};

/// A layer after optimisation.
struct Layer {
    items: Vec<(NodeId, NodeId)>,
    annotations: Vec<(String, Option<PlainValue>)>,
}

/// Name of a layer after optimisation: culling appends a token of the wanted keys, which stands for
/// the sorted keys here.
type LayerName = (String, Option<Vec<String>>);

/// Splits `HLGExpr`, `_HLGExprGroup` or `_HLGExprSequence`.
pub(super) fn split_high_level_graph(
    arena: &mut Arena,
    expr: &Expr,
    wanted: &[Key],
    limits: Limits,
) -> Result<SplitGraph, Stop> {
    if expr.caches(arena, "_optimized_dsk") {
        return Err(Stop::python("expression that was optimised before"));
    }
    let mut layers = IndexMap::new();
    if expr.class_name().1 == "_HLGExprSequence" {
        for &operand in &expr.operands {
            let operand = Expr::read(arena, operand)
                .filter(|e| matches!(e.class_name(), ("dask._expr", "HLGExpr" | "_HLGExprGroup")))
                .ok_or_else(|| Stop::python("sequence of other expressions"))?;
            read_graph(arena, &operand, &mut layers)?;
        }
    } else {
        read_graph(arena, expr, &mut layers)?;
    }
    let annotations = annotations(arena, &layers)?;
    let items: Vec<(NodeId, NodeId)> = layers
        .into_values()
        .flat_map(|layer: Layer| layer.items)
        .collect();
    let mut graph = convert_graph(arena, &items, wanted, limits)?;
    graph.annotations = annotations;
    Ok(graph)
}

/// Adds the layers of one expression, optimised.
fn read_graph(arena: &Arena, expr: &Expr, to: &mut IndexMap<LayerName, Layer>) -> Result<(), Stop> {
    let graph = HighLevelGraph::read(arena, expr.operand(0)?)
        .ok_or_else(|| Stop::python("high-level graph with other layers"))?;
    let optimizer = expr.operand(1)?;
    let culled = match (arena.kind(optimizer), arena.global(optimizer)) {
        (Kind::None, _) => false,
        (_, Some(("dask.delayed", "optimize"))) => true,
        _ => return Err(Stop::python("graph optimisation that is not known here")),
    };
    if !culled {
        for (name, mapping, annotations) in graph.layers {
            let layer = Layer {
                items: mapping,
                annotations: read_annotations(arena, annotations)?,
            };
            to.insert((name, None), layer);
        }
        return Ok(());
    }
    let mut wanted = HashSet::new();
    flatten(arena, expr.operand(2)?, &mut wanted, MAX_DEPTH)?;
    let mut token: Vec<String> = wanted.iter().map(Key::repr).collect();
    token.sort_unstable();
    for (name, items, annotations) in graph.cull(arena, wanted)? {
        let layer = Layer {
            items,
            annotations: read_annotations(arena, annotations)?,
        };
        to.insert((name, Some(token.clone())), layer);
    }
    Ok(())
}

/// The keys in nested lists.
fn flatten(arena: &Arena, node: NodeId, to: &mut HashSet<Key>, depth: usize) -> Result<(), Stop> {
    let depth = depth
        .checked_sub(1)
        .ok_or_else(|| Stop::python("output keys nested too deeply"))?;
    match arena.kind(node) {
        Kind::List => {
            let items = arena.list(node);
            for item in items.ok_or_else(|| Stop::python("unknown output keys"))? {
                flatten(arena, item, to, depth)?;
            }
        }
        Kind::None => return Err(Stop::python("graph to be culled without output keys")),
        _ => {
            to.insert(to_key(arena, node).ok_or_else(|| Stop::python("key of unknown type"))?);
        }
    }
    Ok(())
}

/// What a pickled layer holds: name, tasks, annotations.
type RawLayer = (String, Vec<(NodeId, NodeId)>, NodeId);

struct HighLevelGraph {
    layers: Vec<RawLayer>,
    /// By number of the layer.
    dependencies: Vec<Vec<usize>>,
}

impl HighLevelGraph {
    fn read(arena: &Arena, node: NodeId) -> Option<Self> {
        let state = state_of(arena, node, "dask.highlevelgraph", "HighLevelGraph")?;
        let mut layers = Vec::new();
        let mut index = IndexMap::new();
        for (name, layer) in arena.dict(field(arena, &state, "layers")?)? {
            let name = arena.text(name)?.to_owned();
            if index.insert(name.clone(), layers.len()).is_some() {
                return None;
            }
            let layer = state_of(arena, layer, "dask.highlevelgraph", "MaterializedLayer")?;
            let mapping = arena.dict(field(arena, &layer, "mapping")?)?;
            layers.push((name, mapping, field(arena, &layer, "annotations")?));
        }
        let mut dependencies = vec![Vec::new(); layers.len()];
        for (name, needs) in arena.dict(field(arena, &state, "dependencies")?)? {
            let &layer = index.get(arena.text(name)?)?;
            for need in arena.set(needs)? {
                let &need = index.get(arena.text(need)?)?;
                dependencies.get_mut(layer)?.push(need);
            }
        }
        Some(Self {
            layers,
            dependencies,
        })
    }

    /// dask's `HighLevelGraph.cull`: from the last layer to the first, the tasks that are needed.
    fn cull(self, arena: &Arena, mut wanted: HashSet<Key>) -> Result<Vec<RawLayer>, Stop> {
        let mut all_keys = HashSet::new();
        for (_, items, _) in &self.layers {
            for &(key, _) in items {
                all_keys.extend(to_key(arena, key));
            }
        }
        let mut culled = Vec::new();
        for number in self.toposort().into_iter().rev() {
            let Some((name, items, annotations)) = self.layers.get(number) else {
                continue;
            };
            if wanted.is_empty() {
                culled.push((name.clone(), items.clone(), *annotations));
                continue;
            }
            let kept = cull_layer(arena, items, &wanted, &all_keys)?;
            if kept.is_empty() {
                continue;
            }
            // First what is needed, then off with what has been found, task by task.
            for (key, _, dependencies) in &kept {
                wanted.extend(dependencies.iter().cloned());
                wanted.remove(key);
            }
            let items = kept.into_iter().map(|(_, item, _)| item).collect();
            culled.push((name.clone(), items, *annotations));
        }
        Ok(culled)
    }

    fn toposort(&self) -> Vec<usize> {
        let mut degree: Vec<usize> = self.dependencies.iter().map(Vec::len).collect();
        let mut dependents = vec![Vec::new(); self.dependencies.len()];
        let mut ready = Vec::new();
        for (layer, needs) in self.dependencies.iter().enumerate() {
            for &need in needs {
                if let Some(list) = dependents.get_mut(need) {
                    list.push(layer);
                }
            }
            if needs.is_empty() {
                ready.push(layer);
            }
        }
        let mut sorted = Vec::new();
        while let Some(layer) = ready.pop() {
            sorted.push(layer);
            for &dependent in dependents.get(layer).into_iter().flatten() {
                if let Some(left) = degree.get_mut(dependent) {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        ready.push(dependent);
                    }
                }
            }
        }
        sorted
    }
}

type CulledTask = (Key, (NodeId, NodeId), Vec<Key>);

/// The tasks of a layer that `wanted` needs.
fn cull_layer(
    arena: &Arena,
    items: &[(NodeId, NodeId)],
    wanted: &HashSet<Key>,
    all_keys: &HashSet<Key>,
) -> Result<Vec<CulledTask>, Stop> {
    let mut tasks: IndexMap<Key, ((NodeId, NodeId), Vec<Key>)> = IndexMap::new();
    for &(key, task) in items {
        let dependencies = match graph_node(arena, task)? {
            Some(GraphNode::Task(parts)) => parts.dependencies,
            Some(GraphNode::Alias { target }) => vec![target],
            Some(GraphNode::Data) => Vec::new(),
            _ => keys_in_task(arena, task, all_keys)?,
        };
        let name = to_key(arena, key).ok_or_else(|| Stop::python("key of unknown type"))?;
        tasks.insert(name, ((key, task), dependencies));
    }
    // dask takes equal numbers as a sign that there is nothing to cull.
    let mut keep: HashSet<Key> = HashSet::new();
    let mut work: Vec<Key> = if wanted.len() == tasks.len() {
        tasks.keys().cloned().collect()
    } else {
        let wanted = tasks.keys().filter(|key| wanted.contains(*key));
        wanted.cloned().collect()
    };
    while let Some(key) = work.pop() {
        let Some((_, dependencies)) = tasks.get(&key) else {
            continue;
        };
        if keep.insert(key) {
            work.extend(dependencies.iter().cloned());
        }
    }
    Ok(tasks
        .into_iter()
        .filter(|(key, _)| keep.contains(key))
        .map(|(key, (item, dependencies))| (key, item, dependencies))
        .collect())
}

/// The keys that an old-style task mentions (dask's `keys_in_tasks`).
fn keys_in_task(arena: &Arena, task: NodeId, all: &HashSet<Key>) -> Result<Vec<Key>, Stop> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut work = vec![task];
    while let Some(node) = work.pop() {
        if !seen.insert(node) {
            continue;
        }
        match graph_node(arena, node)? {
            Some(GraphNode::Task(parts)) => found.extend(parts.dependencies),
            Some(GraphNode::Alias { target }) => found.push(target),
            Some(GraphNode::Data) => {}
            Some(GraphNode::Reference { key }) => found.extend(to_key(arena, key)),
            None => match arena.kind(node) {
                Kind::Tuple(run) if is_task(arena, arena.children(run))? => {
                    work.extend(arena.children(run).iter().skip(1));
                }
                Kind::List => work.extend(arena.list(node).unwrap_or_default()),
                Kind::Dict => {
                    let items = arena.dict(node).unwrap_or_default();
                    work.extend(items.into_iter().map(|(_, value)| value));
                }
                _ => found.extend(to_key(arena, node)),
            },
        }
    }
    found.retain(|key| all.contains(key));
    Ok(found)
}

/// The attributes of an object without `__setstate__` or slots.
fn state_of(
    arena: &Arena,
    node: NodeId,
    module: &str,
    name: &str,
) -> Option<Vec<(NodeId, NodeId)>> {
    let Kind::NewObj { cls, args } = arena.kind(node) else {
        return None;
    };
    if arena.global(cls) != Some((module, name)) || !arena.tuple(args)?.is_empty() {
        return None;
    }
    arena.dict(arena.state(node)?)
}

fn field(arena: &Arena, state: &[(NodeId, NodeId)], name: &str) -> Option<NodeId> {
    let found = state.iter().find(|&&(n, _)| arena.text(n) == Some(name));
    found.map(|&(_, value)| value)
}

/// Name and value of each annotation of a layer; no value for one that is to be ignored.
fn read_annotations(
    arena: &Arena,
    node: NodeId,
) -> Result<Vec<(String, Option<PlainValue>)>, Stop> {
    if matches!(arena.kind(node), Kind::None) {
        return Ok(Vec::new());
    }
    let items = arena
        .dict(node)
        .ok_or_else(|| Stop::python("unknown annotations"))?;
    let mut annotations = Vec::new();
    for (name, value) in items {
        let Some(name) = arena.text(name) else {
            return Err(Stop::python("annotation without a name"));
        };
        let tombstone = match arena.kind(value) {
            Kind::NewObj { cls, .. } => {
                arena.global(cls) == Some(("dask._expr", "_AnnotationsTombstone"))
            }
            _ => false,
        };
        let value = if tombstone {
            None
        } else {
            let value = to_plain(arena, value);
            Some(value.map_err(|e| Stop::python(format!("annotation {name:?}: {e}")))?)
        };
        annotations.push((name.to_owned(), value));
    }
    Ok(annotations)
}

fn annotations(
    arena: &Arena,
    layers: &IndexMap<LayerName, Layer>,
) -> Result<Vec<Annotation>, Stop> {
    let mut all = Vec::new();
    for layer in layers.values() {
        for (name, value) in &layer.annotations {
            let Some(value) = value else {
                continue;
            };
            let keys: Option<Vec<Key>> = layer
                .items
                .iter()
                .map(|&(key, _)| to_key(arena, key))
                .collect();
            all.push(Annotation {
                name: name.clone(),
                value: value.clone(),
                keys: keys.ok_or_else(|| Stop::python("key of unknown type"))?,
            });
        }
    }
    Ok(all)
}
