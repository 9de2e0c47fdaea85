//! The process that runs what only Python can: functions of `Client.run(nanny=True)`, nanny plugins and
//! preloads. It is started when it is first needed, shared by everything after that, and has no other
//! power over the nanny than the calls below. It may crash: the next need starts another one, in which the
//! plugins are set up again.
//!
//! Messages in both directions: number of frames, their lengths, frames; the first one is JSON.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use oxidask_supervision::channel;
use oxidask_wire::error::DecodeError;
use oxidask_wire::{Generation, Message, Value as WireValue};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::{Nanny, scheduler};
use crate::environment::Variables;
use crate::interpreter::Interpreter;

const SOURCE: &str = include_str!("../../python/nanny.py");
/// Most frames of a message of the process; it is ours, but runs code of users.
const MAX_FRAMES: u64 = 1 << 16;
/// Most bytes of a message.
const MAX_BYTES: u64 = 4 << 30;

/// Why Python did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PythonError {
    #[error("the nanny's Python process can not be started: {0}")]
    Start(std::io::Error),
    #[error("the nanny's Python process has ended")]
    Ended,
    #[error("the nanny's Python process answered nonsense: {0}")]
    Malformed(String),
    #[error("a message has no form for Python, or Python's has none: {0}")]
    Frames(#[from] DecodeError),
    #[error("{0}")]
    Raised(String),
}

/// The process, if there is one.
pub(super) struct Python {
    interpreter: Interpreter,
    running: AsyncMutex<Option<Arc<Running>>>,
    /// Messages that set plugins up, by the plugin's name where it was given.
    plugins: Mutex<Vec<(String, Message)>>,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

struct Running {
    writer: AsyncMutex<OwnedWriteHalf>,
    waiting: Waiting,
    last: AtomicU64,
    /// How the release of the environment puts messages together.
    generation: Generation,
    // Killed when it is dropped.
    _child: Child,
}

struct Answer {
    head: Head,
    frames: Vec<Bytes>,
}

/// The first frame of what the process says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    /// Of the request that is answered.
    id: Option<u64>,
    /// What went wrong, beside what users' code raises.
    error: Option<String>,
    /// The nanny's variables, if they have changed.
    env: Option<Variables>,
    /// Variables of the process that are not those it was started with.
    environ: Option<Variables>,
    /// New entries of `sys.path`.
    path: Option<Vec<String>>,
    /// A worker process with all this is wanted.
    restart: bool,
    /// Instead of an answer: what is to be done, and the number for its answer.
    call: Option<String>,
    number: u64,
    reason: Option<String>,
    timeout: Option<f64>,
    /// Of `log_event`.
    topic: Value,
    msg: Value,
}

impl Python {
    pub(super) fn new(interpreter: Interpreter) -> Self {
        Self {
            interpreter,
            running: AsyncMutex::default(),
            plugins: Mutex::default(),
        }
    }

    /// Ends the process.
    pub(super) fn end(&self) {
        if let Ok(mut running) = self.running.try_lock() {
            running.take();
        }
    }

    fn spawn(&self, nanny: &Nanny) -> std::io::Result<Arc<Running>> {
        let (ours, theirs) = channel::pair()?;
        let mut command = Command::from(self.interpreter.script(SOURCE));
        command
            .arg(nanny.description().to_string())
            .stdin(Stdio::from(theirs))
            .kill_on_drop(true);
        let child = command.spawn()?;
        let (read, write) = ours.into_split();
        let waiting = Waiting::default();
        tokio::spawn(listen(nanny.clone(), read, Arc::clone(&waiting)));
        Ok(Arc::new(Running {
            writer: AsyncMutex::new(write),
            waiting,
            last: AtomicU64::new(0),
            generation: Generation::of(&nanny.0.settings.release),
            _child: child,
        }))
    }
}

impl Running {
    /// Asks, and waits for the answer. `message`: what the question is about.
    async fn ask(&self, mut head: Value, message: Option<&Message>) -> Result<Answer, PythonError> {
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        head["id"] = id.into();
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().insert(id, sender);
        self.write(&head, message).await?;
        let answer = answer.await.map_err(|_| PythonError::Ended)?;
        match answer.head.error {
            Some(error) => Err(PythonError::Raised(error)),
            None => Ok(answer),
        }
    }

    async fn write(&self, head: &Value, message: Option<&Message>) -> Result<(), PythonError> {
        let head = head.to_string();
        let frames = message.map(|message| message.frames_for(self.generation));
        let frames = frames.transpose()?.unwrap_or_default();
        let mut prefix = Vec::with_capacity(8 * (2 + frames.len()) + head.len());
        prefix.extend_from_slice(&(frames.len() as u64 + 1).to_le_bytes());
        let lengths = std::iter::once(head.len()).chain(frames.iter().map(|frame| frame.len()));
        for length in lengths {
            prefix.extend_from_slice(&(length as u64).to_le_bytes());
        }
        prefix.extend_from_slice(head.as_bytes());
        let mut writer = self.writer.lock().await;
        let ended = |_| PythonError::Ended;
        writer.write_all(&prefix).await.map_err(ended)?;
        for frame in frames {
            writer.write_all(&frame).await.map_err(ended)?;
        }
        Ok(())
    }
}

/// Reads what the process says until it ends.
async fn listen(nanny: Nanny, read: OwnedReadHalf, waiting: Waiting) {
    let mut read = BufReader::new(read);
    loop {
        match answer(&mut read).await {
            Ok(answer) if answer.head.call.is_some() => {
                let nanny = nanny.clone();
                tokio::spawn(async move { nanny.called(answer.head).await });
            }
            Ok(answer) => {
                nanny.keep(&answer.head);
                let id = answer.head.id.unwrap_or(u64::MAX);
                let waits = waiting.lock().remove(&id);
                if let Some(waits) = waits {
                    // The caller may have gone.
                    waits.send(answer).ok();
                }
            }
            Err(error) => {
                if !nanny.is_closing() {
                    tracing::warn!("{error}");
                }
                // Whoever waits hears of it by the end of its channel.
                waiting.lock().clear();
                let mut running = nanny.0.python.running.lock().await;
                if running
                    .as_ref()
                    .is_some_and(|one| Arc::ptr_eq(&one.waiting, &waiting))
                {
                    running.take();
                }
                return;
            }
        }
    }
}

async fn answer(read: &mut BufReader<OwnedReadHalf>) -> Result<Answer, PythonError> {
    let ended = |_| PythonError::Ended;
    let count = read.read_u64_le().await.map_err(ended)?;
    if !(1..=MAX_FRAMES).contains(&count) {
        return Err(PythonError::Malformed(format!("{count} frames")));
    }
    let mut lengths = Vec::new();
    let mut total = 0u64;
    for _ in 0..count {
        let length = read.read_u64_le().await.map_err(ended)?;
        total = total.saturating_add(length);
        lengths.push(length);
    }
    if total > MAX_BYTES {
        return Err(PythonError::Malformed(format!("{total} bytes")));
    }
    let mut frames = Vec::new();
    for length in lengths {
        let mut frame = Vec::new();
        let mut bounded = (&mut *read).take(length);
        bounded.read_to_end(&mut frame).await.map_err(ended)?;
        if frame.len() as u64 != length {
            return Err(PythonError::Ended);
        }
        frames.push(Bytes::from(frame));
    }
    let head = serde_json::from_slice(&frames.remove(0));
    Ok(Answer {
        head: head.map_err(|error| PythonError::Malformed(error.to_string()))?,
        frames,
    })
}

impl Nanny {
    /// Has Python answer a request.
    pub(super) async fn ask_python(
        &self,
        what: &str,
        message: &Message,
    ) -> Result<Message, PythonError> {
        let python = self.python().await?;
        let head = json!({"op": what, "worker": self.worker_description()});
        let answer = python.ask(head, Some(message)).await?;
        self.remember(message);
        if answer.head.restart {
            self.restart_for_plugin().await;
        }
        let limit = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
        Ok(Message::from_frames_of(
            python.generation,
            answer.frames,
            limit,
        )?)
    }

    /// Sets up the plugins of a registration's answer.
    pub(super) async fn set_plugins_up(&self, reply: &Message) -> Result<(), PythonError> {
        let python = self.python().await?;
        let head = json!({"op": "plugins", "worker": self.worker_description()});
        python.ask(head, Some(reply)).await?;
        let plugins = &self.0.python.plugins;
        plugins.lock().push((String::new(), reply.clone()));
        Ok(())
    }

    /// Loads the modules of `--preload-nanny`.
    pub(super) async fn preload(&self) -> Result<(), PythonError> {
        self.python().await.map(drop)
    }

    /// Takes plugins and preloads down, if there are any.
    pub(super) async fn tear_down(&self, limit: Duration) {
        let running = self.0.python.running.lock().await.clone();
        if let Some(python) = running {
            let asked = python.ask(json!({"op": "tear_down"}), None);
            if tokio::time::timeout(limit, asked).await.is_err() {
                tracing::warn!("nanny plugins were not torn down within {limit:?}");
            }
        }
    }

    /// The process; started, with what it had before, if need be.
    async fn python(&self) -> Result<Arc<Running>, PythonError> {
        let mut running = self.0.python.running.lock().await;
        if let Some(running) = &*running {
            return Ok(Arc::clone(running));
        }
        let started = self.0.python.spawn(self).map_err(PythonError::Start)?;
        started.ask(json!({"op": "start"}), None).await?;
        let plugins = self.0.python.plugins.lock().clone();
        for (name, message) in plugins {
            let op = if name.is_empty() {
                "plugins"
            } else {
                "request"
            };
            let head = json!({"op": op, "worker": self.worker_description()});
            if let Err(error) = started.ask(head, Some(&message)).await {
                tracing::error!("plugin {name} was not set up again: {error}");
            }
        }
        *running = Some(Arc::clone(&started));
        Ok(started)
    }

    /// A plugin that was added belongs into the next process, too.
    fn remember(&self, message: &Message) {
        let Ok(value) = message.value() else { return };
        let text = |name| value.get(name).and_then(WireValue::as_str);
        let mut plugins = self.0.python.plugins.lock();
        match (text("op"), text("name")) {
            (Some("plugin_add"), name) => {
                let name = name.unwrap_or("without a name").to_owned();
                plugins.push((name, message.clone()));
            }
            (Some("plugin_remove"), Some(name)) => plugins.retain(|(known, _)| known != name),
            _ => {}
        }
    }

    /// What plugins changed.
    fn keep(&self, head: &Head) {
        let mut overlay = self.0.overlay.lock();
        for variables in [&head.environ, &head.env].into_iter().flatten() {
            overlay.environment.extend(variables.clone());
        }
        if let Some(path) = &head.path {
            overlay.sys_path.clone_from(path);
        }
    }

    async fn restart_for_plugin(&self) {
        let up = self.0.worker.lock().pid.is_some();
        if up {
            self.kill(Duration::from_secs(5), "nanny-plugin-restart", true)
                .await;
            if let Err(error) = self.instantiate().await {
                tracing::error!("no worker process after the plugin: {error}");
            }
        }
    }

    /// Code of users wants something of the nanny.
    async fn called(&self, head: Head) {
        let reason = head.reason.as_deref().unwrap_or("nanny-plugin").to_owned();
        let limit = head.timeout.unwrap_or(5.0).clamp(0.0, 3600.0);
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::from_secs(5));
        let result = match head.call.as_deref() {
            Some("restart") => {
                self.kill(limit, &reason, true).await;
                self.instantiate().await
            }
            Some("kill") => {
                self.kill(limit, &reason, false).await;
                Ok(())
            }
            Some("instantiate") => self.instantiate().await,
            Some("close_gracefully") => {
                self.close_gracefully(&reason);
                Ok(())
            }
            Some("close") => {
                self.close(limit, false, &reason).await;
                Ok(())
            }
            Some("log_event") => {
                let (topic, msg) = (wire_value(&head.topic), wire_value(&head.msg));
                scheduler::log_event(self, topic, msg).await;
                Ok(())
            }
            other => Err(format!("a nanny has no {other:?}")),
        };
        let running = self.0.python.running.lock().await.clone();
        if let Some(python) = running {
            let answer = json!({"op": "answer", "number": head.number, "error": result.err(),
                "worker": self.worker_description()});
            python.write(&answer, None).await.ok();
        }
    }

    /// What does not change.
    fn description(&self) -> Value {
        let settings = &self.0.settings;
        let tls: HashMap<_, _> = settings.tls.iter().cloned().collect();
        json!({
            "address": self.0.address,
            "id": self.0.id,
            "name": self.0.share.name,
            "nthreads": settings.common.nthreads,
            "memory_limit": settings.common.memory_limit,
            "scheduler": settings.common.scheduler.to_string(),
            "local_directory": settings.common.local_directory,
            "death_timeout": settings.death_timeout,
            "env": self.0.overlay.lock().environment,
            "preload": settings.preload,
            "preload_argv": settings.preload_argv,
            "tls": tls,
        })
    }

    /// What does.
    fn worker_description(&self) -> Value {
        let worker = self.0.worker.lock().clone();
        json!({
            "status": self.status().as_str(),
            "address": worker.address,
            "directory": worker.directory,
            "pid": worker.pid,
        })
    }

    /// The command of a worker process.
    pub(super) fn worker_command(&self) -> std::process::Command {
        let shared = &self.0;
        let overlay = shared.overlay.lock().clone();
        let mut plan = shared.settings.common.plan(&shared.share);
        plan.nanny = Some(shared.address.clone());
        plan.sys_path = overlay.sys_path;
        let mut command = shared.interpreter.worker(&shared.words, &plan);
        command.envs(overlay.environment);
        command
    }
}

fn wire_value(value: &Value) -> WireValue {
    match value {
        Value::Null => WireValue::Nil,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number.into(),
            (None, number) => number.unwrap_or_default().into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => WireValue::Array(items.iter().map(wire_value).collect()),
        Value::Object(map) => {
            let entries = map
                .iter()
                .map(|(name, value)| (name.as_str(), wire_value(value)));
            WireValue::map(entries)
        }
    }
}
