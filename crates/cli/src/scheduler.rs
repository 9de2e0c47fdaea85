//! `dask-scheduler`.

use std::path::PathBuf;

use clap::{Args, Command, FromArgMatches};
use oxidask_config::{Config, ConfigError, ConfigValue, Origin};

use crate::click::{Outcome, Parsed, Program, UsageError, program_name};
use crate::common::{bokeh_port_renamed, bokeh_renamed, non_empty, pair, path, without_effect};
use crate::values::{
    HostAndPort, LogFormat, PortSpec, PythonHostMode, boolean, duration, existing_file,
    parse_dashboard_address,
};

/// The options as clap reads them: those of 2026.8.0 first, then older ones, then ours.
#[derive(Debug, Args)]
struct Raw {
    /// URI, IP address or name to listen on
    #[arg(long, value_name = "TEXT")]
    host: Option<String>,
    /// Port to listen on; a range such as 8786:8790 takes the first free one [default: 8786]
    #[arg(long, value_name = "TEXT")]
    port: Option<String>,
    /// Network interface to listen on, like 'eth0' or 'ib0'
    #[arg(long, value_name = "TEXT")]
    interface: Option<String>,
    /// Protocol, like tcp or tls
    #[arg(long, value_name = "TEXT")]
    protocol: Option<String>,
    /// File of the authorities for TLS (PEM)
    #[arg(long, value_name = "PATH", value_parser = existing_file)]
    tls_ca_file: Option<PathBuf>,
    /// File of the certificate for TLS (PEM)
    #[arg(long, value_name = "PATH", value_parser = existing_file)]
    tls_cert: Option<PathBuf>,
    /// File of the private key for TLS (PEM)
    #[arg(long, value_name = "PATH", value_parser = existing_file)]
    tls_key: Option<PathBuf>,
    /// Address of the dashboard [default: :8787]
    #[arg(long, value_name = "TEXT")]
    dashboard_address: Option<String>,
    /// Serve the dashboard (the default)
    #[arg(long, overrides_with = "no_dashboard")]
    dashboard: bool,
    /// Serve only health, metrics, JSON and info pages
    #[arg(long, overrides_with = "dashboard")]
    no_dashboard: bool,
    /// Start a Jupyter server in the scheduler
    #[arg(long, overrides_with = "no_jupyter")]
    jupyter: bool,
    /// Start none (the default)
    #[arg(long, overrides_with = "jupyter")]
    no_jupyter: bool,
    /// Path in front of all pages
    #[arg(long, value_name = "TEXT")]
    dashboard_prefix: Option<String>,
    /// File that holds the process id while the scheduler runs
    #[arg(long, value_name = "TEXT")]
    pid_file: Option<String>,
    /// File to write the connection information to, as JSON
    #[arg(long, value_name = "TEXT")]
    scheduler_file: Option<String>,
    /// Python module, file or URL to load with the scheduler; repeatable
    #[arg(long, value_name = "TEXT")]
    preload: Vec<String>,
    /// Shut down after so long without work, like '30 minutes'
    #[arg(long, value_name = "TEXT", value_parser = duration)]
    idle_timeout: Option<f64>,
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
    /// Deprecated, without effect
    #[arg(long, overrides_with = "no_show", help_heading = OLDER)]
    show: bool,
    /// Deprecated, without effect
    #[arg(long, overrides_with = "show", help_heading = OLDER)]
    no_show: bool,
    /// Deprecated, without effect
    #[arg(long, value_name = "BOOLEAN", value_parser = boolean, help_heading = OLDER)]
    use_xheaders: Option<bool>,

    /// Who expands graphs that need Python [default: auto]
    #[arg(long, value_enum, value_name = "MODE", help_heading = OURS)]
    python_host: Option<PythonHostMode>,
    /// Interpreter of the local Python host
    #[arg(long, value_name = "PATH", help_heading = OURS)]
    python: Option<String>,
    /// Record the scheduler's events in a file, for `cargo xtask replay`
    #[arg(long, value_name = "FILE", help_heading = OURS)]
    record: Option<PathBuf>,
    /// Form of the log lines [default: text]
    #[arg(long, value_enum, value_name = "FORM", help_heading = OURS)]
    log_format: Option<LogFormat>,
    /// Run no code of clients in the scheduler unless TLS certificates say who they are
    #[arg(long, help_heading = OURS)]
    secure: bool,
    /// Ask the scheduler on this machine whether it is well, and exit with 0 or 1
    #[arg(long, help_heading = OURS)]
    check_health: bool,
}

/// Section of options that the newest release no longer has.
pub(crate) const OLDER: &str = "Options of older releases";
/// Section of options that stock does not have.
pub(crate) const OURS: &str = "Options of Oxidask";

/// What the command line of a scheduler says. Options that have a configuration key are also brought
/// into the configuration by [`SchedulerArgs::apply`].
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerArgs {
    /// Host or URI to listen on.
    pub host: Option<String>,
    /// Port or ports; None: 8786 unless the host has one.
    pub port: Option<PortSpec>,
    /// Interfaces to listen on.
    pub interface: Vec<String>,
    /// Protocols to listen with; empty: by configuration.
    pub protocol: Vec<String>,
    /// Authorities for TLS.
    pub tls_ca_file: Option<PathBuf>,
    /// Certificate for TLS.
    pub tls_cert: Option<PathBuf>,
    /// Key for TLS.
    pub tls_key: Option<PathBuf>,
    /// Addresses of the dashboard.
    pub dashboard_address: Vec<HostAndPort>,
    /// Serve the dashboard's pages.
    pub dashboard: bool,
    /// Path in front of all HTTP pages; empty for none.
    pub dashboard_prefix: String,
    /// `--jupyter`.
    pub jupyter: bool,
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
    /// Where to write the connection information.
    pub scheduler_file: Option<PathBuf>,
    /// Modules, files, URLs.
    pub preload: Vec<String>,
    /// Words for the preloads.
    pub preload_argv: Vec<String>,
    /// Seconds.
    pub idle_timeout: Option<f64>,
    /// Who expands graphs that need Python; None: by configuration.
    pub python_host: Option<PythonHostMode>,
    /// Interpreter of the local Python host; None: by configuration.
    pub python: Option<PathBuf>,
    /// Form of log lines; None: by configuration.
    pub log_format: Option<LogFormat>,
    /// File that gets a recording of the scheduler's events.
    pub record: Option<PathBuf>,
    /// `--secure`; otherwise by configuration.
    pub secure: bool,
    /// Start nothing; ask the scheduler that runs with the same options whether it is well.
    pub check_health: bool,
}

/// The options as clap declares them.
#[must_use]
pub fn scheduler_command() -> Command {
    let command = Command::new("dask-scheduler")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true);
    Raw::augment_args(command).about("Launch a Dask scheduler.")
}

/// Parses the words of a command line, the program's name first.
///
/// # Errors
/// A mistake, ready to be printed.
pub fn parse_scheduler(words: &[String]) -> Result<Outcome<SchedulerArgs>, UsageError> {
    let name = program_name(words.first(), "dask-scheduler");
    let program = Program {
        name: &name,
        shape: "[OPTIONS] [PRELOAD_ARGV]...",
        positionals: 0,
        command: scheduler_command(),
    };
    let (matches, preload_argv) = match program.parse(words.get(1..).unwrap_or_default())? {
        Outcome::Run(parsed) => parsed.args,
        Outcome::Print(text) => return Ok(Outcome::Print(text)),
    };
    let raw =
        Raw::from_arg_matches(&matches).map_err(|error| program.usage_error(error.to_string()))?;
    raw.finish(preload_argv)
        .map(Outcome::Run)
        .map_err(|(option, reason)| {
            program.usage_error(format!("Invalid value for '{option}': {reason}"))
        })
}

impl Raw {
    fn finish(
        self,
        preload_argv: Vec<String>,
    ) -> Result<Parsed<SchedulerArgs>, (&'static str, String)> {
        let warnings = self.warnings();
        let commas = |text: Option<String>| -> Vec<String> {
            non_empty(text)
                .iter()
                .flat_map(|text| text.split(','))
                .map(str::to_owned)
                .collect()
        };
        let port = non_empty(self.port)
            .map(|text| PortSpec::parse(&text))
            .transpose();
        let port = port.map_err(|reason| ("--port", reason))?;
        let protocol = commas(self.protocol);
        let ports = port.as_ref().map_or(1, |port| match port {
            PortSpec::List(ports) => ports.len(),
            PortSpec::Range { .. } => 1,
        });
        if ports > 1 && ports != protocol.len() {
            return Err(("--port", "give as many protocols as ports.".to_owned()));
        }
        let dashboard_text = match (self.bokeh_port, non_empty(self.dashboard_address)) {
            (Some(port), _) => port.to_string(),
            (None, given) => given.unwrap_or_else(|| ":8787".to_owned()),
        };
        let dashboard_address = parse_dashboard_address(&dashboard_text)
            .map_err(|reason| ("--dashboard-address", reason))?;
        let dashboard = pair(self.bokeh, self.no_bokeh)
            .or(pair(self.dashboard, self.no_dashboard))
            .unwrap_or(true);
        let args = SchedulerArgs {
            host: non_empty(self.host),
            port,
            interface: commas(self.interface),
            protocol,
            tls_ca_file: self.tls_ca_file,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            dashboard_address,
            dashboard,
            dashboard_prefix: self.dashboard_prefix.unwrap_or_default(),
            jupyter: pair(self.jupyter, self.no_jupyter).unwrap_or(false),
            pid_file: path(self.pid_file),
            scheduler_file: path(self.scheduler_file),
            preload: self
                .preload
                .into_iter()
                .filter(|name| !name.is_empty())
                .collect(),
            preload_argv,
            idle_timeout: self.idle_timeout,
            python_host: self.python_host,
            python: path(self.python),
            log_format: self.log_format,
            record: self.record,
            secure: self.secure,
            check_health: self.check_health,
        };
        Ok(Parsed { args, warnings })
    }

    /// One line for each deprecated option and each without effect. Remove a line here when its option
    /// has become real.
    fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if pair(self.bokeh, self.no_bokeh).is_some() {
            lines.push(bokeh_renamed());
        }
        lines.extend(self.bokeh_port.map(bokeh_port_renamed));
        let mut ineffective = |given: bool, option: &str, reason: &str| {
            if given {
                lines.push(without_effect(option, reason));
            }
        };
        ineffective(
            self.jupyter,
            "--jupyter",
            "the scheduler is not a Python process",
        );
        ineffective(self.show || self.no_show, "--show/--no-show", "deprecated");
        ineffective(self.use_xheaders.is_some(), "--use-xheaders", "deprecated");
        lines
    }
}

impl SchedulerArgs {
    /// Brings what was given on the command line into the configuration, where it outranks all else.
    ///
    /// # Errors
    /// A value the key does not take; the values were checked when parsed.
    pub fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        let text = |path: &PathBuf| ConfigValue::Str(path.to_string_lossy().into_owned());
        let some = |words: &[String]| (!words.is_empty()).then(|| list(words));
        let given = [
            (
                "--tls-ca-file",
                "distributed.comm.tls.ca-file",
                self.tls_ca_file.as_ref().map(text),
            ),
            (
                "--tls-cert",
                "distributed.comm.tls.scheduler.cert",
                self.tls_cert.as_ref().map(text),
            ),
            (
                "--tls-key",
                "distributed.comm.tls.scheduler.key",
                self.tls_key.as_ref().map(text),
            ),
            (
                "--idle-timeout",
                "distributed.scheduler.idle-timeout",
                self.idle_timeout.map(ConfigValue::Float),
            ),
            (
                "--preload",
                "distributed.scheduler.preload",
                some(&self.preload),
            ),
            (
                "--preload",
                "distributed.scheduler.preload-argv",
                some(&self.preload_argv),
            ),
            (
                "--python-host",
                "oxidask.python-host.mode",
                self.python_host.map(word),
            ),
            (
                "--python",
                "oxidask.python-host.python",
                self.python.as_ref().map(text),
            ),
            (
                "--record",
                "oxidask.scheduler.record",
                self.record.as_ref().map(text),
            ),
            (
                "--log-format",
                "oxidask.log.format",
                self.log_format.map(word),
            ),
            (
                "--secure",
                "oxidask.security.secure",
                self.secure.then_some(ConfigValue::Bool(true)),
            ),
        ];
        for (option, key, value) in given {
            if let Some(value) = value {
                config.set(key, value, Origin::Option(option.to_owned()))?;
            }
        }
        Ok(())
    }
}

fn list(words: &[String]) -> ConfigValue {
    ConfigValue::List(words.iter().cloned().map(ConfigValue::Str).collect())
}

fn word<V: clap::ValueEnum>(value: V) -> ConfigValue {
    let name = value
        .to_possible_value()
        .map(|value| value.get_name().to_owned());
    name.map_or(ConfigValue::None, ConfigValue::Str)
}
