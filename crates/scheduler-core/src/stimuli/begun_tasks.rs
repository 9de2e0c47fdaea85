//! A task that depends on very many others comes before most of these dependencies do: to tell all of them at once
//! that they are needed would take long.
//!
//! It is like any other task meanwhile, but does not run ([`crate::state::Task::incomplete`]). What it depends on
//! counts as needed: by the task as soon as that dependency has come, because of dependents that are to come before.

use crate::Scheduler;
use crate::ids::TaskId;
use crate::state::{Begun, OpenGraph};
use crate::task::TaskState;

use super::graph_portions::Taken;

impl Scheduler {
    /// The dependencies of the task that came last are not all there. `fresh` is the task, unless they are of no
    /// consequence.
    pub(super) fn begin_task(&mut self, open: &mut OpenGraph, fresh: Option<TaskId>) {
        if let Some(id) = fresh {
            self.tasks[id].incomplete = true;
        }
        let member = open.members.len().saturating_sub(1);
        open.begun = Some(Begun { id: fresh, member });
    }

    /// More dependencies of the task that was begun are there; with `done` these are the last.
    pub(super) fn continue_task(
        &mut self,
        open: &mut OpenGraph,
        edges: &[u32],
        done: bool,
        taken: &mut Taken,
    ) {
        let mut dependencies = Vec::with_capacity(edges.len());
        let mut lost = false;
        for &number in edges {
            match self.arrived(open, number, taken) {
                Some(id) => dependencies.push(id),
                None => lost = true,
            }
        }
        let Some(mut begun) = open.begun.take() else {
            return;
        };
        if let Some(id) = begun.id {
            if lost {
                self.lose_begun(open, begun.member, id, taken);
                begun.id = None;
            } else {
                self.link_more(id, &dependencies);
            }
        }
        if !done {
            open.begun = Some(begun);
        } else if let Some(id) = begun.id {
            let task = &mut self.tasks[id];
            task.incomplete = false;
            if task.state == TaskState::Waiting && task.waiting_on.is_empty() {
                self.recommend(id, TaskState::Processing);
            }
        }
    }

    fn link_more(&mut self, id: TaskId, dependencies: &[TaskId]) {
        self.add_dependencies(id, dependencies);
        if self.tasks[id].state == TaskState::Waiting {
            for &dependency in dependencies {
                if self.need(id, dependency) {
                    self.tasks[id].waiting_on.insert(dependency);
                }
            }
        }
        let mut failed = dependencies.iter().filter_map(|&d| self.tasks[d].blame());
        if let Some(blame) = failed.next().cloned()
            && !matches!(self.tasks[id].state, TaskState::Memory | TaskState::Erred)
        {
            self.tasks[id].set_blame(Some(blame));
            self.recommend(id, TaskState::Erred);
        }
    }

    /// One of its dependencies is not there any more.
    fn lose_begun(&mut self, open: &mut OpenGraph, at: usize, id: TaskId, taken: &mut Taken) {
        if let Some(member) = open.members.get_mut(at) {
            member.id = None;
            let task = &mut self.tasks[id];
            task.to_come = task.to_come.saturating_sub(member.to_come);
        }
        if self.unwant(id, open.update.client) {
            taken.lost.push(self.tasks[id].key.clone());
        }
        self.give_up_begun(id);
    }

    /// The task will never have all of its dependencies.
    pub(super) fn give_up_begun(&mut self, id: TaskId) {
        let task = &mut self.tasks[id];
        task.incomplete = false;
        task.has_lost_dependencies = true;
        // Somebody may have brought a result of it.
        if task.state != TaskState::Memory {
            self.recommend(id, TaskState::Forgotten);
        }
    }
}
