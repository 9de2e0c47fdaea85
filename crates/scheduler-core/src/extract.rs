//! A small part of the state as events that bring it about again: what a dump of the watchdog holds.

use std::collections::VecDeque;
use std::sync::Arc;

use oxidask_key::Key;

use crate::Scheduler;
use crate::event::{DataPlacement, Event};
use crate::graph::{GraphUpdate, LostDependencies, NewTask};
use crate::ids::{ClientId, TaskId, WorkerId};
use crate::sets::OrderedIdSet;
use crate::task::TaskState;

impl Scheduler {
    /// Events that lead an empty scheduler into the situation around a task: the workers and at most
    /// `limit` tasks near it, with the same relations, inputs in memory where they are now. Which worker
    /// a task goes to is decided anew.
    pub fn extract(&self, key: &Key, limit: usize) -> Vec<Event> {
        let tasks = self.neighbours(key, limit);
        let mut workers: Vec<WorkerId> = Vec::new();
        for &id in &tasks {
            let task = &self.tasks[id];
            for worker in task.who_has.iter().chain(task.processing_on.get()) {
                if !workers.contains(&worker) {
                    workers.push(worker);
                }
            }
        }
        let stimulus_id: Arc<str> = "extract".into();
        let client = ClientId(0);
        let mut events = vec![Event::AddClient {
            client,
            name: "extract".into(),
        }];
        for worker in workers {
            let info = self.workers[worker].info.clone();
            events.push(Event::AddWorker {
                worker,
                info,
                stimulus_id: Arc::clone(&stimulus_id),
            });
        }
        let (held, others): (Vec<TaskId>, Vec<TaskId>) = tasks
            .into_iter()
            .partition(|&id| self.tasks[id].state == TaskState::Memory);
        let data = held.into_iter().map(|id| DataPlacement {
            key: self.tasks[id].key.clone(),
            who_has: self.addresses(&self.tasks[id].who_has),
            nbytes: self.get_nbytes(id).max(0) as u64,
        });
        events.push(Event::UpdateData {
            data: data.collect(),
            client: Some(client),
            stimulus_id: Arc::clone(&stimulus_id),
        });
        events.push(self.graph_of(&others, client, stimulus_id));
        events
    }

    /// Tasks near one, nearest first.
    fn neighbours(&self, key: &Key, limit: usize) -> Vec<TaskId> {
        let mut seen = OrderedIdSet::<TaskId>::default();
        let mut found = Vec::new();
        let mut open: VecDeque<TaskId> = self.tasks.id(key).into_iter().collect();
        while let Some(id) = open.pop_front() {
            let Some(task) = self.tasks.get(id).filter(|_| seen.insert(id)) else {
                continue;
            };
            if found.len() >= limit {
                break;
            }
            found.push(id);
            // A task with a million dependents must not fill the dump with their ids.
            open.extend(task.dependencies.iter().take(limit));
            open.extend(task.dependents.iter().take(limit));
        }
        found
    }

    fn graph_of(&self, ids: &[TaskId], client: ClientId, stimulus_id: Arc<str>) -> Event {
        let known = |d: TaskId| ids.contains(&d) || self.tasks[d].state == TaskState::Memory;
        let tasks = ids.iter().map(|&id| {
            let task = &self.tasks[id];
            NewTask {
                key: task.key.clone(),
                run_spec: task.run_spec.clone(),
                dependencies: task
                    .dependencies
                    .iter()
                    .filter(|&d| known(d))
                    .map(|d| self.tasks[d].key.clone())
                    .collect(),
                order: task.priority.wire()[2] as i64,
                options: task.options.clone(),
            }
        });
        Event::UpdateGraph(Box::new(GraphUpdate {
            client,
            tasks: tasks.collect(),
            keys: ids.iter().map(|&id| self.tasks[id].key.clone()).collect(),
            submitting_task: None,
            fifo_timeout: 0.0,
            user_priority: 0.0,
            lost_dependencies: LostDependencies::DropTasks,
            received: self.now,
            release: "".into(),
            span_notes: Default::default(),
            stimulus_id,
        }))
    }
}
