//! What the threads for tasks write of themselves for the nanny (`oxidask_supervision::ledger`).

use std::cell::RefCell;
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_supervision::ledger::{Ledger, Slot};

thread_local! {
    /// Of a thread for tasks that has had one.
    static SLOT: RefCell<Option<Slot>> = const { RefCell::new(None) };
}

/// This thread begins to run a task.
pub(crate) fn begins(ledger: &Arc<Ledger>, key: &Key) {
    SLOT.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = ledger.slot();
        }
        if let Some(slot) = slot {
            match key {
                Key::Str(text) => slot.fill(text),
                key => slot.fill(&key.repr()),
            }
        }
    });
}

/// There is nothing to do for this thread.
pub(crate) fn rests() {
    SLOT.with_borrow_mut(|slot| {
        if let Some(slot) = slot {
            slot.empty();
        }
    });
}
