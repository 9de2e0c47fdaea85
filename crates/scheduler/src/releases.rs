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
