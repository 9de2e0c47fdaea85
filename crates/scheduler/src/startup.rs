//! From the command line to a running scheduler, and its orderly end.

mod address;
mod exposure;
mod files;
mod health_check;
mod shutdown;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use oxidask_cli::{Outcome, SchedulerArgs, UsageError, parse_scheduler};
use oxidask_config::{Config, Env};
use oxidask_wire::connection::{AcceptPolicy, Scheme, Security, SocketOptions};
use oxidask_wire::release::Generation;
use tokio::net::TcpListener;

use crate::clients::ClientTable;
use crate::computations::Computations;
use crate::context::{Context, Identity, Shutdown};
use crate::extensions::Extensions;
use crate::graph_intake::GraphCounts;
use crate::handlers::task_stream::TaskStream;
use crate::http::{self, HttpListener};
use crate::logging::{self, LogOptions};
use crate::nannies::NannyTable;
use crate::obituaries::Obituaries;
use crate::observers::{Observed, ObserverReceiver};
use crate::peers::PeerPool;
use crate::plugins::PluginStore;
use crate::python_host::{HostError, PreloadError, PythonService};
use crate::releases::Releases;
use crate::roles::{RoleRules, RolesError};
use crate::rpc::RpcTable;
use crate::security::{self, SecurityError};
use crate::settings::{Settings, accept_policy, core_config};
use crate::status_feed::StatusFeed;
use crate::threads::{Places, Threads};
use crate::watchdog::Watchdog;
use crate::workers::WorkerTable;
use crate::{clock, core_thread, handlers, listener, observers, views};
use address::ListenAddress;
use files::RemovedAtEnd;

/// Why the scheduler could not start: one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file, variable or option has a bad value.
    #[error(transparent)]
    Config(#[from] oxidask_config::ConfigError),
    /// The address makes no sense, or its protocol is not spoken.
    #[error(transparent)]
    Address(#[from] address::AddressError),
    /// The certificates are missing or unusable.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The rules of roles are unusable.
    #[error(transparent)]
    Roles(#[from] RolesError),
    /// The port cannot be listened on.
    #[error("cannot listen on {address}: {source}; {hint}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// HTTPS on a port of WebSocket connections that are not encrypted.
    #[error(
        "the dashboard and the scheduler share port {0}, and only the dashboard has a certificate; use --protocol wss, \
         or another --dashboard-address"
    )]
    SharedInClear(u16),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}; check the directory and its permissions")]
    File {
        /// Which.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The dashboard port cannot be served.
    #[error(transparent)]
    Http(#[from] http::BindError),
    /// A policy of the memory manager cannot be loaded.
    #[error("cannot load distributed.scheduler.active-memory-manager.policies: {0}")]
    Policies(#[source] HostError),
    /// A preload module keeps it from starting.
    #[error(transparent)]
    Preload(#[from] PreloadError),
    /// The operating system refuses.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

impl StartError {
    /// As stock's: 2 for a command line that makes no sense, what a preload module asked for, else 1.
    fn exit_status(&self) -> u8 {
        match self {
            Self::Preload(PreloadError::Usage(_)) => 2,
            Self::Preload(PreloadError::Exit(status)) => u8::try_from(*status).unwrap_or(1),
            _ => 1,
        }
    }
}

/// Runs `dask-scheduler` with these words, the program's name first.
pub fn main(words: &[String]) -> ExitCode {
    let parsed = match parse_scheduler(words) {
        Ok(Outcome::Run(parsed)) => parsed,
        Ok(Outcome::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(u8::try_from(UsageError::EXIT_CODE).unwrap_or(2));
        }
    };
    if parsed.args.check_health {
        return match health_check::run(words, parsed.args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                eprintln!("dask-scheduler: {problem}");
                ExitCode::from(1)
            }
        };
    }
    match prepare_and_run(&parsed.args, &parsed.warnings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if logging::is_json() {
                tracing::error!(target: "distributed.scheduler", "dask-scheduler: {error}");
            } else {
                eprintln!("dask-scheduler: {error}");
            }
            ExitCode::from(error.exit_status())
        }
    }
}

fn prepare_and_run(args: &SchedulerArgs, warnings: &[String]) -> Result<(), StartError> {
    let mut config = Config::load(&Env::from_process())?;
    args.apply(&mut config)?;
    let secured = exposure::secure(args, &mut config)?;
    let (options, problems) = LogOptions::from_config(&config);
    logging::start(options);
    for warning in warnings.iter().chain(config.notices()).chain(&problems) {
        tracing::warn!(target: "distributed.scheduler", "{warning}");
    }
    for line in secured {
        tracing::info!(target: "distributed.scheduler", "{line}");
    }
    let threads = Threads::start()?;
    let places = threads.places();
    let result = threads.front.block_on(run(args, Arc::new(config), places));
    threads.shutdown();
    result
}

const RULE: &str = "-----------------------------------------------";

async fn run(args: &SchedulerArgs, config: Arc<Config>, places: Places) -> Result<(), StartError> {
    let signals = shutdown::Signals::catch()?;
    let _pid_file = match &args.pid_file {
        Some(path) => Some(RemovedAtEnd::write(path, &std::process::id().to_string())?),
        None => None,
    };
    tracing::info!(target: "distributed.scheduler", "{RULE}");
    let running = start(args, config, places).await?;
    let context = &running.context;
    if let Err(error) = context.python.start_preloads(&context.config).await {
        shutdown::close(running, "preload-failed").await;
        return Err(error.into());
    }
    tracing::info!(target: "distributed.scheduler", "{RULE}");
    let reason = shutdown::wait(context, signals).await;
    shutdown::close(running, &reason).await;
    tracing::info!(target: "distributed.scheduler", "End scheduler");
    Ok(())
}

/// A scheduler that listens.
pub struct Running {
    /// What everything shares.
    pub context: Arc<Context>,
    /// Tasks that run as long as the scheduler does.
    pub tasks: tokio::task::JoinSet<()>,
    scheduler_file: Option<RemovedAtEnd>,
}

/// Starts everything; connections are served at `places`.
///
/// # Errors
/// When an address cannot be listened on, or the core thread cannot be started.
pub async fn start(
    args: &SchedulerArgs,
    config: Arc<Config>,
    places: Places,
) -> Result<Running, StartError> {
    let security = security::of_comms(args, &config)?;
    let roles = RoleRules::from_config(&config)?;
    let mut ports = listen(args, &config, &security).await?;
    if roles.is_some() {
        warn_of_callers_without_certificate(&ports);
    }
    let older = ports.first().map(|port| older_port(port, &config));
    let older = older.transpose()?.flatten();
    let exposed = exposed(&ports)?;
    let http = bind_http(args, &config, &mut ports).await?;
    let workers = Arc::<WorkerTable>::default();
    let (sender, observed) = observers::channel();
    let core_config = core_config(&config);
    let recorder = files::recorder(&config, &core_config)?;
    let core = core_thread::start(core_config, Arc::clone(&workers), sender, recorder)?;
    let settings = Settings::new(&config);
    let policy = accept_policy(&config);
    let mut rpc = RpcTable::default();
    handlers::register(&mut rpc);
    let python = PythonService::new(&config);
    let (extensions, watchdog, watch) = extensions(&config, &python, &mut rpc);
    let peers = PeerPool::new(
        Arc::clone(&workers),
        settings.connect_timeout,
        security.clone(),
    );
    let context = Arc::new(Context {
        core,
        peers,
        event_log: extensions.event_log,
        semaphores: extensions.semaphores,
        workers,
        clients: ClientTable::default(),
        nannies: NannyTable::default(),
        obituaries: Obituaries::default(),
        rpc,
        python,
        extensions: extensions.all,
        plugins: PluginStore::default(),
        releases: Releases::new(policy.memory.clone()),
        recorders: AtomicUsize::new(0),
        transition_observers: parking_lot::Mutex::default(),
        change_observers: parking_lot::Mutex::default(),
        computations: Arc::new(Computations::new(&config)),
        replica_lock: tokio::sync::RwLock::default(),
        active_graphs: AtomicUsize::new(0),
        graph_counts: GraphCounts::default(),
        places,
        traffic: Arc::default(),
        status_feed: StatusFeed::default(),
        identity: Identity {
            id: format!("Scheduler-{}", uuid::Uuid::new_v4()),
            address: ports
                .first()
                .map_or_else(Arc::default, |port| port.contact.clone()),
            dashboard_port: Some(http.port),
            started: clock::now(),
        },
        roles,
        settings,
        config: Arc::clone(&config),
        shutdown: Shutdown::default(),
    });
    announce(&context, &ports, &http, &exposed);
    for extension in &context.extensions {
        extension.started(&context);
    }
    // Before anybody connects, as in stock.
    let loaded = context.python.load_policies().await;
    loaded.map_err(StartError::Policies)?;
    context.python.import_preloads(&config).await?;
    // Whoever is let in finds it there; nobody registers before the modules are set up.
    let scheduler_file = match &args.scheduler_file {
        Some(path) => Some(files::write_scheduler_file(path, &context).await?),
        None => None,
    };
    let mut tasks = tokio::task::JoinSet::new();
    let pages = pages(&context, args, watch, &mut tasks);
    accept(
        &context, &mut tasks, &pages, &policy, &security, older, ports,
    )?;
    tasks.spawn(observe(Arc::clone(&context), observed, watchdog));
    tasks.spawn(watch_idle(Arc::clone(&context)));
    tasks.spawn(http::serve(http, pages));
    Ok(Running {
        context,
        tasks,
        scheduler_file,
    })
}

/// All extensions, their ops in the table.
fn extensions(
    config: &Config,
    python: &Arc<PythonService>,
    rpc: &mut RpcTable,
) -> (Extensions, Arc<Watchdog>, Arc<http::Watch>) {
    let mut extensions = Extensions::new(config);
    extensions.all.push(Arc::clone(python) as _);
    extensions.all.push(Arc::new(TaskStream::new(config)));
    let watchdog = Arc::<Watchdog>::default();
    extensions.all.push(Arc::clone(&watchdog) as _);
    let watch = Arc::<http::Watch>::default();
    extensions.all.push(Arc::clone(&watch) as _);
    for extension in &extensions.all {
        Arc::clone(extension).register(rpc);
    }
    (extensions, watchdog, watch)
}

/// Takes connections at every port.
fn accept(
    context: &Arc<Context>,
    tasks: &mut tokio::task::JoinSet<()>,
    pages: &axum::Router,
    policy: &AcceptPolicy,
    security: &Security,
    older: Option<Port>,
    ports: Vec<Port>,
) -> std::io::Result<()> {
    let socket = SocketOptions {
        timeout: clock::seconds(
            context
                .config
                .seconds("distributed.comm.timeouts.tcp")
                .unwrap_or(30.0),
        ),
    };
    // With a port for older releases, nobody has to guess what a silent peer of the other one is,
    // even if both come from the same address.
    let silent = older.as_ref().map(|_| Generation::M3);
    let mut opened: Vec<(Port, Option<Generation>)> = Vec::new();
    opened.extend(older.map(|port| (port, Some(Generation::M1))));
    opened.extend(ports.into_iter().map(|port| (port, silent)));
    for (port, silent) in opened {
        let shared = (port.shared).then(|| pages.clone());
        let websocket = port.scheme.is_websocket();
        let reception = listener::Reception {
            address: port.contact,
            scheme: port.scheme,
            tls: security.server().cloned(),
            router: websocket.then(|| http::with_websockets(shared)),
            policy: policy.clone(),
            socket,
            silent,
        };
        let context = Arc::clone(context);
        match port.scheme {
            Scheme::Tcp => {
                let (tcp, place) = context.places.receive(port.tcp)?;
                tasks.spawn_on(listener::accept(context, tcp, reception), &place);
            }
            // Other connections stay where they are accepted, since they can not be moved.
            Scheme::Tls | Scheme::Ws | Scheme::Wss => {
                tasks.spawn(listener::accept(context, port.tcp, reception));
            }
        }
    }
    Ok(())
}

/// Roles are read off certificates: without TLS nobody has one.
fn warn_of_callers_without_certificate(ports: &[Port]) {
    for port in ports.iter().filter(|port| !port.scheme.is_encrypted()) {
        tracing::warn!(
            target: "distributed.scheduler",
            "oxidask.roles.file is set, but callers of {} show no certificate and may do nothing; use TLS",
            port.contact
        );
    }
}

/// The lines that launchers wait for and parse.
fn announce(context: &Context, ports: &[Port], http: &HttpListener, exposed: &[String]) {
    tracing::info!(target: "distributed.scheduler", "State start");
    for port in ports {
        tracing::info!(target: "distributed.scheduler", "  Scheduler at: {:>25}", port.contact);
    }
    announce_dashboard(context, http);
    for warning in exposed {
        tracing::warn!(target: "distributed.scheduler", "{warning}");
    }
}

/// The log line that launchers and people look for.
fn announce_dashboard(context: &Context, http: &HttpListener) {
    for warning in &http.warnings {
        tracing::warn!(target: "distributed.http", "{warning}");
    }
    let template = context
        .config
        .str("distributed.dashboard.link")
        .unwrap_or_default();
    let host = oxidask_wire::connection::Address::parse(&context.identity.address)
        .map_or_else(|_| String::new(), |address| address.host.to_string());
    let variable = |name: &str| std::env::var(name).ok();
    let scheme = http.scheme();
    let link = http::dashboard_link(&template, scheme, &host, http.port, variable).unwrap_or_else(|name| {
        tracing::warn!(target: "distributed.scheduler", "distributed.dashboard.link names {name}, which has no value");
        format!(":{}", http.port)
    });
    tracing::info!(target: "distributed.scheduler", "  dashboard at:  {link:>25}");
}

/// A warning for each port that takes orders from a network in the clear.
fn exposed(ports: &[Port]) -> Result<Vec<String>, StartError> {
    let mut warnings = Vec::new();
    for port in ports {
        warnings.extend(exposure::warning(
            port.scheme.is_encrypted(),
            port.tcp.local_addr()?,
        ));
    }
    Ok(warnings)
}

/// The dashboard's ports, except one that a WebSocket listener has already: as in stock that one
/// serves both.
async fn bind_http(
    args: &SchedulerArgs,
    config: &Config,
    ports: &mut [Port],
) -> Result<HttpListener, StartError> {
    let tls = security::of_dashboard(config)?;
    let mut addresses = args.dashboard_address.clone();
    let mut shared = None;
    for port in ports.iter_mut().filter(|port| port.scheme.is_websocket()) {
        let number = port.tcp.local_addr()?.port();
        let before = addresses.len();
        addresses.retain(|address| address.port != number);
        port.shared = addresses.len() < before;
        if !port.shared {
            continue;
        }
        shared = Some(number);
        if port.scheme.is_encrypted() {
            tracing::warn!(
                target: "distributed.http",
                "Dashboard and Scheduler are using the same server on port {number}, defaulting to the \
                 Scheduler's ssl context. Your dashboard could become inaccessible"
            );
        } else if tls.is_some() {
            return Err(StartError::SharedInClear(number));
        }
    }
    let mut http = http::bind(&addresses, tls).await?;
    if let Some(shared) = shared {
        http.port = shared;
    }
    Ok(http)
}

/// The pages, which are kept up to date for as long as the scheduler runs.
fn pages(
    context: &Arc<Context>,
    args: &SchedulerArgs,
    watch: Arc<http::Watch>,
    tasks: &mut tokio::task::JoinSet<()>,
) -> axum::Router {
    let pages = http::Pages::from_config(&context.config, &args.dashboard_prefix, args.dashboard);
    let ticks = Arc::<http::Ticks>::default();
    let live = Arc::new(http::Live::new(
        Arc::clone(context),
        Arc::clone(&ticks),
        watch,
    ));
    let (router, problems) = http::router(live, &pages);
    for problem in problems {
        tracing::warn!(target: "distributed.http", "{problem}");
    }
    let every = context
        .config
        .seconds("distributed.admin.system-monitor.interval");
    let every = clock::seconds(every.unwrap_or(0.5));
    let (core, beat) = (context.core.clone(), Arc::clone(&ticks));
    tasks.spawn(async move {
        let question = || async { core.query(|_| ()).await.is_ok() };
        beat.watch_core(every, question).await;
    });
    tasks.spawn(async move { ticks.run(every).await });
    router
}

/// A port that is listened on for comms.
struct Port {
    tcp: TcpListener,
    scheme: Scheme,
    /// The address peers are told.
    contact: Arc<str>,
    /// Whether the dashboard is here, too.
    shared: bool,
}

/// Opens a port for each protocol asked for.
async fn listen(
    args: &SchedulerArgs,
    config: &Config,
    security: &Security,
) -> Result<Vec<Port>, StartError> {
    let mut ports = Vec::new();
    for (index, wanted) in ListenAddress::from_args(args, config, security)?
        .iter()
        .enumerate()
    {
        let tcp = open(wanted, config).await?;
        // What is configured is the address of the scheduler, which is that of the first listener.
        let configured = (index == 0).then(|| config.str("distributed.scheduler.contact-address"));
        let contact = wanted.contact(tcp.local_addr()?, configured.flatten());
        ports.push(Port {
            tcp,
            scheme: wanted.scheme,
            contact: contact.into(),
            shared: false,
        });
    }
    Ok(ports)
}

/// Opens the first port that is free among those asked for.
async fn open(wanted: &ListenAddress, config: &Config) -> Result<TcpListener, StartError> {
    let backlog = config
        .count("distributed.comm.socket-backlog")
        .unwrap_or(2048);
    let backlog = u32::try_from(backlog).unwrap_or(2048);
    let mut refused = None;
    for address in wanted.candidates().await? {
        match listener::bind(address, backlog) {
            Ok(tcp) => return Ok(tcp),
            Err(source) => refused = Some((address.to_string(), source)),
        }
    }
    let (address, source) = refused.unwrap_or_else(|| {
        let none = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        ("any port".to_owned(), none)
    });
    let hint = match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program listens there: stop it, or choose another one with --port"
        }
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need privileges",
        std::io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
        _ => "choose another address with --host and --port",
    };
    Err(StartError::Listen {
        address,
        source,
        hint,
    })
}

/// `oxidask.comm.older-port`: a second port for releases that wait to be greeted in the older
/// framing, which nothing tells from those that wait for the newer one.
fn older_port(first: &Port, config: &Config) -> Result<Option<Port>, StartError> {
    let port = config.count("oxidask.comm.older-port");
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else {
        return Ok(None);
    };
    let mut address = first.tcp.local_addr()?;
    address.set_port(port);
    let tcp = listener::bind(address, 2048).map_err(|source| StartError::Listen {
        address: address.to_string(),
        source,
        hint: "choose another port with oxidask.comm.older-port",
    })?;
    tracing::info!(target: "distributed.scheduler", "  Older releases at: {:>19}", tcp.local_addr()?);
    // They have no other transport that needs it.
    let scheme = if first.scheme.is_encrypted() {
        Scheme::Tls
    } else {
        Scheme::Tcp
    };
    Ok(Some(Port {
        contact: format!("{scheme}://{}", tcp.local_addr()?).into(),
        scheme,
        tcp,
        shared: false,
    }))
}

/// Passes on what the core tells nobody in particular.
async fn observe(context: Arc<Context>, mut observed: ObserverReceiver, watchdog: Arc<Watchdog>) {
    while let Some(observed) = observed.recv().await {
        context.python.observed(&observed);
        match observed {
            Observed::Log { topics, event } => {
                let event = views::logged_event(&topics, event);
                context.log_event_arc(&topics, &event);
            }
            Observed::WorkerRemoved {
                worker,
                stimulus_id,
            } => {
                tracing::info!(
                    target: "distributed.scheduler",
                    "Remove worker addr: {} name: {} (stimulus_id='{stimulus_id}')",
                    worker.info.address, worker.info.name
                );
                if context.workers.is_empty() {
                    tracing::info!(target: "distributed.scheduler", "Lost all workers");
                }
                context.peers.forget(&worker.info.address);
                context.status_feed.removed(&worker.info.address);
                for extension in &context.extensions {
                    extension.worker_removed(&context, &worker, &stimulus_id);
                }
            }
            Observed::WorkerUnresponsive {
                worker,
                stimulus_id,
            } => {
                let context = Arc::clone(&context);
                tokio::spawn(async move {
                    handlers::restart::restart_unresponsive(&context, worker, stimulus_id).await;
                });
            }
            Observed::Suspicious(suspicion) => {
                let (context, watchdog) = (Arc::clone(&context), Arc::clone(&watchdog));
                tokio::spawn(async move { watchdog.examine(&context, *suspicion).await });
            }
            Observed::Transition(transition) => {
                for extension in &context.extensions {
                    extension.transition(&context, &transition);
                }
            }
            Observed::Settled(done) => {
                let _ = done.send(());
            }
            // Only the Python host cares.
            Observed::WorkerAdded(_) | Observed::Change(_) => {}
        }
    }
}

/// `scheduler.idle-timeout`: ends the process when nothing was done for so long.
async fn watch_idle(context: Arc<Context>) {
    let Some(timeout) = context.settings.idle_timeout else {
        return;
    };
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        let Ok(idle_since) = handlers::idle::check(&context).await else {
            return;
        };
        if idle_since.is_some_and(|since| clock::now().since(since) > timeout) {
            tracing::info!(target: "distributed.scheduler", "Scheduler closing after being idle for {timeout} s");
            context.shutdown.request("idle-timeout-exceeded");
            return;
        }
    }
}
