//! Simulated peers for tests and benchmarks. Nothing here is part of a shipped binary.
//!
//! Reading order: [`sim`] (a whole cluster around the pure scheduler core on a virtual clock),
//! [`rng`] (the one source of chance, so that a seed names a run).

pub mod rng;
pub mod sim;
