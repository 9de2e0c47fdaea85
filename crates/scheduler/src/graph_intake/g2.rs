//! Releases 2020.12.0 – 2023.3.2.1: packed layers, expanded by Python of the client's release.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_wire::message::Message;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::fields::Fields;
use super::{GraphError, Taken, by_python};
use crate::context::Context;
use crate::python_host::{ExpandRequest, SubmittedGraph};

/// The tasks of the layers.
pub(super) async fn expand(
    context: &Arc<Context>,
    release: Release,
    hlg: Value,
    fields: &Fields,
) -> Result<Taken, GraphError> {
    let message = Message::from_value(&Value::map([("hlg", hlg)]));
    let frames: Vec<Bytes> = message.frames().cloned().collect();
    let request = ExpandRequest {
        graph: SubmittedGraph::Layers { frames },
        keys: fields.keys.clone(),
        annotations: Vec::new(),
        release,
    };
    by_python::expand(context, request, fields).await
}
