//! What a process and its children have used, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// A reading.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor seconds by the kernel's clock ticks (10 ms); they include threads that have ended.
    ticks: f64,
    /// Processor seconds of the threads that are there, to the nanosecond.
    exact: f64,
    /// Bytes in memory.
    pub(crate) resident: u64,
    /// Most bytes in memory so far.
    pub(crate) peak: u64,
}

impl Usage {
    /// Of the process and everything it has started.
    pub(crate) fn of(pid: u32) -> Self {
        let mut usage = Self::default();
        if pid > 0 {
            usage.add_tree(pid, &children());
        }
        usage
    }

    /// Processor seconds since an earlier reading. Ticks alone are too coarse for short runs, living threads alone forget those
    /// that have ended.
    pub(crate) fn cpu_since(&self, earlier: &Self) -> f64 {
        let (ticks, exact) = (self.ticks - earlier.ticks, self.exact - earlier.exact);
        if (ticks - exact).abs() < 0.05 {
            exact
        } else {
            ticks.max(exact)
        }
    }

    fn add_tree(&mut self, pid: u32, children: &HashMap<u32, Vec<u32>>) {
        let folder = format!("/proc/{pid}");
        self.ticks += ticks(&folder).unwrap_or(0.0);
        self.exact += threads(&folder);
        self.resident += status(&folder, "VmRSS:");
        self.peak += status(&folder, "VmHWM:");
        for child in children.get(&pid).into_iter().flatten() {
            self.add_tree(*child, children);
        }
    }
}

/// Files and sockets that a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// User and system time, also of children that were waited for.
fn ticks(folder: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    // The name may hold anything; fields are counted behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let times = fields.split_whitespace().skip(11).take(4);
    Some(
        times
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum::<f64>()
            / 100.0,
    )
}

fn threads(folder: &str) -> f64 {
    let seconds = |thread: fs::DirEntry| {
        let schedstat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<f64>().ok()
    };
    let threads = fs::read_dir(format!("{folder}/task"));
    let threads = threads.into_iter().flatten().flatten();
    threads.filter_map(seconds).sum::<f64>() / 1e9
}

fn status(folder: &str, field: &str) -> u64 {
    let status = fs::read_to_string(Path::new(folder).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn children() -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, fields)| fields.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

#[cfg(test)]
mod tests {
    use super::Usage;

    #[test]
    fn this_process_has_used_something() {
        let before = Usage::of(std::process::id());
        let mut sum = 0u64;
        let started = std::time::Instant::now();
        while started.elapsed().as_millis() < 30 {
            sum = sum.wrapping_mul(31).wrapping_add(7);
        }
        let after = Usage::of(std::process::id());
        assert!(std::hint::black_box(sum) > 0 && after.cpu_since(&before) > 0.0);
        assert!(after.resident > 100_000 && after.peak >= after.resident);
    }
}
