//! Bytes to typed messages and back, for every release of `distributed` from 2.17.0 on.
//!
//! From the outside in: [`connection`] (sockets, framing, handshake) carries [`Message`]s (msgpack
//! and opaque [`payload`]s). Stream batches become [`message::worker::FromWorker`] and
//! [`message::client::FromClient`], requests [`rpc::Request`], everything else a [`Value`].
//! What is sent is composed by a [`Dialect`] for the release of the peer.
//!
//! Not here: what a message means. The protocol is written down in `protocol/README.md`, with
//! recorded samples beside it.

mod compression;
pub mod connection;
pub mod dialect;
pub mod error;
mod framing;
pub mod handshake;
mod legacy;
pub mod message;
pub mod msgpack;
pub mod obituary;
pub mod payload;
pub mod pickle;
pub mod release;
pub mod rpc;
pub mod value;

pub use compression::decompress;
pub use connection::Connection;
pub use dialect::Dialect;
pub use message::Message;
pub use payload::Payload;
pub use release::{Generation, Release};
pub use value::Value;
