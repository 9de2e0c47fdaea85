//! The brain of the scheduler: a state machine without I/O, clock, randomness, threads or Python.
//!
//! Events and the time go in ([`Scheduler::handle`]), effects come out. The same events give the
//! same effects, so a recorded run can be replayed, and whole clusters can be simulated.
//!
//! Reading order: [`ids`], [`event`], [`effect`], [`graph`], then the state ([`task`], [`worker`]).
//! It must never depend on a wire type, an async runtime or a clock.

pub mod config;
pub mod effect;
pub mod event;
pub mod graph;
pub mod ids;
pub mod opaque;
pub mod task;
pub mod worker;

use ids::Timestamp;

/// Output buffer of the core, owned by the caller and reused.
pub type Effects = Vec<effect::Effect>;

/// The scheduler's state and its only entry points.
pub struct Scheduler {
    config: config::CoreConfig,
}

impl Scheduler {
    /// An empty cluster.
    pub fn new(config: config::CoreConfig) -> Self {
        Self { config }
    }

    /// Applies one event; what is to be done is appended to `effects`, in order.
    pub fn handle(&mut self, now: Timestamp, event: event::Event, effects: &mut Effects) {
        let _ = (now, event, effects);
    }

    /// When [`Scheduler::handle_timeout`] wants to be called next (stealing, memory manager,
    /// time-to-live, time-outs).
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp, effects: &mut Effects) {
        let _ = (now, effects);
    }

    /// The settings in force.
    pub fn config(&self) -> &config::CoreConfig {
        &self.config
    }
}
