//! Questions about the state: heartbeats, `dump_state`, `get_story`, HTTP. They change nothing.

use std::sync::Arc;

use oxidask_key::Key;

use crate::Worker;
use crate::config::WorkerConfig;
use crate::event::ComputeTask;
use crate::ids::{AttemptId, RunId, TaskId, Timestamp};
use crate::state::Task;
use crate::status::WorkerStatus;
use crate::story::StoryEntry;
use crate::task::TaskState;

/// A task, read-only.
#[derive(Clone, Copy)]
pub struct TaskView<'a> {
    worker: &'a Worker,
    task: &'a Task,
}

/// What an execution is about.
#[derive(Clone, Copy, Debug)]
pub struct AttemptView<'a> {
    /// Its name.
    pub attempt: AttemptId,
    /// Which task.
    pub key: &'a Key,
    /// Which assignment; nothing too if nobody wants the outcome any more.
    pub run_id: Option<RunId>,
    /// Whether anybody wants the outcome.
    pub wanted: bool,
    /// Whether it has left its slot.
    pub seceded: bool,
    /// When it began.
    pub started: Timestamp,
}

/// The `transfer` part of a heartbeat's metrics (since 2022.9.0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferFigures {
    /// Bytes on their way to us.
    pub incoming_bytes: u64,
    /// Requests of ours under way.
    pub incoming_count: usize,
    /// Requests of ours so far.
    pub incoming_count_total: u64,
    /// Bytes on their way from us.
    pub outgoing_bytes: u64,
    /// Requests being served.
    pub outgoing_count: usize,
    /// Requests served so far.
    pub outgoing_count_total: u64,
}

impl Worker {
    /// The settings in force.
    pub fn config(&self) -> &WorkerConfig {
        &self.config
    }

    /// What the worker is up to.
    pub fn status(&self) -> WorkerStatus {
        self.status
    }

    /// How many tasks are known.
    pub fn tasks_len(&self) -> usize {
        self.tasks.len()
    }

    /// All tasks, in an order that depends on nothing but the events.
    pub fn tasks(&self) -> impl Iterator<Item = TaskView<'_>> {
        let tasks = self.tasks.iter();
        tasks.map(|(_, task)| TaskView { worker: self, task })
    }

    /// The task of that name. One that was freed while it runs is not known any more.
    pub fn task(&self, key: &Key) -> Option<TaskView<'_>> {
        let task = self.tasks.by_key(key)?;
        Some(TaskView { worker: self, task })
    }

    /// The state of a key in stock's terms: `cancelled` while something goes on that nobody wants,
    /// `resumed` if the same is wanted again meanwhile. Looks through all that goes on.
    pub fn state_of(&self, key: &Key) -> Option<TaskState> {
        let state = self.tasks.by_key(key).map(|t| t.state);
        let unwanted = |task: Option<TaskId>, k: &Key| task.is_none() && k == key;
        let going_on = self.slots.iter().any(|(_, a)| unwanted(a.task, &a.key))
            || self.transfers.iter().any(|(_, t)| t.freed.contains(key));
        match state {
            None if going_on => Some(TaskState::Cancelled),
            Some(s) if going_on && s != TaskState::Memory && s != TaskState::Error => {
                Some(TaskState::Resumed)
            }
            state => state,
        }
    }

    /// How many tasks are in each state; executions that nobody wants count as `cancelled`.
    pub fn task_counts(&self) -> impl Iterator<Item = (TaskState, usize)> {
        let abandoned = self.slots.iter().filter(|(_, a)| a.task.is_none()).count();
        TaskState::ALL.into_iter().filter_map(move |state| {
            let more = if state == TaskState::Cancelled {
                abandoned
            } else {
                0
            };
            let count = self.tasks.in_state(state) + more;
            (count > 0).then_some((state, count))
        })
    }

    /// All data here with its size in bytes.
    pub fn data(&self) -> impl Iterator<Item = (&Key, u64)> {
        let here = self
            .tasks
            .iter()
            .filter(|(_, t)| t.state == TaskState::Memory);
        here.map(|(_, t)| (&t.key, t.nbytes))
    }

    /// Size in bytes of all data here.
    pub fn nbytes(&self) -> u64 {
        self.nbytes
    }

    /// Whether data of that name is here.
    pub fn has_data(&self, key: &Key) -> bool {
        let task = self.tasks.by_key(key);
        task.is_some_and(|t| t.state == TaskState::Memory)
    }

    /// Executions under way, in no order that means anything.
    pub fn attempts(&self) -> impl Iterator<Item = AttemptView<'_>> {
        self.slots.iter().map(|(attempt, a)| AttemptView {
            attempt,
            key: &a.key,
            run_id: a.task.and_then(|id| self.tasks.get(id)?.run_id),
            wanted: a.task.is_some(),
            seceded: a.seceded,
            started: a.started,
        })
    }

    /// Threads in use, without tasks that have seceded.
    pub fn executing_count(&self) -> usize {
        self.slots.occupied()
    }

    /// Executions so far.
    pub fn executed_total(&self) -> u64 {
        self.slots.begun()
    }

    /// Tasks that wait for a thread or for resources.
    pub fn ready_count(&self) -> usize {
        self.queue.len()
    }

    /// Those tasks: first what needs no resources, each kind in the order of its priority.
    pub fn ready(&self) -> impl Iterator<Item = TaskView<'_>> {
        let tasks = self.queue.iter().filter_map(|id| self.tasks.get(id));
        tasks.map(|task| TaskView { worker: self, task })
    }

    /// Name, total and used amount of each abstract resource.
    pub fn resources(&self) -> impl Iterator<Item = (&Arc<str>, f64, f64)> {
        self.resources.iter()
    }

    /// Data on its way.
    pub fn transfer_figures(&self) -> TransferFigures {
        TransferFigures {
            incoming_bytes: self.transfers.nbytes(),
            incoming_count: self.transfers.len(),
            incoming_count_total: self.transfers.begun(),
            outgoing_bytes: self.serving.nbytes(),
            outgoing_count: self.serving.len(),
            outgoing_count_total: self.serving.total(),
        }
    }

    /// Peers known of: those that hold something we want, are asked, or are busy.
    pub fn peers_len(&self) -> usize {
        self.peers.len()
    }

    /// What happened to these keys, and what these stimuli did, oldest first.
    pub fn story(&self, keys: &[Key], stimuli: &[&str]) -> Vec<StoryEntry> {
        let entries = self.story.iter();
        entries
            .filter(|e| keys.contains(&e.key) || stimuli.contains(&&*e.stimulus_id))
            .cloned()
            .collect()
    }

    /// All that is remembered, oldest first.
    pub fn log_entries(&self) -> impl DoubleEndedIterator<Item = &StoryEntry> {
        self.story.iter()
    }

    /// Bytes that the log of transitions takes.
    pub fn story_bytes(&self) -> usize {
        self.story.size().0
    }

    /// Transitions so far.
    pub fn transition_counter(&self) -> u64 {
        self.transition_counter
    }
}

impl<'a> TaskView<'a> {
    /// Its name.
    pub fn key(self) -> &'a Key {
        &self.task.key
    }

    /// Its state; `cancelled` only for a transfer that is not needed, never `resumed`
    /// ([`Worker::state_of`]).
    pub fn state(self) -> TaskState {
        self.task.state
    }

    /// Size of its data in bytes, as far as known.
    pub fn nbytes(self) -> u64 {
        self.task.nbytes
    }

    /// Assignment under way.
    pub fn run_id(self) -> Option<RunId> {
        self.task.run_id
    }

    /// What was ordered, until the task begins.
    pub fn order(self) -> Option<&'a ComputeTask> {
        self.task.order.as_deref()
    }

    /// Whether the result is an actor.
    pub fn is_actor(self) -> bool {
        self.task.actor
    }

    /// Execution under way.
    pub fn attempt(self) -> Option<AttemptId> {
        self.task.attempt
    }

    /// Whether the scheduler wants a copy here.
    pub fn is_acquired(self) -> bool {
        self.task.acquire
    }

    /// What it still needs, and is not here.
    pub fn waiting_for_data(self) -> impl Iterator<Item = &'a Key> {
        let missing = self.dependencies_of();
        missing
            .filter(|t| t.state != TaskState::Memory)
            .map(|t| &t.key)
    }

    /// What it needs, while it has not begun.
    pub fn dependencies(self) -> impl Iterator<Item = &'a Key> {
        self.dependencies_of().map(|t| &t.key)
    }

    fn dependencies_of(self) -> impl Iterator<Item = &'a Task> {
        let tasks = &self.worker.tasks;
        self.task.dependencies.iter().filter_map(|&d| tasks.get(d))
    }

    /// What needs it, and has not begun.
    pub fn dependents(self) -> impl Iterator<Item = &'a Key> {
        let tasks = &self.worker.tasks;
        let dependents = self.task.dependents.iter();
        dependents.filter_map(|&d| Some(&tasks.get(d)?.key))
    }

    /// Addresses of peers that are said to hold its data.
    pub fn who_has(self) -> impl Iterator<Item = &'a Arc<str>> {
        let peers = &self.worker.peers;
        self.task
            .who_has
            .iter()
            .filter_map(|&p| Some(&peers.get(p)?.address))
    }

    /// Address of the peer that it is coming from.
    pub fn coming_from(self) -> Option<&'a Arc<str>> {
        let transfer = self.worker.transfers.get(self.task.transfer?)?;
        Some(&self.worker.peers.get(transfer.peer)?.address)
    }
}
