//! The table from op name to handler, for requests and for messages on the streams of clients and
//! workers, and what a handler gets and gives.
//!
//! A handler is an async function `fn(Arc<Context>, Call) -> Result<Value, RpcError>`. To add an
//! op: write it in `handlers/` (or in an extension) and register it with [`RpcTable::add`]. Ops that
//! take the connection over (`register-client`, `register-worker`, `register_nanny`,
//! `subscribe_worker_status`, `feed`) are served by `session/`.

mod args;
mod error;
mod serve;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use args::{Call, Caller, keys_of};
pub use error::RpcError;
pub use serve::{answer, error_reply, run_stream_handler};

use oxidask_wire::connection::Address;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::clients::ClientEntry;
use crate::context::Context;
use crate::roles::Roles;
use crate::workers::WorkerEntry;

/// What a handler returns.
pub type Reply = Result<Value, RpcError>;
/// A running handler.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;
/// A running stream handler.
pub type StreamFuture = Pin<Box<dyn Future<Output = Result<(), RpcError>> + Send>>;

type Handler = Box<dyn Fn(Arc<Context>, Call) -> HandlerFuture + Send + Sync>;
type StreamHandler = Box<dyn Fn(Arc<Context>, StreamPeer, Call) -> StreamFuture + Send + Sync>;

/// Whose stream a message came on.
#[derive(Clone, Debug)]
pub enum StreamPeer {
    /// A connected client.
    Client(Arc<ClientEntry>),
    /// A worker.
    Worker(Arc<WorkerEntry>),
}

impl StreamPeer {
    /// Who asks.
    pub fn caller(&self) -> Arc<Caller> {
        let (address, release, roles) = match self {
            Self::Client(client) => match &client.connection {
                Some(connection) => (&connection.peer, connection.release, connection.roles),
                None => (&client.name, Release::NEWEST, Roles::NONE),
            },
            Self::Worker(worker) => (&worker.info.address, worker.release, Roles::WORKER),
        };
        let ip = Address::parse(address)
            .ok()
            .and_then(|a| a.host.parse().ok());
        Arc::new(Caller {
            address: Arc::clone(address),
            ip,
            release,
            roles,
        })
    }
}

struct Entry {
    start: Handler,
    waits: bool,
}

/// A handler that was started.
pub struct Started {
    /// To be awaited.
    pub future: HandlerFuture,
    /// Whether it shall be dropped when the caller goes away (see [`RpcTable::add_waiting`]).
    pub waits: bool,
}

/// The ops the scheduler knows.
#[derive(Default)]
pub struct RpcTable {
    handlers: HashMap<&'static str, Entry>,
    stream_handlers: HashMap<&'static str, StreamHandler>,
}

impl RpcTable {
    /// Registers the handler of an op. The last one wins. Once started it runs to its end, also
    /// when the caller is gone: half a `restart` would be worse than one nobody waits for.
    pub fn add<F, Fut>(&mut self, op: &'static str, handler: F)
    where
        F: Fn(Arc<Context>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        let start: Handler = Box::new(move |context, call| Box::pin(handler(context, call)));
        self.handlers.insert(
            op,
            Entry {
                start,
                waits: false,
            },
        );
    }

    /// Registers the handler of an op that waits for other peers (`queue_get`, `event_wait`, …):
    /// it is dropped when the caller's connection ends, so that nothing is given to the dead.
    pub fn add_waiting<F, Fut>(&mut self, op: &'static str, handler: F)
    where
        F: Fn(Arc<Context>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        let start: Handler = Box::new(move |context, call| Box::pin(handler(context, call)));
        self.handlers.insert(op, Entry { start, waits: true });
    }

    /// Registers the handler of a stream op that is not part of the typed messages
    /// (`subscribe-topic`, `queue_release`, `pubsub-msg`, …). Handlers of one stream run one after
    /// the other, in the order of the messages.
    pub fn add_stream<F, Fut>(&mut self, op: &'static str, handler: F)
    where
        F: Fn(Arc<Context>, StreamPeer, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), RpcError>> + Send + 'static,
    {
        self.stream_handlers.insert(
            op,
            Box::new(move |context, peer, call| Box::pin(handler(context, peer, call))),
        );
    }

    /// Starts the handler of `call.op`; nothing when the op is unknown.
    pub fn start(&self, context: &Arc<Context>, call: Call) -> Option<Started> {
        let entry = self.handlers.get(&*call.op)?;
        Some(Started {
            future: (entry.start)(Arc::clone(context), call),
            waits: entry.waits,
        })
    }

    /// Starts the stream handler of `call.op`; nothing when the op is unknown.
    pub fn start_stream(
        &self,
        context: &Arc<Context>,
        peer: StreamPeer,
        call: Call,
    ) -> Option<StreamFuture> {
        let handler = self.stream_handlers.get(&*call.op)?;
        Some(handler(Arc::clone(context), peer, call))
    }

    /// Whether an op is known on streams.
    pub fn knows_stream(&self, op: &str) -> bool {
        self.stream_handlers.contains_key(op)
    }

    /// Whether an op can be requested.
    pub fn knows(&self, op: &str) -> bool {
        self.handlers.contains_key(op)
    }
}
