//! Values of options that are more than text.

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;
use oxidask_config::parse_timedelta;

/// `--port` of the scheduler, `--worker-port`, `--nanny-port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSpec {
    /// `8786`; 0 is any free one. Several (`8786,8787`) belong to as many protocols.
    List(Vec<u16>),
    /// `8786:8790`, both ends included: the first free one, or one for each worker.
    Range {
        /// First.
        first: u16,
        /// Last.
        last: u16,
    },
}

impl PortSpec {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            text.trim().parse::<u16>().map_err(|_| {
                format!("'{text}' is not a port; give a number up to 65535, or a range such as 8786:8790.")
            })
        };
        let Some((first, last)) = text.split_once(':') else {
            return text
                .split(',')
                .map(port)
                .collect::<Result<_, _>>()
                .map(Self::List);
        };
        let (first, last) = (port(first)?, port(last)?);
        if last <= first {
            return Err(format!(
                "'{text}' is not a range; its second port must be the higher one."
            ));
        }
        Ok(Self::Range { first, last })
    }

    /// Ports to try in order.
    pub fn candidates(&self) -> impl Iterator<Item = u16> + '_ {
        let (list, range) = match self {
            Self::List(ports) => (ports.as_slice(), None),
            Self::Range { first, last } => (&[][..], Some(*first..=*last)),
        };
        list.iter().copied().chain(range.into_iter().flatten())
    }
}

/// An address to listen on; an empty host is every interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAndPort {
    /// Name or IP, without brackets; empty for all.
    pub host: String,
    /// Port; 0 is any free one.
    pub port: u16,
}

impl fmt::Display for HostAndPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(out, "[{}]:{}", self.host, self.port);
        }
        write!(out, "{}:{}", self.host, self.port)
    }
}

impl HostAndPort {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong =
            || format!("'{text}' is not an address; give for example 8787, :8787 or 0.0.0.0:8787.");
        if let Ok(port) = text.parse() {
            return Ok(Self {
                host: String::new(),
                port,
            });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (text, 0),
        };
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if bracketed.is_none() && host.contains([':', '/', '[', ']', ' ']) {
            return Err(wrong());
        }
        Ok(Self {
            host: bracketed.unwrap_or(host).to_owned(),
            port,
        })
    }
}

/// Addresses of the dashboard: `8787`, `:8787`, `0.0.0.0:8787`, several with commas.
///
/// # Errors
/// What is wrong, for a person.
pub fn parse_dashboard_address(text: &str) -> Result<Vec<HostAndPort>, String> {
    text.split(',').map(HostAndPort::parse).collect()
}

/// `--nworkers`, `--nprocs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerCount {
    /// By the number of cores, together with the threads.
    Auto,
    /// So many; negative numbers count down from the cores: -1 is one per core.
    Count(i32),
}

impl WorkerCount {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let count = text
            .trim()
            .parse()
            .map_err(|_| format!("'{text}' is neither 'auto' nor a whole number."))?;
        Ok(Self::Count(count))
    }

    /// Processes and threads of each on a machine of `cores`, by stock's rule; `nthreads` 0 shares the
    /// cores out. None: less than one process.
    #[must_use]
    pub fn resolve(self, cores: u32, nthreads: u32) -> Option<(u32, u32)> {
        let cores = cores.max(1);
        let count = match self {
            Self::Auto => {
                let processes = auto_processes(cores);
                return Some((processes, cores / processes));
            }
            Self::Count(count) if count < 0 => i64::from(cores) + 1 + i64::from(count),
            Self::Count(count) => i64::from(count),
        };
        let count = u32::try_from(count).ok().filter(|count| *count > 0)?;
        Some((
            count,
            if nthreads == 0 {
                cores / count
            } else {
                nthreads
            },
        ))
    }
}

/// Up to four cores: a process each; above: the least divisor that is at least the square root.
fn auto_processes(cores: u32) -> u32 {
    if cores <= 4 {
        return cores;
    }
    let fits =
        |n: &u32| cores.is_multiple_of(*n) && u64::from(*n) * u64::from(*n) >= u64::from(cores);
    (1..=cores).find(fits).unwrap_or(cores)
}

/// `--python-host`: who expands graphs that only Python can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PythonHostMode {
    /// Local where the environment's Python has the client's release, else delegated.
    Auto,
    /// A process started by the scheduler.
    Local,
    /// A connected nanny or worker of the client's release.
    Delegated,
    /// Nobody: such graphs fail with an error.
    Off,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Stock's lines.
    Text,
    /// One JSON object per line.
    Json,
}

/// Words click takes for a truth value.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" | "" => Ok(false),
        _ => Err(format!("'{text}' is not a valid boolean.")),
    }
}

pub(crate) fn integer(text: &str) -> Result<i64, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("'{text}' is not a valid integer."))
}

/// A duration; its text is kept, its seconds are checked.
pub(crate) fn duration(text: &str) -> Result<f64, String> {
    parse_timedelta(text, "s").map_err(|error| format!("{error}."))
}

pub(crate) fn existing_file(text: &str) -> Result<PathBuf, String> {
    std::fs::canonicalize(text).map_err(|_| format!("Path '{text}' does not exist."))
}
