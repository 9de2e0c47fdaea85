//! Reading and writing pickles without running anything.
//!
//! [`opcodes`] names the opcodes, [`arena`] holds the object graph that a pickle describes,
//! [`walker`] reads a pickle into it, [`emit`] writes a part of it back as a pickle of its own,
//! [`plain`] turns nodes into keys and plain values, [`prefix`] finds what pickles have in common again,
//! [`scan`] looks at the opcodes only.
//! Nothing in here knows Dask.

pub mod arena;
pub mod emit;
pub mod opcodes;
pub mod plain;
pub mod prefix;
pub mod scan;
pub mod walker;
