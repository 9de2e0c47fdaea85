//! The class `Native`: everything that Python can ask of the worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::time::ClockId;
use oxidask_key::Key;
use oxidask_supervision::FromWorker;
use oxidask_supervision::ledger::Ledger;
use oxidask_wire::message::order::OrderedSpec;
use oxidask_wire::{Message, Value};
use oxidask_worker_core::event::Event;
use oxidask_worker_core::ids::AttemptId;
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_host::interpreter::{Change, Run};
use oxidask_worker_host::memory::spilled::Spilled;
use oxidask_worker_host::ticks::Garbage;
use oxidask_worker_host::transfers::Moved;
use oxidask_worker_host::{Execution, Failure, Handle, Held, Host, Loaded, Object, Success};
use parking_lot::Mutex;
use pyo3::exceptions::{PyKeyError, PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use tokio::runtime::Runtime;

use crate::buffers::{lend, take_over};
use crate::convert::{
    failure, frames_from_py, frames_to_py, held, key_from_py, key_to_py, object, value_to_py,
};
use crate::jobs::{Job, Jobs, Threads, Work};
use crate::ledger;
use crate::nanny::Link;
use crate::runner::{Ended, Runner};
use crate::settings::settings;
use crate::views::Views;
use crate::watch::watch;

/// Threads of tokio; they never hold the interpreter.
const RUNTIME_THREADS: usize = 2;
/// Between two looks at what threads do.
const SHORTEST_WATCH: Duration = Duration::from_millis(1);

/// An object with its size and type, as Python describes it.
type Described<'py> = (
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    u64,
    Bound<'py, PyString>,
    Bound<'py, PyBytes>,
);

/// A worker in this process.
#[pyclass(frozen)]
pub(crate) struct Native {
    jobs: Arc<Jobs>,
    handle: Handle,
    host: Mutex<Option<Host>>,
    runtime: Mutex<Option<Runtime>>,
    nanny: Mutex<Option<Link>>,
    /// Where the nanny reads what ran when the process has died.
    ledger: Option<Arc<Ledger>>,
    hooks: Py<PyAny>,
    runner: PyOnceLock<Runner>,
}

#[pymethods]
impl Native {
    /// Listens; `settings` is msgpack.
    #[new]
    fn new(py: Python<'_>, settings_msgpack: &[u8], hooks: Py<PyAny>) -> PyResult<Self> {
        let value = Value::decode(&bytes::Bytes::copy_from_slice(settings_msgpack));
        let value = value.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let settings = settings(&value).map_err(PyValueError::new_err)?;
        let jobs = Arc::new(Jobs::new(&settings.release));
        let interpreter = Arc::new(Threads(Arc::clone(&jobs)));
        let (runtime, host, link, ledger) = py.detach(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(RUNTIME_THREADS)
                .thread_stack_size(oxidask_wire::value::STACK_SIZE)
                .thread_name("oxidask-io")
                .enable_all()
                .build()?;
            let host = runtime.block_on(Host::start(settings, interpreter));
            let host = host.map_err(|error| PyOSError::new_err(error.to_string()))?;
            let link = Link::open(&runtime, host.handle())?;
            let ledger = link.as_ref().and_then(Link::ledger);
            Ok::<_, PyErr>((runtime, host, link, ledger))
        })?;
        Ok(Self {
            jobs,
            handle: host.handle().clone(),
            host: Mutex::new(Some(host)),
            runtime: Mutex::new(Some(runtime)),
            nanny: Mutex::new(link),
            ledger,
            hooks,
            runner: PyOnceLock::new(),
        })
    }

    /// What ordinary tasks need of the environment, before the first of them.
    fn prepare(&self, py: Python<'_>, parts: &Bound<'_, PyDict>) -> PyResult<()> {
        self.runner
            .set(py, Runner::new(parts, self.handle.clone())?)
            .ok();
        Ok(())
    }

    /// Registers with the scheduler and begins to work; the hook `closed` is called at the end. The stream of
    /// the scheduler has a thread of its own: with several, the one that finds a message would wake another
    /// to look for the next one, for each task.
    fn register(&self) -> PyResult<()> {
        let Some(host) = self.host.lock().take() else {
            return Ok(());
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("oxidask-stream".to_owned())
            .stack_size(oxidask_wire::value::STACK_SIZE)
            .spawn(move || runtime.block_on(host.run()))?;
        Ok(())
    }

    /// The state machine, to be looked at.
    fn views(&self) -> Views {
        Views::new(self.handle.clone())
    }

    fn address(&self) -> &str {
        self.handle.address()
    }

    fn id(&self) -> &str {
        self.handle.id()
    }

    /// Waits for a task, runs it. False: there will be no more.
    fn run_one(&self, py: Python<'_>) -> PyResult<bool> {
        let work = &self.jobs.work;
        let next = py.detach(|| {
            work.try_pop().or_else(|| {
                ledger::rests();
                work.pop()
            })
        });
        let Some(next) = next else {
            return Ok(false);
        };
        let _working = self.jobs.watch.working();
        match next {
            Work::Run(execution) => {
                if let Some(ledger) = &self.ledger {
                    ledger::begins(ledger, &execution.key);
                }
                self.run(py, *execution);
                Ok(true)
            }
            Work::Call(function) => function.call0(py).map(|_| true),
        }
    }

    /// Waits for something else to do, and does it. False: there will be no more. `ordered`: for the one
    /// thread that does what has an order.
    fn serve_one(&self, py: Python<'_>, ordered: bool) -> bool {
        let jobs = &self.jobs;
        let queue = if ordered {
            &jobs.ordered
        } else {
            &jobs.service
        };
        let Some(job) = py.detach(|| queue.pop()) else {
            return false;
        };
        if let Err(error) = self.serve(py, job) {
            // Nobody else would say it.
            error.print(py);
        }
        true
    }

    /// How a task ended that `Hooks.run` left open.
    fn finish(&self, py: Python<'_>, attempt: u64, outcome: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.ended(py, AttemptId(attempt), outcome)
    }

    /// Runs a function on one of the threads for tasks.
    fn call(&self, function: Py<PyAny>) {
        self.jobs.work.push(Work::Call(function));
    }

    /// What an attempt is to run is about to be unpickled.
    fn begin_loading(&self, attempt: u64) {
        self.handle.loading().begin(AttemptId(attempt));
    }

    /// It has been, or could not be.
    fn end_loading(&self, attempt: u64) {
        self.handle.loading().end(AttemptId(attempt));
    }

    /// A thread that is none of those for tasks begins to work for a key.
    fn begin_work(&self) {
        self.jobs.watch.begin();
    }

    /// It has done so.
    fn end_work(&self) {
        self.jobs.watch.end();
    }

    /// From now on `Hooks.look` is called in this interval (seconds) while there is work.
    fn watch_work(&self, interval: f64) -> PyResult<()> {
        let interval = Duration::try_from_secs_f64(interval);
        let interval = interval.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(watch(&self.jobs, interval.max(SHORTEST_WATCH))?)
    }

    /// The task of this thread leaves its slot.
    fn secede(&self, attempt: u64, seconds: Option<f64>) {
        self.handle.seceded(AttemptId(attempt), seconds);
    }

    /// Answers a request; `frames` must be bytes.
    fn answer(&self, number: u64, frames: &Bound<'_, PyAny>) -> PyResult<()> {
        let frames = self.inward(frames_from_py(frames)?)?;
        self.jobs.answer(number, Some(frames));
        Ok(())
    }

    /// Sends a message on the scheduler's stream.
    fn say(&self, frames: &Bound<'_, PyAny>) -> PyResult<()> {
        let message = self.jobs.inward(frames_from_py(frames)?);
        let message = message.map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.handle.say(message);
        Ok(())
    }

    /// Puts data in that no task made: `(key, value, nbytes, typename, type)` each.
    fn update_data(&self, data: Vec<Described<'_>>, report: bool) -> PyResult<()> {
        let data = data.into_iter().map(stored).collect::<PyResult<_>>()?;
        self.handle.update_data(data, report);
        Ok(())
    }

    fn set_resources(&self, resources: Vec<(String, f64)>) {
        let resources = resources.into_iter().map(|(name, n)| (name.into(), n));
        self.handle.event(Event::SetResources {
            resources: resources.collect(),
            stimulus_id: "set-resources".into(),
        });
    }

    /// An object of the store.
    fn get<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let name = key_from_py(key)?;
        match self.handle.store().get(&name) {
            Some(Held::Here(object)) => held(py, &object),
            Some(Held::Spilled(file)) => self.restored(py, &name, &file),
            None => Err(PyKeyError::new_err(key.clone().unbind())),
        }
    }

    fn has(&self, key: &Bound<'_, PyAny>) -> bool {
        let key = key_from_py(key);
        key.is_ok_and(|key| self.handle.store().contains(&key))
    }

    /// Names of what is on disk.
    fn keys_on_disk<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let keys = self.handle.store().keys_on_disk();
        let keys: PyResult<Vec<_>> = keys.iter().map(|key| key_to_py(py, key)).collect();
        PyList::new(py, keys?)
    }

    /// `(bytes in memory, bytes on disk of the estimate, bytes of the files)`.
    fn sizes(&self) -> (u64, u64, u64) {
        let sizes = self.handle.store().sizes();
        (sizes.memory, sizes.spilled_memory, sizes.spilled_disk)
    }

    /// `(activity, unit, value)` of all that spilling has done.
    fn spilling(&self) -> Vec<(&'static str, &'static str, f64)> {
        self.handle.memory().cumulative()
    }

    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let keys = self.handle.store().keys();
        let keys: PyResult<Vec<_>> = keys.iter().map(|key| key_to_py(py, key)).collect();
        PyList::new(py, keys?)
    }

    fn count(&self) -> usize {
        self.handle.store().len()
    }

    /// Log lines of the Rust side since the last time: `(time, logger, level, text)`.
    fn log_lines(&self) -> Vec<crate::logs::Line> {
        crate::logs::take()
    }

    /// Garbage of a generation was collected for so many seconds, so often, with so many objects.
    fn collected_garbage(
        &self,
        seconds: f64,
        generation: usize,
        collections: u64,
        collected: u64,
        uncollectable: u64,
    ) {
        let garbage = Garbage {
            collections,
            collected,
            uncollectable,
        };
        self.handle.collected_garbage(seconds, generation, garbage);
    }

    /// `(peer, start, stop, sizes by key)` of what came, and of what was sent.
    fn transfers<'py>(&self, py: Python<'py>) -> PyResult<(Log<'py>, Log<'py>)> {
        let (incoming, outgoing) = self.handle.transfers().logs();
        Ok((log(py, &incoming)?, log(py, &outgoing)?))
    }

    /// Bytes of results that other workers and clients have fetched so far.
    fn outgoing_bytes(&self) -> u64 {
        self.handle.transfers().outgoing_bytes()
    }

    /// Makes the worker leave. `nanny`: it leaves for good, so that its nanny ends as well.
    #[pyo3(signature = (reason, nanny = true))]
    fn close(&self, reason: &str, nanny: bool) {
        if let (false, Some(link)) = (nanny, self.nanny.lock().as_ref()) {
            link.expect_another();
        }
        self.handle.close(reason);
    }

    /// Tells the nanny which folder to remove if this process can not.
    fn tell_directory(&self, path: String) {
        if let Some(link) = self.nanny.lock().as_ref() {
            link.report(FromWorker::Directory { path });
        }
    }

    /// Tells the nanny that the worker works.
    fn tell_started(&self) {
        if let Some(link) = self.nanny.lock().as_ref() {
            let address = self.handle.address().to_string();
            link.report(FromWorker::Started { address });
        }
    }

    /// Makes the worker hand over its data and leave; a second time: at once. `nanny` as in `close`.
    #[pyo3(signature = (reason, nanny = true))]
    fn close_gracefully(&self, reason: &str, nanny: bool) {
        if let (false, Some(link)) = (nanny, self.nanny.lock().as_ref()) {
            link.expect_another();
        }
        self.handle.close_gracefully(reason, None);
    }

    /// Ends all threads, after `closed`.
    fn stop(&self, py: Python<'_>) {
        self.jobs.close();
        let (runtime, link) = (self.runtime.lock().take(), self.nanny.lock().take());
        py.detach(|| {
            let Some(runtime) = runtime else { return };
            if let Some(link) = link {
                runtime.block_on(link.finish());
            }
            runtime.shutdown_background();
        });
    }
}

impl Native {
    fn run(&self, py: Python<'_>, execution: Execution) {
        let attempt = execution.attempt;
        let Err(error) = self.run_task(py, execution) else {
            return;
        };
        // `Hooks.run` catches what tasks raise, so this is a bug of ours; the task must end.
        let text = error.to_string();
        error.print(py);
        let exception = oxidask_wire::pickle::Exception::runtime_error(text);
        let failure = Failure {
            exception: exception.pickle(),
            traceback: None,
            exception_text: exception.repr(),
            traceback_text: String::new(),
            run: None,
        };
        self.handle.executed(attempt, Err(failure));
    }

    fn run_task(&self, py: Python<'_>, task: Execution) -> PyResult<()> {
        let attempt = task.attempt;
        let spent = Spent::begin();
        let ended = match self.runner.get(py) {
            Some(runner) => runner.run(py, &task)?,
            None => Ended::Extraordinary(None),
        };
        let (span, key) = (task.span_id.clone(), task.key.clone());
        let digests = self.handle.digests();
        let note = |failed| {
            let (wall, cpu) = spent.end();
            digests.executed(span.as_ref(), &key, wall, cpu, failed);
        };
        let raised = matches!(ended, Ended::Raised(..));
        let outcome = match ended {
            Ended::Success(success) => {
                note(false);
                // The state machine and the socket do not need the interpreter.
                py.detach(|| self.handle.executed(attempt, Ok(success)));
                return Ok(());
            }
            Ended::Raised(error, start) => {
                note(true);
                let arguments = (error.into_value(py), start);
                self.hooks.bind(py).call_method1("raised", arguments)?
            }
            Ended::Extraordinary(node) => self.called(py, task, node)?,
        };
        if outcome.is_none() {
            return Ok(());
        }
        if !raised {
            note(false);
        }
        self.ended(py, attempt, outcome.cast::<PyTuple>()?)
    }

    /// Frames that Python made, in the form of newer releases. No frames: nothing is said.
    fn inward(&self, frames: Vec<Bytes>) -> PyResult<Vec<Bytes>> {
        if frames.is_empty() || !self.jobs.is_path_based() {
            return Ok(frames);
        }
        let message = self.jobs.inward(frames);
        let message = message.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(message.frames().cloned().collect())
    }

    fn called<'py>(
        &self,
        py: Python<'py>,
        task: Execution,
        node: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let inputs = PyDict::new(py);
        for (key, object) in &task.inputs {
            inputs.set_item(key_to_py(py, key)?, held(py, object)?)?;
        }
        let (pickle, buffers, parts) = match &*task.spec {
            _ if node.is_some() => (None, None, None),
            OrderedSpec::Pickled { pickle, buffers } => {
                let pickle = PyBytes::new(py, pickle);
                let buffers = PyList::new(py, buffers.iter().map(|b| PyBytes::new(py, b)))?;
                (Some(pickle), Some(buffers), None)
            }
            OrderedSpec::Parts(parts) => {
                let message = Message::from_value(parts);
                let frames = self.jobs.outward(message.frames().cloned().collect());
                (None, None, Some(frames_to_py(py, &frames)?))
            }
        };
        let arguments = (
            task.attempt.0,
            key_to_py(py, &task.key)?,
            pickle,
            buffers,
            parts,
            inputs,
            value_to_py(py, &task.annotations)?,
            task.actor,
            node,
        );
        self.hooks.bind(py).call_method1("run", arguments)
    }

    /// Brings back what is on disk, on a thread that holds the interpreter.
    fn restored<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
        file: &Arc<Spilled>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let memory = self.handle.memory();
        if let Some(object) = file.object() {
            memory.restored(key, file, &object);
            return held(py, &object);
        }
        let frames = py.detach(|| memory.read_blocking(key, file));
        let frames = frames.map_err(|error| PyOSError::new_err(error.to_string()))?;
        let value = self.unpacked(py, frames)?;
        let value = value.map_err(|failure| PyOSError::new_err(failure.exception_text))?;
        let object = file.object_of(Opaque::new(value.clone().unbind()));
        memory.restored(key, file, &object);
        Ok(value)
    }

    fn unpacked<'py>(
        &self,
        py: Python<'py>,
        frames: Vec<bytes::Bytes>,
    ) -> PyResult<Result<Bound<'py, PyAny>, Failure>> {
        let hooks = self.hooks.bind(py);
        let unpacked = hooks.call_method1("unpack", (take_over(py, frames)?,))?;
        let (value, error): (Bound<'py, PyAny>, Option<Bound<'py, PyTuple>>) =
            unpacked.extract()?;
        Ok(match error {
            None => Ok(value),
            Some(error) => Err(failure(&error)?),
        })
    }

    fn ended(
        &self,
        py: Python<'_>,
        attempt: AttemptId,
        outcome: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        let what = outcome.get_item(0)?;
        let what = what.cast::<PyString>()?.to_cow()?;
        match what.as_ref() {
            "ok" => {
                type Fields<'py> = (
                    Bound<'py, PyAny>,
                    Bound<'py, PyAny>,
                    u64,
                    Bound<'py, PyString>,
                    Bound<'py, PyBytes>,
                    f64,
                    f64,
                    u64,
                );
                let (_, value, nbytes, name, pickled, start, stop, thread): Fields<'_> =
                    outcome.extract()?;
                let success = Success {
                    value: object(value, &name.to_cow()?, pickled.as_bytes()),
                    nbytes,
                    run: Run {
                        start,
                        stop,
                        thread: Some(thread),
                    },
                };
                py.detach(|| self.handle.executed(attempt, Ok(success)));
            }
            "error" => {
                let failure = failure(outcome)?;
                py.detach(|| self.handle.executed(attempt, Err(failure)));
            }
            "reschedule" => py.detach(|| self.handle.rescheduled(attempt)),
            other => return Err(PyTypeError::new_err(format!("no outcome: {other}"))),
        }
        Ok(())
    }

    fn serve(&self, py: Python<'_>, job: Job) -> PyResult<()> {
        let hooks = self.hooks.bind(py);
        match job {
            Job::Load(frames, keys, answer) => {
                let frames = take_over(py, frames)?;
                let keys: PyResult<Vec<_>> = keys.iter().map(|key| key_to_py(py, key)).collect();
                let loaded = hooks.call_method1("load", (frames, keys?))?;
                // The transfer may have been given up.
                answer.send(loaded_from(&loaded)?).ok();
            }
            Job::Dump(data, serializers, answer) => {
                let objects = PyDict::new(py);
                for (key, object) in &data {
                    objects.set_item(key_to_py(py, key)?, held(py, object)?)?;
                }
                let serializers = serializers.map(|s| value_to_py(py, &s)).transpose()?;
                let frames = hooks.call_method1("dump", (objects, serializers))?;
                let frames = frames.try_iter()?.map(|frame| lend(&frame?, &self.jobs));
                let frames = self.inward(frames.collect::<PyResult<_>>()?)?;
                answer.send(Some(frames)).ok();
            }
            Job::GiveBack(lent) => lent.give_back(py),
            Job::Look => {
                self.jobs.watch.looks();
                hooks.call_method0("look")?;
            }
            Job::Request(number, frames) => {
                hooks.call_method1("request", (number, frames_to_py(py, &frames)?))?;
            }
            Job::Registered(number, frames) => {
                hooks.call_method1("registered", (number, frames_to_py(py, &frames)?))?;
            }
            Job::Stream(frames) => {
                hooks.call_method1("stream", (frames_to_py(py, &frames)?,))?;
            }
            Job::Transitions(changes) => {
                let of = |change: &Change| {
                    let Change { transition, task } = change;
                    let key = key_to_py(py, &transition.key)?;
                    let task = task
                        .as_ref()
                        .map(|task| value_to_py(py, task))
                        .transpose()?;
                    let (start, finish) = (transition.start.as_str(), transition.finish.as_str());
                    Ok((key, start, finish, task))
                };
                let changes: PyResult<Vec<_>> = changes.iter().map(of).collect();
                hooks.call_method1("transitions", (changes?,))?;
            }
            Job::Begin(execution) => {
                let beginning = Beginning {
                    jobs: Arc::clone(&self.jobs),
                    execution: Mutex::new(Some(execution)),
                };
                hooks.call_method1("begin", (beginning,))?;
            }
            Job::Pack(object, answer) => {
                let packed = hooks.call_method1("pack", (held(py, &object)?,))?;
                let (frames, error): (Option<Bound<'_, PyAny>>, Option<String>) =
                    packed.extract()?;
                answer
                    .send(match frames {
                        Some(frames) => {
                            let frames = frames.try_iter()?;
                            let lent = frames.map(|frame| lend(&frame?, &self.jobs));
                            Ok(lent.collect::<PyResult<_>>()?)
                        }
                        None => Err(error.unwrap_or_default()),
                    })
                    .ok();
            }
            Job::Unpack(frames, answer) => {
                let value = self.unpacked(py, frames)?;
                answer
                    .send(value.map(|value| Opaque::new(value.unbind())))
                    .ok();
            }
            Job::Forget(objects, collect, answer) => {
                drop(objects);
                if collect {
                    hooks.call_method0("collect")?;
                }
                answer.send(()).ok();
            }
            // The interpreter is held, so this is where they go.
            Job::Release(objects) => drop(objects),
            Job::Closed(reason) => {
                hooks.call_method1("closed", (reason,))?;
            }
        }
        Ok(())
    }
}

/// To be called when a task may begin.
#[pyclass(frozen)]
struct Beginning {
    jobs: Arc<Jobs>,
    execution: Mutex<Option<Box<Execution>>>,
}

#[pymethods]
impl Beginning {
    fn __call__(&self) {
        if let Some(execution) = self.execution.lock().take() {
            self.jobs.work.push(Work::Run(execution));
        }
    }
}

/// Transfers for Python.
type Log<'py> = Vec<(String, f64, f64, Bound<'py, PyDict>)>;

fn log<'py>(py: Python<'py>, moved: &[Moved]) -> PyResult<Log<'py>> {
    let entry = |moved: &Moved| {
        let keys = PyDict::new(py);
        for (key, nbytes) in &moved.keys {
            keys.set_item(key_to_py(py, key)?, nbytes)?;
        }
        Ok((moved.who.to_string(), moved.start, moved.stop, keys))
    };
    moved.iter().map(entry).collect()
}

/// Time of this thread since a moment.
struct Spent {
    start: Instant,
    cpu: Option<Duration>,
}

impl Spent {
    fn begin() -> Self {
        Self {
            start: Instant::now(),
            cpu: thread_time(),
        }
    }

    /// Seconds that have passed, and those that the thread was at work.
    fn end(&self) -> (f64, f64) {
        let cpu = thread_time().zip(self.cpu);
        let cpu = cpu.map_or(0.0, |(now, then)| now.saturating_sub(then).as_secs_f64());
        (self.start.elapsed().as_secs_f64(), cpu)
    }
}

fn thread_time() -> Option<Duration> {
    let time = ClockId::CLOCK_THREAD_CPUTIME_ID.now().ok()?;
    Some(time.into())
}

fn stored((key, value, nbytes, name, pickled): Described<'_>) -> PyResult<(Key, Object, u64)> {
    let object = object(value, &name.to_cow()?, pickled.as_bytes());
    Ok((key_from_py(&key)?, object, nbytes))
}

/// `([described, …], [(key, failure), …])`.
fn loaded_from(loaded: &Bound<'_, PyAny>) -> PyResult<Loaded> {
    type Fields<'py> = (
        Vec<Described<'py>>,
        Vec<(Bound<'py, PyAny>, Bound<'py, PyTuple>)>,
    );
    let (good, bad): Fields<'_> = loaded.extract()?;
    let failed = bad.iter().map(|(key, why)| {
        let failure = failure(why)?;
        Ok((key_from_py(key)?, failure))
    });
    Ok(Loaded {
        data: good.into_iter().map(stored).collect::<PyResult<_>>()?,
        failed: failed.collect::<PyResult<_>>()?,
    })
}
