//! Worker and nanny plugins: kept for later peers, passed on to those connected.

use std::sync::Arc;

use oxidask_wire::value::Value;

use crate::context::Context;
use crate::handlers::broadcast::{OnError, all, ask_all};
use crate::rpc::{Call, Reply, RpcError};

/// `register_worker_plugin`.
pub async fn register_worker_plugin(context: Arc<Context>, call: Call) -> Reply {
    let (name, plugin) = named_plugin(&call)?;
    tracing::info!(target: "distributed.scheduler", "Registering Worker plugin {name}");
    {
        let mut plugins = context.plugins.workers.write();
        if call.flag("idempotent", false) && plugins.contains_key(&name) {
            return Ok(Value::Map(Vec::new()));
        }
        plugins.insert(name.clone(), plugin.clone());
    }
    pass_on(&context, add("plugin-add", &name, plugin), false).await
}

/// `unregister_worker_plugin`.
pub async fn unregister_worker_plugin(context: Arc<Context>, call: Call) -> Reply {
    let name = plugin_name(&call)?;
    let known = context.plugins.workers.write().shift_remove(&name);
    if known.is_none() {
        return Err(RpcError::value_error(format!(
            "The worker plugin {name} does not exist"
        )));
    }
    pass_on(&context, remove("plugin-remove", &name), false).await
}

/// `register_nanny_plugin`.
pub async fn register_nanny_plugin(context: Arc<Context>, call: Call) -> Reply {
    let (name, plugin) = named_plugin(&call)?;
    tracing::info!(target: "distributed.scheduler", "Registering Nanny plugin {name}");
    {
        let mut plugins = context.plugins.nannies.write();
        if call.flag("idempotent", false) && plugins.contains_key(&name) {
            return Ok(Value::Map(Vec::new()));
        }
        plugins.insert(name.clone(), plugin.clone());
    }
    context.nannies.all_started().await;
    pass_on(&context, add("plugin_add", &name, plugin), true).await
}

/// `unregister_nanny_plugin`.
pub async fn unregister_nanny_plugin(context: Arc<Context>, call: Call) -> Reply {
    let name = plugin_name(&call)?;
    let known = context.plugins.nannies.write().shift_remove(&name);
    if known.is_none() {
        return Err(RpcError::value_error(format!(
            "The nanny plugin {name} does not exist"
        )));
    }
    pass_on(&context, remove("plugin_remove", &name), true).await
}

fn plugin_name(call: &Call) -> Result<String, RpcError> {
    call.required("name")?;
    call.text("name")
        .ok_or_else(|| RpcError::type_error("plugin name must be str"))
}

fn named_plugin(call: &Call) -> Result<(String, bytes::Bytes), RpcError> {
    let plugin = call.required("plugin")?;
    let bytes = plugin
        .as_bin()
        .ok_or_else(|| call.wrong("plugin", "bytes", plugin))?;
    Ok((plugin_name(call)?, bytes.clone()))
}

fn add(op: &str, name: &str, plugin: bytes::Bytes) -> Value {
    Value::map([
        ("op", Value::from(op)),
        ("plugin", plugin.into()),
        ("name", name.into()),
    ])
}

fn remove(op: &str, name: &str) -> Value {
    Value::map([("op", op), ("name", name)])
}

async fn pass_on(context: &Arc<Context>, msg: Value, nanny: bool) -> Reply {
    let targets = all(context);
    let answers = ask_all(context, &targets, msg, nanny, OnError::Raise).await?;
    Ok(answers.into_iter().collect())
}
