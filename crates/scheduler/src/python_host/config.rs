//! Settings of the Python host.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Where Python code that the scheduler cannot do without is run (`--python-host`,
/// `oxidask.python-host.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Local when that Python has the client's release of `distributed`, else delegated.
    #[default]
    Auto,
    /// Only in processes of our own.
    Local,
    /// Only at connected nannies and workers.
    Delegated,
    /// Nowhere: nothing is ever unpickled on behalf of the scheduler.
    Off,
}

/// The text names no [`Mode`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("python-host must be auto, local, delegated or off, not {0:?}")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        match text {
            "auto" => Ok(Self::Auto),
            "local" => Ok(Self::Local),
            "delegated" => Ok(Self::Delegated),
            "off" => Ok(Self::Off),
            _ => Err(UnknownMode(text.to_owned())),
        }
    }
}

/// Settings of the Python host; the names are those of the keys below `oxidask.python-host`.
#[derive(Clone, Debug)]
pub struct PythonHostConfig {
    /// `mode`.
    pub mode: Mode,
    /// `python`: the interpreter of local hosts. None: `python3`, else `python` on PATH.
    pub python: Option<PathBuf>,
    /// `processes`: graphs that may be expanded locally at the same time.
    pub processes: usize,
    /// `timeout`: for one graph, from the moment somebody works on it; also how long a graph waits
    /// for a peer to delegate to.
    pub timeout: Duration,
    /// `function-timeout`: for one function of `run_on_scheduler`.
    pub function_timeout: Duration,
    /// `start-timeout`: for a local Python to come up.
    pub start_timeout: Duration,
    /// `idle-timeout`: local processes without work are ended after this time.
    pub idle_timeout: Duration,
    /// The whole configuration, as Dask hands it to child processes; empty: none.
    pub inherit: String,
    /// Where our own processes keep files that clients upload to the scheduler. Need not exist;
    /// removed at the end. Empty: each has its own.
    pub directory: PathBuf,
    /// `max-answer-bytes`: bytes that one answer may have.
    pub max_answer: u64,
}

impl Default for PythonHostConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            python: None,
            processes: 2,
            timeout: Duration::from_secs(300),
            function_timeout: Duration::from_secs(3600),
            start_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            inherit: String::new(),
            directory: PathBuf::new(),
            max_answer: 64 << 30,
        }
    }
}
