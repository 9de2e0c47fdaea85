//! Graph intake without Python.
//!
//! What a client submits is turned into single tasks here, by pure functions over bytes and keys:
//! nothing is executed, no I/O happens, and any input gets an answer (bounded depth, size and
//! number of steps; typed errors).
//!
//! * [`pickle`] reads pickles into an object graph and writes parts of it back as pickles of their
//!   own.
//! * [`intake`] knows what the releases of `dask` and `distributed` put into a submission, and
//!   splits it into a [`SplitGraph`] or says that only Python can ([`NeedsPython`]).
//! * [`order`] is `dask.order`: the static order of the tasks.
//! * [`calls`] reads on the worker what a run spec calls, if that is all it does.
//!
//! What a submission's fields are called on the wire is the business of `oxidask-wire`; what becomes
//! of the tasks is that of `oxidask-scheduler-core`.

pub mod calls;
pub mod intake;
pub mod order;
pub mod pickle;

pub use intake::{
    Annotation, Intake, IntakeError, NeedsPython, Spec, SplitGraph, SplitTask, TaskKind,
};
pub use pickle::emit::Pickle;
pub use pickle::plain::{PlainError, PlainValue, decode_plain};
pub use pickle::walker::{Limits, WalkError};
