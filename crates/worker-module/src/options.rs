//! The command line as Python gets it; what does nothing yet is warned of, what would do harm if it were
//! ignored is refused.

use oxidask_cli::{Outcome, WorkerArgs, parse_worker};
use oxidask_supervision::{Name, Plan};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Options as a dict. The launcher has read the same words before and has found no mistake; where its plan
/// says something, that counts.
pub(crate) fn options<'py>(
    py: Python<'py>,
    words: &[String],
    plan: &Plan,
) -> PyResult<Bound<'py, PyDict>> {
    let parsed = match parse_worker(words) {
        Ok(Outcome::Run(parsed)) => parsed,
        Ok(Outcome::Print(text)) => return Err(PyValueError::new_err(text)),
        Err(error) => return Err(PyValueError::new_err(error.message)),
    };
    let args = parsed.args;
    let mut warnings = parsed.warnings;
    warnings.extend(without_effect(&args));
    let resources = PyDict::new(py);
    for (name, amount) in &args.resources {
        resources.set_item(name, amount)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("host", &args.host)?;
    dict.set_item("interface", &args.interface)?;
    dict.set_item("listen_address", &args.listen_address)?;
    dict.set_item("contact_address", &args.contact_address)?;
    dict.set_item("resources", resources)?;
    dict.set_item("tls_ca_file", &args.tls_ca_file)?;
    dict.set_item("tls_worker_cert", &args.tls_cert)?;
    dict.set_item("tls_worker_key", &args.tls_key)?;
    dict.set_item("protocol", &args.protocol)?;
    let addresses = args.dashboard_address.iter();
    let addresses: Vec<_> = addresses.map(|a| (a.host.clone(), a.port)).collect();
    dict.set_item("dashboard_address", addresses)?;
    dict.set_item("dashboard", args.dashboard)?;
    dict.set_item("dashboard_prefix", &args.dashboard_prefix)?;
    dict.set_item("death_timeout", args.death_timeout)?;
    dict.set_item("lifetime", args.lifetime)?;
    dict.set_item("lifetime_stagger", args.lifetime_stagger)?;
    dict.set_item("lifetime_restart", args.lifetime_restart)?;
    dict.set_item("pid_file", args.pid_file.as_ref().filter(|_| !args.nanny))?;
    dict.set_item("scheduler", &plan.scheduler)?;
    dict.set_item("nanny", &plan.nanny)?;
    match &plan.name {
        Some(Name::Number(number)) => dict.set_item("name", number)?,
        Some(Name::Text(text)) => dict.set_item("name", text)?,
        None => dict.set_item("name", py.None())?,
    }
    dict.set_item("nthreads", plan.nthreads)?;
    dict.set_item("memory_limit", plan.memory_limit)?;
    dict.set_item("ports", &plan.ports)?;
    dict.set_item("local_directory", &plan.local_directory)?;
    dict.set_item("sys_path", &plan.sys_path)?;
    dict.set_item("preload", &args.preload)?;
    dict.set_item("preload_argv", &args.preload_argv)?;
    dict.set_item("warnings", warnings)?;
    dict.set_item("refused", refused(&args))?;
    Ok(dict)
}

/// Options that can not be left aside in silence or with a warning.
fn refused(args: &WorkerArgs) -> Option<&'static str> {
    let protocol = args.protocol.as_deref().unwrap_or("tcp");
    let protocol = protocol.trim_end_matches("://");
    let found = [(!matches!(protocol, "tcp" | "tls"), "--protocol")];
    let found = found.into_iter().find(|(given, _)| *given);
    found.map(|(_, name)| name)
}

/// One line for each option that is read and does nothing yet.
fn without_effect(args: &WorkerArgs) -> Vec<String> {
    let given = [
        (args.worker_class.is_some(), "--worker-class"),
        (args.scheduler_sni.is_some(), "--scheduler-sni"),
    ];
    let given = given.into_iter().filter(|(given, _)| *given);
    given
        .map(|(_, name)| format!("the native worker does nothing yet with {name}"))
        .collect()
}
