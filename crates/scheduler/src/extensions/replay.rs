//! `Client.recreate_error_locally` and `recreate_task_locally`: which task failed, and what it ran.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_wire::message::worker::{LegacySpec, RunSpec};
use oxidask_wire::payload::Payload;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::ops::Ops;
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable};

/// First release whose `get_runspec` is answered by the run spec alone.
const RUN_SPEC_ALONE: Release = Release::new(2024, 11, 0);

/// The ops; there is no state.
#[derive(Default)]
pub(crate) struct ReplayExtension;

/// A task to be replayed.
struct Replay {
    key: Key,
    /// Of the client that submitted it.
    release: Option<Release>,
    run_spec: Value,
    dependencies: Vec<Key>,
}

impl Replay {
    fn of(scheduler: &Scheduler, key: &Key) -> Option<Self> {
        let task = scheduler.task(key)?;
        let run_spec = task.run_spec().and_then(|spec| spec.get::<RunSpec>());
        Some(Self {
            key: key.clone(),
            release: Release::parse(task.release()),
            run_spec: run_spec.map_or(Value::Nil, run_spec_value),
            dependencies: task.dependencies().map(|d| d.key().clone()).collect(),
        })
    }
}

/// The first of `keys` that failed, or rather the task it failed for.
fn error_cause(scheduler: &Scheduler, keys: &[Key]) -> Option<Key> {
    let mut tasks = keys.iter().filter_map(|key| scheduler.task(key));
    tasks.find_map(|task| task.exception_blame().cloned())
}

/// A run spec as clients of its release read it.
fn run_spec_value(run_spec: &RunSpec) -> Value {
    let call = |function: &Bytes, args: Value, kwargs: Value| {
        let parts = [
            ("function", function.clone().into()),
            ("args", args),
            ("kwargs", kwargs),
        ];
        Value::map(parts.into_iter().filter(|(_, part)| !part.is_nil()))
    };
    let legacy = match run_spec {
        RunSpec::Pickled { pickle, buffers } => {
            return Payload::pickled(pickle.to_bytes(), buffers.to_vec()).into();
        }
        RunSpec::Legacy(legacy) => &**legacy,
    };
    match legacy {
        LegacySpec::Parts {
            function,
            args,
            kwargs,
        } => call(function, args.clone().into(), kwargs.clone().into()),
        LegacySpec::Call {
            function,
            args,
            kwargs,
        } => call(function, args.clone(), kwargs.clone()),
        LegacySpec::Task(task) => task.clone(),
        LegacySpec::Serialized(payload) => Value::Payload(Arc::clone(payload)),
    }
}

impl ReplayExtension {
    /// Since 2021.06.1.
    async fn get_error_cause(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let keys = call.opt_keys("keys")?.unwrap_or_default();
        let cause = context.core.query(move |state| error_cause(state, &keys));
        Ok(cause.await?.into())
    }

    /// Since 2021.06.1.
    async fn get_runspec(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let key = call.key("key")?;
        let unknown = RpcError::key_error(key.clone());
        let replay = context.core.query(move |state| Replay::of(state, &key));
        let replay = replay.await?.ok_or(unknown)?;
        if replay.release.unwrap_or(call.caller.release) >= RUN_SPEC_ALONE {
            return Ok(replay.run_spec);
        }
        let deps = Value::array(replay.dependencies);
        Ok(Value::map([("task", replay.run_spec), ("deps", deps)]))
    }

    /// Both in one, up to 2021.06.0.
    async fn cause_of_failure(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let keys = call.opt_keys("keys")?.unwrap_or_default();
        let replay = context.core.query(move |state| {
            let cause = error_cause(state, &keys)?;
            Replay::of(state, &cause)
        });
        let map = |replay: Replay| {
            Value::map([
                ("deps", Value::array(replay.dependencies)),
                ("cause", replay.key.into()),
                ("task", replay.run_spec),
            ])
        };
        Ok(replay.await?.map(map).into())
    }
}

impl Extension for ReplayExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .request("get_error_cause", Self::get_error_cause)
            .request("get_runspec", Self::get_runspec)
            .request("cause_of_failure", Self::cause_of_failure);
    }
}
