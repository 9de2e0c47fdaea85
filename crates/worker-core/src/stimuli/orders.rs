//! What the scheduler says about tasks: run, give back, forget.

use oxidask_key::Key;

use crate::Worker;
use crate::effect::SchedulerMsg;
use crate::event::{ComputeTask, Replica};
use crate::ids::TaskId;
use crate::state::Priority;
use crate::story::Step;
use crate::task::TaskState::*;

impl Worker {
    pub(super) fn compute_task(&mut self, order: Box<ComputeTask>) {
        let id = self.tasks.ensure(&order.key, self.config.default_data_size);
        self.log(order.key.clone(), Step::Told("compute-task"));
        match self.tasks[id].state {
            Memory => {
                let nbytes = self.tasks[id].nbytes;
                self.tell(SchedulerMsg::TaskFinished {
                    key: order.key,
                    run_id: order.run_id,
                    nbytes,
                    report: None,
                });
            }
            Executing | LongRunning => self.rename_run(id, &order),
            _ => {
                self.release(id);
                self.accept(id, order);
            }
        }
    }

    /// The task runs already, under another assignment. It was not freed since, so it is the same task,
    /// and its outcome answers this order.
    fn rename_run(&mut self, id: TaskId, order: &ComputeTask) {
        let task = &mut self.tasks[id];
        let renamed = task.run_id != order.run_id || task.orphaned;
        task.run_id = order.run_id;
        task.orphaned = false;
        if renamed && task.state == LongRunning {
            // In that assignment the scheduler counts it among those that take a slot.
            let key = task.key.clone();
            self.tell(SchedulerMsg::LongRunning {
                key,
                run_id: order.run_id,
                compute_duration: None,
            });
        }
    }

    fn accept(&mut self, id: TaskId, mut order: Box<ComputeTask>) {
        self.forget_holders(id);
        let priority = Priority::new(order.priority, self.turn);
        self.turn -= 1;
        let task = &mut self.tasks[id];
        task.priority = priority;
        task.run_id = order.run_id;
        task.actor = order.actor;
        self.set_state(id, Waiting);
        for input in &mut order.inputs {
            self.link_input(id, priority, input);
        }
        let task = &mut self.tasks[id];
        task.order = Some(order);
        if task.waiting_on == 0 {
            self.make_ready(id);
        }
    }

    fn link_input(&mut self, id: TaskId, priority: Priority, input: &mut Replica) {
        let who_has = std::mem::take(&mut input.who_has);
        let dependency = self.tasks.ensure(&input.key, self.config.default_data_size);
        // A task that needs itself can never run; it would only wait for ever in a more confusing way.
        if dependency == id || !self.tasks[dependency].dependents.insert(id) {
            return;
        }
        self.tasks[id].dependencies.push(dependency);
        if self.tasks[dependency].state != Memory {
            self.tasks[id].waiting_on += 1;
            self.want_data(dependency, priority, input.nbytes, &who_has);
        }
    }

    /// The data is needed here from now on, and not here yet.
    pub(super) fn want_data(
        &mut self,
        id: TaskId,
        priority: Priority,
        nbytes: Option<u64>,
        who_has: &[std::sync::Arc<str>],
    ) {
        let task = &mut self.tasks[id];
        if let Some(nbytes) = nbytes
            && !task.state.is_pending()
            && !task.state.is_running()
        {
            task.nbytes = nbytes;
        }
        self.raise_priority(id, priority);
        match self.tasks[id].state {
            // It failed here; but the scheduler says that somebody has it.
            Error => self.release(id),
            Cancelled => self.set_state(id, Flight),
            _ => {}
        }
        self.set_who_has(id, who_has);
        self.settle(id);
    }

    pub(super) fn free_keys(&mut self, keys: &[Key]) {
        for key in keys {
            let Some(id) = self.tasks.id(key) else {
                continue;
            };
            self.log(key.clone(), Step::Told("free-keys"));
            self.tasks[id].acquire = false;
            self.release(id);
            self.settle(id);
        }
    }

    pub(super) fn cancel_compute(&mut self, key: &Key) {
        if let Some(id) = self.tasks.id(key)
            && self.tasks[id].state.is_pending()
        {
            self.log(key.clone(), Step::Told("cancel-compute"));
            self.release(id);
            self.settle(id);
        }
    }

    pub(super) fn steal_request(&mut self, key: Key) {
        self.log(key.clone(), Step::Told("steal-request"));
        let id = self.tasks.id(&key);
        // A transfer that nobody waits for is no knowledge of the task.
        let state = id
            .map(|id| self.tasks[id].state)
            .filter(|&s| s != Cancelled);
        self.tell(SchedulerMsg::StealResponse { key, state });
        if let Some(id) = id
            && self.tasks[id].state.is_pending()
        {
            self.release(id);
            self.settle(id);
        }
    }
}
