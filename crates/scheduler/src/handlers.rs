//! The ops of the scheduler itself, one file per op or family, and their table.

pub mod adaptive;
pub mod broadcast;
pub mod call_stack;
pub mod gather;
pub mod identity;
pub mod idle;
pub mod logs;
pub mod plugins;
pub mod restart;
pub mod worker;

use crate::rpc::RpcTable;

/// Registers all of them.
pub fn register(table: &mut RpcTable) {
    table.add("adaptive_target", adaptive::adaptive_target);
    table.add("workers_to_close", adaptive::workers_to_close);
    table.add("call_stack", call_stack::call_stack);
    table.add("logs", logs::logs);
    table.add("worker_logs", logs::worker_logs);
    table.add("identity", identity::identity);
    table.add("broadcast", broadcast::broadcast);
    table.add("gather", gather::gather);
    table.add("proxy", broadcast::proxy);
    table.add("register_worker_plugin", plugins::register_worker_plugin);
    table.add(
        "unregister_worker_plugin",
        plugins::unregister_worker_plugin,
    );
    table.add("register_nanny_plugin", plugins::register_nanny_plugin);
    table.add("unregister_nanny_plugin", plugins::unregister_nanny_plugin);
    table.add("restart", restart::restart);
    table.add("restart_workers", restart::restart_workers);
    table.add("check_idle", idle::check_idle);
    table.add("heartbeat_worker", worker::heartbeat_worker);
}
