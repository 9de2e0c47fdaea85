//! Tasks that could run: `ready` ones in one queue, `constrained` ones in one for each set of needs, so
//! that tasks which wait for one resource do not hold up those that need another.

use std::collections::BTreeSet;

use super::{Needs, Priority, Resources};
use crate::ids::TaskId;

#[derive(Debug)]
struct Class {
    needs: Needs,
    tasks: BTreeSet<(Priority, TaskId)>,
}

/// What may run next.
#[derive(Debug, Default)]
pub(crate) struct RunQueue {
    ready: BTreeSet<(Priority, TaskId)>,
    /// None is empty.
    classes: Vec<Class>,
}

impl RunQueue {
    pub(crate) fn push(&mut self, id: TaskId, priority: Priority, needs: &Needs) {
        if needs.is_empty() {
            self.ready.insert((priority, id));
            return;
        }
        match self.classes.iter_mut().find(|c| c.needs == *needs) {
            Some(class) => {
                class.tasks.insert((priority, id));
            }
            None => self.classes.push(Class {
                needs: needs.clone(),
                tasks: BTreeSet::from([(priority, id)]),
            }),
        }
    }

    pub(crate) fn remove(&mut self, id: TaskId, priority: Priority) {
        if self.ready.remove(&(priority, id)) {
            return;
        }
        for class in &mut self.classes {
            if class.tasks.remove(&(priority, id)) {
                break;
            }
        }
        self.classes.retain(|c| !c.tasks.is_empty());
    }

    pub(crate) fn contains(&self, id: TaskId, priority: Priority) -> bool {
        let entry = (priority, id);
        self.ready.contains(&entry) || self.classes.iter().any(|c| c.tasks.contains(&entry))
    }

    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.classes.iter().map(|c| c.tasks.len()).sum::<usize>()
    }

    /// The task of the highest priority whose needs are met. What a more important task waits for is not
    /// taken by a less important one, or the former might wait for ever.
    pub(crate) fn next(&self, resources: &Resources) -> Option<(Priority, TaskId)> {
        let mut best = self.ready.first().copied();
        if self.classes.is_empty() {
            return best;
        }
        let mut order: Vec<(&(Priority, TaskId), &Needs)> = self
            .classes
            .iter()
            .filter_map(|c| Some((c.tasks.first()?, &c.needs)))
            .collect();
        order.sort_unstable_by_key(|(first, _)| *first);
        let mut blocked: Vec<&Needs> = Vec::new();
        for (first, needs) in order {
            if best.is_some_and(|b| b < *first) {
                break;
            }
            if blocked.iter().any(|b| b.overlaps(needs)) || !resources.suffice(needs) {
                blocked.push(needs);
                continue;
            }
            best = Some(*first);
            break;
        }
        best
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = TaskId> + '_ {
        let constrained = self.classes.iter().flat_map(|c| &c.tasks);
        self.ready.iter().chain(constrained).map(|&(_, id)| id)
    }
}
