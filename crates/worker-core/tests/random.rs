//! Random orders, outcomes and failures in any order: the invariants hold after each event, and what can
//! be judged from outside does too. Every order is answered or taken back, and answered once; threads and
//! resources are never oversubscribed; a task finds its inputs in the store; data is asked only of
//! those who are said to have it; and when all is freed, nothing is left.
#![allow(missing_docs)]

mod env;

use std::collections::{BTreeMap, BTreeSet};

use env::{address, config, datum, finished, key, order, replica};
use oxidask_key::Key;
use oxidask_worker_core::config::WorkerConfig;
use oxidask_worker_core::effect::{Effect, SchedulerMsg};
use oxidask_worker_core::event::{ComputeTask, Event, GatherOutcome, Outcome};
use oxidask_worker_core::ids::{AttemptId, RequestId, RunId, Timestamp, TransferId};
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_core::status::WorkerStatus;
use oxidask_worker_core::{Effects, Worker};
use proptest::prelude::*;

/// A number that chooses among what is there when its turn comes.
type Pick = u16;

const KEYS: usize = 12;
const PEERS: usize = 4;
const THREADS: usize = 2;

type RandomTask = (Pick, Vec<(Pick, u8)>, i8, u8);

#[derive(Clone, Debug)]
enum Op {
    /// Orders that come together: task, inputs with a mask of holders, priority, GPUs.
    Compute(Vec<RandomTask>),
    Free(Vec<Pick>),
    Cancel(Pick),
    Steal(Pick),
    Acquire(Pick, u8),
    Remove(Vec<Pick>),
    Refresh(Pick, u8),
    LosePeer(Pick),
    Status(Pick),
    Resources(u8),
    Scatter(Pick, bool),
    Finish(Pick),
    Fail(Pick),
    GiveBack(Pick),
    Secede(Pick),
    /// The mask says which keys arrive, the flag that the others are broken.
    Arrive(Pick, u8, bool),
    Busy(Pick),
    Unreachable(Pick),
    /// An outcome that came before comes again.
    Late(Pick),
    Ask(Pick, bool),
    Sent(Pick),
    Reconnect,
    Pass(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let pick = any::<Pick>;
    let picks = || prop::collection::vec(any::<Pick>(), 1..4);
    let inputs = prop::collection::vec((pick(), any::<u8>()), 0..4);
    let task = (pick(), inputs, any::<i8>(), 0..8_u8);
    prop_oneof![
        14 => prop::collection::vec(task, 1..4).prop_map(Op::Compute),
        5 => picks().prop_map(Op::Free),
        1 => pick().prop_map(Op::Cancel),
        3 => pick().prop_map(Op::Steal),
        3 => (pick(), any::<u8>()).prop_map(|(a, b)| Op::Acquire(a, b)),
        3 => picks().prop_map(Op::Remove),
        3 => (pick(), any::<u8>()).prop_map(|(a, b)| Op::Refresh(a, b)),
        1 => pick().prop_map(Op::LosePeer),
        2 => pick().prop_map(Op::Status),
        1 => (0..4_u8).prop_map(Op::Resources),
        1 => (pick(), any::<bool>()).prop_map(|(a, b)| Op::Scatter(a, b)),
        10 => pick().prop_map(Op::Finish),
        2 => pick().prop_map(Op::Fail),
        1 => pick().prop_map(Op::GiveBack),
        2 => pick().prop_map(Op::Secede),
        8 => (pick(), any::<u8>(), prop::bool::weighted(0.2)).prop_map(|(a, b, c)| Op::Arrive(a, b, c)),
        2 => pick().prop_map(Op::Busy),
        2 => pick().prop_map(Op::Unreachable),
        2 => pick().prop_map(Op::Late),
        1 => (pick(), any::<bool>()).prop_map(|(a, b)| Op::Ask(a, b)),
        1 => pick().prop_map(Op::Sent),
        1 => Just(Op::Reconnect),
        3 => any::<u8>().prop_map(Op::Pass),
    ]
}

fn name_of(pick: Pick) -> String {
    format!("t{}", usize::from(pick) % KEYS)
}

/// `w0` is the worker itself.
fn holders(mask: u8) -> Vec<String> {
    let named = (0..=PEERS).filter(|i| mask & (1 << i) != 0);
    named.map(|i| format!("w{i}")).collect()
}

struct Running {
    attempt: AttemptId,
    gpus: f64,
    seceded: bool,
}

struct Flying {
    transfer: TransferId,
    peer: String,
    keys: Vec<Key>,
}

/// What scheduler, threads and peers know.
struct World {
    w: Worker,
    now: f64,
    run_id: i64,
    gpus: f64,
    /// Orders that were neither answered nor taken back.
    orders: BTreeMap<String, RunId>,
    /// Where each key was said to be.
    told: BTreeMap<String, BTreeSet<String>>,
    store: BTreeMap<String, u64>,
    running: Vec<Running>,
    flying: Vec<Flying>,
    serving: BTreeSet<u64>,
    next_request: u64,
    asked: Vec<Key>,
    past: Vec<Event>,
}

impl World {
    fn new() -> Self {
        Self {
            w: Worker::new(WorkerConfig {
                resources: vec![("GPU".into(), 1.0)],
                incoming_count_limit: 2,
                incoming_throttle_threshold: 3,
                incoming_bytes_limit: Some(8),
                message_bytes_limit: 3,
                outgoing_count_limit: 2,
                story_bytes: 4_000,
                ..config(THREADS as u32)
            }),
            now: 1000.0,
            run_id: 0,
            gpus: 1.0,
            orders: BTreeMap::new(),
            told: BTreeMap::new(),
            store: BTreeMap::new(),
            running: Vec::new(),
            flying: Vec::new(),
            serving: BTreeSet::new(),
            next_request: 0,
            asked: Vec::new(),
            past: Vec::new(),
        }
    }

    fn batch(&mut self, events: Vec<Event>) {
        let mut effects = Effects::new();
        self.w
            .handle_batch(Timestamp(self.now), events, &mut effects);
        self.after(effects);
    }

    fn event(&mut self, event: Event) {
        self.batch(vec![event]);
    }

    fn after(&mut self, effects: Effects) {
        assert!(effects.len() < 40 * KEYS, "{} effects", effects.len());
        for effect in effects {
            self.effect(effect);
        }
        let violations = self.w.take_violations();
        assert!(violations.is_empty(), "{violations:?}");
        assert!(self.w.story_bytes() <= 4_000);
        let held: BTreeMap<String, u64> = self.w.data().map(|(k, n)| (k.to_text(), n)).collect();
        assert_eq!(held, self.store, "the core and the store agree");
        assert_eq!(self.w.nbytes(), self.store.values().sum::<u64>());
        assert_eq!(self.w.attempts().count(), self.running.len());
        assert!(self.w.tasks_len() <= KEYS && self.w.peers_len() <= PEERS);
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::ToScheduler { msg, .. } => self.message(msg),
            Effect::Execute { attempt, task, .. } => self.execute(attempt, &task),
            Effect::Abandon { attempt } => {
                let known = self.running.iter().any(|r| r.attempt == attempt);
                assert!(known, "abandons what does not run");
            }
            Effect::Gather {
                transfer,
                worker,
                keys,
                ..
            } => {
                assert_eq!(self.w.status(), WorkerStatus::Running);
                let peer = env::name(&worker);
                assert_ne!(peer, "w0");
                for key in &keys {
                    let told = &self.told[&key.to_text()];
                    assert!(told.contains(&peer), "{key} is not said to be on {peer}");
                }
                assert!(self.flying.iter().all(|f| f.peer != peer));
                self.flying.push(Flying {
                    transfer,
                    peer,
                    keys,
                });
            }
            Effect::AbortGather { transfer } => self.flying.retain(|f| f.transfer != transfer),
            Effect::Store { key, nbytes, .. } => {
                self.store.insert(key.to_text(), nbytes);
            }
            Effect::Drop { key } => {
                let dropped = self.store.remove(&key.to_text());
                assert!(dropped.is_some(), "drops {key}, which is not there");
            }
            Effect::ServeData { request, keys } => {
                assert!(keys.iter().all(|k| self.store.contains_key(&k.to_text())));
                self.serving.insert(request.0);
            }
            Effect::RefuseData { .. } => assert!(!self.serving.is_empty()),
        }
    }

    fn execute(&mut self, attempt: AttemptId, task: &ComputeTask) {
        assert_eq!(self.w.status(), WorkerStatus::Running);
        assert_eq!(self.orders.get(&task.key.to_text()).copied(), task.run_id);
        for input in &task.inputs {
            let here = self.store.contains_key(&input.key.to_text());
            assert!(here, "{} runs without {}", task.key, input.key);
        }
        let needs = task.resource_restrictions.iter();
        let gpus: f64 = needs.map(|(_, amount)| amount).sum();
        let used: f64 = self.running.iter().map(|r| r.gpus).sum();
        assert!(gpus == 0.0 || used + gpus <= self.gpus, "too few GPUs");
        self.running.push(Running {
            attempt,
            gpus,
            seceded: false,
        });
        let occupied = self.running.iter().filter(|r| !r.seceded).count();
        assert!(occupied <= THREADS, "{occupied} tasks in {THREADS} slots");
    }

    fn answered(&mut self, key: &Key, run_id: Option<RunId>) {
        let ordered = self.orders.remove(&key.to_text());
        assert!(ordered.is_some() && ordered == run_id, "{key}: {run_id:?}");
    }

    fn message(&mut self, msg: SchedulerMsg) {
        match msg {
            SchedulerMsg::TaskFinished { key, run_id, .. } => {
                assert!(self.store.contains_key(&key.to_text()));
                self.answered(&key, run_id);
            }
            SchedulerMsg::TaskErred { key, run_id, .. } => self.answered(&key, run_id),
            SchedulerMsg::Reschedule { key } => {
                let ordered = self.orders.remove(&key.to_text());
                assert!(
                    ordered.is_some(),
                    "gives back {key}, which it does not have"
                );
            }
            SchedulerMsg::StealResponse { key, state } => {
                let given = state.is_some_and(|s| s.is_pending());
                let ordered = self.orders.contains_key(&key.to_text());
                let runs = state.is_some_and(|s| s.is_running());
                // What runs may have been ordered by a scheduler that is gone.
                assert!(ordered == given || runs, "{key} is {state:?}");
                if given {
                    self.orders.remove(&key.to_text());
                }
            }
            SchedulerMsg::LongRunning { key, run_id, .. } => {
                assert_eq!(self.orders.get(&key.to_text()).copied(), run_id);
            }
            SchedulerMsg::AddKeys { keys } => {
                assert!(keys.iter().all(|k| self.store.contains_key(&k.to_text())));
            }
            SchedulerMsg::ReleaseWorkerData { key } => {
                assert!(!self.store.contains_key(&key.to_text()));
            }
            SchedulerMsg::RequestRefreshWhoHas { keys } => self.asked.extend(keys),
            SchedulerMsg::MissingData { .. } | SchedulerMsg::StatusChanged { .. } => {}
        }
    }

    fn tell_holders(&mut self, name: &str, mask: u8) -> Vec<String> {
        let holders = holders(mask);
        let told = self.told.entry(name.to_owned()).or_default();
        // An order that is answered at once is not read any further, so what was told before may count.
        told.extend(holders.iter().cloned());
        holders
    }

    fn order(&mut self, task: Pick, inputs: &[(Pick, u8)], priority: i8, gpus: u8) -> Event {
        let name = name_of(task);
        let rank = usize::from(task) % KEYS;
        self.run_id += 1;
        let mut sent = order(&name, &[]);
        sent.run_id = Some(RunId(self.run_id));
        sent.priority = [f64::from(priority / 64), 0.0, f64::from(priority)];
        if gpus > 5 {
            let needed = f64::from(gpus - 5) / 2.0;
            sent.resource_restrictions = vec![("GPU".into(), needed)];
        }
        // As in a graph: a task needs only what comes before it.
        for &(input, mask) in inputs.iter().filter(|_| rank > 0) {
            let input = format!("t{}", usize::from(input) % rank);
            if sent.inputs.iter().any(|i| i.key == key(&input)) {
                continue;
            }
            let holders = self.tell_holders(&input, mask);
            let holders: Vec<&str> = holders.iter().map(String::as_str).collect();
            sent.inputs
                .push(replica(&input, &holders, u64::from(mask % 6)));
        }
        self.orders.insert(name, RunId(self.run_id));
        Event::ComputeTask(Box::new(sent))
    }

    fn apply(&mut self, op: Op) {
        let stimulus_id = "s".into();
        match op {
            Op::Compute(tasks) => {
                // An order that is replaced within the batch could be answered under either name.
                let mut seen = BTreeSet::new();
                let tasks = tasks.iter().filter(|t| seen.insert(name_of(t.0)));
                let orders = tasks.map(|(task, inputs, priority, gpus)| {
                    self.order(*task, inputs, *priority, *gpus)
                });
                let orders = orders.collect();
                self.batch(orders);
            }
            Op::Free(picks) => {
                let names: Vec<String> = picks.into_iter().map(name_of).collect();
                for name in &names {
                    self.orders.remove(name);
                }
                let keys = names.iter().map(|n| key(n)).collect();
                self.event(Event::FreeKeys { keys, stimulus_id });
            }
            Op::Cancel(pick) => {
                let name = name_of(pick);
                let task = self.w.task(&key(&name));
                if task.is_some_and(|t| t.state().is_pending()) {
                    self.orders.remove(&name);
                }
                let key = key(&name);
                self.event(Event::CancelCompute { key, stimulus_id });
            }
            Op::Steal(pick) => {
                let key = key(&name_of(pick));
                self.event(Event::StealRequest { key, stimulus_id });
            }
            Op::Remove(picks) => {
                let keys = picks.into_iter().map(|p| key(&name_of(p))).collect();
                self.event(Event::RemoveReplicas { keys, stimulus_id });
            }
            Op::Acquire(..) | Op::Refresh(..) | Op::LosePeer(..) => self.apply_to_holders(op),
            Op::Finish(..) | Op::Fail(..) | Op::GiveBack(..) | Op::Secede(..) => {
                self.apply_to_thread(op);
            }
            Op::Arrive(..) | Op::Busy(..) | Op::Unreachable(..) => self.apply_to_transfer(op),
            _ => self.apply_to_worker(op),
        }
    }

    fn apply_to_holders(&mut self, op: Op) {
        let stimulus_id = "s".into();
        match op {
            Op::Acquire(pick, mask) => {
                let name = name_of(pick);
                let holders = self.tell_holders(&name, mask);
                let holders: Vec<&str> = holders.iter().map(String::as_str).collect();
                let replicas = vec![replica(&name, &holders, u64::from(mask % 6))];
                self.event(Event::AcquireReplicas {
                    replicas,
                    stimulus_id,
                });
            }
            Op::Refresh(pick, mask) => {
                let name = name_of(pick);
                let holders = self.tell_holders(&name, mask);
                let holders = holders.iter().map(|h| address(h)).collect();
                self.event(Event::RefreshWhoHas {
                    who_has: vec![(key(&name), holders)],
                    stimulus_id,
                });
            }
            Op::LosePeer(pick) => {
                let peer = format!("w{}", 1 + usize::from(pick) % PEERS);
                for told in self.told.values_mut() {
                    told.remove(&peer);
                }
                self.event(Event::RemoveWorker {
                    worker: address(&peer),
                    stimulus_id,
                });
            }
            _ => {}
        }
    }

    fn apply_to_thread(&mut self, op: Op) {
        let (Op::Finish(pick) | Op::Fail(pick) | Op::GiveBack(pick) | Op::Secede(pick)) = op else {
            return;
        };
        if self.running.is_empty() {
            return;
        }
        let at = usize::from(pick) % self.running.len();
        let attempt = self.running[at].attempt;
        let stimulus_id = "s".into();
        if matches!(op, Op::Secede(_)) {
            self.running[at].seceded = true;
            return self.event(Event::Seceded {
                attempt,
                compute_duration: Some(0.1),
                stimulus_id,
            });
        }
        self.running.remove(at);
        let outcome = match op {
            Op::Fail(_) => Outcome::Failed {
                report: Opaque::new(()),
            },
            Op::GiveBack(_) => Outcome::Rescheduled,
            _ => finished(u64::from(pick % 7)),
        };
        let event = Event::Executed {
            attempt,
            outcome,
            stimulus_id,
        };
        self.past.push(event.clone());
        self.event(event);
    }

    fn apply_to_transfer(&mut self, op: Op) {
        let (Op::Arrive(pick, ..) | Op::Busy(pick) | Op::Unreachable(pick)) = op else {
            return;
        };
        if self.flying.is_empty() {
            return;
        }
        let flying = self.flying.remove(usize::from(pick) % self.flying.len());
        let outcome = match op {
            Op::Arrive(_, mask, broken) => {
                let arrives = |i: usize| mask & (1 << (i % 8)) != 0;
                let named = || flying.keys.iter().enumerate();
                let mut data: Vec<_> = named()
                    .filter(|(i, _)| arrives(*i))
                    .map(|(_, k)| datum(&k.to_text(), u64::from(mask % 5)))
                    .collect();
                data.push(datum("never asked for", 1));
                let others = named().filter(|(i, _)| broken && !arrives(*i));
                GatherOutcome::Answered {
                    data,
                    failed: others.map(|(_, k)| (k.clone(), Opaque::new(()))).collect(),
                }
            }
            Op::Busy(_) => GatherOutcome::Busy,
            _ => {
                for told in self.told.values_mut() {
                    told.remove(&flying.peer);
                }
                GatherOutcome::Unreachable
            }
        };
        let event = Event::Gathered {
            transfer: flying.transfer,
            outcome,
            stimulus_id: "s".into(),
        };
        self.past.push(event.clone());
        self.event(event);
    }

    fn apply_to_worker(&mut self, op: Op) {
        let stimulus_id = "s".into();
        match op {
            Op::Status(pick) if pick >= 192 => self.event(Event::MemoryPressure {
                short: pick % 2 == 0,
                stimulus_id,
            }),
            Op::Status(pick) => {
                let all = [
                    WorkerStatus::Running,
                    WorkerStatus::Paused,
                    WorkerStatus::Running,
                    WorkerStatus::ClosingGracefully,
                ];
                let status = all[usize::from(pick) % all.len()];
                self.event(Event::SetStatus {
                    status,
                    stimulus_id,
                });
            }
            Op::Resources(gpus) => {
                self.gpus = f64::from(gpus);
                self.event(Event::SetResources {
                    resources: vec![("GPU".into(), self.gpus)],
                    stimulus_id,
                });
            }
            Op::Scatter(pick, report) => {
                let data = vec![datum(&name_of(pick), u64::from(pick % 5))];
                self.event(Event::UpdateData {
                    data,
                    report,
                    stimulus_id,
                });
            }
            Op::Late(pick) if !self.past.is_empty() => {
                let event = self.past[usize::from(pick) % self.past.len()].clone();
                let tasks = self.w.transition_counter();
                self.event(event);
                assert_eq!(self.w.transition_counter(), tasks, "a late answer counts");
            }
            Op::Ask(pick, unlimited) => {
                self.next_request += 1;
                self.event(Event::GetData {
                    request: RequestId(self.next_request),
                    who: Some(address(&format!("w{}", usize::from(pick) % PEERS))),
                    keys: vec![key(&name_of(pick)), key("nothing")],
                    unlimited,
                });
            }
            Op::Sent(pick) => {
                let all: Vec<u64> = self.serving.iter().copied().collect();
                if let Some(&request) = all.get(usize::from(pick) % all.len().max(1)) {
                    self.serving.remove(&request);
                    let request = RequestId(request);
                    self.event(Event::DataSent { request });
                }
            }
            Op::Reconnect => {
                self.orders.clear();
                self.event(Event::Reconnected { stimulus_id });
            }
            Op::Pass(tenths) => self.pass(f64::from(tenths) / 40.0),
            _ => {}
        }
    }

    fn pass(&mut self, seconds: f64) {
        let end = self.now + seconds;
        for _ in 0..1_000 {
            let Some(Timestamp(at)) = self.w.poll_timeout().filter(|at| at.0 <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            let mut effects = Effects::new();
            self.w.handle_timeout(Timestamp(self.now), &mut effects);
            self.after(effects);
        }
        panic!("timers do not come to rest");
    }

    /// Everybody does what is asked of him, until nothing is left to do.
    fn come_to_rest(&mut self) {
        self.apply(Op::Status(0));
        self.apply(Op::Resources(3));
        for _ in 0..200 {
            self.pass(3.0);
            while !self.running.is_empty() {
                self.apply(Op::Finish(0));
            }
            while !self.flying.is_empty() {
                self.apply(Op::Arrive(0, 255, false));
            }
            for key in std::mem::take(&mut self.asked) {
                let name: u16 = key.to_text()[1..].parse().unwrap_or_default();
                self.apply(Op::Refresh(name, 2));
            }
            let at_rest = self
                .w
                .tasks()
                .all(|t| matches!(t.state().as_str(), "memory" | "error"));
            if at_rest && self.running.is_empty() && self.flying.is_empty() {
                break;
            }
        }
        let lost: Vec<_> = self.orders.keys().collect();
        assert!(lost.is_empty(), "{lost:?} were never answered");
    }

    fn free_all(&mut self) {
        self.apply(Op::Free((0..KEYS as u16).collect()));
        for request in std::mem::take(&mut self.serving) {
            let request = RequestId(request);
            self.event(Event::DataSent { request });
        }
        self.pass(30.0);
        assert_eq!((self.w.tasks_len(), self.w.peers_len()), (0, 0));
        let figures = self.w.transfer_figures();
        assert_eq!((figures.incoming_bytes, figures.incoming_count), (0, 0));
        assert_eq!((figures.outgoing_bytes, figures.outgoing_count), (0, 0));
        assert_eq!(self.w.ready_count() + self.w.executing_count(), 0);
        assert_eq!(self.w.poll_timeout(), None);
        assert!(self.w.resources().all(|(_, _, used)| used == 0.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_order_is_answered_and_nothing_is_left(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.come_to_rest();
        world.free_all();
    }

    #[test]
    fn the_same_events_have_the_same_effects(ops in prop::collection::vec(op(), 1..60)) {
        let run = || {
            let mut world = World::new();
            for op in ops.clone() {
                world.apply(op);
            }
            let log: Vec<String> = world.w.log_entries().map(|e| format!("{e:?}")).collect();
            (log, world.w.transition_counter())
        };
        prop_assert_eq!(run(), run());
    }
}
