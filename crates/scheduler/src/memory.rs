//! Memory that is given back to the system once something large is done.

use std::sync::OnceLock;

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// How the program's allocator gives back what is free. It keeps it else for the next large thing,
/// which may never come. The first one that is named counts.
pub fn given_back_by(function: fn()) {
    let _ = GIVE_BACK.set(function);
}

/// From so many tasks on it is worth it.
const MUCH: usize = 20_000;

/// Gives back what is free on this thread once something for so many tasks is done, which takes milliseconds.
pub(crate) fn give_back_after(tasks: usize) {
    if let Some(give_back) = GIVE_BACK.get().filter(|_| tasks >= MUCH) {
        give_back();
    }
}
