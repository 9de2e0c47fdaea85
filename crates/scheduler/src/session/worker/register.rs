//! `register-worker`: what a worker tells about itself, and what it is answered.

use std::sync::Arc;

use oxidask_scheduler_core::effect::WorkerMsg;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::ids::WorkerId;
use oxidask_scheduler_core::worker::{WorkerInfo, WorkerStatus};
use oxidask_wire::connection::Address;
use oxidask_wire::value::Value;
use parking_lot::Mutex;

use crate::clock;
use crate::context::Context;
use crate::handlers::identity::worker_identity;
use crate::handlers::worker::metrics_of;
use crate::outbox::Outbox;
use crate::releases::compatibility;
use crate::rpc::{self, Call, RpcError};
use crate::session::{release_of, stimulus, time_delay};
use crate::versions;
use crate::workers::{LiveFigures, RegistrationError, WorkerEntry};

/// Why a worker was not let in.
pub(super) enum Refused {
    /// Answered with an exception.
    Error(RpcError),
    /// Answered with `status: error` and a text.
    Message(String),
}

impl From<RpcError> for Refused {
    fn from(error: RpcError) -> Self {
        Self::Error(error)
    }
}

impl Refused {
    /// The answer to the worker.
    pub(super) fn into_answer(self, context: &Context, call: &Call) -> Value {
        match self {
            Self::Error(error) => {
                rpc::error_reply(&error, &call.caller, context.settings.max_error_length)
            }
            Self::Message(message) => Value::map([
                ("status", Value::from("error")),
                ("message", message.into()),
                ("time", clock::now().0.into()),
            ]),
        }
    }
}

/// Lets a worker in: into the table, the core, the event log.
pub(super) async fn register(
    context: &Arc<Context>,
    call: &Call,
    outbox: Outbox<WorkerMsg>,
) -> Result<Arc<WorkerEntry>, Refused> {
    let (mut info, name) = info(call).await?;
    let contact: Arc<str> = call.str("address")?.into();
    context.python.admitted().await;
    let value = |name: &str| call.args.get(name).cloned().unwrap_or_default();
    let versions = value("versions");
    let release = release_of(&versions);
    info.release = compatibility(release).into();
    context.releases.note(call.caller.ip, release);
    if context.workers.is_taken(&info.address, &info.name) {
        // It may be one whose end is just being handled.
        let _ = context.core.apply(Vec::new()).await;
    }
    let (address, text) = (Arc::clone(&info.address), Arc::clone(&info.name));
    let now = clock::now();
    let core_info = info.clone();
    let worker = context
        .workers
        .register(&address, &text, |id: WorkerId| WorkerEntry {
            id,
            info,
            contact,
            name,
            release,
            services: value("services"),
            versions: Arc::new(versions),
            extra: value("extra"),
            memory_limit: value("memory_limit"),
            registered: now,
            live: Mutex::new(LiveFigures {
                metrics: value("metrics"),
                last_seen: now,
                time_delay: time_delay(&value("now"), now),
            }),
            outbox: outbox.clone(),
        })
        .map_err(|error| match error {
            RegistrationError::Address(_) => RpcError::value_error(error.to_string()).into(),
            RegistrationError::Name(_) => {
                tracing::warn!(target: "distributed.scheduler", "Worker tried to connect with a duplicate name: {text}");
                Refused::Message(error.to_string())
            }
        })?;
    let stimulus_id = match call.opt_str("stimulus_id")? {
        Some(id) => id.into(),
        None => stimulus("worker-connect"),
    };
    context.core.attach_worker(worker.id, outbox);
    let event = Event::AddWorker {
        worker: worker.id,
        info: Box::new(core_info),
        stimulus_id,
    };
    context
        .core
        .apply(vec![event])
        .await
        .map_err(RpcError::from)?;
    tracing::info!(target: "distributed.scheduler", "Register worker addr: {} name: {}", worker.info.address, worker.info.name);
    announce(context, &worker);
    Ok(worker)
}

fn announce(context: &Arc<Context>, worker: &Arc<WorkerEntry>) {
    let info = &worker.info;
    let mut identity = worker_identity(worker, info.status, info.resources.clone());
    identity.remove("metrics");
    identity.remove("last_seen");
    context.status_feed.added(&info.address, identity);
    for extension in &context.extensions {
        extension.worker_added(context, worker);
    }
}

/// What the worker told, as the core wants it, and its name as it came.
async fn info(call: &Call) -> Result<(WorkerInfo, Value), RpcError> {
    let address: Arc<str> = resolve(call.str("address")?).await.into();
    let host = match Address::parse(&address) {
        Ok(parsed) => parsed.host,
        Err(error) => return Err(RpcError::value_error(error.to_string())),
    };
    let name = match call.get("name") {
        Some(name) => name.clone(),
        None => Value::from(&address),
    };
    let name_text = name
        .to_key()
        .ok_or_else(|| call.wrong("name", "str or int", &name))?
        .to_text();
    let text = |name: &str| -> Result<Arc<str>, RpcError> {
        Ok(call.opt_str(name)?.unwrap_or_default().into())
    };
    let status = match call.opt_str("status")? {
        None => WorkerStatus::Running,
        Some(status) => WorkerStatus::parse(status)
            .ok_or_else(|| RpcError::value_error(format!("unknown worker status '{status}'")))?,
    };
    let number = |name: &str| call.get(name).and_then(Value::as_u64);
    let info = WorkerInfo {
        host: host.into(),
        name: name_text.into(),
        nthreads: number("nthreads")
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(1)
            .max(1),
        memory_limit: number("memory_limit").unwrap_or(0),
        resources: resources_of(call.get("resources")),
        pid: number("pid")
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        server_id: text("server_id")?,
        local_directory: text("local_directory")?,
        // A worker that was told that it has none says False.
        nanny: call.get("nanny").and_then(Value::as_str).map(Arc::from),
        release: Arc::default(),
        status,
        metrics: metrics_of(call.args.get("metrics").unwrap_or(&Value::Nil)),
        address,
    };
    Ok((info, name))
}

/// Amounts of abstract resources.
pub(crate) fn resources_of(value: Option<&Value>) -> Vec<(Arc<str>, f64)> {
    let entries = value.and_then(Value::as_map).unwrap_or(&[]);
    let amount =
        |(name, amount): &(Value, Value)| Some((Arc::from(name.as_str()?), amount.as_f64()?));
    entries.iter().filter_map(amount).collect()
}

/// An address whose host is a name becomes one with a number, as workers are identified by it. No host
/// (`tcp://:8788`) means this machine, and a name with addresses of both kinds its IPv4 address.
async fn resolve(address: &str) -> String {
    let with_scheme = if address.contains("://") {
        address.to_owned()
    } else {
        format!("tcp://{address}")
    };
    let Ok(mut parsed) = Address::parse(&with_scheme) else {
        return with_scheme;
    };
    if parsed.host.parse::<std::net::IpAddr>().is_ok() {
        return with_scheme;
    }
    let host = match parsed.host.as_str() {
        "" => "localhost",
        host => host,
    };
    let Ok(found) = tokio::net::lookup_host((host, parsed.port)).await else {
        return with_scheme;
    };
    // `false` is the smaller one.
    let Some(found) = found.min_by_key(|address| !address.is_ipv4()) else {
        return with_scheme;
    };
    parsed.host = found.ip().to_string();
    parsed.to_string()
}

/// The answer to a worker that was let in.
pub(super) fn reply(context: &Context, worker: &WorkerEntry) -> Value {
    let source = match &*worker.info.server_id {
        "" => &worker.info.address,
        _ => &worker.info.server_id,
    };
    let others = context.workers.versions(Some(worker));
    let warning = versions::mismatch_warning(&worker.versions, source, &others);
    Value::map([
        ("status", Value::from("OK")),
        ("time", clock::now().0.into()),
        (
            "heartbeat-interval",
            context.workers.heartbeat_interval().into(),
        ),
        ("worker-plugins", context.plugins.for_worker(worker.release)),
        ("warning", warning.into()),
        ("error", "".into()),
    ])
}
