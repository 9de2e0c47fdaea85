//! What an extension (Queue, Lock, event log, …) offers and wants to know. Extensions own their
//! state, register their ops, and are told of what happens around them; they never reach into each
//! other.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::effect::TransitionEffect;
use oxidask_wire::value::Value;

use crate::clients::ClientEntry;
use crate::context::Context;
use crate::rpc::RpcTable;
use crate::workers::WorkerEntry;

/// An extension of the scheduler. All hooks are called from tasks of the I/O runtime, in the order
/// in which things happened; they must not block.
pub trait Extension: Send + Sync {
    /// Registers the ops. Called once, before the scheduler listens.
    fn register(self: Arc<Self>, table: &mut RpcTable);

    /// The scheduler is up; periodic work may be spawned.
    fn started(&self, _context: &Arc<Context>) {}

    /// A client connected.
    fn client_added(&self, _context: &Arc<Context>, _client: &Arc<ClientEntry>) {}

    /// A client is gone (its interests are already released).
    fn client_removed(&self, _context: &Arc<Context>, _client: &Arc<ClientEntry>) {}

    /// A worker registered.
    fn worker_added(&self, _context: &Arc<Context>, _worker: &Arc<WorkerEntry>) {}

    /// A worker is gone.
    fn worker_removed(
        &self,
        _context: &Arc<Context>,
        _worker: &Arc<WorkerEntry>,
        _stimulus_id: &str,
    ) {
    }

    /// `heartbeat_worker.extensions[name]` of a worker arrived for this extension.
    fn heartbeat(
        &self,
        _context: &Arc<Context>,
        _worker: &Arc<WorkerEntry>,
        _name: &str,
        _data: &Value,
    ) {
    }

    /// A client submitted a graph with these outputs.
    fn graph_updated(&self, _context: &Arc<Context>, _keys: &[Key]) {}

    /// A task changed state (only while transitions are observed).
    fn transition(&self, _context: &Arc<Context>, _transition: &TransitionEffect) {}

    /// All tasks were forgotten (`restart`).
    fn restarted(&self, _context: &Arc<Context>) {}

    /// Metrics for `/metrics`.
    fn metrics(&self) -> Vec<crate::http::Family> {
        Vec::new()
    }

    /// Something is to be written to the event log under these topics. The extension that keeps
    /// the log implements it.
    fn log_event(&self, _context: &Arc<Context>, _topics: &[Arc<str>], _event: &Value) {}
}
