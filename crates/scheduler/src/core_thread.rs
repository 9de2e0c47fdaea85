//! The one thread that owns the scheduler's state, and the handle everything else reaches it by.
//!
//! The queue is drained in batches: each event is handed to the core, the effects are grouped by peer
//! and one list per peer is passed to that peer's session. Timers of the core are served by the same
//! loop. Nothing here knows the wire.
//!
//! Short events, of which a worker sends one per task, are handled by the session that queued them if
//! the state is free: two threads that wake each other for every task cost several times what the
//! event does. All else, and what is queued behind it, waits for the thread, so that large graphs and
//! questions never hold up connections. The order is that of the queue in any case.
//!
//! A thousand workers are ahead of the core by thousands of events. Who only looks at the state ([`CoreHandle::look`])
//! does not wait for what they have told: it overtakes their events, and all else that nobody was told is done. It
//! never overtakes what somebody has ordered and may already count on (`place_of`).
//!
//! Bounds: the queue itself is unbounded so that nobody who holds the handle can dead-lock, but
//! sessions ask [`CoreHandle::ready`] before they read more from their peer, which holds back the
//! readers while more than [`MAX_PENDING_EVENTS`] events wait. What goes out is bounded per peer by
//! [`crate::outbox`].

mod delivery;
#[cfg(test)]
mod order_tests;
mod queue;
mod recorder;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::ids::{ClientId, Timestamp, WorkerId};
use oxidask_scheduler_core::{Effects, Scheduler};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::observers::ObserverSender;
use crate::outbox::{ClientOutbox, WorkerOutbox};
use crate::slice;
use crate::workers::WorkerTable;
use delivery::Delivery;
use oxidask_scheduler_core::recording::Entry;
use queue::{Place, Queue};
pub use recorder::Recorder;

/// Events that may wait in the queue before sessions stop reading.
pub const MAX_PENDING_EVENTS: usize = 200_000;
/// Effects collected before they are handed to the sessions even if more events wait.
const MAX_BATCH_EFFECTS: usize = 16_384;
/// Commands taken before effects are handed on.
const MAX_BATCH_COMMANDS: usize = 512;
/// How long it may take until they are, unless one command takes longer.
const LONGEST_BATCH: Duration = Duration::from_millis(2);
/// Events of one message that a session handles itself.
const MAX_SHORT_EVENTS: usize = 32;
/// Commands that a session takes before it leaves the rest to the thread.
const MAX_HELPED_COMMANDS: usize = 32;

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

impl Command {
    /// Whether a session may handle it on its own thread.
    fn is_short(&self) -> bool {
        match self {
            Self::Event(event) => is_short(event),
            Self::Events(events) => events.len() <= MAX_SHORT_EVENTS && events.iter().all(is_short),
            _ => false,
        }
    }
}

/// Whether a look at the state may overtake it. Not what was ordered by somebody who does not wait for it and may look
/// next: only what workers tell unasked, and that clients come and go, of which nobody knows before the core says so.
fn place_of(event: &Event) -> Place {
    let is_report = is_short(event)
        || matches!(
            event,
            Event::Heartbeat { .. }
                | Event::AddKeys { .. }
                | Event::MissingData { .. }
                | Event::RequestRefreshWhoHas { .. }
                | Event::SpansMeasured { .. }
                | Event::AddClient { .. }
                | Event::RemoveClient { .. }
        );
    match is_report {
        true => Place::Last,
        false => Place::Firm,
    }
}

/// What workers tell about single tasks.
fn is_short(event: &Event) -> bool {
    matches!(
        event,
        Event::TaskFinished(_)
            | Event::TaskErred(_)
            | Event::WorkerSeen { .. }
            | Event::ReleaseWorkerData { .. }
            | Event::LongRunning { .. }
            | Event::Reschedule { .. }
            | Event::StealResponse { .. }
    )
}

/// The core thread has ended (the process is shutting down).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler is shutting down")]
pub struct CoreStopped;

/// Events on their way through the core.
#[derive(Debug)]
#[must_use = "somebody should hear when the core has stopped"]
pub struct Applied(oneshot::Receiver<()>);

impl Applied {
    /// Resolves when they were handled and their effects were passed to the sessions.
    ///
    /// # Errors
    /// When the core has stopped.
    pub async fn done(self) -> Result<(), CoreStopped> {
        self.0.await.map_err(|_| CoreStopped)
    }
}

/// Access to the state. Cheap to clone.
#[derive(Clone)]
pub struct CoreHandle {
    owner: Arc<Owner>,
    backlog: Arc<Backlog>,
}

/// Ends the thread with the last handle.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

/// What handles and the thread have in common.
struct Shared {
    queue: Queue<Command>,
    core: Mutex<Core>,
}

impl Shared {
    /// Handles short commands here and now, unless somebody else is at it, who then looks again.
    fn help(&self) {
        loop {
            let Some(mut core) = self.core.try_lock() else {
                return;
            };
            let rest = core.help(&self.queue);
            drop(core);
            match rest {
                Rest::ForThread => return self.queue.call(),
                Rest::Nothing if self.queue.is_empty() => return,
                Rest::Nothing => {}
            }
        }
    }

    /// The life of the thread.
    fn run(&self) {
        let mut longest = None;
        while self.queue.wait(longest) {
            loop {
                let mut core = self.core.lock();
                if let Some(done) = core.turn(&self.queue) {
                    // The recording is complete before anybody hears of the end.
                    core.recorder = None;
                    drop(core);
                    self.queue.close();
                    let _ = done.send(());
                    return;
                }
                let next = core.state.poll_timeout();
                core.thread_wakes = next;
                drop(core);
                longest = next.map(clock::until);
                if self.queue.is_empty() {
                    break;
                }
            }
        }
    }
}

/// What is left after a session helped.
enum Rest {
    Nothing,
    /// Something long, too much, or a timer before the thread would look.
    ForThread,
}

#[derive(Default)]
struct Backlog {
    events: AtomicUsize,
    handled: AtomicU64,
    drained: Notify,
}

impl CoreHandle {
    fn push(&self, command: Command) {
        let place = match &command {
            Command::Event(event) => place_of(event),
            Command::Events(events) => {
                let firm = events.iter().any(|event| place_of(event) == Place::Firm);
                if firm { Place::Firm } else { Place::Last }
            }
            Command::Configure(_) | Command::DetachClient(_) | Command::Stop(_) => Place::Firm,
            // Whoever cares waits until it is done.
            Command::Apply(..)
            | Command::Query(_)
            | Command::Settle(_)
            | Command::AttachWorker(..)
            | Command::AttachClient(..) => Place::Last,
        };
        self.push_to(command, place);
    }

    fn push_to(&self, command: Command, place: Place) {
        let Owner(shared) = &*self.owner;
        let short = command.is_short();
        shared.queue.push(command, place);
        if short {
            shared.help();
        } else {
            shared.queue.call();
        }
    }

    /// Queues one event. Ignored when the core has stopped.
    pub fn send(&self, event: Event) {
        self.backlog.events.fetch_add(1, Ordering::Relaxed);
        self.push(Command::Event(event));
    }

    /// Queues events that are handled one after the other, nothing in between.
    pub fn send_batch(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.backlog
            .events
            .fetch_add(events.len(), Ordering::Relaxed);
        self.push(Command::Events(events));
    }

    /// Handles events and resolves when they were handled and their effects were passed to the
    /// sessions.
    ///
    /// # Errors
    /// When the core has stopped.
    pub async fn apply(&self, events: Vec<Event>) -> Result<(), CoreStopped> {
        self.begin_to_apply(events).done().await
    }

    /// Like [`Self::apply`], for somebody who has something to do meanwhile.
    pub fn begin_to_apply(&self, events: Vec<Event>) -> Applied {
        self.backlog
            .events
            .fetch_add(events.len(), Ordering::Relaxed);
        let (done, handled) = oneshot::channel();
        self.push(Command::Apply(events, done));
        Applied(handled)
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
        self.ask(question, Place::Last).await
    }

    /// Like [`Self::query`], without waiting for what workers have told and is still queued: the state is seen as it is.
    /// For whoever only wants to know; what the caller has ordered before is done in any case.
    ///
    /// # Errors
    /// When the core has stopped, or the closure panicked (which is logged).
    pub async fn look<R, F>(&self, question: F) -> Result<R, CoreStopped>
    where
        F: FnOnce(&Scheduler) -> R + Send + 'static,
        R: Send + 'static,
    {
        self.ask(question, Place::Early).await
    }

    async fn ask<R, F>(&self, question: F, place: Place) -> Result<R, CoreStopped>
    where
        F: FnOnce(&Scheduler) -> R + Send + 'static,
        R: Send + 'static,
    {
        let (answer, received) = oneshot::channel();
        let asked = Command::Query(Box::new(move |state: &Scheduler| {
            let _ = answer.send(question(state));
        }));
        self.push_to(asked, place);
        received.await.map_err(|_| CoreStopped)
    }

    /// Shows the state to a closure, between events, without waiting for it.
    pub fn inspect(&self, look: impl FnOnce(&Scheduler) + Send + 'static) {
        self.push(Command::Query(Box::new(look)));
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
        self.push(Command::Configure(Box::new(
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
        self.push(Command::AttachWorker(worker, outbox));
    }

    /// Where effects for this client go. Clients without an outbox (pseudo clients such as
    /// `queue-x`) are told nothing.
    pub fn attach_client(&self, client: ClientId, outbox: ClientOutbox) {
        self.push(Command::AttachClient(client, outbox));
    }

    /// Forgets where effects for this client go.
    pub fn detach_client(&self, client: ClientId) {
        self.push(Command::DetachClient(client));
    }

    /// Resolves when what was queued so far was handled, and observers were told of it.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        self.push(Command::Settle(done));
        // An error means that the scheduler ends.
        let _ = settled.await;
    }

    /// Ends the thread after everything queued so far.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        self.push(Command::Stop(done));
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
    let backlog = Arc::<Backlog>::default();
    let shared = Arc::new(Shared {
        queue: Queue::new(),
        core: Mutex::new(Core {
            state: Scheduler::new(config),
            effects: Effects::new(),
            delivery: Delivery::new(workers, observers),
            applied: Vec::new(),
            settling: Vec::new(),
            recorder,
            thread_wakes: None,
            backlog: Arc::clone(&backlog),
        }),
    });
    let owner = Arc::new(Owner(Arc::clone(&shared)));
    thread::Builder::new()
        .name("core".to_owned())
        // Deep graphs are walked without recursion, so the default would do; the margin is free.
        .stack_size(16 << 20)
        .spawn(move || {
            slice::ask_for_short_turns();
            shared.run();
        })?;
    Ok(CoreHandle { owner, backlog })
}

/// The state and what belongs to it; used by one thread at a time.
struct Core {
    state: Scheduler,
    effects: Effects,
    delivery: Delivery,
    applied: Vec<oneshot::Sender<()>>,
    settling: Vec<oneshot::Sender<()>>,
    recorder: Option<Recorder>,
    /// When the thread looks at the timers next.
    thread_wakes: Option<Timestamp>,
    backlog: Arc<Backlog>,
}

impl Core {
    /// One batch of the thread; where to tell that it was the last.
    fn turn(&mut self, queue: &Queue<Command>) -> Option<oneshot::Sender<()>> {
        let mut stopped = None;
        let mut taken = 0;
        let began = Instant::now();
        while stopped.is_none()
            && taken < MAX_BATCH_COMMANDS
            && self.effects.len() < MAX_BATCH_EFFECTS
        {
            let Some(command) = queue.pop_if(|_| true) else {
                break;
            };
            stopped = self.execute(command);
            taken += 1;
            if began.elapsed() >= LONGEST_BATCH {
                break;
            }
        }
        self.serve_timers();
        self.flush(Some(queue));
        stopped
    }

    /// Handles short commands on the thread of a session.
    fn help(&mut self, queue: &Queue<Command>) -> Rest {
        // A recorder may wait for the disk.
        if self.recorder.is_some() {
            return Rest::ForThread;
        }
        let mut taken = 0;
        while taken < MAX_HELPED_COMMANDS && self.effects.len() < MAX_BATCH_EFFECTS {
            let Some(command) = queue.pop_if(Command::is_short) else {
                break;
            };
            self.execute(command);
            taken += 1;
        }
        if taken > 0 {
            self.serve_timers();
            self.flush(None);
        }
        let next = self.state.poll_timeout();
        let earlier = match (next, self.thread_wakes) {
            (Some(next), Some(wakes)) => next < wakes,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier || !queue.is_empty() {
            Rest::ForThread
        } else {
            Rest::Nothing
        }
    }

    fn serve_timers(&mut self) {
        let due = |when: Timestamp| when.since(clock::now()) <= 0.0;
        if self.state.poll_timeout().is_some_and(due) {
            self.timeout();
        }
    }

    fn execute(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Event(event) => self.handle(clock::now(), event),
            Command::Events(events) => self.handle_all(events),
            Command::Apply(events, done) => {
                self.handle_all(events);
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

    /// Events of one message happen at the same time, so that what follows from them has one name.
    fn handle_all(&mut self, events: Vec<Event>) {
        let now = clock::now();
        for event in events {
            self.handle(now, event);
        }
    }

    fn handle(&mut self, now: Timestamp, event: Event) {
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

    /// Hands the effects on; meanwhile the looks in the queue are served.
    fn flush(&mut self, queue: Option<&Queue<Command>>) {
        let state = &self.state;
        self.delivery.deliver(&mut self.effects, || {
            while let Some(Command::Query(look)) = queue.and_then(Queue::pop_early) {
                guarded("a query", || look(state));
            }
        });
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
