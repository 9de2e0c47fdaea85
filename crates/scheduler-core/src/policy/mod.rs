//! What the scheduler does by itself from time to time, or is asked to plan: steal, manage copies,
//! scale, look for what is stuck.

mod adaptive;
pub(crate) mod memory_manager;
mod rebalance;
pub(crate) mod stealing;
pub(crate) mod watchdog;

pub use adaptive::WorkersToClose;
pub use memory_manager::Retirement;
pub use rebalance::{Fetch, Move, PlanError, ReplicatePlan};
pub use watchdog::WatchdogFigures;
