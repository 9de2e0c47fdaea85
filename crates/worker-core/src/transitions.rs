//! State changes of tasks. Every way into a state and out of it is a function here; which changes are
//! legal is written in [`TaskState::may_become`] and checked on each.

use oxidask_key::Key;

use crate::Worker;
use crate::effect::{Effect, SchedulerMsg};
use crate::event::Datum;
use crate::ids::{PeerId, TaskId};
use crate::opaque::Opaque;
use crate::state::Needs;
use crate::story::{Step, StoryEntry, Transition};
use crate::task::TaskState::{self, *};

impl Worker {
    pub(crate) fn set_state(&mut self, id: TaskId, state: TaskState) {
        let task = &self.tasks[id];
        let start = task.state;
        if self.story.is_kept() || self.config.validate {
            let key = task.key.clone();
            if self.config.validate {
                self.changed.push(key.clone());
            }
            self.log(key, Step::Transition(start, state));
        }
        if !start.may_become(state) {
            let key = &self.tasks[id].key;
            let (start, state) = (start.as_str(), state.as_str());
            self.violation(format!("no transition from {start} to {state} ({key:?})"));
        }
        self.transition_counter += 1;
        if let Some(observed) = &mut self.observed {
            observed.push(Transition {
                key: self.tasks[id].key.clone(),
                start,
                finish: state,
            });
        }
        self.tasks.set_state(id, state);
    }

    pub(crate) fn log(&mut self, key: Key, step: Step) {
        if self.story.is_kept() {
            self.story.push(StoryEntry {
                key,
                step,
                stimulus_id: self.stimulus.clone(),
                time: self.now,
            });
        }
    }

    /// Ends whatever the task is about. What becomes of it then is for the caller to say: mostly
    /// [`Worker::settle`].
    pub(crate) fn release(&mut self, id: TaskId) {
        match self.tasks[id].state {
            Waiting => self.cut_inputs(id),
            Ready | Constrained => {
                let priority = self.tasks[id].priority;
                self.queue.remove(id, priority);
                self.cut_inputs(id);
            }
            Executing | LongRunning => {
                if let Some(attempt) = self.tasks[id].attempt.take() {
                    self.slots.abandon(attempt);
                    self.out.push(Effect::Abandon { attempt });
                }
            }
            Fetch => self.unwant(id),
            Flight | Cancelled => self.leave_transfer(id),
            Missing => {
                self.missing.swap_remove(&id);
            }
            Memory => self.drop_data(id),
            Error | Rescheduled => {}
            Released | Resumed | Forgotten => return,
        }
        let task = &mut self.tasks[id];
        task.order = None;
        task.run_id = None;
        task.orphaned = false;
        task.actor = false;
        self.set_state(id, Released);
    }

    /// A released task is fetched if its data is needed, and forgotten else.
    pub(crate) fn settle(&mut self, id: TaskId) {
        if self.tasks[id].state != Released {
            return;
        }
        if self.tasks[id].is_needed() {
            self.seek(id);
        } else {
            self.forget_holders(id);
            self.set_state(id, Forgotten);
            self.to_ask.swap_remove(&id);
            self.tasks.remove(id);
        }
    }

    /// To `fetch` if somebody has it, else to `missing`. The task is not listed in either way before.
    pub(crate) fn seek(&mut self, id: TaskId) {
        if self.tasks[id].who_has.is_empty() {
            self.set_state(id, Missing);
            self.missing.insert(id);
            self.to_ask.insert(id);
        } else {
            self.set_state(id, Fetch);
            let task = &self.tasks[id];
            for &peer in &task.who_has {
                self.peers.want(peer, id, task.priority);
            }
        }
    }

    /// Takes the task off the lists of what is wanted from peers.
    pub(crate) fn unwant(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        for &peer in &task.who_has {
            self.peers.unwant(peer, id, task.priority);
        }
    }

    /// The data of the task is not expected of its transfer any more, and not taken if it comes.
    fn leave_transfer(&mut self, id: TaskId) {
        let task = &mut self.tasks[id];
        let key = task.key.clone();
        if let Some(transfer) = task.transfer.take()
            && let Some(transfer) = self.transfers.get_mut(transfer)
            && transfer.tasks.swap_remove(&id)
        {
            transfer.freed.push(key);
        }
    }

    /// The pending task no longer waits for its inputs.
    pub(crate) fn cut_inputs(&mut self, id: TaskId) {
        for input in std::mem::take(&mut self.tasks[id].dependencies) {
            self.tasks[input].dependents.swap_remove(&id);
            self.let_go(input);
        }
        self.tasks[id].waiting_on = 0;
    }

    /// Stops fetching what is not needed any more. A transfer under way goes on, in case it is needed
    /// again before it ends.
    pub(crate) fn let_go(&mut self, id: TaskId) {
        if self.tasks[id].is_needed() {
            return;
        }
        match self.tasks[id].state {
            Fetch | Missing => {
                self.release(id);
                self.settle(id);
            }
            Flight => self.set_state(id, Cancelled),
            _ => {}
        }
    }

    fn drop_data(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        let key = task.key.clone();
        self.nbytes = self.nbytes.saturating_sub(task.nbytes);
        self.out.push(Effect::Drop { key });
        for i in 0..self.tasks[id].dependents.len() {
            let Some(&dependent) = self.tasks[id].dependents.get_index(i) else {
                break;
            };
            let task = &mut self.tasks[dependent];
            task.waiting_on += 1;
            if matches!(task.state, Ready | Constrained) {
                let priority = task.priority;
                self.queue.remove(dependent, priority);
                self.set_state(dependent, Waiting);
            }
        }
    }

    /// The data is here: from a thread, from a peer, or scattered.
    pub(crate) fn put_in_memory(&mut self, id: TaskId, value: Opaque, nbytes: u64) {
        self.forget_holders(id);
        let task = &mut self.tasks[id];
        self.nbytes = self.nbytes.saturating_add(nbytes);
        task.nbytes = nbytes;
        task.acquire = false;
        task.order = None;
        task.run_id = None;
        task.orphaned = false;
        self.out.push(Effect::Store {
            key: task.key.clone(),
            value,
            nbytes,
            actor: task.actor,
        });
        self.set_state(id, Memory);
        for i in 0..self.tasks[id].dependents.len() {
            let Some(&dependent) = self.tasks[id].dependents.get_index(i) else {
                break;
            };
            let task = &mut self.tasks[dependent];
            task.waiting_on = task.waiting_on.saturating_sub(1);
            if task.waiting_on == 0 {
                self.make_ready(dependent);
            }
        }
    }

    /// A waiting task has all its inputs.
    pub(crate) fn make_ready(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        let restrictions = task
            .order
            .as_ref()
            .map(|o| o.resource_restrictions.as_slice());
        let needs = Needs::new(restrictions.unwrap_or_default());
        self.queue.push(id, task.priority, &needs);
        self.set_state(id, if needs.is_empty() { Ready } else { Constrained });
    }

    /// The task failed, on a thread or because an input can not be used.
    pub(crate) fn fail(&mut self, id: TaskId, report: Opaque) {
        let pending = self.tasks[id].state.is_pending();
        let task = &mut self.tasks[id];
        let (key, run_id, orphaned) = (task.key.clone(), task.run_id.take(), task.orphaned);
        task.order = None;
        self.set_state(id, Error);
        if pending {
            self.cut_inputs(id);
        }
        if orphaned {
            // That scheduler is gone, and the next one has not ordered it.
            self.release(id);
            self.settle(id);
            return;
        }
        self.tell(SchedulerMsg::TaskErred {
            key,
            run_id,
            report,
        });
        if self.tasks[id].is_needed() {
            // Others wait here for the data, which the scheduler believes to exist.
            self.release(id);
            self.settle(id);
        }
    }

    /// Data of that name can not be used here, whoever it comes from: what needs it fails.
    pub(crate) fn fail_dependents(&mut self, id: TaskId, report: &Opaque) {
        self.release(id);
        self.tasks[id].acquire = false;
        let dependents: Vec<TaskId> = self.tasks[id].dependents.iter().copied().collect();
        for dependent in dependents {
            self.fail(dependent, report.clone());
        }
        self.settle(id);
    }

    /// Replaces what is known of who holds the data, and does what follows from it.
    pub(crate) fn set_who_has(&mut self, id: TaskId, addresses: &[std::sync::Arc<str>]) {
        let state = self.tasks[id].state;
        if !matches!(state, Released | Fetch | Flight | Cancelled | Missing) {
            return;
        }
        let mut holders: Vec<PeerId> = Vec::new();
        let mut own = false;
        for address in addresses {
            if self.peers.is_self(address) {
                own = true;
                continue;
            }
            let peer = self.peers.ensure(address);
            if !holders.contains(&peer) {
                holders.push(peer);
                self.peers[peer].has_what.insert(id);
            }
        }
        if own {
            // Nobody else would ever correct the scheduler, and it would send others here for it.
            let key = self.tasks[id].key.clone();
            self.tell(SchedulerMsg::ReleaseWorkerData { key });
        }
        let listed = state == Fetch;
        if listed {
            self.unwant(id);
        }
        let old = std::mem::replace(&mut self.tasks[id].who_has, holders);
        for peer in old {
            if !self.tasks[id].who_has.contains(&peer) {
                self.peers[peer].has_what.swap_remove(&id);
                self.peers.forget_if_idle(peer);
            }
        }
        let known = !self.tasks[id].who_has.is_empty();
        match state {
            Fetch if known => {
                let task = &self.tasks[id];
                for &peer in &task.who_has {
                    self.peers.want(peer, id, task.priority);
                }
            }
            Fetch => self.seek(id),
            Missing if known => {
                self.missing.swap_remove(&id);
                self.seek(id);
            }
            _ => {}
        }
    }

    /// Where the data is does not matter any more.
    pub(crate) fn forget_holders(&mut self, id: TaskId) {
        for peer in std::mem::take(&mut self.tasks[id].who_has) {
            self.peers[peer].has_what.swap_remove(&id);
            self.peers.forget_if_idle(peer);
        }
    }

    /// A peer does not have the data after all. For tasks that are not in `fetch`.
    pub(crate) fn remove_holder(&mut self, id: TaskId, peer: PeerId) {
        self.tasks[id].who_has.retain(|&p| p != peer);
        self.peers[peer].has_what.swap_remove(&id);
    }

    /// A peer is gone with all it had.
    pub(crate) fn lose_peer(&mut self, peer: PeerId) {
        for id in std::mem::take(&mut self.peers[peer].has_what) {
            let is_listed = self.tasks[id].state == Fetch;
            if is_listed {
                self.unwant(id);
            }
            self.tasks[id].who_has.retain(|&p| p != peer);
            let task = &self.tasks[id];
            if is_listed && task.who_has.is_empty() {
                self.seek(id);
            } else if is_listed {
                for &other in &task.who_has {
                    self.peers.want(other, id, task.priority);
                }
            }
        }
        self.peers.forget_if_idle(peer);
    }

    /// Data that is needed by a more important task becomes as important.
    pub(crate) fn raise_priority(&mut self, id: TaskId, priority: crate::state::Priority) {
        let task = &mut self.tasks[id];
        if task.state == Released {
            // Nothing else needed it before.
            task.priority = priority;
            return;
        }
        if task.priority <= priority {
            return;
        }
        match task.state {
            Fetch => {
                self.unwant(id);
                self.tasks[id].priority = priority;
                let task = &self.tasks[id];
                for &peer in &task.who_has {
                    self.peers.want(peer, id, priority);
                }
            }
            // These have the priority of their own order.
            Waiting | Ready | Constrained | Executing | LongRunning => {}
            _ => self.tasks[id].priority = priority,
        }
    }

    /// Data that is here, with the name of the datum, is replaced.
    pub(crate) fn replace_data(&mut self, id: TaskId, datum: Datum) {
        let task = &mut self.tasks[id];
        self.nbytes = self
            .nbytes
            .saturating_sub(task.nbytes)
            .saturating_add(datum.nbytes);
        task.nbytes = datum.nbytes;
        self.out.push(Effect::Store {
            key: datum.key,
            value: datum.value,
            nbytes: datum.nbytes,
            actor: task.actor,
        });
    }
}
