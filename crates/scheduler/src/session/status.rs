//! `subscribe_worker_status`: the identity, then workers as they come and go.

use std::sync::Arc;

use oxidask_wire::connection::{Reader, Writer};
use oxidask_wire::message::Message;
use oxidask_wire::value::Value;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::handlers::identity::scheduler_identity;

/// Serves a subscriber until it leaves.
pub(super) async fn run(context: Arc<Context>, mut reader: Reader, mut writer: Writer) {
    // Before the identity is taken, so that no worker falls between the two. One that is in both
    // is told twice, which subscribers accept.
    let mut changes = context.status_feed.subscribe();
    let Ok(mut identity) = scheduler_identity(&context, usize::MAX).await else {
        return;
    };
    if let Some(Value::Map(workers)) = identity.get_mut("workers") {
        for (_, worker) in workers {
            worker.remove("metrics");
            worker.remove("last_seen");
        }
    }
    if writer.send(&Message::from_value(&identity)).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            batch = next_batch(&mut changes) => {
                let Some(batch) = batch else { return };
                if writer.send(&Message::from_value(&batch)).await.is_err() {
                    return;
                }
            }
            // Subscribers send nothing; this is their end.
            _ = reader.read() => return,
        }
    }
}

async fn next_batch(changes: &mut mpsc::UnboundedReceiver<Value>) -> Option<Value> {
    let mut batch = vec![changes.recv().await?];
    while let Ok(more) = changes.try_recv() {
        batch.push(more);
    }
    Some(Value::Array(batch))
}
