//! Why a worker process ended, in words.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

/// What the nanny knew of the process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    /// Resident bytes when it was last looked at.
    pub(super) resident: Option<u64>,
    /// Bytes that it may have.
    pub(super) limit: Option<u64>,
    /// The kernel has killed something for want of memory since it started.
    pub(super) oom_kill: bool,
    /// The nanny has killed it.
    pub(super) by_nanny: bool,
}

/// A sentence for the log.
pub(super) fn obituary(pid: u32, status: ExitStatus, evidence: Evidence) -> String {
    if let Some(code) = status.code() {
        return format!("Worker process {pid} exited with status {code}");
    }
    let number = status.signal().unwrap_or_default();
    let name = Signal::try_from(number).map_or("unknown", Signal::as_str);
    let mut text = format!("Worker process {pid} was killed by signal {number} ({name})");
    if number == Signal::SIGKILL as i32 && !evidence.by_nanny {
        text.push_str(match evidence.oom_kill {
            true => ", most likely by the kernel for want of memory",
            false => ", not by its nanny",
        });
    }
    if let Some(resident) = evidence.resident {
        text.push_str(&format!("; it last had {}", Bytes(resident)));
        if let Some(limit) = evidence.limit {
            text.push_str(&format!(" of {}", Bytes(limit)));
        }
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
        let text = |raw, evidence| obituary(7, ExitStatus::from_raw(raw), evidence);
        let none = Evidence::default();
        assert_eq!(text(3 << 8, none), "Worker process 7 exited with status 3");
        assert_eq!(
            text(11, none),
            "Worker process 7 was killed by signal 11 (SIGSEGV)"
        );
        assert_eq!(
            text(9, none),
            "Worker process 7 was killed by signal 9 (SIGKILL), not by its nanny"
        );
        let starved = Evidence {
            resident: Some(8_482_560_410),
            limit: Some(8 << 30),
            oom_kill: true,
            by_nanny: false,
        };
        assert_eq!(
            text(9, starved),
            "Worker process 7 was killed by signal 9 (SIGKILL), most likely by the kernel for want of \
             memory; it last had 7.90 GiB of 8.00 GiB"
        );
    }
}
