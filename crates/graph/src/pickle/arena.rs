//! The object graph of a pickle: nodes with identity, never evaluated.
//!
//! A node has a [`Kind`] (how it is constructed) and, in order, [`Op`]s that change it afterwards
//! (items appended, state set, a state setter called). That split mirrors the pickle machine: an
//! object can be referred to, also by itself, as soon as it is constructed.

use bytes::Bytes;

/// A node of an [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Bytes of an atom, in the pickle itself or in the arena's side buffer.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// A run of nodes in the arena's pool of children.
#[derive(Clone, Copy, Debug, Default)]
pub struct Children {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// How a node is constructed.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// A larger integer: little-endian two's complement.
    Long(Span),
    /// A float.
    Float(f64),
    /// Text: UTF-8 as pickle writes it, which may hold surrogates.
    Str(Span),
    /// Bytes within the pickle.
    Bytes(Span),
    /// A bytearray within the pickle.
    ByteArray(Span),
    /// An out-of-band buffer.
    Buffer {
        /// Which one.
        index: u32,
        /// Whether the pickle asks for a read-only view.
        readonly: bool,
    },
    /// Something importable; both are text nodes.
    Global {
        /// The module's name.
        module: NodeId,
        /// The qualified name in it.
        name: NodeId,
    },
    /// A tuple.
    Tuple(Children),
    /// A frozenset.
    FrozenSet(Children),
    /// A list, filled by [`OpKind::Append`].
    List,
    /// A dict, filled by [`OpKind::SetItems`].
    Dict,
    /// A set, filled by [`OpKind::AddItems`].
    Set,
    /// `callable(*args)`.
    Reduce {
        /// What is called.
        callable: NodeId,
        /// A tuple node, by rights.
        args: NodeId,
    },
    /// `cls.__new__(cls, *args)`.
    NewObj {
        /// The class.
        cls: NodeId,
        /// A tuple node, by rights.
        args: NodeId,
    },
    /// `cls.__new__(cls, *args, **kwargs)`.
    NewObjEx {
        /// The class.
        cls: NodeId,
        /// A tuple node, by rights.
        args: NodeId,
        /// A dict node, by rights.
        kwargs: NodeId,
    },
    /// Instantiation of protocols 0 and 1: class first, then arguments.
    Obj(Children),
}

impl Kind {
    /// Whether this is a value without identity that matters: two copies are as good as one.
    pub(crate) fn is_atom(self) -> bool {
        matches!(
            self,
            Self::None
                | Self::Bool(_)
                | Self::Int(_)
                | Self::Long(_)
                | Self::Float(_)
                | Self::Str(_)
                | Self::Bytes(_)
                | Self::Global { .. }
        )
    }
}

/// What is done to a node after its construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// `extend(children)`.
    Append,
    /// Alternating keys and values.
    SetItems,
    /// `update(children)` of a set.
    AddItems,
    /// `__setstate__(child)` or the default for it.
    Build,
    /// A call whose result is dropped and whose first argument is the node (a state setter): the
    /// one child is the [`Kind::Reduce`] node.
    Effect,
}

/// One change, see [`OpKind`].
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub(crate) next: u32,
    pub(crate) kind: OpKind,
    pub(crate) children: Children,
}

pub(crate) const NO_OP: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) first_op: u32,
    pub(crate) last_op: u32,
    /// Rough size of what hangs below, in bytes, saturating; shared parts count each time.
    pub(crate) weight: u32,
    /// Fetched from the memo at least once, so more than one place refers to it.
    pub(crate) shared: bool,
}

/// See [`Arena::mark`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    side: usize,
    nodes: usize,
    children: usize,
    ops: usize,
}

/// A pickle's object graph together with the bytes it refers to.
#[derive(Debug)]
pub struct Arena {
    pickle: Bytes,
    side: Vec<u8>,
    buffers: Vec<Bytes>,
    pub(crate) nodes: Vec<Node>,
    children: Vec<NodeId>,
    ops: Vec<Op>,
    /// Protocol below 3 means that Python maps Python 2 module names; a copy must keep that.
    pub(crate) protocol: u8,
}

impl Arena {
    pub(crate) fn new(pickle: Bytes, buffers: Vec<Bytes>) -> Self {
        Self {
            pickle,
            side: Vec::new(),
            buffers,
            nodes: Vec::new(),
            children: Vec::new(),
            ops: Vec::new(),
            protocol: 4,
        }
    }

    /// How the node is constructed.
    pub fn kind(&self, node: NodeId) -> Kind {
        self.nodes.get(node.index()).map_or(Kind::None, |n| n.kind)
    }

    pub(crate) fn weight(&self, node: NodeId) -> u32 {
        self.nodes.get(node.index()).map_or(0, |n| n.weight)
    }

    pub(crate) fn is_shared(&self, node: NodeId) -> bool {
        self.nodes.get(node.index()).is_some_and(|n| n.shared)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The out-of-band buffer of that number.
    pub fn buffer(&self, index: u32) -> Option<&Bytes> {
        self.buffers.get(index as usize)
    }

    /// The bytes of an atom.
    pub fn bytes(&self, span: Span) -> &[u8] {
        let (start, len) = (span.start as usize, span.len as usize);
        let (source, start) = match start.checked_sub(self.pickle.len()) {
            Some(in_side) => (&self.side[..], in_side),
            None => (&self.pickle[..], start),
        };
        start
            .checked_add(len)
            .and_then(|end| source.get(start..end))
            .unwrap_or_default()
    }

    /// The nodes of a run.
    pub fn children(&self, run: Children) -> &[NodeId] {
        let start = run.start as usize;
        start
            .checked_add(run.len as usize)
            .and_then(|end| self.children.get(start..end))
            .unwrap_or_default()
    }

    /// The changes made to a node, in order.
    pub fn ops(&self, node: NodeId) -> impl Iterator<Item = (OpKind, &[NodeId])> + '_ {
        let mut next = self.nodes.get(node.index()).map_or(NO_OP, |n| n.first_op);
        std::iter::from_fn(move || {
            let op = self.ops.get(next as usize)?;
            next = op.next;
            Some((op.kind, self.children(op.children)))
        })
    }

    pub(crate) fn first_op(&self, node: NodeId) -> u32 {
        self.nodes.get(node.index()).map_or(NO_OP, |n| n.first_op)
    }

    pub(crate) fn op(&self, index: u32) -> Option<Op> {
        self.ops.get(index as usize).copied()
    }

    /// The text of a `str` node (nothing if it holds surrogates).
    pub fn text(&self, node: NodeId) -> Option<&str> {
        match self.kind(node) {
            Kind::Str(span) => std::str::from_utf8(self.bytes(span)).ok(),
            _ => None,
        }
    }

    /// `(module, name)` of something importable.
    pub fn global(&self, node: NodeId) -> Option<(&str, &str)> {
        match self.kind(node) {
            Kind::Global { module, name } => Some((self.text(module)?, self.text(name)?)),
            _ => None,
        }
    }

    /// The elements of a tuple node.
    pub fn tuple(&self, node: NodeId) -> Option<&[NodeId]> {
        match self.kind(node) {
            Kind::Tuple(run) => Some(self.children(run)),
            _ => None,
        }
    }

    /// The elements of a plain list node.
    pub fn list(&self, node: NodeId) -> Option<Vec<NodeId>> {
        matches!(self.kind(node), Kind::List).then_some(())?;
        self.collect_ops(node, OpKind::Append)
    }

    /// The elements of a plain set node.
    pub fn set(&self, node: NodeId) -> Option<Vec<NodeId>> {
        matches!(self.kind(node), Kind::Set).then_some(())?;
        self.collect_ops(node, OpKind::AddItems)
    }

    /// The items of a plain dict node in order of insertion; a key may occur more than once.
    pub fn dict(&self, node: NodeId) -> Option<Vec<(NodeId, NodeId)>> {
        matches!(self.kind(node), Kind::Dict).then_some(())?;
        let flat = self.collect_ops(node, OpKind::SetItems)?;
        Some(
            flat.chunks_exact(2)
                .map(|pair| (pair[0], pair[1]))
                .collect(),
        )
    }

    /// All children of the ops if they are all of that kind.
    fn collect_ops(&self, node: NodeId, expected: OpKind) -> Option<Vec<NodeId>> {
        let mut all = Vec::new();
        for (kind, children) in self.ops(node) {
            if kind != expected {
                return None;
            }
            all.extend_from_slice(children);
        }
        Some(all)
    }

    /// The argument of the only `BUILD` of a node without other changes.
    pub fn state(&self, node: NodeId) -> Option<NodeId> {
        let mut ops = self.ops(node);
        let only = ops.next()?;
        if only.0 != OpKind::Build || ops.next().is_some() {
            return None;
        }
        only.1.first().copied()
    }

    /// `(module, name, arguments)` of an unchanged `REDUCE` of something importable.
    pub fn call(&self, node: NodeId) -> Option<(&str, &str, &[NodeId])> {
        let Kind::Reduce { callable, args } = self.kind(node) else {
            return None;
        };
        let (module, name) = self.global(callable)?;
        Some((module, name, self.tuple(args)?))
    }

    pub(crate) fn share(&mut self, node: NodeId) {
        if let Some(node) = self.nodes.get_mut(node.index()) {
            node.shared = true;
        }
    }

    // Building. Capacity is bounded by the callers: the walker adds at most one node per byte of
    // input, the intake a bounded number per node.

    pub(crate) fn add(&mut self, kind: Kind) -> NodeId {
        let weight = self.own_weight(kind);
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Node {
            kind,
            first_op: NO_OP,
            last_op: NO_OP,
            weight,
            shared: false,
        });
        id
    }

    pub(crate) fn add_children(&mut self, nodes: &[NodeId]) -> Children {
        let start = self.children.len() as u32;
        self.children.extend_from_slice(nodes);
        Children {
            start,
            len: nodes.len() as u32,
        }
    }

    pub(crate) fn add_op(&mut self, node: NodeId, kind: OpKind, children: &[NodeId]) {
        let children = self.add_children(children);
        let added = self.weight_of(children);
        let index = self.ops.len() as u32;
        self.ops.push(Op {
            next: NO_OP,
            kind,
            children,
        });
        let Some(target) = self.nodes.get_mut(node.index()) else {
            return;
        };
        target.weight = target.weight.saturating_add(added);
        let last = std::mem::replace(&mut target.last_op, index);
        if last == NO_OP {
            target.first_op = index;
        } else if let Some(op) = self.ops.get_mut(last as usize) {
            op.next = index;
        }
    }

    pub(crate) fn add_str(&mut self, text: &str) -> NodeId {
        let span = self.add_side(text.as_bytes());
        self.add(Kind::Str(span))
    }

    pub(crate) fn add_tuple(&mut self, nodes: &[NodeId]) -> NodeId {
        let run = self.add_children(nodes);
        self.add(Kind::Tuple(run))
    }

    pub(crate) fn add_global(&mut self, module: &str, name: &str) -> NodeId {
        let module = self.add_str(module);
        let name = self.add_str(name);
        self.add(Kind::Global { module, name })
    }

    pub(crate) fn add_side(&mut self, bytes: &[u8]) -> Span {
        let start = self.pickle.len() + self.side.len();
        self.side.extend_from_slice(bytes);
        Span {
            start: u32::try_from(start).unwrap_or(u32::MAX),
            len: bytes.len() as u32,
        }
    }

    /// How far the arena is filled, for [`Self::cut_back`].
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            side: self.side.len(),
            nodes: self.nodes.len(),
            children: self.children.len(),
            ops: self.ops.len(),
        }
    }

    /// Forgets what was added since `mark`. Nodes from before must not have been changed since.
    pub(crate) fn cut_back(&mut self, mark: Mark) {
        self.side.truncate(mark.side);
        self.nodes.truncate(mark.nodes);
        self.children.truncate(mark.children);
        self.ops.truncate(mark.ops);
    }

    fn own_weight(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Long(s) | Kind::Str(s) | Kind::Bytes(s) | Kind::ByteArray(s) => {
                s.len.saturating_add(2)
            }
            Kind::Tuple(run) | Kind::FrozenSet(run) | Kind::Obj(run) => self.weight_of(run),
            Kind::Global { module, name } => self.sum(&[module, name]),
            Kind::Reduce { callable, args } => self.sum(&[callable, args]),
            Kind::NewObj { cls, args } => self.sum(&[cls, args]),
            Kind::NewObjEx { cls, args, kwargs } => self.sum(&[cls, args, kwargs]),
            Kind::Int(_) | Kind::Float(_) => 5,
            Kind::Buffer { index, .. } => self
                .buffer(index)
                .map_or(0, |b| u32::try_from(b.len()).unwrap_or(u32::MAX)),
            _ => 1,
        }
    }

    fn weight_of(&self, run: Children) -> u32 {
        self.sum(self.children(run))
    }

    fn sum(&self, nodes: &[NodeId]) -> u32 {
        nodes
            .iter()
            .fold(1, |sum: u32, &n| sum.saturating_add(self.weight(n)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_back_leaves_no_trace() {
        let mut arena = Arena::new(Bytes::from_static(b"pickle"), Vec::new());
        let kept = arena.add_str("kept");
        let mark = arena.mark();
        let first = arena.add_tuple(&[kept]);
        let list = arena.add(Kind::List);
        arena.add_op(list, OpKind::Append, &[first, kept]);
        arena.cut_back(mark);
        assert_eq!(arena.len(), 1);
        let text = arena.add_str("again");
        assert_eq!(text, first, "the number is used again");
        assert!(arena.ops(text).next().is_none());
        assert_eq!(
            (arena.text(kept), arena.text(text)),
            (Some("kept"), Some("again"))
        );
    }
}
