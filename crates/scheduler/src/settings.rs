//! Settings of the shell and of the core, read once from the configuration.

use std::collections::HashSet;
use std::time::Duration;

use oxidask_config::{Config, ConfigValue};
use oxidask_scheduler_core::config::{CoreConfig, MemoryMeasure};
use oxidask_wire::connection::{AcceptPolicy, Limits};
use oxidask_wire::release::Generation;

use crate::clock;

/// Settings that the shell itself uses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `scheduler.blocked-handlers`.
    pub blocked_handlers: HashSet<String>,
    /// `comm.timeouts.connect`.
    pub connect_timeout: Duration,
    /// `admin.max-error-length`, characters.
    pub max_error_length: usize,
    /// `oxidask.comm.max-queued-bytes`.
    pub max_queued_bytes: usize,
    /// `scheduler.idle-timeout`, seconds.
    pub idle_timeout: Option<f64>,
    /// `scheduler.reuse-broadcast-comm`.
    pub reuse_broadcast_comm: bool,
}

impl Settings {
    /// Reads them.
    pub fn new(config: &Config) -> Self {
        let blocked = config.str_list("distributed.scheduler.blocked-handlers");
        let length = config.count("distributed.admin.max-error-length");
        Self {
            blocked_handlers: blocked.into_iter().collect(),
            connect_timeout: clock::seconds(
                config
                    .seconds("distributed.comm.timeouts.connect")
                    .unwrap_or(30.0),
            ),
            max_error_length: length
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(10_000),
            max_queued_bytes: config
                .bytes("oxidask.comm.max-queued-bytes")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(1 << 30),
            idle_timeout: config.seconds("distributed.scheduler.idle-timeout"),
            reuse_broadcast_comm: config.bool("distributed.scheduler.reuse-broadcast-comm"),
        }
    }
}

/// How callers are received.
pub fn accept_policy(config: &Config) -> AcceptPolicy {
    let usize_of = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok());
    let limits = Limits {
        max_message: usize_of(config.bytes("oxidask.comm.max-message-bytes"))
            .unwrap_or(Limits::default().max_message),
        max_frames: usize_of(config.count("oxidask.comm.max-frames"))
            .unwrap_or(Limits::default().max_frames),
    };
    let silent = match config.str("oxidask.comm.silent-peer-framing").as_deref() {
        Some("f1") => Generation::M1,
        _ => Generation::M3,
    };
    AcceptPolicy {
        limits,
        silent,
        ..AcceptPolicy::default()
    }
}

/// The settings of the core.
pub fn core_config(config: &Config) -> CoreConfig {
    let d = CoreConfig::default();
    let key = |name: &str| format!("distributed.scheduler.{name}");
    let f64_of = |name: &str, default: f64| config.f64(&key(name)).unwrap_or(default);
    let seconds = |name: &str, default: f64| config.seconds(&key(name)).unwrap_or(default);
    let usize_of = |name: &str, default: usize| {
        let count = config.count(&key(name));
        count
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(default)
    };
    let rebalance = |name: &str, default: f64| {
        let key = format!("distributed.worker.memory.rebalance.{name}");
        config.f64(&key).unwrap_or(default)
    };
    CoreConfig {
        allowed_failures: config
            .count(&key("allowed-failures"))
            .map_or(d.allowed_failures, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        worker_saturation: f64_of("worker-saturation", d.worker_saturation),
        rootish_taskgroup: usize_of("rootish-taskgroup", d.rootish_taskgroup),
        rootish_taskgroup_dependencies: usize_of(
            "rootish-taskgroup-dependencies",
            d.rootish_taskgroup_dependencies,
        ),
        work_stealing: config.bool(&key("work-stealing")),
        work_stealing_interval: seconds("work-stealing-interval", d.work_stealing_interval),
        worker_ttl: config.seconds(&key("worker-ttl")),
        no_workers_timeout: config.seconds(&key("no-workers-timeout")),
        default_data_size: config
            .bytes(&key("default-data-size"))
            .unwrap_or(d.default_data_size),
        bandwidth: config
            .bytes(&key("bandwidth"))
            .map_or(d.bandwidth, |bytes| bytes as f64),
        unknown_task_duration: seconds("unknown-task-duration", d.unknown_task_duration),
        default_task_durations: config.durations(&key("default-task-durations")),
        transition_log_length: config
            .count("distributed.admin.low-level-log-length")
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(d.transition_log_length),
        memory_terminate: config
            .fraction("distributed.worker.memory.terminate")
            .is_some(),
        memory_recent_to_old_time: config
            .seconds("distributed.worker.memory.recent-to-old-time")
            .unwrap_or(d.memory_recent_to_old_time),
        validate: config.bool(&key("validate")),
        amm_start: config.bool(&key("active-memory-manager.start")),
        amm_interval: seconds("active-memory-manager.interval", d.amm_interval),
        amm_measure: measure(config, &key("active-memory-manager.measure")),
        amm_reduce_replicas: reduces_replicas(config.get(&key("active-memory-manager.policies"))),
        rebalance_measure: measure(config, "distributed.worker.memory.rebalance.measure"),
        rebalance_sender_min: rebalance("sender-min", d.rebalance_sender_min),
        rebalance_recipient_max: rebalance("recipient-max", d.rebalance_recipient_max),
        rebalance_sender_recipient_gap: rebalance(
            "sender-recipient-gap",
            d.rebalance_sender_recipient_gap,
        ),
        watchdog_patience: config.seconds("oxidask.scheduler.watchdog-patience"),
        adaptive_target_duration: config
            .seconds("distributed.adaptive.target-duration")
            .unwrap_or(d.adaptive_target_duration),
        seed: uuid::Uuid::new_v4().as_u64_pair().1,
        ..d
    }
}

fn measure(config: &Config, key: &str) -> MemoryMeasure {
    let name = config.str(key);
    name.and_then(|name| MemoryMeasure::parse(&name))
        .unwrap_or_default()
}

/// Whether the policies of the memory manager, `[{class: …}, …]`, name `ReduceReplicas`.
fn reduces_replicas(policies: Option<&ConfigValue>) -> bool {
    let policies = policies.and_then(ConfigValue::as_list).unwrap_or(&[]);
    policies.iter().any(|policy| {
        let class = policy.as_map().and_then(|policy| policy.get("class"));
        class
            .and_then(ConfigValue::as_str)
            .is_some_and(|class| class.ends_with("ReduceReplicas"))
    })
}
