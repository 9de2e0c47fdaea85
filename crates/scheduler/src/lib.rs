//! The scheduler process around the core: listener, sessions, RPC, extensions.
//!
//! ```text
//! client/worker --frames--> session (tokio) --Event--> core thread --Effect--> session (tokio) --frames--> peer
//! ```
//!
//! Reading order: [`startup`] (configuration to a running scheduler), [`context`] (what everything
//! shares), [`core_thread`] (the one owner of the state), [`session`] (connections), [`rpc`] (the table
//! of ops) and `handlers/` (one file per op or family).

mod aside;
pub mod clients;
pub mod clock;
pub mod computations;
pub mod context;
pub mod core_thread;
mod descriptors;
pub mod exceptions;
pub mod extensions;
pub mod graph_intake;
pub mod handlers;
pub mod hooks;
pub mod http;
pub mod launcher;
pub mod listener;
pub mod memory;
pub mod nannies;
pub mod obituaries;
pub mod observers;
pub mod outbox;
pub mod peers;
pub mod plugins;
pub mod python_host;
pub mod releases;
pub mod roles;
pub mod rpc;
pub mod security;
pub mod session;
pub mod settings;
mod slice;
pub mod startup;
pub mod status_feed;
pub mod threads;
pub mod traffic;
pub mod versions;
pub mod views;
pub mod watchdog;
pub mod weight;
pub mod workers;

pub use oxidask_logging as logging;
