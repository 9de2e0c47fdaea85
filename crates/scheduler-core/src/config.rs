//! The settings that change decisions of the core, as plain values. The shell reads them from the
//! Dask configuration; the names are those of the keys below `distributed.`.

use serde::{Deserialize, Serialize};

/// Settings of the core.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CoreConfig {
    /// `scheduler.allowed-failures`: worker deaths per task before `KilledWorker`.
    pub allowed_failures: u32,
    /// `scheduler.worker-saturation`: tasks per thread sent ahead; infinite turns queueing off.
    pub worker_saturation: f64,
    /// `scheduler.rootish-taskgroup`: groups with more than twice the threads and at most this many
    /// dependency groups are root-like.
    pub rootish_taskgroup: usize,
    /// `scheduler.rootish-taskgroup-dependencies`.
    pub rootish_taskgroup_dependencies: usize,
    /// `scheduler.work-stealing`.
    pub work_stealing: bool,
    /// `scheduler.work-stealing-interval`, seconds.
    pub work_stealing_interval: f64,
    /// `scheduler.worker-ttl`, seconds; silent workers are removed. None: never.
    pub worker_ttl: Option<f64>,
    /// `scheduler.no-workers-timeout`, seconds. None: wait for ever.
    pub no_workers_timeout: Option<f64>,
    /// `scheduler.default-data-size`, bytes: size of results not yet known.
    pub default_data_size: u64,
    /// `scheduler.bandwidth`, bytes per second: first guess.
    pub bandwidth: f64,
    /// `scheduler.unknown-task-duration`, seconds.
    pub unknown_task_duration: f64,
    /// `scheduler.default-task-durations`: prefix and seconds.
    pub default_task_durations: Vec<(String, f64)>,
    /// `admin.low-level-log-length`: entries of the transition log.
    pub transition_log_length: usize,
    /// `worker.memory.terminate` is set: inputs larger than a worker's memory fail at once.
    pub memory_terminate: bool,
    /// `worker.memory.recent-to-old-time`, seconds.
    pub memory_recent_to_old_time: f64,
    /// `scheduler.validate`: check every touched task after each event.
    pub validate: bool,
    /// `scheduler.active-memory-manager.start`.
    pub amm_start: bool,
    /// `scheduler.active-memory-manager.interval`, seconds.
    pub amm_interval: f64,
    /// `scheduler.active-memory-manager.measure`.
    pub amm_measure: MemoryMeasure,
    /// `scheduler.active-memory-manager.policies` names `ReduceReplicas`.
    pub amm_reduce_replicas: bool,
    /// `worker.memory.rebalance.measure`.
    pub rebalance_measure: MemoryMeasure,
    /// `worker.memory.rebalance.sender-min`, fraction of the memory limit.
    pub rebalance_sender_min: f64,
    /// `worker.memory.rebalance.recipient-max`, fraction of the memory limit.
    pub rebalance_recipient_max: f64,
    /// `worker.memory.rebalance.sender-recipient-gap`, fraction of the memory limit.
    pub rebalance_sender_recipient_gap: f64,
    /// `adaptive.target-duration`, seconds.
    pub adaptive_target_duration: f64,
    /// `oxidask.scheduler.watchdog-patience`, seconds: how long a task may stand still on a worker that
    /// has a free thread before the worker is asked about it. None: for ever.
    pub watchdog_patience: Option<f64>,
    /// Up to so many tasks all of the state is checked after an event when `validate` is set, beyond
    /// only the tasks concerned.
    pub validate_all_up_to: usize,
    /// Up to so many inputs of a task are named in an order at once. What has more is ordered little by little, while
    /// others are served.
    #[serde(default = "inputs_at_once")]
    pub inputs_at_once: usize,
    /// Seed of the core's own random numbers and of its hash tables.
    pub seed: u64,
}

fn inputs_at_once() -> usize {
    1000
}

impl Default for CoreConfig {
    /// The defaults of 2026.8.0.
    fn default() -> Self {
        Self {
            allowed_failures: 3,
            worker_saturation: 1.1,
            rootish_taskgroup: 5,
            rootish_taskgroup_dependencies: 5,
            work_stealing: true,
            work_stealing_interval: 1.0,
            worker_ttl: Some(300.0),
            no_workers_timeout: None,
            default_data_size: 1024,
            bandwidth: 100e6,
            unknown_task_duration: 0.5,
            default_task_durations: vec![
                ("rechunk-split".to_owned(), 1e-6),
                ("split-shuffle".to_owned(), 1e-6),
                ("split-taskshuffle".to_owned(), 1e-6),
                ("split-stage".to_owned(), 1e-6),
            ],
            transition_log_length: 100_000,
            memory_terminate: true,
            memory_recent_to_old_time: 30.0,
            validate: false,
            amm_start: true,
            amm_interval: 2.0,
            amm_measure: MemoryMeasure::Optimistic,
            amm_reduce_replicas: true,
            rebalance_measure: MemoryMeasure::Optimistic,
            rebalance_sender_min: 0.3,
            rebalance_recipient_max: 0.6,
            rebalance_sender_recipient_gap: 0.1,
            adaptive_target_duration: 5.0,
            watchdog_patience: Some(60.0),
            validate_all_up_to: 2_000,
            inputs_at_once: inputs_at_once(),
            seed: 0,
        }
    }
}

/// Which figure stands for "memory used by a worker".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryMeasure {
    /// Resident memory of the process.
    Process,
    /// Results in memory plus memory held by the process for long.
    #[default]
    Optimistic,
    /// Results in memory.
    Managed,
    /// Results in memory and on disk.
    ManagedTotal,
    /// Results on disk.
    Spilled,
    /// Process memory that is not results.
    Unmanaged,
    /// The part of that which has been there for long.
    UnmanagedOld,
    /// The part of that which is new.
    UnmanagedRecent,
}

impl MemoryMeasure {
    /// Reads stock's spelling, e.g. `optimistic` or `unmanaged_recent`.
    pub fn parse(s: &str) -> Option<Self> {
        Some(match s {
            "process" => Self::Process,
            "optimistic" => Self::Optimistic,
            "managed" => Self::Managed,
            "managed_total" => Self::ManagedTotal,
            "spilled" => Self::Spilled,
            "unmanaged" => Self::Unmanaged,
            "unmanaged_old" => Self::UnmanagedOld,
            "unmanaged_recent" => Self::UnmanagedRecent,
            _ => return None,
        })
    }
}
