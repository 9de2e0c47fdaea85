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
use oxidask_key::numbering::Numbering;
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

/// Some tasks of a graph. All that they depend on came before or is among them, further in front; which of that they
/// depend on may come with the next portions.
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
    /// How many of [`Self::edges`], in front, are of the last task of the portion before: one that depends on very many
    /// others comes first, and its dependencies follow little by little.
    #[serde(default)]
    pub continued: u32,
    /// More dependencies of the last task follow.
    #[serde(default)]
    pub continues: bool,
}

/// One task of a [`GraphPortion`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortionTask {
    /// Name.
    pub key: Key,
    /// What to run.
    pub run_spec: Opaque,
    /// How many entries of [`GraphPortion::edges`] are its own, after those of the task before.
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

/// What follows the outline: the portions, in order. Each is made when it is asked for, while the core may
/// be busy with the one before.
#[derive(Debug)]
pub struct Rest {
    plan: Plan,
    /// By place; those that are left.
    tasks: Vec<Option<NewTask>>,
    /// By number: whether it has to run.
    needed: Vec<bool>,
    /// Tasks and edges that were given out.
    given: (usize, usize),
    /// Edges of the last of these tasks that were not.
    left: usize,
}

impl Portions {
    /// Cuts `update`, whose dependencies `numbering` has, into portions of about `limit` tasks and dependencies.
    /// One that is small enough to be applied in one piece comes back as it was, and so does one whose order
    /// numbers do not put tasks after what they depend on.
    ///
    /// # Errors
    /// The update.
    pub fn of(
        update: GraphUpdate,
        numbering: Numbering,
        graph: GraphId,
        limit: usize,
    ) -> Result<Self, Box<GraphUpdate>> {
        let size = update.tasks.len() + numbering.edges();
        let whole = size <= 2 * limit
            || size >= (u32::MAX / 2) as usize
            || update.tasks.iter().any(|t| t.run_spec.is_none());
        if whole {
            return Err(Box::new(update));
        }
        match Cutter::new(&update, numbering) {
            Some(cutter) => Ok(cutter.cut(graph, limit).of(update)),
            None => Err(Box::new(update)),
        }
    }

    /// What the core is told first, and what after that.
    pub fn begin(self) -> (GraphOutline, Rest) {
        (self.outline, self.rest)
    }

    /// Tasks of groups that `is_known` knows: only these can be in the state already.
    pub fn maybe_known(&self, is_known: &[bool]) -> Vec<Key> {
        let plan = &self.rest.plan;
        let group = |place: Place| plan.group_of.get(place as usize);
        let known = |&&place: &&Place| {
            group(place).is_some_and(|&group| is_known.get(group as usize) == Some(&true))
        };
        let key = |&place: &Place| Some(self.rest.task(place)?.key.clone());
        plan.sorted.iter().filter(known).filter_map(key).collect()
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
        let plan = &self.rest.plan;
        let mut end = plan.edges.len();
        // What a task is needed for comes after it.
        let wanted = |&place: &Place| plan.wanted.get(place as usize) == Some(&true);
        let mut needed: Vec<bool> = plan.sorted.iter().map(wanted).collect();
        for (at, &place) in plan.sorted.iter().enumerate().rev() {
            let begin = end - plan.links_of(place);
            let task = self.rest.task(place);
            let state = task.and_then(|task| states.get(&task.key).copied());
            let runs = needed.get(at) == Some(&true)
                && state.is_none_or(|state| state == TaskState::Released);
            if let Some(needed) = needed.get_mut(at) {
                *needed = runs;
            }
            for &edge in plan.edges.get(begin..end).unwrap_or_default() {
                let below = (edge as usize).checked_sub(others);
                if runs && let Some(below) = below.and_then(|below| needed.get_mut(below)) {
                    *below = true;
                }
            }
            end = begin;
        }
        self.rest.needed = needed;
    }
}

impl Rest {
    /// A task that is left.
    fn task(&self, place: Place) -> Option<&NewTask> {
        self.tasks.get(place as usize)?.as_ref()
    }

    /// Moves a task to its portion.
    fn take(&mut self, number: usize, place: Place) -> Option<PortionTask> {
        let at = place as usize;
        let task = self.tasks.get_mut(at).and_then(Option::take)?;
        let plan = &self.plan;
        Some(PortionTask {
            run_spec: task.run_spec?,
            edges: plan.links_of(place) as u32,
            dependents: plan.dependents.get(at).copied().unwrap_or(0),
            group: plan.group_of.get(at).copied().unwrap_or(0),
            order: task.order,
            options: task.options,
            wanted: plan.wanted.get(at) == Some(&true),
            needed: self.needed.get(number) != Some(&false),
            key: task.key,
        })
    }
}

impl Iterator for Rest {
    type Item = GraphPortion;

    fn next(&mut self) -> Option<GraphPortion> {
        let limit = self.plan.limit.max(1);
        let (mut number, begin) = self.given;
        let mut tasks = Vec::new();
        let continued = self.left.min(limit);
        let mut end = begin + continued;
        self.left -= continued;
        while self.left == 0
            && tasks.len() + end - begin < limit
            && let Some(&place) = self.plan.sorted.get(number)
            && let Some(mut task) = self.take(number, place)
        {
            number += 1;
            let edges = task.edges as usize;
            let now = edges.min(limit);
            self.left = edges - now;
            task.edges = now as u32;
            end += now;
            tasks.push(task);
        }
        self.given = (number, end);
        if end == begin && tasks.is_empty() {
            return None;
        }
        let edges = self.plan.edges.get(begin..end).unwrap_or_default();
        Some(GraphPortion {
            graph: self.plan.graph,
            edges: edges.to_vec(),
            tasks,
            is_last: number == self.plan.sorted.len() && self.left == 0,
            continued: continued as u32,
            continues: self.left > 0,
        })
    }
}

/// What a number stands for.
#[derive(Clone, Copy)]
enum Target {
    Task(Place),
    Other(u32),
}

impl Target {
    /// In a graph of so many tasks.
    fn of(number: u32, tasks: u32) -> Self {
        match number.checked_sub(tasks) {
            None => Self::Task(number),
            Some(other) => Self::Other(other),
        }
    }
}

/// Works out how to cut a graph up, by places in what was submitted.
struct Cutter<'u> {
    update: &'u GraphUpdate,
    numbering: Numbering,
    /// Tasks in their order.
    sorted: Vec<Place>,
}

impl<'u> Cutter<'u> {
    /// None if the order of the tasks is not one in which they can run.
    fn new(update: &'u GraphUpdate, mut numbering: Numbering) -> Option<Self> {
        numbering.drop_loops();
        let mut sorted: Vec<Place> = (0..update.tasks.len() as Place).collect();
        let order = |place: Place| update.tasks.get(place as usize).map_or(0, |t| t.order);
        if !sorted.is_sorted_by_key(|&place| order(place)) {
            sorted.sort_by_key(|&place| order(place));
        }
        let mut rank = vec![0u32; sorted.len()];
        for (at, &place) in sorted.iter().enumerate() {
            *rank.get_mut(place as usize)? = at as u32;
        }
        for (place, own) in rank.iter().enumerate() {
            let mut below = numbering.dependencies(place as Place).iter();
            let is_late = |&below: &Place| rank.get(below as usize).is_some_and(|rank| rank >= own);
            if below.any(is_late) {
                return None;
            }
        }
        Some(Self {
            update,
            numbering,
            sorted,
        })
    }

    fn targets_of(&self, place: Place) -> impl ExactSizeIterator<Item = Target> {
        let count = self.sorted.len() as u32;
        let numbers = self.numbering.dependencies(place).iter();
        numbers.map(move |&number| Target::of(number, count))
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
            others: self.numbering.others().iter().map(OtherTask::of).collect(),
            sorted: Vec::new(),
        };
        let mut stack: Vec<Place> = Vec::new();
        for &number in self.numbering.wanted() {
            match Target::of(number, count as u32) {
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
        plan.numbers = Vec::new();
        plan
    }

    /// The group of each task, by a number of its own. One after the other, since keys that are looked at in the
    /// order of the walk have to be fetched from memory each.
    fn groups(&self) -> Vec<GroupId> {
        // Finds the group of a key as the core does.
        let mut names = GroupTable::new(&[]);
        let tasks = self.update.tasks.iter();
        tasks.map(|task| names.group_for(&task.key)).collect()
    }

    fn walk(&self, mut stack: Vec<Place>, plan: &mut Plan) {
        let groups = self.groups();
        let mut places: IdMap<GroupId, u32> = IdMap::default();
        while let Some(place) = stack.pop() {
            let at = place as usize;
            let (Some(group), Some(&own)) = (plan.group_of.get_mut(at), groups.get(at)) else {
                continue;
            };
            if *group != NOWHERE {
                continue;
            }
            let next = plan.groups.len() as u32;
            *group = *places.entry(own).or_insert(next);
            if *group == next
                && let Some(task) = self.update.tasks.get(at)
            {
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
            for target in self.targets_of(place) {
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
            for target in self.targets_of(place) {
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
#[derive(Debug)]
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
    /// How many dependencies a task has.
    fn links_of(&self, place: Place) -> usize {
        self.links.get(place as usize).copied().unwrap_or(0) as usize
    }

    /// What becomes of the tasks of `update`.
    fn of(mut self, mut update: GraphUpdate) -> Portions {
        let tasks = std::mem::take(&mut update.tasks);
        Portions {
            outline: GraphOutline {
                graph: self.graph,
                update,
                others: std::mem::take(&mut self.others),
                groups: std::mem::take(&mut self.groups),
            },
            rest: Rest {
                plan: self,
                tasks: tasks.into_iter().map(Some).collect(),
                needed: Vec::new(),
                given: (0, 0),
                left: 0,
            },
        }
    }
}
