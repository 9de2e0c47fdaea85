//! The ops of the scheduler itself, one file per op or family, and their table.

pub mod benchmark;
pub mod broadcast;
pub mod call_stack;
pub mod cluster_state;
pub mod dump;
pub mod gather;
pub mod identity;
pub mod idle;
pub mod logs;
pub mod plugins;
pub mod profile;
pub mod queries;
pub mod replicate;
pub mod restart;
pub mod retire;
pub mod scatter;
pub mod stimuli;
pub mod task_stream;
pub mod worker;

use crate::rpc::RpcTable;

/// Registers all of them.
pub fn register(table: &mut RpcTable) {
    register_questions(table);
    register_changes(table);
    table.add("broadcast", broadcast::broadcast);
    table.add("proxy", broadcast::proxy);
    table.add("worker_logs", logs::worker_logs);
    table.add("gather", gather::gather);
    table.add("scatter", scatter::scatter);
    table.add("replicate", replicate::replicate);
    table.add("rebalance", replicate::rebalance);
    table.add("retire_workers", retire::retire_workers);
    table.add("workers_to_close", retire::workers_to_close);
    table.add("adaptive_target", retire::adaptive_target);
    table.add("call_stack", call_stack::call_stack);
    table.add("profile", profile::profile);
    table.add("benchmark_hardware", benchmark::benchmark_hardware);
    table.add("dump_cluster_state_to_url", dump::dump_cluster_state_to_url);
    table.add("register_worker_plugin", plugins::register_worker_plugin);
    table.add(
        "unregister_worker_plugin",
        plugins::unregister_worker_plugin,
    );
    table.add("register_nanny_plugin", plugins::register_nanny_plugin);
    table.add("unregister_nanny_plugin", plugins::unregister_nanny_plugin);
    table.add("heartbeat_worker", worker::heartbeat_worker);
}

fn register_questions(table: &mut RpcTable) {
    table.add("identity", identity::identity);
    table.add("versions", queries::versions);
    table.add("who_has", queries::who_has);
    table.add("has_what", queries::has_what);
    table.add("processing", queries::processing);
    table.add("ncores", queries::ncores);
    table.add("ncores_running", queries::ncores_running);
    table.add("nbytes", queries::nbytes);
    table.add("get_task_status", queries::get_task_status);
    table.add("get_task_prefix_states", queries::get_task_prefix_states);
    table.add("get_story", queries::get_story);
    table.add("get_logs", logs::logs);
    table.add("logs", logs::logs);
    table.add("get_cluster_state", cluster_state::get_cluster_state);
    table.add("check_idle", idle::check_idle);
}

fn register_changes(table: &mut RpcTable) {
    table.add("cancel", stimuli::cancel);
    table.add("retry", stimuli::retry);
    table.add("update_data", stimuli::update_data);
    table.add("set_restrictions", stimuli::set_restrictions);
    table.add("add_keys", stimuli::add_keys);
    table.add("set_resources", stimuli::set_resources);
    table.add("unregister", stimuli::unregister);
    table.add("amm_handler", stimuli::amm_handler);
    table.add("amm_start", stimuli::amm_start);
    table.add("amm_stop", stimuli::amm_stop);
    table.add("amm_run_once", stimuli::amm_run_once);
    table.add("terminate", stimuli::terminate);
    table.add("restart", restart::restart);
    table.add("restart_workers", restart::restart_workers);
}
