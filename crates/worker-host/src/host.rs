//! Starting the worker, and the handle through which everything else reaches it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use oxidask_key::Key;
use oxidask_wire::{Dialect, Message, Value};
use oxidask_worker_core::Worker;
use oxidask_worker_core::config::WorkerConfig;
use oxidask_worker_core::event::{Datum, Event, Outcome};
use oxidask_worker_core::ids::AttemptId;
use oxidask_worker_core::opaque::Opaque;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{oneshot, watch};

use crate::books::{Books, Input};
use crate::clock::stimulus;
use crate::desk::Desk;
use crate::digests::Digests;
use crate::error::StartError;
use crate::http;
use crate::interpreter::{Failure, Interpreter, Object, Success};
use crate::listener::listen;
use crate::loading::Loading;
use crate::memory::Memory;
use crate::patience::Patience;
use crate::peers::Peers;
use crate::retiring::retire;
use crate::scheduler;
use crate::settings::Settings;
use crate::store::Store;
use crate::ticks::{Garbage, Ticks};
use crate::times::{Span, Times};
use crate::transfers::Transfers;
use crate::translate::Finished;

/// Failed tasks whose exceptions are kept.
const MAX_FAILURES: usize = 100;

/// The way to a running worker, for threads and tasks. Cheap to clone; never blocks.
#[derive(Clone)]
pub struct Handle {
    desk: Desk,
    identity: Arc<Identity>,
    closing: watch::Sender<Option<String>>,
}

/// What plugins add to heartbeats: maps by name.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// Of extensions of the worker that have a `heartbeat`.
    pub extensions: Vec<(Value, Value)>,
    /// Of `Worker.metrics`; those of the worker itself go first.
    pub metrics: Vec<(Value, Value)>,
}

struct Identity {
    address: Arc<str>,
    id: String,
    store: Store,
    memory: Arc<Memory>,
    digests: Digests,
    additions: Mutex<Additions>,
    startup_information: Mutex<Vec<(Value, Value)>>,
    /// The latest, to be looked at.
    failures: Mutex<VecDeque<(Key, Opaque)>>,
    times: Times,
    patience: Patience,
    loading: Loading,
    transfers: Transfers,
    ticks: Ticks,
    /// Seconds of the last heartbeat, as bits.
    latency: AtomicU64,
    http_port: Option<u16>,
    settings: Arc<Settings>,
    /// It hands over its data before it leaves: the stream may end any moment.
    retiring: AtomicBool,
    /// The scheduler's stream is open.
    connected: AtomicBool,
    runtime: runtime::Handle,
}

impl Handle {
    /// Address that others know this worker by.
    pub fn address(&self) -> &Arc<str> {
        &self.identity.address
    }

    /// `Worker-<uuid>`.
    pub fn id(&self) -> &str {
        &self.identity.id
    }

    /// The data here.
    pub fn store(&self) -> &Store {
        &self.identity.store
    }

    /// What keeps the data within its limits, and brings back what is on disk.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.identity.memory
    }

    /// What time is spent on.
    pub fn digests(&self) -> &Digests {
        &self.identity.digests
    }

    /// Transfers that are done.
    pub fn transfers(&self) -> &Transfers {
        &self.identity.transfers
    }

    /// Python collected garbage of a generation for so many seconds.
    pub fn collected_garbage(&self, seconds: f64, generation: usize, garbage: Garbage) {
        let ticks = &self.identity.ticks;
        ticks.collected_garbage(seconds, generation, garbage);
    }

    pub(crate) fn ticks(&self) -> &Ticks {
        &self.identity.ticks
    }

    /// Port of the HTTP server, if there is one.
    pub fn http_port(&self) -> Option<u16> {
        self.identity.http_port
    }

    /// A heartbeat took so many seconds.
    pub(crate) fn told_latency(&self, seconds: f64) {
        let latency = &self.identity.latency;
        let old = f64::from_bits(latency.load(Ordering::Relaxed));
        // As stock smoothes it.
        let new = if old == 0.0 {
            seconds
        } else {
            seconds * 0.05 + old * 0.95
        };
        latency.store(new.to_bits(), Ordering::Relaxed);
        self.digests().add("latency", seconds);
    }

    /// Seconds that the scheduler takes to answer.
    pub(crate) fn latency(&self) -> f64 {
        f64::from_bits(self.identity.latency.load(Ordering::Relaxed))
    }

    /// What a thread made of an execution.
    pub fn executed(&self, attempt: AttemptId, result: Result<Success, Failure>) {
        let (outcome, name) = match result {
            Ok(success) => {
                let object = success.value;
                let finished = Finished {
                    object: object.clone(),
                    run: success.run,
                };
                let outcome = Outcome::Finished {
                    value: Opaque::new(object),
                    nbytes: success.nbytes,
                    report: Opaque::new(finished),
                };
                (outcome, "task-finished")
            }
            Err(failure) => {
                let report = Opaque::new(failure);
                (Outcome::Failed { report }, "task-erred")
            }
        };
        self.event(Event::Executed {
            attempt,
            outcome,
            stimulus_id: stimulus(name),
        });
    }

    /// The task raised `Reschedule`.
    pub fn rescheduled(&self, attempt: AttemptId) {
        self.event(Event::Executed {
            attempt,
            outcome: Outcome::Rescheduled,
            stimulus_id: stimulus("reschedule"),
        });
    }

    /// The task left its slot; `compute_duration`: seconds it had run.
    pub fn seceded(&self, attempt: AttemptId, compute_duration: Option<f64>) {
        self.event(Event::Seceded {
            attempt,
            compute_duration,
            stimulus_id: stimulus("secede"),
        });
    }

    /// Data that no task made. `report`: tell the scheduler.
    pub fn update_data(&self, data: Vec<(Key, Object, u64)>, report: bool) {
        let datum = |(key, object, nbytes)| Datum {
            key,
            value: Opaque::new(object),
            nbytes,
        };
        self.event(Event::UpdateData {
            data: data.into_iter().map(datum).collect(),
            report,
            stimulus_id: stimulus("update-data"),
        });
    }

    /// An event for the state machine.
    pub fn event(&self, event: Event) {
        self.send(Input::Events(vec![event]));
    }

    /// A message for the scheduler's stream that is not the state machine's (`log-event`, …): the map.
    pub fn say(&self, message: Message) {
        self.send(Input::Say(message));
    }

    /// Asks the state machine. Nothing if the worker has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Worker) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.send(Input::Ask(Box::new(move |core| {
            sender.send(question(core)).ok();
        })));
        answer.await.ok()
    }

    /// Like [`Handle::ask`], for threads that may wait. Not for those of the runtime.
    pub fn ask_and_wait<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Worker) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        self.send(Input::Ask(Box::new(move |core| {
            sender.send(question(core)).ok();
        })));
        answer.recv().ok()
    }

    /// What heartbeats say besides, from now on.
    pub fn add_to_heartbeats(&self, additions: Additions) {
        *self.identity.additions.lock() = additions;
    }

    /// Lets go of data, unless tasks here need it; the scheduler is told that this copy is gone.
    pub fn remove_data(&self, key: Key) {
        self.event(Event::RemoveReplicas {
            keys: vec![key],
            stimulus_id: stimulus("worker-data-deleted"),
        });
    }

    /// How a task failed, if that was lately.
    pub fn failure(&self, key: &Key) -> Option<Failure> {
        let failures = self.identity.failures.lock();
        let (_, report) = failures.iter().rev().find(|(known, _)| known == key)?;
        report.get::<Failure>().cloned()
    }

    pub(crate) fn note_failure(&self, key: &Key, report: &Opaque) {
        let mut failures = self.identity.failures.lock();
        if failures.len() >= MAX_FAILURES {
            failures.pop_front();
        }
        failures.push_back((key.clone(), report.clone()));
    }

    /// What a task spent time on, if it was done lately.
    pub fn spans(&self, key: &Key) -> Vec<Span> {
        self.identity.times.of(key)
    }

    /// Tasks that are being unpickled.
    pub fn loading(&self) -> &Loading {
        &self.identity.loading
    }

    /// How long reports to the scheduler may wait.
    pub(crate) fn patience(&self) -> &Patience {
        &self.identity.patience
    }

    pub(crate) fn times(&self) -> &Times {
        &self.identity.times
    }

    /// What registrations say besides (`extra`), from now on.
    pub fn add_to_registrations(&self, information: Vec<(Value, Value)>) {
        *self.identity.startup_information.lock() = information;
    }

    pub(crate) fn startup_information(&self) -> Vec<(Value, Value)> {
        self.identity.startup_information.lock().clone()
    }

    pub(crate) fn additions(&self) -> Additions {
        self.identity.additions.lock().clone()
    }

    /// What the scheduler is to keep of a task when it is done (`task-finished`): a map.
    pub fn metadata(&self, key: Key, metadata: Value) {
        self.send(Input::Metadata(key, metadata));
    }

    /// Whether the interpreter is told of changes of states.
    pub fn observe(&self, wanted: bool) {
        self.send(Input::Observe(wanted));
    }

    /// Makes the worker leave. The first reason counts.
    pub fn close(&self, reason: &str) {
        self.closing.send_if_modified(|closing| {
            let first = closing.is_none();
            closing.get_or_insert_with(|| reason.to_owned());
            first
        });
    }

    /// Makes the worker hand over its data and leave, within `limit` or [`Settings::retire_timeout`].
    /// A second time: at once.
    pub fn close_gracefully(&self, reason: &str, limit: Option<Duration>) {
        if self.identity.retiring.swap(true, Ordering::AcqRel) {
            return self.close(reason);
        }
        let (handle, reason) = (self.clone(), reason.to_owned());
        let leaving = async move { retire(&handle, &reason, limit).await };
        self.identity.runtime.spawn(leaving);
    }

    /// Whether it is handing over its data.
    pub(crate) fn is_retiring(&self) -> bool {
        self.identity.retiring.load(Ordering::Acquire)
    }

    /// Whether the scheduler's stream is open.
    pub(crate) fn is_connected(&self) -> bool {
        self.identity.connected.load(Ordering::Acquire)
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.identity.connected.store(connected, Ordering::Release);
    }

    /// Settings in force.
    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.identity.settings
    }

    /// Resolves with the reason when the worker is to leave.
    pub async fn closing(&self) -> String {
        let mut closing = self.closing.subscribe();
        match closing.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    pub(crate) fn send(&self, input: Input) {
        self.desk.hand_in(input);
    }
}

/// A worker that listens, and has not registered yet.
pub struct Host {
    settings: Arc<Settings>,
    handle: Handle,
    interpreter: Arc<dyn Interpreter>,
}

impl Host {
    /// Listens and starts the state machine, on the tokio runtime of the caller.
    ///
    /// # Errors
    /// The address can not be listened on.
    pub async fn start(
        settings: Settings,
        interpreter: Arc<dyn Interpreter>,
    ) -> Result<Self, StartError> {
        match (settings.scheme.is_encrypted(), &settings.security) {
            (true, security) if security.server().is_none() => {
                return Err(StartError::NoCertificate);
            }
            (false, security) if security.require_encryption() => {
                return Err(StartError::NotEncrypted);
            }
            _ => {}
        }
        let (listener, port) = bind(&settings).await?;
        let host = settings.contact_host.as_ref();
        let host = bracketed(host.unwrap_or(&settings.listen_host));
        let scheme = settings.scheme;
        let address: Arc<str> = match &settings.contact_address {
            Some(address) => address.as_str().into(),
            None => format!("{scheme}://{host}:{port}").into(),
        };
        let settings = Arc::new(settings);
        let server = http::bind(&settings).await?;
        let store = Store::default();
        let memory = Memory::new(
            settings.memory.clone(),
            store.clone(),
            Arc::clone(&interpreter),
            &settings.local_directory,
        );
        let handle = Handle {
            desk: Desk::new(),
            identity: Arc::new(Identity {
                address: Arc::clone(&address),
                id: format!("Worker-{}", uuid::Uuid::new_v4()),
                store: store.clone(),
                memory: Arc::clone(&memory),
                digests: Digests::default(),
                additions: Mutex::default(),
                startup_information: Mutex::default(),
                failures: Mutex::default(),
                times: Times::default(),
                patience: Patience::default(),
                loading: Loading::default(),
                transfers: Transfers::default(),
                ticks: Ticks::default(),
                latency: AtomicU64::new(0),
                http_port: server.as_ref().map(|server| server.port),
                settings: Arc::clone(&settings),
                retiring: AtomicBool::new(false),
                connected: AtomicBool::new(false),
                runtime: runtime::Handle::current(),
            }),
            closing: watch::Sender::new(None),
        };
        let core = Worker::new(WorkerConfig {
            address: Arc::clone(&address),
            nthreads: settings.nthreads,
            resources: settings.resources.clone(),
            ..settings.core.clone()
        });
        let landing = Arc::new(memory.landing().clone());
        let peers = Peers::new(address, &settings, Arc::clone(&interpreter), landing);
        let books = Books::new(
            core,
            store,
            Arc::clone(&interpreter),
            Arc::new(peers),
            handle.clone(),
            Dialect::for_release(&settings.release),
        );
        handle.desk.open(books);
        tokio::spawn(Arc::clone(&memory).spill());
        tokio::spawn(crate::memory::watch(memory, handle.clone()));
        let ticking = handle.clone();
        tokio::spawn(async move { ticking.ticks().measure().await });
        if let Some(server) = server {
            tokio::spawn(http::serve(server, handle.clone()));
        }
        tokio::spawn(listen(
            listener,
            Arc::clone(&settings),
            handle.clone(),
            Arc::clone(&interpreter),
        ));
        Ok(Self {
            settings,
            handle,
            interpreter,
        })
    }

    /// The way to the worker.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Registers and works until the worker leaves, then tells the interpreter why.
    pub async fn run(self) {
        let serving = scheduler::serve(
            self.settings,
            self.handle.clone(),
            Arc::clone(&self.interpreter),
        );
        // A worker that can not reach its scheduler can be told to leave as well.
        let reason = tokio::select! {
            reason = serving => reason,
            reason = abandoned(&self.handle) => Ok(reason),
        };
        let reason = reason.unwrap_or_else(|error| {
            tracing::error!("{error}");
            format!("error: {error}")
        });
        self.handle.close(&reason);
        self.interpreter.closed(reason);
    }
}

/// The stream is given a moment to end in order before it is left alone.
async fn abandoned(handle: &Handle) -> String {
    let reason = handle.closing().await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    reason
}

/// The first port that is free, and its number.
async fn bind(settings: &Settings) -> Result<(TcpListener, u16), StartError> {
    let ports = match settings.ports.as_slice() {
        [] => &[0],
        ports => ports,
    };
    let host = bracketed(&settings.listen_host);
    let mut failed = None;
    for port in ports {
        let address = format!("{host}:{port}");
        let bound = TcpListener::bind(&address).await;
        match bound.and_then(|listener| Ok((listener.local_addr()?.port(), listener))) {
            Ok((port, listener)) => return Ok((listener, port)),
            Err(source) => failed = Some(StartError::Listen { address, source }),
        }
    }
    Err(failed.unwrap_or(StartError::Listen {
        address: host,
        source: std::io::ErrorKind::AddrNotAvailable.into(),
    }))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}
