//! Arguments of `submit` and `map` (dask's `parse_input`): futures among them become aliases, and
//! containers with futures inside become containers of nodes, which a worker fills.

use hashbrown::{HashMap, HashSet};

use oxidask_key::Key;

use crate::pickle::arena::{Arena, Kind, NodeId};
use crate::pickle::plain::to_key;

use super::Stop;
use super::spec::{GraphNode, KeySet, MODULE, Maker, Parsed, graph_node};

/// Deepest nesting of containers that is looked into.
pub(super) const MAX_DEPTH: usize = 200;

/// See the module's head.
pub(super) struct InputParser {
    references: References,
    parsed: HashMap<NodeId, Parsed>,
}

impl InputParser {
    /// To be made before anything is added to the arena.
    pub(super) fn new(arena: &Arena) -> Self {
        Self {
            references: References::new(arena),
            parsed: HashMap::new(),
        }
    }

    /// Turns a value into what dask puts into the task.
    ///
    /// # Errors
    /// If the value is an object of an unknown class that holds a future.
    pub(super) fn parse(
        &mut self,
        arena: &mut Arena,
        maker: &mut Maker,
        node: NodeId,
    ) -> Result<Parsed, Stop> {
        if !self.references.any || arena.kind(node).is_atom() {
            return Ok(Parsed::plain(node));
        }
        self.parse_nested(arena, maker, node, MAX_DEPTH)
    }

    fn parse_nested(
        &mut self,
        arena: &mut Arena,
        maker: &mut Maker,
        node: NodeId,
        depth: usize,
    ) -> Result<Parsed, Stop> {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| Stop::python("argument nested too deeply"))?;
        if arena.kind(node).is_atom() {
            return Ok(Parsed::plain(node));
        }
        if let Some(parsed) = self.parsed.get(&node) {
            return Ok(parsed.clone());
        }
        let parsed = match graph_node(arena, node)? {
            Some(found) => as_node(arena, maker, None, node, &found)?,
            None => {
                let Some((class, items)) = container(arena, node) else {
                    self.references.refuse(arena, node)?;
                    return Ok(Parsed::plain(node));
                };
                let mut parts = Vec::with_capacity(items.len());
                for (i, item) in items.into_iter().enumerate() {
                    // Keys of a dict stay as they are.
                    parts.push(if class == "Dict" && i % 2 == 0 {
                        Parsed::plain(item)
                    } else {
                        self.parse_nested(arena, maker, item, depth)?
                    });
                }
                if parts.iter().any(|part| part.is_node) {
                    let (nodes, dependencies) = gather(&parts);
                    Parsed {
                        node: maker.container(arena, class, &nodes, &dependencies)?,
                        is_node: true,
                        dependencies,
                    }
                } else {
                    Parsed::plain(node)
                }
            }
        };
        self.parsed.insert(node, parsed.clone());
        Ok(parsed)
    }
}

/// A graph node or future as a part of a task, or as a task of its own under `key`.
pub(super) fn as_node(
    arena: &mut Arena,
    maker: &mut Maker,
    key: Option<NodeId>,
    node: NodeId,
    found: &GraphNode,
) -> Result<Parsed, Stop> {
    let (node, dependencies) = match found {
        GraphNode::Task(parts) => (node, parts.dependencies.clone()),
        GraphNode::Alias { target } => (node, vec![target.clone()]),
        GraphNode::Data => (node, Vec::new()),
        GraphNode::Reference { key: target } => {
            let target_key =
                to_key(arena, *target).ok_or_else(|| Stop::python("key of unknown type"))?;
            let alias = maker.alias(arena, key.unwrap_or(*target), *target);
            (alias, vec![target_key])
        }
    };
    Ok(Parsed {
        node,
        is_node: true,
        dependencies,
    })
}

pub(super) fn gather(parts: &[Parsed]) -> (Vec<NodeId>, Vec<Key>) {
    let mut dependencies = KeySet::default();
    for part in parts {
        dependencies.extend(&part.dependencies);
    }
    let nodes = parts.iter().map(|part| part.node).collect();
    (nodes, dependencies.into_vec())
}

/// The elements of a plain container that dask looks into, and dask's class for it.
fn container(arena: &Arena, node: NodeId) -> Option<(&'static str, Vec<NodeId>)> {
    match arena.kind(node) {
        Kind::List => Some(("List", arena.list(node)?)),
        Kind::Set => Some(("Set", arena.set(node)?)),
        Kind::Tuple(run) => Some(("Tuple", arena.children(run).to_vec())),
        Kind::Dict => {
            let items = arena.dict(node)?;
            Some((
                "Dict",
                items.into_iter().flat_map(|(k, v)| [k, v]).collect(),
            ))
        }
        _ => None,
    }
}

/// Finds futures and graph nodes inside objects of unknown classes.
pub(super) struct References {
    /// Whether the pickle holds any.
    pub(super) any: bool,
    clean: HashSet<NodeId>,
}

impl References {
    pub(super) fn new(arena: &Arena) -> Self {
        let any = (0..arena.len()).any(|i| is_reference_class(arena, NodeId(i as u32)));
        Self {
            any,
            clean: HashSet::new(),
        }
    }

    /// An error if a future or graph node hangs below the node: what becomes of it is up to the
    /// classes on the way (a named tuple is looked into, other objects are not).
    pub(super) fn refuse(&mut self, arena: &Arena, node: NodeId) -> Result<(), Stop> {
        if !self.any {
            return Ok(());
        }
        let mut pending = vec![node];
        while let Some(node) = pending.pop() {
            if arena.kind(node).is_atom() && !matches!(arena.kind(node), Kind::Global { .. }) {
                continue;
            }
            if !self.clean.insert(node) {
                continue;
            }
            if is_reference_class(arena, node) {
                self.clean.clear();
                return Err(Stop::python("future inside an object of an unknown class"));
            }
            crate::pickle::emit::push_references(arena, node, &mut pending);
        }
        Ok(())
    }
}

fn is_reference_class(arena: &Arena, node: NodeId) -> bool {
    match arena.kind(node) {
        Kind::Global { .. } => match arena.global(node) {
            Some((module, name)) => {
                module == MODULE
                    || (module == "distributed.client" && name == "Future")
                    || (module == "distributed.actor" && name == "Actor")
            }
            None => false,
        },
        _ => false,
    }
}
