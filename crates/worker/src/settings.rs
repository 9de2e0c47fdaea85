//! Settings of nannies and their workers, from command line, configuration and machine.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use oxidask_cli::WorkerArgs;
use oxidask_config::{Config, ConfigValue};
use oxidask_supervision::{Name, Plan};
use oxidask_wire::Release;
use oxidask_wire::connection::{Address, Scheme, Security};

use crate::addresses::{self, AddressError};
use crate::environment::{Variables, configured};
use crate::machine;
use crate::ports::{NotEnoughPorts, Ports, apportion};
use crate::security::{SecurityError, of_nannies};

/// Why there is nothing to start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Ports(#[from] NotEnoughPorts),
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error("--nworkers must give at least one process; this machine has {0} cores")]
    NoWorkers(u32),
}

/// What all workers of this program have in common.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    /// Where the scheduler is.
    pub(crate) scheduler: Address,
    /// Threads of each worker.
    pub(crate) nthreads: u32,
    /// Bytes of each worker; none: no limit.
    pub(crate) memory_limit: Option<u64>,
    /// Folder in which workers make theirs.
    pub(crate) local_directory: PathBuf,
}

/// One worker.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) name: Option<Name>,
    pub(crate) ports: Ports,
}

/// What only nannies need.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) common: Common,
    pub(crate) release: Release,
    pub(crate) scheme: Scheme,
    pub(crate) ip: IpAddr,
    pub(crate) security: Security,
    /// `--scheduler-sni`
    pub(crate) server_name: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) death_timeout: Option<f64>,
    /// Part of the limit beyond which a worker is ended.
    pub(crate) terminate: Option<f64>,
    /// Between two looks at a worker's memory.
    pub(crate) monitor_interval: Duration,
    pub(crate) environment: Variables,
    pub(crate) blocked: Vec<String>,
    pub(crate) preload: Vec<String>,
    pub(crate) preload_argv: Vec<String>,
    /// For the Python helper: files of `--tls-…`, by the names of `Security`.
    pub(crate) tls: Vec<(&'static str, String)>,
}

impl Common {
    /// The part that is the same for all, and the workers.
    pub(crate) fn new(
        args: &WorkerArgs,
        config: &Config,
        release: &Release,
    ) -> Result<(Self, Vec<Share>), SettingsError> {
        let cores = machine::cores();
        let (count, nthreads) = args
            .nworkers
            .resolve(cores, args.nthreads)
            .ok_or(SettingsError::NoWorkers(cores))?;
        let nthreads = nthreads.max(1);
        let system = machine::memory();
        let count = usize::try_from(count).unwrap_or(1);
        let ports = apportion(args.worker_port.as_ref(), args.nanny_port.as_ref(), count)?;
        let share = |(number, ports)| Share {
            name: args.name.as_ref().map(|name| match count {
                1 => Name::parse(name),
                _ => Name::Text(format!("{name}-{number}")),
            }),
            ports,
        };
        let common = Self {
            scheduler: addresses::scheduler(args, config)?,
            nthreads,
            memory_limit: args.memory_limit.resolve(system, nthreads, cores),
            local_directory: local_directory(args, config, release),
        };
        Ok((common, ports.into_iter().enumerate().map(share).collect()))
    }

    /// What a worker process is told.
    pub(crate) fn plan(&self, share: &Share) -> Plan {
        Plan {
            scheduler: self.scheduler.to_string(),
            name: share.name.clone(),
            nthreads: self.nthreads,
            memory_limit: self.memory_limit,
            ports: share.ports.worker.clone(),
            local_directory: Some(self.local_directory.display().to_string()),
            ..Plan::default()
        }
    }
}

/// The folder in which workers make theirs, named as the release names it.
fn local_directory(args: &WorkerArgs, config: &Config, release: &Release) -> PathBuf {
    let given = args
        .local_directory
        .clone()
        .or_else(|| config.str("temporary-directory").map(PathBuf::from));
    let base = match given {
        Some(folder) => std::path::absolute(&folder).unwrap_or(folder),
        // Until 2022.10.0 it was the working directory.
        None if *release < Release::new(2022, 10, 1) => std::env::current_dir().unwrap_or_default(),
        None => std::env::temp_dir(),
    };
    let name = if *release < Release::new(2023, 2, 1) {
        "dask-worker-space"
    } else {
        "dask-scratch-space"
    };
    if base.file_name().is_some_and(|last| last == name) {
        return base;
    }
    base.join(name)
}

impl Settings {
    /// Reads them.
    pub(crate) fn new(
        common: Common,
        args: &WorkerArgs,
        config: &Config,
        release: Release,
    ) -> Result<Self, SettingsError> {
        let seconds = |key: &str, default: f64| {
            let seconds = config.seconds(key).unwrap_or(default);
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs_f64(default))
        };
        let list = |given: &[String], key: &str| match given {
            [] => config.str_list(key),
            given => given.to_vec(),
        };
        let file =
            |name, path: &Option<PathBuf>| Some((name, path.as_ref()?.display().to_string()));
        Ok(Self {
            scheme: addresses::scheme(args, &common.scheduler)?,
            ip: addresses::listen_ip(args, &common.scheduler)?,
            security: of_nannies(args, config)?,
            server_name: args.scheduler_sni.clone(),
            connect_timeout: seconds("distributed.comm.timeouts.connect", 30.0),
            death_timeout: args.death_timeout,
            terminate: config.fraction("distributed.worker.memory.terminate"),
            monitor_interval: seconds("distributed.worker.memory.monitor-interval", 0.1)
                .max(Duration::from_millis(10)),
            environment: configured(config, |name| std::env::var(name).ok()),
            blocked: blocked(config),
            preload: list(&args.preload_nanny, "distributed.nanny.preload"),
            preload_argv: config.str_list("distributed.nanny.preload-argv"),
            tls: [
                file("tls_ca_file", &args.tls_ca_file),
                file("tls_worker_cert", &args.tls_cert),
                file("tls_worker_key", &args.tls_key),
            ]
            .into_iter()
            .flatten()
            .collect(),
            common,
            release,
        })
    }
}

/// Operations that are refused. No release declares the key, all read it.
fn blocked(config: &Config) -> Vec<String> {
    let found = config.get("distributed.nanny.blocked-handlers");
    let items = found.and_then(ConfigValue::as_list).unwrap_or(&[]);
    let texts = items.iter().filter_map(ConfigValue::as_str);
    texts.map(str::to_owned).collect()
}
