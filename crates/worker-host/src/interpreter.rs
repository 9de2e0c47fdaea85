//! What only Python can do, as the rest of the worker sees it. No method may block: each puts the work
//! in a queue of threads that hold the interpreter, and the answer comes later.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_wire::Value;
use oxidask_wire::message::order::OrderedSpec;
use oxidask_worker_core::ids::AttemptId;
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_core::story::Transition;
use tokio::sync::oneshot;

/// Something in the store.
#[derive(Clone, Debug)]
pub struct Object {
    /// The object itself, known to the interpreter only.
    pub value: Opaque,
    /// Printable name of its type.
    pub typename: Arc<str>,
    /// Its pickled type.
    pub type_pickle: Bytes,
}

/// One execution of a task.
#[derive(Clone, Debug)]
pub struct Execution {
    /// Names it in the answer.
    pub attempt: AttemptId,
    /// Which task.
    pub key: Key,
    /// What to run.
    pub spec: Arc<OrderedSpec>,
    /// What it needs.
    pub inputs: Vec<(Key, Object)>,
    /// Whether the result is an actor.
    pub actor: bool,
    /// As the client gave them: a map, or nil.
    pub annotations: Value,
    /// Since 2023.6.0; for the digests.
    pub span_id: Option<Arc<str>>,
}

/// How a task came to its end.
#[derive(Clone, Debug)]
pub struct Success {
    /// What it returned.
    pub value: Object,
    /// Size of that in bytes.
    pub nbytes: u64,
    /// When and where.
    pub run: Run,
}

/// When and where a task ran.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Run {
    /// Seconds since the epoch.
    pub start: f64,
    /// Seconds since the epoch.
    pub stop: f64,
    /// Python's name of the thread.
    pub thread: Option<u64>,
}

/// A change of a task's state.
#[derive(Clone, Debug)]
pub struct Change {
    /// What.
    pub transition: Transition,
    /// The task after it, as [`crate::introspection::task`] shows it; none if it is gone.
    pub task: Option<Value>,
}

/// An exception, as the environment's `error_message` describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Pickle of the exception.
    pub exception: Bytes,
    /// Pickle of the traceback; none when it is too long.
    pub traceback: Option<Bytes>,
    /// Its `repr`.
    pub exception_text: String,
    /// The printed traceback.
    pub traceback_text: String,
    /// None if it did not get as far as a thread.
    pub run: Option<Run>,
}

/// What became of data from a peer.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Objects and their sizes in bytes.
    pub data: Vec<(Key, Object, u64)>,
    /// What can not be read.
    pub failed: Vec<(Key, Failure)>,
}

/// Answers come when the work is done; a sender that is dropped means that the interpreter has ended.
pub type Answer<T> = oneshot::Receiver<T>;

/// Python.
pub trait Interpreter: Send + Sync + 'static {
    /// Runs a task on a thread; [`crate::Handle`] is told how it ended.
    fn execute(&self, execution: Execution);

    /// Rebuilds the data of an answer to `get_data` (frames of the environment's release).
    fn load(&self, frames: Vec<Bytes>, keys: Vec<Key>) -> Answer<Loaded>;

    /// Frames of the answer to `get_data`. `serializers`: what the caller can read, if it says so.
    fn dump(&self, data: Vec<(Key, Object)>, serializers: Option<Value>) -> Answer<Reply>;

    /// Answers a request; the frames are those of the request. No frames: nothing is to be said.
    fn request(&self, frames: Vec<Bytes>) -> Answer<Reply>;

    /// An operation on the scheduler's stream that is not the state machine's.
    fn stream(&self, frames: Vec<Bytes>);

    /// The scheduler let this worker in (the reply to `register-worker`); resolves when its plugins
    /// are set up.
    fn registered(&self, frames: Vec<Bytes>) -> Answer<Reply>;

    /// Tasks changed their states; only after [`crate::Handle::observe`]. From then on what is executed
    /// begins when the changes before it were told.
    fn transitions(&self, changes: Vec<Change>);

    /// Pickles an object for the disk (frames, of which Python may share the memory); an error is the
    /// printed traceback.
    fn pack(&self, object: Object) -> Answer<Result<Vec<Bytes>, String>>;

    /// The object of frames that [`Self::pack`] made.
    fn unpack(&self, frames: Vec<Bytes>) -> Answer<Result<Opaque, Failure>>;

    /// Lets go of objects and, if `collect`, collects garbage; the answer comes when it is done.
    fn forget(&self, objects: Vec<Object>, collect: bool) -> Answer<()>;

    /// Objects that nobody needs any more.
    fn release(&self, objects: Vec<Object>);

    /// The worker has left; nothing more will be asked.
    fn closed(&self, reason: String);
}

/// Frames of an answer; none if there is none.
pub type Reply = Option<Vec<Bytes>>;
