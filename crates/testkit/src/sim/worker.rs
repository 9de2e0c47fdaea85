//! A simulated worker: enough of a real one's behaviour to exercise the scheduler, none of its I/O.
//!
//! It answers a message with [`Action`]s; the simulation delivers them over its network. Its results
//! are values that depend on all inputs, so a wrong or missing input shows in the end.

use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::{IndexMap, IndexSet};
use oxidask_key::Key;
use oxidask_scheduler_core::effect::{ComputeTask, WorkerMsg};
use oxidask_scheduler_core::event::{Event, StartStop, TaskErred, TaskFinished};
use oxidask_scheduler_core::ids::{RunId, WorkerId};
use oxidask_scheduler_core::opaque::Opaque;
use oxidask_scheduler_core::worker::WorkerStatus;

use super::graphs::{SimTask, value_of};
use super::process::{Action, WorkerProcess};

/// Tables whose order depends on nothing but what was done to them.
type Map<V> = IndexMap<Key, V, FixedState>;
type Set = IndexSet<Key, FixedState>;

#[derive(Debug)]
struct Work {
    task: Arc<SimTask>,
    key: Key,
    run_id: RunId,
    priority: [f64; 3],
    dependencies: Vec<Key>,
    /// Token and inputs of the run under way.
    running: Option<(u64, Vec<u64>)>,
}

/// State of one simulated worker process.
#[derive(Debug)]
pub struct SimWorker {
    /// Id at the scheduler.
    pub id: WorkerId,
    /// Contact address.
    pub address: Arc<str>,
    /// Threads for tasks.
    pub nthreads: usize,
    /// As the worker sees itself.
    pub status: WorkerStatus,
    work: Map<Work>,
    data: Map<u64>,
    who_has: Map<Vec<Arc<str>>>,
    fetching: Set,
    /// Asked about, or soon to be.
    refreshing: Set,
    /// Copies asked for by the scheduler.
    acquire: Set,
    busy: usize,
    tokens: u64,
    stimuli: u64,
}

impl SimWorker {
    /// A worker with nothing to do.
    pub fn new(id: WorkerId, address: Arc<str>, nthreads: usize) -> Self {
        Self {
            id,
            address,
            nthreads,
            status: WorkerStatus::Running,
            work: Map::default(),
            data: Map::default(),
            who_has: Map::default(),
            fetching: Set::default(),
            refreshing: Set::default(),
            acquire: Set::default(),
            busy: 0,
            tokens: 0,
            stimuli: 0,
        }
    }

    fn stimulus(&mut self, what: &str) -> Arc<str> {
        self.stimuli += 1;
        format!("{what}-{}-{}", self.id.0, self.stimuli).into()
    }

    fn on_compute(&mut self, msg: ComputeTask, out: &mut Vec<Action>) {
        if self.data.contains_key(&msg.key) {
            let stimulus_id = self.stimulus("already-in-memory");
            out.push(self.finished(&msg.key, msg.run_id, 1, stimulus_id));
            return;
        }
        let Some(task) = msg.run_spec.arc::<SimTask>() else {
            return;
        };
        let dependencies: Vec<Key> = msg.who_has.iter().map(|(k, _)| k.clone()).collect();
        for (key, holders) in msg.who_has {
            self.who_has.insert(key, holders);
        }
        let running = self.work.swap_remove(&msg.key).and_then(|old| old.running);
        let work = Work {
            task,
            key: msg.key.clone(),
            run_id: msg.run_id,
            priority: msg.priority,
            dependencies: dependencies.clone(),
            running,
        };
        self.work.insert(msg.key, work);
        for key in dependencies {
            self.fetch(&key, out);
        }
    }

    fn on_free(&mut self, keys: &[Key], out: &mut Vec<Action>) {
        for key in keys {
            self.data.swap_remove(key);
            self.acquire.swap_remove(key);
            // A run under way cannot be stopped; its thread stays busy and the result is dropped.
            self.work.swap_remove(key);
            if self.is_needed(key) {
                self.fetch(key, out);
            }
        }
    }

    fn on_remove_replica(&mut self, key: Key, stimulus_id: &Arc<str>, out: &mut Vec<Action>) {
        if !self.data.contains_key(&key) {
            self.acquire.swap_remove(&key);
            return;
        }
        let worker = self.id;
        let stimulus_id = stimulus_id.clone();
        out.push(Action::Tell(if self.is_needed(&key) {
            Event::AddKeys {
                worker,
                keys: vec![key],
                stimulus_id,
            }
        } else {
            self.data.swap_remove(&key);
            Event::ReleaseWorkerData {
                worker,
                key,
                stimulus_id,
            }
        }));
    }

    fn on_steal_request(&mut self, key: Key, stimulus_id: Arc<str>, out: &mut Vec<Action>) {
        let state = match self.work.get(&key) {
            Some(work) if work.running.is_some() => Some("executing"),
            Some(work) if !self.missing(work) => Some("ready"),
            Some(_) => Some("waiting"),
            None if self.data.contains_key(&key) => Some("memory"),
            None => None,
        };
        if matches!(state, Some("ready" | "waiting")) {
            self.work.swap_remove(&key);
        }
        out.push(Action::Tell(Event::StealResponse {
            worker: self.id,
            key,
            state: state.map(Into::into),
            stimulus_id,
        }));
    }

    fn missing(&self, work: &Work) -> bool {
        work.dependencies.iter().any(|k| !self.data.contains_key(k))
    }

    fn is_needed(&self, key: &Key) -> bool {
        let waits = |w: &Work| w.running.is_none() && w.dependencies.contains(key);
        self.acquire.contains(key) || self.work.values().any(waits)
    }

    fn fetch(&mut self, key: &Key, out: &mut Vec<Action>) {
        if self.data.contains_key(key) || self.fetching.contains(key) {
            return;
        }
        let me = &self.address;
        let holder = self
            .who_has
            .get(key)
            .and_then(|holders| holders.iter().find(|h| h != &me).cloned());
        let key = key.clone();
        match holder {
            Some(holder) => {
                self.fetching.insert(key.clone());
                out.push(Action::Fetch { holder, key });
            }
            // One question on its way at a time, or they would multiply.
            None if self.refreshing.insert(key.clone()) => out.push(Action::RefreshLater { key }),
            None => {}
        }
    }

    fn start_ready(&mut self, out: &mut Vec<Action>) {
        // As real ones do, it begins nothing while it hands over its data.
        if self.status != WorkerStatus::Running {
            return;
        }
        while self.busy < self.nthreads {
            let ready = self
                .work
                .iter()
                .filter(|(_, w)| w.running.is_none() && !self.missing(w))
                .min_by(|(_, a), (_, b)| {
                    a.priority
                        .partial_cmp(&b.priority)
                        .unwrap_or(std::cmp::Ordering::Equal)
                })
                .map(|(key, _)| key.clone());
            let Some(ready) = ready else { return };
            self.tokens += 1;
            let token = self.tokens;
            let Some(work) = self.work.get_mut(&ready) else {
                return;
            };
            let inputs = work
                .task
                .dependencies
                .iter()
                .filter_map(|d| self.data.get(d).copied())
                .collect();
            work.running = Some((token, inputs));
            self.busy += 1;
            out.push(Action::Run {
                key: work.key.clone(),
                token,
                duration: work.task.duration,
            });
        }
    }

    fn finished(&self, key: &Key, run_id: RunId, nbytes: u64, stimulus_id: Arc<str>) -> Action {
        Action::Tell(Event::TaskFinished(Box::new(TaskFinished {
            worker: self.id,
            key: key.clone(),
            run_id: Some(run_id),
            nbytes: Some(nbytes),
            type_: None,
            typename: "int".into(),
            startstops: Vec::new(),
            metadata: None,
            raw: None,
            stimulus_id,
        })))
    }
}

impl WorkerProcess for SimWorker {
    fn status(&self) -> WorkerStatus {
        self.status
    }

    fn set_status(&mut self, _now: f64, status: WorkerStatus) -> Vec<Action> {
        self.status = status;
        let mut out = vec![Action::Tell(Event::WorkerStatusChanged {
            worker: self.id,
            status,
            stimulus_id: "worker-status".into(),
        })];
        self.start_ready(&mut out);
        out
    }

    fn value(&self, key: &Key) -> Option<u64> {
        self.data.get(key).copied()
    }

    fn backlog(&self) -> usize {
        self.work.len()
    }

    fn knows(&self, key: &Key) -> bool {
        self.work.contains_key(key)
    }

    fn is_empty(&self) -> bool {
        self.work.is_empty() && self.data.is_empty()
    }

    fn shown(&self) -> String {
        let data: Vec<&Key> = self.data.keys().take(5).collect();
        let work: Vec<&Key> = self.work.keys().take(5).collect();
        format!("data {data:?}, work {work:?}")
    }

    fn some_result(&self) -> Option<Key> {
        self.data.keys().next().cloned()
    }

    fn some_key(&self) -> Option<(Key, RunId)> {
        let work = self.work.values().next()?;
        Some((work.key.clone(), work.run_id))
    }

    fn executing(&self) -> Vec<Key> {
        let running = self.work.values().filter(|w| w.running.is_some());
        running.map(|w| w.key.clone()).collect()
    }

    fn on_message(&mut self, _now: f64, msg: WorkerMsg) -> Vec<Action> {
        let mut out = Vec::new();
        match msg {
            WorkerMsg::ComputeTask(task) => self.on_compute(*task, &mut out),
            WorkerMsg::FreeKeys { keys, .. } => self.on_free(&keys, &mut out),
            WorkerMsg::RemoveReplicas { keys, stimulus_id } => {
                for key in keys {
                    self.on_remove_replica(key, &stimulus_id, &mut out);
                }
            }
            WorkerMsg::AcquireReplicas { who_has, .. } => {
                for (key, holders) in who_has {
                    if !self.data.contains_key(&key) {
                        self.who_has.insert(key.clone(), holders);
                        self.acquire.insert(key.clone());
                        self.fetch(&key, &mut out);
                    }
                }
            }
            WorkerMsg::RefreshWhoHas { who_has, .. } => {
                for (key, holders) in who_has {
                    if self.is_needed(&key) && !self.data.contains_key(&key) {
                        self.who_has.insert(key.clone(), holders);
                        self.fetch(&key, &mut out);
                    }
                }
            }
            WorkerMsg::StealRequest { key, stimulus_id } => {
                self.on_steal_request(key, stimulus_id, &mut out);
            }
            WorkerMsg::StatusChange {
                status,
                stimulus_id,
            } => {
                self.status = status;
                out.push(Action::Tell(Event::WorkerStatusChanged {
                    worker: self.id,
                    status,
                    stimulus_id,
                }));
            }
            WorkerMsg::RemoveWorker { worker, .. } => {
                for holders in self.who_has.values_mut() {
                    holders.retain(|h| *h != worker);
                }
            }
            WorkerMsg::Close { .. } => out.push(Action::Leave),
        }
        self.start_ready(&mut out);
        out
    }

    fn on_refresh_due(&mut self, key: Key) -> Option<Event> {
        if self.data.contains_key(&key) || !self.is_needed(&key) {
            self.refreshing.swap_remove(&key);
            return None;
        }
        let stimulus_id = self.stimulus("refresh");
        Some(Event::RequestRefreshWhoHas {
            worker: self.id,
            keys: vec![key],
            stimulus_id,
        })
    }

    fn on_fetched(&mut self, holder: &str, key: Key, value: Option<u64>) -> Vec<Action> {
        let mut out = Vec::new();
        self.fetching.swap_remove(&key);
        match value {
            Some(value) => {
                if self.is_needed(&key) {
                    self.acquire.swap_remove(&key);
                    self.data.insert(key.clone(), value);
                    let stimulus_id = self.stimulus("gathered");
                    out.push(Action::Tell(Event::AddKeys {
                        worker: self.id,
                        keys: vec![key],
                        stimulus_id,
                    }));
                }
            }
            None => {
                if let Some(holders) = self.who_has.get_mut(&key) {
                    holders.retain(|h| h.as_ref() != holder);
                }
                if self.is_needed(&key) {
                    self.fetch(&key, &mut out);
                }
            }
        }
        self.start_ready(&mut out);
        out
    }

    fn on_done(&mut self, now: f64, key: &Key, token: u64) -> Vec<Action> {
        let mut out = Vec::new();
        self.busy = self.busy.saturating_sub(1);
        let current = self
            .work
            .get(key)
            .and_then(|w| w.running.as_ref())
            .is_some_and(|(t, _)| *t == token);
        if current && let Some(work) = self.work.swap_remove(key) {
            let stimulus_id = self.stimulus("done");
            if work.task.fails {
                out.push(Action::Tell(erred(self.id, &work, stimulus_id)));
            } else {
                let inputs = work.running.map(|(_, inputs)| inputs).unwrap_or_default();
                self.data.insert(key.clone(), value_of(key, inputs));
                self.acquire.swap_remove(key);
                let mut action = self.finished(key, work.run_id, work.task.nbytes, stimulus_id);
                if let Action::Tell(Event::TaskFinished(msg)) = &mut action {
                    msg.startstops.push(StartStop {
                        action: "compute".into(),
                        start: now - work.task.duration,
                        stop: now,
                    });
                }
                out.push(action);
            }
        }
        self.start_ready(&mut out);
        out
    }
}

fn erred(worker: WorkerId, work: &Work, stimulus_id: Arc<str>) -> Event {
    Event::TaskErred(Box::new(TaskErred {
        worker,
        key: work.key.clone(),
        run_id: Some(work.run_id),
        exception: Opaque::new("boom"),
        traceback: None,
        exception_text: "ValueError('boom')".into(),
        traceback_text: "".into(),
        raw: None,
        stimulus_id,
    }))
}
