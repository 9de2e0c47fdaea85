//! Everything a handler can reach: the core, the tables of peers, outgoing connections, settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::ids::Timestamp;
use oxidask_wire::value::Value;
use tokio::sync::watch;

use crate::clients::ClientTable;
use crate::computations::Computations;
use crate::core_thread::CoreHandle;
use crate::extensions::event_log::EventLogExtension;
use crate::extensions::semaphore::SemaphoreExtension;
use crate::graph_intake::GraphCounts;
use crate::hooks::Extension;
use crate::nannies::NannyTable;
use crate::obituaries::Obituaries;
use crate::peers::PeerPool;
use crate::plugins::PluginStore;
use crate::python_host::PythonService;
use crate::releases::Releases;
use crate::roles::RoleRules;
use crate::rpc::RpcTable;
use crate::settings::Settings;
use crate::status_feed::StatusFeed;
use crate::threads::Places;
use crate::traffic::Traffic;
use crate::workers::WorkerTable;

/// One running scheduler. Shared by all tasks as `Arc<Context>`.
pub struct Context {
    /// The state.
    pub core: CoreHandle,
    /// Registered workers.
    pub workers: Arc<WorkerTable>,
    /// Clients and pseudo clients.
    pub clients: ClientTable,
    /// Nannies that are starting.
    pub nannies: NannyTable,
    /// How workers died.
    pub obituaries: Obituaries,
    /// Outgoing connections.
    pub peers: PeerPool,
    /// Ops.
    pub rpc: RpcTable,
    /// Python for what only Python can do.
    pub python: Arc<PythonService>,
    /// Extensions, in order of registration.
    pub extensions: Vec<Arc<dyn Extension>>,
    /// Worker, nanny and scheduler plugins.
    pub plugins: PluginStore,
    /// Which release is spoken on which host.
    pub releases: Releases,
    /// How many want messages of finished tasks kept whole (task stream, plugins).
    pub recorders: AtomicUsize,
    /// How many want to know of every transition.
    pub transition_observers: parking_lot::Mutex<usize>,
    /// How many want to know of other changes of the state.
    pub change_observers: parking_lot::Mutex<usize>,
    /// What clients computed lately (`Scheduler.computations`).
    pub computations: Arc<Computations>,
    /// Held (exclusively) while copies are made or moved, (shared) while workers retire.
    pub replica_lock: tokio::sync::RwLock<()>,
    /// Graphs that are being expanded.
    pub active_graphs: AtomicUsize,
    /// Graphs so far.
    pub graph_counts: GraphCounts,
    /// Where connections are served.
    pub places: Places,
    /// Messages and bytes so far.
    pub traffic: Arc<Traffic>,
    /// Subscribers of `subscribe_worker_status`.
    pub status_feed: StatusFeed,
    /// The event log and the semaphores, for the metrics page.
    pub event_log: Arc<EventLogExtension>,
    /// Semaphores, and locks of releases from 2024.7.1 on.
    pub semaphores: Arc<SemaphoreExtension>,
    /// Who this scheduler is.
    pub identity: Identity,
    /// What holders of certificates may do; None: everything.
    pub roles: Option<RoleRules>,
    /// Settings that the shell itself uses.
    pub settings: Settings,
    /// The whole configuration.
    pub config: Arc<oxidask_config::Config>,
    /// Asks the process to end.
    pub shutdown: Shutdown,
}

/// Who this scheduler is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `Scheduler-<uuid>`.
    pub id: String,
    /// The address told to peers, e.g. `tcp://192.0.2.2:8786`.
    pub address: Arc<str>,
    /// Port of the dashboard, if it is served.
    pub dashboard_port: Option<u16>,
    /// When it started.
    pub started: Timestamp,
}

/// Lets any part ask for the end of the process, and wait for it.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: Arc<watch::Sender<Option<Arc<str>>>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            requested: Arc::new(watch::Sender::new(None)),
        }
    }
}

impl Shutdown {
    /// Asks for the end. The first reason is kept.
    pub fn request(&self, reason: &str) {
        self.requested.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason.into());
            }
            first
        });
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        self.requested.borrow().is_some()
    }

    /// Waits until the end is asked for; gives the reason.
    pub async fn wait(&self) -> Arc<str> {
        let mut requested = self.requested.subscribe();
        match requested.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender lives in `self`.
            Err(_) => Arc::default(),
        }
    }
}

impl Context {
    /// Whether messages of finished tasks are to be kept whole.
    pub fn is_recording(&self) -> bool {
        self.recorders.load(Ordering::Relaxed) > 0
    }

    /// Has [`Extension::transition`] called from now on, until [`Self::unobserve_transitions`] was
    /// called as often.
    pub fn observe_transitions(&self) {
        // The core is told under the lock, so that it hears in the order of the counts.
        let mut observers = self.transition_observers.lock();
        *observers += 1;
        if *observers == 1 {
            self.core.send(Event::ObserveTransitions { enabled: true });
        }
    }

    /// Takes one [`Self::observe_transitions`] back.
    pub fn unobserve_transitions(&self) {
        let mut observers = self.transition_observers.lock();
        *observers = observers.saturating_sub(1);
        if *observers == 0 {
            self.core.send(Event::ObserveTransitions { enabled: false });
        }
    }

    /// Has workers, clients, graphs and restarts observed from now on, until
    /// [`Self::unobserve_changes`] was called as often.
    pub fn observe_changes(&self) {
        let mut observers = self.change_observers.lock();
        *observers += 1;
        if *observers == 1 {
            self.core.send(Event::ObserveChanges { enabled: true });
        }
    }

    /// Takes one [`Self::observe_changes`] back.
    pub fn unobserve_changes(&self) {
        let mut observers = self.change_observers.lock();
        *observers = observers.saturating_sub(1);
        if *observers == 0 {
            self.core.send(Event::ObserveChanges { enabled: false });
        }
    }

    /// Writes an entry to the event log (`Client.get_events`, topic subscribers).
    pub fn log_event(self: &Arc<Self>, topics: &[&str], event: &Value) {
        let topics: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(*topic)).collect();
        self.log_event_arc(&topics, event);
    }

    /// [`Self::log_event`] for topics that are shared already.
    pub fn log_event_arc(self: &Arc<Self>, topics: &[Arc<str>], event: &Value) {
        for extension in &self.extensions {
            extension.log_event(self, topics, event);
        }
    }
}
