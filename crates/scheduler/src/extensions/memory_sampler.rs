//! `distributed.diagnostics.MemorySampler` (since 2021.11.2): the cluster's memory over time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oxidask_scheduler_core::worker::MemoryState;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;
use tokio::time::MissedTickBehavior;

use super::ops::Ops;
use super::wait::lock;
use crate::clock;
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable};

/// Samples kept by one sampler; the oldest go first. Six days at the default interval.
const MAX_SAMPLES: usize = 1_000_000;
/// Shortest time between samples.
const MIN_INTERVAL: Duration = Duration::from_millis(1);
/// Up to the release before this one, `managed` counts what is spilled, too.
const MANAGED_IN_MEMORY_ONLY: Release = Release::new(2023, 1, 0);

/// A figure of the cluster's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Process,
    Managed,
    ManagedTotal,
    Spilled,
    Unmanaged,
    UnmanagedOld,
    UnmanagedRecent,
    Optimistic,
}

impl Measure {
    fn parse(name: &str, release: Release) -> Option<Self> {
        Some(match name {
            "process" => Self::Process,
            "managed" if release < MANAGED_IN_MEMORY_ONLY => Self::ManagedTotal,
            "managed" | "managed_in_memory" => Self::Managed,
            "managed_total" => Self::ManagedTotal,
            "spilled" | "managed_spilled" => Self::Spilled,
            "unmanaged" => Self::Unmanaged,
            "unmanaged_old" => Self::UnmanagedOld,
            "unmanaged_recent" => Self::UnmanagedRecent,
            "optimistic" => Self::Optimistic,
            _ => return None,
        })
    }

    /// In bytes.
    fn of(self, memory: &MemoryState) -> u64 {
        match self {
            Self::Process => memory.process,
            Self::Managed => memory.managed,
            Self::ManagedTotal => memory.managed.saturating_add(memory.spilled),
            Self::Spilled => memory.spilled,
            Self::Unmanaged => memory.unmanaged(),
            Self::UnmanagedOld => memory.unmanaged_old,
            Self::UnmanagedRecent => memory.unmanaged_recent(),
            Self::Optimistic => memory.managed.saturating_add(memory.unmanaged_old),
        }
    }
}

/// Running samplers by their key.
#[derive(Default)]
struct Samplers {
    running: Mutex<HashMap<String, Sampler>>,
}

struct Sampler {
    client: String,
    /// Seconds since the epoch, bytes.
    samples: VecDeque<(f64, u64)>,
}

impl Samplers {
    fn start(&self, key: &str, client: &str) {
        let sampler = Sampler {
            client: client.to_owned(),
            samples: VecDeque::new(),
        };
        lock(&self.running).insert(key.to_owned(), sampler);
    }

    /// Adds a sample; whether the sampler still runs.
    fn record(&self, key: &str, time: f64, bytes: u64) -> bool {
        let mut running = lock(&self.running);
        let Some(sampler) = running.get_mut(key) else {
            return false;
        };
        if sampler.samples.len() >= MAX_SAMPLES {
            sampler.samples.pop_front();
        }
        sampler.samples.push_back((time, bytes));
        true
    }

    fn stop(&self, key: &str) -> Option<VecDeque<(f64, u64)>> {
        Some(lock(&self.running).remove(key)?.samples)
    }

    fn client_removed(&self, client: &str) {
        lock(&self.running).retain(|_, sampler| sampler.client != client);
    }
}

/// The ops of memory samplers.
#[derive(Default)]
pub(crate) struct MemorySamplerExtension {
    samplers: Arc<Samplers>,
}

impl MemorySamplerExtension {
    async fn start(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let client = call.str("client")?;
        let name = call.str("measure")?;
        let measure = Measure::parse(name, call.caller.release)
            .ok_or_else(|| RpcError::value_error(format!("unknown measure of memory '{name}'")))?;
        let interval = clock::seconds(call.opt_seconds("interval")?.unwrap_or(0.5));
        let key = uuid::Uuid::new_v4().to_string();
        if context.clients.named(client).is_none() {
            return Err(RpcError::key_error(client));
        }
        self.samplers.start(&key, client);
        // At least one sample, however soon the sampler is stopped.
        sample(&self.samplers, &context, &key, measure).await?;

        let (samplers, weak) = (Arc::downgrade(&self.samplers), Arc::downgrade(&context));
        let mut ticks = tokio::time::interval(interval.max(MIN_INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let sampled = key.clone();
        tokio::spawn(async move {
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let (Some(samplers), Some(context)) = (samplers.upgrade(), weak.upgrade()) else {
                    return;
                };
                let taken = sample(&samplers, &context, &sampled, measure).await;
                if !taken.unwrap_or(false) {
                    return;
                }
            }
        });
        Ok(key.into())
    }

    async fn stop(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let key = call.str("key")?;
        let samples = self.samplers.stop(key);
        let samples = samples.ok_or_else(|| RpcError::key_error(key))?;
        let pair = |(time, bytes): (f64, u64)| Value::Array(vec![time.into(), bytes.into()]);
        Ok(Value::array(samples.into_iter().map(pair)))
    }
}

/// Takes one sample; whether the sampler still runs.
async fn sample(
    samplers: &Samplers,
    context: &Context,
    key: &str,
    measure: Measure,
) -> Result<bool, RpcError> {
    let memory = context.core.look(|state| state.memory()).await?;
    Ok(samplers.record(key, clock::now().0, measure.of(&memory)))
}

impl Extension for MemorySamplerExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .request("memory_sampler_start", Self::start)
            .request("memory_sampler_stop", Self::stop);
    }

    fn client_removed(&self, _: &Arc<Context>, client: &Arc<crate::clients::ClientEntry>) {
        self.samplers.client_removed(&client.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_follow_the_release_of_the_client() {
        let memory = MemoryState::new(100, 20, 30, 7);
        let (old, new) = (Release::new(2022, 12, 0), Release::NEWEST);
        let table = [
            ("process", old, 100),
            ("managed", old, 37),
            ("managed_in_memory", old, 30),
            ("managed_spilled", old, 7),
            ("managed", new, 30),
            ("managed_total", new, 37),
            ("spilled", new, 7),
            ("unmanaged", new, 70),
            ("unmanaged_old", new, 20),
            ("unmanaged_recent", new, 50),
            ("optimistic", new, 50),
        ];
        for (name, release, bytes) in table {
            let measure = Measure::parse(name, release).expect(name);
            assert_eq!(measure.of(&memory), bytes, "{name} of {release}");
        }
        assert_eq!(Measure::parse("__dict__", new), None);
    }

    #[test]
    fn samples_are_kept_until_stopped() {
        let samplers = Samplers::default();
        samplers.start("a", "Client-1");
        samplers.start("b", "Client-2");
        assert!(samplers.record("a", 1.0, 10));
        assert!(samplers.record("a", 2.0, 20));
        let samples = samplers.stop("a").expect("running");
        assert_eq!(samples, [(1.0, 10), (2.0, 20)]);
        assert!(!samplers.record("a", 3.0, 30), "stopped");
        samplers.client_removed("Client-2");
        assert!(samplers.stop("b").is_none(), "its client is gone");
    }
}
