//! Orders for tasks with very many inputs, made little by little.
//!
//! Such an order names each input and who has it, and each is something that its worker may have to fetch. Until it is
//! complete the task counts as sent, and whatever else is for that worker waits behind it.

use std::collections::VecDeque;

use crate::Scheduler;
use crate::effect::{ComputeTask, Effect, TaskError, WorkerMsg};
use crate::ids::{TaskId, WorkerId};
use crate::task::TaskState;

/// An order that is being made.
#[derive(Debug)]
pub(crate) struct Order {
    task: TaskId,
    worker: WorkerId,
    /// What the task needs, as of when it went to the worker.
    inputs: Vec<TaskId>,
    /// How many of them are in the message, and counted as to be fetched.
    done: usize,
    /// Their size.
    bytes: i128,
    /// None if the task is not the worker's any more.
    message: Option<Box<ComputeTask>>,
    /// What the worker is told after it.
    behind: Vec<WorkerMsg>,
}

/// All of them, the oldest first; mostly none.
#[derive(Debug, Default)]
pub(crate) struct Orders(VecDeque<Order>);

impl Orders {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a message for a worker behind the order for it; gives it back if there is none.
    pub(crate) fn put_behind(&mut self, worker: WorkerId, message: WorkerMsg) -> Option<WorkerMsg> {
        let mut orders = self.0.iter_mut().rev();
        match orders.find(|order| order.worker == worker) {
            Some(order) => order.behind.push(message),
            None => return Some(message),
        }
        None
    }

    /// The order for a task that is on its way to the worker.
    fn of(&mut self, task: TaskId, worker: WorkerId) -> Option<&mut Order> {
        let mut orders = self.0.iter_mut();
        orders.find(|o| o.task == task && o.worker == worker && o.message.is_some())
    }

    /// Whether the task, which is on the worker, has still to count this input as one to be fetched.
    pub(crate) fn will_count(&self, task: TaskId, worker: WorkerId, input: TaskId) -> bool {
        let mut orders = self.0.iter();
        let order = orders.find(|o| o.task == task && o.worker == worker && o.message.is_some());
        let left = order.and_then(|order| order.inputs.get(order.done..));
        left.is_some_and(|left| left.contains(&input))
    }
}

impl Scheduler {
    /// Whether the order for this task is made little by little.
    pub(crate) fn is_ordered_later(&self, id: TaskId) -> bool {
        self.tasks[id].dependencies.len() > self.config.inputs_at_once.max(1)
    }

    /// Begins to make the order `message`.
    pub(crate) fn begin_order(&mut self, id: TaskId, worker: WorkerId, message: Box<ComputeTask>) {
        let inputs: Vec<TaskId> = self.tasks[id].dependencies.iter().collect();
        self.orders.0.push_back(Order {
            task: id,
            worker,
            inputs,
            done: 0,
            bytes: 0,
            message: Some(message),
            behind: Vec::new(),
        });
    }

    /// The task leaves the worker. The inputs that were counted as to be fetched for it, if its order is not complete;
    /// nothing comes of that order.
    pub(crate) fn cancel_order(&mut self, id: TaskId, worker: WorkerId) -> Option<Vec<TaskId>> {
        if self.orders.is_empty() {
            return None;
        }
        let order = self.orders.of(id, worker)?;
        order.message = None;
        let mut counted = std::mem::take(&mut order.inputs);
        counted.truncate(order.done);
        // Some of them may have been forgotten, and their ids mean others.
        let dependencies = &self.tasks[id].dependencies;
        counted.retain(|&input| dependencies.contains(input));
        Some(counted)
    }

    /// The worker is about to go: it is told at once what it has still to be told, without the orders.
    pub(crate) fn tell_what_waits(&mut self, worker: WorkerId) {
        for order in self.orders.0.iter_mut().filter(|o| o.worker == worker) {
            for message in order.behind.drain(..) {
                self.out.push(Effect::ToWorker(worker, message));
            }
        }
    }

    /// Goes on with the oldest order.
    pub(crate) fn continue_orders(&mut self) {
        let Some(mut order) = self.orders.0.pop_front() else {
            return;
        };
        if let Some(mut message) = order.message.take() {
            let end = order.done.saturating_add(self.config.inputs_at_once.max(1));
            let inputs = std::mem::take(&mut order.inputs);
            let some = inputs.get(order.done..end.min(inputs.len()));
            for &input in some.unwrap_or_default() {
                self.add_input(&mut order, &mut message, input);
            }
            order.inputs = inputs;
            order.done = end;
            order.message = Some(message);
            if end < order.inputs.len() {
                return self.orders.0.push_front(order);
            }
        }
        self.give_order(order);
    }

    fn add_input(&mut self, order: &mut Order, message: &mut ComputeTask, input: TaskId) {
        // The id may mean another task by now.
        let task = self.tasks.get(input);
        let Some(task) = task.filter(|task| task.dependents.contains(order.task)) else {
            return;
        };
        order.bytes += i128::from(task.nbytes);
        let is_there = task.who_has.contains(order.worker);
        let size = self.get_nbytes(input).max(0) as u64;
        let holders = self.addresses(&task.who_has);
        message.who_has.push((task.key.clone(), holders));
        message.nbytes.push((task.key.clone(), size));
        if !is_there {
            self.add_need(input, order.worker);
        }
    }

    /// The order is complete, or was cancelled.
    fn give_order(&mut self, order: Order) {
        let Order { worker, .. } = order;
        let refused = order.message.as_ref().and_then(|_| {
            let message = self.too_large_for(order.task, worker, order.bytes)?;
            Some(TaskError::Memory {
                message: message.into(),
            })
        });
        let is_live = self.workers.is_live(worker);
        if let Some(message) = order.message.filter(|_| is_live && refused.is_none()) {
            let message = WorkerMsg::ComputeTask(message);
            self.out.push(Effect::ToWorker(worker, message));
        }
        for message in order.behind.into_iter().filter(|_| is_live) {
            self.out.push(Effect::ToWorker(worker, message));
        }
        if let Some(error) = refused
            && self.tasks[order.task].state == TaskState::Processing
        {
            self.refuse_order(order.task, worker, error);
            self.run_recommendations();
        }
    }
}
