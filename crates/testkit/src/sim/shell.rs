//! What the scheduler's process does around its core: delivers effects, follows retirements, asks
//! workers on behalf of the watchdog, and takes in what workers say.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::effect::{Effect, Suspicion, WorkerMsg};
use oxidask_scheduler_core::event::{Event, Verdict};
use oxidask_scheduler_core::ids::{Timestamp, WorkerId};
use oxidask_scheduler_core::policy::Retirement;
use oxidask_scheduler_core::recording::{Entry, Outcome};
use oxidask_scheduler_core::worker::WorkerMetrics;
use oxidask_scheduler_core::{Effects, heartbeat_interval};

use super::network::{Link, Peer};
use super::process::{Action, Gathered, WorkerProcess};
use super::{Occurrence, START, Sim};

/// Seconds until the scheduler's side notices that a connection is gone.
pub(super) const DETECTION: f64 = 0.05;
/// Seconds between looks at a retirement.
const RETIREMENT_POLL: f64 = 0.02;

impl Sim {
    pub(super) fn core_event(&mut self, event: Event) -> Result<(), String> {
        self.report.events += 1;
        match &event {
            Event::AddClient { client, .. } => {
                self.connected.insert(client.0);
            }
            Event::RemoveClient { client, .. } => {
                self.connected.remove(&client.0);
            }
            _ => {}
        }
        let now = Timestamp(self.now);
        self.record(|| Entry::Event(now, event.clone()));
        let mut effects = Effects::new();
        self.core.handle(now, event, &mut effects);
        self.after_core(effects)
    }

    pub(super) fn after_core(&mut self, effects: Effects) -> Result<(), String> {
        if let Some(encoder) = &mut self.recording {
            let outcome = Outcome::of(&self.core, &effects);
            encoder.push(&Entry::Outcome(outcome));
        }
        self.check_core()?;
        self.check_bounds(effects.len())?;
        for effect in effects {
            self.check_effect(&effect)?;
            match effect {
                Effect::ToWorker(id, msg) => self.send_to_worker(id, msg),
                Effect::ToClient(id, msg) => {
                    let link = Link::Down(Peer::Client(id.0));
                    let at = self.network.delivery(link, self.now);
                    self.schedule(at, Occurrence::ToClient(id, msg));
                }
                Effect::WorkerRemoved { worker, .. } => self.worker_removed(worker),
                Effect::WorkerUnresponsive { worker, .. } => {
                    // Its nanny ends the process and starts another one.
                    self.workers.remove(&worker.0);
                    self.connection_breaks(worker);
                }
                Effect::Suspicious(suspicion) => self.examine(&suspicion),
                _ => {}
            }
        }
        if let Some(Timestamp(due)) = self.core.poll_timeout() {
            let due = due.max(self.now);
            if self.timeout_at.is_none_or(|at| due < at) {
                self.timeout_at = Some(due);
                self.schedule(due, Occurrence::CoreTimeout);
            }
        }
        Ok(())
    }

    fn send_to_worker(&mut self, id: WorkerId, msg: WorkerMsg) {
        self.report.worker_messages += 1;
        let losable = matches!(msg, WorkerMsg::ComputeTask(_));
        if losable && self.in_turmoil() && self.rng.chance(self.scenario.faults.losses) {
            return;
        }
        let link = Link::Down(Peer::Worker(id.0));
        let at = self.network.delivery(link, self.now);
        self.schedule(at, Occurrence::ToWorker(id, msg));
    }

    fn worker_removed(&mut self, worker: WorkerId) {
        // The stream is closed, which ends the process if it is still there.
        self.workers.remove(&worker.0);
        if let Some(address) = self.registered.remove(&worker.0) {
            self.by_address.remove(&address);
        }
        self.keep_up_workers();
    }

    /// Somebody (a nanny, an adaptive cluster) replaces workers that are gone.
    pub(super) fn keep_up_workers(&mut self) {
        while self.workers.len() + self.arriving < self.scenario.workers {
            self.arriving += 1;
            let delay = self.rng.range(0.1, 3.0);
            self.schedule(self.now + delay, Occurrence::Replace);
        }
    }

    pub(super) fn connection_breaks(&mut self, worker: WorkerId) {
        self.schedule(self.now + DETECTION, Occurrence::ConnectionLost(worker));
        self.keep_up_workers();
    }

    pub(super) fn look_at_retirement(&mut self, worker: WorkerId) -> Result<(), String> {
        match self.core.retirement(worker) {
            Some(Retirement::InProgress) => {
                let at = self.now + RETIREMENT_POLL;
                self.schedule(at, Occurrence::Retirement(worker));
                Ok(())
            }
            Some(Retirement::NoRecipients) => Ok(()),
            Some(Retirement::Done) | None => {
                self.report.retired += u64::from(self.registered.contains_key(&worker.0));
                let close = self.rng.chance(0.5);
                self.core_event(Event::RemoveWorker {
                    worker,
                    expected: true,
                    close,
                    stimulus_id: "retired".into(),
                })
            }
        }
    }

    /// Asks the worker, and those that are said to hold the inputs.
    fn examine(&mut self, suspicion: &Suspicion) {
        let asked = self.workers.get(&suspicion.worker.0);
        let cut_off = |id: &WorkerId| self.network.is_cut_off(Peer::Worker(id.0), self.now);
        let verdict = match asked {
            _ if cut_off(&suspicion.worker) => Verdict::NoAnswer,
            None => Verdict::NoAnswer,
            Some(worker) if asks_for_unknown(&**worker, suspicion) => Verdict::Unknown,
            Some(_) => {
                let lacks = |key: &Key, holder: &WorkerId| {
                    let live = self.workers.get(&holder.0);
                    !cut_off(holder) && live.is_some_and(|w| w.value(key).is_none())
                };
                let missing: Vec<(Key, WorkerId)> = suspicion
                    .inputs
                    .iter()
                    .flat_map(|(key, holders)| holders.iter().map(move |h| (key, h)))
                    .filter(|(key, holder)| lacks(key, holder))
                    .map(|(key, holder)| (key.clone(), *holder))
                    .collect();
                match missing.is_empty() {
                    true => Verdict::Progressing,
                    false => Verdict::InputsMissing(missing),
                }
            }
        };
        let event = Event::Examined {
            worker: suspicion.worker,
            task: suspicion.task.clone(),
            verdict,
            stimulus_id: "watchdog".into(),
        };
        let at = self.now + self.network.transfer(0);
        self.schedule(at, Occurrence::Examined(event));
    }

    /// A message of a worker sets out.
    pub(super) fn tell(&mut self, id: WorkerId, event: Event) {
        let link = Link::Up(Peer::Worker(id.0));
        let at = self.network.delivery(link, self.now);
        // A late claim to hold data, or not to hold it, is a lie that only asking the worker can
        // disprove.
        let claims_data = matches!(
            event,
            Event::AddKeys { .. } | Event::TaskFinished(_) | Event::ReleaseWorkerData { .. }
        );
        if self.in_turmoil() {
            let repeatable = !claims_data || self.scenario.is_treacherous();
            if repeatable && self.rng.chance(self.scenario.faults.duplicates) {
                let later = at + self.rng.range(0.0, 1.0);
                self.schedule(later, Occurrence::Spurious(event.clone()));
            }
            let losable = matches!(event, Event::TaskErred(_) | Event::TaskFinished(_));
            if losable && self.rng.chance(self.scenario.faults.losses) {
                return;
            }
        }
        self.schedule(at, Occurrence::ToCore(Peer::Worker(id.0), event));
    }

    pub(super) fn in_turmoil(&self) -> bool {
        self.now - START < self.scenario.turmoil
    }

    pub(super) fn act(&mut self, id: WorkerId, actions: Vec<Action>) {
        if let Some(worker) = self.workers.get(&id.0) {
            self.report.backlog_max = self.report.backlog_max.max(worker.backlog());
        }
        for action in actions {
            match action {
                Action::Tell(event) => self.tell(id, event),
                Action::Fetch { holder, key } => {
                    let at = self.now + self.network.transfer(0);
                    self.schedule(at, Occurrence::FetchArrives(id, holder, key));
                }
                Action::Run {
                    key,
                    token,
                    duration,
                } => self.schedule(self.now + duration, Occurrence::Done(id, key, token)),
                Action::RefreshLater { key } => {
                    self.schedule(self.now + 0.1, Occurrence::Refresh(id, key));
                }
                Action::Gather {
                    transfer,
                    holder,
                    keys,
                    ..
                } => {
                    let at = self.now + self.network.transfer(0);
                    self.schedule(at, Occurrence::GatherArrives(id, transfer, holder, keys));
                }
                Action::Secede { token, after } => {
                    self.schedule(self.now + after, Occurrence::Secede(id, token));
                }
                Action::WakeAt(at) => self.schedule(at, Occurrence::Time(id)),
                Action::Broken(what) => self.broken.push(format!("worker {}: {what}", id.0)),
                Action::Leave => {
                    self.workers.remove(&id.0);
                    self.connection_breaks(id);
                }
            }
        }
    }

    /// A request for data reaches the peer that is said to have it.
    pub(super) fn gather_arrives(
        &mut self,
        id: WorkerId,
        transfer: u64,
        holder: &Arc<str>,
        keys: &[Key],
    ) {
        let now = self.now;
        let asker = self.registered.get(&id.0).cloned().unwrap_or_default();
        let number = self.by_address.get(holder).copied();
        let reachable = number.filter(|&n| !self.network.is_cut_off(Peer::Worker(n), now));
        let live = reachable.and_then(|n| Some((n, self.workers.get_mut(&n)?)));
        self.report.requests += 1;
        let request = self.report.requests;
        let outcome = match live {
            Some((_, worker)) => worker.on_get_data(now, request, &asker, keys),
            None => Gathered::Unreachable,
        };
        let nbytes = match &outcome {
            Gathered::Answered(held) => held.iter().map(|(.., n)| n).sum(),
            _ => 0,
        };
        self.report.refused += u64::from(matches!(outcome, Gathered::Busy));
        self.report.unreachable += u64::from(matches!(outcome, Gathered::Unreachable));
        let back = now + self.network.transfer(nbytes);
        if let (Some(holder), Gathered::Answered(_)) = (number, &outcome) {
            self.schedule(back, Occurrence::Sent(holder, request));
        }
        self.schedule(back, Occurrence::Gathered(id, transfer, outcome));
    }

    pub(super) fn heartbeat(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id.0) else {
            return;
        };
        let event = Event::Heartbeat {
            worker: id,
            metrics: WorkerMetrics {
                memory: 100 << 20,
                time: self.now,
                ..WorkerMetrics::default()
            },
            executing: worker.executing().into_iter().map(|k| (k, 0.1)).collect(),
        };
        self.tell(id, event);
        let interval = heartbeat_interval(self.registered.len());
        self.schedule(self.now + interval, Occurrence::Heartbeat(id));
    }
}

fn asks_for_unknown(worker: &dyn WorkerProcess, suspicion: &Suspicion) -> bool {
    let task = suspicion.task.as_ref();
    task.is_some_and(|(key, _)| !worker.knows(key))
}
