//! The class `Views`: the state of the worker for Python, looked at when it is asked for.

use oxidask_key::Key;
use oxidask_wire::Value;
use oxidask_wire::message::order::OrderedSpec;
use oxidask_worker_core::event::Event;
use oxidask_worker_core::status::WorkerStatus;
use oxidask_worker_host::times::Span;
use oxidask_worker_host::{Additions, Handle, introspection};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

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

    /// How a task failed lately: exception and traceback, pickled, and their texts. None if it did not.
    #[expect(clippy::type_complexity, reason = "a tuple of Python")]
    fn failure<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<
        Option<(
            Bound<'py, PyBytes>,
            Option<Bound<'py, PyBytes>>,
            String,
            String,
        )>,
    > {
        let key = key_from_py(key)?;
        let failure = py.detach(|| self.handle.failure(&key));
        let bytes = |bytes: &bytes::Bytes| PyBytes::new(py, bytes);
        Ok(failure.map(|failure| {
            (
                bytes(&failure.exception),
                failure.traceback.as_ref().map(bytes),
                failure.exception_text,
                failure.traceback_text,
            )
        }))
    }

    /// What a task that was done lately spent time on: (action, start, stop, peer).
    #[expect(clippy::type_complexity, reason = "tuples of Python")]
    fn spans(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<(String, f64, f64, Option<String>)>> {
        let key = key_from_py(key)?;
        let spans = py.detach(|| self.handle.spans(&key));
        let span = |span: Span| {
            let source = span.source.map(|source| source.to_string());
            (span.action, span.start, span.stop, source)
        };
        Ok(spans.into_iter().map(span).collect())
    }

    /// The pickle of what a task that has not begun is to run, and its buffers. None for releases up to 2023.8.0.
    #[expect(clippy::type_complexity, reason = "a tuple of Python")]
    fn run_spec<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(Bound<'py, PyBytes>, Vec<Bound<'py, PyBytes>>)>> {
        let key = key_from_py(key)?;
        let spec = py.detach(|| {
            self.handle.ask_and_wait(move |core| {
                let order = core.task(&key)?.order()?;
                order.run_spec.arc::<OrderedSpec>()
            })
        });
        Ok(match spec.flatten().as_deref() {
            Some(OrderedSpec::Pickled { pickle, buffers }) => {
                let bytes = |bytes: &bytes::Bytes| PyBytes::new(py, bytes);
                Some((bytes(pickle), buffers.iter().map(bytes).collect()))
            }
            _ => None,
        })
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

    /// What registrations say besides; `information` is msgpack of a dict.
    fn add_to_registrations(&self, information: &[u8]) -> PyResult<()> {
        let information = Value::decode(&bytes::Bytes::copy_from_slice(information));
        let information = information.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let fields = information.as_map().unwrap_or_default().to_vec();
        self.handle.add_to_registrations(fields);
        Ok(())
    }

    /// Lets go of data, unless tasks here need it; the scheduler is told that the copy is gone.
    fn remove_data(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        self.handle.remove_data(key_from_py(key)?);
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
