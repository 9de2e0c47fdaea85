//! Registering methods of an extension as ops.

use std::future::Future;
use std::sync::Arc;

use crate::context::Context;
use crate::rpc::{Call, Reply, RpcError, RpcTable, StreamPeer};

/// The op table, as seen by one extension.
pub(crate) struct Ops<'a, E> {
    table: &'a mut RpcTable,
    extension: Arc<E>,
}

impl<'a, E: Send + Sync + 'static> Ops<'a, E> {
    /// Ops of `extension`.
    pub(crate) fn new(table: &'a mut RpcTable, extension: Arc<E>) -> Self {
        Self { table, extension }
    }

    /// A request that is answered at once.
    pub(crate) fn request<F, Fut>(&mut self, op: &'static str, method: F) -> &mut Self
    where
        F: Fn(Arc<E>, Arc<Context>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        let extension = Arc::clone(&self.extension);
        self.table.add(op, move |context, call| {
            method(Arc::clone(&extension), context, call)
        });
        self
    }

    /// A request that waits for other peers; dropped when its caller goes away.
    pub(crate) fn waiting<F, Fut>(&mut self, op: &'static str, method: F) -> &mut Self
    where
        F: Fn(Arc<E>, Arc<Context>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        let extension = Arc::clone(&self.extension);
        self.table.add_waiting(op, move |context, call| {
            method(Arc::clone(&extension), context, call)
        });
        self
    }

    /// A message on the stream of a client or a worker.
    pub(crate) fn stream<F>(&mut self, op: &'static str, method: F) -> &mut Self
    where
        F: Fn(&Arc<E>, &Arc<Context>, &StreamPeer, Call) -> Result<(), RpcError>
            + Send
            + Sync
            + 'static,
    {
        let extension = Arc::clone(&self.extension);
        self.table.add_stream(op, move |context, peer, call| {
            let done = method(&extension, &context, &peer, call);
            async { done }
        });
        self
    }
}

/// Who a stream message speaks for: the client whose stream it is. `None` on a worker's stream.
pub(crate) fn client_name(peer: &StreamPeer) -> Option<&str> {
    match peer {
        StreamPeer::Client(client) => Some(&client.name),
        StreamPeer::Worker(_) => None,
    }
}
