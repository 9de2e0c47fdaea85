//! What must hold in every simulation, judged from outside the core.

use oxidask_scheduler_core::effect::{Effect, WorkerMsg};

use super::Sim;
use super::client::FutureState;
use super::network::Peer;

impl Sim {
    /// The core's own invariants.
    pub(super) fn check_core(&mut self) -> Result<(), String> {
        if self
            .report
            .events
            .is_multiple_of(self.scenario.validate_every)
        {
            let checked = self.core.validate();
            checked.map_err(|violation| format!("invariant: {violation}"))?;
        }
        match self.core.take_violations().first() {
            Some(violation) => Err(format!("invariant: {violation}")),
            None => Ok(()),
        }
    }

    /// Nothing grows without bound: what one event leads to, and what is on its way.
    pub(super) fn check_bounds(&self, effects: usize) -> Result<(), String> {
        let size = self.core.tasks_len() + self.registered.len() + 10;
        if effects > 20 * size {
            return Err(format!(
                "{effects} effects of one event in a state of {size}"
            ));
        }
        let expected = self.scenario.clients * self.scenario.graphs * self.scenario.tasks;
        let bound = 100 * (expected + self.registered.len() + self.scenario.workers);
        if self.agenda.len() > bound {
            return Err(format!("{} messages are on their way", self.agenda.len()));
        }
        Ok(())
    }

    /// No message to, and no address of, a worker that has departed.
    pub(super) fn check_effect(&self, effect: &Effect) -> Result<(), String> {
        if let Effect::ToClient(id, msg) = effect
            && !self.connected.contains(&id.0)
        {
            return Err(format!("message to departed client {}: {msg:?}", id.0));
        }
        let Effect::ToWorker(id, msg) = effect else {
            return Ok(());
        };
        if !self.registered.contains_key(&id.0) && !matches!(msg, WorkerMsg::Close { .. }) {
            return Err(format!("message to departed worker {}: {msg:?}", id.0));
        }
        let who_has = match msg {
            WorkerMsg::ComputeTask(task) => &task.who_has,
            WorkerMsg::AcquireReplicas { who_has, .. }
            | WorkerMsg::RefreshWhoHas { who_has, .. } => who_has,
            _ => return Ok(()),
        };
        let must_exist = matches!(msg, WorkerMsg::ComputeTask(_));
        for (key, holders) in who_has {
            if must_exist && holders.is_empty() {
                return Err(format!("compute-task without a holder of {key}"));
            }
            for holder in holders {
                if !self.by_address.contains_key(holder) {
                    return Err(format!("{key} is said to be on departed {holder}"));
                }
            }
        }
        Ok(())
    }

    /// Every future came to what its graph says, and no client was told contradictory things.
    pub(super) fn check_end(&self) -> Result<(), String> {
        for (number, client) in &self.clients {
            if let Some(contradiction) = client.contradictions.first() {
                return Err(format!("client {number} was told {contradiction}"));
            }
            for graph in self.graphs.get(number).into_iter().flatten() {
                let outcomes = graph.evaluate();
                for key in &graph.wanted {
                    let text = key.to_text();
                    let Some((_, state)) = client.futures.get(&text) else {
                        continue;
                    };
                    let expected = outcomes.get(&text).copied().flatten();
                    match (state, expected) {
                        (FutureState::Finished, Some(value)) => self.check_value(key, value)?,
                        (FutureState::Erred, None) | (FutureState::Cancelled, _) => {}
                        (state, _) => {
                            return Err(format!("{key} ended {state:?}, expected {expected:?}"));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn check_value(&self, key: &oxidask_key::Key, value: u64) -> Result<(), String> {
        // The result may be on its way to be computed again after a loss; then nobody holds it.
        let held = self.workers.values().find_map(|w| w.value(key));
        match held {
            Some(held) if held != value => Err(format!("{key} has a wrong value")),
            _ => Ok(()),
        }
    }

    /// When all clients are gone, nothing is left: neither in the core nor on workers.
    pub(super) fn check_aftermath(&self) -> Result<(), String> {
        self.core
            .validate()
            .map_err(|violation| format!("invariant: {violation}"))?;
        if let Some(task) = self.core.tasks().next() {
            let (n, key, state) = (self.core.tasks_len(), task.key(), task.state());
            return Err(format!(
                "{n} tasks are left for nobody, e.g. {key:?} ({state:?})"
            ));
        }
        // A worker that lost messages may keep what it was never told to drop.
        if !self.scenario.is_treacherous()
            && let Some(worker) = self.workers.iter().find(|(_, w)| !w.is_empty())
        {
            let (&id, worker) = worker;
            return Err(format!(
                "worker {} (registered: {}, cut off: {}) keeps what nobody wants: {}",
                id,
                self.registered.contains_key(&id),
                self.network.is_cut_off(Peer::Worker(id), self.now),
                worker.shown()
            ));
        }
        Ok(())
    }

    /// The task that a waiting one waits for in the end.
    fn cause(&self, key: &oxidask_key::Key) -> String {
        let Some(mut task) = self.core.task(key) else {
            return String::new();
        };
        while let Some(next) = task.waiting_on().next() {
            task = next;
        }
        let worker = task.processing_on();
        let worker = worker.map(|w| (w.id(), w.status(), w.executing().len()));
        let (key, state) = (task.key(), task.state());
        format!("\n  {key:?} is {state:?} on {worker:?}; because of it")
    }

    /// A description of what is not getting done.
    pub(super) fn stuck(&self) -> String {
        let mut text = String::from("no progress; waiting for");
        for (number, client) in &self.clients {
            for key in client.pending().take(3) {
                text += &self.cause(key);
                let state = self.core.task(key).map(|t| t.state());
                text += &format!("\n  client {number}: {key} (scheduler: {state:?})");
                for entry in self
                    .core
                    .story(std::slice::from_ref(key))
                    .iter()
                    .rev()
                    .take(6)
                {
                    text += &format!("\n    {entry:?}");
                }
            }
        }
        for (id, worker) in &self.workers {
            text += &format!(
                "\n  worker {id}: {:?}, {} tasks, {} executing",
                worker.status(),
                worker.backlog(),
                worker.executing().len()
            );
            if worker.backlog() > 0 {
                text += &format!(" ({})", worker.shown());
            }
        }
        text
    }
}
