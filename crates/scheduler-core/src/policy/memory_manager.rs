//! The active memory manager: drops superfluous copies and moves data off workers that retire.

use crate::Scheduler;
use crate::ids::WorkerId;

/// State of the active memory manager.
#[derive(Default)]
pub(crate) struct MemoryManager {
    /// Runs periodically.
    pub(crate) running: bool,
    retiring: Vec<WorkerId>,
}

impl MemoryManager {
    pub(crate) fn is_retiring(&self) -> bool {
        !self.retiring.is_empty()
    }
}

impl Scheduler {
    pub(crate) fn run_memory_manager(&mut self) {}
}
