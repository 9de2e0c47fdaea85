//! TLS of nannies: options before configuration, by stock's rules of when there is any.

use oxidask_cli::WorkerArgs;
use oxidask_config::{Config, ConfigValue};
use oxidask_wire::connection::{Security, TlsOptions, TlsVersion};
use oxidask_wire::error::TlsError;

/// Why the TLS configuration is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecurityError {
    #[error("TLS (--tls-ca-file, --tls-cert, --tls-key, or distributed.comm.tls): {0}")]
    Tls(#[from] TlsError),
    #[error("configuration key {0} must be 1.2, 1.3 or null")]
    Version(&'static str),
}

/// How a nanny proves who it is, and whom it talks to.
pub(crate) fn of_nannies(args: &WorkerArgs, config: &Config) -> Result<Security, SecurityError> {
    let pick = |option: &Option<std::path::PathBuf>, key: &str| {
        let given = option.as_ref().map(|path| path.display().to_string());
        given.or_else(|| config.str(key))
    };
    let options = TlsOptions {
        ca_file: pick(&args.tls_ca_file, "distributed.comm.tls.ca-file"),
        cert: pick(&args.tls_cert, "distributed.comm.tls.worker.cert"),
        key: pick(&args.tls_key, "distributed.comm.tls.worker.key"),
        ciphers: config.str("distributed.comm.tls.ciphers"),
        min_version: version(config, "distributed.comm.tls.min-version")?.unwrap_or_default(),
        max_version: version(config, "distributed.comm.tls.max-version")?,
    };
    let given = args.tls_ca_file.is_some() || args.tls_cert.is_some() || args.tls_key.is_some();
    let required = config
        .opt_bool("distributed.comm.require-encryption")
        .unwrap_or(given);
    Ok(Security::new(&options, required)?)
}

fn version(config: &Config, key: &'static str) -> Result<Option<TlsVersion>, SecurityError> {
    if matches!(config.get(key), None | Some(ConfigValue::None)) {
        return Ok(None);
    }
    let version = config.f64(key).and_then(TlsVersion::from_number);
    version.map(Some).ok_or(SecurityError::Version(key))
}
