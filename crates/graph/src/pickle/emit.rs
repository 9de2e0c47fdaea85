//! Writing a part of an object graph as a pickle that stands alone.
//!
//! An [`Emitter`] writes one pickle after the other over the same [`Arena`]; its tables are stamped
//! with the number of the pickle instead of being cleared. What several pickles have in common (a
//! mapped function, say) is written once as a [`Prefix`]: a piece of pickle that leaves objects in
//! the memo and nothing on the stack. A [`Pickle`] is a prefix and a body, and goes to a worker as
//! one frame.

use std::sync::Arc;

use bytes::Bytes;

use super::arena::{Arena, Kind, NO_OP, NodeId, OpKind};
use super::opcodes as op;
use super::walker::Limits;

/// A pickle that stands alone: its bytes are `prefix` followed by `body`. Small, since a graph may have millions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pickle {
    /// Common to many pickles, and shared in memory by them.
    pub prefix: Option<Arc<Bytes>>,
    /// The rest.
    pub body: Box<[u8]>,
}

impl Pickle {
    fn prefix(&self) -> &[u8] {
        let prefix = self.prefix.as_deref();
        prefix.map_or(&[], |prefix| &prefix[..])
    }

    /// Length of the whole in bytes.
    pub fn len(&self) -> usize {
        self.prefix().len() + self.body.len()
    }

    /// Whether there is nothing (never so for what this crate writes).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole in one piece.
    pub fn to_bytes(&self) -> Bytes {
        [self.prefix(), &self.body].concat().into()
    }
}

/// Why a part of a graph cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// An object is an argument of its own construction.
    #[error("an object refers to itself through its constructor's arguments")]
    Cycle,
    /// Beyond [`Limits`].
    #[error("splitting the graph would take more than {0}")]
    TooLarge(&'static str),
}

/// See the module's head. Created by [`Emitter::prefix`].
#[derive(Clone, Debug)]
pub struct Prefix {
    /// Its bytes.
    pub(crate) bytes: Arc<Bytes>,
    /// The buffers it uses, in order.
    pub(crate) buffers: Vec<u32>,
    /// What it leaves in the memo: node and slot.
    memo: Vec<(NodeId, u32)>,
    /// Those of it that were asked for.
    roots: Vec<(NodeId, u32)>,
    /// All nodes it holds, memoised or not.
    nodes: Vec<NodeId>,
    slots: u32,
    id: u32,
}

impl Prefix {
    /// Where the memo holds a node.
    pub(crate) fn slot(&self, node: NodeId) -> Option<u32> {
        let found = self.roots.iter().find(|(n, _)| *n == node);
        found.map(|&(_, slot)| slot)
    }
}

#[derive(Clone, Copy, Default)]
struct Mark {
    stamp: u32,
    value: u32,
}

/// State of one node in the pickle being written.
#[derive(Clone, Copy, Default)]
struct Visit {
    /// Number of references.
    count: Mark,
    /// Slot in the memo.
    memo: Mark,
    /// How often its construction has begun and not ended.
    begun: Mark,
    /// Slot in the memo, as left by the prefix with this number.
    prefix_memo: Mark,
    /// The prefix holds it.
    in_prefix: Mark,
}

enum Step {
    Visit(NodeId),
    Finish(NodeId),
    Op(u32),
    Raw(u8),
}

/// Writes pickles, see the module's head.
pub struct Emitter {
    visits: Vec<Visit>,
    stamp: u32,
    slots: u32,
    prefix_stamp: u32,
    prefixes: u32,
    steps: Vec<Step>,
    pending: Vec<NodeId>,
    steps_left: u64,
    output_left: usize,
    memo_all: bool,
    /// Buffers used by the pickle being written, in order.
    pub(crate) used_buffers: Vec<u32>,
}

impl Emitter {
    /// An emitter that stops beyond `limits`.
    pub fn new(limits: Limits) -> Self {
        Self {
            visits: Vec::new(),
            stamp: 0,
            slots: 0,
            prefix_stamp: 0,
            prefixes: 0,
            steps: Vec::new(),
            pending: Vec::new(),
            steps_left: limits.max_steps,
            output_left: limits.max_output,
            memo_all: false,
            used_buffers: Vec::new(),
        }
    }

    /// Writes the sub-graph of `root` as a pickle of its own; returns it with its buffers.
    ///
    /// # Errors
    /// See [`EmitError`].
    pub fn whole(
        &mut self,
        arena: &Arena,
        root: NodeId,
    ) -> Result<(Pickle, Vec<Bytes>), EmitError> {
        let mut out = Vec::new();
        self.alone(arena, root, &mut out)?;
        self.spend(out.len())?;
        let buffers = resolve(arena, &self.used_buffers);
        let pickle = Pickle {
            prefix: None,
            body: out.into(),
        };
        Ok((pickle, buffers))
    }

    /// Writes a whole pickle to `out`, without accounting for its length.
    pub(crate) fn alone(
        &mut self,
        arena: &Arena,
        root: NodeId,
        out: &mut Vec<u8>,
    ) -> Result<(), EmitError> {
        self.retrying(out, |emitter, out| {
            emitter.begin(arena, None);
            header(arena, out);
            emitter.count(arena, &[root])?;
            emitter.write(arena, root, out)?;
            out.push(op::STOP);
            Ok(())
        })
    }

    /// Runs `write`, and again with everything in the memo should it run in circles: objects that
    /// reach themselves through a tuple are constructed twice, so one reference counts double.
    fn retrying(
        &mut self,
        out: &mut Vec<u8>,
        write: impl Fn(&mut Self, &mut Vec<u8>) -> Result<(), EmitError>,
    ) -> Result<(), EmitError> {
        out.clear();
        let mut result = write(self, out);
        if result == Err(EmitError::Cycle) {
            out.clear();
            self.steps.clear();
            self.memo_all = true;
            result = write(self, out);
            self.memo_all = false;
        }
        self.steps.clear();
        result
    }

    /// Writes `roots` as a [`Prefix`]; each of them ends up in the memo.
    ///
    /// # Errors
    /// See [`EmitError`].
    pub fn prefix(&mut self, arena: &Arena, roots: &[NodeId]) -> Result<Prefix, EmitError> {
        let mut out = Vec::new();
        self.retrying(&mut out, |emitter, out| {
            emitter.begin(arena, None);
            header(arena, out);
            emitter.count(arena, roots)?;
            for &root in roots {
                // One more reference than there is: the one from the bodies.
                if let Some(visit) = emitter.visits.get_mut(root.index()) {
                    visit.count.value = visit.count.value.saturating_add(1);
                }
            }
            for &root in roots {
                emitter.write(arena, root, out)?;
                if emitter.memo(root).is_none() {
                    emitter.memoise(root, out);
                }
                out.push(op::POP);
            }
            Ok(())
        })?;
        let nodes = self.reached(arena, roots);
        let memo = nodes
            .iter()
            .filter_map(|&node| Some((node, self.memo(node)?)))
            .collect();
        let roots = roots
            .iter()
            .filter_map(|&node| Some((node, self.memo(node)?)))
            .collect();
        self.spend(out.len())?;
        self.prefixes += 1;
        Ok(Prefix {
            bytes: Arc::new(out.into()),
            buffers: std::mem::take(&mut self.used_buffers),
            memo,
            roots,
            nodes,
            slots: self.slots,
            id: self.prefixes,
        })
    }

    /// Starts a pickle, on top of `prefix` if given.
    pub(crate) fn begin(&mut self, arena: &Arena, prefix: Option<&Prefix>) {
        if self.visits.len() < arena.len() {
            self.visits.resize(arena.len(), Visit::default());
        }
        self.stamp += 1;
        self.slots = 0;
        self.used_buffers.clear();
        self.steps.clear();
        let Some(prefix) = prefix else {
            self.prefix_stamp = 0;
            return;
        };
        self.slots = prefix.slots;
        self.used_buffers.extend_from_slice(&prefix.buffers);
        if self.prefix_stamp == prefix.id {
            return;
        }
        self.prefix_stamp = prefix.id;
        for &node in &prefix.nodes {
            if let Some(visit) = self.visits.get_mut(node.index()) {
                visit.in_prefix.stamp = prefix.id;
            }
        }
        for &(node, slot) in &prefix.memo {
            if let Some(visit) = self.visits.get_mut(node.index()) {
                visit.prefix_memo = Mark {
                    stamp: prefix.id,
                    value: slot,
                };
            }
        }
    }

    /// Counts the references within the sub-graph of `roots`; comes before [`Self::write`].
    ///
    /// Returns false if the sub-graph shares an object with the prefix that the prefix has not kept
    /// in the memo: its identity would be lost.
    pub(crate) fn count(&mut self, arena: &Arena, roots: &[NodeId]) -> Result<bool, EmitError> {
        let mut keeps_identity = true;
        self.pending.clear();
        self.pending.extend(roots.iter().rev());
        while let Some(node) = self.pending.pop() {
            let Some(visit) = self.visits.get_mut(node.index()) else {
                continue;
            };
            if self.prefix_stamp != 0 && visit.in_prefix.stamp == self.prefix_stamp {
                if visit.prefix_memo.stamp == self.prefix_stamp {
                    continue;
                }
                keeps_identity &= arena.kind(node).is_atom();
            }
            if visit.count.stamp == self.stamp {
                visit.count.value = visit.count.value.saturating_add(1);
                continue;
            }
            visit.count = Mark {
                stamp: self.stamp,
                value: 1,
            };
            self.steps_left = self
                .steps_left
                .checked_sub(1)
                .ok_or(EmitError::TooLarge("the allowed number of steps"))?;
            push_references(arena, node, &mut self.pending);
        }
        Ok(keeps_identity)
    }

    /// The nodes below `roots`, after they have been written.
    fn reached(&mut self, arena: &Arena, roots: &[NodeId]) -> Vec<NodeId> {
        let mut seen = Vec::new();
        let mut pending = roots.to_vec();
        while let Some(node) = pending.pop() {
            let Some(visit) = self.visits.get_mut(node.index()) else {
                continue;
            };
            if visit.in_prefix.stamp == self.prefixes + 1 {
                continue;
            }
            visit.in_prefix.stamp = self.prefixes + 1;
            seen.push(node);
            push_references(arena, node, &mut pending);
        }
        seen
    }

    /// Writes a node with all that hangs below it; leaves one object on the unpickler's stack.
    pub(crate) fn write(
        &mut self,
        arena: &Arena,
        node: NodeId,
        out: &mut Vec<u8>,
    ) -> Result<(), EmitError> {
        let floor = self.steps.len();
        self.steps.push(Step::Visit(node));
        while self.steps.len() > floor {
            match self.steps.pop() {
                Some(Step::Visit(node)) => self.visit(arena, node, out)?,
                Some(Step::Finish(node)) => self.finish(arena, node, out),
                Some(Step::Op(index)) => self.change(arena, index, out),
                Some(Step::Raw(code)) => out.push(code),
                None => break,
            }
        }
        Ok(())
    }

    /// Accounts for bytes written.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), EmitError> {
        self.output_left = self
            .output_left
            .checked_sub(bytes)
            .ok_or(EmitError::TooLarge("the allowed number of bytes"))?;
        Ok(())
    }

    fn visit(&mut self, arena: &Arena, node: NodeId, out: &mut Vec<u8>) -> Result<(), EmitError> {
        if let Some(slot) = self.memo(node) {
            get(slot, out);
            return Ok(());
        }
        let kind = arena.kind(node);
        if atom(arena, kind, out) {
            self.finished(arena, node, out);
            return Ok(());
        }
        match kind {
            Kind::List => out.push(op::EMPTY_LIST),
            Kind::Dict => out.push(op::EMPTY_DICT),
            Kind::Set => out.push(op::EMPTY_SET),
            Kind::Buffer { index, readonly } => {
                self.used_buffers.push(index);
                out.push(op::NEXT_BUFFER);
                if readonly {
                    out.push(op::READONLY_BUFFER);
                }
            }
            _ => return self.begin_construction(arena, node, kind, out),
        }
        self.finished(arena, node, out);
        Ok(())
    }

    /// Objects made of others: those first, then [`Step::Finish`].
    fn begin_construction(
        &mut self,
        arena: &Arena,
        node: NodeId,
        kind: Kind,
        out: &mut Vec<u8>,
    ) -> Result<(), EmitError> {
        // A tuple or call may be reached again through its own parts, once: the inner copy goes to
        // the memo, and the outer gives way to it.
        let stamp = self.stamp;
        if let Some(visit) = self.visits.get_mut(node.index()) {
            if visit.begun.stamp != stamp {
                visit.begun = Mark { stamp, value: 0 };
            }
            visit.begun.value += 1;
            if visit.begun.value > 2 {
                return Err(EmitError::Cycle);
            }
        }
        self.steps.push(Step::Finish(node));
        let needs_mark = match kind {
            Kind::Tuple(run) => run.len > 3,
            Kind::FrozenSet(_) | Kind::Obj(_) => true,
            _ => false,
        };
        if needs_mark {
            out.push(op::MARK);
        }
        match kind {
            Kind::Tuple(run) | Kind::FrozenSet(run) | Kind::Obj(run) => {
                let children = arena.children(run).iter().rev();
                self.steps.extend(children.map(|&child| Step::Visit(child)));
            }
            Kind::Global { module, name } => self.visit_all([module, name]),
            Kind::Reduce { callable, args } => self.visit_all([callable, args]),
            Kind::NewObj { cls, args } => self.visit_all([cls, args]),
            Kind::NewObjEx { cls, args, kwargs } => self.visit_all([cls, args, kwargs]),
            _ => {}
        }
        Ok(())
    }

    fn visit_all<const N: usize>(&mut self, nodes: [NodeId; N]) {
        self.steps.extend(nodes.into_iter().rev().map(Step::Visit));
    }

    fn finish(&mut self, arena: &Arena, node: NodeId, out: &mut Vec<u8>) {
        if let Some(visit) = self.visits.get_mut(node.index()) {
            visit.begun.value = visit.begun.value.saturating_sub(1);
        }
        let kind = arena.kind(node);
        if let Some(slot) = self.memo(node) {
            match kind {
                Kind::Tuple(run) if run.len <= 3 => {
                    out.extend(std::iter::repeat_n(op::POP, run.len as usize));
                }
                Kind::Tuple(_) | Kind::FrozenSet(_) | Kind::Obj(_) => out.push(op::POP_MARK),
                Kind::NewObjEx { .. } => out.extend([op::POP; 3]),
                _ => out.extend([op::POP; 2]),
            }
            get(slot, out);
            return;
        }
        out.push(match kind {
            Kind::Tuple(run) => match run.len {
                0 => op::EMPTY_TUPLE,
                1 => op::TUPLE1,
                2 => op::TUPLE2,
                3 => op::TUPLE3,
                _ => op::TUPLE,
            },
            Kind::FrozenSet(_) => op::FROZENSET,
            Kind::Obj(_) => op::OBJ,
            Kind::Global { .. } => op::STACK_GLOBAL,
            Kind::Reduce { .. } => op::REDUCE,
            Kind::NewObj { .. } => op::NEWOBJ,
            _ => op::NEWOBJ_EX,
        });
        self.finished(arena, node, out);
    }

    /// After construction: to the memo if it is referred to again, then its changes.
    fn finished(&mut self, arena: &Arena, node: NodeId, out: &mut Vec<u8>) {
        let kind = arena.kind(node);
        let shared = self.memo_all
            || self
                .visits
                .get(node.index())
                .is_some_and(|v| v.count.stamp == self.stamp && v.count.value > 1);
        if shared && worth_a_slot(kind) {
            self.memoise(node, out);
        }
        let first = arena.first_op(node);
        if first != NO_OP {
            self.steps.push(Step::Op(first));
        }
    }

    fn change(&mut self, arena: &Arena, index: u32, out: &mut Vec<u8>) {
        let Some(change) = arena.op(index) else {
            return;
        };
        if change.next != NO_OP {
            self.steps.push(Step::Op(change.next));
        }
        let children = arena.children(change.children);
        let single =
            children.len() == 1 || (change.kind == OpKind::SetItems && children.len() == 2);
        let code = match (change.kind, single) {
            (OpKind::Append, true) => op::APPEND,
            (OpKind::Append, false) => op::APPENDS,
            (OpKind::SetItems, true) => op::SETITEM,
            (OpKind::SetItems, false) => op::SETITEMS,
            (OpKind::AddItems, _) => op::ADDITEMS,
            (OpKind::Build, _) => op::BUILD,
            // The result of the call, an object nobody refers to.
            (OpKind::Effect, _) => op::POP,
        };
        if matches!(code, op::APPENDS | op::SETITEMS | op::ADDITEMS) {
            out.push(op::MARK);
        }
        self.steps.push(Step::Raw(code));
        self.steps
            .extend(children.iter().rev().map(|&child| Step::Visit(child)));
    }

    fn memo(&self, node: NodeId) -> Option<u32> {
        let visit = self.visits.get(node.index())?;
        if visit.memo.stamp == self.stamp {
            return Some(visit.memo.value);
        }
        (self.prefix_stamp != 0 && visit.prefix_memo.stamp == self.prefix_stamp)
            .then_some(visit.prefix_memo.value)
    }

    fn memoise(&mut self, node: NodeId, out: &mut Vec<u8>) {
        out.push(op::MEMOIZE);
        if let Some(visit) = self.visits.get_mut(node.index()) {
            visit.memo = Mark {
                stamp: self.stamp,
                value: self.slots,
            };
        }
        self.slots += 1;
    }
}

/// `PROTO`. Kept below 3 where the original is, since Python then maps module names of Python 2.
pub(crate) fn header(arena: &Arena, out: &mut Vec<u8>) {
    let protocol = if arena.protocol < 3 {
        arena.protocol
    } else {
        arena.protocol.max(4)
    };
    out.extend([op::PROTO, protocol]);
}

pub(crate) fn resolve(arena: &Arena, used: &[u32]) -> Vec<Bytes> {
    used.iter()
        .filter_map(|&index| arena.buffer(index).cloned())
        .collect()
}

/// Fetches a memo slot.
pub(crate) fn get(slot: u32, out: &mut Vec<u8>) {
    match u8::try_from(slot) {
        Ok(slot) => out.extend([op::BINGET, slot]),
        Err(_) => {
            out.push(op::LONG_BINGET);
            out.extend(slot.to_le_bytes());
        }
    }
}

/// A memo slot costs a byte and a fetch two: not for values that are as short themselves.
fn worth_a_slot(kind: Kind) -> bool {
    match kind {
        Kind::None | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => false,
        Kind::Str(span) | Kind::Bytes(span) => span.len > 1,
        Kind::Tuple(run) => run.len > 0,
        _ => true,
    }
}

pub(crate) fn push_references(arena: &Arena, node: NodeId, to: &mut Vec<NodeId>) {
    match arena.kind(node) {
        Kind::Tuple(run) | Kind::FrozenSet(run) | Kind::Obj(run) => {
            to.extend_from_slice(arena.children(run));
        }
        Kind::Global { module, name } => to.extend([module, name]),
        Kind::Reduce { callable, args } => to.extend([callable, args]),
        Kind::NewObj { cls, args } => to.extend([cls, args]),
        Kind::NewObjEx { cls, args, kwargs } => to.extend([cls, args, kwargs]),
        _ => {}
    }
    for (_, children) in arena.ops(node) {
        to.extend_from_slice(children);
    }
}

/// Writes values that consist of nothing else; false if it is none of those.
fn atom(arena: &Arena, kind: Kind, out: &mut Vec<u8>) -> bool {
    match kind {
        Kind::None => out.push(op::NONE),
        Kind::Bool(true) => out.push(op::NEWTRUE),
        Kind::Bool(false) => out.push(op::NEWFALSE),
        Kind::Int(value) => int(value, out),
        Kind::Float(value) => {
            out.push(op::BINFLOAT);
            out.extend(value.to_be_bytes());
        }
        Kind::Long(span) => {
            let bytes = arena.bytes(span);
            sized(bytes, [Some(op::LONG1), Some(op::LONG4), None], out);
        }
        Kind::Str(span) => text(arena.bytes(span), out),
        Kind::Bytes(span) => bytes(arena.bytes(span), out),
        Kind::ByteArray(span) => sized(arena.bytes(span), [None, None, Some(op::BYTEARRAY8)], out),
        _ => return false,
    }
    true
}

pub(crate) fn text(utf8: &[u8], out: &mut Vec<u8>) {
    let codes = [op::SHORT_BINUNICODE, op::BINUNICODE, op::BINUNICODE8].map(Some);
    sized(utf8, codes, out);
}

pub(crate) fn bytes(value: &[u8], out: &mut Vec<u8>) {
    let codes = [op::SHORT_BINBYTES, op::BINBYTES, op::BINBYTES8].map(Some);
    sized(value, codes, out);
}

pub(crate) fn int(value: i64, out: &mut Vec<u8>) {
    if let Ok(byte) = u8::try_from(value) {
        out.extend([op::BININT1, byte]);
    } else if let Ok(short) = u16::try_from(value) {
        out.push(op::BININT2);
        out.extend(short.to_le_bytes());
    } else if let Ok(word) = i32::try_from(value) {
        out.push(op::BININT);
        out.extend(word.to_le_bytes());
    } else {
        out.extend([op::LONG1, 8]);
        out.extend(value.to_le_bytes());
    }
}

/// Bytes behind the shortest of the opcodes with a length of 1, 4 and 8 bytes.
fn sized(bytes: &[u8], codes: [Option<u8>; 3], out: &mut Vec<u8>) {
    let [short, medium, long] = codes;
    if let (Some(code), Ok(len)) = (short, u8::try_from(bytes.len())) {
        out.extend([code, len]);
    } else if let (Some(code), Ok(len)) = (medium, u32::try_from(bytes.len())) {
        out.push(code);
        out.extend(len.to_le_bytes());
    } else if let Some(code) = long {
        out.push(code);
        out.extend((bytes.len() as u64).to_le_bytes());
    }
    out.extend_from_slice(bytes);
}
