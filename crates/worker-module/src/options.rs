//! The command line as Python gets it; what would do harm if it were ignored is refused.

use oxidask_cli::{Outcome, WorkerArgs, parse_worker};
use oxidask_supervision::{Name, Plan};
use oxidask_wire::connection::Scheme;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Names of the class that is the worker anyway.
const STOCK_CLASSES: [&str; 3] = [
    "dask.distributed.Worker",
    "distributed.Worker",
    "distributed.worker.Worker",
];

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
    let executable: Option<String> = py.import("sys")?.getattr("executable")?.extract().ok();
    let json = crate::logs::init(executable.as_deref(), args.log_format);
    let warnings = parsed.warnings;
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
    dict.set_item("scheduler_sni", &args.scheduler_sni)?;
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
    dict.set_item("json_logs", json)?;
    Ok(dict)
}

/// What can not be left aside in silence or with a warning.
fn refused(args: &WorkerArgs) -> Option<String> {
    let protocol = args.protocol.as_deref().unwrap_or("tcp");
    if Scheme::parse(protocol.trim_end_matches("://")).is_none() {
        return Some(format!("--protocol {protocol}"));
    }
    let class = args.worker_class.as_deref()?;
    let is_stock = STOCK_CLASSES.contains(&class);
    (!is_stock).then(|| format!("--worker-class {class}"))
}
