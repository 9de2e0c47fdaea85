//! What is done with hostile bytes: one function per target, called by libFuzzer (`fuzz/`,
//! `cargo xtask fuzz`) and by `tests/corpus.rs` with the inputs of `fuzz/corpus`.
//!
//! A target returns whatever the bytes are; a panic is a finding, and so is a wrong answer that it
//! asserts against. Nothing here touches files, sockets or the real clock.

mod configuration;
mod frames;
mod http;
mod messages;
mod pickles;

pub use configuration::configuration;
pub use frames::frames;
pub use http::http;
pub use messages::messages;
pub use pickles::pickles;

use std::future::Future;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

/// A function of bytes.
pub type Target = fn(&[u8]);

/// All targets by name; each has a file in `fuzz/fuzz_targets` and a folder in `fuzz/corpus`.
pub const TARGETS: [(&str, Target); 5] = [
    ("frames", frames),
    ("messages", messages),
    ("pickles", pickles),
    ("configuration", configuration),
    ("http", http),
];

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
}

/// Runs with a clock that jumps when everybody waits.
fn run<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// The first byte, for choices, and the rest.
fn choice(data: &[u8]) -> (u8, &[u8]) {
    match data.split_first() {
        Some((first, rest)) => (*first, rest),
        None => (0, data),
    }
}

/// Cuts bytes into byte strings with their lengths in front (four bytes, little-endian). The last
/// one may be shorter than promised.
fn pieces(data: &[u8]) -> Vec<Bytes> {
    let mut data = Bytes::copy_from_slice(data);
    let mut pieces = Vec::new();
    while data.len() >= 4 {
        let head = data.split_to(4);
        let length = head
            .iter()
            .rev()
            .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        pieces.push(data.split_to(length.min(data.len())));
    }
    pieces
}
