//! Releases from 2025.4.0 on: a pickled expression.

use std::sync::Arc;

use oxidask_graph::{Intake, decode_plain};
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::fields::Fields;
use super::options::value_of;
use super::{GraphError, Taken, split};
use crate::context::Context;

/// Bytes that a graph may have when it is decompressed and joined.
const MAX_GRAPH_BYTES: usize = 4 << 30;

/// The tasks of the expression.
pub(super) async fn expand(
    _context: &Arc<Context>,
    _release: Release,
    expr: &Value,
    fields: &mut Fields,
) -> Result<Taken, GraphError> {
    let frames = frames_of(expr)?;
    let needs_python = |reason: String| GraphError::NeedsPython {
        reason,
        host: "this scheduler has no Python host yet".to_owned(),
    };
    let annotations = match plain(&fields.annotations) {
        Ok(annotations) => annotations,
        Err(reason) => return Err(needs_python(reason)),
    };
    match oxidask_graph::intake::expr::split_expr(&frames, &fields.keys, Default::default())? {
        Intake::Split(graph) => Ok(split::taken(graph, &annotations, fields)),
        Intake::NeedsPython(reason) => Err(needs_python(reason.to_string())),
    }
}

/// The pickle and its buffers.
fn frames_of(expr: &Value) -> Result<Vec<bytes::Bytes>, GraphError> {
    let malformed = |what: String| GraphError::Malformed(format!("`expr_ser`: {what}"));
    let payload = expr
        .as_payload()
        .ok_or_else(|| malformed(format!("a {}", expr.type_name())))?;
    let pickle = payload
        .as_pickle(MAX_GRAPH_BYTES)
        .map_err(|error| malformed(error.to_string()))?;
    let (pickle, buffers) = pickle.ok_or_else(|| malformed("not a pickle".to_owned()))?;
    Ok(std::iter::once(pickle).chain(buffers).collect())
}

/// The annotations of the whole submission; why not, when they are more than plain values.
pub(super) fn plain(annotations: &Value) -> Result<Value, String> {
    let Value::Payload(payload) = annotations else {
        return Ok(annotations.clone());
    };
    let pickle = payload
        .as_pickle(64 << 20)
        .map_err(|error| error.to_string())?;
    let (pickle, buffers) = pickle.ok_or("annotations are not pickled")?;
    let plain = decode_plain(pickle, buffers).map_err(|error| format!("annotations: {error}"))?;
    Ok(value_of(plain))
}
