//! The Python host against real interpreters with stock `dask` and `distributed`.
//!
//! `OXIDASK_PY_2_30_1`, `OXIDASK_PY_2022_12_0` and `OXIDASK_PY_2026_8_0` name the interpreters; a
//! test whose interpreter is not given says so and passes.

mod expansion;
mod stock;
