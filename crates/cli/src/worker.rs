//! `dask-worker`: its command line. The launcher reads it, and the worker inside of Python once more.

use std::path::PathBuf;

use clap::{Args, Command, FromArgMatches};
use oxidask_config::{MemoryLimit, parse_number};

use crate::click::{Outcome, Parsed, Program, UsageError, program_name};
use crate::common::{bokeh_port_renamed, bokeh_renamed, non_empty, pair, path, without_effect};
use crate::scheduler::{OLDER, OURS};
use crate::values::{
    HostAndPort, LogFormat, PortSpec, WorkerCount, duration, existing_file, integer,
    parse_dashboard_address,
};

/// The options as clap reads them.
#[derive(Debug, Args)]
struct Raw {
    /// File of the authorities for TLS (PEM)
    #[arg(long, value_name = "PATH", value_parser = existing_file)]
    tls_ca_file: Option<PathBuf>,
    /// File of the certificate for TLS (PEM)
    #[arg(long, value_name = "PATH", value_parser = existing_file)]
    tls_cert: Option<PathBuf>,
    /// File of the private key for TLS (PEM)
    #[arg(long, value_name = "PATH", value_parser = existing_file)]
    tls_key: Option<PathBuf>,
    /// Port of the worker, or a range such as 3000:3026 for several [default: any]
    #[arg(long, value_name = "TEXT")]
    worker_port: Option<String>,
    /// Port of the nanny, or a range for several [default: any]
    #[arg(long, value_name = "TEXT")]
    nanny_port: Option<String>,
    /// Address of the dashboard [default: :0]
    #[arg(long, value_name = "TEXT")]
    dashboard_address: Option<String>,
    /// Prefix of the paths of the dashboard
    #[arg(long, value_name = "TEXT")]
    dashboard_prefix: Option<String>,
    /// Serve the dashboard (the default)
    #[arg(long, overrides_with = "no_dashboard")]
    dashboard: bool,
    /// Serve only health and metrics
    #[arg(long, overrides_with = "dashboard")]
    no_dashboard: bool,
    /// Address to listen on, like tcp://0.0.0.0:9000
    #[arg(long, value_name = "TEXT")]
    listen_address: Option<String>,
    /// Address told to others, like tcp://192.168.0.100:9000
    #[arg(long, value_name = "TEXT")]
    contact_address: Option<String>,
    /// IP address or name to listen on, as others reach it
    #[arg(long, value_name = "TEXT")]
    host: Option<String>,
    /// Network interface to listen on, like 'eth0' or 'ib0'
    #[arg(long, value_name = "TEXT")]
    interface: Option<String>,
    /// Protocol, like tcp or tls
    #[arg(long, value_name = "TEXT")]
    protocol: Option<String>,
    /// Threads per process; 0 shares the cores out [default: 0]
    #[arg(long, value_name = "INTEGER", value_parser = integer)]
    nthreads: Option<i64>,
    /// Processes; -1 is one per core, 'auto' chooses processes and threads [default: 1]
    #[arg(long, value_name = "TEXT", value_parser = WorkerCount::parse)]
    nworkers: Option<WorkerCount>,
    /// Name of the worker; several get -0, -1, … appended
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Memory per process: bytes, a fraction, '5GB', 'auto', or 0 for no limit [default: auto]
    #[arg(long, value_name = "TEXT")]
    memory_limit: Option<String>,
    /// Start workers under a nanny (the default)
    #[arg(long, overrides_with = "no_nanny")]
    nanny: bool,
    /// Start one worker in this process
    #[arg(long, overrides_with = "nanny")]
    no_nanny: bool,
    /// File that holds the process id while the worker runs
    #[arg(long, value_name = "TEXT")]
    pid_file: Option<String>,
    /// Folder for the worker's files
    #[arg(long, value_name = "TEXT")]
    local_directory: Option<String>,
    /// Resources of each process, like "GPU=2 MEM=10e9"
    #[arg(long, value_name = "TEXT", value_parser = resources)]
    resources: Option<Resources>,
    /// File that the scheduler wrote its connection information to
    #[arg(long, value_name = "TEXT")]
    scheduler_file: Option<String>,
    /// Give up when there is no scheduler for so long
    #[arg(long, value_name = "TEXT", value_parser = duration)]
    death_timeout: Option<f64>,
    /// Leave after so long
    #[arg(long, value_name = "TEXT", value_parser = duration)]
    lifetime: Option<f64>,
    /// Random part of the lifetime
    #[arg(long, value_name = "TEXT", value_parser = duration)]
    lifetime_stagger: Option<f64>,
    /// Python class of the worker
    #[arg(long, value_name = "TEXT")]
    worker_class: Option<String>,
    /// Start again after the lifetime
    #[arg(long, overrides_with = "no_lifetime_restart")]
    lifetime_restart: bool,
    /// Do not (the default)
    #[arg(long, overrides_with = "lifetime_restart")]
    no_lifetime_restart: bool,
    /// Python module, file or URL to load with each worker; repeatable
    #[arg(long, value_name = "TEXT")]
    preload: Vec<String>,
    /// Python module, file or URL to load with each nanny; repeatable
    #[arg(long, value_name = "TEXT")]
    preload_nanny: Vec<String>,
    /// Name of the scheduler for TLS, if not that of its address
    #[arg(long, value_name = "TEXT")]
    scheduler_sni: Option<String>,
    /// Show the version and exit
    #[arg(long)]
    version: bool,
    /// Show this message and exit
    #[arg(long)]
    help: bool,

    /// Deprecated: use --dashboard-address
    #[arg(long, value_name = "INTEGER", help_heading = OLDER)]
    bokeh_port: Option<u16>,
    /// Deprecated: use --dashboard
    #[arg(long, overrides_with = "no_bokeh", help_heading = OLDER)]
    bokeh: bool,
    /// Deprecated: use --no-dashboard
    #[arg(long, overrides_with = "bokeh", help_heading = OLDER)]
    no_bokeh: bool,
    /// Deprecated: use --nworkers
    #[arg(long, value_name = "TEXT", value_parser = WorkerCount::parse, help_heading = OLDER)]
    nprocs: Option<WorkerCount>,
    /// Deprecated, without effect
    #[arg(long, overrides_with = "no_reconnect", help_heading = OLDER)]
    reconnect: bool,
    /// Deprecated, without effect
    #[arg(long, overrides_with = "reconnect", help_heading = OLDER)]
    no_reconnect: bool,

    /// Interpreter that runs the tasks [default: python3 or python on PATH]
    #[arg(long, value_name = "PATH", help_heading = OURS)]
    python: Option<String>,
    /// Extension module with the worker [default: beside this program]
    #[arg(long, value_name = "PATH", help_heading = OURS)]
    module: Option<String>,
    /// Form of the log lines [default: text]
    #[arg(long, value_enum, value_name = "FORM", help_heading = OURS)]
    log_format: Option<LogFormat>,
}

type Resources = std::collections::BTreeMap<String, f64>;

/// `GPU=2 MEM=10e9`, separated by blanks or commas.
fn resources(text: &str) -> Result<Resources, String> {
    let pairs = text
        .split([',', ' '])
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let wrong = || format!("'{pair}' is not like GPU=2.");
            let (name, amount) = pair.split_once('=').ok_or_else(wrong)?;
            let amount = parse_number(amount)
                .filter(|amount| amount.is_finite())
                .ok_or_else(wrong)?;
            Ok((name.to_owned(), amount))
        });
    pairs.collect()
}

/// What the command line of a worker says.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerArgs {
    /// Address of the scheduler; None: from the scheduler file or the configuration.
    pub scheduler: Option<String>,
    /// Where the scheduler wrote its connection information.
    pub scheduler_file: Option<PathBuf>,
    /// Authorities for TLS.
    pub tls_ca_file: Option<PathBuf>,
    /// Certificate for TLS.
    pub tls_cert: Option<PathBuf>,
    /// Key for TLS.
    pub tls_key: Option<PathBuf>,
    /// Name of the scheduler for TLS.
    pub scheduler_sni: Option<String>,
    /// Ports of workers.
    pub worker_port: Option<PortSpec>,
    /// Ports of nannies.
    pub nanny_port: Option<PortSpec>,
    /// Addresses of the dashboard.
    pub dashboard_address: Vec<HostAndPort>,
    /// Serve the dashboard's pages.
    pub dashboard: bool,
    /// Before the paths of all pages; mostly empty.
    pub dashboard_prefix: String,
    /// Address to listen on.
    pub listen_address: Option<String>,
    /// Address told to others.
    pub contact_address: Option<String>,
    /// Host to listen on.
    pub host: Option<String>,
    /// Interface to listen on.
    pub interface: Option<String>,
    /// Protocol.
    pub protocol: Option<String>,
    /// Threads per process; 0 shares the cores out.
    pub nthreads: u32,
    /// Processes.
    pub nworkers: WorkerCount,
    /// Name.
    pub name: Option<String>,
    /// Memory per process.
    pub memory_limit: MemoryLimit,
    /// Start workers under a nanny.
    pub nanny: bool,
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
    /// Where worker files go.
    pub local_directory: Option<PathBuf>,
    /// Abstract resources and amounts.
    pub resources: Vec<(String, f64)>,
    /// Seconds without a scheduler.
    pub death_timeout: Option<f64>,
    /// Seconds.
    pub lifetime: Option<f64>,
    /// Seconds.
    pub lifetime_stagger: Option<f64>,
    /// Start again after the lifetime.
    pub lifetime_restart: Option<bool>,
    /// Python class.
    pub worker_class: Option<String>,
    /// Modules, files, URLs.
    pub preload: Vec<String>,
    /// Words for the preloads.
    pub preload_argv: Vec<String>,
    /// Modules, files, URLs of nannies.
    pub preload_nanny: Vec<String>,
    /// Interpreter that runs the tasks.
    pub python: Option<PathBuf>,
    /// Extension module with the worker.
    pub module: Option<PathBuf>,
    /// Form of the log lines; None: by `oxidask.log.format`.
    pub log_format: Option<LogFormat>,
}

/// The options as clap declares them.
#[must_use]
pub fn worker_command() -> Command {
    let command = Command::new("dask-worker")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true);
    Raw::augment_args(command).about("Launch a Dask worker attached to an existing scheduler.")
}

/// Parses the words of a command line, the program's name first.
///
/// # Errors
/// A mistake, ready to be printed.
pub fn parse_worker(words: &[String]) -> Result<Outcome<WorkerArgs>, UsageError> {
    let name = program_name(words.first(), "dask-worker");
    let program = Program {
        name: &name,
        shape: "[OPTIONS] [SCHEDULER] [PRELOAD_ARGV]...",
        positionals: 1,
        command: worker_command(),
    };
    let (matches, others) = match program.parse(words.get(1..).unwrap_or_default())? {
        Outcome::Run(parsed) => parsed.args,
        Outcome::Print(text) => return Ok(Outcome::Print(text)),
    };
    let raw =
        Raw::from_arg_matches(&matches).map_err(|error| program.usage_error(error.to_string()))?;
    let mut others = others.into_iter();
    let scheduler = others.next();
    if let Some(option) = scheduler.as_ref().filter(|word| word.starts_with('-')) {
        return Err(program.usage_error(format!("No such option: {option}")));
    }
    raw.finish(non_empty(scheduler), others.collect())
        .map(Outcome::Run)
        .map_err(|message| program.usage_error(message))
}

impl Raw {
    fn finish(
        self,
        scheduler: Option<String>,
        preload_argv: Vec<String>,
    ) -> Result<Parsed<WorkerArgs>, String> {
        let warnings = self.warnings();
        let invalid = |option: &'static str| {
            move |reason: String| format!("Invalid value for '{option}': {reason}")
        };
        let port = |option: &'static str, text: Option<String>| {
            let parsed = non_empty(text)
                .map(|text| PortSpec::parse(&text))
                .transpose();
            parsed.map_err(invalid(option))
        };
        let dashboard_text = match (self.bokeh_port, non_empty(self.dashboard_address)) {
            (Some(port), _) => port.to_string(),
            (None, given) => given.unwrap_or_else(|| ":0".to_owned()),
        };
        let memory = self.memory_limit.unwrap_or_else(|| "auto".to_owned());
        let nworkers = self
            .nworkers
            .or(self.nprocs)
            .unwrap_or(WorkerCount::Count(1));
        let args = WorkerArgs {
            scheduler,
            scheduler_file: path(self.scheduler_file),
            tls_ca_file: self.tls_ca_file,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            scheduler_sni: non_empty(self.scheduler_sni),
            worker_port: port("--worker-port", self.worker_port)?,
            nanny_port: port("--nanny-port", self.nanny_port)?,
            dashboard_address: parse_dashboard_address(&dashboard_text)
                .map_err(invalid("--dashboard-address"))?,
            dashboard: pair(self.bokeh, self.no_bokeh)
                .or(pair(self.dashboard, self.no_dashboard))
                .unwrap_or(true),
            dashboard_prefix: self.dashboard_prefix.unwrap_or_default(),
            listen_address: non_empty(self.listen_address),
            contact_address: non_empty(self.contact_address),
            host: non_empty(self.host),
            interface: non_empty(self.interface),
            protocol: non_empty(self.protocol),
            nthreads: u32::try_from(self.nthreads.unwrap_or(0))
                .map_err(|_| invalid("--nthreads")("it must not be negative.".to_owned()))?,
            nworkers,
            name: non_empty(self.name),
            memory_limit: MemoryLimit::parse(&memory)
                .map_err(|error| invalid("--memory-limit")(format!("{error}.")))?,
            nanny: pair(self.nanny, self.no_nanny).unwrap_or(true),
            pid_file: path(self.pid_file),
            local_directory: path(self.local_directory),
            resources: self.resources.unwrap_or_default().into_iter().collect(),
            death_timeout: self.death_timeout,
            lifetime: self.lifetime,
            lifetime_stagger: self.lifetime_stagger,
            lifetime_restart: pair(self.lifetime_restart, self.no_lifetime_restart),
            worker_class: non_empty(self.worker_class),
            preload: self.preload,
            preload_argv,
            preload_nanny: self.preload_nanny,
            python: path(self.python),
            module: path(self.module),
            log_format: self.log_format,
        };
        args.check()?;
        Ok(Parsed { args, warnings })
    }

    /// One line for each deprecated option and each without effect.
    fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if pair(self.bokeh, self.no_bokeh).is_some() {
            lines.push(bokeh_renamed());
        }
        lines.extend(self.bokeh_port.map(bokeh_port_renamed));
        if self.nprocs.is_some() {
            lines.push("the --nprocs option has been renamed to --nworkers".to_owned());
        }
        if pair(self.reconnect, self.no_reconnect).is_some() {
            lines.push(without_effect("--reconnect/--no-reconnect", "deprecated"));
        }
        lines
    }
}

impl WorkerArgs {
    /// Combinations that stock refuses.
    fn check(&self) -> Result<(), String> {
        let several = !matches!(self.nworkers, WorkerCount::Count(1));
        let problem = if self.nworkers == WorkerCount::Count(0) {
            "--nworkers must give at least one process."
        } else if several && !self.nanny && self.nworkers != WorkerCount::Auto {
            "Failed to launch worker: --no-nanny cannot be used with more than one."
        } else if self.contact_address.is_some() && self.listen_address.is_none() {
            "--contact-address needs --listen-address."
        } else if several && self.listen_address.is_some() {
            "--listen-address cannot be used with more than one worker."
        } else if self.listen_address.is_some()
            && (self.worker_port.is_some() || self.host.is_some())
        {
            "--listen-address cannot be used with --worker-port or --host."
        } else {
            return Ok(());
        };
        Err(problem.to_owned())
    }
}
