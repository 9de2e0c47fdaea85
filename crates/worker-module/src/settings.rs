//! The settings that Python puts together from options and configuration.

use std::time::Duration;

use oxidask_cli::HostAndPort;
use oxidask_wire::connection::{Scheme, Security, TlsOptions, TlsServer, TlsVersion};
use oxidask_wire::{Release, Value};
use oxidask_worker_core::config::WorkerConfig;
use oxidask_worker_host::Settings;
use oxidask_worker_host::memory::{Compression, MemorySettings, Thresholds};
use oxidask_worker_host::settings::HttpSettings;

/// Reads the map that `main.settings_of` makes.
pub(crate) fn settings(map: &Value) -> Result<Settings, String> {
    let text = |name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
    let need = |name: &str| text(name).ok_or(format!("setting {name} is missing"));
    let count = |name: &str| {
        let count = map.get(name).and_then(Value::as_u64);
        count.and_then(|count| u32::try_from(count).ok())
    };
    let number = |name: &str| map.get(name).and_then(Value::as_f64);
    let release = need("release")?;
    let release = Release::parse(&release).ok_or(format!("{release} is no release"))?;
    let resources = map.get("resources").and_then(Value::as_map);
    let resource =
        |(name, amount): &(Value, Value)| Some((name.as_str()?.into(), amount.as_f64()?));
    let memory_limit = map.get("memory_limit").and_then(Value::as_u64);
    let defaults = WorkerConfig::default();
    Ok(Settings {
        release,
        scheduler: need("scheduler")?,
        listen_host: need("listen_host")?,
        contact_host: text("contact_host"),
        contact_address: text("contact_address"),
        ports: ports(map),
        nanny: text("nanny"),
        name: map.get("name").cloned().unwrap_or_default(),
        nthreads: count("nthreads").ok_or("setting nthreads is missing")?,
        resources: resources
            .unwrap_or_default()
            .iter()
            .filter_map(resource)
            .collect(),
        memory_limit,
        local_directory: need("local_directory")?,
        death_timeout: number("death_timeout"),
        versions: map.get("versions").cloned().unwrap_or_default(),
        connect_timeout: Duration::try_from_secs_f64(number("connect_timeout").unwrap_or(30.0))
            .map_err(|error| error.to_string())?,
        scheme: Scheme::parse(&need("protocol")?).ok_or("setting protocol is unknown")?,
        server_name: text("server_name"),
        security: security(map.get("tls").unwrap_or(&Value::Nil))?,
        reconnect_timeout: number("reconnect_timeout").unwrap_or(300.0),
        near_memory: map.get("near_memory") != Some(&Value::Bool(false)),
        retire_timeout: number("retire_timeout").unwrap_or(20.0),
        http: http(map.get("http").unwrap_or(&Value::Nil))?,
        memory: memory(map.get("memory").unwrap_or(&Value::Nil), memory_limit)?,
        core: WorkerConfig {
            incoming_bytes_limit: memory_limit
                .zip(fraction(
                    map.get("memory").unwrap_or(&Value::Nil),
                    "transfer",
                ))
                .map(|(limit, part)| (limit as f64 * part) as u64),
            incoming_count_limit: count("incoming").unwrap_or(defaults.incoming_count_limit),
            outgoing_count_limit: count("outgoing").unwrap_or(defaults.outgoing_count_limit),
            message_bytes_limit: map
                .get("message_bytes")
                .and_then(Value::as_u64)
                .unwrap_or(defaults.message_bytes_limit),
            validate: map
                .get("validate")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            ..defaults
        },
    })
}

/// `distributed.worker.memory.*`.
fn memory(map: &Value, limit: Option<u64>) -> Result<MemorySettings, String> {
    let number = |name: &str| map.get(name).and_then(Value::as_f64);
    let thresholds = limit.map(|limit| {
        let part = |name| fraction(map, name);
        Thresholds::of(limit, part("target"), part("spill"), part("pause"))
    });
    let compression = map.get("compression").and_then(Value::as_str);
    let compression = match compression.map(|name| (name, Compression::parse(name))) {
        None => Compression::Off,
        Some((_, Some(compression))) => compression,
        Some((name, None)) => {
            return Err(format!(
                "distributed.worker.memory.spill-compression: there is no {name}; choose auto, lz4, snappy, zstd, \
                 zlib or none"
            ));
        }
    };
    Ok(MemorySettings {
        thresholds: thresholds.unwrap_or_default(),
        max_spill: map.get("max_spill").and_then(Value::as_u64),
        compression,
        interval: Duration::try_from_secs_f64(number("interval").unwrap_or(0.1))
            .map_err(|error| error.to_string())?,
    })
}

/// A fraction of the memory limit; false and 0 switch off what it is for.
fn fraction(map: &Value, name: &str) -> Option<f64> {
    let fraction = map.get(name).and_then(Value::as_f64);
    fraction.filter(|fraction| *fraction > 0.0)
}

/// Ports to try in order.
fn ports(map: &Value) -> Vec<u16> {
    let ports = map.get("ports").and_then(Value::as_seq).unwrap_or_default();
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    ports.iter().filter_map(port).collect()
}

/// Labels of the metric `python_info`, in their order.
const PYTHON_INFO: [&str; 5] = ["implementation", "major", "minor", "patchlevel", "version"];

/// `--dashboard-address`, `--dashboard` and their configuration.
fn http(map: &Value) -> Result<HttpSettings, String> {
    let text = |name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
    let addresses = map.get("addresses").and_then(Value::as_seq);
    let address = |pair: &Value| {
        let pair = pair.as_seq()?;
        let host = pair.first()?.as_str()?.to_owned();
        let port = u16::try_from(pair.get(1)?.as_u64()?).ok()?;
        Some(HostAndPort { host, port })
    };
    let options = TlsOptions {
        cert: text("cert"),
        key: text("key"),
        ..TlsOptions::default()
    };
    let tls = options.cert.is_some();
    let tls = tls.then(|| TlsServer::for_anybody(&options)).transpose();
    Ok(HttpSettings {
        addresses: addresses
            .unwrap_or_default()
            .iter()
            .filter_map(address)
            .collect(),
        prefix: text("prefix").unwrap_or_default(),
        pages: map.get("pages").and_then(Value::as_bool) == Some(true),
        tls: tls.map_err(|error| format!("distributed.scheduler.dashboard.tls: {error}"))?,
        namespace: text("namespace").unwrap_or_default(),
        python: PYTHON_INFO
            .iter()
            .filter_map(|name| Some((*name, text(name)?)))
            .collect(),
    })
}

/// What `distributed.security.Security` has for workers.
fn security(map: &Value) -> Result<Security, String> {
    let text = |name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
    let version = |name: &str| TlsVersion::from_number(map.get(name).and_then(Value::as_f64)?);
    let options = TlsOptions {
        ca_file: text("ca_file"),
        cert: text("cert"),
        key: text("key"),
        ciphers: text("ciphers"),
        min_version: version("min_version").unwrap_or_default(),
        max_version: version("max_version"),
    };
    let required = map.get("required").and_then(Value::as_bool) == Some(true);
    Security::new(&options, required).map_err(|error| error.to_string())
}
