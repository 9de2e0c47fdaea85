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
use oxidask_wire::dialect::unguarded;
use oxidask_wire::message::order::OrderedSpec;
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_host::interpreter::Run;
use oxidask_worker_host::{Execution, Handle, Object, Success};
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeCheck;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple, PyType};

use crate::calls::arguments;
use crate::convert::{held, key_to_py};
use crate::functions::Functions;

/// Most types whose descriptions are kept.
const MAX_TYPES: usize = 1000;
/// Most inputs that are looked through for each argument.
const MAX_INPUTS: usize = 32;
/// Flags of code that makes a coroutine (`CO_COROUTINE`, `CO_ITERABLE_COROUTINE`).
const COROUTINE_FLAGS: u32 = 0x80 | 0x100;

/// What tasks need of the environment.
pub(crate) struct Runner {
    /// `pickle.loads`
    loads: Py<PyAny>,
    functions: Functions,
    handle: Handle,
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

/// What a run spec turned out to be.
enum Spec<'py> {
    /// A function that is known, and its arguments.
    Call(
        Bound<'py, PyAny>,
        Bound<'py, PyTuple>,
        Option<Bound<'py, PyDict>>,
    ),
    /// The object of the task, to be called with the inputs.
    Node(Bound<'py, PyAny>),
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
    pub(crate) fn new(parts: &Bound<'_, PyDict>, handle: Handle) -> PyResult<Self> {
        let part = |name: &str| parts.as_any().get_item(name).map(Bound::unbind);
        let lock = parts.as_any().get_item("loading")?;
        Ok(Self {
            loads: part("loads")?,
            functions: Functions::new(parts.as_any())?,
            handle,
            acquire: lock.getattr("acquire")?.unbind(),
            release: lock.getattr("release")?.unbind(),
            thread_state: part("thread_state")?,
            execution_state: part("execution_state")?,
            get_ident: part("get_ident")?,
            active_threads: typed::<PyDict>(parts, "active_threads")?,
            attempts: typed::<PyDict>(parts, "attempts")?,
            sizeof: part("sizeof")?,
            getsizeof: part("getsizeof")?,
            described: part("described")?,
            actor_type: typed::<PyType>(parts, "actor_type")?,
            function_type: typed::<PyType>(parts, "function_type")?,
            builtin_type: typed::<PyType>(parts, "builtin_type")?,
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
        let mut objects = Vec::with_capacity(task.inputs.len());
        for (_, object) in &task.inputs {
            let value = held(py, object)?;
            if value.get_type().is(&self.actor_type) {
                return Ok(Ended::Extraordinary(None));
            }
            objects.push(value);
        }
        let spec = match self.load(py, task, pickle, buffers, &objects) {
            Ok(spec) => spec,
            Err(error) => return Ok(Ended::Raised(error, now())),
        };
        let (function, arguments, named) = match spec {
            Spec::Call(function, arguments, named) => (function, arguments, named),
            Spec::Node(node) if !self.is_ordinary(&node)? => {
                return Ok(Ended::Extraordinary(Some(node.unbind())));
            }
            Spec::Node(node) => {
                let inputs = PyDict::new(py);
                for ((key, _), value) in task.inputs.iter().zip(&objects) {
                    inputs.set_item(key_to_py(py, key)?, value)?;
                }
                (node, PyTuple::new(py, [inputs])?, None)
            }
        };
        drop(objects);
        let start = now();
        let value = match function.call(arguments, named.as_ref()) {
            Ok(value) => value,
            Err(error) => return Ok(Ended::Raised(error, start)),
        };
        let stop = now();
        let described = self.describe(&value)?;
        let nbytes = self.size_of(&value, described.plain_size)?;
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
        task: &Execution,
        pickle: &Bytes,
        buffers: &[Bytes],
        inputs: &[Bound<'py, PyAny>],
    ) -> PyResult<Spec<'py>> {
        if let Some(inner) = unguarded(pickle)
            && let Ok(spec) = self.load_bare(py, task, &inner, &[], inputs)
        {
            return Ok(spec);
        }
        // If that has failed, the guard makes what is to be raised.
        self.load_bare(py, task, pickle, buffers, inputs)
    }

    fn load_bare<'py>(
        &self,
        py: Python<'py>,
        task: &Execution,
        pickle: &Bytes,
        buffers: &[Bytes],
        inputs: &[Bound<'py, PyAny>],
    ) -> PyResult<Spec<'py>> {
        let functions = &self.functions;
        let mut known = None;
        if buffers.is_empty() {
            known = match functions.find(pickle) {
                Some(known) => Some(known),
                None => self.locked(py, task, || functions.learn(py, pickle))?,
            };
        }
        if let Some(known) = &known
            && let Some(call) = known.call(pickle)
            && let Some(function) = known.objects().get(call.function as usize)
            && let Some(function) = function
            && task.inputs.len() <= MAX_INPUTS
        {
            let keys = task.inputs.iter().map(|(key, _)| key);
            if let Some((arguments, named)) = arguments(py, &call, known.objects(), keys, inputs)? {
                return Ok(Spec::Call(function.bind(py).clone(), arguments, named));
            }
        }
        self.locked(py, task, || {
            if let Some(known) = &known
                && let Some(loaded) = functions.load(py, known, pickle)?
            {
                return Ok(loaded);
            }
            let arguments = PyTuple::new(py, [PyBytes::new(py, pickle)])?;
            if buffers.is_empty() {
                return self.loads.bind(py).call1(arguments);
            }
            let buffers = PyList::new(py, buffers.iter().map(|b| PyBytes::new(py, b)))?;
            let named = PyDict::new(py);
            named.set_item(intern!(py, "buffers"), buffers)?;
            self.loads.bind(py).call(arguments, Some(&named))
        })
        .map(Spec::Node)
    }

    /// While no other thread unpickles.
    fn locked<T>(
        &self,
        py: Python<'_>,
        task: &Execution,
        load: impl FnOnce() -> PyResult<T>,
    ) -> PyResult<T> {
        let loading = self.handle.loading();
        loading.begin(task.attempt);
        self.acquire.bind(py).call0()?;
        let loaded = load();
        self.release.bind(py).call0()?;
        loading.end(task.attempt);
        loaded
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

    /// `plain`: the interpreter's word counts, unless the object has none to say (`__sizeof__` may raise).
    fn size_of(&self, value: &Bound<'_, PyAny>, plain: bool) -> PyResult<u64> {
        let py = value.py();
        if plain {
            let size = self.getsizeof.bind(py).call1((value,));
            if let Ok(size) = size.and_then(|size| size.extract()) {
                return Ok(size);
            }
        }
        self.sizeof.bind(py).call1((value,))?.extract()
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

/// A part that must be of this type.
fn typed<T: PyTypeCheck>(parts: &Bound<'_, PyDict>, name: &str) -> PyResult<Py<T>> {
    let part = parts.as_any().get_item(name)?;
    Ok(part.cast_into::<T>()?.unbind())
}

/// Seconds since the epoch, as `time.time()` has them.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
