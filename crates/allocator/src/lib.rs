//! The allocator of every program with the scheduler inside: `dask-scheduler` and `oxidask`. A crate of its own, since
//! whatever links it gets this allocator, which fuzzers and tests must not.

/// Half of what a task costs is small pieces of memory that come on one thread and go on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// SAFETY: mimalloc's own declaration; any thread may call it at any time.
unsafe extern "C" {
    /// Gives what is free back to the system.
    safe fn mi_collect(force: bool);
}

/// Gives what is free back to the system, which takes milliseconds.
pub fn give_back() {
    mi_collect(true);
}
