//! What several transitions do.

use std::sync::Arc;

use oxidask_key::Key;

use crate::Scheduler;
use crate::effect::{ClientMsg, ComputeTask, Effect, TaskError, WorkerMsg};
use crate::event::{StimulusId, TaskFinished};
use crate::ids::{ClientId, RunId, TaskId, WorkerId};
use crate::state::{Failure, ReleaseId, TaskQueue};
use crate::story::ErredTask;
use crate::task::TaskState;

use super::Cause;

/// How many failures are remembered for [`Scheduler::erred_tasks`].
const ERRED_TASKS: usize = 100;

impl Scheduler {
    pub(crate) fn set_state(&mut self, id: TaskId, state: TaskState) {
        let task = &mut self.tasks[id];
        let old = std::mem::replace(&mut task.state, state);
        self.groups.change_state(task.group, old, state);
    }

    /// Appends a message to a worker; nothing if it is gone.
    pub(crate) fn send(&mut self, worker: WorkerId, message: impl FnOnce(StimulusId) -> WorkerMsg) {
        if self.workers.is_live(worker) {
            let mut message = Some(message(Arc::clone(&self.stimulus)));
            if !self.orders.is_empty() {
                message = message.and_then(|message| self.orders.put_behind(worker, message));
            }
            let effect = message.map(|message| Effect::ToWorker(worker, message));
            self.out.extend(effect);
        }
    }

    /// Appends a message to a client.
    pub(crate) fn tell(&mut self, client: ClientId, message: ClientMsg) {
        if self.clients.fire_and_forget != Some(client) {
            self.out.push(Effect::ToClient(client, message));
        }
    }

    /// Appends a message to every client that wants the task.
    pub(crate) fn tell_who_wants(&mut self, id: TaskId, message: impl Fn(Key) -> ClientMsg) {
        let who_wants = std::mem::take(&mut self.tasks[id].who_wants);
        for client in who_wants.iter() {
            let key = self.tasks[id].key.clone();
            self.tell(client, message(key));
        }
        self.tasks[id].who_wants = who_wants;
    }

    /// The queue of a release, made on first need.
    pub(crate) fn queue_mut(&mut self, release: ReleaseId) -> &mut TaskQueue {
        let at = usize::from(release.0);
        if self.queues.len() <= at {
            self.queues.resize_with(at + 1, TaskQueue::default);
        }
        &mut self.queues[at]
    }

    pub(crate) fn get_nbytes(&self, id: TaskId) -> i64 {
        let nbytes = self.tasks[id].nbytes;
        if nbytes >= 0 {
            nbytes
        } else {
            self.default_nbytes
        }
    }

    pub(crate) fn set_nbytes(&mut self, id: TaskId, nbytes: i64) {
        let task = &mut self.tasks[id];
        let diff = nbytes - task.nbytes.max(0);
        // Holders counted the default while the size was unknown.
        let held = if task.nbytes >= 0 {
            diff
        } else {
            nbytes - self.default_nbytes
        };
        task.nbytes = nbytes;
        self.groups.update_nbytes(task.group, diff);
        for worker in self.tasks[id].who_has.iter() {
            self.workers[worker].nbytes += held;
        }
    }

    /// Sends a ready task to a worker.
    pub(crate) fn add_to_processing(&mut self, id: TaskId, worker: WorkerId) {
        self.worker_add_to_processing(id, worker);
        self.tasks[id].processing_on = Some(worker).into();
        self.set_state(id, TaskState::Processing);
        self.use_resources(id, worker, 1.0);
        self.check_idle_saturated(worker, None);
        self.n_tasks += 1;
        if self.tasks[id].actor {
            self.workers[worker].actors.insert(id);
        }
        if !self.is_ordered_later(id) {
            let inputs = self.tasks[id].dependencies.iter();
            let bytes = inputs.map(|d| i128::from(self.tasks[d].nbytes)).sum();
            if let Some(message) = self.too_large_for(id, worker, bytes) {
                let message = message.into();
                return self.refuse_order(id, worker, TaskError::Memory { message });
            }
        }
        self.send_task(id, worker);
    }

    /// The task fails before the worker hears of it.
    pub(super) fn refuse_order(&mut self, id: TaskId, worker: WorkerId, error: TaskError) {
        let address = Arc::clone(self.workers[worker].address());
        let failure = Arc::new(Failure {
            task: self.tasks[id].key.clone(),
            error,
        });
        self.transition(
            id,
            TaskState::Erred,
            Cause::Failed {
                failure: &failure,
                worker: Some(&address),
                raw: None,
            },
        );
    }

    /// Why the inputs of the task, so many bytes, cannot fit the worker, if they cannot.
    pub(super) fn too_large_for(
        &self,
        id: TaskId,
        worker: WorkerId,
        bytes: i128,
    ) -> Option<String> {
        let limit = self.workers[worker].info.memory_limit;
        if limit == 0 || !self.config.memory_terminate || bytes <= i128::from(limit) {
            return None;
        }
        let task = &self.tasks[id];
        let mut message = format!(
            "Task {} has {} worth of input dependencies, but worker {} has memory_limit set to {}.",
            task.key.repr(),
            format_bytes(bytes as f64),
            self.workers[worker].address(),
            format_bytes(limit as f64),
        );
        if task.dependents.is_empty() {
            message.push_str(
                " It seems like you called client.compute() on a huge collection. Consider \
                 writing to distributed storage or slicing/reducing first.",
            );
        }
        Some(message)
    }

    /// Appends the order to run the task, under a new run id.
    pub(crate) fn send_task(&mut self, id: TaskId, worker: WorkerId) {
        let run_id = self.next_run_id;
        self.next_run_id += 1;
        self.tasks[id].run_id = run_id;
        let stimulus_id = self.compute_stimulus();
        let task = &self.tasks[id];
        let Some(run_spec) = task.run_spec.clone() else {
            self.violation(format!("{:?} has nothing to run", self.tasks[id].key));
            return;
        };
        let group = self.groups.group(task.group);
        let later = self.is_ordered_later(id);
        let mut who_has = Vec::with_capacity(task.dependencies.len());
        let mut nbytes = Vec::with_capacity(task.dependencies.len());
        for dependency in task.dependencies.iter().filter(|_| !later) {
            let size = self.get_nbytes(dependency).max(0) as u64;
            let dependency = &self.tasks[dependency];
            let holders = self.addresses(&dependency.who_has);
            who_has.push((dependency.key.clone(), holders));
            nbytes.push((dependency.key.clone(), size));
        }
        let restrictions = task.restrictions.as_ref();
        let message = Box::new(ComputeTask {
            key: task.key.clone(),
            run_id: RunId(run_id),
            priority: task.priority.wire(),
            duration: self.prefix_duration(group.prefix),
            run_spec,
            unproven: group.start == 0.0 || task.suspicious() > 0,
            who_has,
            nbytes,
            resource_restrictions: restrictions
                .filter(|r| !r.resources.is_empty())
                .map(|r| Arc::clone(&r.resources)),
            actor: task.actor,
            annotations: task
                .options
                .as_ref()
                .and_then(|o| o.annotations.as_ref())
                .map(|a| a.0.clone()),
            span_id: group.span_id.clone(),
            stimulus_id,
        });
        if later {
            self.begin_order(id, worker, message);
        } else {
            self.send(worker, |_| WorkerMsg::ComputeTask(message));
        }
    }

    /// What the worker gets as cause: its own log is about what it was told, not why.
    fn compute_stimulus(&mut self) -> StimulusId {
        let last = &mut self.compute_stimulus;
        if last.0 != self.now {
            *last = (self.now, self.now.name("compute-task"));
        }
        Arc::clone(&last.1)
    }

    /// Addresses of workers, as messages want them.
    pub(crate) fn addresses(&self, workers: &crate::sets::IdSet<WorkerId>) -> Vec<Arc<str>> {
        workers
            .iter()
            .map(|w| Arc::clone(self.workers[w].address()))
            .collect()
    }

    /// Takes the task off its worker; the worker, if it is still registered.
    pub(crate) fn exit_processing(&mut self, id: TaskId) -> Option<WorkerId> {
        let worker = self.tasks[id].processing_on.take()?;
        self.worker_remove_from_processing(id, worker);
        if !self.workers.is_live(worker) {
            return None;
        }
        self.check_idle_saturated(worker, None);
        self.use_resources(id, worker, -1.0);
        Some(worker)
    }

    /// The result is on the worker that computed it: tell, and let follow what waited for it.
    pub(crate) fn add_to_memory(&mut self, id: TaskId, message: &TaskFinished) {
        self.add_replica(id, message.worker);
        self.recommend_ready_dependents(id);
        self.release_used_dependencies(id);
        if self.tasks[id].is_needed() {
            self.tell_who_wants(id, |key| ClientMsg::KeyInMemory {
                key,
                type_: message.type_.clone(),
            });
        } else {
            self.recommend(id, TaskState::Released);
        }
        self.set_state(id, TaskState::Memory);
        let group = self.tasks[id].group;
        let typename = self.groups.add_type(group, &message.typename);
        self.tasks[id].typename = typename;
        self.release_fire_and_forget(id);
    }

    pub(crate) fn recommend_ready_dependents(&mut self, id: TaskId) {
        let dependents = std::mem::take(&mut self.tasks[id].dependents);
        let mut ready: Vec<TaskId> = Vec::new();
        for dependent in dependents.iter() {
            let task = &mut self.tasks[dependent];
            if task.waiting_on.remove(id) && task.waiting_on.is_empty() && !task.incomplete {
                ready.push(dependent);
            }
        }
        self.tasks[id].dependents = dependents;
        // The last recommendation is followed first.
        ready.sort_by(|&a, &b| self.tasks[b].priority.cmp(&self.tasks[a].priority));
        for dependent in ready {
            self.recommend(dependent, TaskState::Processing);
        }
    }

    pub(crate) fn release_used_dependencies(&mut self, id: TaskId) {
        let dependencies = std::mem::take(&mut self.tasks[id].dependencies);
        let later = self.lets_go_later(dependencies.len());
        for dependency in dependencies.iter() {
            let task = &mut self.tasks[dependency];
            task.waiters.remove(id);
            if task.can_be_let_go() {
                self.let_go(dependency, TaskState::Released, later);
            }
        }
        self.tasks[id].dependencies = dependencies;
    }

    fn release_fire_and_forget(&mut self, id: TaskId) {
        if let Some(client) = self.clients.fire_and_forget
            && self.tasks[id].who_wants.contains(client)
        {
            self.release_from_client(id, client);
        }
    }

    pub(crate) fn propagate_released(&mut self, id: TaskId) {
        self.set_state(id, TaskState::Released);
        let task = &mut self.tasks[id];
        if !task.has_lost_dependencies && task.is_needed() {
            self.recommend(id, TaskState::Waiting);
            return;
        }
        if task.has_lost_dependencies {
            self.recommend(id, TaskState::Forgotten);
        }
        let dependencies = std::mem::take(&mut self.tasks[id].dependencies);
        let later = self.lets_go_later(dependencies.len());
        for dependency in dependencies.iter() {
            let task = &mut self.tasks[dependency];
            if task.state != TaskState::Released {
                task.waiters.remove(id);
                if task.can_be_let_go() {
                    self.let_go(dependency, TaskState::Released, later);
                }
            }
        }
        let task = &mut self.tasks[id];
        task.dependencies = dependencies;
        task.waiters.clear();
    }

    /// The task failed, by itself or with a dependency: so do those that wait for it.
    pub(crate) fn propagate_erred(&mut self, id: TaskId, cause: Cause<'_>) {
        self.set_state(id, TaskState::Erred);
        if let Cause::Failed {
            failure, worker, ..
        } = cause
        {
            let rare = self.tasks[id].rare.get_or_insert_default();
            rare.blame = Some(Arc::clone(failure));
            if let Some(worker) = worker
                && !rare.erred_on.contains(worker)
            {
                rare.erred_on.push(Arc::clone(worker));
            }
        }
        let Some(failure) = self.tasks[id].blame().cloned() else {
            self.violation(format!("{:?} fails without a cause", self.tasks[id].key));
            return;
        };
        self.remember_erred(id, &failure);

        for waiter in std::mem::take(&mut self.tasks[id].waiters).iter() {
            self.tasks[waiter].set_blame(Some(Arc::clone(&failure)));
            self.recommend(waiter, TaskState::Erred);
        }
        self.release_used_dependencies(id);
        self.tell_who_wants(id, |key| ClientMsg::TaskErred {
            key,
            error: failure.error.clone(),
        });
        self.release_fire_and_forget(id);
    }

    fn remember_erred(&mut self, id: TaskId, failure: &Arc<Failure>) {
        let task = &self.tasks[id];
        let entry = ErredTask {
            key: task.key.clone(),
            time: self.now,
            erred_on: task
                .rare
                .as_ref()
                .map(|r| r.erred_on.clone())
                .unwrap_or_default(),
            error: failure.error.clone(),
        };
        self.erred_tasks.push_front(entry);
        self.erred_tasks.truncate(ERRED_TASKS);
    }

    /// The task is to go: cut it out of the graph.
    pub(crate) fn propagate_forgotten(&mut self, id: TaskId) {
        self.set_state(id, TaskState::Forgotten);
        for dependent in std::mem::take(&mut self.tasks[id].dependents).iter() {
            let task = &mut self.tasks[dependent];
            task.has_lost_dependencies = true;
            task.dependencies.remove(id);
            task.waiting_on.remove(id);
            let processing_on = task.processing_on.get();
            if !matches!(task.state, TaskState::Memory | TaskState::Erred) {
                self.recommend(dependent, TaskState::Forgotten);
            }
            if let Some(worker) = processing_on {
                self.forget_need(id, worker);
            }
        }
        self.tasks[id].waiters.clear();
        let dependencies = std::mem::take(&mut self.tasks[id].dependencies);
        let later = self.lets_go_later(dependencies.len());
        for dependency in dependencies.iter() {
            let task = &mut self.tasks[dependency];
            task.dependents.remove(id);
            task.waiters.remove(id);
            if task.is_loose_end() {
                self.let_go(dependency, TaskState::Forgotten, later);
            }
        }
        self.tasks[id].waiting_on.clear();
        self.free_on_holders(id);
        self.remove_all_replicas(id);
    }

    /// Takes the task out of the table.
    pub(crate) fn forget(&mut self, id: TaskId) {
        self.tell_who_wants(id, |key| ClientMsg::CancelledKeys {
            keys: vec![key],
            reason: Some("already forgotten".into()),
            msg: None,
        });
        self.unrunnable.remove(id);
        self.stealing_forget(id);
        if let Some(task) = self.tasks.remove(id) {
            if task.to_come > 0 || task.incomplete {
                self.open_graphs.forget(id);
            }
            for client in task.who_wants.iter() {
                if let Some(client) = self.clients.get_mut(client) {
                    client.wants_what.remove(id);
                }
            }
        }
    }

    /// The client no longer wants the task.
    pub(crate) fn release_from_client(&mut self, id: TaskId, client: ClientId) {
        if self.unwant(id, client) {
            self.interest_was_lost(id);
        }
    }

    /// Takes note that the client no longer wants the task; `false` if it did not.
    pub(crate) fn unwant(&mut self, id: TaskId, client: ClientId) -> bool {
        let client_of = self.clients.get_mut(client);
        let wanted = client_of.is_some_and(|c| c.wants_what.remove(id));
        if wanted {
            self.tasks[id].who_wants.remove(client);
        }
        wanted
    }

    /// Recommends what follows if nobody needs the task any more.
    pub(crate) fn interest_was_lost(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(id).filter(|task| task.who_wants.is_empty()) else {
            return;
        };
        if task.is_loose_end() {
            self.recommend(id, TaskState::Forgotten);
        } else if task.can_be_let_go() {
            self.recommend(id, TaskState::Released);
        }
    }

    pub(crate) fn free_on_holders(&mut self, id: TaskId) {
        let who_has = std::mem::take(&mut self.tasks[id].who_has);
        for worker in who_has.iter() {
            let keys = vec![self.tasks[id].key.clone()];
            self.send(worker, |stimulus_id| WorkerMsg::FreeKeys {
                keys,
                stimulus_id,
            });
        }
        self.tasks[id].who_has = who_has;
    }
}

/// Dask's way to print sizes, e.g. `1.00 GiB`.
pub(crate) fn format_bytes(n: f64) -> String {
    const UNITS: [(&str, i32); 5] = [("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("ki", 10)];
    for (prefix, exponent) in UNITS {
        let unit = 2f64.powi(exponent);
        if n >= unit * 0.9 {
            return format!("{:.2} {prefix}B", n / unit);
        }
    }
    format!("{n:.0} B")
}
