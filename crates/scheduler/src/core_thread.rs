//! The one thread that owns the scheduler's state, and the handle everything else reaches it by.
//!
//! The thread drains its queue in batches, hands each event to the core, groups the effects by peer
//! and passes one list per peer to that peer's session. Timers of the core are served by the same
//! loop. Nothing here knows the wire.
//!
//! Bounds: the queue itself is unbounded so that nobody who holds the handle can dead-lock, but
//! sessions ask [`CoreHandle::ready`] before they read more from their peer, which holds back the
//! readers while more than [`MAX_PENDING_EVENTS`] events wait. What goes out is bounded per peer by
//! [`crate::outbox`].

mod delivery;
mod recorder;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::ids::{ClientId, WorkerId};
use oxidask_scheduler_core::{Effects, Scheduler};
use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::observers::ObserverSender;
use crate::outbox::{ClientOutbox, WorkerOutbox};
use crate::workers::WorkerTable;
use delivery::Delivery;
use oxidask_scheduler_core::recording::Entry;
pub use recorder::Recorder;

/// Events that may wait in the queue before sessions stop reading.
pub const MAX_PENDING_EVENTS: usize = 200_000;
/// Effects collected before they are handed to the sessions even if more events wait.
const MAX_BATCH_EFFECTS: usize = 16_384;
/// Commands taken before effects are handed on.
const MAX_BATCH_COMMANDS: usize = 512;

enum Command {
    Event(Event),
    Events(Vec<Event>),
    Apply(Vec<Event>, oneshot::Sender<()>),
    Query(Box<dyn FnOnce(&Scheduler) + Send>),
    Configure(Box<dyn FnOnce(&mut Scheduler) + Send>),
    AttachWorker(WorkerId, WorkerOutbox),
    AttachClient(ClientId, ClientOutbox),
    DetachClient(ClientId),
    Settle(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// The core thread has ended (the process is shutting down).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler is shutting down")]
pub struct CoreStopped;

/// Access to the state. Cheap to clone.
#[derive(Clone)]
pub struct CoreHandle {
    queue: mpsc::Sender<Command>,
    backlog: Arc<Backlog>,
}

#[derive(Default)]
struct Backlog {
    events: AtomicUsize,
    handled: AtomicU64,
    drained: Notify,
}

impl CoreHandle {
    /// Queues one event. Ignored when the core has stopped.
    pub fn send(&self, event: Event) {
        self.backlog.events.fetch_add(1, Ordering::Relaxed);
        let _ = self.queue.send(Command::Event(event));
    }

    /// Queues events that are handled one after the other, nothing in between.
    pub fn send_batch(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.backlog
            .events
            .fetch_add(events.len(), Ordering::Relaxed);
        let _ = self.queue.send(Command::Events(events));
    }

    /// Handles events and resolves when they were handled and their effects were passed to the
    /// sessions.
    ///
    /// # Errors
    /// When the core has stopped.
    pub async fn apply(&self, events: Vec<Event>) -> Result<(), CoreStopped> {
        self.backlog
            .events
            .fetch_add(events.len(), Ordering::Relaxed);
        let (done, handled) = oneshot::channel();
        let _ = self.queue.send(Command::Apply(events, done));
        handled.await.map_err(|_| CoreStopped)
    }

    /// Asks the state a question. The closure runs on the core thread, between events: it must be
    /// short and must not block.
    ///
    /// # Errors
    /// When the core has stopped, or the closure panicked (which is logged).
    pub async fn query<R, F>(&self, question: F) -> Result<R, CoreStopped>
    where
        F: FnOnce(&Scheduler) -> R + Send + 'static,
        R: Send + 'static,
    {
        let (answer, received) = oneshot::channel();
        let _ = self
            .queue
            .send(Command::Query(Box::new(move |state: &Scheduler| {
                let _ = answer.send(question(state));
            })));
        received.await.map_err(|_| CoreStopped)
    }

    /// Shows the state to a closure, between events, without waiting for it.
    pub fn inspect(&self, look: impl FnOnce(&Scheduler) + Send + 'static) {
        let _ = self.queue.send(Command::Query(Box::new(look)));
    }

    /// Changes something that is not an event: what is observed or recorded.
    ///
    /// # Errors
    /// When the core has stopped, or the closure panicked (which is logged).
    pub async fn configure<R, F>(&self, change: F) -> Result<R, CoreStopped>
    where
        F: FnOnce(&mut Scheduler) -> R + Send + 'static,
        R: Send + 'static,
    {
        let (answer, received) = oneshot::channel();
        let _ = self.queue.send(Command::Configure(Box::new(
            move |state: &mut Scheduler| {
                let _ = answer.send(change(state));
            },
        )));
        received.await.map_err(|_| CoreStopped)
    }

    /// Events that wait to be handled.
    #[must_use]
    pub fn pending_events(&self) -> usize {
        self.backlog.events.load(Ordering::Relaxed)
    }

    /// Events handled so far.
    #[must_use]
    pub fn events_handled(&self) -> u64 {
        self.backlog.handled.load(Ordering::Relaxed)
    }

    /// Waits until the core has caught up far enough that a session may read on.
    pub async fn ready(&self) {
        while self.backlog.events.load(Ordering::Relaxed) > MAX_PENDING_EVENTS {
            let drained = self.backlog.drained.notified();
            if self.backlog.events.load(Ordering::Relaxed) > MAX_PENDING_EVENTS {
                drained.await;
            }
        }
    }

    /// Where effects for this worker go. Must precede its `AddWorker` event; ends by itself when
    /// the core removes the worker.
    pub fn attach_worker(&self, worker: WorkerId, outbox: WorkerOutbox) {
        let _ = self.queue.send(Command::AttachWorker(worker, outbox));
    }

    /// Where effects for this client go. Clients without an outbox (pseudo clients such as
    /// `queue-x`) are told nothing.
    pub fn attach_client(&self, client: ClientId, outbox: ClientOutbox) {
        let _ = self.queue.send(Command::AttachClient(client, outbox));
    }

    /// Forgets where effects for this client go.
    pub fn detach_client(&self, client: ClientId) {
        let _ = self.queue.send(Command::DetachClient(client));
    }

    /// Resolves when what was queued so far was handled, and observers were told of it.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        let _ = self.queue.send(Command::Settle(done));
        // An error means that the scheduler ends.
        let _ = settled.await;
    }

    /// Ends the thread after everything queued so far.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        let _ = self.queue.send(Command::Stop(done));
        let _ = stopped.await;
    }
}

/// Starts the thread.
///
/// # Errors
/// When the operating system gives no thread.
pub fn start(
    config: CoreConfig,
    workers: Arc<WorkerTable>,
    observers: ObserverSender,
    recorder: Option<Recorder>,
) -> std::io::Result<CoreHandle> {
    // Sessions hold themselves back (`CoreHandle::ready`); a bound here could dead-lock them.
    #[allow(clippy::disallowed_methods)]
    let (queue, commands) = mpsc::channel();
    let backlog = Arc::<Backlog>::default();
    let handle = CoreHandle {
        queue,
        backlog: Arc::clone(&backlog),
    };
    let core = CoreThread {
        state: Scheduler::new(config),
        effects: Effects::new(),
        delivery: Delivery::new(workers, observers),
        applied: Vec::new(),
        settling: Vec::new(),
        recorder,
        commands,
        backlog,
    };
    thread::Builder::new()
        .name("core".to_owned())
        // Deep graphs are walked without recursion, so the default would do; the margin is free.
        .stack_size(16 << 20)
        .spawn(move || core.run())?;
    Ok(handle)
}

struct CoreThread {
    state: Scheduler,
    effects: Effects,
    delivery: Delivery,
    applied: Vec<oneshot::Sender<()>>,
    settling: Vec<oneshot::Sender<()>>,
    recorder: Option<Recorder>,
    commands: mpsc::Receiver<Command>,
    backlog: Arc<Backlog>,
}

enum Next {
    Command(Command),
    Timer,
    Closed,
}

impl CoreThread {
    fn run(mut self) {
        loop {
            let mut stopped = None;
            match self.next() {
                Next::Closed => return,
                Next::Timer => self.timeout(),
                Next::Command(first) => {
                    stopped = self.execute(first);
                    let mut taken = 1;
                    while stopped.is_none()
                        && taken < MAX_BATCH_COMMANDS
                        && self.effects.len() < MAX_BATCH_EFFECTS
                    {
                        let Ok(command) = self.commands.try_recv() else {
                            break;
                        };
                        stopped = self.execute(command);
                        taken += 1;
                    }
                    if self
                        .state
                        .poll_timeout()
                        .is_some_and(|when| when.since(clock::now()) <= 0.0)
                    {
                        self.timeout();
                    }
                }
            }
            self.flush();
            if let Some(done) = stopped {
                // The recording is complete before anybody hears of the end.
                self.recorder = None;
                let _ = done.send(());
                return;
            }
        }
    }

    fn next(&self) -> Next {
        let Some(when) = self.state.poll_timeout() else {
            return match self.commands.recv() {
                Ok(command) => Next::Command(command),
                Err(mpsc::RecvError) => Next::Closed,
            };
        };
        match self.commands.recv_timeout(clock::until(when)) {
            Ok(command) => Next::Command(command),
            Err(mpsc::RecvTimeoutError::Timeout) => Next::Timer,
            Err(mpsc::RecvTimeoutError::Disconnected) => Next::Closed,
        }
    }

    fn execute(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Event(event) => self.handle(event),
            Command::Events(events) => events.into_iter().for_each(|event| self.handle(event)),
            Command::Apply(events, done) => {
                events.into_iter().for_each(|event| self.handle(event));
                self.applied.push(done);
            }
            Command::Query(question) => {
                guarded("a query", || question(&self.state));
            }
            Command::Configure(change) => {
                guarded("a change of settings", || change(&mut self.state));
            }
            Command::Settle(done) => self.settling.push(done),
            Command::AttachWorker(worker, outbox) => self.delivery.attach_worker(worker, outbox),
            Command::AttachClient(client, outbox) => self.delivery.attach_client(client, outbox),
            Command::DetachClient(client) => self.delivery.detach_client(client),
            Command::Stop(done) => return Some(done),
        }
        None
    }

    fn handle(&mut self, event: Event) {
        let now = clock::now();
        let before = self.record(|| Entry::Event(now, event.clone()));
        let (state, effects) = (&mut self.state, &mut self.effects);
        guarded("an event", || state.handle(now, event, effects));
        self.backlog.handled.fetch_add(1, Ordering::Relaxed);
        self.record_outcome(before);
        let before = self.backlog.events.fetch_sub(1, Ordering::Relaxed);
        if before == MAX_PENDING_EVENTS {
            self.backlog.drained.notify_waiters();
        }
    }

    fn timeout(&mut self) {
        let now = clock::now();
        let before = self.record(|| Entry::Timeout(now));
        let (state, effects) = (&mut self.state, &mut self.effects);
        guarded("a timer", || state.handle_timeout(now, effects));
        self.record_outcome(before);
    }

    /// Records a call of the core; the number of effects before it.
    fn record(&mut self, entry: impl FnOnce() -> Entry) -> usize {
        if let Some(recorder) = &mut self.recorder {
            recorder.entry(&entry());
        }
        self.effects.len()
    }

    fn record_outcome(&mut self, before: usize) {
        if let Some(recorder) = &mut self.recorder {
            let new = self.effects.get(before..).unwrap_or_default();
            recorder.outcome(&self.state, new);
        }
    }

    fn flush(&mut self) {
        self.delivery.deliver(&mut self.effects);
        for done in self.settling.drain(..) {
            self.delivery.settled(done);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.tick();
        }
        for done in self.applied.drain(..) {
            let _ = done.send(());
        }
    }
}

/// Keeps a bug in one step from ending the process: it is logged with its message, and the next
/// event is served.
fn guarded(what: &str, step: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(step)) {
        let message = panic_message(&*panic);
        tracing::error!("bug: {what} panicked on the core thread: {message}");
    }
}

/// The text of a panic.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
