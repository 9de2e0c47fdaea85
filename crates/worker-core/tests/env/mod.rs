//! A worker under test: speaks in intentions, collects what the core wants done and shows it in words.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_worker_core::config::WorkerConfig;
use oxidask_worker_core::effect::{Effect, SchedulerMsg};
use oxidask_worker_core::event::{ComputeTask, Datum, Event, GatherOutcome, Outcome, Replica};
use oxidask_worker_core::ids::{AttemptId, RequestId, RunId, Timestamp, TransferId};
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_core::status::WorkerStatus;
use oxidask_worker_core::task::TaskState;
use oxidask_worker_core::{Effects, Worker};

pub fn key(name: &str) -> Key {
    Key::from(name)
}

/// `w1` is `tcp://10.0.0.1:1000`; the worker under test is `w0`.
pub fn address(name: &str) -> Arc<str> {
    format!("tcp://10.0.0.{}:1000", &name[1..]).into()
}

pub fn name(address: &str) -> String {
    let host = address.trim_start_matches("tcp://10.0.0.");
    format!("w{}", host.trim_end_matches(":1000"))
}

pub fn config(nthreads: u32) -> WorkerConfig {
    WorkerConfig {
        address: address("w0"),
        nthreads,
        validate: true,
        ..WorkerConfig::default()
    }
}

pub fn replica(name: &str, who_has: &[&str], nbytes: u64) -> Replica {
    Replica {
        key: key(name),
        who_has: who_has.iter().map(|w| address(w)).collect(),
        nbytes: Some(nbytes),
    }
}

/// An order; priority 0, run id 1.
pub fn order(name: &str, inputs: &[(&str, &[&str])]) -> ComputeTask {
    ComputeTask {
        key: key(name),
        run_id: Some(RunId(1)),
        priority: [0.0; 3],
        inputs: inputs.iter().map(|(k, w)| replica(k, w, 1)).collect(),
        run_spec: Opaque::new(name.to_owned()),
        resource_restrictions: Vec::new(),
        actor: false,
        executor: None,
        annotations: None,
        span_id: None,
        stimulus_id: format!("compute-{name}").into(),
    }
}

pub struct TestEnv {
    pub w: Worker,
    pub now: f64,
    pub effects: Effects,
    /// The last execution of each key.
    pub attempts: BTreeMap<String, AttemptId>,
    names: BTreeMap<AttemptId, String>,
    /// The last transfer from each peer, and what was asked for.
    pub transfers: BTreeMap<String, (TransferId, Vec<Key>)>,
}

impl TestEnv {
    pub fn new(nthreads: u32) -> Self {
        Self::with_config(config(nthreads))
    }

    pub fn with_config(config: WorkerConfig) -> Self {
        Self {
            w: Worker::new(config),
            now: 1000.0,
            effects: Vec::new(),
            attempts: BTreeMap::new(),
            names: BTreeMap::new(),
            transfers: BTreeMap::new(),
        }
    }

    pub fn event(&mut self, event: Event) {
        self.batch(vec![event]);
    }

    pub fn batch(&mut self, events: Vec<Event>) {
        let before = self.effects.len();
        self.w
            .handle_batch(Timestamp(self.now), events, &mut self.effects);
        self.after(before);
    }

    /// Lets time pass, with all timers that come due.
    pub fn pass(&mut self, seconds: f64) {
        let end = self.now + seconds;
        while let Some(Timestamp(at)) = self.w.poll_timeout().filter(|at| at.0 <= end) {
            assert!(at > self.now - 1e-9, "a timer in the past");
            self.now = at.max(self.now);
            let before = self.effects.len();
            self.w
                .handle_timeout(Timestamp(self.now), &mut self.effects);
            self.after(before);
        }
        self.now = end;
    }

    fn after(&mut self, before: usize) {
        for effect in &self.effects[before..] {
            match effect {
                Effect::Execute { attempt, task, .. } => {
                    self.attempts.insert(task.key.to_text(), *attempt);
                    self.names.insert(*attempt, task.key.to_text());
                }
                Effect::Gather {
                    transfer,
                    worker,
                    keys,
                    ..
                } => {
                    self.transfers
                        .insert(name(worker), (*transfer, keys.clone()));
                }
                _ => {}
            }
        }
        let violations = self.w.take_violations();
        assert!(violations.is_empty(), "{violations:?}");
    }

    pub fn compute(&mut self, name: &str, inputs: &[(&str, &[&str])]) {
        self.order(order(name, inputs));
    }

    pub fn compute_as(&mut self, name: &str, run_id: i64) {
        let mut order = order(name, &[]);
        order.run_id = Some(RunId(run_id));
        self.order(order);
    }

    pub fn order(&mut self, order: ComputeTask) {
        self.event(Event::ComputeTask(Box::new(order)));
    }

    pub fn free(&mut self, names: &[&str]) {
        let keys = names.iter().map(|k| key(k)).collect();
        let stimulus_id = "free".into();
        self.event(Event::FreeKeys { keys, stimulus_id });
    }

    pub fn cancel(&mut self, name: &str) {
        let stimulus_id = "cancel".into();
        self.event(Event::CancelCompute {
            key: key(name),
            stimulus_id,
        });
    }

    pub fn steal(&mut self, name: &str) {
        let stimulus_id = "steal".into();
        self.event(Event::StealRequest {
            key: key(name),
            stimulus_id,
        });
    }

    pub fn acquire(&mut self, name: &str, who_has: &[&str]) {
        self.event(Event::AcquireReplicas {
            replicas: vec![replica(name, who_has, 1)],
            stimulus_id: "acquire".into(),
        });
    }

    pub fn remove(&mut self, names: &[&str]) {
        let keys = names.iter().map(|k| key(k)).collect();
        let stimulus_id = "remove".into();
        self.event(Event::RemoveReplicas { keys, stimulus_id });
    }

    pub fn refresh(&mut self, name: &str, who_has: &[&str]) {
        let holders = who_has.iter().map(|w| address(w)).collect();
        self.event(Event::RefreshWhoHas {
            who_has: vec![(key(name), holders)],
            stimulus_id: "refresh".into(),
        });
    }

    pub fn remove_worker(&mut self, name: &str) {
        self.event(Event::RemoveWorker {
            worker: address(name),
            stimulus_id: "remove-worker".into(),
        });
    }

    pub fn status(&mut self, status: WorkerStatus) {
        let stimulus_id = "status".into();
        self.event(Event::SetStatus {
            status,
            stimulus_id,
        });
    }

    pub fn scatter(&mut self, name: &str, nbytes: u64) {
        self.event(Event::UpdateData {
            data: vec![datum(name, nbytes)],
            report: false,
            stimulus_id: "scatter".into(),
        });
    }

    pub fn done(&mut self, name: &str, outcome: Outcome) {
        let attempt = self.attempts[name];
        self.done_attempt(attempt, outcome);
    }

    pub fn done_attempt(&mut self, attempt: AttemptId, outcome: Outcome) {
        self.event(Event::Executed {
            attempt,
            outcome,
            stimulus_id: "done".into(),
        });
    }

    pub fn finish(&mut self, name: &str) {
        self.done(name, finished(10));
    }

    pub fn fail(&mut self, name: &str) {
        let report = Opaque::new(());
        self.done(name, Outcome::Failed { report });
    }

    pub fn secede(&mut self, name: &str) {
        self.event(Event::Seceded {
            attempt: self.attempts[name],
            compute_duration: Some(0.5),
            stimulus_id: "secede".into(),
        });
    }

    pub fn gathered(&mut self, peer: &str, outcome: GatherOutcome) {
        let transfer = self.transfers[peer].0;
        self.event(Event::Gathered {
            transfer,
            outcome,
            stimulus_id: "gathered".into(),
        });
    }

    /// The peer answers with these keys.
    pub fn arrive(&mut self, peer: &str, names: &[&str]) {
        let data = names.iter().map(|n| datum(n, 5)).collect();
        let failed = Vec::new();
        self.gathered(peer, GatherOutcome::Answered { data, failed });
    }

    pub fn ask(&mut self, request: u64, who: &str, names: &[&str]) {
        self.event(Event::GetData {
            request: RequestId(request),
            who: Some(address(who)),
            keys: names.iter().map(|k| key(k)).collect(),
            unlimited: false,
        });
    }

    pub fn state(&self, name: &str) -> Option<TaskState> {
        self.w.state_of(&key(name))
    }

    /// All that was to be done since the last call.
    #[track_caller]
    pub fn expect(&mut self, expected: &[&str]) {
        let effects = std::mem::take(&mut self.effects);
        let shown: Vec<String> = effects.iter().map(|e| self.show(e)).collect();
        assert_eq!(shown, expected);
    }

    pub fn forget_effects(&mut self) {
        self.effects.clear();
    }

    fn show(&self, effect: &Effect) -> String {
        match effect {
            Effect::ToScheduler { msg, .. } => show_msg(msg),
            Effect::Execute { task, .. } => format!("run {}", task.key),
            Effect::Abandon { attempt } => format!("abandon {}", self.names[attempt]),
            Effect::Gather { worker, keys, .. } => {
                format!("gather {}: {}", name(worker), list(keys))
            }
            Effect::AbortGather { .. } => "abort".to_owned(),
            Effect::Store { key, .. } => format!("store {key}"),
            Effect::Drop { key } => format!("drop {key}"),
            Effect::ServeData { request, keys } => format!("serve {}: {}", request.0, list(keys)),
            Effect::RefuseData { request } => format!("refuse {}", request.0),
        }
    }
}

pub fn finished(nbytes: u64) -> Outcome {
    Outcome::Finished {
        value: Opaque::new(()),
        nbytes,
        report: Opaque::new(()),
    }
}

pub fn datum(name: &str, nbytes: u64) -> Datum {
    Datum {
        key: key(name),
        value: Opaque::new(()),
        nbytes,
    }
}

fn list(keys: &[Key]) -> String {
    let texts: Vec<String> = keys.iter().map(Key::to_text).collect();
    texts.join(" ")
}

fn run(run_id: &Option<RunId>) -> String {
    run_id.map_or("-".to_owned(), |r| r.0.to_string())
}

pub fn show_msg(msg: &SchedulerMsg) -> String {
    match msg {
        SchedulerMsg::TaskFinished { key, run_id, .. } => format!("finished {key}@{}", run(run_id)),
        SchedulerMsg::TaskErred { key, run_id, .. } => format!("erred {key}@{}", run(run_id)),
        SchedulerMsg::ReleaseWorkerData { key } => format!("release {key}"),
        SchedulerMsg::AddKeys { keys } => format!("add {}", list(keys)),
        SchedulerMsg::MissingData { key, errant_worker } => {
            format!("missing {key} {}", name(errant_worker))
        }
        SchedulerMsg::RequestRefreshWhoHas { keys } => format!("who-has {}", list(keys)),
        SchedulerMsg::LongRunning { key, run_id, .. } => {
            format!("long-running {key}@{}", run(run_id))
        }
        SchedulerMsg::Reschedule { key } => format!("reschedule {key}"),
        SchedulerMsg::StealResponse { key, state } => {
            format!("steal {key} {}", state.map_or("-", TaskState::as_str))
        }
        SchedulerMsg::StatusChanged { status } => format!("status {}", status.as_str()),
    }
}
