//! One local host process: a Python that runs our sources and talks through its stdin and stdout.
//!
//! What user code prints arrives on its stderr and goes to the log. The process is killed when the
//! value is dropped, and ends by itself when the scheduler dies.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::config::PythonHostConfig;
use super::error::HostError;
use super::frames::{FrameError, Message, read_message, write_message};
use super::source::{BOOTSTRAP, BUNDLE, LOADER};

/// Precedes the first message; what stands before it is noise of the environment's start-up hooks.
const GREETING: &[u8] = b"\nOXIDASK-PYTHON-HOST\n";
/// More noise than this before the greeting is garbage.
const MAX_NOISE: usize = 1 << 20;
/// Bytes of stderr kept for error messages.
const LAST_WORDS: usize = 2000;

/// What a Python told about itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Hello {
    /// Release of Python.
    pub python: String,
    /// Path of the interpreter.
    pub executable: String,
    /// Release of `distributed` installed there.
    pub distributed: Option<String>,
    /// Release of `dask` installed there.
    pub dask: Option<String>,
}

/// A running host.
pub(super) struct Process {
    /// For messages: `python 3.12.1, pid 123`.
    pub(super) name: String,
    /// What it told at the start.
    pub(super) hello: Hello,
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    stderr: LastWords,
    pub(super) max_answer: u64,
    /// Killed on drop.
    child: Child,
}

/// Which loop a process runs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// Graphs, one after the other.
    Serve,
    /// Functions, several at the same time.
    Session,
}

impl Role {
    fn module(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Session => "session",
        }
    }
}

impl Process {
    /// Starts a host and hears its hello.
    ///
    /// # Errors
    /// [`HostError::Start`].
    pub(super) async fn start(config: &PythonHostConfig, role: Role) -> Result<Self, HostError> {
        let python = interpreter(config);
        let failed = |reason: String| HostError::Start {
            python: python.display().to_string(),
            reason,
        };
        let mut child = spawn(&python, role, config)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("it has no pipes".to_owned()));
        };
        let pid = child.id().unwrap_or_default();
        let mut process = Self {
            name: format!("{}, pid {pid}", python.display()),
            hello: Hello {
                python: String::new(),
                executable: String::new(),
                distributed: None,
                dask: None,
            },
            stdin,
            stdout,
            stderr: LastWords::listen(stderr, pid),
            max_answer: config.max_answer,
            child,
        };
        match tokio::time::timeout(config.start_timeout, process.greet()).await {
            Ok(Ok(hello)) => {
                tracing::debug!(pid, python = %hello.executable, distributed = ?hello.distributed, "Python host started");
                process.hello = hello;
                Ok(process)
            }
            Ok(Err(error)) => {
                let words = process.last_words().await;
                Err(failed(if words.is_empty() {
                    error.to_string()
                } else {
                    words
                }))
            }
            Err(_) => Err(failed(format!(
                "it did not come up within {} s (oxidask.python-host.start-timeout)",
                config.start_timeout.as_secs_f64()
            ))),
        }
    }

    async fn greet(&mut self) -> Result<Hello, FrameError> {
        for text in [BUNDLE.name.as_str(), BUNDLE.json.as_str(), LOADER] {
            self.stdin.write_u64_le(text.len() as u64).await?;
            self.stdin.write_all(text.as_bytes()).await?;
        }
        self.stdin.flush().await?;
        skip_to_greeting(&mut self.stdout).await?;
        let request = Message {
            header: Bytes::from_static(b"\x82\xa2op\xa5hello\xa2id\x00"),
            frames: Vec::new(),
        };
        write_message(&mut self.stdin, &request).await?;
        let answer = read_message(&mut self.stdout, 1 << 20).await?;
        rmp_serde::from_slice(&answer.header)
            .map_err(|error| std::io::Error::other(error.to_string()).into())
    }

    /// Sends one request and waits for its answer. After an error the process must not be used
    /// again: its answer may still be on the way.
    ///
    /// # Errors
    /// [`HostError::Crashed`], [`HostError::TimedOut`], [`HostError::Garbage`].
    pub(super) async fn ask(
        &mut self,
        request: &Message,
        timeout: Duration,
    ) -> Result<Message, HostError> {
        let exchange = async {
            write_message(&mut self.stdin, request).await?;
            read_message(&mut self.stdout, self.max_answer).await
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let words = self.last_words().await;
                Err(HostError::pipe(&self.name, error, &words))
            }
            Err(_) => Err(HostError::TimedOut {
                host: self.name.clone(),
                timeout,
                setting: "timeout",
            }),
        }
    }

    /// Whether it still runs; a process that died while idle is no use.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its stderr, once a dying process has had a moment to write it.
    pub(super) async fn last_words(&mut self) -> String {
        let _ = tokio::time::timeout(Duration::from_secs(1), async {
            let _ = self.child.wait().await;
            self.stderr.finished().await;
        })
        .await;
        self.stderr.text()
    }
}

/// The interpreter to use: as configured, else the first on PATH.
pub(super) fn interpreter(config: &PythonHostConfig) -> PathBuf {
    if let Some(python) = &config.python {
        return python.clone();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["python3", "python"]
        .iter()
        .find_map(|name| {
            std::env::split_paths(&path)
                .map(|folder| folder.join(name))
                .find(|candidate| is_executable(candidate))
        })
        .unwrap_or_else(|| PathBuf::from("python3"))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Spawns from a thread that lives as long as the scheduler: the host asks the kernel to be killed
/// when its parent dies, and to the kernel the parent is the *thread* that spawned it.
async fn spawn(python: &Path, role: Role, config: &PythonHostConfig) -> std::io::Result<Child> {
    type Job = (
        Command,
        Handle,
        tokio::sync::oneshot::Sender<std::io::Result<Child>>,
    );
    static SPAWNER: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);
    let jobs = {
        let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
        match &*spawner {
            Some(jobs) => jobs.clone(),
            None => {
                let (jobs, mut queue) = mpsc::channel::<Job>(16);
                std::thread::Builder::new()
                    .name("python-spawner".to_owned())
                    .spawn(move || {
                        while let Some((mut command, runtime, answer)) = queue.blocking_recv() {
                            let _inside = runtime.enter();
                            let _ = answer.send(command.spawn());
                        }
                    })?;
                spawner.insert(jobs).clone()
            }
        }
    };
    let (answer, spawned) = tokio::sync::oneshot::channel();
    let command = command(python, role, config);
    jobs.send((command, Handle::current(), answer))
        .await
        .map_err(|_| std::io::Error::other("the spawning thread is gone"))?;
    spawned
        .await
        .map_err(|_| std::io::Error::other("the spawning thread is gone"))?
}

fn command(python: &Path, role: Role, config: &PythonHostConfig) -> Command {
    let mut command = Command::new(python);
    if !config.inherit.is_empty() {
        // What the command line says holds there too.
        command.env("DASK_INTERNAL_INHERIT_CONFIG", &config.inherit);
    }
    if !config.directory.as_os_str().is_empty() {
        command.env("OXIDASK_PYTHON_HOST_DIRECTORY", &config.directory);
    }
    command
        .arg("-c")
        .arg(BOOTSTRAP)
        .arg(role.module())
        .arg(std::process::id().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C in a terminal is for the scheduler, which ends its hosts itself.
        .process_group(0)
        .kill_on_drop(true);
    command
}

async fn skip_to_greeting(stdout: &mut (impl AsyncRead + Unpin)) -> Result<(), FrameError> {
    let mut seen = Vec::new();
    while !seen.ends_with(GREETING) {
        if seen.len() > MAX_NOISE {
            return Err(FrameError::TooLarge {
                announced: seen.len() as u64,
                limit: MAX_NOISE as u64,
            });
        }
        match stdout.read_u8().await {
            Ok(byte) => seen.push(byte),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(FrameError::Closed);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The end of a stderr, which is also logged line by line.
struct LastWords {
    text: Arc<Mutex<String>>,
    listener: tokio::task::JoinHandle<()>,
}

impl LastWords {
    fn listen(stderr: ChildStderr, pid: u32) -> Self {
        let text = Arc::<Mutex<String>>::default();
        let kept = Arc::clone(&text);
        let listener = tokio::spawn(async move {
            let mut lines = BufReader::new(stderr);
            let mut line = Vec::new();
            loop {
                line.clear();
                // Bounded: user code may write for ever without a line end.
                let read = (&mut lines).take(8192).read_until(b'\n', &mut line).await;
                if !matches!(read, Ok(1..)) {
                    break;
                }
                let printed = String::from_utf8_lossy(&line);
                tracing::info!(target: "distributed.python_host", pid, "{}", printed.trim_end());
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_str(&printed);
                let mut excess = kept.len().saturating_sub(LAST_WORDS);
                while !kept.is_char_boundary(excess) {
                    excess += 1;
                }
                kept.drain(..excess);
            }
        });
        Self { text, listener }
    }

    async fn finished(&mut self) {
        if !self.listener.is_finished() {
            let _ = (&mut self.listener).await;
        }
    }

    fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.trim().to_owned()
    }
}
