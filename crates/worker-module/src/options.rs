//! The command line as Python gets it; what does nothing yet is warned of, what would do harm if it were
//! ignored is refused.

use oxidask_cli::{Outcome, PortSpec, WorkerArgs, WorkerCount, parse_worker};
use oxidask_config::MemoryLimit;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Options as a dict. The launcher has read the same words before and has found no mistake.
pub(crate) fn options<'py>(py: Python<'py>, words: &[String]) -> PyResult<Bound<'py, PyDict>> {
    let parsed = match parse_worker(words) {
        Ok(Outcome::Run(parsed)) => parsed,
        Ok(Outcome::Print(text)) => return Err(PyValueError::new_err(text)),
        Err(error) => return Err(PyValueError::new_err(error.message)),
    };
    let args = parsed.args;
    let mut warnings = parsed.warnings;
    warnings.extend(without_effect(&args));
    let port = match &args.worker_port {
        Some(PortSpec::List(ports)) => ports.first().copied().unwrap_or(0),
        Some(PortSpec::Range { first, .. }) => *first,
        None => 0,
    };
    let resources = PyDict::new(py);
    for (name, amount) in &args.resources {
        resources.set_item(name, amount)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("scheduler", &args.scheduler)?;
    dict.set_item("scheduler_file", &args.scheduler_file)?;
    dict.set_item("host", &args.host)?;
    dict.set_item("interface", &args.interface)?;
    dict.set_item("port", port)?;
    dict.set_item("name", &args.name)?;
    dict.set_item("nthreads", args.nthreads)?;
    dict.set_item("resources", resources)?;
    dict.set_item("local_directory", &args.local_directory)?;
    dict.set_item("death_timeout", args.death_timeout)?;
    match args.memory_limit {
        MemoryLimit::Auto => dict.set_item("memory_limit", "auto")?,
        MemoryLimit::Unlimited => dict.set_item("memory_limit", py.None())?,
        MemoryLimit::Fraction(part) => dict.set_item("memory_limit", part)?,
        MemoryLimit::Bytes(bytes) => dict.set_item("memory_limit", bytes)?,
    }
    dict.set_item("preload", &args.preload)?;
    dict.set_item("preload_argv", &args.preload_argv)?;
    dict.set_item("warnings", warnings)?;
    dict.set_item("refused", refused(&args))?;
    Ok(dict)
}

/// Options that can not be left aside in silence or with a warning.
fn refused(args: &WorkerArgs) -> Option<&'static str> {
    let tls = args.tls_ca_file.is_some() || args.tls_cert.is_some() || args.tls_key.is_some();
    let protocol = args.protocol.as_deref().unwrap_or("tcp");
    let range = matches!(&args.worker_port, Some(PortSpec::Range { .. }));
    let found = [
        (tls, "TLS"),
        (args.nworkers != WorkerCount::Count(1), "--nworkers"),
        (args.listen_address.is_some(), "--listen-address"),
        (args.contact_address.is_some(), "--contact-address"),
        (!protocol.starts_with("tcp"), "--protocol"),
        (range, "a range of ports"),
    ];
    let found = found.into_iter().find(|(given, _)| *given);
    found.map(|(_, name)| name)
}

/// One line for each option that is read and does nothing yet.
fn without_effect(args: &WorkerArgs) -> Vec<String> {
    let lifetime = args.lifetime.is_some()
        || args.lifetime_stagger.is_some()
        || args.lifetime_restart.is_some();
    let given = [
        (
            args.nanny,
            "--nanny (the default): the worker runs without one",
        ),
        (args.nanny_port.is_some(), "--nanny-port"),
        (
            args.dashboard,
            "--dashboard (the default): nothing is served by HTTP",
        ),
        (lifetime, "--lifetime and its companions"),
        (args.worker_class.is_some(), "--worker-class"),
        (!args.preload_nanny.is_empty(), "--preload-nanny"),
        (args.pid_file.is_some(), "--pid-file"),
        (args.scheduler_sni.is_some(), "--scheduler-sni"),
    ];
    let given = given.into_iter().filter(|(given, _)| *given);
    given
        .map(|(_, name)| format!("the native worker does nothing yet with {name}"))
        .collect()
}
