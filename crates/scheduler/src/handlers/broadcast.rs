//! `broadcast` and `proxy`: requests of a client passed on to workers or their nannies.

use std::sync::Arc;

use oxidask_wire::payload::Payload;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::peers::PeerError;
use crate::rpc::{Call, Reply, RpcError};
use crate::workers::WorkerEntry;

/// What to do when a worker cannot be asked, or its handler raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The first failure fails the whole.
    Raise,
    /// The failure stands in the place of the answer, as an exception.
    Return,
    /// The failure stands in the place of the answer, as the pickle of an exception.
    ReturnPickle,
    /// The failure stands in the place of the answer, as the `repr` of an exception.
    ReturnText,
    /// The worker is left out.
    Ignore,
}

/// The op.
pub async fn broadcast(context: Arc<Context>, mut call: Call) -> Reply {
    let msg = message(&mut call);
    let workers = call.opt_texts("workers")?;
    let hosts = call.opt_texts("hosts")?;
    let nanny = call.flag("nanny", false);
    let on_error = match call.opt_str("on_error")? {
        None | Some("raise") => OnError::Raise,
        Some("return") => OnError::Return,
        Some("return_pickle") => OnError::ReturnPickle,
        Some("ignore") => OnError::Ignore,
        Some(other) => {
            return Err(RpcError::value_error(format!(
                "on_error must be 'raise', 'return', 'return_pickle', or 'ignore'; got '{other}'"
            )));
        }
    };
    let targets = select(&context, workers.as_deref(), hosts.as_deref());
    let answers = ask_all(&context, &targets, msg, nanny, on_error).await?;
    Ok(answers.into_iter().collect())
}

/// What is passed on. The workers answer with what the caller, not we, can read.
fn message(call: &mut Call) -> Value {
    let mut msg = call.take("msg");
    if let Some(serializers) = &call.serializers {
        msg.insert("serializers", serializers.clone());
    }
    msg
}

/// `proxy`: one worker.
pub async fn proxy(context: Arc<Context>, mut call: Call) -> Reply {
    let msg = message(&mut call);
    let worker = call.str("worker")?.to_owned();
    let targets = [Target::new(&context, &worker)];
    let answers = ask_all(&context, &targets, msg, false, OnError::Raise).await?;
    Ok(answers
        .into_iter()
        .next()
        .map(|(_, answer)| answer)
        .unwrap_or_default())
}

/// Somebody to ask: a worker, or an address that is not registered (it may just have left).
#[derive(Clone, Debug)]
pub struct Target {
    address: Arc<str>,
    worker: Option<Arc<WorkerEntry>>,
}

impl Target {
    fn new(context: &Context, alias: &str) -> Self {
        match context.workers.resolve(alias) {
            Some(worker) => Self::from(worker),
            None => Self {
                address: alias.into(),
                worker: None,
            },
        }
    }
}

impl From<Arc<WorkerEntry>> for Target {
    fn from(worker: Arc<WorkerEntry>) -> Self {
        Self {
            address: Arc::clone(&worker.info.address),
            worker: Some(worker),
        }
    }
}

fn select(context: &Context, workers: Option<&[String]>, hosts: Option<&[String]>) -> Vec<Target> {
    let mut targets: Vec<Target> = match (workers, hosts) {
        (Some(workers), _) => workers
            .iter()
            .map(|alias| Target::new(context, alias))
            .collect(),
        (None, None) => return all(context),
        (None, Some(_)) => Vec::new(),
    };
    if let Some(hosts) = hosts {
        let on_host = |w: &Arc<WorkerEntry>| hosts.iter().any(|host| **host == *w.info.host);
        let workers = context.workers.all().into_iter();
        targets.extend(workers.filter(on_host).map(Target::from));
    }
    targets
}

/// The workers of these addresses.
pub fn targets(context: &Context, addresses: &[Arc<str>]) -> Vec<Target> {
    let target = |address: &Arc<str>| Target::new(context, address);
    addresses.iter().map(target).collect()
}

/// Every worker.
pub fn all(context: &Context) -> Vec<Target> {
    let workers = context.workers.all().into_iter();
    workers.map(Target::from).collect()
}

/// Sends `msg` (a map with `op`) to all targets at the same time; answers by worker address, in
/// the order of the targets. With `nanny` the nannies are asked, workers without one are left out.
///
/// # Errors
/// With [`OnError::Raise`], the first failure.
pub async fn ask_all(
    context: &Arc<Context>,
    targets: &[Target],
    mut msg: Value,
    nanny: bool,
    on_error: OnError,
) -> Result<Vec<(Arc<str>, Value)>, RpcError> {
    if msg.get("op").and_then(Value::as_str).is_none() {
        return Err(RpcError::type_error("'msg' must be a dict with 'op'"));
    }
    msg.insert("reply", true);
    msg.insert("close", !context.settings.reuse_broadcast_comm);
    let msg = Arc::new(msg);
    let mut tasks = tokio::task::JoinSet::new();
    for (i, target) in targets.iter().enumerate() {
        let address = match (&target.worker, nanny) {
            (Some(worker), true) => match &worker.info.nanny {
                Some(nanny) => Arc::clone(nanny),
                None => continue,
            },
            _ => Arc::clone(&target.address),
        };
        let (context, msg) = (Arc::clone(context), Arc::clone(&msg));
        tasks.spawn(async move { (i, context.peers.ask(&address, &msg).await) });
    }
    let mut answers: Vec<Option<Value>> = targets.iter().map(|_| None).collect();
    while let Some(joined) = tasks.join_next().await {
        let (i, answer) = joined.map_err(|_| RpcError::runtime_error("broadcast was aborted"))?;
        let answer = match answer {
            Ok(answer) => Some(answer),
            // A handler that raised on the worker is an ordinary answer for the client to raise.
            Err(PeerError::Remote(map)) => Some(map),
            Err(error) => {
                if let Some(target) = targets.get(i) {
                    tracing::error!(target: "distributed.scheduler", "broadcast to {} failed: {error}", target.address);
                }
                match on_error {
                    OnError::Raise => return Err(error.into()),
                    OnError::Ignore => None,
                    OnError::Return => {
                        let pickle = RpcError::from(error).exception().pickle();
                        Some(Payload::pickled(pickle, Vec::new()).into())
                    }
                    OnError::ReturnPickle => {
                        Some(RpcError::from(error).exception().pickle().into())
                    }
                    OnError::ReturnText => Some(RpcError::from(error).exception().repr().into()),
                }
            }
        };
        if let Some(slot) = answers.get_mut(i) {
            *slot = answer;
        }
    }
    let addresses = targets.iter().map(|target| Arc::clone(&target.address));
    let answered = addresses.zip(answers);
    Ok(answered
        .filter_map(|(address, answer)| Some((address, answer?)))
        .collect())
}
