//! The environment configuration is read from, and the places files may lie in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Environment variables and the path of the running program; injectable for tests.
#[derive(Clone, Debug, Default)]
pub struct Env {
    vars: BTreeMap<String, String>,
    executable: Option<PathBuf>,
}

impl Env {
    /// An environment of the given variables only.
    #[must_use]
    pub fn new<K: Into<String>, V: Into<String>>(vars: impl IntoIterator<Item = (K, V)>) -> Self {
        let vars = vars
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self {
            vars,
            executable: None,
        }
    }

    /// The environment of this process. Variables that are not UTF-8 are left out.
    #[must_use]
    pub fn from_process() -> Self {
        let text = |os: std::ffi::OsString| os.into_string().ok();
        let vars =
            std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        Self {
            vars: vars.collect(),
            executable: std::env::current_exe().ok(),
        }
    }

    /// The same environment with the program lying at `path`.
    #[must_use]
    pub fn with_executable(mut self, path: impl Into<PathBuf>) -> Self {
        self.executable = Some(path.into());
        self
    }

    /// A variable.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str)
    }

    /// All variables in order of their names.
    pub fn vars(&self) -> impl Iterator<Item = (&str, &str)> {
        self.vars
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Files and directories to read, lowest precedence first. Where stock looks below `sys.prefix`,
    /// we look below the environment's prefix and below that of a program installed as `PREFIX/bin/…`.
    #[must_use]
    pub fn search_path(&self) -> Vec<PathBuf> {
        let below = |prefix: &Path| prefix.join("etc").join("dask");
        let root = self.var("DASK_ROOT_CONFIG").unwrap_or("/etc/dask");
        let mut paths = vec![PathBuf::from(root)];
        paths.extend(self.program_prefix().map(below));
        for name in ["CONDA_PREFIX", "VIRTUAL_ENV"] {
            paths.extend(self.non_empty(name).map(|prefix| below(Path::new(prefix))));
        }
        if let Some(home) = self.non_empty("HOME") {
            paths.push(Path::new(home).join(".config").join("dask"));
        }
        paths.extend(self.var("DASK_CONFIG").map(|path| self.expand_home(path)));
        // Of a place named twice the higher rank counts.
        let repeated = |at: usize| paths.iter().skip(at + 1).any(|later| *later == paths[at]);
        (0..paths.len())
            .filter(|at| !repeated(*at))
            .map(|at| paths[at].clone())
            .collect()
    }

    fn program_prefix(&self) -> Option<&Path> {
        let directory = self.executable.as_deref()?.parent()?;
        if directory.file_name()? == "bin" {
            directory.parent()
        } else {
            None
        }
    }

    fn non_empty(&self, name: &str) -> Option<&str> {
        self.var(name).filter(|value| !value.is_empty())
    }

    fn expand_home(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), self.non_empty("HOME")) {
            (Some(rest), Some(home)) => Path::new(home).join(rest),
            _ => PathBuf::from(path),
        }
    }
}
