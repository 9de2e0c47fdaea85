//! The settings that change decisions of the core, as plain values. The shell reads them from the
//! command line and the Dask configuration; the names are those of the keys below `distributed.`.

use std::sync::Arc;

/// Settings of the core.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Our own contact address: never fetched from.
    pub address: Arc<str>,
    /// Threads for tasks (`--nthreads`).
    pub nthreads: u32,
    /// Abstract resources offered (`--resources`, `worker.resources`).
    pub resources: Vec<(Arc<str>, f64)>,
    /// `worker.connections.incoming`: transfers to us at the same time.
    pub incoming_count_limit: u32,
    /// `worker.connections.outgoing`: transfers from us at the same time; twice as many for peers on
    /// the same host.
    pub outgoing_count_limit: u32,
    /// Bytes on their way to us up to which [`Self::incoming_count_limit`] is not applied.
    pub incoming_throttle_threshold: u64,
    /// Most bytes on their way to us at the same time (`worker.memory.transfer` of the memory limit).
    /// None: no limit. One transfer is always allowed.
    pub incoming_bytes_limit: Option<u64>,
    /// `worker.transfer.message-bytes-limit`: bytes asked for in one request. One key is always allowed.
    pub message_bytes_limit: u64,
    /// Seconds until a peer that was busy is asked again; doubled each time, up to
    /// [`Self::busy_retry_max`].
    pub busy_retry: f64,
    /// Longest such wait in seconds.
    pub busy_retry_max: f64,
    /// Seconds between questions to the scheduler where missing data is.
    pub find_missing_interval: f64,
    /// Seconds that transfers from a peer which is said to have left are given to come to an end.
    pub departed_grace: f64,
    /// `scheduler.default-data-size`: bytes of data whose size nobody told.
    pub default_data_size: u64,
    /// Bytes that the log of transitions may take. 0: none is kept.
    pub story_bytes: usize,
    /// `worker.validate`: check the state after each event.
    pub validate: bool,
    /// Up to so many tasks all of the state is checked when `validate` is set, beyond only the tasks
    /// concerned.
    pub validate_all_up_to: usize,
    /// Seed of the hash tables.
    pub seed: u64,
}

impl Default for WorkerConfig {
    /// The defaults of 2026.8.0, one thread.
    fn default() -> Self {
        Self {
            address: "".into(),
            nthreads: 1,
            resources: Vec::new(),
            incoming_count_limit: 10,
            outgoing_count_limit: 50,
            incoming_throttle_threshold: 10_000_000,
            incoming_bytes_limit: None,
            message_bytes_limit: 50_000_000,
            busy_retry: 0.15,
            busy_retry_max: 2.4,
            find_missing_interval: 1.0,
            departed_grace: 5.0,
            default_data_size: 1024,
            story_bytes: 8 << 20,
            validate: false,
            validate_all_up_to: 2_000,
            seed: 0,
        }
    }
}
