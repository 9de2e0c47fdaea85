//! The Python host inside the scheduler process: its settings, and the peers it may ask.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use oxidask_config::{Config, ConfigValue};
use oxidask_key::Key;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;
use tokio::sync::watch;

use super::config::{Mode, PythonHostConfig};
use super::delegate::{BoxFuture, Delegate, DelegateError, DelegateRpc};
use super::lasting::{Closing, PreloadError, Sender};
use super::policies::UserPolicies;
use super::session::{Feed, Function, StateSource};
use super::state::{Ops, SchedulerState, Source};
use super::{ExpandRequest, ExpandedGraph, HostError, HostFigures, PythonHost};
use crate::clock;
use crate::context::Context;
use crate::hooks::Extension;
use crate::observers::Observed;
use crate::peers::PeerError;
use crate::rpc::{Call, Reply, RpcError, RpcTable, StreamPeer};
use crate::workers::WorkerEntry;

/// Bytes that the answer of a delegate may have once its frames are joined and decompressed.
const MAX_DELEGATE_ANSWER: usize = 8 << 30;

/// The Python host of a running scheduler.
pub struct PythonService {
    pub(super) host: PythonHost,
    peers: Arc<ConnectedPeers>,
    state: Arc<SchedulerState>,
    policies: UserPolicies,
    /// Whether workers and clients may register.
    admission: watch::Sender<bool>,
}

impl PythonService {
    /// Reads the settings; starts nothing.
    pub fn new(config: &Config) -> Arc<Self> {
        let state = Arc::<SchedulerState>::default();
        let peers = Arc::new(ConnectedPeers {
            state: Arc::clone(&state),
            added: watch::Sender::new(()),
        });
        let delegates: Arc<dyn DelegateRpc> = Arc::clone(&peers) as _;
        let source: Arc<dyn StateSource> = Arc::new(Source(Arc::clone(&state)));
        let host = PythonHost::new(settings(config), Some(delegates), Some(source));
        Arc::new(Self {
            policies: UserPolicies::new(host.clone(), config),
            admission: watch::Sender::new(true),
            host,
            peers,
            state,
        })
    }

    /// See [`PythonHost::expand`].
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn expand(&self, request: &ExpandRequest) -> Result<ExpandedGraph, HostError> {
        self.host.expand(request).await
    }

    /// See [`PythonHost::feed`]; the request as the client sent it.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn feed(&self, call: &Call) -> Result<Feed, HostError> {
        let mut function = function(call, &["function", "setup", "teardown"]);
        function.interval = call.get("interval").cloned().unwrap_or("1s".into());
        self.host.feed(function, call.caller.release).await
    }

    /// Something happened in the core: plugins are told.
    pub fn observed(&self, observed: &Observed) {
        self.state.observed(observed);
    }

    /// An entry was written to the event log: plugins are told.
    pub fn event_logged(&self, topics: &[Key], event: &Value) {
        self.state.event_logged(topics, event);
    }

    /// Answers an op that the scheduler does not know, if a plugin or preload does.
    pub async fn handle(&self, op: &str, args: &Value) -> Option<Reply> {
        let session = self.state.handler(op, Ops::Request)?;
        let handled = self.host.handle(session, op, args, Sender::Request);
        Some(handled.await.map_err(RpcError::from))
    }

    /// Hands a stream message that the scheduler does not know to the plugin or preload that does.
    /// Whether there is one.
    pub async fn handle_stream(&self, op: &str, args: &Value, peer: &StreamPeer) -> bool {
        let Some(session) = self.state.handler(op, Ops::Stream) else {
            return false;
        };
        let sender = match peer {
            StreamPeer::Client(client) => Sender::Client(Arc::clone(&client.name)),
            StreamPeer::Worker(worker) => Sender::Worker(Arc::clone(&worker.info.address)),
        };
        if let Err(error) = self.host.handle(session, op, args, sender).await {
            tracing::error!(target: "distributed.core", "Exception while handling {op}: {error}");
        }
        true
    }

    /// Imports the modules of `distributed.scheduler.preload`, if there are any. From now on peers
    /// are not admitted until [`Self::start_preloads`].
    ///
    /// # Errors
    /// See [`PreloadError`].
    pub async fn import_preloads(&self, config: &Config) -> Result<(), PreloadError> {
        let names = preload_names(config);
        if names.is_empty() {
            return Ok(());
        }
        self.admission.send_replace(false);
        let argv = config.get("distributed.scheduler.preload-argv");
        let argv = argv.map_or(Value::Nil, plain);
        let shown = shown(&names);
        let request = Value::map([("names", Value::array(names)), ("argv", argv)]);
        self.host.import_preloads(shown, request).await
    }

    /// Runs `dask_setup` of those modules, then lets peers in: plugins that it adds are told of all
    /// of them, as in stock.
    ///
    /// # Errors
    /// See [`PreloadError`].
    pub async fn start_preloads(&self, config: &Config) -> Result<(), PreloadError> {
        let names = preload_names(config);
        let outcome = match names.is_empty() {
            true => Ok(()),
            false => self.host.start_preloads(shown(&names)).await,
        };
        self.admission.send_replace(true);
        outcome
    }

    /// Waits until workers and clients may register.
    pub async fn admitted(&self) {
        // The sender lives in `self`.
        let _ = self.admission.subscribe().wait_for(|open| *open).await;
    }

    /// Tells plugins and preloads that the scheduler ends.
    pub async fn closing(&self, closing: Closing) {
        self.host.closing(closing).await;
    }

    /// Whether plugins have a say in which workers may go.
    pub fn has_choosers(&self) -> bool {
        !self.state.followers.choosers().is_empty()
    }

    /// `workers_to_close` by Python; see [`PythonHost::workers_to_close`].
    ///
    /// # Errors
    /// As the call of a function.
    pub async fn workers_to_close(&self, call: &Call) -> Reply {
        let chooser = self.state.followers.choosers().first().copied();
        let release = call.caller.release;
        let chosen = self.host.workers_to_close(release, chooser, &call.args);
        Ok(chosen.await?)
    }

    /// Imports the user's policies of the memory manager, if there are any.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn load_policies(&self) -> Result<(), HostError> {
        self.policies.load().await
    }

    /// One round of the user's policies of the memory manager, if there are any.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn run_policies(&self) -> Result<(), HostError> {
        self.policies.run_once().await
    }

    /// See [`PythonHost::figures`].
    pub fn figures(&self) -> HostFigures {
        self.host.figures()
    }

    /// Ends all processes.
    pub fn close(&self) {
        self.host.close();
    }
}

/// The settings below `oxidask.python-host`.
fn settings(config: &Config) -> PythonHostConfig {
    let default = PythonHostConfig::default();
    let key = |name: &str| format!("oxidask.python-host.{name}");
    let duration = |name: &str, default| config.seconds(&key(name)).map_or(default, clock::seconds);
    let mode = config.str(&key("mode"));
    PythonHostConfig {
        // The table of keys admits only the words that are modes.
        mode: mode
            .and_then(|word| word.parse().ok())
            .unwrap_or(Mode::Auto),
        python: config.str(&key("python")).map(Into::into),
        processes: config
            .count(&key("processes"))
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(default.processes),
        timeout: duration("timeout", default.timeout),
        function_timeout: duration("function-timeout", default.function_timeout),
        start_timeout: duration("start-timeout", default.start_timeout),
        idle_timeout: duration("idle-timeout", default.idle_timeout),
        inherit: config.to_inherit(),
        directory: directory(config),
        max_answer: config
            .bytes(&key("max-answer-bytes"))
            .unwrap_or(default.max_answer),
    }
}

/// Where uploaded files lie; made when the first one comes.
fn directory(config: &Config) -> PathBuf {
    let parent = config.str("temporary-directory").map(PathBuf::from);
    let name = format!("oxidask-{}", uuid::Uuid::new_v4().simple());
    parent.unwrap_or_else(std::env::temp_dir).join(name)
}

/// The pickled parts of a request that runs code here.
fn function(call: &Call, names: &[&'static str]) -> Function {
    let part = |name: &&'static str| Some((*name, call.get(name)?.as_bin()?.clone()));
    Function {
        parts: names.iter().filter_map(part).collect(),
        wait: call.flag("wait", true),
        serializers: call.serializers.clone(),
        interval: Value::Nil,
    }
}

impl PythonService {
    /// `run_function`: `Client.run_on_scheduler`.
    async fn run_function(&self, call: Call) -> Reply {
        call.required("function")?;
        let function = function(&call, &["function", "args", "kwargs"]);
        let answer = self.host.run_function(function, call.caller.release).await;
        answer.map_err(RpcError::from)
    }
}

impl PythonService {
    /// `register_scheduler_plugin`: `Client.register_plugin` of a `SchedulerPlugin`.
    async fn register_plugin(&self, call: Call) -> Reply {
        let plugin = call.required("plugin")?;
        let plugin = plugin
            .as_bin()
            .ok_or_else(|| call.wrong("plugin", "bytes", plugin))?;
        let registered = self.host.register_plugin(
            call.caller.release,
            call.text("name"),
            plugin.clone(),
            call.flag("idempotent", false),
        );
        registered.await?;
        Ok(Value::Nil)
    }

    /// `unregister_scheduler_plugin`.
    async fn unregister_plugin(&self, call: Call) -> Reply {
        call.required("name")?;
        let name = call
            .text("name")
            .ok_or_else(|| RpcError::type_error("plugin name must be str"))?;
        self.host
            .unregister_plugin(call.caller.release, &name)
            .await?;
        Ok(Value::Nil)
    }
}

fn preload_names(config: &Config) -> Vec<String> {
    let names = config.str_list("distributed.scheduler.preload");
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

/// For people. Modules may be given as text: its first line names them.
fn shown(names: &[String]) -> String {
    let shown = names.iter().map(|name| name.trim().lines().next());
    let shown: Vec<&str> = shown.map(Option::unwrap_or_default).collect();
    format!("preload module {}", shown.join(", "))
}

/// A setting as a value of a message.
fn plain(value: &ConfigValue) -> Value {
    serde_json::to_value(value)
        .ok()
        .and_then(|json| serde_json::from_value(json).ok())
        .unwrap_or_default()
}

impl From<HostError> for RpcError {
    fn from(error: HostError) -> Self {
        match error.message() {
            Some(map) => Self::Forward(map),
            None => Self::runtime_error(error.to_string()),
        }
    }
}

impl Extension for PythonService {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        let service = Arc::clone(&self);
        table.add_waiting("run_function", move |_, call| {
            let service = Arc::clone(&service);
            async move { service.run_function(call).await }
        });
        let service = Arc::clone(&self);
        table.add("register_scheduler_plugin", move |_, call| {
            let service = Arc::clone(&service);
            async move { service.register_plugin(call).await }
        });
        let service = Arc::clone(&self);
        table.add("performance_report", move |_, call| {
            let service = Arc::clone(&service);
            async move {
                let report = service
                    .host
                    .performance_report(call.caller.release, &call.args);
                Ok(report.await?)
            }
        });
        table.add("unregister_scheduler_plugin", move |_, call| {
            let service = Arc::clone(&self);
            async move { service.unregister_plugin(call).await }
        });
    }

    fn started(&self, context: &Arc<Context>) {
        self.state.started(context);
        self.policies.start(context);
    }

    fn worker_added(&self, _context: &Arc<Context>, _worker: &Arc<WorkerEntry>) {
        self.peers.added.send_replace(());
    }
}

/// Registered workers and their nannies.
struct ConnectedPeers {
    state: Arc<SchedulerState>,
    added: watch::Sender<()>,
}

impl DelegateRpc for ConnectedPeers {
    fn delegates(&self, release: Release) -> Vec<Delegate> {
        let Some(context) = self.state.context() else {
            return Vec::new();
        };
        let workers = context.workers.all();
        let of_release = workers.iter().filter(|worker| worker.release == release);
        of_release
            .flat_map(|worker| {
                let nanny = worker.info.nanny.as_ref().map(|address| (address, true));
                nanny
                    .into_iter()
                    .chain(std::iter::once((&worker.info.address, false)))
            })
            .map(|(address, is_nanny)| Delegate {
                address: Arc::clone(address),
                is_nanny,
            })
            .collect()
    }

    fn worker_added(&self) -> BoxFuture<'static, ()> {
        let mut added = self.added.subscribe();
        Box::pin(async move {
            // The sender lives as long as the scheduler.
            let _ = added.changed().await;
        })
    }

    fn run(
        &self,
        address: &str,
        function: Bytes,
        args: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, DelegateError>> {
        let context = self.state.context();
        let address = address.to_owned();
        Box::pin(async move {
            let context =
                context.ok_or_else(|| DelegateError::Unreachable("shutting down".to_owned()))?;
            let request = Value::map([
                ("op", Value::from("run")),
                ("function", Value::Bin(function)),
                ("args", Value::Bin(args)),
                ("wait", true.into()),
            ]);
            let answer = context.peers.ask(&address, &request).await;
            result_of_run(answer?)
        })
    }
}

/// The bytes that a `run` returned.
fn result_of_run(answer: Value) -> Result<Bytes, DelegateError> {
    let refused = |reason: &str| DelegateError::Refused(reason.to_owned());
    if answer.get("status").and_then(Value::as_str) != Some("OK") {
        let text = answer.get("exception_text").or_else(|| answer.get("text"));
        return Err(refused(match text.and_then(Value::as_str) {
            Some(text) => text,
            None => "it does not run code for the scheduler",
        }));
    }
    match answer.get("result") {
        Some(Value::Bin(bytes)) => Ok(bytes.clone()),
        Some(Value::Payload(payload)) => payload
            .as_plain_bytes(MAX_DELEGATE_ANSWER)
            .ok()
            .flatten()
            .ok_or_else(|| refused("its answer is no bytes object")),
        _ => Err(refused("its answer has no result")),
    }
}

impl From<PeerError> for DelegateError {
    fn from(error: PeerError) -> Self {
        match &error {
            PeerError::Connect { .. } => Self::Unreachable(error.to_string()),
            PeerError::Remote(map) => {
                let text = map.get("exception_text").or_else(|| map.get("text"));
                let text = text.and_then(Value::as_str);
                Self::Refused(text.unwrap_or("its handler raised").to_owned())
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}
