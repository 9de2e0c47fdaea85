//! The data behind the live pages: snapshots of the cluster as plain data, by topic. The pages are one
//! user of it; `/json/feed.json` and the web socket `/status/ws` give it to any other program.
//!
//! To add something to a page: a field here, its value in `live_feed.rs`, its drawing in `assets/`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::watch::Ran;

/// Prefixes that are told one by one; the others are only counted.
pub(super) const MAX_PREFIXES: usize = 200;

/// What a reader wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topics {
    /// The scheduler's process.
    pub scheduler: bool,
    /// Workers.
    pub workers: bool,
    /// Tasks by prefix and state.
    pub prefixes: bool,
    /// Tasks as they end (web socket only).
    pub ran: bool,
}

impl Topics {
    /// Everything.
    pub const ALL: Self = Self {
        scheduler: true,
        workers: true,
        prefixes: true,
        ran: true,
    };

    /// Names with commas between; None: everything. Unknown names are passed over, so that newer pages
    /// work with older schedulers.
    #[must_use]
    pub fn parse(names: Option<&str>) -> Self {
        let Some(names) = names else { return Self::ALL };
        let has = |topic: &str| names.split(',').any(|name| name.trim() == topic);
        Self {
            scheduler: has("scheduler"),
            workers: has("workers"),
            prefixes: has("prefixes"),
            ran: has("ran"),
        }
    }
}

/// The cluster at a moment. Topics that were not asked for are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// Seconds since 1970.
    pub time: f64,
    /// The scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<SchedulerFigures>,
    /// Workers in order of registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<Vec<WorkerFigures>>,
    /// Tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskFigures>,
}

/// The scheduler's process.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SchedulerFigures {
    /// Address told to peers.
    pub address: String,
    /// `Scheduler-<uuid>`.
    pub id: String,
    /// Seconds since 1970.
    pub started: f64,
    /// Connected clients.
    pub clients: usize,
    /// Seconds of CPU so far.
    pub cpu_seconds: f64,
    /// Bytes of resident memory.
    pub memory: u64,
    /// Open files and connections.
    pub open_fds: u64,
    /// Messages that wait for the core.
    pub pending_events: usize,
    /// Seconds of work that wait on workers.
    pub occupancy: f64,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WorkerFigures {
    /// Contact address.
    pub address: String,
    /// Name.
    pub name: String,
    /// Host.
    pub host: String,
    /// As in stock: `running`, `paused`, `closing_gracefully`, …
    pub status: &'static str,
    /// Threads.
    pub nthreads: u32,
    /// Percent of one CPU.
    pub cpu: f64,
    /// Memory.
    pub memory: MemoryFigures,
    /// Tasks sent to it.
    pub processing: usize,
    /// Results it holds.
    pub in_memory: usize,
    /// Seconds of work it has.
    pub occupancy: f64,
    /// Seconds since it was heard of.
    pub last_seen: f64,
}

/// Memory of a worker in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryFigures {
    /// Of its process.
    pub process: u64,
    /// Of this, results.
    pub managed: u64,
    /// Of this, other things that have been there for long.
    pub unmanaged_old: u64,
    /// Of this, other things that came lately.
    pub unmanaged_recent: u64,
    /// Results on disk.
    pub spilled: u64,
    /// Most it may use; 0: no limit.
    pub limit: u64,
}

/// Tasks by state and prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TaskFigures {
    /// Of all tasks.
    pub states: BTreeMap<&'static str, u64>,
    /// Those with most tasks first.
    pub prefixes: Vec<PrefixProgress>,
    /// Prefixes that are left out.
    pub more_prefixes: usize,
}

/// Tasks of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PrefixProgress {
    /// Its name.
    pub name: String,
    /// Tasks by state; states without any are left out.
    pub states: BTreeMap<&'static str, u64>,
    /// Seconds a task takes, if one ended yet.
    pub duration_average: Option<f64>,
    /// Bytes of results in memory.
    pub nbytes: i64,
}

/// One message of the web socket.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Update<'a> {
    #[serde(flatten)]
    pub(super) snapshot: &'a Snapshot,
    /// Tasks that ended since the last message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ran: Option<&'a [Arc<Ran>]>,
    /// Tasks that ended and could not be told, because there were too many.
    pub(super) lost: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_chosen_by_name() {
        assert_eq!(Topics::parse(None), Topics::ALL);
        let some = Topics::parse(Some("workers, ran,later"));
        assert!(some.workers && some.ran && !some.scheduler && !some.prefixes);
    }

    #[test]
    fn what_was_not_asked_for_is_left_out() {
        let text = serde_json::to_string(&Snapshot::default()).expect("JSON");
        assert_eq!(text, "{\"time\":0.0}");
    }
}
