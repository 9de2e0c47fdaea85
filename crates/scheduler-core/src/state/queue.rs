//! Root-like tasks that wait for a free thread: a heap by priority, oldest first among equals.
//! Removal is lazy.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ids::TaskId;
use crate::state::Priority;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    priority: Priority,
    sequence: u64,
    task: TaskId,
}

/// Tasks in state `queued` of one release.
#[derive(Default)]
pub(crate) struct TaskQueue {
    heap: BinaryHeap<Reverse<Entry>>,
    live: crate::sets::IdMap<u32, u64>,
    next: u64,
}

impl TaskQueue {
    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    pub(crate) fn contains(&self, task: TaskId) -> bool {
        self.live.contains_key(&task.0)
    }

    pub(crate) fn add(&mut self, task: TaskId, priority: Priority) {
        if self.contains(task) {
            return;
        }
        let sequence = self.next;
        self.next += 1;
        self.live.insert(task.0, sequence);
        self.heap.push(Reverse(Entry {
            priority,
            sequence,
            task,
        }));
    }

    pub(crate) fn remove(&mut self, task: TaskId) {
        self.live.remove(&task.0);
        if self.live.is_empty() {
            self.heap.clear();
        } else if self.heap.len() > 2 * self.live.len() + 64 {
            let live = &self.live;
            self.heap
                .retain(|Reverse(e)| live.get(&e.task.0) == Some(&e.sequence));
        }
    }

    /// The task that runs next.
    pub(crate) fn peek(&mut self) -> Option<TaskId> {
        while let Some(Reverse(entry)) = self.heap.peek() {
            if self.live.get(&entry.task.0) == Some(&entry.sequence) {
                return Some(entry.task);
            }
            self.heap.pop();
        }
        None
    }

    /// Queued tasks in no particular order.
    pub(crate) fn unordered(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.heap
            .iter()
            .map(|Reverse(e)| e)
            .filter(|e| self.live.get(&e.task.0) == Some(&e.sequence))
            .map(|e| e.task)
    }

    /// All queued tasks, next one first.
    pub(crate) fn sorted(&self) -> Vec<TaskId> {
        let mut entries: Vec<&Entry> = self
            .heap
            .iter()
            .map(|Reverse(e)| e)
            .filter(|e| self.live.get(&e.task.0) == Some(&e.sequence))
            .collect();
        entries.sort_unstable();
        entries.into_iter().map(|e| e.task).collect()
    }
}
