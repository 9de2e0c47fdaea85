//! Which release is spoken on which host, learnt from registrations. RPC connections do not tell
//! their release; the one last registered from their host is the best guess.

use std::collections::HashMap;
use std::net::IpAddr;

use oxidask_wire::connection::PeerMemory;
use oxidask_wire::release::Release;
use parking_lot::Mutex;

/// Hosts remembered.
const MAX_HOSTS: usize = 65_536;

/// The releases by host.
#[derive(Debug, Default)]
pub struct Releases {
    hosts: Mutex<HashMap<IpAddr, Release>>,
    memory: PeerMemory,
}

impl Releases {
    /// Nothing known; what is learnt also helps to greet silent peers (`memory`).
    pub fn new(memory: PeerMemory) -> Self {
        Self {
            hosts: Mutex::default(),
            memory,
        }
    }

    /// A client or worker of this release registered from `ip`.
    pub fn note(&self, ip: Option<IpAddr>, release: Release) {
        self.memory.note_release(ip, &release);
        let Some(ip) = ip else { return };
        let mut hosts = self.hosts.lock();
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(&ip) {
            hosts.clear();
        }
        hosts.insert(ip, release);
    }

    /// The release spoken at `ip`; the newest when nothing is known.
    pub fn of(&self, ip: IpAddr) -> Release {
        self.hosts
            .lock()
            .get(&ip)
            .copied()
            .unwrap_or(Release::NEWEST)
    }
}

/// What a release can run: tasks submitted by a client of one release run on workers of every
/// release with the same text. The boundaries are those at which the form of run specs, or of the
/// graphs that lead to them, changed.
pub fn compatibility(release: Release) -> &'static str {
    const SINCE: [(Release, &str); 6] = [
        (Release::new(2025, 3, 0), "2025.3"),
        (Release::new(2024, 11, 0), "2024.11"),
        (Release::new(2023, 8, 1), "2023.8.1"),
        (Release::new(2023, 4, 0), "2023.4"),
        (Release::new(2020, 12, 0), "2020.12"),
        (Release::new(0, 0, 0), "2.17"),
    ];
    let found = SINCE.iter().find(|(since, _)| release >= *since);
    found.map_or("", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_releases_run_each_others_tasks_and_far_ones_do_not() {
        let of = |text: &str| compatibility(Release::parse(text).unwrap());
        assert_eq!(of("2026.8.0"), of("2026.3.0"));
        assert_eq!(of("2.30.1"), of("2.17.0"));
        assert_ne!(of("2.30.1"), of("2022.12.0"));
        assert_ne!(of("2022.12.0"), of("2026.8.0"));
        assert_ne!(of("2024.12.1"), of("2025.4.0"));
    }
}
