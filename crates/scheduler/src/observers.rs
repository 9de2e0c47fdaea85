//! What the core tells nobody in particular: entries of the event log, removed workers, state
//! changes. The core thread puts them here; one task (see [`crate::context`]) passes them on.

use std::sync::Arc;

use oxidask_scheduler_core::effect::{ChangeEffect, LoggedEvent, Suspicion, TransitionEffect};
use tokio::sync::{mpsc, oneshot};

use crate::workers::WorkerEntry;

/// Something that happened in the core.
#[derive(Debug)]
pub enum Observed {
    /// An entry for the event log.
    Log {
        /// One or more topics.
        topics: Vec<Arc<str>>,
        /// What happened.
        event: LoggedEvent,
    },
    /// A worker is out of the state; its address and name are free again.
    WorkerRemoved {
        /// Who it was.
        worker: Arc<WorkerEntry>,
        /// Cause.
        stimulus_id: Arc<str>,
    },
    /// A worker with a nanny was silent for too long; it is still in the state.
    WorkerUnresponsive {
        /// Who.
        worker: Arc<WorkerEntry>,
        /// Cause.
        stimulus_id: Arc<str>,
    },
    /// The watchdog has a question for a worker.
    Suspicious(Box<Suspicion>),
    /// A task changed state (only while transitions are observed).
    Transition(Box<TransitionEffect>),
    /// A worker is in the state (only while changes are observed).
    WorkerAdded(Arc<WorkerEntry>),
    /// Somebody waits until everything before this was passed on.
    Settled(oneshot::Sender<()>),
    /// Something else happened (only while changes are observed).
    Change(Box<ChangeEffect>),
}

/// Sending side, owned by the core thread.
pub struct ObserverSender(mpsc::UnboundedSender<Observed>);

/// Receiving side, owned by the task that passes them on.
pub type ObserverReceiver = mpsc::UnboundedReceiver<Observed>;

/// A new channel.
pub fn channel() -> (ObserverSender, ObserverReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (ObserverSender(sender), receiver)
}

impl ObserverSender {
    /// Passes it on. Ignored when nobody listens any more.
    pub fn send(&self, observed: Observed) {
        let _ = self.0.send(observed);
    }
}
