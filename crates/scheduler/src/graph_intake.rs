//! From each era's submission to a [`GraphUpdate`](oxidask_scheduler_core::graph::GraphUpdate):
//! natively where possible, through the Python host where not.

use std::sync::Arc;

use oxidask_wire::value::Value;

use crate::clients::ClientEntry;
use crate::context::Context;

/// Takes a graph in; what cannot be taken in is told to the client as failed tasks.
pub async fn update_graph(_context: &Arc<Context>, client: &Arc<ClientEntry>, _message: Value) {
    tracing::error!("graphs of client {} are not supported yet", client.name);
}
