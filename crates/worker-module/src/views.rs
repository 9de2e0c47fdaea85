//! The class `Views`: the state of the worker for Python, looked at when it is asked for.

use oxidask_key::Key;
use oxidask_wire::Value;
use oxidask_worker_core::event::Event;
use oxidask_worker_core::status::WorkerStatus;
use oxidask_worker_host::{Additions, Handle, introspection};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::convert::{key_from_py, key_to_py, value_to_py};

/// Questions to the state machine. Each waits for an answer without holding the interpreter; after the end
/// of the worker the answer is None.
#[pyclass(frozen)]
pub(crate) struct Views {
    handle: Handle,
}

impl Views {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    fn ask<'py>(
        &self,
        py: Python<'py>,
        question: impl FnOnce(&oxidask_worker_core::Worker) -> Option<Value> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>> {
        let answer = py.detach(|| self.handle.ask_and_wait(question));
        value_to_py(py, &answer.flatten().unwrap_or_default())
    }
}

#[pymethods]
impl Views {
    /// A task as a dict, or None.
    fn task<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let key = key_from_py(key)?;
        self.ask(py, move |core| introspection::task(core, &key))
    }

    /// All tasks as dicts.
    fn tasks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.ask(py, |core| Some(introspection::tasks(core)))
    }

    /// The names of all tasks.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let keys = py.detach(|| self.handle.ask_and_wait(introspection::keys));
        let keys = keys.unwrap_or_default();
        let keys: PyResult<Vec<_>> = keys.iter().map(|key| key_to_py(py, key)).collect();
        PyList::new(py, keys?)
    }

    /// Counts, queues and resources as a dict.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.ask(py, |core| Some(introspection::state(core)))
    }

    /// What the worker is up to, or None after its end.
    fn status(&self, py: Python<'_>) -> Option<&'static str> {
        py.detach(|| self.handle.ask_and_wait(|core| core.status().as_str()))
    }

    /// What happened to these keys, and what these stimuli did.
    fn story<'py>(
        &self,
        py: Python<'py>,
        keys: Vec<Bound<'py, PyAny>>,
        stimuli: Vec<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keys: Vec<Key> = keys.iter().map(key_from_py).collect::<PyResult<_>>()?;
        self.ask(py, move |core| {
            Some(introspection::story(core, &keys, &stimuli))
        })
    }

    /// The last so many entries of the log.
    fn log<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyAny>> {
        self.ask(py, move |core| Some(introspection::log(core, limit)))
    }

    /// Whether `Hooks.transitions` is to be called.
    fn observe(&self, wanted: bool) {
        self.handle.observe(wanted);
    }

    /// What heartbeats say besides, as msgpack: `{"extensions": {…}, "metrics": {…}}`.
    fn add_to_heartbeats(&self, additions: &[u8]) -> PyResult<()> {
        let additions = Value::decode(&bytes::Bytes::copy_from_slice(additions));
        let additions = additions.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let part = |name| {
            let part = additions.get(name).and_then(Value::as_map);
            part.unwrap_or_default().to_vec()
        };
        self.handle.add_to_heartbeats(Additions {
            extensions: part("extensions"),
            metrics: part("metrics"),
        });
        Ok(())
    }

    /// What the scheduler is to keep of a task when it is done; `metadata` is msgpack.
    fn set_metadata(&self, key: &Bound<'_, PyAny>, metadata: &[u8]) -> PyResult<()> {
        let metadata = Value::decode(&bytes::Bytes::copy_from_slice(metadata));
        let metadata = metadata.map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.handle.metadata(key_from_py(key)?, metadata);
        Ok(())
    }

    /// Makes the worker pause, go on, or get ready to leave, and tells the scheduler.
    fn set_status(&self, status: &str, stimulus_id: &str) -> PyResult<()> {
        let status = WorkerStatus::parse(status)
            .ok_or_else(|| PyValueError::new_err(format!("a worker can not be made {status}")))?;
        self.handle.event(Event::SetStatus {
            status,
            stimulus_id: stimulus_id.into(),
        });
        Ok(())
    }
}
