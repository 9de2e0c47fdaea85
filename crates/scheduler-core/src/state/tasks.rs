//! The task table: a slab with an index by key.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use foldhash::fast::FixedState;
use oxidask_key::Key;
use std::hash::BuildHasher;

use crate::effect::TaskError;
use crate::graph::TaskOptions;
use crate::ids::{ClientId, RunId, TaskId, WorkerId};
use crate::opaque::Opaque;
use crate::sets::{IdSet, MaybeId};
use crate::state::{GroupId, TypeName};
use crate::tables::Table;
use crate::task::TaskState;

/// (−user priority, generation, order); the smaller runs first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Priority(pub(crate) f64, pub(crate) f64, pub(crate) i64);

impl Priority {
    /// No graph has given the task a place yet. Sorts last.
    pub(crate) const UNSET: Self = Self(f64::NAN, 0.0, 0);

    pub(crate) fn is_set(self) -> bool {
        !self.0.is_nan()
    }

    pub(crate) fn wire(self) -> [f64; 3] {
        [self.0, self.1, self.2 as f64]
    }
}

impl PartialEq for Priority {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Priority {}
impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Priority {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0
            .total_cmp(&other.0)
            .then(self.1.total_cmp(&other.1))
            .then(self.2.cmp(&other.2))
    }
}

/// A release of `distributed`, index into [`crate::Scheduler`]'s list; 0 is "any".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ReleaseId(pub(crate) u8);

impl ReleaseId {
    /// Whether a task of one release can run on a worker of the other.
    pub(crate) fn compatible(self, other: Self) -> bool {
        self == other || self.0 == 0 || other.0 == 0
    }
}

/// Where a task may run. Shared by tasks that were submitted with the same options.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Restrictions {
    /// Addresses of workers, which may not be here yet.
    pub(crate) workers: Vec<Arc<str>>,
    /// Hosts, or names of workers that may not be here yet.
    pub(crate) hosts: Vec<Arc<str>>,
    /// Abstract resources needed.
    pub(crate) resources: Arc<[(Arc<str>, f64)]>,
    /// Workers and hosts are a wish only.
    pub(crate) loose: bool,
}

impl Restrictions {
    pub(crate) fn restricts(&self) -> bool {
        !self.workers.is_empty() || !self.hosts.is_empty() || !self.resources.is_empty()
    }
}

/// A failure that one task has and its dependents are blamed on.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The task that failed.
    pub(crate) task: Key,
    /// How.
    pub(crate) error: TaskError,
}

/// What few tasks have.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    /// Set if the task failed or cannot run because another failed.
    pub(crate) blame: Option<Arc<Failure>>,
    /// Addresses of the workers it failed on.
    pub(crate) erred_on: Vec<Arc<str>>,
    /// Workers that died while they ran it.
    pub(crate) suspicious: u32,
    pub(crate) metadata: Option<Opaque>,
}

/// One task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) key: Key,
    pub(crate) run_spec: Option<Opaque>,
    pub(crate) priority: Priority,
    pub(crate) dependencies: IdSet<TaskId>,
    pub(crate) dependents: IdSet<TaskId>,
    /// Dependencies without a result. Only while `waiting`.
    pub(crate) waiting_on: IdSet<TaskId>,
    /// Dependents that are going to need the result.
    pub(crate) waiters: IdSet<TaskId>,
    pub(crate) who_has: IdSet<WorkerId>,
    pub(crate) who_wants: IdSet<ClientId>,
    /// Negative: not known.
    pub(crate) nbytes: i64,
    /// Negative: never sent to a worker.
    pub(crate) run_id: i64,
    /// Of the result, once there was one.
    pub(crate) typename: Option<TypeName>,
    pub(crate) options: Option<Arc<TaskOptions>>,
    pub(crate) restrictions: Option<Arc<Restrictions>>,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) group: GroupId,
    pub(crate) processing_on: MaybeId<WorkerId>,
    /// Worker in whose stealable sets the task is.
    pub(crate) stealable_on: MaybeId<WorkerId>,
    pub(crate) retries: u32,
    /// Index into the graph being taken in; [`Task::NO_SCRATCH`] else.
    pub(crate) scratch: u32,
    /// Dependents that are still to come, in graphs that come in portions.
    pub(crate) to_come: u32,
    pub(crate) release: ReleaseId,
    pub(crate) state: TaskState,
    /// Transition waiting to be made (see `transitions`).
    pub(crate) recommended: Option<TaskState>,
    pub(crate) steal_level: u8,
    pub(crate) actor: bool,
    pub(crate) has_lost_dependencies: bool,
    pub(crate) data_producer: bool,
    /// May wait in the queue if root-like.
    pub(crate) queueable: bool,
    /// Among those that are let go little by little (see `transitions/let_go.rs`).
    pub(crate) let_go: bool,
    /// More dependencies are to come (see `stimuli/graph_portions.rs`).
    pub(crate) incomplete: bool,
}

impl Task {
    pub(crate) const NO_SCRATCH: u32 = u32::MAX;

    pub(crate) fn new(
        key: Key,
        run_spec: Option<Opaque>,
        state: TaskState,
        group: GroupId,
    ) -> Self {
        Self {
            key,
            run_spec,
            priority: Priority::UNSET,
            dependencies: IdSet::default(),
            dependents: IdSet::default(),
            waiting_on: IdSet::default(),
            waiters: IdSet::default(),
            who_has: IdSet::default(),
            who_wants: IdSet::default(),
            nbytes: -1,
            run_id: -1,
            typename: None,
            options: None,
            restrictions: None,
            rare: None,
            group,
            processing_on: MaybeId::default(),
            stealable_on: MaybeId::default(),
            retries: 0,
            scratch: Self::NO_SCRATCH,
            to_come: 0,
            release: ReleaseId::default(),
            state,
            recommended: None,
            steal_level: 0,
            actor: false,
            has_lost_dependencies: false,
            data_producer: false,
            queueable: true,
            let_go: false,
            incomplete: false,
        }
    }

    /// How many workers died while they ran it.
    pub(crate) fn suspicious(&self) -> u32 {
        self.rare.as_ref().map_or(0, |rare| rare.suspicious)
    }

    /// What the task failed of, or is held up by.
    pub(crate) fn blame(&self) -> Option<&Arc<Failure>> {
        self.rare.as_ref()?.blame.as_ref()
    }

    pub(crate) fn set_blame(&mut self, failure: Option<Arc<Failure>>) {
        match (failure, &mut self.rare) {
            (None, None) => {}
            (failure, rare) => rare.get_or_insert_default().blame = failure,
        }
    }

    /// Somebody needs the result.
    pub(crate) fn is_needed(&self) -> bool {
        !self.waiters.is_empty() || !self.who_wants.is_empty() || self.to_come > 0
    }

    /// Nobody wants it, and nothing depends on it or will.
    pub(crate) fn is_loose_end(&self) -> bool {
        self.dependents.is_empty() && self.who_wants.is_empty() && self.to_come == 0
    }

    /// Nobody needs the result. A failed task stays failed until it is retried or forgotten.
    pub(crate) fn can_be_let_go(&self) -> bool {
        !self.is_needed() && self.state != TaskState::Erred
    }

    /// Whether some restriction limits the choice of workers.
    pub(crate) fn is_restricted(&self) -> bool {
        self.restrictions.as_ref().is_some_and(|r| r.restricts())
    }

    pub(crate) fn is_loose(&self) -> bool {
        self.restrictions.as_ref().is_some_and(|r| r.loose)
    }

    /// Whether a message of a worker is about the run it was last sent. Workers before 2023.1.1 do not
    /// name the run: theirs is taken as current as long as the task is not on another worker.
    pub(crate) fn is_current_run(&self, worker: WorkerId, run_id: Option<RunId>) -> bool {
        match run_id {
            Some(run_id) => run_id.0 == self.run_id,
            None => self.processing_on.get().is_none_or(|w| w == worker),
        }
    }

    /// Heap bytes of the task itself, without what the shell owns.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.key.heap_bytes()
            + self.dependencies.heap_bytes()
            + self.dependents.heap_bytes()
            + self.waiting_on.heap_bytes()
            + self.waiters.heap_bytes()
            + self.who_has.heap_bytes()
            + self.who_wants.heap_bytes()
            + self.rare.as_ref().map_or(0, |_| size_of::<Rare>())
    }
}

/// All tasks.
pub(crate) struct TaskTable {
    /// In blocks of [`BLOCK`], all but the last one full: a table in one piece would be copied, and the
    /// core stand still, whenever it grows.
    blocks: Vec<Vec<Option<Task>>>,
    free: Vec<u32>,
    /// (hash, slot). The hash is kept so that growing does not visit the tasks.
    index: Table<(u32, u32)>,
    hasher: FixedState,
    /// Stands in for a task that should be there and is not: a bug, but none to die of.
    missing: Task,
}

/// Tasks in one block of the table.
const BLOCK: usize = 512;

/// The place of a task in the blocks.
fn slot(blocks: &[Vec<Option<Task>>], id: u32) -> Option<&Option<Task>> {
    let id = id as usize;
    blocks.get(id / BLOCK)?.get(id % BLOCK)
}

fn slot_mut(blocks: &mut [Vec<Option<Task>>], id: u32) -> Option<&mut Option<Task>> {
    let id = id as usize;
    blocks.get_mut(id / BLOCK)?.get_mut(id % BLOCK)
}

fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl TaskTable {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            blocks: Vec::new(),
            free: Vec::new(),
            index: Table::default(),
            hasher: FixedState::with_seed(seed),
            missing: Task::new(Key::None, None, TaskState::Forgotten, GroupId::MISSING),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    fn hash(&self, key: &Key) -> u32 {
        let hash = self.hasher.hash_one(key);
        (hash ^ (hash >> 32)) as u32
    }

    pub(crate) fn id(&self, key: &Key) -> Option<TaskId> {
        let hash = self.hash(key);
        let blocks = &self.blocks;
        self.index
            .find(spread(hash), |&(h, i)| {
                h == hash && slot(blocks, i).is_some_and(|t| matches!(t, Some(t) if t.key == *key))
            })
            .map(|&(_, i)| TaskId(i))
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        slot(&self.blocks, id.0)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        slot_mut(&mut self.blocks, id.0)?.as_mut()
    }

    /// Makes room for a large graph, if little is there yet.
    pub(crate) fn expect(&mut self, tasks: usize) {
        self.index.expect(tasks, |&(h, _)| spread(h));
    }

    /// Adds a task whose key is not in the table.
    pub(crate) fn insert(&mut self, task: Task) -> TaskId {
        let hash = self.hash(&task.key);
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(free) = slot_mut(&mut self.blocks, slot) {
                    *free = Some(task);
                }
                slot
            }
            None => {
                let slot = self.slots();
                match self.blocks.last_mut().filter(|block| block.len() < BLOCK) {
                    Some(block) => block.push(Some(task)),
                    None => {
                        let mut block = Vec::with_capacity(BLOCK);
                        block.push(Some(task));
                        self.blocks.push(block);
                    }
                }
                slot as u32
            }
        };
        self.index
            .insert_unique(spread(hash), (hash, slot), |&(h, _)| spread(h));
        TaskId(slot)
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Task> {
        let task = slot_mut(&mut self.blocks, id.0)?.take()?;
        let hash = self.hash(&task.key);
        let index = &mut self.index;
        index.remove(spread(hash), |&(_, i)| i == id.0, |&(h, _)| spread(h));
        self.free.push(id.0);
        if self.index.is_empty() && self.blocks.len() > 2 {
            // The end of a big computation: give the memory back.
            self.blocks = Vec::new();
            self.free = Vec::new();
            self.index = Table::default();
        }
        Some(task)
    }

    /// Places that are or were taken.
    fn slots(&self) -> usize {
        let full = self.blocks.len().saturating_sub(1) * BLOCK;
        full + self.blocks.last().map_or(0, Vec::len)
    }

    /// Tasks by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.blocks
            .iter()
            .flatten()
            .enumerate()
            .filter_map(|(i, t)| Some((TaskId(i as u32), t.as_ref()?)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tasks in the slots from `from` on, and where to go on: at the beginning after the end.
    pub(crate) fn some_ids(&self, from: usize, slots: usize) -> (Vec<TaskId>, usize) {
        let end = from.saturating_add(slots).min(self.slots());
        let ids = (from..end)
            .map(|i| TaskId(i as u32))
            .filter(|&id| self.get(id).is_some())
            .collect();
        (ids, if end < self.slots() { end } else { 0 })
    }

    /// Bytes of the table's own allocations.
    pub(crate) fn table_bytes(&self) -> usize {
        self.blocks.len() * BLOCK * size_of::<Option<Task>>()
            + self.free.capacity() * 4
            + self.index.allocation_size()
    }
}

impl Index<TaskId> for TaskTable {
    type Output = Task;
    fn index(&self, id: TaskId) -> &Task {
        let task = self.get(id);
        debug_assert!(task.is_some(), "a task id in a relation is alive");
        task.unwrap_or(&self.missing)
    }
}

impl IndexMut<TaskId> for TaskTable {
    fn index_mut(&mut self, id: TaskId) -> &mut Task {
        match slot_mut(&mut self.blocks, id.0) {
            Some(Some(task)) => task,
            _ => {
                debug_assert!(false, "a task id in a relation is alive");
                &mut self.missing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(number: usize) -> Task {
        let key = Key::from(format!("x-{number}"));
        Task::new(key, None, TaskState::Released, GroupId::MISSING)
    }

    #[test]
    fn a_task_takes_thirty_words() {
        // With a million of them each word is 8 MB.
        assert_eq!(size_of::<Option<Task>>(), 240);
    }

    #[test]
    fn tasks_of_all_blocks_are_found() {
        let mut table = TaskTable::new(0);
        let count = 2 * BLOCK + 1;
        let ids: Vec<TaskId> = (0..count)
            .map(|number| table.insert(task(number)))
            .collect();
        assert!(table.iter().map(|(id, _)| id).eq(ids.iter().copied()));
        for (number, &id) in ids.iter().enumerate() {
            assert_eq!(table.id(&task(number).key), Some(id));
            assert_eq!(table[id].key, task(number).key);
        }
        let (first, next) = table.some_ids(0, BLOCK + 1);
        assert_eq!((first.len(), next), (BLOCK + 1, BLOCK + 1));
        assert_eq!(table.some_ids(next, count).1, 0, "at the beginning again");

        table.remove(ids[BLOCK]);
        assert!(table.get(ids[BLOCK]).is_none());
        assert_eq!(table.len(), count - 1);
        assert_eq!(
            table.insert(task(count)),
            ids[BLOCK],
            "a place that is free again"
        );
        table
            .iter()
            .map(|(id, _)| id)
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|id| {
                table.remove(id);
            });
        assert!(table.is_empty() && table.blocks.is_empty(), "given back");
    }
}
