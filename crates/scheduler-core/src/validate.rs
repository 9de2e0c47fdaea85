//! The invariants of the state, as code: what holds between two events.
//!
//! Each function states the rules for one thing and names the first one broken.

use hashbrown::HashMap;
use oxidask_key::Key;

use crate::Scheduler;
use crate::ids::{TaskId, WorkerId};
use crate::placement::slots_available;
use crate::sets::IdMap;
use crate::state::{OpenGraph, PrefixId, ReleaseId, StateCounts, Task};
use crate::task::TaskState;
use crate::worker::WorkerStatus;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    /// The rule, and where it is broken.
    pub what: String,
}

type Checked = Result<(), Violation>;

fn rule(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(Violation { what: what() })
    }
}

impl Scheduler {
    /// Checks every invariant. Takes time linear in the state.
    pub fn validate(&self) -> Checked {
        for (id, task) in self.tasks.iter() {
            self.validate_task(id, task)?;
        }
        for &id in self.workers.registered() {
            self.validate_worker(id)?;
        }
        self.validate_sets()?;
        self.validate_open_graphs()?;
        self.validate_clients()?;
        self.validate_groups()?;
        self.validate_stealing()
    }

    /// Checks after an event: everything while there is little, else the tasks that changed.
    pub(crate) fn validate_after_event(&mut self, transitions_before: u64) {
        let result = if self.tasks.len() <= self.config.validate_all_up_to {
            self.validate()
        } else {
            self.validate_recent(transitions_before)
        };
        if let Err(violation) = result {
            self.violation(violation.what);
        }
    }

    fn validate_recent(&self, transitions_before: u64) -> Checked {
        let made = (self.transition_counter - transitions_before) as usize;
        let changed: Vec<&Key> = self
            .transition_log()
            .rev()
            .take(made)
            .map(|e| &e.key)
            .collect();
        for key in changed {
            if let Some(id) = self.tasks.id(key) {
                self.validate_task(id, &self.tasks[id])?;
            }
        }
        Ok(())
    }

    fn validate_task(&self, id: TaskId, task: &Task) -> Checked {
        let say = |what: &str| {
            let (key, state) = (&task.key, task.state.as_str());
            format!("{key:?} ({state}): {what}")
        };
        rule(self.tasks.id(&task.key) == Some(id), || {
            say("the index does not find it")
        })?;
        rule(task.recommended.is_none(), || {
            say("a recommendation was not followed")
        })?;
        rule(task.scratch == Task::NO_SCRATCH, || {
            say("is still being taken in")
        })?;
        self.validate_relations(id, task, &say)?;
        self.validate_state(id, task, &say)?;
        rule(
            self.replicated.contains(id) == (task.who_has.len() > 1),
            || say("set of replicated tasks is wrong"),
        )?;
        if task.actor && task.state == TaskState::Memory {
            let homes = task
                .who_has
                .iter()
                .filter(|&w| self.workers[w].actors.contains(id))
                .count();
            rule(homes <= 1, || say("an actor lives on two workers"))?;
        }
        Ok(())
    }

    fn validate_relations(&self, id: TaskId, task: &Task, say: &dyn Fn(&str) -> String) -> Checked {
        for d in task.dependencies.iter() {
            let dependency = self.tasks.get(d);
            rule(dependency.is_some(), || say("a dependency does not exist"))?;
            rule(self.tasks[d].dependents.contains(id), || {
                say("is no dependent of its dependency")
            })?;
        }
        for d in task.dependents.iter() {
            let dependent = self.tasks.get(d);
            rule(dependent.is_some(), || say("a dependent does not exist"))?;
            rule(self.tasks[d].dependencies.contains(id), || {
                say("is no dependency of its dependent")
            })?;
        }
        for d in task.waiting_on.iter() {
            rule(task.dependencies.contains(d), || {
                say("waits for what it does not depend on")
            })?;
            rule(self.tasks[d].who_has.is_empty(), || {
                say("waits for what is in memory")
            })?;
            rule(self.tasks[d].state != TaskState::Released, || {
                say("waits for a released task")
            })?;
        }
        for w in task.waiters.iter() {
            rule(task.dependents.contains(w), || {
                say("a waiter is no dependent")
            })?;
            rule(self.tasks[w].state.is_under_way(), || {
                say("a waiter is not under way")
            })?;
        }
        for c in task.who_wants.iter() {
            let client = self.clients.get(c);
            rule(client.is_some_and(|c| c.wants_what.contains(id)), || {
                say("a client that wants it does not know")
            })?;
        }
        for w in task.who_has.iter() {
            let worker = self.workers.get(w);
            rule(worker.is_some_and(|w| w.has_what.contains(id)), || {
                say("a worker that has it does not know")
            })?;
        }
        Ok(())
    }

    fn validate_state(&self, id: TaskId, task: &Task, say: &dyn Fn(&str) -> String) -> Checked {
        use TaskState::{
            Erred, Forgotten, Memory, NoWorker, Processing, Queued, Released, Waiting,
        };
        let state = task.state;
        rule(
            task.processing_on.get().is_some() == (state == Processing),
            || say("processing_on does not agree with the state"),
        )?;
        rule(task.who_has.is_empty() != (state == Memory), || {
            say("who_has does not agree with the state")
        })?;
        rule(self.unrunnable.contains(id) == (state == NoWorker), || {
            say("set of unrunnable tasks is wrong")
        })?;
        let queued = self.queues.iter().any(|q| q.contains(id));
        rule(queued == (state == Queued), || say("queue is wrong"))?;
        let waits_for_none = state != Waiting || task.incomplete;
        let waits_for_some = state == Waiting;
        let agrees = match task.waiting_on.is_empty() {
            true => waits_for_none,
            false => waits_for_some,
        };
        rule(agrees, || say("waiting_on does not agree with the state"))?;
        if state.is_under_way() {
            for d in task.dependencies.iter() {
                let waits = task.waiting_on.contains(d);
                rule(waits == self.tasks[d].who_has.is_empty(), || {
                    say("waits for the wrong dependencies")
                })?;
                rule(self.tasks[d].waiters.contains(id), || {
                    say("its dependency does not know that it waits")
                })?;
            }
            let expected = task.is_needed() || self.is_being_let_go(id, task);
            rule(expected, || say("nobody needs it"))?;
            rule(task.run_spec.is_some(), || say("has nothing to run"))?;
        }
        match state {
            Released => rule(task.waiters.is_empty(), || say("has waiters")),
            Erred => rule(task.blame().is_some(), || say("nothing is to blame")),
            Processing => {
                let worker = task.processing_on.get().and_then(|w| self.workers.get(w));
                rule(worker.is_some_and(|w| w.processing.contains(id)), || {
                    say("its worker does not know")
                })
            }
            Memory => self.validate_in_memory(id, task, say),
            Forgotten => rule(false, || say("is still there")),
            Waiting | NoWorker | Queued => Ok(()),
        }
    }

    fn validate_in_memory(&self, id: TaskId, task: &Task, say: &dyn Fn(&str) -> String) -> Checked {
        for d in task.dependents.iter() {
            rule(
                task.waiters.contains(d) == self.tasks[d].state.is_under_way(),
                || say("waiters are not the dependents under way"),
            )?;
        }
        if task.run_spec.is_some() {
            let expected = task.is_needed() || self.is_being_let_go(id, task);
            rule(expected, || say("is in memory for nobody"))?;
        }
        for d in task.dependents.iter() {
            rule(!self.tasks[d].waiting_on.contains(id), || {
                say("is waited for")
            })?;
        }
        Ok(())
    }

    fn validate_worker(&self, id: WorkerId) -> Checked {
        let Some(w) = self.workers.get(id) else {
            return rule(false, || format!("{id:?} is registered, but not there"));
        };
        let say = |what: &str| format!("worker {}: {what}", w.address());
        let mut nbytes = 0;
        for t in w.has_what.iter() {
            let task = self.tasks.get(t);
            rule(task.is_some_and(|t| t.who_has.contains(id)), || {
                say("holds what does not know")
            })?;
            nbytes += self.get_nbytes(t);
        }
        rule(nbytes == w.nbytes, || {
            say(&format!("nbytes is {}, not {nbytes}", w.nbytes))
        })?;
        let mut prefixes: HashMap<PrefixId, u32, foldhash::fast::FixedState> = HashMap::default();
        let mut needs: IdMap<TaskId, u32> = IdMap::default();
        for t in w.processing.iter() {
            let task = self.tasks.get(t);
            rule(
                task.is_some_and(|t| t.processing_on.get() == Some(id)),
                || say("runs what does not know"),
            )?;
            let task = &self.tasks[t];
            if !w.long_running.contains(t) {
                *prefixes
                    .entry(self.groups.group(task.group).prefix)
                    .or_default() += 1;
            }
            for d in task.dependencies.iter() {
                if !w.has_what.contains(d) && !self.orders.will_count(t, id, d) {
                    *needs.entry(d).or_default() += 1;
                }
            }
        }
        for t in w.long_running.iter() {
            rule(w.processing.contains(t), || {
                say("a long-running task is not processing")
            })?;
        }
        let counted = w.prefix_counts.len() == prefixes.len()
            && w.prefix_counts
                .iter()
                .all(|(p, n)| prefixes.get(p) == Some(n));
        rule(counted, || say("counts of prefixes are wrong"))?;
        let needed = w.needs_what.len() == needs.len()
            && w.needs_what.iter().all(|(t, n)| needs.get(t) == Some(n));
        rule(needed, || say("needs_what is wrong"))?;
        for t in w.actors.iter() {
            let state = self.tasks.get(t).map(|t| t.state);
            rule(
                matches!(state, Some(TaskState::Memory | TaskState::Processing)),
                || say("an actor is neither here nor on its way"),
            )?;
        }
        self.validate_load(id, &say)
    }

    fn validate_load(&self, id: WorkerId, say: &dyn Fn(&str) -> String) -> Checked {
        let w = &self.workers[id];
        let running = w.status == WorkerStatus::Running;
        rule(self.workers.running.contains(&id) == running, || {
            say("set of running workers is wrong")
        })?;
        rule(self.workers.idle().contains(&id) == w.idle, || {
            say("set of idle workers is wrong")
        })?;
        let saturated = self.workers.saturated.contains(&id);
        rule(running || !(w.idle || saturated), || {
            say("is idle or saturated without running")
        })?;
        rule(!(w.idle && saturated), || say("is idle and saturated"))?;
        rule(w.idle || !running || !w.processing.is_empty(), || {
            say("has nothing to do, but is not idle")
        })?;
        let open = match slots_available(w, self.config.worker_saturation) {
            _ if !running => None,
            None => Some(0),
            Some(slots) => (slots > 0).then_some(slots),
        };
        let load = w.processing.len() as f64 / f64::from(w.nthreads());
        rule(w.open == open.map(|s| (load.to_bits(), s)), || {
            say("free slots are wrong")
        })
    }

    fn validate_sets(&self) -> Checked {
        let count = |state| self.tasks.iter().filter(|(_, t)| t.state == state).count();
        rule(self.unrunnable.len() == count(TaskState::NoWorker), || {
            "tasks without a worker are wrong".into()
        })?;
        rule(self.queued_len() == count(TaskState::Queued), || {
            "the queues are wrong".into()
        })?;
        let replicated = self
            .tasks
            .iter()
            .filter(|(_, t)| t.who_has.len() > 1)
            .count();
        rule(self.replicated.len() == replicated, || {
            "replicated tasks are wrong".into()
        })?;
        let live: usize = self.spans.iter().map(|span| span.live_groups).sum();
        let with_span = self.groups.iter().filter(|(_, g)| g.span_id.is_some());
        rule(live == with_span.count(), || {
            "groups of spans are wrong".into()
        })?;
        let threads: u64 = self
            .workers
            .registered()
            .iter()
            .map(|&w| u64::from(self.workers[w].nthreads()))
            .sum();
        rule(threads == self.workers.total_nthreads, || {
            "sum of threads is wrong".into()
        })?;
        for (release, queue) in self.queues.iter().enumerate() {
            let open = self.workers.open_slots(ReleaseId(release as u8));
            rule(queue.is_empty() || open <= 0, || {
                format!("{} tasks are queued, {open} slots are free", queue.len())
            })?;
        }
        let needs: i64 = self
            .workers
            .registered()
            .iter()
            .map(|&w| self.workers[w].network_occ)
            .sum();
        rule(needs == self.network_occ, || {
            format!("bytes to be fetched are {needs}, not {}", self.network_occ)
        })
    }

    fn is_being_let_go(&self, id: TaskId, task: &Task) -> bool {
        task.let_go && self.letting_go.contains(&id)
    }

    fn validate_open_graphs(&self) -> Checked {
        let mut tasks: IdMap<TaskId, u32> = IdMap::default();
        let mut groups: IdMap<u32, u64> = IdMap::default();
        for open in self.open_graphs.iter() {
            for member in open.members.iter().filter(|m| m.to_come > 0) {
                if let Some(id) = member.id {
                    *tasks.entry(id).or_default() += member.to_come;
                }
            }
            for &(group, to_come) in &open.groups {
                *groups.entry(group.0).or_default() += u64::from(to_come);
            }
        }
        for (id, task) in self.tasks.iter() {
            let begun = |open: &OpenGraph| open.begun.is_some_and(|begun| begun.id == Some(id));
            rule(
                task.incomplete == self.open_graphs.iter().any(begun),
                || {
                    let key = &task.key;
                    format!("{key:?}: whether it has all dependencies is wrong")
                },
            )?;
            let expected = tasks.get(&id).copied().unwrap_or(0);
            rule(task.to_come == expected, || {
                let (key, counted) = (&task.key, task.to_come);
                format!("{key:?}: {counted} dependents are to come, not {expected}")
            })?;
        }
        for (id, group) in self.groups.iter() {
            let expected = groups.get(&id.0).copied().unwrap_or(0);
            rule(group.to_come == expected, || {
                let (name, counted) = (&group.name, group.to_come);
                format!("group {name}: {counted} tasks are to come, not {expected}")
            })?;
        }
        Ok(())
    }

    fn validate_clients(&self) -> Checked {
        for id in self.clients.ids() {
            let Some(client) = self.clients.get(id) else {
                continue;
            };
            for t in client.wants_what.iter() {
                let task = self.tasks.get(t);
                rule(task.is_some_and(|t| t.who_wants.contains(id)), || {
                    format!("client {} wants what does not know", client.name)
                })?;
            }
        }
        Ok(())
    }

    fn validate_groups(&self) -> Checked {
        let mut states: IdMap<u32, StateCounts> = IdMap::default();
        for (_, task) in self.tasks.iter() {
            states.entry(task.group.0).or_default().add(task.state, 1);
        }
        for (id, group) in self.groups.iter() {
            let mut counted = states.get(&id.0).copied().unwrap_or_default();
            counted.add(
                TaskState::Forgotten,
                group.totals.states.get(TaskState::Forgotten),
            );
            rule(counted == group.totals.states, || {
                format!("group {}: counts by state are wrong", group.name)
            })?;
        }
        for prefix in &self.groups.processing_prefixes {
            rule(self.groups.prefix(*prefix).in_processing > 0, || {
                "a prefix counts as processing with no task".into()
            })?;
        }
        let processing: u64 = self.groups.prefixes().iter().map(|p| p.in_processing).sum();
        let on_workers: usize = self
            .workers
            .registered()
            .iter()
            .map(|&w| self.workers[w].processing.len() - self.workers[w].long_running.len())
            .sum();
        rule(processing == on_workers as u64, || {
            format!("prefixes count {processing} tasks on workers, workers {on_workers}")
        })
    }

    fn validate_stealing(&self) -> Checked {
        for (id, task) in self.tasks.iter() {
            let Some(worker) = task.stealable_on.get() else {
                continue;
            };
            let listed = self.workers.get(worker).is_some_and(|w| {
                w.stealable
                    .get(usize::from(task.steal_level))
                    .is_some_and(|tasks| tasks.contains(id))
            });
            rule(listed && task.processing_on.get() == Some(worker), || {
                format!("{:?} is stealable where it is not", task.key)
            })?;
        }
        for (id, victim) in self.stealing.victims() {
            let there = self.tasks.get(id).and_then(|t| t.processing_on.get()) == Some(victim);
            rule(there, || {
                "a task is to be stolen from where it is not".into()
            })?;
        }
        Ok(())
    }
}
