//! What the worker does when memory gets short: it writes data to disk, and it pauses. Terminating is
//! the nanny's.
//!
//! [`policy`] decides, from numbers alone. `monitor` measures the process and pauses; `spilling` writes
//! (`codec` compresses, `spilled` is the file); `loading` brings back; `numbers` counts for heartbeats
//! and Prometheus. Which object is where is the store's.

mod codec;
mod loading;
mod monitor;
mod numbers;
pub mod policy;
pub mod spilled;
mod spilling;
#[cfg(test)]
mod tests;

pub(crate) use monitor::watch;

pub use codec::Compression;
pub use loading::LoadError;
pub use numbers::{Activity, Numbers};
pub use policy::Thresholds;
pub use spilling::Memory;

use std::time::Duration;

/// Settings of memory (`distributed.worker.memory.*`).
#[derive(Clone, Debug)]
pub struct MemorySettings {
    /// When to spill and to pause.
    pub thresholds: Thresholds,
    /// `max-spill`: most bytes on disk.
    pub max_spill: Option<u64>,
    /// `spill-compression`.
    pub compression: Compression,
    /// `monitor-interval`.
    pub interval: Duration,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            thresholds: Thresholds::default(),
            max_spill: None,
            compression: Compression::Lz4,
            interval: Duration::from_millis(100),
        }
    }
}

/// As stock prints sizes: `1.50 GiB`.
pub(crate) fn format_bytes(bytes: u64) -> String {
    let units = [
        ("PiB", 50),
        ("TiB", 40),
        ("GiB", 30),
        ("MiB", 20),
        ("kiB", 10),
    ];
    for (unit, bits) in units {
        let size = bytes as f64 / 2f64.powi(bits);
        if size >= 0.9 {
            return format!("{size:.2} {unit}");
        }
    }
    format!("{bytes} B")
}
