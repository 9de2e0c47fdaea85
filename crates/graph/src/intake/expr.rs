//! Pickled expressions: `expr_ser` of `update-graph` (distributed ≥ 2025.4.0).
//!
//! Every expression is pickled as a call of `Expr._reconstruct(type, *operands, token, cache)`.
//! This file takes that apart and hands over to the file that knows the type.

use bytes::Bytes;
use oxidask_key::Key;

use crate::pickle::arena::{Arena, NodeId};
use crate::pickle::walker::{Limits, walk};

use super::{Intake, IntakeError, SplitGraph, Stop, answer, hlg, legacy, map_expr};

/// Splits an expression into tasks, given the frames of `expr_ser` (the pickle first, then its
/// buffers) and the keys the client wants.
///
/// The tasks are those of the scheduler's own materialisation, before it looks at what is in memory
/// already: for low-level graphs culled to `wanted`, for others as the expression says. Order them
/// (if the client gave no `internal_priority`) before culling the rest, as stock does.
///
/// # Errors
/// See [`IntakeError`]: the frames are not a readable pickle or exceed `limits`.
pub fn split_expr(frames: &[Bytes], wanted: &[Key], limits: Limits) -> Result<Intake, IntakeError> {
    answer(split(frames, wanted, limits))
}

fn split(frames: &[Bytes], wanted: &[Key], limits: Limits) -> Result<SplitGraph, Stop> {
    let (pickle, buffers) = match frames {
        [pickle, buffers @ ..] => (pickle.clone(), buffers.to_vec()),
        [] => (Bytes::new(), Vec::new()),
    };
    let (mut arena, root) = walk(pickle, buffers, limits)?;
    // Expressions travel bare or in the wrapper that marks them for pickling.
    let root = unwrap(&arena, root).unwrap_or(root);
    let expr = Expr::read(&arena, root).ok_or_else(|| Stop::python("not a known expression"))?;
    match expr.class_name() {
        ("dask._expr", "LLGExpr") => {
            let dsk = expr.operand(0)?;
            legacy::split_low_level_graph(&mut arena, dsk, wanted, limits)
        }
        ("distributed.client", "_MapExpr") => {
            map_expr::split_map(&mut arena, &expr, wanted, limits)
        }
        ("dask._expr", "HLGExpr" | "_HLGExprGroup" | "_HLGExprSequence") => {
            hlg::split_high_level_graph(&mut arena, &expr, wanted, limits)
        }
        (module, name) => Err(Stop::python(format!("expression {module}.{name}"))),
    }
}

/// The content of a `ToPickle` or `Serialize` wrapper.
fn unwrap(arena: &Arena, node: NodeId) -> Option<NodeId> {
    let crate::pickle::arena::Kind::NewObj { cls, .. } = arena.kind(node) else {
        return None;
    };
    let ("distributed.protocol.serialize", "ToPickle" | "Serialize") = arena.global(cls)? else {
        return None;
    };
    arena
        .dict(arena.state(node)?)?
        .into_iter()
        .find(|&(name, _)| arena.text(name) == Some("data"))
        .map(|(_, data)| data)
}

/// An expression, taken apart.
pub(super) struct Expr {
    module: String,
    name: String,
    pub(super) operands: Vec<NodeId>,
    cache: NodeId,
}

impl Expr {
    pub(super) fn read(arena: &Arena, node: NodeId) -> Option<Self> {
        let ("dask._expr", "Expr._reconstruct", args) = arena.call(node)? else {
            return None;
        };
        if arena.ops(node).next().is_some() {
            return None;
        }
        let [class, operands @ .., _token, cache] = args else {
            return None;
        };
        let (module, name) = arena.global(*class)?;
        Some(Self {
            module: module.to_owned(),
            name: name.to_owned(),
            operands: operands.to_vec(),
            cache: *cache,
        })
    }

    pub(super) fn class_name(&self) -> (&str, &str) {
        (&self.module, &self.name)
    }

    pub(super) fn operand(&self, index: usize) -> Result<NodeId, Stop> {
        self.operands.get(index).copied().ok_or_else(|| {
            Stop::python(format!(
                "{} with {} operands",
                self.name,
                self.operands.len()
            ))
        })
    }

    /// Whether the client has cached a property of that name, which then takes precedence.
    pub(super) fn caches(&self, arena: &Arena, property: &str) -> bool {
        match arena.dict(self.cache) {
            Some(items) => items
                .iter()
                .any(|&(name, _)| arena.text(name) == Some(property)),
            None => true,
        }
    }
}
