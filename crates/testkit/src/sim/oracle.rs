//! What must hold in every simulation, judged from outside the core.

use oxidask_scheduler_core::effect::{Effect, WorkerMsg};

use super::Sim;
use super::client::FutureState;

impl Sim {
    /// The core's own invariants.
    pub(super) fn check_core(&mut self) -> Result<(), String> {
        match self.core.take_violations().first() {
            Some(violation) => Err(format!("invariant: {violation}")),
            None => Ok(()),
        }
    }

    /// No message to, and no address of, a worker that has departed.
    pub(super) fn check_effect(&self, effect: &Effect) -> Result<(), String> {
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
                if !self.registered.values().any(|a| a == holder) {
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

    /// A description of what is not getting done.
    pub(super) fn stuck(&self) -> String {
        let mut text = String::from("no progress; waiting for");
        for (number, client) in &self.clients {
            for key in client.pending().take(3) {
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
                worker.status,
                worker.backlog(),
                worker.executing().len()
            );
        }
        text
    }
}
