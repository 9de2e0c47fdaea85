//! The task table: a slab with an index by key.

use std::cmp::Ordering;
use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use oxidask_key::Key;

use super::TaskSet;
use crate::event::ComputeTask;
use crate::ids::{AttemptId, PeerId, RunId, TaskId, Timestamp, TransferId};
use crate::task::TaskState;

/// The smaller comes first. Beyond what the scheduler tells, the last that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Priority {
    levels: [f64; 3],
    turn: i64,
}

impl Priority {
    /// Copies that the scheduler asked for come after the inputs of tasks of default or higher
    /// priority, and before those of lower priority.
    pub(crate) const COPY: Self = Self {
        levels: [1.0, f64::NEG_INFINITY, f64::NEG_INFINITY],
        turn: i64::MIN,
    };

    /// `turn` counts down.
    pub(crate) fn new(levels: [f64; 3], turn: i64) -> Self {
        Self { levels, turn }
    }
}

impl Ord for Priority {
    fn cmp(&self, other: &Self) -> Ordering {
        let [a0, a1, a2] = &self.levels;
        let [b0, b1, b2] = &other.levels;
        a0.total_cmp(b0)
            .then_with(|| a1.total_cmp(b1))
            .then_with(|| a2.total_cmp(b2))
            .then_with(|| self.turn.cmp(&other.turn))
    }
}
impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Priority {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Priority {}

/// One task, or data we want or have.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) key: Key,
    pub(crate) state: TaskState,
    pub(crate) priority: Priority,
    /// Size of the data, or what it is said to be.
    pub(crate) nbytes: u64,
    /// The order, until the task begins.
    pub(crate) order: Option<Box<ComputeTask>>,
    /// Data it needs. Only while pending.
    pub(crate) dependencies: Vec<TaskId>,
    /// How many of them are not here. Only while pending.
    pub(crate) waiting_on: u32,
    /// Pending tasks that need the data of this one.
    pub(crate) dependents: TaskSet,
    /// Peers that are said to hold the data.
    pub(crate) who_has: Vec<PeerId>,
    /// The scheduler wants a copy here.
    pub(crate) acquire: bool,
    /// The assignment under way.
    pub(crate) run_id: Option<RunId>,
    /// The assignment was made by a scheduler that is gone.
    pub(crate) orphaned: bool,
    /// The result is an actor.
    pub(crate) actor: bool,
    pub(crate) attempt: Option<AttemptId>,
    pub(crate) transfer: Option<TransferId>,
    /// When the scheduler was last asked who has it.
    pub(crate) asked: Option<Timestamp>,
}

impl Task {
    fn new(key: Key, nbytes: u64) -> Self {
        Self {
            key,
            state: TaskState::Released,
            priority: Priority::COPY,
            nbytes,
            order: None,
            dependencies: Vec::new(),
            waiting_on: 0,
            dependents: TaskSet::default(),
            who_has: Vec::new(),
            acquire: false,
            run_id: None,
            orphaned: false,
            actor: false,
            attempt: None,
            transfer: None,
            asked: None,
        }
    }

    /// Whether its data has to be here.
    pub(crate) fn is_needed(&self) -> bool {
        self.acquire || !self.dependents.is_empty()
    }
}

/// All tasks.
pub(crate) struct TaskTable {
    slots: Vec<Option<Task>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: FixedState,
    counts: [usize; TaskState::ALL.len()],
}

impl TaskTable {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            counts: [0; TaskState::ALL.len()],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn id(&self, key: &Key) -> Option<TaskId> {
        let hash = self.hasher.hash_one(key);
        let found = self.index.find(hash, |&i| self.is_key(i, key));
        found.map(|&i| TaskId(i))
    }

    fn is_key(&self, i: u32, key: &Key) -> bool {
        matches!(self.slots.get(i as usize), Some(Some(t)) if t.key == *key)
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    pub(crate) fn by_key(&self, key: &Key) -> Option<&Task> {
        self.get(self.id(key)?)
    }

    /// The task of that name; a fresh one in state `released` if there is none.
    pub(crate) fn ensure(&mut self, key: &Key, nbytes: u64) -> TaskId {
        if let Some(id) = self.id(key) {
            return id;
        }
        let task = Some(Task::new(key.clone(), nbytes));
        let i = match self.free.pop() {
            Some(i) => {
                if let Some(slot) = self.slots.get_mut(i as usize) {
                    *slot = task;
                }
                i
            }
            None => {
                self.slots.push(task);
                (self.slots.len() - 1) as u32
            }
        };
        let hash = self.hasher.hash_one(key);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, i, |&i| {
            let task = slots.get(i as usize).and_then(Option::as_ref);
            task.map_or(0, |t| hasher.hash_one(&t.key))
        });
        self.count(TaskState::Released, 1);
        TaskId(i)
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Task> {
        let task = self.slots.get_mut(id.0 as usize)?.take()?;
        let hash = self.hasher.hash_one(&task.key);
        if let Ok(entry) = self.index.find_entry(hash, |&i| i == id.0) {
            entry.remove();
        }
        self.free.push(id.0);
        self.count(task.state, -1);
        Some(task)
    }

    /// Writes the state and keeps the counts. Whether the change is legal is asked before.
    pub(crate) fn set_state(&mut self, id: TaskId, state: TaskState) {
        let Some(task) = self.get_mut(id) else {
            return;
        };
        let old = std::mem::replace(&mut task.state, state);
        self.count(old, -1);
        self.count(state, 1);
    }

    fn count(&mut self, state: TaskState, by: isize) {
        if let Some(count) = self.counts.get_mut(state as usize) {
            *count = count.saturating_add_signed(by);
        }
    }

    /// Tasks in that state.
    pub(crate) fn in_state(&self, state: TaskState) -> usize {
        self.counts.get(state as usize).copied().unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        let named = self.slots.iter().enumerate();
        named.filter_map(|(i, task)| Some((TaskId(i as u32), task.as_ref()?)))
    }
}

impl Index<TaskId> for TaskTable {
    type Output = Task;
    /// Ids are made and kept by the core alone, and never outlive their task.
    fn index(&self, id: TaskId) -> &Task {
        match self.get(id) {
            Some(task) => task,
            None => unreachable!("{id:?} is no task"),
        }
    }
}

impl IndexMut<TaskId> for TaskTable {
    fn index_mut(&mut self, id: TaskId) -> &mut Task {
        match self.get_mut(id) {
            Some(task) => task,
            None => unreachable!("{id:?} is no task"),
        }
    }
}
