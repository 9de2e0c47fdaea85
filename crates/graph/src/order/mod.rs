//! `dask.order`: the static order of the tasks of a graph.
//!
//! The order decides which of several runnable tasks goes first, and thereby how much memory a
//! computation holds. Two generations of the algorithm are kept, since clients of a release expect
//! its behaviour: [`Algorithm::V2026`] in [`modern`], [`Algorithm::V2022`] in [`classic`].
//!
//! Stock iterates over hash sets in places, so that its result may differ from one process to the
//! next; here those places follow a fixed order, which makes the result one of those that stock may
//! give, and the same on every run.

mod classic;
mod modern;
mod names;

use hashbrown::HashMap;
use std::borrow::Cow;

use oxidask_key::Key;
use oxidask_key::numbering::Numbering;

use crate::intake::{SplitTask, TaskKind};

/// Generation of the algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// As of dask 2022.12.0.
    V2022,
    /// As of dask 2026.8.0.
    V2026,
}

/// A cycle among the dependencies: the graph cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Cycle detected between the following keys:\n  -> {}", .0.iter().map(Key::to_text).collect::<Vec<_>>().join("\n  -> "))]
pub struct Cycle(pub Vec<Key>);

/// What the order depends on: a view of one task.
#[derive(Clone, Copy, Debug)]
pub struct OrderTask<'a> {
    /// Its name.
    pub key: &'a Key,
    /// Its kind.
    pub kind: TaskKind,
}

impl<'a> From<&'a SplitTask> for OrderTask<'a> {
    fn from(task: &'a SplitTask) -> Self {
        Self {
            key: &task.key,
            kind: task.kind,
        }
    }
}

/// The order of each of `tasks` (keys must be unique), which `numbering` is of: the smaller runs first.
///
/// # Errors
/// [`Cycle`].
pub fn order<'a>(
    tasks: impl IntoIterator<Item = OrderTask<'a>>,
    numbering: &'a Numbering,
    algorithm: Algorithm,
) -> Result<Vec<i64>, Cycle> {
    let graph = Graph::new(tasks, numbering);
    if graph.count == 0 {
        return Ok(Vec::new());
    }
    match algorithm {
        Algorithm::V2022 => classic::order(graph),
        Algorithm::V2026 => modern::order(graph),
    }
}

/// A graph with numbers for keys. Numbers from `count` on are keys of other graphs.
struct Graph<'a> {
    count: usize,
    keys: Vec<&'a Key>,
    is_task: Vec<bool>,
    dependencies: Vec<Vec<u32>>,
    dependents: Vec<Vec<u32>>,
}

impl<'a> Graph<'a> {
    fn new(tasks: impl IntoIterator<Item = OrderTask<'a>>, numbering: &'a Numbering) -> Self {
        let count = numbering.tasks();
        let (mut keys, mut is_task) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for task in tasks.into_iter().take(count) {
            keys.push(task.key);
            is_task.push(task.kind == TaskKind::Task);
        }
        keys.extend(numbering.others_below());
        is_task.resize(keys.len(), false);
        let numbers = 0..keys.len() as u32;
        let dependencies: Vec<Vec<u32>> = numbers
            .map(|number| numbering.dependencies(number).to_vec())
            .collect();
        let mut dependents = vec![Vec::new(); keys.len()];
        for (i, numbers) in dependencies.iter().enumerate() {
            for &number in numbers {
                dependents[number as usize].push(i as u32);
            }
        }
        Self {
            count,
            keys,
            is_task,
            dependencies,
            dependents,
        }
    }

    fn len(&self) -> usize {
        self.keys.len()
    }

    /// `str()` of a key.
    fn text(&self, node: u32) -> Cow<'a, str> {
        match self.keys[node as usize] {
            Key::Str(text) => Cow::Borrowed(text),
            key => Cow::Owned(key.to_text()),
        }
    }

    /// The keys on a cycle, given that some nodes cannot be computed.
    fn cycle(&self, computable: impl Fn(u32) -> bool) -> Cycle {
        let stuck = |&node: &u32| !computable(node);
        let Some(start) = (0..self.len() as u32).find(stuck) else {
            return Cycle(Vec::new());
        };
        let mut position = HashMap::new();
        let mut path = Vec::new();
        let mut node = start;
        while !position.contains_key(&node) {
            position.insert(node, path.len());
            path.push(node);
            // A node that is stuck needs one that is stuck.
            match self.dependencies[node as usize].iter().find(|d| stuck(d)) {
                Some(&next) => node = next,
                None => break,
            }
        }
        let first = position.get(&node).copied().unwrap_or(0);
        let mut keys: Vec<Key> = path[first..]
            .iter()
            .map(|&n| self.keys[n as usize].clone())
            .collect();
        keys.extend(keys.first().cloned());
        Cycle(keys)
    }

    /// For each node how many nodes it needs, counted once per path (saturating); 0 for nodes on or
    /// behind a cycle.
    fn total_dependencies(&self, alive: impl Fn(u32) -> bool) -> Vec<u128> {
        let mut total = vec![0u128; self.len()];
        let mut needed: Vec<u32> = self.dependencies.iter().map(|d| d.len() as u32).collect();
        let nodes = 0..self.len() as u32;
        let mut ready: Vec<u32> = nodes
            .filter(|&n| alive(n) && needed[n as usize] == 0)
            .collect();
        while let Some(node) = ready.pop() {
            let below = self.dependencies[node as usize].iter();
            let sum = below.fold(1u128, |sum, &d| sum.saturating_add(total[d as usize]));
            total[node as usize] = sum;
            for &dependent in &self.dependents[node as usize] {
                needed[dependent as usize] -= 1;
                if needed[dependent as usize] == 0 {
                    ready.push(dependent);
                }
            }
        }
        total
    }
}
