//! Writing the tasks of one graph, with what many of them share written once.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::pickle::arena::{Arena, NodeId};
use crate::pickle::emit::{Emitter, Pickle, Prefix, push_references, resolve};
use crate::pickle::opcodes as op;
use crate::pickle::walker::Limits;

use super::{Spec, Stop};

/// From this size on (bytes, roughly) a shared part of a task is put into a prefix.
const WORTH_SHARING: u32 = 256;

/// See the module's head.
pub(super) struct TaskWriter {
    pub(super) emitter: Emitter,
    prefixes: HashMap<Vec<NodeId>, Prefix>,
    scratch: Vec<u8>,
    pending: Vec<NodeId>,
    seen: HashSet<NodeId>,
}

impl TaskWriter {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            emitter: Emitter::new(limits),
            prefixes: HashMap::new(),
            scratch: Vec::new(),
            pending: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// The spec of a task that is a node of the arena.
    pub(super) fn write(&mut self, arena: &Arena, node: NodeId) -> Result<Spec, Stop> {
        let common = self.common_parts(arena, node);
        if common.is_empty() {
            return self.write_alone(arena, node);
        }
        let prefix = match self.prefixes.remove(&common) {
            Some(prefix) => prefix,
            None => self.emitter.prefix(arena, &common)?,
        };
        let spec = match self.write_after(arena, &prefix, node) {
            Ok(None) | Err(Stop::Python(_)) => self.write_alone(arena, node),
            Ok(Some(spec)) => Ok(spec),
            Err(stop) => Err(stop),
        };
        self.prefixes.insert(common, prefix);
        spec
    }

    /// The largest parts of a task that other tasks may have as well, sorted.
    fn common_parts(&mut self, arena: &Arena, node: NodeId) -> Vec<NodeId> {
        let mut common = Vec::new();
        if arena.weight(node) < WORTH_SHARING {
            return common;
        }
        self.pending.clear();
        self.seen.clear();
        self.pending.push(node);
        while let Some(part) = self.pending.pop() {
            if arena.weight(part) < WORTH_SHARING || !self.seen.insert(part) {
                continue;
            }
            if part != node && arena.is_shared(part) {
                common.push(part);
                continue;
            }
            push_references(arena, part, &mut self.pending);
        }
        common.sort_unstable();
        common
    }

    /// The spec on top of a prefix; nothing if it shares more with it than it can refer to.
    fn write_after(
        &mut self,
        arena: &Arena,
        prefix: &Prefix,
        node: NodeId,
    ) -> Result<Option<Spec>, Stop> {
        self.emitter.begin(arena, Some(prefix));
        if !self.emitter.count(arena, &[node])? {
            return Ok(None);
        }
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        self.emitter.write(arena, node, &mut out)?;
        out.push(op::STOP);
        let spec = self.spec(arena, Some(prefix), &out)?;
        self.scratch = out;
        Ok(Some(spec))
    }

    /// The spec of a task that shares nothing.
    pub(super) fn write_alone(&mut self, arena: &Arena, node: NodeId) -> Result<Spec, Stop> {
        let mut out = std::mem::take(&mut self.scratch);
        self.emitter.alone(arena, node, &mut out)?;
        let spec = self.spec(arena, None, &out);
        self.scratch = out;
        spec
    }

    /// Packs up what the emitter has written into `body`.
    pub(super) fn spec(
        &mut self,
        arena: &Arena,
        prefix: Option<&Prefix>,
        body: &[u8],
    ) -> Result<Spec, Stop> {
        self.emitter.spend(body.len())?;
        Ok(Spec {
            pickle: Pickle {
                prefix: prefix.map(|prefix| Arc::clone(&prefix.bytes)),
                body: body.into(),
            },
            buffers: resolve(arena, &self.emitter.used_buffers),
        })
    }
}
