//! What the scheduler does by itself from time to time: steal, manage copies, scale.

pub(crate) mod memory_manager;
pub(crate) mod stealing;
