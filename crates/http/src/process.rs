//! Figures of this process from `/proc`, under the names that every Prometheus client library uses, and
//! for the status page.

use std::fs;

use crate::openmetrics::{Kind, Page};

/// The kernel tells times in hundredths of a second on all machines Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the kernel says of this process. Zero where it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Seconds of CPU so far.
    pub cpu_seconds: f64,
    /// Seconds since 1970 when it started, to a hundredth.
    pub start_time: f64,
    /// Bytes of resident memory.
    pub resident_bytes: u64,
    /// Bytes of virtual memory.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Most file descriptors.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
}

impl ProcessFigures {
    /// Reads them.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = text("/proc/self/status");
        let limits = text("/proc/self/limits");
        let stat = text("/proc/self/stat");
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self {
            cpu_seconds: cpu_seconds(&stat),
            start_time: start_time(&stat, &text("/proc/stat")),
            resident_bytes: number_of(&status, "VmRSS:").saturating_mul(1024),
            virtual_bytes: number_of(&status, "VmSize:").saturating_mul(1024),
            // One of them was the listing itself.
            open_fds: u64::try_from(open).unwrap_or(0).saturating_sub(1),
            max_fds: number_of(&limits, "Max open files"),
            threads: number_of(&status, "Threads:"),
        }
    }

    /// Puts them on a page as Prometheus' client libraries name them, without any namespace. `started`:
    /// seconds since the epoch.
    #[expect(clippy::cast_precision_loss, reason = "a metric is a double")]
    pub fn write_to(&self, page: &mut Page, started: f64) {
        let rows = [
            (
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes.",
                Kind::Gauge,
                self.virtual_bytes as f64,
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
                Kind::Gauge,
                self.resident_bytes as f64,
            ),
            (
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
                Kind::Gauge,
                started,
            ),
            (
                "process_cpu_seconds",
                "Total user and system CPU time spent in seconds.",
                Kind::Counter,
                self.cpu_seconds,
            ),
            (
                "process_open_fds",
                "Number of open file descriptors.",
                Kind::Gauge,
                self.open_fds as f64,
            ),
            (
                "process_max_fds",
                "Maximum number of open file descriptors.",
                Kind::Gauge,
                self.max_fds as f64,
            ),
        ];
        for (name, help, kind, value) in rows {
            page.one(name, help, kind, value);
        }
    }
}

/// The first number behind a label at the start of a line.
fn number_of(text: &str, label: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// User and system time.
fn cpu_seconds(stat: &str) -> f64 {
    (ticks(stat, 14).unwrap_or(0.0) + ticks(stat, 15).unwrap_or(0.0)) / TICKS_PER_SECOND
}

/// The machine's start and the time from there.
fn start_time(stat: &str, machine: &str) -> f64 {
    let since_boot = ticks(stat, 22).unwrap_or(0.0) / TICKS_PER_SECOND;
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
    let boot = number_of(machine, "btime ") as f64;
    boot + since_boot
}

/// A field of `/proc/PID/stat`, numbered as in proc(5). The name of the program, in parentheses, may contain
/// anything; with it the first two are cut off.
fn ticks(stat: &str, field: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    fields.nth(field.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_kernel_are_understood() {
        assert_eq!(number_of("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS:"), 12);
        assert_eq!(
            number_of(
                "Max open files            1024   4096 files",
                "Max open files"
            ),
            1024
        );
        assert_eq!(number_of("", "VmRSS:"), 0);
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 3 0";
        assert!((cpu_seconds(stat) - 2.0).abs() < 1e-9);
        assert_eq!(cpu_seconds("nonsense"), 0.0);
        let stat = format!("{stat} 700");
        assert!((start_time(&stat, "cpu 1 2\nbtime 100\n") - 107.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes > 0 && figures.virtual_bytes >= figures.resident_bytes);
        // It was built later than this file was written.
        assert!(figures.start_time > 1.7e9);
        assert!(figures.threads > 0 && figures.open_fds > 0 && figures.max_fds > 0);
    }
}
