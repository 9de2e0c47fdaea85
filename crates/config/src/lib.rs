//! Dask configuration for native processes: the YAML/JSON search path, `DASK_*` variables with the
//! parsing rules of `dask.config`, inherited configuration, and byte and time units.
//!
//! `keys` declares every key once (name, type, default, since). `Config` is the merged result; it knows
//! for each value where it came from. Nothing here reads the process's environment except
//! [`Env::from_process`]; nothing here logs: what a person should see is in [`Config::notices`].

mod config;
mod env;
mod error;
mod json;
mod keys;
mod kind;
mod layers;
mod literal;
mod units;
mod value;
mod yaml;

pub use config::{Config, Origin};
pub use env::Env;
pub use error::{ConfigError, UnitError};
pub use keys::{KEYS, KeyDecl, RENAMES, declaration};
pub use kind::{Default, Kind};
pub use literal::interpret_value;
pub use units::{MemoryLimit, parse_bytes, parse_number, parse_timedelta};
pub use value::{ConfigMap, ConfigValue};
pub use yaml::parse as parse_yaml;
