//! What each event does: changes, recommendations, and the transitions that follow.

mod begun_tasks;
mod clients;
mod data;
mod graph_portions;
mod graph_update;
mod tasks;
mod timers;
mod workers;

pub(crate) use timers::Timers;
pub use timers::heartbeat_interval;

use std::sync::Arc;

use crate::Scheduler;
use crate::effect::{ChangeEffect, Effect};
use crate::event::{Event, StimulusId};

impl Scheduler {
    /// Names the cause of what is done from now on; without a name of its own, `prefix` and the time.
    fn set_stimulus(&mut self, id: StimulusId, prefix: &str) {
        self.stimulus = if id.is_empty() {
            self.now.name(prefix)
        } else {
            id
        };
    }

    /// Tells observers, if there are any.
    pub(crate) fn note_change(&mut self, change: impl FnOnce(&Self) -> Option<ChangeEffect>) {
        if self.observe_changes
            && let Some(change) = change(self)
        {
            self.out.push(Effect::Change(Box::new(change)));
        }
    }

    pub(crate) fn own_stimulus(&mut self, prefix: &str) {
        self.stimulus = self.now.name(prefix);
    }

    pub(crate) fn dispatch(&mut self, event: Event) {
        match event {
            // By far the most frequent one.
            Event::TaskFinished(message) => {
                self.set_stimulus(Arc::clone(&message.stimulus_id), "task-finished");
                self.task_finished(&message);
            }
            Event::AddClient { client, name } => self.add_client(client, name),
            Event::RemoveClient {
                client,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "remove-client");
                self.remove_client(client);
            }
            Event::UpdateGraph(update) => {
                self.set_stimulus(Arc::clone(&update.stimulus_id), "update-graph");
                self.update_graph(*update);
            }
            Event::BeginGraph(outline) => self.begin_graph(*outline),
            Event::ContinueGraph(portion) => self.continue_graph(*portion),
            Event::ClientDesiresKeys { client, keys } => {
                self.own_stimulus("client-desires-keys");
                self.client_desires_keys(client, &keys);
            }
            Event::ClientReleasesKeys {
                client,
                keys,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "client-releases-keys");
                self.client_releases_keys(client, &keys);
            }
            Event::CancelKeys {
                client,
                keys,
                force,
                reason,
                msg,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "cancel-key");
                self.cancel_keys(client, &keys, force, reason, msg);
            }
            Event::RetryKeys { keys, stimulus_id } => {
                self.set_stimulus(stimulus_id, "stimulus-retry");
                self.retry_keys(&keys);
            }
            Event::ReportKey { client, key } => self.report_key(client, key),
            Event::UpdateData {
                data,
                client,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "update-data");
                self.update_data(&data, client);
            }
            Event::ObserveTransitions { enabled } => self.observe = enabled,
            Event::ObserveChanges { enabled } => self.observe_changes = enabled,
            Event::CheckIdle { busy } => self.check_idle(busy),
            Event::SetQueueable { keys, queueable } => self.set_queueable(&keys, queueable),
            Event::SetRestrictions { restrictions } => {
                self.own_stimulus("set-restrictions");
                self.set_restrictions(&restrictions);
            }
            Event::Restart { stimulus_id } => {
                self.set_stimulus(stimulus_id, "restart");
                self.restart();
            }
            event => self.dispatch_worker(event),
        }
    }

    fn dispatch_worker(&mut self, event: Event) {
        match event {
            Event::AddWorker {
                worker,
                info,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "add-worker");
                self.add_worker(worker, info);
            }
            Event::RemoveWorker {
                worker,
                expected,
                close,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "remove-worker");
                self.remove_worker(worker, expected, close);
            }
            Event::WorkerDied { worker, death } => {
                if let Some(worker) = self.workers.get_mut(worker) {
                    worker.death = Some(death);
                }
            }
            Event::Heartbeat {
                worker,
                metrics,
                executing,
            } => self.heartbeat(worker, metrics, executing),
            Event::SpansMeasured { measured } => {
                for metric in measured {
                    let (span, what) = (&metric.span, metric.what);
                    self.spans.measured(span, what, metric.value, metric.whole);
                }
            }
            Event::WorkerSeen { worker } => self.worker_seen(worker),
            Event::WorkerStatusChanged {
                worker,
                status,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "worker-status-change");
                self.worker_status_changed(worker, status);
            }
            Event::SetWorkerStatus {
                worker,
                status,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "worker-status-change");
                self.set_worker_status(worker, status);
            }
            Event::SetResources {
                worker,
                resources,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "set-resources");
                self.set_resources(worker, resources);
            }
            event => self.dispatch_task(event),
        }
    }

    fn dispatch_task(&mut self, event: Event) {
        match event {
            Event::TaskErred(message) => {
                self.set_stimulus(Arc::clone(&message.stimulus_id), "task-erred");
                self.task_erred(&message);
            }
            Event::LongRunning {
                worker,
                key,
                compute_duration,
                run_id,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "long-running");
                self.long_running(worker, &key, compute_duration, run_id);
            }
            Event::Reschedule {
                worker,
                key,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "reschedule");
                self.reschedule(worker, &key);
            }
            Event::RecomputeTasks { keys, stimulus_id } => {
                self.set_stimulus(stimulus_id, "recompute");
                self.recompute_tasks(&keys);
            }
            Event::ReleaseWorkerData {
                worker,
                key,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "release-worker-data");
                self.release_worker_data(worker, &key);
            }
            Event::AddKeys {
                worker,
                keys,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "redundant-replicas");
                self.add_keys(worker, &keys);
            }
            Event::MissingData {
                worker: _,
                key,
                errant_worker,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "missing-data");
                self.missing_data(&key, &errant_worker);
            }
            Event::RequestRefreshWhoHas {
                worker,
                keys,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "request-refresh-who-has");
                self.request_refresh_who_has(worker, &keys);
            }
            Event::RequestAcquireReplicas {
                worker,
                keys,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "acquire-replicas");
                self.request_acquire_replicas(worker, &keys);
            }
            Event::RequestRemoveReplicas {
                worker,
                keys,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "remove-replicas");
                self.request_remove_replicas(worker, &keys);
            }
            event => self.dispatch_policy(event),
        }
    }

    fn dispatch_policy(&mut self, event: Event) {
        match event {
            Event::StealResponse {
                worker,
                key,
                state,
                stimulus_id,
            } => {
                self.set_stimulus(Arc::clone(&stimulus_id), "steal");
                self.steal_response(worker, &key, state.as_deref(), &stimulus_id);
            }
            Event::KeepWorkers { workers } => self.kept_workers = workers,
            Event::Examined {
                worker,
                task,
                verdict,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "watchdog");
                self.examined(worker, task, verdict);
            }
            Event::SetStealing { enabled } => self.set_stealing(enabled),
            Event::SetMemoryManager { enabled } => self.memory_manager.running = enabled,
            Event::RunMemoryManager => self.run_memory_manager(true),
            Event::RetireWorker {
                worker,
                stimulus_id,
            } => {
                self.set_stimulus(stimulus_id, "retire-workers");
                self.retire_worker(worker);
            }
            // Every other event is handled by one of the functions above.
            _ => {}
        }
    }
}
