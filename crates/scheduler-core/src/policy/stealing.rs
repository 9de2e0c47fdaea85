//! Work stealing: tasks move from busy workers to idle ones before they begin.
//!
//! A task on a worker is *stealable* at a level that says how its transfer compares with its run time.
//! [`Scheduler::balance`] asks victims to give tasks back; only when a victim answers that it has
//! not begun does the task go to the thief.

use std::sync::Arc;

use indexmap::IndexMap;
use std::hash::BuildHasherDefault;

use oxidask_key::Key;

use crate::Scheduler;
use crate::effect::{Effect, LoggedEvent, PlainValue, WorkerMsg};
use crate::event::StimulusId;
use crate::ids::{TaskId, WorkerId};
use crate::placement::min_by_objective;
use crate::sets::{IdHasher, IdSet};
use crate::state::STEAL_LEVELS;
use crate::task::TaskState;

/// Seconds that moving a task costs besides the transfer of its inputs. Generous, so that small tasks
/// stay where they are.
const LATENCY: f64 = 0.1;

struct InFlight {
    victim: WorkerId,
    thief: WorkerId,
    victim_duration: f64,
    thief_duration: f64,
    stimulus_id: StimulusId,
}

/// State of work stealing.
#[derive(Default)]
pub(crate) struct Stealing {
    /// Stealable tasks are kept track of (`scheduler.work-stealing` was on at the start).
    loaded: bool,
    /// The periodic balancing runs.
    pub(crate) enabled: bool,
    in_flight: IndexMap<TaskId, InFlight, BuildHasherDefault<IdHasher>>,
    requests: u64,
    /// Rounds that asked for something.
    pub(crate) count: u64,
    /// Requests and their cost in seconds, by level.
    pub(crate) request_count_total: [u64; STEAL_LEVELS],
    pub(crate) request_cost_total: [f64; STEAL_LEVELS],
}

impl Stealing {
    pub(crate) fn new(loaded: bool) -> Self {
        Self {
            loaded,
            enabled: loaded,
            ..Self::default()
        }
    }

    /// Tasks requested and from whom.
    pub(crate) fn victims(&self) -> impl Iterator<Item = (TaskId, WorkerId)> + '_ {
        self.in_flight.iter().map(|(&id, info)| (id, info.victim))
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

/// What a victim's state of the task means.
enum Answer {
    Given,
    Kept,
    Unknown,
}

impl Answer {
    fn of(state: Option<&str>) -> Self {
        match state {
            Some("ready" | "constrained" | "waiting") => Self::Given,
            Some("memory" | "executing" | "long-running" | "cancelled" | "resumed") => Self::Kept,
            _ => Self::Unknown,
        }
    }
}

fn text(text: &str) -> PlainValue {
    PlainValue::Str(text.into())
}

impl Scheduler {
    pub(crate) fn set_stealing(&mut self, enabled: bool) {
        self.stealing.enabled = enabled && self.stealing.loaded;
    }

    /// Follows a task into and out of `processing`.
    pub(crate) fn stealing_after_transition(
        &mut self,
        id: TaskId,
        start: TaskState,
        finish: TaskState,
    ) {
        if !self.stealing.loaded {
            return;
        }
        if start == TaskState::Processing {
            self.stealing_forget(id);
            if finish == TaskState::Memory {
                self.recalculate_unknown(id);
            }
        }
        if finish == TaskState::Processing {
            self.put_key_in_stealable(id);
        }
    }

    /// Takes the task out of everything that stealing knows.
    pub(crate) fn stealing_forget(&mut self, id: TaskId) {
        self.remove_key_from_stealable(id);
        self.remove_from_in_flight(id);
    }

    /// The duration of the prefix is known now: tasks that were put up on a guess move to their level.
    fn recalculate_unknown(&mut self, id: TaskId) {
        let prefix = self.groups.prefix_of_mut(self.tasks[id].group);
        if prefix.unknown_durations.is_empty() {
            return;
        }
        for id in std::mem::take(&mut prefix.unknown_durations).iter() {
            let processing = self.processing_worker(id).is_some();
            if processing && !self.stealing.in_flight.contains_key(&id) {
                self.remove_key_from_stealable(id);
                self.put_key_in_stealable(id);
            }
        }
    }

    fn put_key_in_stealable(&mut self, id: TaskId) {
        let Some(level) = self.steal_level(id) else {
            return;
        };
        let Some(worker) = self.tasks[id].processing_on.get() else {
            return;
        };
        let Some(w) = self.workers.get_mut(worker) else {
            return;
        };
        if w.stealable.is_empty() {
            w.stealable.resize_with(STEAL_LEVELS, IdSet::default);
        }
        if let Some(tasks) = w.stealable.get_mut(usize::from(level)) {
            tasks.insert(id);
        }
        let task = &mut self.tasks[id];
        task.stealable_on = Some(worker).into();
        task.steal_level = level;
        let group = task.group;
        let duration = self.task_duration(id);
        let prefix = self.groups.prefix_of_mut(group);
        if duration != prefix.duration_average {
            prefix.unknown_durations.insert(id);
        }
    }

    pub(crate) fn remove_key_from_stealable(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        let (group, level) = (task.group, usize::from(task.steal_level));
        let Some(worker) = task.stealable_on.take() else {
            return;
        };
        if let Some(w) = self.workers.get_mut(worker)
            && let Some(tasks) = w.stealable.get_mut(level)
        {
            tasks.remove(id);
        }
        self.groups
            .prefix_of_mut(group)
            .unknown_durations
            .remove(id);
    }

    /// How the transfer of the task compares with its run time, on a logarithmic scale; `None` if it
    /// is never stolen.
    fn steal_level(&self, id: TaskId) -> Option<u8> {
        let task = &self.tasks[id];
        let prefix = self.groups.prefix_of(task.group);
        if prefix.never_stolen || task.actor {
            return None;
        }
        if task.dependencies.is_empty() {
            return Some(0);
        }
        let compute_time = prefix.duration_or(self.config.unknown_task_duration);
        if compute_time <= 0.0 {
            return None;
        }
        let bytes: i64 = task.dependencies.iter().map(|d| self.get_nbytes(d)).sum();
        let transfer_time = bytes as f64 / self.bandwidth + LATENCY;
        let level = ((transfer_time / compute_time).log2() + 6.0).round_ties_even();
        if level >= STEAL_LEVELS as f64 {
            return None;
        }
        Some(level.max(1.0) as u8)
    }

    fn remove_from_in_flight(&mut self, id: TaskId) -> Option<InFlight> {
        let info = self.stealing.in_flight.swap_remove(&id)?;
        let last = self.stealing.in_flight.is_empty();
        for (worker, duration, tasks) in [
            (info.thief, -info.thief_duration, -1),
            (info.victim, info.victim_duration, 1),
        ] {
            if let Some(w) = self.workers.get_mut(worker) {
                w.in_flight_occupancy += duration;
                w.in_flight_tasks += tasks;
            }
        }
        if last {
            // Rounding must not add up.
            for worker in self.workers.registered().to_vec() {
                self.workers[worker].in_flight_occupancy = 0.0;
            }
        }
        Some(info)
    }

    fn move_task_request(&mut self, id: TaskId, victim: WorkerId, thief: WorkerId) {
        if self.stealing.in_flight.contains_key(&id) {
            return;
        }
        let stimulus_id: StimulusId = format!("steal-{}", self.stealing.requests).into();
        self.stealing.requests += 1;
        self.remove_key_from_stealable(id);
        let compute = self.task_duration(id);
        let info = InFlight {
            victim,
            thief,
            victim_duration: compute + self.get_comm_cost(id, victim),
            thief_duration: compute + self.get_comm_cost(id, thief),
            stimulus_id: Arc::clone(&stimulus_id),
        };
        let key = self.tasks[id].key.clone();
        self.send(victim, |_| WorkerMsg::StealRequest { key, stimulus_id });
        for (worker, duration, tasks) in [
            (victim, -info.victim_duration, -1),
            (thief, info.thief_duration, 1),
        ] {
            let w = &mut self.workers[worker];
            w.in_flight_occupancy += duration;
            w.in_flight_tasks += tasks;
        }
        self.stealing.in_flight.insert(id, info);
    }

    /// The victim's answer.
    pub(crate) fn steal_response(
        &mut self,
        worker: WorkerId,
        key: &Key,
        state: Option<&str>,
        stimulus_id: &StimulusId,
    ) {
        let Some(id) = self.tasks.id(key) else {
            return;
        };
        // Workers before 2021.10 do not say which request they answer; they answer in order.
        let answers = |info: &InFlight| {
            info.victim == worker && (stimulus_id.is_empty() || info.stimulus_id == *stimulus_id)
        };
        match self.stealing.in_flight.get(&id) {
            Some(info) if answers(info) => {}
            other => {
                let outcome = match other {
                    Some(_) => "stale-response",
                    None => "already-aborted",
                };
                return self.log_answer(&[text(outcome)], key, state, &[worker], stimulus_id);
            }
        }
        let Some(info) = self.remove_from_in_flight(id) else {
            return;
        };
        let (victim, thief) = (info.victim, info.thief);
        if self.tasks[id].processing_on.get() != Some(victim) {
            return;
        }
        let thief_is_live = self.workers.is_live(thief);
        let (outcome, reschedule) = match Answer::of(state) {
            Answer::Given if thief_is_live => {
                self.enact_steal(id, victim, thief);
                (vec![text("confirm")], false)
            }
            Answer::Kept => (vec![text("already-computing")], false),
            Answer::Given | Answer::Unknown => {
                let gone = PlainValue::Bool(!thief_is_live);
                (vec![text("reschedule"), gone], true)
            }
        };
        self.log_answer(&outcome, key, state, &[victim, thief], stimulus_id);
        if reschedule {
            self.reschedule(None, key);
        }
        self.check_idle_saturated(thief, None);
        self.check_idle_saturated(victim, None);
    }

    fn enact_steal(&mut self, id: TaskId, victim: WorkerId, thief: WorkerId) {
        self.remove_key_from_stealable(id);
        self.worker_remove_from_processing(id, victim);
        self.use_resources(id, victim, -1.0);
        self.tasks[id].processing_on = Some(thief).into();
        self.worker_add_to_processing(id, thief);
        self.use_resources(id, thief, 1.0);
        self.put_key_in_stealable(id);
        self.send_task(id, thief);
    }

    /// Tells what became of a victim's answer, in stock's order: outcome, key, state at the victim,
    /// workers, request.
    fn log_answer(
        &mut self,
        outcome: &[PlainValue],
        key: &Key,
        state: Option<&str>,
        workers: &[WorkerId],
        stimulus_id: &StimulusId,
    ) {
        let mut row = outcome.to_vec();
        row.push(PlainValue::Key(key.clone()));
        row.push(state.map_or(PlainValue::None, text));
        row.extend(workers.iter().map(|&w| self.address_in_log(w)));
        row.push(PlainValue::Str(Arc::clone(stimulus_id)));
        self.log_steal(row);
    }

    fn address_in_log(&self, worker: WorkerId) -> PlainValue {
        let known = self.workers.get(worker);
        known.map_or_else(|| text(""), |w| PlainValue::Str(Arc::clone(w.address())))
    }

    fn log_steal(&mut self, row: Vec<PlainValue>) {
        self.out.push(Effect::LogEvent {
            topics: vec!["stealing".into()],
            event: LoggedEvent::Row(row),
        });
    }

    /// Asks busy workers to give tasks to idle ones.
    pub(crate) fn balance(&mut self) {
        let mut round = Round::new(self);
        if round.thieves.is_empty() || round.thieves.len() == self.workers.len() {
            return;
        }
        let Some(victims) = self.choose_victims(&round) else {
            return;
        };
        for level in 0..STEAL_LEVELS {
            for &victim in &victims {
                if round.thieves.is_empty() {
                    break;
                }
                let stealable: Vec<TaskId> = match self.workers[victim].stealable.get(level) {
                    Some(tasks) if !tasks.is_empty() => tasks.iter().collect(),
                    _ => continue,
                };
                for id in stealable {
                    if round.thieves.is_empty() {
                        break;
                    }
                    self.consider(&mut round, id, victim, level);
                }
                let occupancy = self.combined_occupancy(&round, victim);
                self.check_idle_saturated(victim, Some(occupancy));
            }
        }
        if !round.requests.is_empty() {
            self.stealing.count += 1;
            let requests = PlainValue::Row(round.requests);
            self.log_steal(vec![text("request"), requests]);
        }
    }

    /// The saturated workers, else the ten busiest that have more tasks than threads; busiest first.
    fn choose_victims(&self, round: &Round) -> Option<Vec<WorkerId>> {
        let by_occupancy = |victims: &mut Vec<WorkerId>| {
            victims.sort_by(|&a, &b| {
                let (a, b) = (
                    self.combined_occupancy(round, a),
                    self.combined_occupancy(round, b),
                );
                b.total_cmp(&a)
            });
        };
        let mut victims: Vec<WorkerId> = self.workers.saturated.iter().copied().collect();
        if victims.is_empty() {
            victims = self.workers.sorted().to_vec();
            by_occupancy(&mut victims);
            victims.truncate(10);
            victims.retain(|&w| {
                self.combined_occupancy(round, w) > 0.2
                    && self.combined_nprocessing(w) > i64::from(self.workers[w].nthreads())
                    && !round.thieves.contains(&w)
            });
        }
        if victims.len() < 20 {
            by_occupancy(&mut victims);
        }
        (!victims.is_empty()).then_some(victims)
    }

    fn combined_occupancy(&self, round: &Round, worker: WorkerId) -> f64 {
        let occupancy = round
            .occupancies
            .get(&worker.0)
            .copied()
            .unwrap_or_default();
        occupancy + self.workers[worker].in_flight_occupancy
    }

    fn combined_nprocessing(&self, worker: WorkerId) -> i64 {
        let w = &self.workers[worker];
        w.processing.len() as i64 + w.in_flight_tasks
    }

    /// Requests the task if a thief would be done with it sooner.
    fn consider(&mut self, round: &mut Round, id: TaskId, victim: WorkerId, level: usize) {
        let still_there = self.tasks.get(id).is_some_and(|t| {
            t.stealable_on.get().is_some() && t.processing_on.get() == Some(victim)
        });
        if !still_there {
            return;
        }
        let Some(thief) = self.choose_thief(round, id) else {
            return;
        };
        let compute = self.task_duration(id);
        let cost_thief = self.get_comm_cost(id, thief);
        let cost_victim = self.get_comm_cost(id, victim);
        let occupancy_thief = self.combined_occupancy(round, thief);
        let occupancy_victim = self.combined_occupancy(round, victim);
        let done_by_thief = occupancy_thief + cost_thief + compute;
        let left_to_victim = occupancy_victim - (cost_victim + compute) / 2.0;
        if done_by_thief > left_to_victim {
            return;
        }
        self.move_task_request(id, victim, thief);
        round.requests.push(PlainValue::Row(vec![
            PlainValue::Float(self.now.0),
            PlainValue::Int(level as i64),
            PlainValue::Key(self.tasks[id].key.clone()),
            PlainValue::Float(compute + cost_victim),
            self.address_in_log(victim),
            PlainValue::Float(occupancy_victim),
            self.address_in_log(thief),
            PlainValue::Float(occupancy_thief),
        ]));
        if let Some(n) = self.stealing.request_count_total.get_mut(level) {
            *n += 1;
        }
        if let Some(cost) = self.stealing.request_cost_total.get_mut(level) {
            *cost += compute + cost_victim;
        }
        let occupancy = self.combined_occupancy(round, thief);
        let processing = self.combined_nprocessing(thief);
        if !self.is_unoccupied(thief, occupancy, processing) {
            round.thieves.retain(|&w| w != thief);
        }
    }

    fn choose_thief(&self, round: &Round, id: TaskId) -> Option<WorkerId> {
        let mut thieves = round.thieves.clone();
        if let Some(valid) = self.valid_workers(id) {
            let release = self.tasks[id].release;
            let restricted: Vec<WorkerId> = thieves
                .iter()
                .copied()
                .filter(|w| valid.contains(w))
                .collect();
            if !restricted.is_empty() {
                thieves = restricted;
            } else if self.tasks[id].is_loose() {
                thieves.retain(|&w| self.workers[w].release.compatible(release));
            } else {
                return None;
            }
        }
        min_by_objective(thieves, |w| {
            let threads = f64::from(self.workers[w].nthreads());
            let start = self.combined_occupancy(round, w) / threads + self.get_comm_cost(id, w);
            (0, start, self.workers[w].nbytes)
        })
    }
}

/// What one round of balancing goes by.
struct Round {
    /// Occupancies at the beginning: they do not change during a round.
    occupancies: crate::sets::IdMap<u32, f64>,
    thieves: Vec<WorkerId>,
    /// What was asked for, for the log: (time, level, key, cost, victim and its occupancy, thief and
    /// its occupancy).
    requests: Vec<PlainValue>,
}

impl Round {
    fn new(scheduler: &Scheduler) -> Self {
        Self {
            occupancies: scheduler
                .workers
                .registered()
                .iter()
                .map(|&w| (w.0, scheduler.occupancy(w)))
                .collect(),
            thieves: scheduler.workers.idle().to_vec(),
            requests: Vec::new(),
        }
    }
}
