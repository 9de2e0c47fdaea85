//! The merged configuration and how it is read.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

use crate::env::Env;
use crate::error::ConfigError;
use crate::keys::{KEYS, KeyDecl, declaration};
use crate::kind::{self, Default, Kind};
use crate::layers::{self, Origins};
use crate::literal::interpret_value;
use crate::value::{ConfigMap, ConfigValue};
use crate::{json, yaml};

/// Larger configuration files are not read.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Inherited configuration of a parent process; merged below all other variables.
const INHERIT: &str = "DASK_INTERNAL_INHERIT_CONFIG";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A command line option.
    Option(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("the built-in default"),
            Self::File(path) => write!(out, "file {}", path.display()),
            Self::Variable(name) => write!(out, "environment variable {name}"),
            Self::Option(name) => write!(out, "option {name}"),
        }
    }
}

/// The configuration: defaults, files, environment. Paths are dotted (`distributed.scheduler.validate`);
/// `-` and `_` are the same in them.
#[derive(Clone, Debug)]
pub struct Config {
    values: ConfigMap,
    origins: Origins,
    notices: Vec<String>,
}

impl Config {
    /// Reads files and variables over the defaults and checks every declared key.
    ///
    /// # Errors
    /// A malformed file, unreadable inherited configuration, or a value of the wrong type.
    pub fn load(env: &Env) -> Result<Self, ConfigError> {
        let mut config = Self::defaults();
        for path in env.search_path() {
            for file in files_at(&path) {
                config.merge_file(&file)?;
            }
        }
        config.merge_variables(env)?;
        config.check_all()?;
        Ok(config)
    }

    /// The defaults alone.
    #[must_use]
    pub fn defaults() -> Self {
        let mut values = ConfigMap::new();
        for key in KEYS.iter().filter(|key| key.default != Default::Absent) {
            layers::set(&mut values, key.name, key.default.value());
        }
        Self {
            values,
            origins: Origins::new(),
            notices: Vec::new(),
        }
    }

    /// What a person should be told: renamed keys in use, files passed over. One line each.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The value at a path, whether declared or not.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&ConfigValue> {
        layers::get(&self.values, path)
    }

    /// Where the value at a path came from.
    #[must_use]
    pub fn origin(&self, path: &str) -> &Origin {
        let mut path = layers::normal(path);
        loop {
            if let Some(origin) = self.origins.get(&path) {
                return origin;
            }
            // A value within a list or an inherited mapping: its owner knows.
            match path.rfind('.') {
                Some(dot) => path.truncate(dot),
                None => return &Origin::Default,
            }
        }
    }

    /// Sets one key, as a command line option does.
    ///
    /// # Errors
    /// [`ConfigError::WrongType`] for declared keys; the old value stays.
    pub fn set(
        &mut self,
        path: &str,
        value: ConfigValue,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        if let Some(key) = declaration(path) {
            check(key, &value, &origin)?;
        }
        self.origins.insert(layers::normal(path), origin);
        layers::set(&mut self.values, path, value);
        Ok(())
    }

    /// A truth value; nothing counts as false.
    #[must_use]
    pub fn bool(&self, path: &str) -> bool {
        self.read(path, kind::truth).unwrap_or_default()
    }

    /// A truth value that may be left open.
    #[must_use]
    pub fn opt_bool(&self, path: &str) -> Option<bool> {
        self.get(path)
            .filter(|value| **value != ConfigValue::None)
            .and_then(kind::truth)
    }

    /// A whole number, not negative.
    #[must_use]
    pub fn count(&self, path: &str) -> Option<u64> {
        self.read(path, kind::count)
    }

    /// A whole number.
    #[must_use]
    pub fn int(&self, path: &str) -> Option<i64> {
        self.read(path, kind::whole)
    }

    /// A number, possibly infinite.
    #[must_use]
    pub fn f64(&self, path: &str) -> Option<f64> {
        self.read(path, kind::number)
    }

    /// Seconds, by the key's own unit; None when unset.
    #[must_use]
    pub fn seconds(&self, path: &str) -> Option<f64> {
        let unit = match declaration(path).map(|key| key.kind) {
            Some(Kind::Duration(unit)) => unit,
            _ => "s",
        };
        self.read(path, |value| kind::duration(value, unit))
            .flatten()
    }

    /// Seconds by name.
    #[must_use]
    pub fn durations(&self, path: &str) -> Vec<(String, f64)> {
        self.read(path, kind::durations).unwrap_or_default()
    }

    /// Bytes; None for no limit.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Option<u64> {
        self.read(path, kind::bytes).flatten()
    }

    /// A part between 0 and 1; None for off.
    #[must_use]
    pub fn fraction(&self, path: &str) -> Option<f64> {
        self.read(path, kind::fraction).flatten()
    }

    /// Text; None when unset.
    #[must_use]
    pub fn str(&self, path: &str) -> Option<String> {
        self.read(path, kind::text)
    }

    /// A list of texts; empty when unset.
    #[must_use]
    pub fn str_list(&self, path: &str) -> Vec<String> {
        self.read(path, kind::texts).unwrap_or_default()
    }

    /// Reads a path; a misspelt key is a mistake of the caller that debug builds and tests report.
    fn read<T>(&self, path: &str, convert: impl Fn(&ConfigValue) -> Option<T>) -> Option<T> {
        let value = self.get(path);
        debug_assert!(
            value.is_some() || declaration(path).is_some(),
            "configuration key {path} is not declared"
        );
        value.and_then(convert)
    }

    /// All of it, as a mapping.
    #[must_use]
    pub fn values(&self) -> &ConfigMap {
        &self.values
    }

    /// All of it as JSON in Python's spelling: infinity is the word `Infinity`.
    #[must_use]
    pub fn to_json(&self) -> String {
        ConfigValue::Map(self.values.clone()).to_string()
    }

    /// The value of `DASK_INTERNAL_INHERIT_CONFIG` for child processes: what
    /// `dask.config.serialize(dask.config.global_config)` gives.
    #[must_use]
    pub fn to_inherit(&self) -> String {
        URL_SAFE.encode(self.to_json())
    }

    fn merge_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = match read_file(path) {
            Ok(text) => text,
            Err(problem) => {
                self.notices.push(format!(
                    "configuration file {} skipped: {problem}",
                    path.display()
                ));
                return Ok(());
            }
        };
        if let Some(layer) = yaml::parse(path, &text)? {
            self.merge(layer, &Origin::File(path.to_owned()))?;
        }
        Ok(())
    }

    fn merge_variables(&mut self, env: &Env) -> Result<(), ConfigError> {
        if let Some(text) = env.var(INHERIT) {
            self.merge(inherited(text)?, &Origin::Variable(INHERIT.to_owned()))?;
        }
        for (name, text) in env.vars() {
            // Stock also keeps the inherited text itself as a value; it would nest at each generation.
            let Some(rest) = name.strip_prefix("DASK_").filter(|_| name != INHERIT) else {
                continue;
            };
            let path = rest.to_lowercase().replace("__", ".");
            let mut layer = ConfigMap::new();
            layers::set(&mut layer, &path, interpret_value(text));
            self.merge(layer, &Origin::Variable(name.to_owned()))?;
        }
        Ok(())
    }

    fn merge(&mut self, mut layer: ConfigMap, origin: &Origin) -> Result<(), ConfigError> {
        // What a parent of an older release hands down is not the user's wording.
        let is_handed_down = *origin == Origin::Variable(INHERIT.to_owned());
        for (old, new) in layers::rename(&mut layer) {
            if is_handed_down {
                continue;
            }
            self.notices.push(format!(
                "configuration key {old} (set by {origin}) is deprecated; please use {new} instead"
            ));
        }
        layers::update(&mut self.values, layer, origin, &mut self.origins, "")
            .map_err(|(path, value)| wrong_type(&path, "a mapping".to_owned(), &value, origin))
    }

    fn check_all(&self) -> Result<(), ConfigError> {
        let set = KEYS
            .iter()
            .filter_map(|key| Some((key, self.get(key.name)?)));
        set.filter(|(key, value)| !(key.default == Default::Absent && **value == ConfigValue::None))
            .try_for_each(|(key, value)| check(key, value, self.origin(key.name)))
    }
}

fn check(key: &KeyDecl, value: &ConfigValue, origin: &Origin) -> Result<(), ConfigError> {
    if key.kind.accepts(value) {
        return Ok(());
    }
    Err(wrong_type(key.name, key.kind.expected(), value, origin))
}

fn wrong_type(key: &str, expected: String, value: &ConfigValue, origin: &Origin) -> ConfigError {
    let mut shown = value.to_string();
    if let Some((cut, _)) = shown.char_indices().nth(200) {
        shown.truncate(cut);
        shown.push('…');
    }
    ConfigError::WrongType {
        key: key.to_owned(),
        expected,
        value: shown,
        origin: origin.clone(),
    }
}

/// The file itself, or a directory's `.yaml`, `.yml` and `.json` files by name.
fn files_at(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return if path.exists() {
            vec![path.to_owned()]
        } else {
            Vec::new()
        };
    }
    let suffixes = ["yaml", "yml", "json"];
    let wanted = |path: &PathBuf| {
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        path.is_file()
            && suffix.is_some_and(|suffix| suffixes.iter().any(|s| suffix.eq_ignore_ascii_case(s)))
    };
    // Directories that may not be listed are passed over, as stock does.
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(wanted).collect();
    files.sort();
    files
}

fn read_file(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("larger than {} MiB", MAX_FILE_BYTES >> 20));
    }
    Ok(text)
}

fn inherited(text: &str) -> Result<ConfigMap, ConfigError> {
    let wrong = |problem: String| ConfigError::Inherited { problem };
    let bytes = URL_SAFE
        .decode(text.trim())
        .map_err(|error| wrong(error.to_string()))?;
    let decoded = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
    match json::parse(&decoded).map_err(wrong)? {
        ConfigValue::Map(map) => Ok(map),
        other => Err(wrong(format!("it holds {}", other.type_name()))),
    }
}
