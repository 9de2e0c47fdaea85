//! What the scheduler does by itself from time to time, or is asked to plan: steal, manage copies,
//! scale.

mod adaptive;
pub(crate) mod memory_manager;
mod rebalance;
pub(crate) mod stealing;

pub use adaptive::WorkersToClose;
pub use memory_manager::Retirement;
pub use rebalance::{Fetch, Move, PlanError, ReplicatePlan};
