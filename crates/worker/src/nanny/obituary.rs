//! Why a worker process ended, in words.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

/// Most keys that are told.
const MAX_KEYS: usize = 3;

/// Who has killed a process, as far as its nanny knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Killer {
    /// Not the nanny.
    #[default]
    SomebodyElse,
    /// The nanny, since it did not end in time.
    Impatience,
    /// The nanny, since it had too much memory.
    MemoryGuard,
}

/// What is known when a process has ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// Resident bytes when it was last looked at.
    pub(super) resident: Option<u64>,
    /// Bytes that it may have.
    pub(super) limit: Option<u64>,
    /// The kernel has killed something for want of memory since it started.
    pub(super) oom_kill: bool,
    /// Who has killed it.
    pub(super) killer: Killer,
    /// Keys of tasks that ran.
    pub(super) running: Vec<String>,
}

/// A sentence for the log, and for those whose tasks ran there.
pub(super) fn obituary(pid: u32, status: ExitStatus, evidence: &Evidence) -> String {
    let mut text = match status.code() {
        Some(code) => format!("Worker process {pid} exited with status {code}"),
        None => killed(pid, status, evidence),
    };
    let (told, more) = evidence
        .running
        .split_at(evidence.running.len().min(MAX_KEYS));
    if !told.is_empty() {
        let keys: Vec<String> = told.iter().map(|key| format!("'{key}'")).collect();
        text.push_str(&format!(" while running {}", keys.join(", ")));
        if !more.is_empty() {
            text.push_str(&format!(" and {} more", more.len()));
        }
    }
    if status.code().is_none()
        && let Some(resident) = evidence.resident
    {
        text.push_str(&format!("; it last had {}", Bytes(resident)));
        if let Some(limit) = evidence.limit {
            text.push_str(&format!(" of {}", Bytes(limit)));
        }
    }
    text
}

fn killed(pid: u32, status: ExitStatus, evidence: &Evidence) -> String {
    let number = status.signal().unwrap_or_default();
    let name = Signal::try_from(number).map_or("unknown", Signal::as_str);
    let mut text = format!("Worker process {pid} was killed by signal {number} ({name})");
    if number == Signal::SIGKILL as i32 {
        text.push_str(match (evidence.killer, evidence.oom_kill) {
            (Killer::Impatience, _) => ", by its nanny since it did not end in time",
            (Killer::MemoryGuard, _) => ", by its nanny since it exceeded its memory budget",
            (Killer::SomebodyElse, true) => ", most likely by the kernel for want of memory",
            (Killer::SomebodyElse, false) => ", not by its nanny",
        });
    }
    text
}

/// Bytes for people.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        let units = [("GiB", 30), ("MiB", 20), ("kiB", 10)];
        let fits = |(_, power): &&(&str, i32)| bytes >= 0.9 * 2f64.powi(*power);
        match units.iter().find(fits) {
            Some((unit, power)) => write!(out, "{:.2} {unit}", bytes / 2f64.powi(*power)),
            None => write!(out, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_honest() {
        let text = |raw, evidence: &Evidence| obituary(7, ExitStatus::from_raw(raw), evidence);
        let none = Evidence::default();
        assert_eq!(text(3 << 8, &none), "Worker process 7 exited with status 3");
        let busy = Evidence {
            running: ["x", "y", "z", "a", "b"].map(str::to_owned).to_vec(),
            ..none.clone()
        };
        assert_eq!(
            text(11, &busy),
            "Worker process 7 was killed by signal 11 (SIGSEGV) while running 'x', 'y', 'z' and 2 more"
        );
        assert_eq!(
            text(9, &none),
            "Worker process 7 was killed by signal 9 (SIGKILL), not by its nanny"
        );
        let starved = Evidence {
            resident: Some(8_482_560_410),
            limit: Some(8 << 30),
            oom_kill: true,
            killer: Killer::SomebodyElse,
            running: vec!["x".into()],
        };
        assert_eq!(
            text(9, &starved),
            "Worker process 7 was killed by signal 9 (SIGKILL), most likely by the kernel for want of \
             memory while running 'x'; it last had 7.90 GiB of 8.00 GiB"
        );
    }
}
