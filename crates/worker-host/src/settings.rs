//! What the worker is told when it starts. Command line and configuration are read elsewhere.

use std::sync::Arc;
use std::time::Duration;

use oxidask_http::listen::HostAndPort;
use oxidask_wire::connection::{Scheme, Security, TlsServer};
use oxidask_wire::{Release, Value};
use oxidask_worker_core::config::WorkerConfig;

use crate::memory::MemorySettings;

/// Settings of one worker process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Release of `distributed` in this environment: that of the scheduler and of all peers.
    pub release: Release,
    /// Address of the scheduler.
    pub scheduler: String,
    /// IP address to listen on.
    pub listen_host: String,
    /// Ports to listen on, the first free one of them; none: any.
    pub ports: Vec<u16>,
    /// Host that others are told; none: the one listened on.
    pub contact_host: Option<String>,
    /// Address that others are told, whatever is listened on (`--contact-address`).
    pub contact_address: Option<String>,
    /// Address of the nanny.
    pub nanny: Option<String>,
    /// Text or integer; nil: the address.
    pub name: Value,
    /// Threads for tasks.
    pub nthreads: u32,
    /// Abstract resources.
    pub resources: Vec<(Arc<str>, f64)>,
    /// Bytes; none: no limit.
    pub memory_limit: Option<u64>,
    /// Folder for files of tasks.
    pub local_directory: String,
    /// What is listened for.
    pub scheme: Scheme,
    /// Our certificate, and whose we accept.
    pub security: Security,
    /// The name that is asked for in TLS (`--scheduler-sni`); none: the host of the address.
    pub server_name: Option<String>,
    /// Give up when there is no scheduler for so long.
    pub death_timeout: Option<f64>,
    /// Seconds for which a scheduler that went away is waited for, if there is no death timeout. 0: the
    /// worker leaves with it, as stock's does.
    pub reconnect_timeout: f64,
    /// Seconds that handing over the data may take when the worker leaves gracefully.
    pub retire_timeout: f64,
    /// Whether data of workers on the same machine is read from their memory, and ours may be by them
    /// (`distributed.worker.near-memory`, a key of our own).
    pub near_memory: bool,
    /// `distributed.versions.get_versions()` of this environment.
    pub versions: Value,
    /// Time for a connection (`distributed.comm.timeouts.connect`).
    pub connect_timeout: Duration,
    /// When data goes to disk, and when the worker pauses.
    pub memory: MemorySettings,
    /// Where and what is served by HTTP.
    pub http: HttpSettings,
    /// Settings of the state machine; address, threads and resources are filled in from above.
    pub core: WorkerConfig,
}

/// Settings of the HTTP server.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// `--dashboard-address`; none: nothing is served.
    pub addresses: Vec<HostAndPort>,
    /// `--dashboard-prefix`.
    pub prefix: String,
    /// Pages beside health and metrics (`--dashboard`).
    pub pages: bool,
    /// For HTTPS.
    pub tls: Option<TlsServer>,
    /// `distributed.dashboard.prometheus.namespace`.
    pub namespace: String,
    /// Labels of `python_info`: `version`, `implementation`, `major`, …
    pub python: Vec<(&'static str, String)>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            prefix: String::new(),
            pages: true,
            tls: None,
            namespace: "dask".into(),
            python: Vec::new(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            release: Release::NEWEST,
            scheduler: String::new(),
            listen_host: "127.0.0.1".into(),
            ports: Vec::new(),
            contact_host: None,
            contact_address: None,
            nanny: None,
            name: Value::Nil,
            nthreads: 1,
            resources: Vec::new(),
            memory_limit: None,
            local_directory: String::new(),
            scheme: Scheme::Tcp,
            security: Security::default(),
            server_name: None,
            death_timeout: None,
            reconnect_timeout: 300.0,
            retire_timeout: 20.0,
            near_memory: true,
            versions: Value::Map(Vec::new()),
            connect_timeout: Duration::from_secs(30),
            memory: MemorySettings::default(),
            http: HttpSettings::default(),
            core: WorkerConfig::default(),
        }
    }
}
