//! `register_nanny` (since 2021.07.2): a nanny fetches its plugins. Since 2023.9.0 the connection
//! stays open until the nanny reports that they are installed.

use std::sync::Arc;

use oxidask_wire::connection::{Reader, Writer};
use oxidask_wire::message::Message;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::rpc::Call;

/// Serves a nanny's registration.
pub(super) async fn run(context: Arc<Context>, call: Call, mut reader: Reader, mut writer: Writer) {
    let address = call.opt_str("address").ok().flatten();
    let starting = address.map(|address| context.nannies.begin(address));
    let reply = Value::map([
        ("status", Value::from("OK")),
        ("nanny-plugins", context.plugins.for_nanny()),
    ]);
    if writer.send(&Message::from_value(&reply)).await.is_err() {
        return;
    }
    // Its report, or its end; both mean that it starts no longer.
    let _ = reader.read().await;
    drop(starting);
}
