//! What goes wrong, and when.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::event::{Event, TaskFinished};
use oxidask_scheduler_core::ids::{ClientId, RunId, WorkerId};
use oxidask_scheduler_core::worker::{WorkerInfo, WorkerStatus};

use super::core_worker::CoreWorker;
use super::faults::FaultKind;
use super::network::Peer;
use super::process::WorkerProcess;
use super::worker::SimWorker;
use super::{Occurrence, START, Sim};

impl Sim {
    pub(super) fn plan_faults(&mut self) {
        for (rate, kind) in self.scenario.faults.rates() {
            let expected = rate * self.scenario.turmoil;
            let mut count = expected.floor() as usize;
            if self.rng.chance(expected.fract()) {
                count += 1;
            }
            for _ in 0..count {
                let at = START + self.rng.range(0.1, 0.1 + self.scenario.turmoil);
                self.schedule(at, Occurrence::Fault(kind));
            }
        }
    }

    /// Afterwards there is a worker of every kind, so that all tasks can run.
    pub(super) fn plan_peace(&mut self) {
        for _ in 0..2 {
            let at = START + self.scenario.turmoil + 0.2;
            self.schedule(at, Occurrence::Fault(FaultKind::Arrive));
        }
    }

    pub(super) fn fault(&mut self, kind: FaultKind) -> Result<(), String> {
        let ids: Vec<u32> = self.workers.keys().copied().collect();
        let chosen = self.rng.pick(&ids).copied();
        match (kind, chosen) {
            (FaultKind::Arrive, _) => return self.arrive(),
            (FaultKind::Cancel, _) => self.cancel(),
            (FaultKind::Depart, _) => {
                let ids: Vec<u32> = self.clients.keys().copied().collect();
                if ids.len() > 1
                    && let Some(id) = self.rng.pick(&ids).copied()
                {
                    self.depart(id);
                }
            }
            (FaultKind::Kill, Some(id)) => {
                self.report.kills += 1;
                self.workers.remove(&id);
                self.connection_breaks(WorkerId(id));
            }
            (FaultKind::PowerCut, Some(id)) => {
                self.report.kills += 1;
                self.workers.remove(&id);
                self.keep_up_workers();
            }
            (FaultKind::Partition, Some(id)) => {
                let until = self.now + self.rng.range(0.1, 2.0);
                self.network.partition(Peer::Worker(id), until);
            }
            (FaultKind::LongPartition, Some(id)) => {
                let until = self.now + self.rng.range(5.0, 40.0);
                self.network.partition(Peer::Worker(id), until);
            }
            (FaultKind::SlowLink, Some(id)) => self.network.slow_down(Peer::Worker(id), 10.0),
            (FaultKind::Pause, Some(id)) => self.pause(WorkerId(id)),
            (FaultKind::Retire, Some(id)) => return self.retire(WorkerId(id)),
            (FaultKind::Lie, Some(id)) => self.lie(WorkerId(id)),
            (FaultKind::FalseClaim, Some(id)) => self.claim(WorkerId(id)),
            (_, None) => {}
        }
        Ok(())
    }

    pub(super) fn arrive(&mut self) -> Result<(), String> {
        self.next_worker += 1;
        let number = self.next_worker;
        let id = WorkerId(number);
        let host = format!("10.0.0.{}", number % 16);
        let address: Arc<str> = format!("tcp://{host}:{}", 10_000 + number).into();
        let nthreads = self.scenario.nthreads;
        let info = WorkerInfo {
            address: address.clone(),
            host: host.into(),
            name: format!("worker-{number}").into(),
            nthreads: nthreads as u32,
            memory_limit: 4 << 30,
            status: WorkerStatus::Running,
            resources: vec![(
                "GPU".into(),
                if number.is_multiple_of(2) { 1.0 } else { 0.0 },
            )],
            nanny: number
                .is_multiple_of(3)
                .then(|| format!("tcp://nanny:{number}").into()),
            ..WorkerInfo::default()
        };
        let worker: Box<dyn WorkerProcess> = if self.scenario.worker.is_core(number) {
            let gpus = if number.is_multiple_of(2) { 1.0 } else { 0.0 };
            let seed = self.scenario.seed ^ u64::from(number);
            let address = address.clone();
            Box::new(CoreWorker::new(id, address, nthreads, gpus, seed))
        } else {
            Box::new(SimWorker::new(id, address.clone(), nthreads))
        };
        self.workers.insert(number, worker);
        self.by_address.insert(address.clone(), number);
        self.registered.insert(number, address);
        self.schedule(self.now + 0.5, Occurrence::Heartbeat(id));
        self.core_event(Event::AddWorker {
            worker: id,
            info: Box::new(info),
            stimulus_id: "add-worker".into(),
        })
    }

    fn pause(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id.0) else {
            return;
        };
        if worker.status() == WorkerStatus::Running {
            let actions = worker.set_status(self.now, WorkerStatus::Paused);
            self.act(id, actions);
            let until = self.now + self.rng.range(0.1, 1.0);
            self.schedule(until, Occurrence::Unpause(id));
        }
    }

    fn retire(&mut self, worker: WorkerId) -> Result<(), String> {
        self.schedule(self.now + 0.02, Occurrence::Retirement(worker));
        self.core_event(Event::RetireWorker {
            worker,
            stimulus_id: "retire".into(),
        })
    }

    fn lie(&mut self, worker: WorkerId) {
        let known = self.workers.get(&worker.0).and_then(|w| w.some_key());
        let (key, run_id) = match known {
            Some((key, RunId(run))) if self.rng.chance(0.5) => (key, RunId(run - 1)),
            _ => (Key::from("never-heard-of"), RunId(-5)),
        };
        let stimulus_id: Arc<str> = "lie".into();
        let unknown = Key::from("never-heard-of");
        let event = match self.rng.below(6) {
            0 => Event::AddKeys {
                worker,
                keys: vec![unknown],
                stimulus_id,
            },
            1 => Event::ReleaseWorkerData {
                worker,
                key: unknown,
                stimulus_id,
            },
            2 => Event::StealResponse {
                worker,
                key,
                state: Some("ready".into()),
                stimulus_id,
            },
            3 => Event::LongRunning {
                worker,
                key: unknown,
                compute_duration: Some(-1.0),
                run_id: Some(run_id),
                stimulus_id,
            },
            4 => Event::RequestRefreshWhoHas {
                worker,
                keys: vec![unknown, key],
                stimulus_id,
            },
            _ => Event::TaskFinished(Box::new(TaskFinished {
                worker,
                key,
                run_id: Some(run_id),
                nbytes: Some(u64::MAX),
                type_: None,
                typename: "lie".into(),
                startstops: Vec::new(),
                metadata: None,
                raw: None,
                stimulus_id,
            })),
        };
        self.tell(worker, event);
    }

    /// The worker says it holds what another one holds.
    fn claim(&mut self, worker: WorkerId) {
        let results: Vec<Key> = self
            .workers
            .values()
            .filter_map(|w| w.some_result())
            .collect();
        if let Some(key) = self.rng.pick(&results).cloned() {
            let event = Event::AddKeys {
                worker,
                keys: vec![key],
                stimulus_id: "false-claim".into(),
            };
            self.tell(worker, event);
        }
    }

    /// A client goes away, whatever it waits for.
    pub(super) fn depart(&mut self, number: u32) {
        if self.clients.remove(&number).is_some() {
            let client = ClientId(number);
            self.send_as_client(
                client,
                Event::RemoveClient {
                    client,
                    stimulus_id: "remove-client".into(),
                },
            );
        }
    }

    fn cancel(&mut self) {
        let ids: Vec<u32> = self.clients.keys().copied().collect();
        let Some(id) = self.rng.pick(&ids).copied() else {
            return;
        };
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let held: Vec<Key> = client.futures.values().map(|(k, _)| k.clone()).collect();
        let Some(key) = self.rng.pick(&held).cloned() else {
            return;
        };
        let client_id = client.id;
        let stimulus_id: Arc<str> = "client".into();
        let event = if self.rng.chance(0.5) {
            client.forget(&key);
            Event::ClientReleasesKeys {
                client: client_id,
                keys: vec![key],
                stimulus_id,
            }
        } else {
            Event::CancelKeys {
                client: client_id,
                keys: vec![key],
                force: self.rng.chance(0.3),
                reason: None,
                msg: None,
                stimulus_id,
            }
        };
        self.send_as_client(client_id, event);
    }
}
