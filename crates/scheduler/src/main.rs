//! `dask-scheduler`.
fn main() {}
