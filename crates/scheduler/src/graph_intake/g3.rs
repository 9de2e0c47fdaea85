//! Releases 2023.4.0 – 2025.3.1: a pickled `HighLevelGraph`, expanded by Python of the client's
//! release.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::fields::Fields;
use super::g4::pickled_annotations;
use super::{GraphError, Taken, by_python};
use crate::context::Context;
use crate::python_host::{ExpandRequest, SubmittedGraph};

/// The tasks of the graph.
pub(super) async fn expand(
    context: &Arc<Context>,
    release: Release,
    header: &Value,
    frames: &Value,
    fields: &Fields,
) -> Result<Taken, GraphError> {
    let malformed = |what: &str| GraphError::Malformed(format!("`graph_frames`: {what}"));
    let frames = frames.as_seq().ok_or_else(|| malformed("not a list"))?;
    let frames: Option<Vec<Bytes>> = frames.iter().map(|frame| frame.as_bin().cloned()).collect();
    let request = ExpandRequest {
        graph: SubmittedGraph::Hlg {
            header: header.encode(),
            frames: frames.ok_or_else(|| malformed("not bytes"))?,
        },
        keys: fields.keys.clone(),
        annotations: pickled_annotations(&fields.annotations)?,
        release,
    };
    by_python::expand(context, request, fields).await
}
