//! What threads of Python are given to do, and the interpreter as the host sees it: two queues.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_wire::error::DecodeError;
use oxidask_wire::{Generation, Message, Release, Value};
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_host::interpreter::{Answer, Change, Reply};
use oxidask_worker_host::{Execution, Failure, Interpreter, Loaded, Object};
use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::sync::oneshot;

use crate::buffers::Lent;
use crate::queue::Queue;
use crate::watch::Watch;

/// For the threads that run tasks.
pub(crate) enum Work {
    Run(Box<Execution>),
    /// A function without arguments that Python gave (`Executor.submit`).
    Call(Py<PyAny>),
}

/// For the threads that serve everything else.
pub(crate) enum Job {
    Load(Vec<Bytes>, Vec<Key>, oneshot::Sender<Loaded>),
    Dump(Vec<(Key, Object)>, Option<Value>, oneshot::Sender<Reply>),
    /// The answer comes through [`Jobs::answer`].
    Request(u64, Vec<Bytes>),
    Registered(u64, Vec<Bytes>),
    Stream(Vec<Bytes>),
    Transitions(Vec<Change>),
    /// Begins when the event loop has told of the changes before it.
    Begin(Box<Execution>),
    Pack(Object, oneshot::Sender<Result<Vec<Bytes>, String>>),
    Unpack(Vec<Bytes>, oneshot::Sender<Result<Opaque, Failure>>),
    /// With whether garbage is to be collected.
    Forget(Vec<Object>, bool, oneshot::Sender<()>),
    Release(Vec<Object>),
    /// Memory of an object that was sent.
    GiveBack(Lent),
    Closed(String),
    /// At what the threads for tasks are doing.
    Look,
}

/// Both queues, and the answers that Python owes.
pub(crate) struct Jobs {
    pub(crate) work: Queue<Work>,
    pub(crate) service: Queue<Job>,
    /// What has to be begun in the order in which it came: messages for handlers, transitions.
    pub(crate) ordered: Queue<Job>,
    pub(crate) watch: Watch,
    /// How the environment puts messages together.
    generation: Generation,
    owed: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    next: AtomicU64,
    /// Plugins have been told of changes of states.
    observed: AtomicBool,
}

impl Jobs {
    pub(crate) fn new(release: &Release) -> Self {
        Self {
            generation: Generation::of(release),
            work: Queue::new(),
            service: Queue::new(),
            ordered: Queue::new(),
            watch: Watch::default(),
            owed: Mutex::default(),
            next: AtomicU64::new(0),
            observed: AtomicBool::new(false),
        }
    }

    fn owe(&self) -> (u64, Answer<Reply>) {
        let (sender, answer) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.owed.lock().insert(number, sender);
        (number, answer)
    }

    /// Whether messages of Python's release have another form than those of newer ones.
    pub(crate) fn is_path_based(&self) -> bool {
        self.generation.is_path_based()
    }

    /// Frames for Python, in the form of its release.
    pub(crate) fn outward(&self, frames: Vec<Bytes>) -> Vec<Bytes> {
        if !self.is_path_based() {
            return frames;
        }
        let message = Message::from_frames(frames.clone().into_iter());
        let older = message.and_then(|message| message.frames_for(self.generation));
        older.unwrap_or_else(|error| {
            tracing::error!("a message has no form for this release: {error}");
            frames
        })
    }

    /// The message that Python put together.
    pub(crate) fn inward(&self, frames: Vec<Bytes>) -> Result<Message, DecodeError> {
        Message::from_frames_of(self.generation, frames, usize::MAX)
    }

    /// Python answers; a second answer to the same is ignored.
    pub(crate) fn answer(&self, number: u64, reply: Reply) {
        if let Some(owed) = self.owed.lock().remove(&number) {
            // Whoever asked may be gone.
            owed.send(reply).ok();
        }
    }

    /// Lets all threads end; what is owed will not be answered.
    pub(crate) fn close(&self) {
        self.work.close();
        self.service.close();
        self.ordered.close();
        self.owed.lock().clear();
    }
}

/// The interpreter for the host.
pub(crate) struct Threads(pub(crate) Arc<Jobs>);

impl Interpreter for Threads {
    fn execute(&self, execution: Execution) {
        let execution = Box::new(execution);
        if self.0.observed.load(Ordering::Relaxed) {
            self.0.ordered.push(Job::Begin(execution));
        } else {
            self.0.work.push(Work::Run(execution));
        }
    }

    fn load(&self, frames: Vec<Bytes>, keys: Vec<Key>) -> Answer<Loaded> {
        let (sender, answer) = oneshot::channel();
        let frames = self.0.outward(frames);
        self.0.service.push(Job::Load(frames, keys, sender));
        answer
    }

    fn dump(&self, data: Vec<(Key, Object)>, serializers: Option<Value>) -> Answer<Reply> {
        let (sender, answer) = oneshot::channel();
        self.0.service.push(Job::Dump(data, serializers, sender));
        answer
    }

    fn request(&self, frames: Vec<Bytes>) -> Answer<Reply> {
        let (number, answer) = self.0.owe();
        let frames = self.0.outward(frames);
        self.0.ordered.push(Job::Request(number, frames));
        answer
    }

    fn stream(&self, frames: Vec<Bytes>) {
        self.0.ordered.push(Job::Stream(self.0.outward(frames)));
    }

    fn registered(&self, frames: Vec<Bytes>) -> Answer<Reply> {
        let (number, answer) = self.0.owe();
        let frames = self.0.outward(frames);
        self.0.ordered.push(Job::Registered(number, frames));
        answer
    }

    fn transitions(&self, changes: Vec<Change>) {
        self.0.observed.store(true, Ordering::Relaxed);
        self.0.ordered.push(Job::Transitions(changes));
    }

    fn pack(&self, object: Object) -> Answer<Result<Vec<Bytes>, String>> {
        let (sender, answer) = oneshot::channel();
        self.0.service.push(Job::Pack(object, sender));
        answer
    }

    fn unpack(&self, frames: Vec<Bytes>) -> Answer<Result<Opaque, Failure>> {
        let (sender, answer) = oneshot::channel();
        self.0.service.push(Job::Unpack(frames, sender));
        answer
    }

    fn forget(&self, objects: Vec<Object>, collect: bool) -> Answer<()> {
        let (sender, answer) = oneshot::channel();
        self.0.service.push(Job::Forget(objects, collect, sender));
        answer
    }

    fn release(&self, objects: Vec<Object>) {
        self.0.service.push(Job::Release(objects));
    }

    fn closed(&self, reason: String) {
        self.0.service.push(Job::Closed(reason));
    }
}
