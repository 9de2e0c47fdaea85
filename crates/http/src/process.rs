//! Figures of this process from `/proc`, under the names that every Prometheus client library uses, and
//! for the status page.

use std::fs;

/// The kernel tells times in hundredths of a second on all machines Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the kernel says of this process. Zero where it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Seconds of CPU so far.
    pub cpu_seconds: f64,
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
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self {
            cpu_seconds: cpu_seconds(&text("/proc/self/stat")),
            resident_bytes: number_of(&status, "VmRSS:").saturating_mul(1024),
            virtual_bytes: number_of(&status, "VmSize:").saturating_mul(1024),
            // One of them was the listing itself.
            open_fds: u64::try_from(open).unwrap_or(0).saturating_sub(1),
            max_fds: number_of(&limits, "Max open files"),
            threads: number_of(&status, "Threads:"),
        }
    }
}

/// The first number behind a label at the start of a line.
fn number_of(text: &str, label: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// User and system time. The name of the program, in parentheses, may contain anything.
fn cpu_seconds(stat: &str) -> f64 {
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return 0.0;
    };
    let ticks =
        |field: usize| -> Option<f64> { fields.split_whitespace().nth(field)?.parse().ok() };
    // Fields 14 and 15 of proc(5), of which the first two are cut off.
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS_PER_SECOND
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
    }

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes > 0 && figures.virtual_bytes >= figures.resident_bytes);
        assert!(figures.threads > 0 && figures.open_fds > 0 && figures.max_fds > 0);
    }
}
