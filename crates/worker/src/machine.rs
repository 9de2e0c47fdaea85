//! What the machine, or the container around this process, offers: cores and memory, by stock's rules.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel shows control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Cores that this process may use: its affinity, and the quota of its control group rounded up.
pub(crate) fn cores() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = field(&status, "Cpus_allowed_list:").map(cpus_in);
    let allowed = allowed.filter(|count| *count > 0).unwrap_or(1);
    quota().map_or(allowed, |quota| allowed.min(quota)).max(1)
}

/// Bytes that all workers here may use together: those of the machine, of the control groups (v1, v2) and
/// of the limit on resident memory, whichever is least.
pub(crate) fn memory() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = field(&meminfo, "MemTotal:").and_then(|text| {
        let kib: u64 = text.split_whitespace().next()?.parse().ok()?;
        kib.checked_mul(1024)
    });
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let resident = field(&limits, "Max resident set").and_then(|text| {
        // Soft, hard, unit.
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let groups = group_files(&[
        "memory.limit_in_bytes",
        "memory.soft_limit_in_bytes",
        "memory.max",
        "memory.high",
        "memory.low",
    ]);
    let bytes = groups
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .filter(|bytes| *bytes > 0);
    bytes
        .chain(total)
        .chain(resident.filter(|bytes| *bytes > 0))
        .min()
        .unwrap_or(u64::MAX)
}

/// How often the kernel has killed a process of this control group, or where groups do not tell of this
/// machine, for want of memory.
pub(crate) fn oom_kills() -> Option<u64> {
    let files = group_files(&["memory.events", "memory.oom_control"]);
    let in_group = files.iter().find_map(|file| {
        field(&fs::read_to_string(file).ok()?, "oom_kill ")?
            .parse()
            .ok()
    });
    in_group.or_else(|| {
        let machine = fs::read_to_string("/proc/vmstat").ok()?;
        field(&machine, "oom_kill ")?.parse().ok()
    })
}

/// Resident bytes of a process.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib: u64 = field(&status, "VmRSS:")?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    kib.checked_mul(1024)
}

/// The rest of the line that begins so, trimmed.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// How many cores a list such as `0-3,8` names.
fn cpus_in(list: &str) -> u32 {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',')
        .filter_map(|range| count(range.trim()))
        .sum()
}

/// Cores of the quota, rounded up.
fn quota() -> Option<u32> {
    let number = |file: &Path| fs::read_to_string(file).ok()?.trim().parse::<f64>().ok();
    let v1 = ["cpuacct,cpu", "cpu,cpuacct", "cpu"]
        .iter()
        .find_map(|name| {
            let folder = Path::new(CGROUPS).join(name);
            let quota = number(&folder.join("cpu.cfs_quota_us"))?;
            Some((quota, number(&folder.join("cpu.cfs_period_us"))?))
        });
    let v2 = || {
        group_files(&["cpu.max"]).iter().find_map(|file| {
            let text = fs::read_to_string(file).ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            Some((quota.parse().ok()?, period.parse().ok()?))
        })
    };
    let (quota, period): (f64, f64) = v1.or_else(v2)?;
    if quota <= 0.0 || period <= 0.0 {
        return None;
    }
    let cores = (quota / period).ceil();
    (cores >= 1.0 && cores < f64::from(u32::MAX)).then_some(cores as u32)
}

/// These files of the root of the control groups, of this process's own group and of those around it.
fn group_files(names: &[&str]) -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut folders = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let top = match controllers {
            "" => root.to_owned(),
            _ if controllers.split(',').any(|name| name == "memory") => root.join("memory"),
            _ => continue,
        };
        let mut folder = top.join(path.trim_start_matches('/'));
        while folder.starts_with(&top) {
            folders.push(folder.clone());
            if !folder.pop() {
                break;
            }
        }
    }
    // Where the group's own path is that of the host, the root is the container's.
    folders.extend([root.to_owned(), root.join("memory")]);
    let files = folders
        .iter()
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    let mut files: Vec<PathBuf> = files.filter(|file| file.is_file()).collect();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_counted() {
        for (list, count) in [
            ("0", 1),
            ("0-3", 4),
            ("0-3,8,10-11", 7),
            ("", 0),
            ("3-1", 0),
        ] {
            assert_eq!(cpus_in(list), count, "{list}");
        }
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        assert!(cores() >= 1);
        assert!((1 << 20..u64::MAX).contains(&memory()));
        assert!(resident(std::process::id()).is_some_and(|bytes| bytes > 1 << 16));
    }
}
