//! The worker around its state machine: what `oxidask-worker-core` decides is done here, on tokio and
//! without Python.
//!
//! From the outside in: [`host`] starts everything and is the handle that threads of Python hold;
//! `registration` and [`scheduler`]: letting in, and the stream; `retiring`: leaving in order; `heartbeat`, `metrics`, [`digests`], `ticks`; `http`; `listener` and `requests`
//! serve callers; `peers` fetches data, into memory of [`landing`], from the same machine through `near`; `desk` and `outlet` are the ways into and out of `books`, which owns
//! the state machine and the `store`; [`memory`] keeps data and process within their limits. What only Python
//! can do goes through one trait, [`interpreter::Interpreter`], which `worker-module` implements.
//!
//! Reading order: [`settings`], [`interpreter`], `books`, [`host`].
//! It must never depend on PyO3.

mod books;
mod clock;
mod desk;
pub mod digests;
pub mod error;
mod heartbeat;
pub mod host;
mod http;
pub mod interpreter;
pub mod introspection;
pub mod landing;
mod listener;
pub mod loading;
pub mod memory;
mod metrics;
mod near;
mod outlet;
mod patience;
mod peers;
mod recent;
mod registration;
mod requests;
mod retiring;
pub mod scheduler;
pub mod settings;
mod store;
pub mod ticks;
pub mod times;
pub mod transfers;
mod translate;

pub use host::{Additions, Handle, Host};
pub use interpreter::{Execution, Failure, Interpreter, Loaded, Object, Success};
pub use settings::Settings;
pub use store::{Held, Store};
