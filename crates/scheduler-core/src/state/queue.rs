//! Root-like tasks that wait for a free thread, by priority, oldest first among equals.
//!
//! Tasks of one graph become ready in order, so most of them go to the end of a sorted run; a heap
//! takes the others. Removal is lazy.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::dense::IdArray;
use crate::ids::TaskId;
use crate::sets::Positions;
use crate::state::Priority;
use crate::tables::Run;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    priority: Priority,
    sequence: u32,
    task: TaskId,
}

/// Places that an empty queue keeps.
const KEPT: usize = 1024;

/// Tasks in state `queued` of one release.
#[derive(Default)]
pub(crate) struct TaskQueue {
    run: Run<Entry>,
    heap: BinaryHeap<Reverse<Entry>>,
    /// The valid entry of each task.
    live: IdArray,
    next: u32,
}

impl TaskQueue {
    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    pub(crate) fn contains(&self, task: TaskId) -> bool {
        self.live.get(task).is_some()
    }

    pub(crate) fn add(&mut self, task: TaskId, priority: Priority) {
        if self.contains(task) {
            return;
        }
        let sequence = self.next_sequence();
        self.live.insert(task, sequence);
        let entry = Entry {
            priority,
            sequence,
            task,
        };
        if self.run.back().is_none_or(|last| *last <= entry) {
            self.run.push_back(entry);
        } else {
            self.heap.push(Reverse(entry));
        }
    }

    /// Counts the entries. After four billion of them without a pause those that are left are counted anew.
    fn next_sequence(&mut self) -> u32 {
        if self.next == u32::MAX {
            let mut entries: Vec<Entry> = self.entries().copied().collect();
            entries.sort_unstable();
            self.heap.clear();
            self.run = Run::default();
            self.next = 0;
            for mut entry in entries {
                entry.sequence = self.next;
                self.next += 1;
                self.live.set(entry.task, entry.sequence);
                self.run.push_back(entry);
            }
        }
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn remove(&mut self, task: TaskId) {
        let sequence = self.live.remove(task);
        // Mostly it is the next one.
        if self
            .run
            .front()
            .map(|first| (first.task, Some(first.sequence)))
            == Some((task, sequence))
        {
            self.run.pop_front();
        }
        let entries = self.run.len() + self.heap.len();
        if self.live.is_empty() {
            self.run = Run::default();
            self.heap.clear();
            // What a large graph needed is not kept.
            self.heap.shrink_to(KEPT);
            self.live = IdArray::default();
            self.next = 0;
        } else if entries > 2 * self.live.len() + 64 {
            let live = &self.live;
            let valid = |e: &Entry| live.get(e.task) == Some(e.sequence);
            self.run.retain(valid);
            self.heap.retain(|Reverse(e)| valid(e));
        }
    }

    fn is_live(&self, entry: &Entry) -> bool {
        self.live.get(entry.task) == Some(entry.sequence)
    }

    /// The task that runs next.
    pub(crate) fn peek(&mut self) -> Option<TaskId> {
        while let Some(entry) = self.run.front()
            && !self.is_live(entry)
        {
            self.run.pop_front();
        }
        while let Some(Reverse(entry)) = self.heap.peek()
            && !self.is_live(entry)
        {
            self.heap.pop();
        }
        let of_heap = self.heap.peek().map(|Reverse(e)| e);
        let first = match (self.run.front(), of_heap) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        Some(first.task)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let heap = self.heap.iter().map(|Reverse(e)| e);
        self.run.iter().chain(heap).filter(|e| self.is_live(e))
    }

    /// Queued tasks in no particular order.
    pub(crate) fn unordered(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.entries().map(|e| e.task)
    }

    /// All queued tasks, next one first.
    pub(crate) fn sorted(&self) -> Vec<TaskId> {
        let mut entries: Vec<&Entry> = self.entries().collect();
        entries.sort_unstable();
        entries.into_iter().map(|e| e.task).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut TaskQueue) -> Vec<u32> {
        let mut order = Vec::new();
        while let Some(task) = queue.peek() {
            queue.remove(task);
            order.push(task.0);
        }
        order
    }

    #[test]
    fn smallest_priority_first_then_oldest() {
        let mut queue = TaskQueue::default();
        for (task, order) in [(1, 5), (2, 7), (3, 1), (4, 7), (5, 5), (6, 0)] {
            queue.add(TaskId(task), Priority(0.0, 1.0, order));
        }
        queue.add(TaskId(7), Priority(-1.0, 2.0, 99));
        assert_eq!(queue.len(), 7);
        assert_eq!(drain(&mut queue), [7, 6, 3, 1, 5, 2, 4]);
    }

    #[test]
    fn a_task_that_comes_back_has_a_new_place() {
        let mut queue = TaskQueue::default();
        for task in 0..200 {
            queue.add(TaskId(task), Priority(0.0, 1.0, i64::from(task)));
        }
        for task in 0..150 {
            queue.remove(TaskId(task));
        }
        queue.add(TaskId(0), Priority(0.0, 1.0, 1_000));
        assert_eq!(queue.unordered().count(), 51);
        let order = drain(&mut queue);
        assert_eq!(order.first(), Some(&150));
        assert_eq!(order.last(), Some(&0));
        assert!(queue.run.len() == 0 && queue.heap.is_empty());
    }

    #[test]
    fn entries_are_counted_anew_when_numbers_run_out() {
        let mut queue = TaskQueue {
            next: u32::MAX - 2,
            ..TaskQueue::default()
        };
        for (task, order) in [(1, 5), (2, 1), (3, 5), (4, 1), (5, 7)] {
            queue.add(TaskId(task), Priority(0.0, 1.0, order));
            assert!(queue.contains(TaskId(task)));
        }
        assert_eq!(queue.next, 5);
        assert_eq!(drain(&mut queue), [2, 4, 1, 3, 5]);
    }

    #[test]
    fn an_empty_queue_gives_back_what_a_large_graph_needed() {
        let mut queue = TaskQueue::default();
        let many = 10 * KEPT as u32;
        for task in 0..many {
            queue.add(TaskId(task), Priority(0.0, 1.0, 0));
        }
        assert_eq!(drain(&mut queue).len(), many as usize);
        assert!(queue.run.len() == 0 && queue.live.allocation_size() == 0);
        queue.add(TaskId(1), Priority(0.0, 1.0, 0));
        assert_eq!(drain(&mut queue), [1]);
    }
}
