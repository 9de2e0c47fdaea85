//! What the HTTP servers of the scheduler and of workers share: opening ports ([`listen`]), connections
//! that somebody else has accepted ([`connection`]), Prometheus' formats ([`openmetrics`]), figures of the
//! process ([`process`]) and bits of markup ([`html`]).
//!
//! Not here: any page, and what a page shows.

pub mod connection;
pub mod html;
pub mod listen;
pub mod openmetrics;
pub mod process;
