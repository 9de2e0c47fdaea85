//! A graph comes in in portions (see [`crate::graph::portions`]).
//!
//! A task counts as needed while dependents of it are to come, and its group counts those that are to
//! come, so that whatever happens between two portions treats it like one of a graph that is there as a
//! whole.

use std::collections::BTreeSet;

use oxidask_key::Key;

use crate::Scheduler;
use crate::graph::portions::{GraphOutline, GraphPortion, PortionTask};
use crate::graph::{LostDependencies, NewTask};
use crate::ids::{ClientId, TaskId};
use crate::state::{Collected, Member, OpenGraph, Priority};
use crate::task::TaskState;

use super::graph_update::SharedRestrictions;

/// What came of the tasks of a portion.
#[derive(Default)]
pub(super) struct Taken {
    touched: Vec<TaskId>,
    /// May run now, as far as they are not done.
    startable: Vec<TaskId>,
    /// All dependents of these are there now.
    complete: Vec<TaskId>,
    /// Wanted, but can not run.
    pub(super) lost: Vec<Key>,
}

impl Scheduler {
    pub(super) fn begin_graph(&mut self, outline: GraphOutline) {
        let GraphOutline {
            graph,
            update,
            others,
            groups,
        } = outline;
        if self.clients.get(update.client).is_none() {
            return;
        }
        self.set_stimulus(std::sync::Arc::clone(&update.stimulus_id), "update-graph");
        let tasks = groups.iter().map(|group| group.tasks as usize).sum();
        let mut open = OpenGraph {
            graph,
            release: self.release_id(&update.release),
            generation: 0.0,
            others: others.len(),
            members: Vec::with_capacity(others.len() + tasks),
            groups: Vec::new(),
            noted: BTreeSet::new(),
            new: 0,
            begun: None,
            collected: None,
            update,
        };
        if self.observe_changes {
            // Plugins are told of the graph as a whole before any of its tasks changes.
            let tasks = Vec::new();
            open.collected = Some(Collected { others, tasks });
            self.open_graphs.put(open);
            return;
        }
        let ids: Vec<_> = others.iter().map(|o| self.tasks.id(&o.key)).collect();
        let refuses = open.update.lost_dependencies == LostDependencies::RefuseGraph;
        if refuses && ids.iter().any(Option::is_none) {
            self.log_graph(&open.update, None);
            self.refuse_keys(&open.update);
            return;
        }
        self.tasks.expect(tasks);
        if let Some(client) = self.clients.get_mut(open.update.client) {
            client.wants_what.expect(open.update.keys.len());
        }
        open.generation = self.generation_of(&open.update);
        let (mut wanted, mut lost) = (Vec::new(), Vec::new());
        for (other, id) in others.iter().zip(&ids) {
            let to_come = other.dependents;
            open.members.push(Member { id: *id, to_come });
            match *id {
                Some(id) => {
                    let task = &mut self.tasks[id];
                    task.to_come = task.to_come.saturating_add(to_come);
                    wanted.extend(other.wanted.then_some(id));
                }
                None if other.wanted => lost.push(other.key.clone()),
                None => {}
            }
        }
        for group in &groups {
            let id = self.groups.group_for(&group.sample);
            self.groups.announce(id, group.tasks);
            open.groups.push((id, group.tasks));
        }
        for (at, group) in groups.iter().enumerate() {
            let Some(&(id, _)) = open.groups.get(at) else {
                continue;
            };
            for &below in &group.dependencies {
                if let Some(&(below, _)) = open.groups.get(below as usize) {
                    self.groups.add_dependency(id, below);
                }
            }
            for &other in &group.others {
                let other = ids.get(other as usize).copied().flatten();
                if let Some(other) = other {
                    self.groups.add_dependency(id, self.tasks[other].group);
                }
            }
        }
        self.spans.close_if_done(&self.groups);
        let client = open.update.client;
        self.open_graphs.put(open);
        for &id in &wanted {
            self.add_interest(client, id);
        }
        let known: Vec<TaskId> = ids.into_iter().flatten().collect();
        let finished = self.finished_among(client, &known);
        self.start(wanted.clone());
        self.recommend_blamed(&wanted);
        self.run_recommendations();
        self.report_finished(client, &finished);
        self.cancel_lost(client, lost);
    }

    pub(super) fn continue_graph(&mut self, portion: GraphPortion) {
        let Some(mut open) = self.open_graphs.take(portion.graph) else {
            return;
        };
        self.set_stimulus(
            std::sync::Arc::clone(&open.update.stimulus_id),
            "update-graph",
        );
        let is_last = portion.is_last;
        if let Some(collected) = &mut open.collected {
            collected.add(portion);
            match is_last {
                true => self.apply_collected(open),
                false => self.open_graphs.put(open),
            }
            return self.fulfil_wishes();
        }
        // They were needed for the beginning. To drop a million at the end would take long.
        let keys = &mut open.update.keys;
        keys.truncate(keys.len().saturating_sub(2 * portion.tasks.len()));
        let taken = self.take_portion(&mut open, portion);
        let concerned = self.adopt_groups(&taken.touched);
        let unheard = &concerned - &open.noted;
        self.spans.note(&unheard, &open.update.span_notes);
        self.spans.trim();
        let client = open.update.client;
        if is_last {
            self.announced_no_more(&mut open);
            let tasks = open.members.len().saturating_sub(open.others);
            self.log_graph(&open.update, Some((tasks, open.new)));
        } else {
            open.noted.extend(concerned);
            self.open_graphs.put(open);
        }
        let finished = self.finished_among(client, &taken.touched);
        self.start(taken.startable);
        self.recommend_blamed(&taken.touched);
        self.run_recommendations();
        for id in taken.complete {
            // Nothing if it is needed, as it mostly is.
            self.interest_was_lost(id);
        }
        self.run_recommendations();
        self.report_finished(client, &finished);
        self.cancel_lost(client, taken.lost);
        self.fulfil_wishes();
    }

    /// Once all that was announced is there, other clients get what they wanted of it.
    fn fulfil_wishes(&mut self) {
        for (client, key) in self.open_graphs.take_awaited() {
            self.client_desires_keys(client, &[key]);
        }
    }

    fn take_portion(&mut self, open: &mut OpenGraph, portion: GraphPortion) -> Taken {
        let mut taken = Taken::default();
        let mut shared = SharedRestrictions::default();
        let mut edges = portion.edges.as_slice();
        let continued = edges.split_off(..(portion.continued as usize).min(edges.len()));
        let done = !portion.continues || !portion.tasks.is_empty();
        self.continue_task(open, continued.unwrap_or_default(), done, &mut taken);
        let mut dependencies: Vec<TaskId> = Vec::new();
        let last = portion.tasks.len();
        for (number, task) in (1..).zip(portion.tasks) {
            let own = edges.split_off(..(task.edges as usize).min(edges.len()));
            dependencies.clear();
            let mut lost = false;
            for &number in own.unwrap_or_default() {
                match self.arrived(open, number, &mut taken) {
                    Some(id) => dependencies.push(id),
                    None => lost = true,
                }
            }
            if let Some((group, to_come)) = open.groups.get_mut(task.group as usize) {
                *to_come = to_come.saturating_sub(1);
                self.groups.came(*group, 1);
            }
            let fresh = if lost {
                self.lose(open, task, &mut taken);
                None
            } else {
                self.take_task(open, task, &dependencies, &mut shared, &mut taken)
            };
            if portion.continues && number == last {
                self.begin_task(open, fresh);
            }
        }
        taken
    }

    /// A dependent of the task with this number is there; its id, unless it is lost.
    pub(super) fn arrived(
        &mut self,
        open: &mut OpenGraph,
        number: u32,
        taken: &mut Taken,
    ) -> Option<TaskId> {
        let member = open.members.get_mut(number as usize)?;
        member.to_come = member.to_come.saturating_sub(1);
        let id = member.id?;
        let task = self.tasks.get_mut(id)?;
        task.to_come = task.to_come.saturating_sub(1);
        if task.to_come == 0 {
            taken.complete.push(id);
        }
        Some(id)
    }

    /// The task can not run. One of an earlier graph stays as it is.
    fn lose(&mut self, open: &mut OpenGraph, task: PortionTask, taken: &mut Taken) {
        let id = self.tasks.id(&task.key);
        let to_come = task.dependents;
        if let Some(id) = id {
            let known = &mut self.tasks[id];
            known.to_come = known.to_come.saturating_add(to_come);
        }
        open.members.push(Member { id, to_come });
        if task.wanted {
            taken.lost.push(task.key);
        }
    }

    /// The task, if this is where it gets its dependencies from.
    fn take_task(
        &mut self,
        open: &mut OpenGraph,
        new: PortionTask,
        dependencies: &[TaskId],
        shared: &mut SharedRestrictions,
        taken: &mut Taken,
    ) -> Option<TaskId> {
        let known = self.tasks.id(&new.key);
        let id = match known {
            Some(id) => id,
            None => {
                open.new += 1;
                self.new_task(new.key, None, TaskState::Released)
            }
        };
        taken.touched.push(id);
        let to_come = new.dependents;
        open.members.push(Member {
            id: Some(id),
            to_come,
        });
        let task = &mut self.tasks[id];
        task.to_come = task.to_come.saturating_add(to_come);
        let mut collides = false;
        let is_fresh = task.run_spec.is_none();
        if is_fresh {
            task.run_spec = Some(new.run_spec);
            task.release = open.release;
            if let Some(options) = new.options {
                self.apply_options(id, options, shared);
            }
        } else {
            task.actor |= new.options.as_ref().is_some_and(|o| o.actor);
            collides = self.collides(id, dependencies);
        }
        if !collides {
            let task = &mut self.tasks[id];
            if !task.priority.is_set() {
                let own = task.options.as_ref().and_then(|o| o.priority);
                let user = own.unwrap_or(open.update.user_priority);
                task.priority = Priority(-user, open.generation, new.order);
            }
            self.add_dependencies(id, dependencies);
        }
        if new.wanted {
            self.add_interest(open.update.client, id);
        }
        if new.wanted || (new.needed && to_come > 0) {
            taken.startable.push(id);
        }
        is_fresh.then_some(id)
    }

    /// Whatever was announced and did not come will not.
    fn announced_no_more(&mut self, open: &mut OpenGraph) {
        for (group, to_come) in open.groups.drain(..) {
            if to_come > 0 {
                self.groups.came(group, to_come);
            }
            if let Some(group) = self.groups.remove_if_forgotten(group) {
                self.spans.retire(group);
            }
        }
    }

    /// No more portions come: the client has left, or everything is to be forgotten.
    fn abandon_graph(&mut self, mut open: OpenGraph) {
        if let Some(id) = open.begun.take().and_then(|begun| begun.id) {
            self.give_up_begun(id);
        }
        let mut concerned = Vec::new();
        for member in std::mem::take(&mut open.members) {
            if let Some(id) = member.id.filter(|_| member.to_come > 0)
                && let Some(task) = self.tasks.get_mut(id)
            {
                task.to_come = task.to_come.saturating_sub(member.to_come);
                concerned.push(id);
            }
        }
        self.announced_no_more(&mut open);
        for id in concerned {
            self.interest_was_lost(id);
        }
    }

    /// Forgets what a client has not finished to submit.
    pub(super) fn abandon_graphs_of(&mut self, client: ClientId) {
        while let Some(open) = self.open_graphs.take_of(client) {
            self.abandon_graph(open);
        }
        self.fulfil_wishes();
    }

    /// Forgets all that nobody has finished to submit.
    pub(super) fn abandon_graphs(&mut self) {
        while let Some(open) = self.open_graphs.take_any() {
            self.abandon_graph(open);
        }
        self.open_graphs.take_awaited();
    }

    fn apply_collected(&mut self, open: OpenGraph) {
        let mut update = open.update;
        update.tasks = open.collected.unwrap_or_default().tasks;
        self.update_graph(update);
    }
}

impl Collected {
    fn add(&mut self, portion: GraphPortion) {
        let mut edges = portion.edges.as_slice();
        let mut next = |count: u32| {
            let next = edges.split_off(..(count as usize).min(edges.len()));
            next.unwrap_or_default()
        };
        let more = self.keys(next(portion.continued));
        if let Some(task) = self.tasks.last_mut() {
            task.dependencies.extend(more);
        }
        for task in portion.tasks {
            self.tasks.push(NewTask {
                dependencies: self.keys(next(task.edges)),
                key: task.key,
                run_spec: Some(task.run_spec),
                order: task.order,
                options: task.options,
            });
        }
    }

    fn keys(&self, numbers: &[u32]) -> Vec<Key> {
        let keys = numbers.iter();
        keys.filter_map(|&number| self.key(number).cloned())
            .collect()
    }

    fn key(&self, number: u32) -> Option<&Key> {
        let at = number as usize;
        match self.others.get(at) {
            Some(other) => Some(&other.key),
            None => self.tasks.get(at - self.others.len()).map(|task| &task.key),
        }
    }
}
