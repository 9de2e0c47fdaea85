//! The native worker as an extension module of Python: `oxidask-worker-host` with an interpreter.
//!
//! [`main`] is what the launcher calls. `native` is the class that Python talks to, `jobs` what threads
//! of Python are given to do, `runner` how an ordinary task runs, `convert` turns values into objects and back. The Python half is in
//! `python/oxidask_worker/` and travels inside the module.
//!
//! The threads of tokio never hold the interpreter: what needs it goes through the queues of `jobs`.

mod buffers;
mod calls;
mod convert;
mod functions;
mod jobs;
mod ledger;
mod logs;
mod nanny;
mod native;
mod options;
mod queue;
mod runner;
mod settings;
mod views;
mod watch;

use std::ffi::CString;

use oxidask_supervision::Plan;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyModule;

/// The Python half: name, name of the file for tracebacks, source. In the order in which they can be
/// imported. `tasks` has a file name that the environment's own rules for tracebacks and profiles take
/// for stock's worker: they cut everything down to the user's code.
const SOURCES: &[(&str, &str, &str)] = &[
    (
        "oxidask_worker",
        "oxidask_worker/__init__.py",
        include_str!("../python/oxidask_worker/__init__.py"),
    ),
    (
        "oxidask_worker.postponed",
        "oxidask_worker/postponed.py",
        include_str!("../python/oxidask_worker/postponed.py"),
    ),
    (
        "oxidask_worker.context",
        "oxidask_worker/context.py",
        include_str!("../python/oxidask_worker/context.py"),
    ),
    (
        "oxidask_worker.actors",
        "oxidask_worker/actors.py",
        include_str!("../python/oxidask_worker/actors.py"),
    ),
    (
        "oxidask_worker.tasks",
        "oxidask/distributed/worker.py",
        include_str!("../python/oxidask_worker/tasks.py"),
    ),
    (
        "oxidask_worker.data",
        "oxidask_worker/data.py",
        include_str!("../python/oxidask_worker/data.py"),
    ),
    (
        "oxidask_worker.disk",
        "oxidask_worker/disk.py",
        include_str!("../python/oxidask_worker/disk.py"),
    ),
    (
        "oxidask_worker.configured",
        "oxidask_worker/configured.py",
        include_str!("../python/oxidask_worker/configured.py"),
    ),
    (
        "oxidask_worker.measures",
        "oxidask_worker/measures.py",
        include_str!("../python/oxidask_worker/measures.py"),
    ),
    (
        "oxidask_worker.requests",
        "oxidask_worker/requests.py",
        include_str!("../python/oxidask_worker/requests.py"),
    ),
    (
        "oxidask_worker.executors",
        "oxidask_worker/executors.py",
        include_str!("../python/oxidask_worker/executors.py"),
    ),
    (
        "oxidask_worker.plugins",
        "oxidask_worker/plugins.py",
        include_str!("../python/oxidask_worker/plugins.py"),
    ),
    (
        "oxidask_worker.heartbeats",
        "oxidask_worker/heartbeats.py",
        include_str!("../python/oxidask_worker/heartbeats.py"),
    ),
    (
        "oxidask_worker.lines",
        "oxidask_worker/lines.py",
        include_str!("../python/oxidask_worker/lines.py"),
    ),
    (
        "oxidask_worker.imports",
        "oxidask_worker/imports.py",
        include_str!("../python/oxidask_worker/imports.py"),
    ),
    (
        "oxidask_worker.introspection",
        "oxidask_worker/introspection.py",
        include_str!("../python/oxidask_worker/introspection.py"),
    ),
    (
        "oxidask_worker.state",
        "oxidask_worker/state.py",
        include_str!("../python/oxidask_worker/state.py"),
    ),
    (
        "oxidask_worker.worker",
        "oxidask_worker/worker.py",
        include_str!("../python/oxidask_worker/worker.py"),
    ),
    (
        "oxidask_worker.main",
        "oxidask_worker/main.py",
        include_str!("../python/oxidask_worker/main.py"),
    ),
];

/// Runs a worker with the words of a command line, the program's name first, and the launcher's plan (JSON).
/// Does not return.
#[pyfunction]
fn main(py: Python<'_>, words: Vec<String>, plan: &str) -> PyResult<()> {
    let plan: Plan =
        serde_json::from_str(plan).map_err(|error| PyValueError::new_err(error.to_string()))?;
    if plan.nanny.is_some() {
        nanny::take_over()?;
    }
    let options = options::options(py, &words, &plan)?;
    let mut module = None;
    for &(name, file, source) in SOURCES {
        let text = |text: &str| CString::new(text).map_err(PyErr::from);
        let source = edited(name, source);
        let loaded = PyModule::from_code(py, &text(&source)?, &text(file)?, &text(name)?)?;
        if name == "oxidask_worker" {
            // Makes it a package, whose other modules are already there when they are asked for.
            loaded.setattr("__path__", Vec::<String>::new())?;
        }
        module = Some(loaded);
    }
    let Some(module) = module else {
        return Ok(());
    };
    let class = py.get_type::<native::Native>();
    module.getattr("main")?.call1((class, options))?;
    Ok(())
}

/// A debug build takes the Python half from the folder `OXIDASK_WORKER_SOURCES`, so that it can be edited
/// without building it again.
fn edited<'a>(name: &str, source: &'a str) -> std::borrow::Cow<'a, str> {
    let folder = std::env::var_os("OXIDASK_WORKER_SOURCES").filter(|_| cfg!(debug_assertions));
    let file = match name.split_once('.') {
        Some((_, module)) => format!("{module}.py"),
        None => "__init__.py".to_owned(),
    };
    let edited = folder.and_then(|folder| {
        let path = std::path::Path::new(&folder).join(file);
        std::fs::read_to_string(path).ok()
    });
    edited.map_or(source.into(), Into::into)
}

/// The module. Its name is that under which the launcher loads it.
#[pymodule]
fn _oxidask_worker(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(main, module)?)?;
    module.add_class::<views::Views>()?;
    module.add_class::<native::Native>()
}
