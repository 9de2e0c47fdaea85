//! `feed`: values of a client's function at an interval, until the client leaves.

use std::sync::Arc;

use oxidask_wire::connection::{Reader, Writer};
use oxidask_wire::message::Message;

use crate::context::Context;
use crate::rpc::{self, Call, RpcError};

/// Serves a feed until it or the client ends.
pub(super) async fn run(context: Arc<Context>, call: Call, mut reader: Reader, mut writer: Writer) {
    let serve = async {
        let error = match context.python.feed(&call).await {
            Ok(mut feed) => loop {
                match feed.next().await {
                    Some(Ok(value)) => writer.send(&Message::from_value(&value)).await?,
                    Some(Err(error)) => break error,
                    None => return Ok(()),
                }
            },
            Err(error) => error,
        };
        tracing::warn!(target: "distributed.scheduler", "feed for {}: {error}", call.caller.address);
        let limit = context.settings.max_error_length;
        let answer = match RpcError::from(error) {
            RpcError::Forward(map) => map,
            error => rpc::error_reply(&error, &call.caller, limit),
        };
        writer.send(&Message::from_value(&answer)).await
    };
    tokio::select! {
        end = serve => if let Err(error) = end {
            tracing::debug!("feed for {}: {error}", call.caller.address);
        },
        // The client sends nothing; this is its end.
        _ = reader.read() => {}
    }
}
