//! Long work on a thread that serves connections.

use tokio::runtime::{Handle, RuntimeFlavor};

/// From so many tasks or hundreds of bytes on, work counts as long: a millisecond or more.
const LONG: usize = 2000;

/// Does work of that many tasks (or hundreds of bytes). While it is long, other threads take over what
/// this one would have served.
pub(crate) fn aside<R>(size: usize, work: impl FnOnce() -> R) -> R {
    let is_long = size >= LONG;
    let threaded = |handle: Handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread;
    if is_long && Handle::try_current().is_ok_and(threaded) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
