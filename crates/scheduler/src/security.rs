//! From options and configuration to certificates: stock's rules of when there is TLS, and messages
//! that name the key to change.

use oxidask_cli::SchedulerArgs;
use oxidask_config::{Config, ConfigValue};
use oxidask_wire::connection::{Security, TlsOptions, TlsServer, TlsVersion};
use oxidask_wire::error::{TlsError, TlsItem};

/// Why the TLS configuration is unusable: one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file or text of a key.
    #[error("{source} (configuration key {key}, set by {origin})")]
    Key {
        /// Which.
        key: String,
        /// Who set it.
        origin: String,
        /// What is wrong.
        source: TlsError,
    },
    /// A version that no release of stock takes.
    #[error("configuration key {key} (set by {origin}) must be 1.2, 1.3 or null")]
    Version {
        /// Which.
        key: &'static str,
        /// Who set it.
        origin: String,
    },
}

/// How the scheduler proves who it is, and whom it talks to. Encryption is required if the
/// configuration says so or, when it says nothing, if any of the TLS options is given.
///
/// # Errors
/// When a file is missing or unusable.
pub fn of_comms(args: &SchedulerArgs, config: &Config) -> Result<Security, SecurityError> {
    let keys = Keys {
        prefix: "distributed.comm.tls.",
        role: "scheduler.",
    };
    let options = TlsOptions {
        ca_file: config.str("distributed.comm.tls.ca-file"),
        cert: config.str("distributed.comm.tls.scheduler.cert"),
        key: config.str("distributed.comm.tls.scheduler.key"),
        ciphers: config.str("distributed.comm.tls.ciphers"),
        min_version: version(config, "distributed.comm.tls.min-version")?.unwrap_or_default(),
        max_version: version(config, "distributed.comm.tls.max-version")?,
    };
    let required = config
        .opt_bool("distributed.comm.require-encryption")
        .unwrap_or_else(|| has_tls_options(args));
    Security::new(&options, required).map_err(|error| keys.explain(config, error))
}

/// The certificate of the dashboard port; None for plain HTTP. As in stock, callers are not asked
/// for theirs, and the port is apart from the scheduler's own certificate.
///
/// # Errors
/// When a file is missing or unusable.
pub fn of_dashboard(config: &Config) -> Result<Option<TlsServer>, SecurityError> {
    let keys = Keys {
        prefix: "distributed.scheduler.dashboard.tls.",
        role: "",
    };
    let options = TlsOptions {
        cert: config.str("distributed.scheduler.dashboard.tls.cert"),
        key: config.str("distributed.scheduler.dashboard.tls.key"),
        ..TlsOptions::default()
    };
    if options.cert.as_deref().is_none_or(str::is_empty) {
        return Ok(None);
    }
    let server = TlsServer::for_anybody(&options);
    server
        .map(Some)
        .map_err(|error| keys.explain(config, error))
}

/// Whether any of `--tls-ca-file`, `--tls-cert`, `--tls-key` is given.
pub fn has_tls_options(args: &SchedulerArgs) -> bool {
    args.tls_ca_file.is_some() || args.tls_cert.is_some() || args.tls_key.is_some()
}

fn version(config: &Config, key: &'static str) -> Result<Option<TlsVersion>, SecurityError> {
    if matches!(config.get(key), None | Some(ConfigValue::None)) {
        return Ok(None);
    }
    let version = config.f64(key).and_then(TlsVersion::from_number);
    version.map(Some).ok_or_else(|| SecurityError::Version {
        key,
        origin: config.origin(key).to_string(),
    })
}

/// Where the items of a TLS configuration are in the configuration.
struct Keys {
    prefix: &'static str,
    role: &'static str,
}

impl Keys {
    fn explain(&self, config: &Config, source: TlsError) -> SecurityError {
        let Self { prefix, role } = self;
        let of_item = |item: TlsItem| match item {
            TlsItem::CaFile => format!("{prefix}ca-file"),
            TlsItem::Cert => format!("{prefix}{role}cert"),
            TlsItem::Key => format!("{prefix}{role}key"),
        };
        let key = match &source {
            TlsError::File { item, .. }
            | TlsError::Malformed { item, .. }
            | TlsError::EncryptedKey { item, .. } => of_item(*item),
            TlsError::UnusableKey(_) | TlsError::KeyMismatch => of_item(TlsItem::Key),
            TlsError::Ciphers { .. } => format!("{prefix}ciphers"),
            TlsError::NoVersion => format!("{prefix}min-version"),
            TlsError::Setup(_) => of_item(TlsItem::Cert),
        };
        let origin = config.origin(&key).to_string();
        SecurityError::Key {
            key,
            origin,
            source,
        }
    }
}
