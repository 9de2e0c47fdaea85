//! A worker process with the real worker core: what the shell around it does, in the simulated network.
//!
//! What the scheduler's core sends is translated as the wire would carry it between the newest releases.
//! Whatever the core gets wrong and can be seen from here is told as [`Action::Broken`].

use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::{IndexMap, IndexSet};
use oxidask_key::Key;
use oxidask_scheduler_core::effect as order;
use oxidask_scheduler_core::effect::WorkerMsg;
use oxidask_scheduler_core::event::{Event as Told, StartStop, TaskErred, TaskFinished};
use oxidask_scheduler_core::ids::{RunId, WorkerId};
use oxidask_scheduler_core::opaque::Opaque as SchedulerOpaque;
use oxidask_scheduler_core::worker::WorkerStatus;
use oxidask_worker_core::config::WorkerConfig;
use oxidask_worker_core::effect::{Effect, SchedulerMsg};
use oxidask_worker_core::event::{ComputeTask, Datum, Event, GatherOutcome, Outcome, Replica};
use oxidask_worker_core::ids::{AttemptId, RequestId, RunId as WorkerRunId, Timestamp, TransferId};
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_core::status::WorkerStatus as CoreStatus;
use oxidask_worker_core::{Effects, Worker};

use super::graphs::{SimTask, value_of};
use super::process::{Action, Gathered, WorkerProcess};

type Map<K, V> = IndexMap<K, V, FixedState>;

struct Run {
    task: Arc<SimTask>,
    inputs: Vec<u64>,
    started: f64,
}

/// A worker around the real core.
pub struct CoreWorker {
    id: WorkerId,
    core: Worker,
    nthreads: usize,
    store: Map<Key, (u64, u64)>,
    runs: Map<u64, Run>,
    seceded: IndexSet<u64, FixedState>,
    /// Tasks that raised `Reschedule` here: each does it once.
    given_back: IndexSet<Key, FixedState>,
    served: Option<Gathered>,
    stimuli: u64,
    wake_at: Option<f64>,
    /// Whether the scheduler understands `missing-data`.
    tells_missing: bool,
}

impl CoreWorker {
    /// A worker with nothing to do. `seed` decides its tastes.
    pub fn new(id: WorkerId, address: Arc<str>, nthreads: usize, gpus: f64, seed: u64) -> Self {
        let config = WorkerConfig {
            address,
            nthreads: nthreads as u32,
            resources: vec![("GPU".into(), gpus)],
            // Small enough that transfers are refused and throttled now and then.
            incoming_count_limit: 3,
            outgoing_count_limit: 2,
            incoming_bytes_limit: Some(32 << 20),
            message_bytes_limit: 8 << 20,
            story_bytes: 64 << 10,
            validate: true,
            validate_all_up_to: if seed.is_multiple_of(4) {
                usize::MAX
            } else {
                0
            },
            seed,
            ..WorkerConfig::default()
        };
        Self {
            id,
            core: Worker::new(config),
            nthreads,
            store: Map::default(),
            runs: Map::default(),
            seceded: IndexSet::default(),
            given_back: IndexSet::default(),
            served: None,
            stimuli: 0,
            wake_at: None,
            tells_missing: seed.is_multiple_of(2),
        }
    }

    fn stimulus(&mut self, what: &str) -> Arc<str> {
        self.stimuli += 1;
        format!("{what}-{}-{}", self.id.0, self.stimuli).into()
    }

    fn event(&mut self, now: f64, event: Event) -> Vec<Action> {
        let mut effects = Effects::new();
        self.core.handle(Timestamp(now), event, &mut effects);
        self.after(now, effects)
    }

    fn after(&mut self, now: f64, effects: Effects) -> Vec<Action> {
        let mut out = Vec::new();
        for effect in effects {
            self.effect(now, effect, &mut out);
        }
        let violations = self.core.take_violations();
        out.extend(violations.into_iter().map(Action::Broken));
        let held: u64 = self.store.values().map(|(_, nbytes)| nbytes).sum();
        if held != self.core.nbytes() {
            out.push(Action::Broken("the store and the core differ".to_owned()));
        }
        let due = self.core.poll_timeout().map(|at| at.0.max(now));
        if due != self.wake_at {
            self.wake_at = due;
            out.extend(due.map(Action::WakeAt));
        }
        out
    }

    fn effect(&mut self, now: f64, effect: Effect, out: &mut Vec<Action>) {
        match effect {
            Effect::ToScheduler { msg, stimulus_id } => {
                out.extend(self.told(msg, stimulus_id).map(Action::Tell));
            }
            Effect::Execute { attempt, task, .. } => self.execute(now, attempt, *task, out),
            // A thread goes on.
            Effect::Abandon { .. } => {}
            Effect::Gather {
                transfer,
                worker,
                keys,
                nbytes,
                ..
            } => out.push(Action::Gather {
                transfer: transfer.0,
                holder: worker,
                keys,
                nbytes,
            }),
            // Its answer is of no consequence any more.
            Effect::AbortGather { .. } => {}
            Effect::Store {
                key, value, nbytes, ..
            } => match value.get::<u64>() {
                Some(&value) => {
                    self.store.insert(key, (value, nbytes));
                }
                None => out.push(Action::Broken(format!("{key} is stored without a value"))),
            },
            Effect::Drop { key } => {
                if self.store.swap_remove(&key).is_none() {
                    out.push(Action::Broken(format!("{key} is dropped and not there")));
                }
            }
            Effect::ServeData { keys, .. } => {
                let held = keys.into_iter().filter_map(|key| {
                    let &(value, nbytes) = self.store.get(&key)?;
                    Some((key, value, nbytes))
                });
                self.served = Some(Gathered::Answered(held.collect()));
            }
            Effect::RefuseData { .. } => self.served = Some(Gathered::Busy),
        }
    }

    fn execute(&mut self, now: f64, attempt: AttemptId, task: ComputeTask, out: &mut Vec<Action>) {
        let Some(spec) = task.run_spec.arc::<SimTask>() else {
            return;
        };
        let mut inputs = Vec::new();
        for key in &spec.dependencies {
            match self.store.get(key) {
                Some(&(value, _)) => inputs.push(value),
                None => out.push(Action::Broken(format!("{} runs without {key}", task.key))),
            }
        }
        let occupied = self.runs.len() - self.seceded.len();
        if occupied >= self.nthreads {
            out.push(Action::Broken(format!("{} has no thread", task.key)));
        }
        let duration = spec.duration;
        if value_of(&task.key, []).is_multiple_of(16) {
            out.push(Action::Secede {
                token: attempt.0,
                after: duration / 2.0,
            });
        }
        out.push(Action::Run {
            key: task.key,
            token: attempt.0,
            duration,
        });
        let started = now;
        self.runs.insert(
            attempt.0,
            Run {
                task: spec,
                inputs,
                started,
            },
        );
    }

    /// What the scheduler hears.
    fn told(&self, msg: SchedulerMsg, stimulus_id: Arc<str>) -> Option<Told> {
        let worker = self.id;
        let run = |run_id: Option<WorkerRunId>| run_id.map(|r| RunId(r.0));
        Some(match msg {
            SchedulerMsg::TaskFinished {
                key,
                run_id,
                nbytes,
                report,
            } => {
                let report = report.as_ref().and_then(|r| r.get::<StartStop>());
                self.finished(key, run(run_id), nbytes, report, stimulus_id)
            }
            SchedulerMsg::TaskErred { key, run_id, .. } => {
                self.erred(key, run(run_id), stimulus_id)
            }
            SchedulerMsg::ReleaseWorkerData { key } => Told::ReleaseWorkerData {
                worker,
                key,
                stimulus_id,
            },
            SchedulerMsg::AddKeys { keys } => Told::AddKeys {
                worker,
                keys,
                stimulus_id,
            },
            SchedulerMsg::MissingData { key, errant_worker } if self.tells_missing => {
                Told::MissingData {
                    worker,
                    key,
                    errant_worker,
                    stimulus_id,
                }
            }
            SchedulerMsg::MissingData { .. } => return None,
            SchedulerMsg::RequestRefreshWhoHas { keys } => Told::RequestRefreshWhoHas {
                worker,
                keys,
                stimulus_id,
            },
            SchedulerMsg::LongRunning {
                key,
                run_id,
                compute_duration,
            } => Told::LongRunning {
                worker,
                key,
                compute_duration,
                run_id: run(run_id),
                stimulus_id,
            },
            SchedulerMsg::Reschedule { key } => Told::Reschedule {
                worker: Some(worker),
                key,
                stimulus_id,
            },
            SchedulerMsg::StealResponse { key, state } => Told::StealResponse {
                worker,
                key,
                state: state.map(|s| s.as_str().into()),
                stimulus_id,
            },
            SchedulerMsg::StatusChanged { status } => Told::WorkerStatusChanged {
                worker,
                status: WorkerStatus::parse(status.as_str())?,
                stimulus_id,
            },
        })
    }
}

impl CoreWorker {
    fn finished(
        &self,
        key: Key,
        run_id: Option<RunId>,
        nbytes: u64,
        report: Option<&StartStop>,
        stimulus_id: Arc<str>,
    ) -> Told {
        Told::TaskFinished(Box::new(TaskFinished {
            worker: self.id,
            key,
            run_id,
            nbytes: Some(nbytes),
            type_: None,
            typename: "int".into(),
            startstops: report.cloned().into_iter().collect(),
            metadata: None,
            raw: None,
            stimulus_id,
        }))
    }

    fn erred(&self, key: Key, run_id: Option<RunId>, stimulus_id: Arc<str>) -> Told {
        Told::TaskErred(Box::new(TaskErred {
            worker: self.id,
            key,
            run_id,
            exception: SchedulerOpaque::new("boom"),
            traceback: None,
            exception_text: "ValueError('boom')".into(),
            traceback_text: "".into(),
            raw: None,
            stimulus_id,
        }))
    }
}

fn compute_task(task: order::ComputeTask) -> Option<ComputeTask> {
    let spec = task.run_spec.arc::<SimTask>()?;
    let sizes = task.nbytes;
    let inputs = task.who_has.into_iter().map(|(key, who_has)| Replica {
        nbytes: sizes.iter().find(|(k, _)| *k == key).map(|(_, n)| *n),
        key,
        who_has,
    });
    Some(ComputeTask {
        key: task.key,
        run_id: Some(WorkerRunId(task.run_id.0)),
        priority: task.priority,
        inputs: inputs.collect(),
        run_spec: Opaque::from_arc(spec),
        resource_restrictions: task
            .resource_restrictions
            .map_or_else(Vec::new, |r| r.to_vec()),
        actor: task.actor,
        executor: None,
        annotations: None,
        span_id: task.span_id,
        stimulus_id: task.stimulus_id,
    })
}

/// What the message means to the core; nothing if it is not for the core.
fn event_of(msg: WorkerMsg) -> Option<Event> {
    Some(match msg {
        WorkerMsg::ComputeTask(task) => Event::ComputeTask(Box::new(compute_task(*task)?)),
        WorkerMsg::FreeKeys { keys, stimulus_id } => Event::FreeKeys { keys, stimulus_id },
        WorkerMsg::RemoveReplicas { keys, stimulus_id } => {
            Event::RemoveReplicas { keys, stimulus_id }
        }
        WorkerMsg::AcquireReplicas {
            who_has,
            nbytes,
            stimulus_id,
        } => {
            let replicas = who_has.into_iter().map(|(key, who_has)| Replica {
                nbytes: nbytes.iter().find(|(k, _)| *k == key).map(|(_, n)| *n),
                key,
                who_has,
            });
            Event::AcquireReplicas {
                replicas: replicas.collect(),
                stimulus_id,
            }
        }
        WorkerMsg::RefreshWhoHas {
            who_has,
            stimulus_id,
        } => Event::RefreshWhoHas {
            who_has,
            stimulus_id,
        },
        WorkerMsg::StealRequest { key, stimulus_id } => Event::StealRequest { key, stimulus_id },
        WorkerMsg::StatusChange {
            status,
            stimulus_id,
        } => Event::SetStatus {
            status: CoreStatus::parse(status.as_str())?,
            stimulus_id,
        },
        WorkerMsg::RemoveWorker {
            worker,
            stimulus_id,
        } => Event::RemoveWorker {
            worker,
            stimulus_id,
        },
        WorkerMsg::Close { .. } => return None,
    })
}

impl WorkerProcess for CoreWorker {
    fn status(&self) -> WorkerStatus {
        WorkerStatus::parse(self.core.status().as_str()).unwrap_or_default()
    }

    fn set_status(&mut self, now: f64, status: WorkerStatus) -> Vec<Action> {
        let Some(status) = CoreStatus::parse(status.as_str()) else {
            return Vec::new();
        };
        let stimulus_id = self.stimulus("status");
        self.event(
            now,
            Event::SetStatus {
                status,
                stimulus_id,
            },
        )
    }

    fn on_message(&mut self, now: f64, msg: WorkerMsg) -> Vec<Action> {
        match event_of(msg) {
            Some(event) => self.event(now, event),
            None => vec![Action::Leave],
        }
    }

    fn on_done(&mut self, now: f64, key: &Key, token: u64) -> Vec<Action> {
        let Some(run) = self.runs.swap_remove(&token) else {
            return vec![Action::Broken(format!("{key} ends and did not run"))];
        };
        self.seceded.swap_remove(&token);
        let report = Opaque::new(StartStop {
            action: "compute".into(),
            start: run.started,
            stop: now,
        });
        let moody = value_of(key, []) % 32 == 1;
        let outcome = if moody && self.given_back.insert(key.clone()) {
            Outcome::Rescheduled
        } else if run.task.fails {
            Outcome::Failed { report }
        } else {
            Outcome::Finished {
                value: Opaque::new(value_of(key, run.inputs)),
                nbytes: run.task.nbytes,
                report,
            }
        };
        let stimulus_id = self.stimulus("executed");
        self.event(
            now,
            Event::Executed {
                attempt: AttemptId(token),
                outcome,
                stimulus_id,
            },
        )
    }

    fn on_secede(&mut self, now: f64, token: u64) -> Vec<Action> {
        if self.runs.contains_key(&token) {
            self.seceded.insert(token);
        }
        let stimulus_id = self.stimulus("secede");
        self.event(
            now,
            Event::Seceded {
                attempt: AttemptId(token),
                compute_duration: Some(0.01),
                stimulus_id,
            },
        )
    }

    fn on_gathered(&mut self, now: f64, transfer: u64, outcome: Gathered) -> Vec<Action> {
        let outcome = match outcome {
            Gathered::Answered(held) => GatherOutcome::Answered {
                data: held
                    .into_iter()
                    .map(|(key, value, nbytes)| Datum {
                        key,
                        value: Opaque::new(value),
                        nbytes,
                    })
                    .collect(),
                failed: Vec::new(),
            },
            Gathered::Busy => GatherOutcome::Busy,
            Gathered::Unreachable => GatherOutcome::Unreachable,
        };
        let stimulus_id = self.stimulus("gathered");
        self.event(
            now,
            Event::Gathered {
                transfer: TransferId(transfer),
                outcome,
                stimulus_id,
            },
        )
    }

    fn on_time(&mut self, now: f64) -> Vec<Action> {
        // Woken for what was settled otherwise in the meantime.
        if self.wake_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.wake_at = None;
        let mut effects = Effects::new();
        self.core.handle_timeout(Timestamp(now), &mut effects);
        self.after(now, effects)
    }

    fn on_get_data(&mut self, now: f64, request: u64, who: &str, keys: &[Key]) -> Gathered {
        let event = Event::GetData {
            request: RequestId(request),
            who: Some(who.into()),
            keys: keys.to_vec(),
            unlimited: false,
        };
        self.event(now, event);
        self.served.take().unwrap_or(Gathered::Unreachable)
    }

    fn on_sent(&mut self, now: f64, request: u64) {
        let request = RequestId(request);
        self.event(now, Event::DataSent { request });
    }

    fn value(&self, key: &Key) -> Option<u64> {
        self.store.get(key).map(|&(value, _)| value)
    }

    fn backlog(&self) -> usize {
        self.core.tasks_len().saturating_sub(self.store.len())
    }

    fn knows(&self, key: &Key) -> bool {
        let state = self.core.task(key).map(|t| t.state());
        state.is_some_and(|s| s.is_pending() || s.is_running())
    }

    fn is_empty(&self) -> bool {
        self.core.tasks_len() == 0 && self.store.is_empty()
    }

    fn shown(&self) -> String {
        let tasks = self.core.tasks().take(5).map(|t| (t.key(), t.state()));
        format!("{:?}", tasks.collect::<Vec<_>>())
    }

    fn some_result(&self) -> Option<Key> {
        self.store.keys().next().cloned()
    }

    fn some_key(&self) -> Option<(Key, RunId)> {
        let mut tasks = self.core.tasks();
        tasks.find_map(|t| Some((t.key().clone(), RunId(t.run_id()?.0))))
    }

    fn executing(&self) -> Vec<Key> {
        let wanted = self.core.attempts().filter(|a| a.wanted);
        wanted.map(|a| a.key.clone()).collect()
    }
}
