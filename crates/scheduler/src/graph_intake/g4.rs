//! Releases from 2025.4.0 on: a pickled expression, split natively where its class is known.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_graph::{Intake, decode_plain};
use oxidask_wire::payload::Payload;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::fields::Fields;
use super::options::value_of;
use super::{GraphError, Taken, by_python, split};
use crate::aside::aside;
use crate::context::Context;
use crate::memory;
use crate::python_host::{ExpandRequest, SubmittedGraph};

/// Bytes that a graph may have when it is decompressed and joined.
const MAX_GRAPH_BYTES: usize = 4 << 30;
/// Graphs of at least this many bytes are split on a thread of their own.
const LARGE_GRAPH: usize = 1 << 20;

/// The tasks of the expression.
pub(super) async fn expand(
    context: &Arc<Context>,
    release: Release,
    expr: Value,
    fields: &Fields,
) -> Result<Taken, GraphError> {
    let payload = expr
        .as_payload()
        .ok_or_else(|| GraphError::Malformed(format!("`expr_ser` is a {}", expr.type_name())))?;
    let frames = aside(payload.wire_bytes() / 100, || frames_of(payload))?;
    let reason = match plain(&fields.annotations)? {
        Err(reason) => reason,
        Ok(annotations) => match split_expr(&frames, fields).await? {
            Intake::Split(graph) => {
                let size = graph.tasks.len();
                return aside(size, move || {
                    // A large message is given back before more is needed.
                    drop((frames, expr));
                    split::taken(graph, &annotations, fields, release)
                });
            }
            Intake::NeedsPython(reason) => reason.to_string(),
        },
    };
    tracing::debug!("a graph goes to the Python host: {reason}");
    let request = ExpandRequest {
        graph: SubmittedGraph::Expression {
            header: payload.header_bytes().clone(),
            frames,
        },
        keys: fields.keys.clone(),
        annotations: pickled_annotations(&fields.annotations)?,
        release,
    };
    by_python::expand(context, request, fields).await
}

async fn split_expr(frames: &[Bytes], fields: &Fields) -> Result<Intake, GraphError> {
    let split = |frames: &[Bytes], keys: &[oxidask_key::Key]| {
        oxidask_graph::intake::expr::split_expr(frames, keys, Default::default())
    };
    if frames.iter().map(Bytes::len).sum::<usize>() < LARGE_GRAPH {
        return Ok(split(frames, &fields.keys)?);
    }
    let (frames, keys) = (frames.to_vec(), fields.keys.clone());
    let done = tokio::task::spawn_blocking(move || {
        let intake = split(&frames, &keys);
        drop((frames, keys));
        if let Ok(Intake::Split(graph)) = &intake {
            // What follows is done on other threads, and needs as much again.
            memory::give_back_after(graph.tasks.len());
        }
        intake
    });
    let done = done.await;
    match done {
        Ok(intake) => Ok(intake?),
        Err(error) => Err(GraphError::Malformed(format!("cannot be split: {error}"))),
    }
}

/// The pickle and its buffers.
fn frames_of(payload: &Payload) -> Result<Vec<Bytes>, GraphError> {
    let malformed = |what: String| GraphError::Malformed(format!("a pickled field: {what}"));
    let pickle = payload
        .as_pickle(MAX_GRAPH_BYTES)
        .map_err(|error| malformed(error.to_string()))?;
    let (pickle, buffers) = pickle.ok_or_else(|| malformed("not a pickle".to_owned()))?;
    Ok(std::iter::once(pickle).chain(buffers).collect())
}

/// Annotations of the whole submission as the pickle they came in.
pub(super) fn pickled_annotations(annotations: &Value) -> Result<Vec<Bytes>, GraphError> {
    match annotations {
        Value::Payload(payload) => frames_of(payload),
        _ => Ok(Vec::new()),
    }
}

/// The annotations of the whole submission; why not, when they are more than plain values.
pub(super) fn plain(annotations: &Value) -> Result<Result<Value, String>, GraphError> {
    let Value::Payload(payload) = annotations else {
        return Ok(Ok(annotations.clone()));
    };
    let mut frames = frames_of(payload)?.into_iter();
    let pickle = frames.next().unwrap_or_default();
    Ok(decode_plain(pickle, frames.collect())
        .map(value_of)
        .map_err(|error| format!("annotations: {error}")))
}
