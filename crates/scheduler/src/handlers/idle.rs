//! `check_idle`: since when nothing was to be done.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::ids::Timestamp;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::core_thread::CoreStopped;
use crate::rpc::{Call, Reply};

/// The op.
pub async fn check_idle(context: Arc<Context>, _call: Call) -> Reply {
    let since = check(&context).await?;
    Ok(since.map_or(Value::Nil, |since| since.0.into()))
}

/// Looks whether the cluster does nothing; since when.
///
/// # Errors
/// When the core has stopped.
pub async fn check(context: &Context) -> Result<Option<Timestamp>, CoreStopped> {
    let busy = context.active_graphs.load(Ordering::Relaxed) > 0;
    context.core.send(Event::CheckIdle { busy });
    context.core.query(|state| state.idle_since()).await
}
