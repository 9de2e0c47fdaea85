//! The invariants of the state, as code: what holds between two events.
//!
//! Each function states the rules for one thing and names the first one broken.

use crate::Worker;
use crate::ids::TaskId;
use crate::state::Task;
use crate::status::WorkerStatus;
use crate::task::TaskState::{self, *};

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

impl Worker {
    /// Checks every invariant. Takes time linear in the state.
    ///
    /// # Errors
    /// The first rule found broken.
    pub fn validate(&self) -> Checked {
        for (id, task) in self.tasks.iter() {
            self.validate_task(id, task)?;
        }
        self.validate_peers()?;
        self.validate_transfers()?;
        self.validate_slots()?;
        self.validate_sums()
    }

    /// Checks after an event: everything while there is little, else the tasks that changed.
    pub(crate) fn validate_after_event(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        let result = if self.tasks.len() <= self.config.validate_all_up_to {
            self.validate()
        } else {
            changed.iter().try_for_each(|key| match self.tasks.id(key) {
                Some(id) => self.validate_task(id, &self.tasks[id]),
                None => Ok(()),
            })
        };
        if let Err(violation) = result {
            self.violation(violation.what);
        }
    }

    fn validate_task(&self, id: TaskId, task: &Task) -> Checked {
        let say = |what: &str| {
            let (key, state) = (&task.key, task.state.as_str());
            format!("{key:?} ({state}): {what}")
        };
        rule(self.tasks.id(&task.key) == Some(id), || {
            say("the index does not find it")
        })?;
        self.validate_relations(id, task, &say)?;
        self.validate_state(id, task, &say)?;
        self.validate_holders(id, task, &say)
    }

    fn validate_relations(&self, id: TaskId, task: &Task, say: &dyn Fn(&str) -> String) -> Checked {
        let pending = task.state.is_pending();
        rule(pending || task.dependencies.is_empty(), || {
            say("has dependencies though it does not wait")
        })?;
        let mut away = 0;
        for &d in &task.dependencies {
            let Some(dependency) = self.tasks.get(d) else {
                return rule(false, || say("a dependency does not exist"));
            };
            rule(dependency.dependents.contains(&id), || {
                say("is no dependent of its dependency")
            })?;
            away += u32::from(dependency.state != Memory);
        }
        rule(task.waiting_on == away, || {
            say("counts its missing inputs wrongly")
        })?;
        rule(
            !matches!(task.state, Ready | Constrained) || away == 0,
            || say("is ready without its inputs"),
        )?;
        rule(task.state != Waiting || away > 0, || {
            say("waits for nothing")
        })?;
        for &d in &task.dependents {
            let dependent = self.tasks.get(d);
            rule(
                dependent.is_some_and(|t| t.dependencies.contains(&id)),
                || say("is no dependency of its dependent"),
            )?;
        }
        Ok(())
    }

    fn validate_state(&self, id: TaskId, task: &Task, say: &dyn Fn(&str) -> String) -> Checked {
        let state = task.state;
        let passing = matches!(state, Released | Rescheduled | Resumed | Forgotten);
        rule(!passing, || say("is no state to rest in"))?;
        rule(state.is_pending() == task.order.is_some(), || {
            say("an order is kept exactly while the task has not begun")
        })?;
        let queued = self.queue.contains(id, task.priority);
        rule(queued == matches!(state, Ready | Constrained), || {
            say("the queue is wrong")
        })?;
        rule(state.is_running() == task.attempt.is_some(), || {
            say("an attempt belongs to exactly the running tasks")
        })?;
        if let Some(attempt) = task.attempt {
            let attempt = self.slots.get(attempt);
            rule(attempt.is_some_and(|a| a.task == Some(id)), || {
                say("its attempt is not its own")
            })?;
            rule(
                attempt.is_some_and(|a| a.seceded == (state == LongRunning)),
                || say("its slot is wrong"),
            )?;
        }
        let flying = matches!(state, Flight | Cancelled);
        rule(flying == task.transfer.is_some(), || {
            say("a transfer belongs to exactly what is on its way")
        })?;
        if let Some(transfer) = task.transfer {
            let transfer = self.transfers.get(transfer);
            rule(transfer.is_some_and(|t| t.tasks.contains(&id)), || {
                say("its transfer does not know it")
            })?;
        }
        rule(self.missing.contains(&id) == (state == Missing), || {
            say("the set of missing data is wrong")
        })?;
        let sought = matches!(state, Fetch | Flight | Missing);
        rule(!sought || task.is_needed(), || say("nobody needs it"))?;
        rule(state != Cancelled || !task.is_needed(), || {
            say("is needed, but cancelled")
        })?;
        rule(state != Error || task.dependents.is_empty(), || {
            say("failed here, and others wait for it")
        })
    }

    fn validate_holders(&self, id: TaskId, task: &Task, say: &dyn Fn(&str) -> String) -> Checked {
        let state = task.state;
        let may_have = matches!(state, Fetch | Flight | Cancelled);
        rule(may_have || task.who_has.is_empty(), || {
            say("its holders do not matter in this state")
        })?;
        rule(state != Fetch || !task.who_has.is_empty(), || {
            say("nobody has it")
        })?;
        for &p in &task.who_has {
            let Some(peer) = self.peers.get(p) else {
                return rule(false, || say("a holder does not exist"));
            };
            rule(!self.peers.is_self(&peer.address), || {
                say("would be fetched from ourselves")
            })?;
            rule(peer.has_what.contains(&id), || {
                say("its holder does not know it")
            })?;
            let wanted = peer.wanted.contains(&(task.priority, id));
            rule(wanted == (state == Fetch), || {
                say("the list of what is wanted from its holder is wrong")
            })?;
        }
        Ok(())
    }

    fn validate_peers(&self) -> Checked {
        for (id, peer) in self.peers.iter() {
            let say = |what: &str| format!("peer {}: {what}", peer.address);
            let of_use = !peer.has_what.is_empty() || !peer.is_free();
            rule(of_use, || say("there is nothing to know of it"))?;
            for &t in &peer.has_what {
                let task = self.tasks.get(t);
                rule(task.is_some_and(|t| t.who_has.contains(&id)), || {
                    say("is no holder of what it has")
                })?;
            }
            for &(_, t) in &peer.wanted {
                let task = self.tasks.get(t);
                rule(task.is_some_and(|t| t.state == Fetch), || {
                    say("is to be asked for what is not to be fetched")
                })?;
                rule(peer.has_what.contains(&t), || {
                    say("is to be asked for what it does not have")
                })?;
            }
            let listed = self.peers.wanted_from().contains(&id);
            rule(listed != peer.wanted.is_empty(), || {
                say("the set of peers to ask is wrong")
            })?;
            if let Some(transfer) = peer.transfer {
                let transfer = self.transfers.get(transfer);
                rule(transfer.is_some_and(|t| t.peer == id), || {
                    say("its transfer is not its own")
                })?;
            }
            let noted = self.busy_peers.iter().filter(|&&p| p == id).count();
            rule(noted == usize::from(peer.busy.is_some()), || {
                say("nobody thinks of asking it again")
            })?;
        }
        Ok(())
    }

    fn validate_transfers(&self) -> Checked {
        let mut nbytes: u64 = 0;
        for (id, transfer) in self.transfers.iter() {
            nbytes = nbytes.saturating_add(transfer.nbytes);
            let peer = self.peers.get(transfer.peer);
            rule(peer.is_some_and(|p| p.transfer == Some(id)), || {
                format!("{id:?} is not known to its peer")
            })?;
            for &t in &transfer.tasks {
                let task = self.tasks.get(t);
                rule(task.is_some_and(|t| t.transfer == Some(id)), || {
                    format!("{id:?} brings what does not expect it")
                })?;
            }
        }
        rule(nbytes == self.transfers.nbytes(), || {
            "bytes on their way are counted wrongly".to_owned()
        })
    }

    fn validate_slots(&self) -> Checked {
        let mut held: Vec<(&str, f64)> = Vec::new();
        let mut occupied = 0;
        for (id, attempt) in self.slots.iter() {
            occupied += usize::from(!attempt.seceded);
            if let Some(task) = attempt.task {
                let task = self.tasks.get(task);
                rule(task.is_some_and(|t| t.attempt == Some(id)), || {
                    format!("{id:?} works for a task that does not know it")
                })?;
            }
            for (name, amount) in attempt.needs.iter() {
                match held.iter_mut().find(|(n, _)| **n == **name) {
                    Some((_, sum)) => *sum += amount,
                    None => held.push((name, amount)),
                }
            }
        }
        rule(occupied == self.slots.occupied(), || {
            "slots are counted wrongly".to_owned()
        })?;
        rule(occupied <= self.config.nthreads as usize, || {
            format!("{occupied} tasks on {} threads", self.config.nthreads)
        })?;
        for (name, _, used) in self.resources.iter() {
            let sum = held
                .iter()
                .find(|(n, _)| **n == **name)
                .map_or(0.0, |h| h.1);
            rule((sum - used).abs() < 1e-6, || {
                format!("{used} of {name} is said to be used, and {sum} is")
            })?;
        }
        let free = occupied < self.config.nthreads as usize;
        let idle = free && self.status == WorkerStatus::Running;
        rule(!idle || self.queue.next(&self.resources).is_none(), || {
            "a thread is free, and a task could run".to_owned()
        })
    }

    fn validate_sums(&self) -> Checked {
        let here = self.tasks.iter().filter(|(_, t)| t.state == Memory);
        let nbytes = here.fold(0_u64, |sum, (_, t)| sum.saturating_add(t.nbytes));
        rule(nbytes == self.nbytes, || {
            format!(
                "{} bytes are said to be here, and {nbytes} are",
                self.nbytes
            )
        })?;
        for state in TaskState::ALL {
            let counted = self.tasks.iter().filter(|(_, t)| t.state == state).count();
            rule(counted == self.tasks.in_state(state), || {
                format!("tasks in {} are counted wrongly", state.as_str())
            })?;
        }
        rule(self.missing.len() == self.tasks.in_state(Missing), || {
            "the set of missing data has strangers".to_owned()
        })?;
        rule(self.missing.is_empty() || self.ask_at.is_some(), || {
            "data is missing, and nobody will ask for it".to_owned()
        })?;
        let ready = self.tasks.in_state(Ready) + self.tasks.in_state(Constrained);
        rule(self.queue.len() == ready, || {
            "the queue has strangers".to_owned()
        })?;
        let (bytes, limit) = self.story.size();
        rule(bytes <= limit, || "the story is too long".to_owned())
    }
}
