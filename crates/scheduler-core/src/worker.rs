//! What is known of a worker.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a worker tells when it registers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Contact address; the identity of the worker for all peers.
    pub address: Arc<str>,
    /// Host part of the address.
    pub host: Arc<str>,
    /// Its name as text (numeric names compare by their text).
    pub name: Arc<str>,
    /// Threads for tasks, ≥ 1.
    pub nthreads: u32,
    /// Bytes; 0 means no limit.
    pub memory_limit: u64,
    /// Abstract resources it offers.
    pub resources: Vec<(Arc<str>, f64)>,
    /// Process id.
    pub pid: u32,
    /// `Worker-<uuid>` (since 2022.6.1), else empty.
    pub server_id: Arc<str>,
    /// Where it spills.
    pub local_directory: Arc<str>,
    /// Address of its nanny, if it has one.
    pub nanny: Option<Arc<str>>,
    /// Release of `distributed` it runs. A task goes only to workers of a release that can run it;
    /// equal text means compatible, empty means any.
    pub release: Arc<str>,
    /// Status at registration; [`WorkerStatus::Running`] for releases that do not tell (< 2021.10.0).
    pub status: WorkerStatus,
    /// Figures at registration.
    pub metrics: WorkerMetrics,
}

/// Life of a worker as far as the scheduler cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WorkerStatus {
    /// Registered, not ready for tasks yet.
    #[default]
    Init,
    /// Takes tasks.
    Running,
    /// Out of memory for the moment: keeps what it has, takes nothing new.
    Paused,
    /// Handing over its data before it leaves.
    ClosingGracefully,
    /// Leaving.
    Closing,
    /// Gone.
    Closed,
}

impl WorkerStatus {
    /// Stock's spelling, e.g. `closing_gracefully`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ClosingGracefully => "closing_gracefully",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }

    /// Reads stock's spelling.
    pub fn parse(s: &str) -> Option<Self> {
        // What a worker that registers calls itself in some releases before 2022.2.0.
        if matches!(s, "undefined" | "created" | "starting") {
            return Some(Self::Init);
        }
        [
            Self::Init,
            Self::Running,
            Self::Paused,
            Self::ClosingGracefully,
            Self::Closing,
            Self::Closed,
        ]
        .into_iter()
        .find(|status| status.as_str() == s)
    }
}

/// The part of a heartbeat's `metrics` that decides something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerMetrics {
    /// Resident memory of the process in bytes.
    pub memory: u64,
    /// Bytes of results in memory as the worker counts them (since 2022.10.0).
    pub managed_bytes: u64,
    /// Bytes spilled, as measured in memory.
    pub spilled_memory: u64,
    /// Bytes spilled, as measured on disk.
    pub spilled_disk: u64,
    /// Total bandwidth seen by the worker in bytes per second.
    pub bandwidth: Option<f64>,
    /// Seconds since the epoch on the worker's clock when it measured.
    pub time: f64,
}

/// Memory of a worker, or of all of them, in bytes. The parts always add up:
/// `process == managed + unmanaged_old + unmanaged_recent()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    /// Resident memory.
    pub process: u64,
    /// Memory beyond results that has been there for long.
    pub unmanaged_old: u64,
    /// Results in memory.
    pub managed: u64,
    /// Results on disk.
    pub spilled: u64,
}

impl MemoryState {
    /// Figures from different moments and of doubtful precision, made to add up.
    pub fn new(process: u64, unmanaged_old: u64, managed: u64, spilled: u64) -> Self {
        let managed = managed.min(process);
        Self {
            process,
            unmanaged_old: unmanaged_old.min(process - managed),
            managed,
            spilled,
        }
    }

    /// Of several workers together.
    pub fn sum(states: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        for s in states {
            sum.process = sum.process.saturating_add(s.process);
            sum.unmanaged_old = sum.unmanaged_old.saturating_add(s.unmanaged_old);
            sum.managed = sum.managed.saturating_add(s.managed);
            sum.spilled = sum.spilled.saturating_add(s.spilled);
        }
        Self::new(sum.process, sum.unmanaged_old, sum.managed, sum.spilled)
    }

    /// Results in memory and on disk.
    pub fn managed_total(&self) -> u64 {
        self.managed.saturating_add(self.spilled)
    }

    /// Process memory that is not results.
    pub fn unmanaged(&self) -> u64 {
        self.process - self.managed
    }

    /// The part of it that is new.
    pub fn unmanaged_recent(&self) -> u64 {
        self.process - self.managed - self.unmanaged_old
    }

    /// What will stay if everything new goes away again.
    pub fn optimistic(&self) -> u64 {
        self.managed + self.unmanaged_old
    }

    /// The figure chosen by configuration.
    pub fn get(&self, measure: crate::config::MemoryMeasure) -> u64 {
        use crate::config::MemoryMeasure as M;
        match measure {
            M::Process => self.process,
            M::Optimistic => self.optimistic(),
            M::Managed => self.managed,
            M::ManagedTotal => self.managed_total(),
            M::Spilled => self.spilled,
            M::Unmanaged => self.unmanaged(),
            M::UnmanagedOld => self.unmanaged_old,
            M::UnmanagedRecent => self.unmanaged_recent(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::WorkerStatus;

    #[test]
    fn statuses_before_the_first_are_read_as_init() {
        for name in ["undefined", "created", "starting", "init"] {
            assert_eq!(
                WorkerStatus::parse(name),
                Some(WorkerStatus::Init),
                "{name}"
            );
        }
        assert_eq!(WorkerStatus::parse("running"), Some(WorkerStatus::Running));
        assert_eq!(WorkerStatus::parse("sleeping"), None);
    }
}
