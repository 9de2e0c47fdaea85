//! Names of loggers and the level of each, from `distributed.logging` in the old form (`name: level`)
//! or the new one (`version: 1`, `loggers`, `root`). Handlers and formatters of the new form name Python
//! classes and are not read.

use std::borrow::Cow;

use oxidask_config::{Config, ConfigValue};
use tracing::Level;
use tracing::level_filters::LevelFilter;

/// Modules of ours and the logger of stock that logs the same matters. The longest match counts.
const NAMES: &[(&str, &str)] = &[
    ("dask_scheduler", "distributed.scheduler"),
    ("oxidask_scheduler", "distributed.scheduler"),
    ("oxidask_scheduler::http", "distributed.http"),
    ("oxidask_scheduler::python_host", "distributed.python_host"),
    ("oxidask_scheduler_core", "distributed.scheduler"),
    ("oxidask_wire", "distributed.comm"),
    ("oxidask_graph", "distributed.scheduler"),
    ("oxidask_worker", "distributed.nanny"),
    ("oxidask_worker_core", "distributed.worker"),
    ("oxidask_worker_host", "distributed.worker"),
    ("oxidask_worker_module", "distributed.worker"),
    ("oxidask_config", "distributed.config"),
    ("oxidask", "distributed.scheduler"),
];

/// Levels of stock where nothing is configured.
const DEFAULTS: &[(&str, LevelFilter)] = &[
    ("", LevelFilter::WARN),
    ("distributed", LevelFilter::INFO),
    ("distributed.client", LevelFilter::WARN),
    ("distributed.gc", LevelFilter::WARN),
];

/// The name of the logger that stock would use for a target of ours; dotted names stay.
#[must_use]
pub fn logger_name(target: &str) -> Cow<'_, str> {
    let within = |module: &str| {
        target
            .strip_prefix(module)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let found = NAMES
        .iter()
        .filter(|(module, _)| within(module))
        .max_by_key(|(module, _)| module.len());
    match found {
        Some((_, name)) => Cow::Borrowed(name),
        None if target.contains("::") => Cow::Owned(target.replace("::", ".")),
        None => Cow::Borrowed(target),
    }
}

/// A level for each logger; the longest prefix of a name counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    by_name: Vec<(String, LevelFilter)>,
}

impl Default for Levels {
    fn default() -> Self {
        let by_name = DEFAULTS
            .iter()
            .map(|(name, level)| ((*name).to_owned(), *level))
            .collect();
        Self { by_name }
    }
}

impl Levels {
    /// Reads the configuration; also gives one line for each level that is not one.
    #[must_use]
    pub fn from_config(config: &Config) -> (Self, Vec<String>) {
        let mut levels = Self::default();
        let mut problems = Vec::new();
        let section = config
            .get("distributed.logging")
            .or_else(|| config.get("logging"));
        let Some(section) = section.and_then(ConfigValue::as_map) else {
            return (levels, problems);
        };
        let mut read = |name: &str, value: &ConfigValue| match level(value) {
            Some(filter) => levels.set(name, filter),
            None => problems.push(format!(
                "logging: {value} is not a level for {name:?}; use for example info"
            )),
        };
        if section.contains_key("version") {
            let named = |value: Option<&ConfigValue>| value.and_then(ConfigValue::as_map).cloned();
            for (name, logger) in named(section.get("loggers")).unwrap_or_default() {
                if let Some(value) = logger.as_map().and_then(|logger| logger.get("level")) {
                    read(&name, value);
                }
            }
            if let Some(value) = named(section.get("root"))
                .as_ref()
                .and_then(|root| root.get("level"))
            {
                read("", value);
            }
        } else {
            for (name, value) in section {
                read(name, value);
            }
        }
        (levels, problems)
    }

    fn set(&mut self, name: &str, level: LevelFilter) {
        match self.by_name.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = level,
            None => self.by_name.push((name.to_owned(), level)),
        }
    }

    /// Whether a logger passes an event of this level on.
    #[must_use]
    pub fn allow(&self, logger: &str, level: Level) -> bool {
        let within = |name: &str| {
            name.is_empty()
                || logger
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let found = self
            .by_name
            .iter()
            .filter(|(name, _)| within(name))
            .max_by_key(|(name, _)| name.len());
        found.is_some_and(|(_, filter)| level <= *filter)
    }

    /// The most verbose level that any logger passes on.
    #[must_use]
    pub fn most_verbose(&self) -> LevelFilter {
        self.by_name
            .iter()
            .map(|(_, level)| *level)
            .max()
            .unwrap_or(LevelFilter::INFO)
    }
}

/// A level by Python's name or number.
fn level(value: &ConfigValue) -> Option<LevelFilter> {
    let number = match value {
        ConfigValue::Int(number) => *number,
        ConfigValue::Str(name) => match name.to_lowercase().as_str() {
            "critical" | "fatal" => 50,
            "error" => 40,
            "warning" | "warn" => 30,
            "info" => 20,
            "debug" => 10,
            "notset" => 0,
            _ => return None,
        },
        _ => return None,
    };
    Some(match number {
        ..10 => LevelFilter::TRACE,
        10..20 => LevelFilter::DEBUG,
        20..30 => LevelFilter::INFO,
        30..40 => LevelFilter::WARN,
        40..50 => LevelFilter::ERROR,
        _ => LevelFilter::OFF,
    })
}

/// Python's name of a level.
pub(crate) fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// Python's number of a level.
pub(crate) fn level_number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG | Level::TRACE => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_have_the_names_of_stocks_loggers() {
        let table = [
            ("oxidask_worker::nanny::supervisor", "distributed.nanny"),
            ("oxidask_worker_host::books", "distributed.worker"),
            ("oxidask_scheduler::http", "distributed.http"),
            ("distributed.dask_worker", "distributed.dask_worker"),
            ("hyper::client", "hyper.client"),
        ];
        for (target, name) in table {
            assert_eq!(logger_name(target), name);
        }
    }
}
