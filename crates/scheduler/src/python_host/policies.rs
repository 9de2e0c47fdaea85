//! Policies of the active memory manager that users wrote: stock's manager runs them in the Python host,
//! against the mirror, beside the native one.

use std::sync::Arc;
use std::time::Duration;

use oxidask_config::{Config, ConfigValue};

use super::PythonHost;
use super::error::HostError;
use crate::clock;
use crate::context::Context;

/// Policies that the core has itself.
const NATIVE: &[&str] = &["distributed.active_memory_manager.ReduceReplicas"];

/// The user's policies of `distributed.scheduler.active-memory-manager.policies`.
pub(super) struct UserPolicies {
    host: PythonHost,
    any: bool,
    interval: Duration,
}

impl UserPolicies {
    /// Reads the settings; loads nothing.
    pub(super) fn new(host: PythonHost, config: &Config) -> Self {
        let key = |name: &str| format!("distributed.scheduler.active-memory-manager.{name}");
        let policies = config.get(&key("policies"));
        let policies = policies.and_then(ConfigValue::as_list).unwrap_or_default();
        let is_users = |policy: &ConfigValue| {
            let class = policy.as_map().and_then(|policy| policy.get("class"));
            let class = class.and_then(ConfigValue::as_str);
            class.is_some_and(|class| !NATIVE.contains(&class))
        };
        Self {
            host,
            any: policies.iter().any(is_users),
            interval: clock::seconds(config.seconds(&key("interval")).unwrap_or(2.0)),
        }
    }

    /// Runs them at the interval, while the native manager runs.
    pub(super) fn start(&self, context: &Arc<Context>) {
        if !self.any {
            return;
        }
        let (host, interval) = (self.host.clone(), self.interval);
        let context = Arc::downgrade(context);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(context) = context.upgrade() else {
                    return;
                };
                let running = context.core.query(|state| state.memory_manager_running());
                match running.await {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(_) => return,
                }
                if let Err(error) = host.run_policies().await {
                    tracing::error!(target: "distributed.active_memory_manager", "policies: {error}");
                }
            }
        });
    }

    /// Has them imported, if there are any.
    ///
    /// # Errors
    /// See [`HostError`].
    pub(super) async fn load(&self) -> Result<(), HostError> {
        match self.any {
            true => self.host.load_policies().await,
            false => Ok(()),
        }
    }

    /// One round now.
    ///
    /// # Errors
    /// See [`HostError`].
    pub(super) async fn run_once(&self) -> Result<(), HostError> {
        match self.any {
            true => self.host.run_policies().await,
            false => Ok(()),
        }
    }
}
