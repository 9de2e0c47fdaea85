//! Functions of clients (`run_on_scheduler`), `feed`, plugins and preloads: a long-lived Python that
//! they share, as they shared the scheduler's process in stock. It is shown a mirror of the state and
//! asks for what it looks at.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::delegate::BoxFuture;
use super::error::HostError;
use super::expand::check_status;
use super::frames::Message;
use super::link::Link;

/// What functions may ask about the scheduler; implemented over the core and the tables of peers.
pub trait StateSource: Send + Sync + 'static {
    /// Facts that never change: `address`, `id`, `started`.
    fn basics(&self) -> Value;

    /// Answers a question of the mirror: `what` it is, its fields, and frames. The answer is a map
    /// and frames, or a text that says why there is none.
    fn answer(
        &self,
        question: Question,
        session: SessionHandle,
    ) -> BoxFuture<'static, Result<(Value, Vec<Bytes>), String>>;

    /// Resolves when the plugins of the session `id` were told what has happened so far.
    fn settle(&self, _id: u64) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// The session `id` is gone; it observes nothing any more.
    fn session_ended(&self, id: u64);
}

/// A question of the mirror.
#[derive(Clone, Debug)]
pub struct Question {
    /// `snapshot`, `task`, `observe`, `rpc`.
    pub what: String,
    /// The whole header.
    pub fields: Value,
    /// What the header describes.
    pub frames: Vec<Bytes>,
    /// Release of the session.
    pub release: Release,
}

/// A function of a client, pickled in parts.
#[derive(Clone, Debug)]
pub struct Function {
    /// `function`, `args`, `kwargs`, `setup`, `teardown`: name and pickle.
    pub parts: Vec<(&'static str, Bytes)>,
    /// `wait` of `run_function`.
    pub wait: bool,
    /// Serialisers that the client can read.
    pub serializers: Option<Value>,
    /// `interval` of `feed`: seconds or text.
    pub interval: Value,
}

/// Lets others push messages into a session without keeping it alive.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    /// Tells sessions apart.
    pub id: u64,
    outgoing: mpsc::WeakUnboundedSender<Message>,
    unsent: Arc<AtomicUsize>,
    /// Messages with hooks that Python has not worked off yet.
    untaken: Arc<AtomicUsize>,
}

impl SessionHandle {
    /// Sends a message with hooks, which Python acknowledges when it is done with them.
    pub(super) fn push_hooks(&self, header: &Value, frames: Vec<Bytes>) {
        self.untaken.fetch_add(1, Ordering::Relaxed);
        self.push(header, frames);
    }

    /// Sends a message; false when the session is gone.
    pub(super) fn push(&self, header: &Value, frames: Vec<Bytes>) -> bool {
        let message = Message {
            header: header.encode(),
            frames,
        };
        self.unsent.fetch_add(1, Ordering::Relaxed);
        self.outgoing
            .upgrade()
            .is_some_and(|outgoing| outgoing.send(message).is_ok())
    }

    /// Whether Python is still busy with earlier hooks.
    pub(super) fn is_behind(&self) -> bool {
        self.outgoing.strong_count() > 0 && self.untaken.load(Ordering::Relaxed) > 2
    }
}

/// A running session.
pub(super) struct Session {
    /// Tells sessions apart.
    pub(super) id: u64,
    /// Whose clients' code it runs.
    pub(super) release: Release,
    outgoing: mpsc::UnboundedSender<Message>,
    unsent: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    next: AtomicU64,
    /// Ends with the session.
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    name: Arc<str>,
    closed: AtomicBool,
    /// Turns true when it is closed.
    ended: watch::Sender<bool>,
    /// It holds something that must not be lost while it is idle: plugins, preloads, what functions left.
    pinned: AtomicBool,
    requests: Mutex<HashMap<u64, mpsc::Sender<Result<Message, HostError>>>>,
    busy: Arc<AtomicUsize>,
    used: Mutex<std::time::Instant>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// Serves over `link`.
    pub(super) fn start(link: Link, release: Release, source: Arc<dyn StateSource>) -> Arc<Self> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let shared = Arc::new(Shared {
            name: Arc::clone(&link.name),
            closed: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            pinned: AtomicBool::new(false),
            requests: Mutex::default(),
            busy: Arc::clone(&link.busy),
            used: Mutex::new(std::time::Instant::now()),
        });
        let outgoing = link.outgoing.clone();
        let unsent = Arc::clone(&link.unsent);
        let handle = SessionHandle {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            outgoing: outgoing.downgrade(),
            unsent: Arc::clone(&link.unsent),
            untaken: Arc::default(),
        };
        let id = handle.id;
        let mut basics = source.basics();
        basics.insert("op", "basics");
        handle.push(&basics, Vec::new());
        let task = tokio::spawn(serve(link, release, source, handle, Arc::clone(&shared)));
        Arc::new(Self {
            id,
            release,
            outgoing,
            unsent,
            shared,
            next: AtomicU64::new(1),
            task,
        })
    }

    /// Whether it can take requests.
    pub(super) fn is_open(&self) -> bool {
        !self.shared.closed.load(Ordering::Acquire)
    }

    /// How long nothing has been under way.
    pub(super) fn idle_for(&self) -> Duration {
        if self.shared.busy.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.shared.used.lock().elapsed()
    }

    /// Whether it holds something that must not be lost.
    pub(super) fn is_pinned(&self) -> bool {
        self.shared.pinned.load(Ordering::Relaxed)
    }

    /// Turns true when the session ends, however that happens.
    pub(super) fn ended(&self) -> watch::Receiver<bool> {
        self.shared.ended.subscribe()
    }

    /// Puts a request that is answered once.
    ///
    /// # Errors
    /// When the session dies; [`HostError::TimedOut`], which ends nothing; [`HostError::Raised`].
    pub(super) async fn ask(
        self: &Arc<Self>,
        op: &str,
        mut fields: Value,
        frames: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<(Value, Vec<Bytes>), HostError> {
        fields.insert("op", op);
        let frames = frames.into_iter().map(|frame| ("", frame)).collect();
        let mut request = self.request(fields, frames)?;
        let answer = tokio::time::timeout(timeout, request.next()).await;
        let answer = answer.map_err(|_| HostError::TimedOut {
            host: self.shared.name.to_string(),
            timeout,
            setting: "function-timeout",
        })?;
        let answer = answer.ok_or(HostError::ShuttingDown)??;
        let answer = check_status(answer, &self.shared.name, self.release)?;
        let header = Value::decode(&answer.header)
            .map_err(|error| HostError::garbage(&self.shared.name, error))?;
        Ok((header, answer.frames))
    }

    /// The value of frames that this session sent.
    ///
    /// # Errors
    /// When they make no message.
    pub(super) fn decode(&self, frames: Vec<Bytes>) -> Result<Value, HostError> {
        decode(frames, &self.shared.name)
    }

    /// Runs a function; the message that is the answer to the client.
    ///
    /// # Errors
    /// When the session dies or takes too long, which ends it; [`HostError::Raised`] when the
    /// function cannot be loaded.
    pub(super) async fn run_function(
        self: &Arc<Self>,
        function: Function,
        timeout: Duration,
    ) -> Result<Value, HostError> {
        let mut header = self.header("run_function", &function);
        header.insert("wait", function.wait);
        let mut request = self.request(header, function.parts)?;
        match tokio::time::timeout(timeout, request.next()).await {
            Ok(Some(answer)) => {
                let answer = check_status(answer?, &self.shared.name, self.release)?;
                decode(answer.frames, &self.shared.name)
            }
            Ok(None) => Err(HostError::ShuttingDown),
            Err(_) => {
                // It may be stuck in foreign code; only its end frees the others.
                self.shared.closed.store(true, Ordering::Release);
                self.task.abort();
                Err(HostError::TimedOut {
                    host: self.shared.name.to_string(),
                    timeout,
                    setting: "function-timeout",
                })
            }
        }
    }

    /// Starts a feed.
    ///
    /// # Errors
    /// When the session is gone.
    pub(super) fn feed(self: &Arc<Self>, function: Function) -> Result<Feed, HostError> {
        let mut header = self.header("feed", &function);
        header.insert("interval", function.interval);
        Ok(Feed {
            request: self.request(header, function.parts)?,
            unacknowledged: false,
        })
    }

    fn header(&self, op: &str, function: &Function) -> Value {
        let names = function.parts.iter().map(|(name, _)| Value::from(*name));
        Value::map([
            ("op", Value::from(op)),
            ("parts", Value::array(names)),
            (
                "serializers",
                function.serializers.clone().unwrap_or_default(),
            ),
        ])
    }

    fn request(
        self: &Arc<Self>,
        mut header: Value,
        parts: Vec<(&'static str, Bytes)>,
    ) -> Result<Request, HostError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        header.insert("id", id);
        let (sender, answers) = mpsc::channel(16);
        self.shared.busy.fetch_add(1, Ordering::Relaxed);
        self.shared.requests.lock().insert(id, sender);
        // Counted down and taken out when dropped.
        let request = Request {
            session: Arc::clone(self),
            id,
            answers,
            done: false,
        };
        let message = Message {
            header: header.encode(),
            frames: parts.into_iter().map(|(_, pickle)| pickle).collect(),
        };
        self.unsent.fetch_add(1, Ordering::Relaxed);
        if self.outgoing.send(message).is_err() || !self.is_open() {
            return Err(HostError::Crashed {
                host: self.shared.name.to_string(),
                reason: "it ended before the request reached it".to_owned(),
            });
        }
        Ok(request)
    }
}

/// A request under way. Dropping it tells Python to stop.
struct Request {
    session: Arc<Session>,
    id: u64,
    answers: mpsc::Receiver<Result<Message, HostError>>,
    done: bool,
}

impl Request {
    async fn next(&mut self) -> Option<Result<Message, HostError>> {
        let answer = self.answers.recv().await;
        if let Some(Ok(message)) = &answer {
            self.done |= op_of(message).as_deref() == Some("reply");
        }
        answer
    }

    fn tell(&self, op: &str) {
        let header = Value::map([("op", Value::from(op)), ("id", self.id.into())]);
        self.session.unsent.fetch_add(1, Ordering::Relaxed);
        let _ = self.session.outgoing.send(Message {
            header: header.encode(),
            frames: Vec::new(),
        });
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.done {
            self.tell("stop");
        }
        self.session.shared.requests.lock().remove(&self.id);
        *self.session.shared.used.lock() = std::time::Instant::now();
        self.session.shared.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The values of a feed. Python waits with the next one until this one was taken.
pub struct Feed {
    request: Request,
    unacknowledged: bool,
}

impl Feed {
    /// The next value; nothing when the feed has ended.
    ///
    /// # Errors
    /// As [`Session::run_function`]; the error is the last item.
    pub async fn next(&mut self) -> Option<Result<Value, HostError>> {
        if self.request.done {
            return None;
        }
        if std::mem::take(&mut self.unacknowledged) {
            self.request.tell("ack");
        }
        let session = Arc::clone(&self.request.session);
        let name = &session.shared.name;
        let message = match self.request.next().await? {
            Ok(message) => message,
            Err(error) => {
                self.request.done = true;
                return Some(Err(error));
            }
        };
        if self.request.done {
            let end = check_status(message, name, session.release);
            return end.err().map(Err);
        }
        self.unacknowledged = true;
        let value = decode(message.frames, name).map(|mut m| m.remove("value").unwrap_or_default());
        Some(value)
    }
}

/// The value of a message that stock's encoder wrote.
pub(super) fn decode(frames: Vec<Bytes>, host: &str) -> Result<Value, HostError> {
    oxidask_wire::message::Message::from_frames(frames.into_iter())
        .and_then(|message| message.value())
        .map_err(|error| HostError::garbage(host, error))
}

fn op_of(message: &Message) -> Option<String> {
    let header = Value::decode(&message.header).ok()?;
    header.get("op").and_then(Value::as_str).map(str::to_owned)
}

async fn serve(
    mut link: Link,
    release: Release,
    source: Arc<dyn StateSource>,
    handle: SessionHandle,
    shared: Arc<Shared>,
) {
    // Also runs when the task is aborted.
    let _end = scopeguard(Arc::clone(&shared), Arc::clone(&source), handle.id);
    while let Some(message) = link.incoming.recv().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                let reason = match error {
                    HostError::Crashed { reason, .. } => reason,
                    error => error.to_string(),
                };
                fail_all(&shared, &reason);
                return;
            }
        };
        let Ok(header) = Value::decode(&message.header) else {
            fail_all(&shared, "it sent a header that is no msgpack");
            return;
        };
        let id = header.get("id").and_then(Value::as_u64);
        if header.get("op").and_then(Value::as_str) == Some("ask") {
            let question = Question {
                what: header
                    .get("what")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
                fields: header,
                frames: message.frames,
                release,
            };
            let answer = source.answer(question, handle.clone());
            let handle = handle.clone();
            tokio::spawn(async move {
                let (mut header, frames) = match answer.await {
                    Ok(answer) => answer,
                    Err(text) => (Value::map([("error", text)]), Vec::new()),
                };
                header.insert("op", "answer");
                header.insert("id", id.unwrap_or_default());
                handle.push(&header, frames);
            });
            continue;
        }
        match header.get("op").and_then(Value::as_str) {
            Some("taken") => {
                // Never below zero, whatever Python says.
                let _ = handle
                    .untaken
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                continue;
            }
            Some("pin") => {
                shared.pin(header.get("on").and_then(Value::as_bool) == Some(true));
                continue;
            }
            _ => {}
        }
        let waiting = id.and_then(|id| shared.requests.lock().get(&id).cloned());
        if let Some(waiting) = waiting {
            // Python waits for acknowledgements, so there is room.
            let _ = waiting.try_send(Ok(message));
        }
    }
}

impl Shared {
    /// A pinned session counts as busy: it does not end, and a peer is asked for its news.
    fn pin(&self, on: bool) {
        match (self.pinned.swap(on, Ordering::Relaxed), on) {
            (false, true) => drop(self.busy.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.busy.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

fn fail_all(shared: &Shared, reason: &str) {
    shared.closed.store(true, Ordering::Release);
    shared.ended.send_replace(true);
    for (_, waiting) in shared.requests.lock().drain() {
        let _ = waiting.try_send(Err(HostError::Crashed {
            host: shared.name.to_string(),
            reason: reason.to_owned(),
        }));
    }
}

/// Closes the session's books however its task ends.
fn scopeguard(shared: Arc<Shared>, source: Arc<dyn StateSource>, id: u64) -> impl Drop {
    struct End(Arc<Shared>, Arc<dyn StateSource>, u64);
    impl Drop for End {
        fn drop(&mut self) {
            fail_all(&self.0, "it was ended");
            self.1.session_ended(self.2);
        }
    }
    End(shared, source, id)
}
