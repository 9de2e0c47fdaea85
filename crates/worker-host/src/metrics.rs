//! The metrics of a heartbeat, in stock's names, from the kernel and the state machine: no Python.

use std::fs;
use std::time::Instant;

use oxidask_wire::{Release, Value};
use oxidask_worker_core::Worker;
use oxidask_worker_core::task::TaskState;

use crate::clock::now;
use crate::digests::Taken;
use crate::host::Handle;
use crate::store::Sizes;
use crate::transfers::Transfers;

/// Ticks per second of the times in `/proc`; the same on every Linux.
const TICKS: f64 = 100.0;

/// What the state machine contributes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    task_counts: Vec<(&'static str, usize)>,
    managed_bytes: u64,
    transfer: Value,
    executing: usize,
    ready: usize,
    in_memory: usize,
    in_flight: usize,
}

impl Figures {
    pub(crate) fn of(core: &Worker) -> Self {
        let counts: Vec<_> = core.task_counts().collect();
        let count = |state| {
            let found = counts.iter().find(|(s, _)| *s == state);
            found.map_or(0, |(_, count)| *count)
        };
        let t = core.transfer_figures();
        Self {
            managed_bytes: core.nbytes(),
            executing: core.executing_count(),
            ready: core.ready_count(),
            in_memory: count(TaskState::Memory),
            in_flight: count(TaskState::Flight),
            transfer: Value::map([
                ("incoming_bytes", Value::from(t.incoming_bytes)),
                ("incoming_count", t.incoming_count.into()),
                ("incoming_count_total", t.incoming_count_total.into()),
                ("outgoing_bytes", t.outgoing_bytes.into()),
                ("outgoing_count", t.outgoing_count.into()),
                ("outgoing_count_total", t.outgoing_count_total.into()),
            ]),
            task_counts: counts
                .into_iter()
                .map(|(state, count)| (state.as_str(), count))
                .collect(),
        }
    }
}

/// What everything around the state machine contributes.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) sizes: Sizes,
    pub(crate) bandwidth: Value,
    pub(crate) digests: Value,
    pub(crate) event_loop_interval: f64,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            sizes: Sizes::default(),
            bandwidth: Transfers::default().take_bandwidth(),
            digests: Value::Map(Vec::new()),
            event_loop_interval: 0.02,
        }
    }
}

impl Surroundings {
    /// With sums that are taken away by that.
    pub(crate) fn take(handle: &Handle, digests: &Taken) -> Self {
        Self {
            sizes: handle.store().sizes(),
            bandwidth: handle.transfers().take_bandwidth(),
            digests: digests.squashed(),
            event_loop_interval: handle.ticks().interval(),
        }
    }
}

/// Measures the process; rates are since the last measurement.
#[derive(Debug)]
pub(crate) struct Meter {
    at: Instant,
    last: Counters,
}

/// Counters that only grow.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    cpu_seconds: f64,
    received: u64,
    sent: u64,
    read: u64,
    written: u64,
}

impl Counters {
    fn read() -> Self {
        let (received, sent) = net();
        let (read, written) = disk();
        Self {
            cpu_seconds: cpu_seconds().unwrap_or_default(),
            received,
            sent,
            read,
            written,
        }
    }
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            at: Instant::now(),
            last: Counters::read(),
        }
    }

    /// The metrics for a scheduler of this release.
    pub(crate) fn metrics(
        &mut self,
        figures: &Figures,
        around: Surroundings,
        release: &Release,
    ) -> Value {
        let (at, counters) = (Instant::now(), Counters::read());
        let seconds = at.duration_since(self.at).as_secs_f64().max(1e-3);
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        let last = std::mem::replace(&mut self.last, counters);
        self.at = at;
        let cpu = 100.0 * (counters.cpu_seconds - last.cpu_seconds).max(0.0) / seconds;
        let (received, sent) = (
            rate(counters.received, last.received),
            rate(counters.sent, last.sent),
        );
        let (read, written) = (
            rate(counters.read, last.read),
            rate(counters.written, last.written),
        );
        let sizes = around.sizes;
        let spilled = || {
            Value::map([
                ("memory", sizes.spilled_memory),
                ("disk", sizes.spilled_disk),
            ])
        };
        let mut metrics = Value::map([
            ("bandwidth", around.bandwidth),
            ("cpu", cpu.into()),
            ("memory", resident_bytes().unwrap_or_default().into()),
            ("time", now().0.into()),
            ("num_fds", open_files().into()),
        ]);
        let mut add = |name: &str, value: Value| metrics.insert(name, value);
        let since = |year, month, micro| *release >= Release::new(year, month, micro);
        if since(2022, 4, 0) {
            add("event_loop_interval", around.event_loop_interval.into());
        }
        if since(2022, 9, 0) {
            add("transfer", figures.transfer.clone());
        }
        if *release < Release::new(2022, 10, 0) {
            add("executing", figures.executing.into());
            add("in_memory", figures.in_memory.into());
            add("ready", figures.ready.into());
            add("in_flight", figures.in_flight.into());
            add("read_bytes", received.into());
            add("write_bytes", sent.into());
            if since(2021, 8, 1) {
                add("read_bytes_disk", read.into());
                add("write_bytes_disk", written.into());
            }
            if since(2022, 2, 1) {
                add("spilled_nbytes", spilled());
            } else if since(2021, 4, 1) {
                add("spilled_nbytes", sizes.spilled_memory.into());
            }
            return metrics;
        }
        let rates = |read: f64, write: f64| Value::map([("read_bps", read), ("write_bps", write)]);
        add("task_counts", figures.task_counts.iter().copied().collect());
        add("managed_bytes", figures.managed_bytes.into());
        add("spilled_bytes", spilled());
        add("host_net_io", rates(received, sent));
        add("host_disk_io", rates(read, written));
        if since(2023, 4, 0) {
            add("digests_total_since_heartbeat", around.digests);
        }
        metrics
    }
}

/// Seconds of processor time of this process.
fn cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may contain anything.
    let rest = text.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

/// Resident bytes of this process.
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Bytes that the host received and sent.
fn net() -> (u64, u64) {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let numbers = lines.map(|(_, line)| columns(line, 0, 8));
    numbers.fold((0, 0), |sum, (a, b)| (sum.0 + a, sum.1 + b))
}

/// Bytes that the host's disks read and wrote; partitions count in their disk.
fn disk() -> (u64, u64) {
    const SECTOR: u64 = 512;
    let text = fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let is_disk = |line: &&str| {
        let name = line.split_whitespace().nth(2).unwrap_or_default();
        std::path::Path::new("/sys/block").join(name).exists()
    };
    let numbers = text.lines().filter(is_disk).map(|line| columns(line, 5, 9));
    let (read, written) = numbers.fold((0u64, 0u64), |sum, (a, b)| (sum.0 + a, sum.1 + b));
    (read.saturating_mul(SECTOR), written.saturating_mul(SECTOR))
}

fn columns(line: &str, first: usize, second: usize) -> (u64, u64) {
    let column = |at| {
        let word = line.split_whitespace().nth(at);
        word.and_then(|word| word.parse().ok()).unwrap_or_default()
    };
    (column(first), column(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_measured() {
        let figures = Figures::of(&Worker::new(Default::default()));
        let metrics = Meter::new().metrics(&figures, Surroundings::default(), &Release::NEWEST);
        let number = |name: &str| metrics.get(name).and_then(Value::as_f64);
        assert!(number("memory").is_some_and(|bytes| bytes > 1e5));
        assert!(number("num_fds").is_some_and(|count| count > 2.0));
        assert!(cpu_seconds().is_some());
    }

    #[test]
    fn names_are_those_of_the_release() {
        let figures = Figures::of(&Worker::new(Default::default()));
        let mut meter = Meter::new();
        let mut has = |release, name: &str| {
            meter
                .metrics(&figures, Surroundings::default(), &release)
                .get(name)
                .is_some()
        };
        assert!(has(Release::new(2, 30, 1), "executing"));
        assert!(!has(Release::new(2, 30, 1), "spilled_nbytes"));
        assert!(has(Release::new(2022, 2, 1), "spilled_nbytes"));
        assert!(!has(
            Release::new(2022, 12, 0),
            "digests_total_since_heartbeat"
        ));
        assert!(has(Release::NEWEST, "digests_total_since_heartbeat"));
        assert!(!has(Release::new(2, 30, 1), "task_counts"));
        assert!(has(Release::NEWEST, "task_counts"));
        assert!(!has(Release::NEWEST, "in_memory"));
    }
}
