//! Large submissions in portions, so that applying one never holds up everybody else for long.
//!
//! Whoever takes a graph in cuts it up outside of the core ([`Portions`]): by order number, so that every
//! task comes after what it depends on and the tasks that run first come first. The core is told of the
//! whole once ([`crate::event::Event::BeginGraph`]: what it is compared with the state by, such as keys of
//! earlier graphs and sizes of groups) and of each portion ([`crate::event::Event::ContinueGraph`]).
//! Between them it handles other events. What must be the same as for a graph in one piece: a task whose
//! dependents are still to come counts as needed, a group counts the tasks that are still to come, and a
//! graph is refused as a whole or not at all.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use oxidask_key::Key;
use serde::{Deserialize, Serialize};

use super::{GraphUpdate, NewTask, TaskOptions};
use crate::opaque::Opaque;
use crate::sets::IdMap;
use crate::state::{GroupId, GroupTable};
use crate::task::TaskState;

/// Names a submission that comes in portions. Chosen by the shell, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GraphId(pub u64);

/// What the core must know of the whole before the first portion.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GraphOutline {
    /// Which graph.
    pub graph: GraphId,
    /// The submission without its tasks.
    pub update: GraphUpdate,
    /// Keys of earlier graphs that it refers to. They have the numbers from 0 on.
    pub others: Vec<OtherTask>,
    /// Groups of its tasks, those of the outputs first.
    pub groups: Vec<GroupOutline>,
}

/// A task of an earlier graph.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OtherTask {
    /// Its key.
    pub key: Key,
    /// Tasks of this graph that need it.
    pub dependents: u32,
    /// Whether the client wants it.
    pub wanted: bool,
}

/// A group of tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupOutline {
    /// The key of one of its tasks.
    pub sample: Key,
    /// How many tasks of the graph are in it.
    pub tasks: u32,
    /// Groups of this graph, by place, that its tasks need.
    pub dependencies: Vec<u32>,
    /// [`GraphOutline::others`] that they need.
    pub others: Vec<u32>,
}

/// Some tasks of a graph. All that they depend on came before or is among them, further in front.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GraphPortion {
    /// Which graph.
    pub graph: GraphId,
    /// In their order. They have the numbers after those of the portion before.
    pub tasks: Vec<PortionTask>,
    /// Numbers of what they depend on, task after task.
    pub edges: Vec<u32>,
    /// No other portion follows.
    pub is_last: bool,
}

/// One task of a [`GraphPortion`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortionTask {
    /// Name.
    pub key: Key,
    /// What to run.
    pub run_spec: Opaque,
    /// How many entries of [`GraphPortion::edges`] are its own.
    pub edges: u32,
    /// How many tasks of the graph need it.
    pub dependents: u32,
    /// Place of its group in [`GraphOutline::groups`].
    pub group: u32,
    /// See [`NewTask::order`].
    pub order: i64,
    /// See [`NewTask::options`].
    pub options: Option<Arc<TaskOptions>>,
    /// Whether the client wants it.
    pub wanted: bool,
    /// Whether it has to run for what comes later; not if that is there already.
    pub needed: bool,
}

/// A task that is no other's twin, reachable or not: an index into what was submitted.
type Place = u32;

/// A graph that was cut up.
#[derive(Debug)]
pub struct Portions {
    /// For [`crate::event::Event::BeginGraph`].
    pub outline: GraphOutline,
    rest: Rest,
}

/// What follows the outline: the portions, in order.
#[derive(Debug)]
pub struct Rest {
    graph: GraphId,
    tasks: std::vec::IntoIter<PortionTask>,
    edges: Vec<u32>,
    /// Entries of `edges` that were given out.
    given: usize,
    limit: usize,
}

impl Portions {
    /// Cuts `update` into portions of about `limit` tasks and dependencies. One that is small enough to be applied in one piece
    /// comes back as it was, and so does one whose order numbers do not put tasks after what they depend
    /// on.
    ///
    /// # Errors
    /// The update.
    pub fn of(update: GraphUpdate, graph: GraphId, limit: usize) -> Result<Self, Box<GraphUpdate>> {
        let links: usize = update.tasks.iter().map(|t| t.dependencies.len()).sum();
        let size = update.tasks.len() + links;
        let whole = size <= 2 * limit
            || size >= (u32::MAX / 2) as usize
            || update.tasks.iter().any(|t| t.run_spec.is_none());
        if whole {
            return Err(Box::new(update));
        }
        match Cutter::new(&update) {
            Some(cutter) => Ok(cutter.cut(graph, limit).fill(update)),
            None => Err(Box::new(update)),
        }
    }

    /// What the core is told first, and what after that.
    pub fn begin(self) -> (GraphOutline, Rest) {
        (self.outline, self.rest)
    }

    /// Tasks of groups that `is_known` knows: only these can be in the state already.
    pub fn maybe_known(&self, is_known: &[bool]) -> Vec<Key> {
        let known = |task: &&PortionTask| is_known.get(task.group as usize) == Some(&true);
        let tasks = self.rest.tasks.as_slice().iter();
        tasks.filter(known).map(|task| task.key.clone()).collect()
    }

    /// Has tasks that are only needed for what is there already not run. `states` has those of
    /// [`Self::maybe_known`] that are in the state. That it may have changed since is of no
    /// consequence: what turns out to be needed runs when its dependents come.
    pub fn found(&mut self, states: &[(Key, TaskState)]) {
        if states.is_empty() {
            return;
        }
        let states: HashMap<&Key, TaskState, FixedState> =
            states.iter().map(|(key, state)| (key, *state)).collect();
        let others = self.outline.others.len();
        let Rest { tasks, edges, .. } = &mut self.rest;
        let tasks = tasks.as_mut_slice();
        let mut end = edges.len();
        // What a task is needed for comes after it.
        let mut needed: Vec<bool> = tasks.iter().map(|task| task.wanted).collect();
        for (at, task) in tasks.iter_mut().enumerate().rev() {
            let begin = end - task.edges as usize;
            let state = states.get(&task.key).copied();
            let runs = needed.get(at) == Some(&true)
                && state.is_none_or(|state| state == TaskState::Released);
            task.needed = runs;
            for &edge in edges.get(begin..end).unwrap_or_default() {
                let below = (edge as usize).checked_sub(others);
                if runs && let Some(below) = below.and_then(|below| needed.get_mut(below)) {
                    *below = true;
                }
            }
            end = begin;
        }
    }
}

impl Iterator for Rest {
    type Item = GraphPortion;

    fn next(&mut self) -> Option<GraphPortion> {
        let mut tasks = Vec::new();
        let begin = self.given;
        while tasks.len() + self.given - begin < self.limit {
            let Some(task) = self.tasks.next() else {
                break;
            };
            self.given += task.edges as usize;
            tasks.push(task);
        }
        if tasks.is_empty() {
            return None;
        }
        let edges = self.edges.get(begin..self.given).unwrap_or_default();
        Some(GraphPortion {
            graph: self.graph,
            edges: edges.to_vec(),
            tasks,
            is_last: self.tasks.as_slice().is_empty(),
        })
    }
}

/// Numbers of the keys of a graph.
struct Numbers<'u> {
    update: &'u GraphUpdate,
    /// Filled when first needed: a map of independent tasks does not.
    index: HashMap<&'u Key, Place, FixedState>,
    others: HashMap<&'u Key, u32, FixedState>,
    other_keys: Vec<&'u Key>,
}

/// What a key stands for.
#[derive(Clone, Copy)]
enum Target {
    Task(Place),
    Other(u32),
}

impl<'u> Numbers<'u> {
    fn of(update: &'u GraphUpdate) -> Self {
        Self {
            update,
            index: HashMap::default(),
            others: HashMap::default(),
            other_keys: Vec::new(),
        }
    }

    fn target(&mut self, key: &'u Key) -> Target {
        if self.index.is_empty() {
            let tasks = self.update.tasks.iter().enumerate();
            // The first of twins counts.
            self.index
                .extend(tasks.rev().map(|(at, task)| (&task.key, at as Place)));
        }
        if let Some(&place) = self.index.get(key) {
            return Target::Task(place);
        }
        let next = self.other_keys.len() as u32;
        let number = *self.others.entry(key).or_insert(next);
        if number == next {
            self.other_keys.push(key);
        }
        Target::Other(number)
    }

    /// What the client wants. Its keys often come in the order of the tasks: then no look-up is needed.
    fn wanted(&mut self) -> Vec<Target> {
        let mut next = 0;
        let mut wanted = Vec::with_capacity(self.update.keys.len());
        for key in &self.update.keys {
            let target = match self.update.tasks.get(next) {
                Some(task) if task.key == *key => Target::Task(next as Place),
                _ => self.target(key),
            };
            if let Target::Task(place) = target {
                next = place as usize + 1;
            }
            wanted.push(target);
        }
        wanted
    }
}

/// Works out how to cut a graph up, by places in what was submitted.
struct Cutter<'u> {
    update: &'u GraphUpdate,
    /// Tasks in their order.
    sorted: Vec<Place>,
    /// What each task depends on: `targets[starts[place]..starts[place + 1]]`.
    targets: Vec<Target>,
    starts: Vec<u32>,
    wanted: Vec<Target>,
    others: Vec<Key>,
}

impl<'u> Cutter<'u> {
    /// None if the order of the tasks is not one in which they can run.
    fn new(update: &'u GraphUpdate) -> Option<Self> {
        let mut numbers = Numbers::of(update);
        let mut sorted: Vec<Place> = (0..update.tasks.len() as Place).collect();
        let order = |place: Place| update.tasks.get(place as usize).map_or(0, |t| t.order);
        if !sorted.is_sorted_by_key(|&place| order(place)) {
            sorted.sort_by_key(|&place| order(place));
        }
        let mut rank = vec![0u32; sorted.len()];
        for (at, &place) in sorted.iter().enumerate() {
            *rank.get_mut(place as usize)? = at as u32;
        }
        let (mut targets, mut starts) = (Vec::new(), Vec::with_capacity(sorted.len() + 1));
        for (place, task) in update.tasks.iter().enumerate() {
            starts.push(targets.len() as u32);
            for key in &task.dependencies {
                let target = numbers.target(key);
                match target {
                    // Some old clients list a task among its own dependencies.
                    Target::Task(below) if below as usize == place => continue,
                    Target::Task(below) if rank.get(below as usize) >= rank.get(place) => {
                        return None;
                    }
                    _ => targets.push(target),
                }
            }
        }
        starts.push(targets.len() as u32);
        let wanted = numbers.wanted();
        Some(Self {
            others: numbers.other_keys.into_iter().cloned().collect(),
            update,
            sorted,
            targets,
            starts,
            wanted,
        })
    }

    fn targets_of(&self, place: Place) -> &[Target] {
        let at = place as usize;
        let (begin, end) = (self.starts.get(at), self.starts.get(at + 1));
        let range = begin.zip(end).map(|(&b, &e)| b as usize..e as usize);
        range.and_then(|r| self.targets.get(r)).unwrap_or_default()
    }

    /// Walks from the wanted tasks along the dependencies: groups are listed in the order of that walk,
    /// whatever order the client sent tasks in.
    fn cut(self, graph: GraphId, limit: usize) -> Plan {
        let count = self.sorted.len();
        let mut plan = Plan {
            graph,
            limit,
            links: (0..count as Place)
                .map(|place| self.targets_of(place).len() as u32)
                .collect(),
            groups: Vec::new(),
            group_of: vec![NOWHERE; count],
            dependents: vec![0; count],
            wanted: vec![false; count],
            numbers: Vec::new(),
            edges: Vec::new(),
            others: self.others.iter().map(OtherTask::of).collect(),
            sorted: Vec::new(),
        };
        let mut stack: Vec<Place> = Vec::new();
        for target in &self.wanted {
            match *target {
                Target::Task(place) => {
                    if let Some(wanted) = plan.wanted.get_mut(place as usize) {
                        *wanted = true;
                    }
                    stack.push(place);
                }
                Target::Other(number) => {
                    if let Some(other) = plan.others.get_mut(number as usize) {
                        other.wanted = true;
                    }
                }
            }
        }
        self.walk(stack, &mut plan);
        self.number(&mut plan);
        self.link_groups(&mut plan);
        plan
    }

    fn walk(&self, mut stack: Vec<Place>, plan: &mut Plan) {
        // Finds the group of a key as the core does.
        let mut names = GroupTable::new(&[]);
        let mut places: IdMap<GroupId, u32> = IdMap::default();
        while let Some(place) = stack.pop() {
            let at = place as usize;
            let (Some(group), Some(task)) = (plan.group_of.get_mut(at), self.update.tasks.get(at))
            else {
                continue;
            };
            if *group != NOWHERE {
                continue;
            }
            let next = plan.groups.len() as u32;
            *group = *places.entry(names.group_for(&task.key)).or_insert(next);
            if *group == next {
                plan.groups.push(GroupOutline {
                    sample: task.key.clone(),
                    tasks: 0,
                    dependencies: Vec::new(),
                    others: Vec::new(),
                });
            }
            if let Some(group) = plan.groups.get_mut(*group as usize) {
                group.tasks += 1;
            }
            for &target in self.targets_of(place) {
                match target {
                    Target::Task(below) => {
                        if let Some(dependents) = plan.dependents.get_mut(below as usize) {
                            *dependents += 1;
                        }
                        stack.push(below);
                    }
                    Target::Other(number) => {
                        if let Some(other) = plan.others.get_mut(number as usize) {
                            other.dependents += 1;
                        }
                    }
                }
            }
        }
    }

    /// Numbers what can be reached, in order.
    fn number(&self, plan: &mut Plan) {
        let reachable = |place: &Place| plan.group_of.get(*place as usize) != Some(&NOWHERE);
        plan.sorted = self.sorted.iter().copied().filter(reachable).collect();
        plan.numbers = vec![NOWHERE; self.sorted.len()];
        // Those that nothing reachable refers to are left out.
        let mut next = 0;
        let mut number_of_other = vec![NOWHERE; plan.others.len()];
        for (other, number) in plan.others.iter().zip(&mut number_of_other) {
            if other.wanted || other.dependents > 0 {
                *number = next;
                next += 1;
            }
        }
        plan.others.retain(|o| o.wanted || o.dependents > 0);
        for &place in &plan.sorted {
            if let Some(number) = plan.numbers.get_mut(place as usize) {
                *number = next;
                next += 1;
            }
        }
        for &place in &plan.sorted {
            for &target in self.targets_of(place) {
                let number = match target {
                    Target::Task(below) => plan.numbers.get(below as usize),
                    Target::Other(other) => number_of_other.get(other as usize),
                };
                plan.edges.push(number.copied().unwrap_or(NOWHERE));
            }
        }
    }

    fn link_groups(&self, plan: &mut Plan) {
        let others = plan.others.len() as u32;
        let mut seen: HashSet<(u32, u32), FixedState> = HashSet::default();
        let mut last = None;
        let mut edges = plan.edges.iter();
        for &place in &plan.sorted {
            let at = *plan.group_of.get(place as usize).unwrap_or(&NOWHERE);
            for &edge in edges.by_ref().take(self.targets_of(place).len()) {
                let below = edge
                    .checked_sub(others)
                    .and_then(|n| plan.sorted.get(n as usize))
                    .and_then(|&place| plan.group_of.get(place as usize));
                // Others have numbers of their own, which must not be taken for groups.
                let link = (at, below.map_or(NOWHERE - 1 - edge, |&below| below));
                if last == Some(link) {
                    continue;
                }
                last = Some(link);
                let Some(group) = plan.groups.get_mut(at as usize) else {
                    continue;
                };
                match below {
                    _ if !seen.insert(link) => {}
                    Some(&below) => group.dependencies.push(below),
                    None => group.others.push(edge),
                }
            }
        }
    }
}

impl OtherTask {
    fn of(key: &Key) -> Self {
        Self {
            key: key.clone(),
            dependents: 0,
            wanted: false,
        }
    }
}

const NOWHERE: u32 = u32::MAX;

/// How a graph is cut up.
struct Plan {
    graph: GraphId,
    limit: usize,
    groups: Vec<GroupOutline>,
    /// By place: how many dependencies it has, its group, …
    links: Vec<u32>,
    group_of: Vec<u32>,
    dependents: Vec<u32>,
    wanted: Vec<bool>,
    numbers: Vec<u32>,
    /// Numbers of the dependencies of `sorted`, one after the other.
    edges: Vec<u32>,
    others: Vec<OtherTask>,
    /// What is to be taken in, in order.
    sorted: Vec<Place>,
}

impl Plan {
    /// Moves the tasks to their places.
    fn fill(self, mut update: GraphUpdate) -> Portions {
        let tasks = std::mem::take(&mut update.tasks);
        let mut tasks: Vec<Option<NewTask>> = tasks.into_iter().map(Some).collect();
        let mut placed = Vec::with_capacity(self.sorted.len());
        for &place in &self.sorted {
            let at = place as usize;
            let Some(mut task) = tasks.get_mut(at).and_then(Option::take) else {
                continue;
            };
            let Some(run_spec) = task.run_spec.take() else {
                continue;
            };
            placed.push(PortionTask {
                run_spec,
                edges: self.links.get(at).copied().unwrap_or(0),
                dependents: self.dependents.get(at).copied().unwrap_or(0),
                group: self.group_of.get(at).copied().unwrap_or(0),
                order: task.order,
                options: task.options,
                wanted: self.wanted.get(at) == Some(&true),
                needed: true,
                key: task.key,
            });
        }
        Portions {
            outline: GraphOutline {
                graph: self.graph,
                update,
                others: self.others,
                groups: self.groups,
            },
            rest: Rest {
                graph: self.graph,
                tasks: placed.into_iter(),
                edges: self.edges,
                given: 0,
                limit: self.limit.max(1),
            },
        }
    }
}
