//! Running ordinary tasks: those of releases since 2023.8.1 whose run spec is one pickle, which run on the
//! worker's own threads, and whose function is none of a coroutine. Everything else is left to
//! `tasks.Runner` of the Python half, also what becomes of exceptions.
//!
//! The interpreter is held all the time, so what costs here costs all threads: nothing of Python is
//! called that is not the user's, the environment's, or in C.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use oxidask_wire::message::order::OrderedSpec;
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_host::interpreter::Run;
use oxidask_worker_host::{Execution, Object, Success};
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple, PyType};

use crate::convert::{held, key_to_py};
use crate::functions::Functions;

/// Most types whose descriptions are kept.
const MAX_TYPES: usize = 1000;
/// Flags of code that makes a coroutine (`CO_COROUTINE`, `CO_ITERABLE_COROUTINE`).
const COROUTINE_FLAGS: u32 = 0x80 | 0x100;

/// What tasks need of the environment.
pub(crate) struct Runner {
    /// `pickle.loads`
    loads: Py<PyAny>,
    functions: Functions,
    /// Held while user data is unpickled.
    acquire: Py<PyAny>,
    release: Py<PyAny>,
    thread_state: Py<PyAny>,
    execution_state: Py<PyAny>,
    get_ident: Py<PyAny>,
    /// Thread to key of what it runs.
    active_threads: Py<PyDict>,
    /// Key to attempt of what runs.
    attempts: Py<PyDict>,
    /// Value to size, by the environment's rules.
    sizeof: Py<PyAny>,
    /// `sys.getsizeof`
    getsizeof: Py<PyAny>,
    /// Value to name of its type, the pickled type, and whether `sys.getsizeof` is its size by those rules.
    described: Py<PyAny>,
    /// What the store has in the place of an actor; tasks get a proxy instead.
    actor_type: Py<PyType>,
    function_type: Py<PyType>,
    builtin_type: Py<PyType>,
    types: Mutex<HashMap<usize, Arc<Described>>>,
}

/// What there is to say of a type.
struct Described {
    /// Keeps the type, whose address is the key.
    _type: Py<PyType>,
    name: Arc<str>,
    pickle: Bytes,
    plain_size: bool,
}

/// How far an execution got.
pub(crate) enum Ended {
    /// With a result.
    Success(Success),
    /// With an exception of the user's code; when it began.
    Raised(PyErr, f64),
    /// It is no ordinary task: not begun. The run spec, if it was loaded.
    Extraordinary(Option<Py<PyAny>>),
}

impl Runner {
    /// `parts`: what `tasks.Runner.native` gives.
    pub(crate) fn new(parts: &Bound<'_, PyDict>) -> PyResult<Self> {
        let py = parts.py();
        let part = |name: &str| parts.as_any().get_item(name).map(Bound::unbind);
        let lock = parts.as_any().get_item("loading")?;
        Ok(Self {
            loads: part("loads")?,
            functions: Functions::new(parts.as_any())?,
            acquire: lock.getattr("acquire")?.unbind(),
            release: lock.getattr("release")?.unbind(),
            thread_state: part("thread_state")?,
            execution_state: part("execution_state")?,
            get_ident: part("get_ident")?,
            active_threads: part("active_threads")?
                .bind(py)
                .cast::<PyDict>()?
                .clone()
                .unbind(),
            attempts: part("attempts")?
                .bind(py)
                .cast::<PyDict>()?
                .clone()
                .unbind(),
            sizeof: part("sizeof")?,
            getsizeof: part("getsizeof")?,
            described: part("described")?,
            actor_type: part("actor_type")?
                .bind(py)
                .cast::<PyType>()?
                .clone()
                .unbind(),
            function_type: part("function_type")?
                .bind(py)
                .cast::<PyType>()?
                .clone()
                .unbind(),
            builtin_type: part("builtin_type")?
                .bind(py)
                .cast::<PyType>()?
                .clone()
                .unbind(),
            types: Mutex::default(),
        })
    }

    /// Runs a task on this thread.
    ///
    /// # Errors
    /// Something of ours is wrong; what the user's code raises is [`Ended::Raised`].
    pub(crate) fn run(&self, py: Python<'_>, task: &Execution) -> PyResult<Ended> {
        let OrderedSpec::Pickled { pickle, buffers } = &*task.spec else {
            return Ok(Ended::Extraordinary(None));
        };
        if task.actor || task.annotations.get("executor").is_some() {
            return Ok(Ended::Extraordinary(None));
        }
        let key = key_to_py(py, &task.key)?;
        let start = now();
        let thread = self.get_ident.bind(py).call0()?;
        let state = self.thread_state.bind(py);
        state.setattr(intern!(py, "start_time"), start)?;
        state.setattr(
            intern!(py, "execution_state"),
            self.execution_state.bind(py),
        )?;
        state.setattr(intern!(py, "key"), &key)?;
        let attempt = task.attempt.0.into_pyobject(py)?;
        self.attempts.bind(py).set_item(&key, &attempt)?;
        self.active_threads.bind(py).set_item(&thread, &key)?;
        let ended = self.run_loaded(py, task, pickle, buffers, thread.extract()?);
        // A task may have cleared them, and a later attempt at the same key may have begun.
        self.active_threads.bind(py).del_item(&thread).ok();
        let attempts = self.attempts.bind(py);
        if let Ok(Some(latest)) = attempts.get_item(&key)
            && latest.eq(&attempt)?
        {
            attempts.del_item(&key)?;
        }
        ended
    }

    fn run_loaded(
        &self,
        py: Python<'_>,
        task: &Execution,
        pickle: &Bytes,
        buffers: &[Bytes],
        thread: u64,
    ) -> PyResult<Ended> {
        let node = match self.load(py, pickle, buffers) {
            Ok(node) => node,
            Err(error) => return Ok(Ended::Raised(error, now())),
        };
        if !self.is_ordinary(&node)? {
            return Ok(Ended::Extraordinary(Some(node.unbind())));
        }
        let inputs = PyDict::new(py);
        for (key, object) in &task.inputs {
            let value = held(py, object)?;
            if value.get_type().is(&self.actor_type) {
                return Ok(Ended::Extraordinary(Some(node.unbind())));
            }
            inputs.set_item(key_to_py(py, key)?, value)?;
        }
        let start = now();
        let value = match node.call1((inputs,)) {
            Ok(value) => value,
            Err(error) => return Ok(Ended::Raised(error, start)),
        };
        let stop = now();
        let described = self.describe(&value)?;
        let nbytes = match described.plain_size {
            true => self.getsizeof.bind(py).call1((&value,))?.extract()?,
            false => self.sizeof.bind(py).call1((&value,))?.extract()?,
        };
        Ok(Ended::Success(Success {
            value: Object {
                value: Opaque::new(value.unbind()),
                typename: Arc::clone(&described.name),
                type_pickle: described.pickle.clone(),
            },
            nbytes,
            run: Run {
                start,
                stop,
                thread: Some(thread),
            },
        }))
    }

    fn load<'py>(
        &self,
        py: Python<'py>,
        pickle: &Bytes,
        buffers: &[Bytes],
    ) -> PyResult<Bound<'py, PyAny>> {
        self.acquire.bind(py).call0()?;
        let loaded = self.load_locked(py, pickle, buffers);
        self.release.bind(py).call0()?;
        loaded
    }

    fn load_locked<'py>(
        &self,
        py: Python<'py>,
        pickle: &Bytes,
        buffers: &[Bytes],
    ) -> PyResult<Bound<'py, PyAny>> {
        if buffers.is_empty()
            && let Some(loaded) = self.functions.load(py, pickle)?
        {
            return Ok(loaded);
        }
        let arguments = PyTuple::new(py, [PyBytes::new(py, pickle)])?;
        if buffers.is_empty() {
            self.loads.bind(py).call1(arguments)
        } else {
            let buffers = PyList::new(py, buffers.iter().map(|b| PyBytes::new(py, b)))?;
            let named = PyDict::new(py);
            named.set_item(intern!(py, "buffers"), buffers)?;
            self.loads.bind(py).call(arguments, Some(&named))
        }
    }

    /// Whether a run spec can be called here: a node of a graph that makes no coroutine.
    fn is_ordinary(&self, node: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = node.py();
        let Ok(function) = node.getattr(intern!(py, "func")) else {
            // A literal or an alias; what is no node at all has no such attribute either.
            let coroutine = node.getattr(intern!(py, "is_coro"));
            return match coroutine {
                Ok(coroutine) if node.is_callable() => Ok(!coroutine.is_truthy()?),
                _ => Ok(false),
            };
        };
        let kind = function.get_type();
        if kind.is(&self.builtin_type) {
            return Ok(true);
        }
        // What asyncio and tornado mark is marked by attributes.
        if kind.is(&self.function_type) && function.getattr(intern!(py, "__dict__"))?.len()? == 0 {
            let code = function.getattr(intern!(py, "__code__"))?;
            let flags: u32 = code.getattr(intern!(py, "co_flags"))?.extract()?;
            return Ok(flags & COROUTINE_FLAGS == 0);
        }
        Ok(!node.getattr(intern!(py, "is_coro"))?.is_truthy()?)
    }

    fn describe(&self, value: &Bound<'_, PyAny>) -> PyResult<Arc<Described>> {
        let kind = value.get_type();
        let address = kind.as_ptr() as usize;
        if let Some(known) = self.types.lock().get(&address) {
            return Ok(Arc::clone(known));
        }
        let described = self.described.bind(value.py()).call1((value,))?;
        let (name, pickle, plain_size): (String, Bound<'_, PyBytes>, bool) = described.extract()?;
        let described = Arc::new(Described {
            _type: kind.unbind(),
            name: name.into(),
            pickle: Bytes::copy_from_slice(pickle.as_bytes()),
            plain_size,
        });
        let mut types = self.types.lock();
        if types.len() >= MAX_TYPES {
            // Types that are made by the thousand are not kept alive.
            types.clear();
        }
        types.insert(address, Arc::clone(&described));
        Ok(described)
    }
}

/// Seconds since the epoch, as `time.time()` has them.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
