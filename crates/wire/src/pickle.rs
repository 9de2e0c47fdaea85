//! Writing the few pickles that a scheduler itself must send: exceptions, and plain containers.
//! Protocol 3, no memo: any Python from 3.5 on loads it. Reading pickles is the graph crate's work.

use bytes::Bytes;
use oxidask_key::{Key, MAX_KEY_DEPTH};

use crate::release::Release;
use crate::value::{MAX_DEPTH, Value};

/// A Python object to be pickled.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// `None`.
    None,
    /// `True`, `False`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// `int` above `i64::MAX`.
    UInt(u64),
    /// `float`.
    Float(f64),
    /// `str`.
    Str(String),
    /// `bytes`.
    Bytes(Bytes),
    /// `tuple`.
    Tuple(Vec<Object>),
    /// `list`.
    List(Vec<Object>),
    /// `set`.
    Set(Vec<Object>),
    /// `dict`.
    Dict(Vec<(Object, Object)>),
    /// Something found by name: class or function.
    Global {
        /// Module.
        module: String,
        /// Name in it; no dots.
        name: String,
    },
    /// The result of a call with positional arguments.
    Call(Box<Object>, Vec<Object>),
    /// An object whose state is set after it is made.
    Build(Box<Object>, Box<Object>),
}

impl Object {
    /// A class or function.
    pub fn global(module: &str, name: &str) -> Self {
        Self::Global {
            module: module.into(),
            name: name.into(),
        }
    }

    /// `callable(*args)`.
    pub fn call(callable: Self, args: Vec<Self>) -> Self {
        Self::Call(Box::new(callable), args)
    }

    /// `callable(**kwargs)`. Pickles can only call with positional arguments, so it goes through
    /// `functools.partial`.
    pub fn call_with_keywords(callable: Self, kwargs: Vec<(&str, Self)>) -> Self {
        Self::call(Self::partial(callable, Vec::new(), kwargs), Vec::new())
    }

    /// `functools.partial(callable, *args, **kwargs)`.
    pub fn partial(callable: Self, args: Vec<Self>, kwargs: Vec<(&str, Self)>) -> Self {
        let kwargs = kwargs
            .into_iter()
            .map(|(name, value)| (name.into(), value))
            .collect();
        let partial = Self::call(Self::global("functools", "partial"), vec![callable.clone()]);
        let args = Self::Tuple(args);
        let state = Self::Tuple(vec![callable, args, Self::Dict(kwargs), Self::None]);
        Self::Build(Box::new(partial), Box::new(state))
    }

    /// The pickle.
    pub fn pickle(&self) -> Bytes {
        let mut out = vec![0x80, 3];
        write(self, &mut out, 0);
        out.push(b'.');
        out.into()
    }

    /// The opcodes that push the object, to be part of a pickle.
    pub(crate) fn stream(&self) -> Bytes {
        let mut out = Vec::new();
        write(self, &mut out, 0);
        out.into()
    }
}

impl From<&str> for Object {
    fn from(s: &str) -> Self {
        Self::Str(s.into())
    }
}

impl From<&Key> for Object {
    fn from(key: &Key) -> Self {
        match key {
            Key::Str(s) => Self::Str(s.as_ref().into()),
            Key::Bytes(b) => Self::Bytes(Bytes::copy_from_slice(b)),
            Key::Int(i) => Self::Int(*i),
            Key::UInt(u) => Self::UInt(*u),
            Key::Float(f) => Self::Float(*f),
            Key::Bool(b) => Self::Bool(*b),
            Key::None => Self::None,
            Key::Tuple(items) => Self::Tuple(items.iter().map(Self::from).collect()),
        }
    }
}

impl From<&Value> for Object {
    /// Arrays become lists; payloads, which have no place in a pickle, `None`.
    fn from(value: &Value) -> Self {
        match value {
            Value::Nil | Value::Payload(_) => Self::None,
            Value::Bool(b) => Self::Bool(*b),
            Value::Int(i) => Self::Int(*i),
            Value::UInt(u) => Self::UInt(*u),
            Value::Float(f) => Self::Float(*f),
            Value::Str(s) => Self::Str(s.clone()),
            Value::Bin(b) => Self::Bytes(b.clone()),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Map(entries) => {
                // Lists cannot be keys in Python; arrays that are keys were tuples.
                let key = |k: &Value| k.to_key().map_or(Self::None, |k| Self::from(&k));
                Self::Dict(
                    entries
                        .iter()
                        .map(|(k, v)| (key(k), Self::from(v)))
                        .collect(),
                )
            }
        }
    }
}

fn write(object: &Object, out: &mut Vec<u8>, depth: usize) {
    // Nothing that came from a peer is nested deeper.
    if depth > MAX_DEPTH + MAX_KEY_DEPTH {
        return out.push(b'N');
    }
    let many = |items: &[Object], out: &mut Vec<u8>| {
        items.iter().for_each(|item| write(item, out, depth + 1));
    };
    match object {
        Object::None => out.push(b'N'),
        Object::Bool(b) => out.push(if *b { 0x88 } else { 0x89 }),
        Object::Int(i) => int(*i, out),
        Object::UInt(u) => {
            // LONG1, little endian two's complement: nine bytes keep it positive.
            out.extend_from_slice(&[0x8a, 9]);
            out.extend_from_slice(&u.to_le_bytes());
            out.push(0);
        }
        Object::Float(f) => {
            out.push(b'G');
            out.extend_from_slice(&f.to_be_bytes());
        }
        Object::Str(s) => sized(b'X', s.as_bytes(), out),
        Object::Bytes(b) => sized(b'B', b, out),
        Object::Tuple(items) => {
            out.push(b'(');
            many(items, out);
            out.push(b't');
        }
        Object::List(items) => {
            out.extend_from_slice(b"](");
            many(items, out);
            out.push(b'e');
        }
        Object::Set(items) => {
            let set = Object::global("builtins", "set");
            write(
                &Object::call(set, vec![Object::List(items.clone())]),
                out,
                depth + 1,
            );
        }
        Object::Dict(entries) => {
            out.extend_from_slice(b"}(");
            for (key, value) in entries {
                write(key, out, depth + 1);
                write(value, out, depth + 1);
            }
            out.push(b'u');
        }
        Object::Global { module, name } => {
            // A line break would end the name early.
            let line = |s: &str| s.replace('\n', "");
            out.push(b'c');
            out.extend_from_slice(format!("{}\n{}\n", line(module), line(name)).as_bytes());
        }
        Object::Call(callable, args) => {
            write(callable, out, depth + 1);
            out.push(b'(');
            many(args, out);
            out.extend_from_slice(b"tR");
        }
        Object::Build(object, state) => {
            write(object, out, depth + 1);
            write(state, out, depth + 1);
            out.push(b'b');
        }
    }
}

fn int(i: i64, out: &mut Vec<u8>) {
    if let Ok(small) = u8::try_from(i) {
        out.extend_from_slice(&[b'K', small]);
    } else if let Ok(medium) = i32::try_from(i) {
        out.push(b'J');
        out.extend_from_slice(&medium.to_le_bytes());
    } else {
        out.extend_from_slice(&[0x8a, 8]);
        out.extend_from_slice(&i.to_le_bytes());
    }
}

/// Text or bytes; what is longer than 4 GiB (never ours) is cut.
fn sized(op: u8, bytes: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.push(op);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend(bytes.iter().take(len as usize));
}

/// A Python exception that the scheduler raises at a peer: class by name, plain arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Exception {
    module: &'static str,
    name: &'static str,
    args: Vec<Object>,
    message: String,
    cause: Option<String>,
}

macro_rules! text_exceptions {
    ($($(#[$doc:meta])* $function:ident => $module:literal . $name:literal),+ $(,)?) => {
        impl Exception {$(
            $(#[$doc])*
            pub fn $function(message: impl Into<String>) -> Self {
                let message = message.into();
                Self { module: $module, name: $name, args: vec![message.as_str().into()], message, cause: None }
            }
        )+}
    };
}

text_exceptions! {
    /// `Exception`.
    plain => "builtins"."Exception",
    /// `ValueError`.
    value_error => "builtins"."ValueError",
    /// `TypeError`.
    type_error => "builtins"."TypeError",
    /// `PermissionError`.
    permission_error => "builtins"."PermissionError",
    /// `RuntimeError`.
    runtime_error => "builtins"."RuntimeError",
    /// `NotImplementedError`: what we do not support.
    not_implemented => "builtins"."NotImplementedError",
    /// `MemoryError`.
    memory_error => "builtins"."MemoryError",
    /// `OSError`.
    os_error => "builtins"."OSError",
    /// `asyncio.TimeoutError`, which since Python 3.11 is the built-in one.
    timeout_error => "asyncio"."TimeoutError",
    /// `IndexError`.
    index_error => "builtins"."IndexError",
    /// `distributed.shuffle._exceptions.P2PConsistencyError` (since 2024.6.0): a request of a shuffle
    /// that is over; workers then give the task back.
    p2p_consistency_error => "distributed.shuffle._exceptions"."P2PConsistencyError",
    /// `distributed.comm.CommClosedError`.
    comm_closed => "distributed.comm.core"."CommClosedError",
}

/// First release whose `KilledWorker` takes the limit as well.
const ALLOWED_FAILURES: Release = Release::new(2022, 9, 2);
/// First release with `NoValidWorkerError` and `NoWorkerError`.
const NO_WORKER_ERRORS: Release = Release::new(2024, 8, 0);
/// First release whose `WorkerState` requires a status.
const WORKER_STATUS: Release = Release::new(2021, 10, 0);
/// First release whose `WorkerState` requires a server id.
const SERVER_ID: Release = Release::new(2022, 6, 1);

/// What a `KilledWorker` tells about the last worker.
#[derive(Clone, Debug, PartialEq)]
pub struct LastWorker<'a> {
    /// Address.
    pub address: &'a str,
    /// Name as text.
    pub name: &'a str,
    /// Threads.
    pub nthreads: u32,
    /// Bytes; 0 means no limit.
    pub memory_limit: u64,
    /// Process id.
    pub pid: u32,
    /// `Worker-<uuid>`.
    pub server_id: &'a str,
    /// Local directory.
    pub local_directory: &'a str,
    /// Address of its nanny.
    pub nanny: Option<&'a str>,
}

impl LastWorker<'_> {
    /// A `WorkerState`, made by its class from the arguments that the release has.
    fn to_object(&self, release: &Release) -> Object {
        let memory = i64::try_from(self.memory_limit).unwrap_or(i64::MAX);
        let mut kwargs = vec![
            ("address", Object::from(self.address)),
            ("pid", Object::Int(i64::from(self.pid))),
            ("name", self.name.into()),
            ("nthreads", Object::Int(i64::from(self.nthreads))),
            ("memory_limit", Object::Int(memory)),
            ("local_directory", self.local_directory.into()),
            ("services", Object::Dict(Vec::new())),
            ("nanny", self.nanny.map_or(Object::None, Object::from)),
            ("extra", Object::Dict(Vec::new())),
        ];
        if *release >= WORKER_STATUS {
            let status = Object::global("distributed.core", "Status");
            kwargs.push(("status", Object::call(status, vec!["closed".into()])));
        }
        if *release >= SERVER_ID {
            kwargs.push(("server_id", self.server_id.into()));
        }
        let class = Object::global("distributed.scheduler", "WorkerState");
        Object::call_with_keywords(class, kwargs)
    }
}

impl Exception {
    /// `KeyError(key)`.
    pub fn key_error(key: &Key) -> Self {
        Self {
            module: "builtins",
            name: "KeyError",
            args: vec![key.into()],
            message: key.repr(),
            cause: None,
        }
    }

    /// `distributed.scheduler.KilledWorker`: too many workers died while they ran `task`.
    pub fn killed_worker(
        release: &Release,
        task: &Key,
        last_worker: &LastWorker<'_>,
        allowed_failures: u32,
    ) -> Self {
        let mut args = vec![Object::from(task), last_worker.to_object(release)];
        if *release >= ALLOWED_FAILURES {
            args.push(Object::Int(i64::from(allowed_failures)));
        }
        let message = format!(
            "task {} was running on {} workers that died, last on {}",
            task.repr(),
            u64::from(allowed_failures) + 1,
            last_worker.address
        );
        Self {
            module: "distributed.scheduler",
            name: "KilledWorker",
            args,
            message,
            cause: None,
        }
    }

    /// `distributed.scheduler.NoValidWorkerError` (≥ 2024.8.0, before a `TimeoutError`): no worker
    /// may run `task`. `restrictions` are hosts, addresses and resources.
    pub fn no_valid_worker(
        release: &Release,
        task: &Key,
        restrictions: (&[&str], &[&str], &[(&str, f64)]),
        timeout: f64,
    ) -> Self {
        let (hosts, workers, resources) = restrictions;
        let message = format!(
            "no worker may run task {} after {timeout} s; hosts: {hosts:?}, workers: {workers:?}, \
             resources: {resources:?}",
            task.repr()
        );
        if *release < NO_WORKER_ERRORS {
            return Self::timeout_error(message);
        }
        let set = |items: &[&str]| Object::Set(items.iter().map(|s| Object::from(*s)).collect());
        let amounts = resources
            .iter()
            .map(|(n, v)| (Object::from(*n), Object::Float(*v)));
        let args = vec![
            task.into(),
            set(hosts),
            set(workers),
            Object::Dict(amounts.collect()),
            Object::Float(timeout),
        ];
        Self {
            module: "distributed.scheduler",
            name: "NoValidWorkerError",
            args,
            message,
            cause: None,
        }
    }

    /// `distributed.scheduler.NoWorkerError` (≥ 2024.8.0, before a `TimeoutError`): there is no
    /// worker at all.
    pub fn no_worker(release: &Release, task: &Key, timeout: f64) -> Self {
        let message = format!(
            "no worker came within {timeout} s to run task {}",
            task.repr()
        );
        if *release < NO_WORKER_ERRORS {
            return Self::timeout_error(message);
        }
        let args = vec![task.into(), Object::Float(timeout)];
        Self {
            module: "distributed.scheduler",
            name: "NoWorkerError",
            args,
            message,
            cause: None,
        }
    }

    /// The same with a `__cause__`, a `RuntimeError` of this text, which Python prints above it.
    #[must_use]
    pub fn caused_by(self, cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..self
        }
    }

    /// The pickle, for `exception` fields.
    pub fn pickle(&self) -> Bytes {
        let plain = Object::call(Object::global(self.module, self.name), self.args.clone());
        let Some(cause) = &self.cause else {
            return plain.pickle();
        };
        let error = Object::global("builtins", "RuntimeError");
        let error = Object::call(error, vec![cause.as_str().into()]);
        // `BaseException.__setstate__` sets attributes, also this one.
        let state = Object::Dict(vec![("__cause__".into(), error)]);
        Object::Build(Box::new(plain), Box::new(state)).pickle()
    }

    /// Text of the `__cause__`.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Much as Python's `str()`.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Much as Python's `repr()`.
    pub fn repr(&self) -> String {
        match self.args.as_slice() {
            [Object::Str(text)] => format!("{}({})", self.name, Key::from(text.as_str()).repr()),
            _ => format!("{}({})", self.name, self.message),
        }
    }
}
