//! Coordination objects and small services of the scheduler: each file owns the state of one.
//!
//! They live in the shell because they wait. What they have in common: names are chosen by clients
//! (any key), user data is kept as it came, results that an object refers to are held by a pseudo
//! client ([`interest`]), and a caller that disconnects while waiting leaves no trace.
//!
//! Reading order: [`wait`] and [`named`] (how waiting works), [`ops`] (how an extension serves its
//! requests), then any extension: first its state, then its ops.

mod event;
pub mod event_log;
mod interest;
mod lock;
mod memory_sampler;
mod metadata;
mod multi_lock;
mod named;
mod ops;
mod publish;
mod pubsub;
mod queue;
mod replay;
pub mod semaphore;
mod shuffle;
mod spans;
mod tasks;
mod variable;
mod wait;

use std::sync::Arc;

use oxidask_config::Config;

use crate::hooks::Extension;

use event_log::EventLogExtension;
use semaphore::SemaphoreExtension;

/// All extensions. Those with figures for the metrics page are there by name as well.
pub struct Extensions {
    /// In order of registration.
    pub all: Vec<Arc<dyn Extension>>,
    /// The event log.
    pub event_log: Arc<EventLogExtension>,
    /// Semaphores, and locks of releases from 2024.7.1 on.
    pub semaphores: Arc<SemaphoreExtension>,
}

impl Extensions {
    /// Makes every extension, with the settings of `config`.
    pub fn new(config: &Config) -> Self {
        let pseudo_clients = Arc::new(interest::PseudoClients::default());
        let event_log = EventLogExtension::new(config);
        let semaphores = Arc::new(SemaphoreExtension::new(config));
        let all: Vec<Arc<dyn Extension>> = vec![
            event_log.clone(),
            Arc::new(queue::QueueExtension::new(pseudo_clients.clone())),
            Arc::new(variable::VariableExtension::new(pseudo_clients.clone())),
            Arc::new(publish::PublishExtension::new(pseudo_clients)),
            Arc::new(lock::LockExtension::default()),
            semaphores.clone(),
            Arc::new(multi_lock::MultiLockExtension::default()),
            Arc::new(event::EventExtension::default()),
            Arc::new(pubsub::PubSubExtension::default()),
            Arc::new(metadata::MetadataExtension::default()),
            Arc::new(memory_sampler::MemorySamplerExtension::default()),
            Arc::new(replay::ReplayExtension),
            Arc::new(shuffle::ShuffleExtension::default()),
            Arc::new(spans::SpansExtension),
        ];
        Self {
            all,
            event_log,
            semaphores,
        }
    }
}
