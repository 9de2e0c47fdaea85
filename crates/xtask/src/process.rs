//! Children that never outlive us: each leads a process group of its own, which is ended as a whole.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::workspace;

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(20);
/// What a child gets between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// Turns Ctrl-C and SIGTERM into a flag, so that children are ended before we are.
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the two signals only set the flag.
    pub(crate) fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ] {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .context("cannot handle signals")?;
        }
        Ok(Self(flag))
    }

    /// Whether a person asked to stop.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error if a person asked to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_set() {
            bail!("stopped by a signal");
        }
        Ok(())
    }
}

/// A child that leads its own process group; dropping it ends the group.
pub(crate) struct Child {
    name: String,
    log: Option<PathBuf>,
    child: std::process::Child,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts a command with its output in a log file.
    pub(crate) fn spawn_logged(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        if let Some(dir) = log.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file);
        let mut started = Self::spawn(name, command)?;
        started.log = Some(log.to_path_buf());
        Ok(started)
    }

    /// Starts a command whose output goes where the caller has set it.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}: {}", workspace::shown(command)))?;
        Ok(Self {
            name: name.to_owned(),
            log: None,
            child,
            ended: None,
        })
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to a pipe, if the caller asked for one.
    pub(crate) fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// The status, once it has ended.
    pub(crate) fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// An error, with the end of its log, if it is not running any more.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.try_wait()? {
            bail!("{} ended with {status}{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Waits for the end; a signal to us ends the child.
    pub(crate) fn wait(&mut self, interrupt: &Interrupt) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            interrupt.check()?;
            std::thread::sleep(POLL);
        }
    }

    /// Asks the group to end, and ends it after a grace. Returns how the child ended.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        if self.try_wait()?.is_none() {
            self.signal(Signal::SIGTERM);
            let asked = Instant::now();
            while self.try_wait()?.is_none() && asked.elapsed() < GRACE {
                std::thread::sleep(POLL);
            }
        }
        // Also when the leader has ended by itself: its own children may be left.
        self.signal(Signal::SIGKILL);
        if self.ended.is_none() {
            self.ended = Some(self.child.wait()?);
        }
        self.ended
            .context("a child that was waited for has a status")
    }

    /// The group may be gone already, which is what we want.
    fn signal(&self, signal: Signal) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(id), signal);
        }
    }

    /// Whether its log has this text.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        self.log
            .as_ref()
            .and_then(|log| fs::read_to_string(log).ok())
            .is_some_and(|log| log.contains(text))
    }

    fn log_tail(&self) -> String {
        let Some(log) = &self.log else {
            return String::new();
        };
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(12);
        format!(
            "; the end of {}:\n  {}",
            log.display(),
            lines[from..].join("\n  ")
        )
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Waits until a condition holds, looking at the children meanwhile.
pub(crate) fn wait_until(
    what: &str,
    limit: Duration,
    interrupt: &Interrupt,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    while !holds()? {
        interrupt.check()?;
        if started.elapsed() > limit {
            bail!("{what} did not happen within {} s", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
