//! Ops that change the state in one step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oxidask_key::Key;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::task::TaskState;
use oxidask_wire::value::Value;

use crate::clock;
use crate::context::Context;
use crate::rpc::{Call, Reply, RpcError, keys_of};
use crate::session::client::incoming::placements;

fn stimulus(call: &Call, name: &str) -> Arc<str> {
    match call.get("stimulus_id").and_then(Value::as_str) {
        Some(id) => id.into(),
        None => format!("{name}-{}", clock::now().0).into(),
    }
}

/// How long `cancel` waits for keys that nobody wants yet, and between two looks.
const CANCEL_WAIT: Duration = Duration::from_secs(1);
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// `cancel` (≤ 2023.3.0; later on the client's stream). The graph of the keys comes by another
/// connection and may still be on its way, so unknown keys are looked for again for a while.
pub async fn cancel(context: Arc<Context>, call: Call) -> Reply {
    let mut keys = call.keys("keys")?;
    let name = call.opt_str("client")?.unwrap_or_default();
    let client = context.clients.pseudo(&context.core, name);
    let force = call.flag("force", false);
    let deadline = Instant::now() + CANCEL_WAIT;
    loop {
        let look = move |state: &oxidask_scheduler_core::Scheduler| {
            keys.into_iter().partition::<Vec<_>, _>(|key| {
                let task = state.task(key);
                task.is_some_and(|task| task.who_wants().next().is_some())
            })
        };
        let (wanted, unknown) = context.core.query(look).await?;
        if !wanted.is_empty() {
            let event = Event::CancelKeys {
                client,
                keys: wanted,
                force,
                reason: None,
                msg: None,
                stimulus_id: stimulus(&call, "cancel-keys"),
            };
            context.core.apply(vec![event]).await?;
        }
        if unknown.is_empty() || Instant::now() >= deadline {
            return Ok(Value::Nil);
        }
        keys = unknown;
        tokio::time::sleep(CANCEL_POLL).await;
    }
}

/// `retry`: the failed tasks among these, and those that failed for them, run again. Answers all
/// keys concerned.
pub async fn retry(context: Arc<Context>, call: Call) -> Reply {
    let keys = call.keys("keys")?;
    if let Some(client) = call.opt_str("client")? {
        let count = keys.len();
        let event = Value::map([("action", Value::from("retry")), ("count", count.into())]);
        context.log_event(&[client], &event);
    }
    let touched = {
        let keys = keys.clone();
        let look = move |state: &oxidask_scheduler_core::Scheduler| {
            let mut stack = keys;
            let mut seen = indexmap::IndexSet::<Key>::new();
            while let Some(key) = stack.pop() {
                let Some(task) = state.task(&key) else {
                    return Err(key);
                };
                if seen.insert(key) {
                    let failed = task
                        .dependencies()
                        .filter(|d| d.state() == TaskState::Erred);
                    stack.extend(failed.map(|d| d.key().clone()));
                }
            }
            Ok(seen.into_iter().collect::<Vec<_>>())
        };
        context
            .core
            .query(look)
            .await?
            .map_err(RpcError::key_error)?
    };
    let event = Event::RetryKeys {
        keys,
        stimulus_id: stimulus(&call, "stimulus-retry"),
    };
    context.core.apply(vec![event]).await?;
    Ok(Value::array(touched))
}

/// `update_data`: a client has put data on workers.
pub async fn update_data(context: Arc<Context>, call: Call) -> Reply {
    let who_has = call.required("who_has")?.as_map().unwrap_or(&[]);
    let holders = |value: &Value| -> Vec<String> {
        let addresses = value.as_seq().unwrap_or(&[]).iter();
        addresses
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect()
    };
    let who_has = who_has
        .iter()
        .filter_map(|(key, value)| Some((key.to_key()?, holders(value))))
        .collect();
    let nbytes = call.get("nbytes").and_then(Value::as_map).unwrap_or(&[]);
    let nbytes = nbytes
        .iter()
        .filter_map(|(key, size)| Some((key.to_key()?, size.as_u64()?)))
        .collect();
    let client = call.opt_str("client")?;
    let event = Event::UpdateData {
        data: placements(who_has, nbytes),
        client: client.map(|name| context.clients.pseudo(&context.core, name)),
        stimulus_id: stimulus(&call, "update-data"),
    };
    context.core.apply(vec![event]).await?;
    Ok(Value::Nil)
}

/// `set_restrictions`: pins keys to workers.
pub async fn set_restrictions(context: Arc<Context>, call: Call) -> Reply {
    let entries = call.required("worker")?.as_map().unwrap_or(&[]);
    let addresses = |value: &Value| -> Option<Vec<Arc<str>>> {
        if let Some(address) = value.as_str() {
            return Some(vec![address.into()]);
        }
        let addresses = value.as_seq()?.iter().filter_map(Value::as_str);
        let addresses: Vec<Arc<str>> = addresses.map(Arc::from).collect();
        (!addresses.is_empty()).then_some(addresses)
    };
    let restrictions = entries
        .iter()
        .filter_map(|(key, value)| Some((key.to_key()?, addresses(value))))
        .collect();
    context
        .core
        .apply(vec![Event::SetRestrictions { restrictions }])
        .await?;
    Ok(Value::Nil)
}

/// `add_keys`: a worker holds copies.
pub async fn add_keys(context: Arc<Context>, call: Call) -> Reply {
    let Some(worker) = context.workers.at(call.str("worker")?) else {
        return Ok("not found".into());
    };
    let keys = call.get("keys").and_then(keys_of).unwrap_or_default();
    let event = Event::AddKeys {
        worker: worker.id,
        keys,
        stimulus_id: stimulus(&call, "add-keys"),
    };
    context.core.apply(vec![event]).await?;
    Ok("OK".into())
}

/// `set_resources`: abstract resources of a worker.
pub async fn set_resources(context: Arc<Context>, call: Call) -> Reply {
    let address = call.str("worker")?;
    let worker = context
        .workers
        .at(address)
        .ok_or_else(|| RpcError::key_error(address))?;
    let resources = call.get("resources").and_then(Value::as_map).unwrap_or(&[]);
    let resources = resources
        .iter()
        .filter_map(|(name, amount)| Some((Arc::from(name.as_str()?), amount.as_f64()?)))
        .collect();
    let event = Event::SetResources {
        worker: worker.id,
        resources,
        stimulus_id: stimulus(&call, "set-resources"),
    };
    context.core.apply(vec![event]).await?;
    Ok("OK".into())
}

/// `unregister`: a worker leaves (≤ 2022.05.0), or its nanny tells that it died.
pub async fn unregister(context: Arc<Context>, call: Call) -> Reply {
    let Some(worker) = context.workers.at(call.str("address")?) else {
        return Ok("already-removed".into());
    };
    let mut events = Vec::new();
    if let Some(death) = context.obituaries.take(&worker) {
        events.push(Event::WorkerDied {
            worker: worker.id,
            death,
        });
    }
    events.push(Event::RemoveWorker {
        worker: worker.id,
        // `safe`: the worker itself says that its tasks are not to blame.
        expected: call.flag("safe", false) || call.flag("expected", false),
        close: call.flag("close", true),
        stimulus_id: stimulus(&call, "unregister"),
    });
    context.core.apply(events).await?;
    Ok("OK".into())
}

/// `amm_handler`: the active memory manager.
pub async fn amm_handler(context: Arc<Context>, call: Call) -> Reply {
    let event = match call.str("method")? {
        "start" => Event::SetMemoryManager { enabled: true },
        "stop" => Event::SetMemoryManager { enabled: false },
        "run_once" => {
            context.core.apply(vec![Event::RunMemoryManager]).await?;
            context.python.run_policies().await?;
            return Ok(Value::Nil);
        }
        "running" => {
            let running = context.core.query(|state| state.memory_manager_running());
            return Ok(running.await?.into());
        }
        method => {
            return Err(RpcError::value_error(format!(
                "method must be one of start, stop, run_once, running; got '{method}'"
            )));
        }
    };
    context.core.apply(vec![event]).await?;
    Ok(Value::Nil)
}

/// `amm_start` (2021.09.1 – 2021.11.1).
pub async fn amm_start(context: Arc<Context>, _call: Call) -> Reply {
    let event = Event::SetMemoryManager { enabled: true };
    context.core.apply(vec![event]).await?;
    Ok(Value::Nil)
}

/// `amm_stop` (2021.09.1 – 2021.11.1).
pub async fn amm_stop(context: Arc<Context>, _call: Call) -> Reply {
    let event = Event::SetMemoryManager { enabled: false };
    context.core.apply(vec![event]).await?;
    Ok(Value::Nil)
}

/// `amm_run_once` (2021.09.1 – 2021.11.1).
pub async fn amm_run_once(context: Arc<Context>, _call: Call) -> Reply {
    context.core.apply(vec![Event::RunMemoryManager]).await?;
    context.python.run_policies().await?;
    Ok(Value::Nil)
}

/// `terminate`: the whole cluster ends.
pub async fn terminate(context: Arc<Context>, _call: Call) -> Reply {
    context.shutdown.request("client-shutdown");
    Ok(Value::Nil)
}
