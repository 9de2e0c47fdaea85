//! The keys of a graph as numbers, so that whoever looks at its dependencies need not look them up again.
//!
//! Here: which task each dependency and each wanted key is, and what of the graph is needed. Not here: what the
//! tasks do (`oxidask-graph`), what becomes of them (`oxidask-scheduler-core`).

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use crate::Key;

/// Dependencies of the tasks of a graph, and what is wanted of it, in numbers: those below
/// [`Numbering::tasks`] are tasks, in their order; then come other keys that are named as dependencies, and
/// at last others that are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbering {
    tasks: u32,
    /// Dependencies of task `i`: `edges[starts[i]..starts[i + 1]]`.
    starts: Vec<u32>,
    edges: Vec<u32>,
    others: Vec<Key>,
    /// How many of `others` are dependencies.
    below: u32,
    wanted: Vec<u32>,
}

/// A graph of four thousand million keys or dependencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl std::error::Error for TooLarge {}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a graph has more than 4,294,967,294 keys or dependencies")
    }
}

impl Numbering {
    /// Of tasks, each its key and its dependencies. A dependency on a key that several tasks have is on the first.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn of<T>(
        tasks: &[T],
        key: impl Fn(&T) -> &Key,
        dependencies: impl Fn(&T) -> &[Key],
        wanted: &[Key],
    ) -> Result<Self, TooLarge> {
        let mut index = Index::new(tasks.iter().map(&key));
        let key = |at: u32| tasks.get(at as usize).map(&key);
        let find = |wanted: &Key| index.find(wanted, key);
        Self::found(tasks, key, dependencies, wanted, find)
    }

    /// Like [`Self::of`], by somebody who knows where the task of a key is.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn found<'a, T: 'a>(
        tasks: &'a [T],
        key: impl Fn(u32) -> Option<&'a Key>,
        dependencies: impl Fn(&'a T) -> &'a [Key],
        wanted: &[Key],
        mut find: impl FnMut(&Key) -> Option<u32>,
    ) -> Result<Self, TooLarge> {
        let mut others = Others::after(tasks.len())?;
        let mut starts = Vec::with_capacity(tasks.len() + 1);
        let mut edges = Vec::new();
        starts.push(0);
        for task in tasks {
            for below in dependencies(task) {
                let number = match find(below) {
                    Some(number) => number,
                    None => others.number(below)?,
                };
                edges.push(number);
            }
            starts.push(number_of(edges.len())?);
        }
        let below = number_of(others.keys.len())?;
        let mut numbers = Vec::with_capacity(wanted.len());
        // They often come in the order of the tasks: then none is looked up.
        let mut next = 0;
        for want in wanted {
            let number = match key(next) {
                Some(found) if found == want => next,
                _ => match find(want) {
                    Some(number) => number,
                    None => others.number(want)?,
                },
            };
            if number < others.first {
                next = number + 1;
            }
            numbers.push(number);
        }
        Ok(Self {
            tasks: others.first,
            starts,
            edges,
            below,
            others: others.keys,
            wanted: numbers,
        })
    }

    /// How many tasks there are: the numbers of the others begin here.
    pub fn tasks(&self) -> usize {
        self.tasks as usize
    }

    /// How many dependencies there are.
    pub fn edges(&self) -> usize {
        self.edges.len()
    }

    /// What a task depends on, in its order; nothing for other keys.
    pub fn dependencies(&self, task: u32) -> &[u32] {
        let at = task as usize;
        let bounds = self.starts.get(at).zip(self.starts.get(at + 1));
        let range = bounds.map(|(&from, &to)| from as usize..to as usize);
        range
            .and_then(|range| self.edges.get(range))
            .unwrap_or_default()
    }

    /// What is wanted, in its order.
    pub fn wanted(&self) -> &[u32] {
        &self.wanted
    }

    /// The keys that are not tasks of the graph, from number [`Self::tasks`] on.
    pub fn others(&self) -> &[Key] {
        &self.others
    }

    /// The [`Self::others`] that tasks depend on.
    pub fn others_below(&self) -> &[Key] {
        self.others.get(..self.below as usize).unwrap_or_default()
    }

    /// Leaves out the tasks that are neither wanted nor needed for those; the rest move up. Whether each stays.
    pub fn cull(&mut self) -> Vec<bool> {
        let needed = self.needed();
        if needed.iter().all(|&needed| needed) {
            return needed;
        }
        let stays = |at: usize| needed.get(at) == Some(&true);
        let mut new = vec![u32::MAX; self.tasks() + self.others.len()];
        let mut next = 0;
        for (at, number) in new.iter_mut().enumerate() {
            if at >= self.tasks() || stays(at) {
                *number = next;
                next += 1;
            }
        }
        let renumber = |number: &mut u32| {
            *number = new.get(*number as usize).copied().unwrap_or(u32::MAX);
        };
        self.rebuild(|task| stays(task as usize), |_, _| true);
        self.edges.iter_mut().for_each(renumber);
        self.wanted.iter_mut().for_each(renumber);
        needed
    }

    /// The tasks that are wanted, or needed for those.
    fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.tasks()];
        let mut work = self.wanted.clone();
        while let Some(task) = work.pop() {
            match needed.get_mut(task as usize) {
                Some(known) if !*known => *known = true,
                _ => continue,
            }
            work.extend(self.dependencies(task));
        }
        needed
    }

    /// Leaves out dependencies of tasks on themselves, which some clients (≤ 2.30.1) name.
    pub fn drop_loops(&mut self) {
        let is_loop = |task: u32| self.dependencies(task).contains(&task);
        if (0..self.tasks).any(is_loop) {
            self.rebuild(|_| true, |task, below| below != task);
        }
    }

    /// Leaves out tasks and dependencies; the numbers of what they depend on stay.
    fn rebuild(&mut self, stays: impl Fn(u32) -> bool, depends: impl Fn(u32, u32) -> bool) {
        let (mut starts, mut edges) = (vec![0], Vec::with_capacity(self.edges.len()));
        for task in (0..self.tasks).filter(|&task| stays(task)) {
            let below = self.dependencies(task).iter().copied();
            edges.extend(below.filter(|&below| depends(task, below)));
            starts.push(edges.len() as u32);
        }
        self.tasks = starts.len() as u32 - 1;
        (self.starts, self.edges) = (starts, edges);
    }
}

fn number_of(count: usize) -> Result<u32, TooLarge> {
    match u32::try_from(count) {
        Ok(number) if number < u32::MAX => Ok(number),
        _ => Err(TooLarge),
    }
}

/// Keys that are no tasks of the graph, as they turn up.
struct Others {
    first: u32,
    keys: Vec<Key>,
    index: hashbrown::HashMap<Key, u32>,
}

impl Others {
    fn after(tasks: usize) -> Result<Self, TooLarge> {
        Ok(Self {
            first: number_of(tasks)?,
            keys: Vec::new(),
            index: hashbrown::HashMap::new(),
        })
    }

    fn number(&mut self, key: &Key) -> Result<u32, TooLarge> {
        if let Some(&number) = self.index.get(key) {
            return Ok(number);
        }
        let number = number_of(self.first as usize + self.keys.len())?;
        self.keys.push(key.clone());
        self.index.insert(key.clone(), number);
        Ok(number)
    }
}

/// Finds the tasks of keys. A part of each hash beside the number saves most looks at other tasks.
struct Index<I> {
    keys: Option<I>,
    places: HashTable<(u32, u32)>,
    hasher: DefaultHashBuilder,
}

impl<'a, I: ExactSizeIterator<Item = &'a Key>> Index<I> {
    /// Filled when first needed: a map of independent tasks does not.
    fn new(keys: I) -> Self {
        Self {
            keys: Some(keys),
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    fn find(&mut self, wanted: &Key, key: impl Fn(u32) -> Option<&'a Key>) -> Option<u32> {
        if let Some(keys) = self.keys.take() {
            self.fill(keys, &key);
        }
        let hash = self.hasher.hash_one(wanted);
        let found = self.places.find(hash, |&(part, place)| {
            part == part_of(hash) && key(place) == Some(wanted)
        });
        found.map(|&(_, place)| place)
    }

    fn fill(&mut self, keys: I, key: impl Fn(u32) -> Option<&'a Key>) {
        let hash_of = |&(_, place): &(u32, u32)| {
            let task = key(place);
            task.map_or(0, |task| self.hasher.hash_one(task))
        };
        self.places.reserve(keys.len(), hash_of);
        for (task, place) in keys.zip(0..) {
            let hash = self.hasher.hash_one(task);
            let same =
                |&(part, place): &(u32, u32)| part == part_of(hash) && key(place) == Some(task);
            let entry = self.places.entry(hash, same, hash_of);
            entry.or_insert((part_of(hash), place));
        }
    }
}

/// A part that says something about keys in the same place of the table: neither its place nor its tag come from
/// these bits alone.
fn part_of(hash: u64) -> u32 {
    (hash >> 20) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    type Task = (Key, Vec<Key>);

    fn graph(tasks: &[(&str, &[&str])]) -> Vec<Task> {
        let keys = |names: &[&str]| names.iter().map(|&name| Key::from(name)).collect();
        let task = |&(name, below): &(&str, &[&str])| (Key::from(name), keys(below));
        tasks.iter().map(task).collect()
    }

    fn numbering(tasks: &[Task], wanted: &[&str]) -> Numbering {
        let wanted: Vec<Key> = wanted.iter().map(|&name| Key::from(name)).collect();
        Numbering::of(tasks, |task| &task.0, |task| &task.1, &wanted).expect("few tasks")
    }

    /// The dependencies of each task.
    fn edges(numbering: &Numbering) -> Vec<&[u32]> {
        let tasks = 0..numbering.tasks() as u32;
        tasks.map(|task| numbering.dependencies(task)).collect()
    }

    fn keys(names: &[&str]) -> Vec<Key> {
        names.iter().map(|&name| Key::from(name)).collect()
    }

    #[test]
    fn tasks_come_first_then_other_dependencies_then_what_else_is_wanted() {
        let tasks = graph(&[("c", &["b", "y", "a"]), ("b", &["x", "a"]), ("a", &["y"])]);
        let numbering = numbering(&tasks, &["z", "c", "x", "b"]);
        assert_eq!(numbering.tasks(), 3);
        assert_eq!(numbering.edges(), 6);
        assert_eq!(edges(&numbering), [&[1, 3, 2][..], &[4, 2], &[3]]);
        assert_eq!(numbering.others(), keys(&["y", "x", "z"]));
        assert_eq!(numbering.others_below(), keys(&["y", "x"]));
        assert_eq!(numbering.wanted(), [5, 0, 4, 1]);
        assert_eq!(numbering.dependencies(3), [0; 0]);
    }

    #[test]
    fn of_equal_keys_the_first_counts() {
        let tasks = graph(&[("a", &[]), ("b", &["a"]), ("a", &["b"])]);
        assert_eq!(edges(&numbering(&tasks, &["b"])), [&[][..], &[0], &[1]]);
    }

    #[test]
    fn numbers_are_equal_as_they_are_to_python() {
        let tasks = vec![
            (Key::Int(1), vec![]),
            (Key::from("x"), vec![Key::Float(1.0)]),
        ];
        let wanted = [Key::Bool(true)];
        let numbering = Numbering::of(&tasks, |task| &task.0, |task| &task.1, &wanted);
        let numbering = numbering.expect("few tasks");
        assert_eq!(numbering.dependencies(1), [0]);
        assert_eq!(numbering.wanted(), [0]);
    }

    #[test]
    fn what_is_needed_stays_and_moves_up() {
        let tasks = graph(&[
            ("idle", &["a", "w"]),
            ("a", &["x"]),
            ("idle too", &["idle"]),
            ("b", &["a", "x"]),
        ]);
        let mut numbering = numbering(&tasks, &["b", "z"]);
        assert_eq!(numbering.cull(), [false, true, false, true]);
        assert_eq!(numbering.tasks(), 2);
        assert_eq!(numbering.others(), keys(&["w", "x", "z"]));
        assert_eq!(edges(&numbering), [&[3][..], &[0, 3]]);
        assert_eq!(numbering.wanted(), [1, 4]);
        assert_eq!(numbering.needed(), [true, true]);
    }

    #[test]
    fn loops_are_dropped_on_request() {
        let tasks = graph(&[("a", &["a", "x"]), ("b", &["a", "b"])]);
        let mut numbering = numbering(&tasks, &["b"]);
        assert_eq!(edges(&numbering), [&[0, 2][..], &[0, 1]]);
        numbering.drop_loops();
        assert_eq!(edges(&numbering), [&[2][..], &[0]]);
    }
}
