//! What can be wrong with a configuration, in words for the person who wrote it.

use std::path::PathBuf;

use thiserror::Error;

use crate::Origin;

/// Why the configuration could not be loaded or changed. Every message is one line.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file is not valid YAML or JSON.
    #[error(
        "configuration file {} is malformed, line {line}, column {column}: {problem}; \
         correct or remove the file", path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser found.
        problem: String,
    },
    /// A file holds something other than a mapping at the top.
    #[error(
        "configuration file {} must hold a mapping at the top level but holds {found}; \
         correct or remove the file", path.display()
    )]
    NotAMapping {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: &'static str,
    },
    /// `DASK_INTERNAL_INHERIT_CONFIG` could not be decoded.
    #[error(
        "environment variable DASK_INTERNAL_INHERIT_CONFIG is not url-safe base64 of a JSON mapping: \
         {problem}; unset it or pass what dask.config.serialize returns"
    )]
    Inherited {
        /// What failed.
        problem: String,
    },
    /// A declared key has a value of the wrong type.
    #[error("configuration key {key} must be {expected}, but {origin} sets it to {value}")]
    WrongType {
        /// The key, in its declared spelling.
        key: String,
        /// What it may hold.
        expected: String,
        /// The value found, as JSON.
        value: String,
        /// Where the value came from.
        origin: Origin,
    },
}

/// Why a text is not an amount of bytes or of time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// The part before the unit is not a number.
    #[error("could not interpret '{0}' as a number")]
    Number(String),
    /// The unit of size is unknown.
    #[error("could not interpret '{0}' as a byte unit; use for example 512MiB or 4GB")]
    ByteUnit(String),
    /// The unit of time is unknown.
    #[error("invalid time unit '{0}'; use for example 500ms, 30s, 5 minutes or 1h")]
    TimeUnit(String),
    /// The amount is negative, infinite or too large.
    #[error("'{0}' is out of range")]
    Range(String),
}
