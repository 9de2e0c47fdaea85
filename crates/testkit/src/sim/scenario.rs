//! What a simulation does, by seed.

use oxidask_scheduler_core::config::CoreConfig;

use super::faults::Faults;
use crate::rng::Rng;

/// Which brain the workers have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkerKind {
    /// The simple one of `worker.rs`: stands for stock's.
    #[default]
    Simulated,
    /// The real worker core.
    Core,
    /// Half of the workers have the real core.
    Mixed,
}

impl WorkerKind {
    /// Reads `simulated`, `core` or `mixed`.
    pub fn parse(s: &str) -> Option<Self> {
        Some(match s {
            "simulated" => Self::Simulated,
            "core" => Self::Core,
            "mixed" => Self::Mixed,
            _ => return None,
        })
    }

    pub(super) fn is_core(self, number: u32) -> bool {
        match self {
            Self::Simulated => false,
            Self::Core => true,
            // Not every second: those have the GPUs.
            Self::Mixed => number % 4 < 2,
        }
    }
}

/// What a simulation does.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Names the run.
    pub seed: u64,
    /// Workers at the start; as many are kept up.
    pub workers: usize,
    /// Threads of each.
    pub nthreads: usize,
    /// Which brain the workers have.
    pub worker: WorkerKind,
    /// Clients, each submitting its graphs.
    pub clients: usize,
    /// Graphs per client.
    pub graphs: usize,
    /// Tasks per graph, about.
    pub tasks: usize,
    /// Share of tasks that raise.
    pub failing: f64,
    /// What goes wrong during the first `turmoil` seconds.
    pub faults: Faults,
    /// Seconds with faults.
    pub turmoil: f64,
    /// Seconds, one way.
    pub latency: f64,
    /// Virtual seconds after which a run that is not done counts as stuck.
    pub patience: f64,
    /// All of the state is checked after every so many events; what an event touched, always.
    pub validate_every: u64,
    /// Settings of the core.
    pub config: CoreConfig,
}

impl Scenario {
    /// The scenario of a seed in a mixed run: mostly small clusters, every eighth one of at least 200
    /// workers; in every fourth peers break their word.
    pub fn mixed(seed: u64) -> Self {
        let base = match seed % 8 {
            7 => Self::large(seed),
            _ => Self::turbulent(seed),
        };
        match seed % 4 {
            1 => base.treacherous(),
            _ => base,
        }
    }

    /// A small cluster in which a lot goes wrong.
    pub fn turbulent(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            seed,
            workers: 3 + rng.below(8),
            nthreads: 1 + rng.below(3),
            worker: WorkerKind::default(),
            clients: 1 + rng.below(2),
            graphs: 1 + rng.below(3),
            tasks: 30 + rng.below(120),
            failing: if rng.chance(0.3) { 0.02 } else { 0.0 },
            faults: Faults::all(rng.range(0.2, 3.0)),
            turmoil: rng.range(1.0, 8.0),
            latency: 0.002,
            patience: 200.0,
            validate_every: if rng.chance(0.1) { 1 } else { 8 },
            config: CoreConfig {
                // Kills are frequent here on purpose; `KilledWorker` has tests of its own.
                allowed_failures: 10_000,
                worker_saturation: if rng.chance(0.3) { f64::INFINITY } else { 1.1 },
                work_stealing: rng.chance(0.8),
                work_stealing_interval: 0.1,
                worker_ttl: Some(5.0),
                amm_start: rng.chance(0.7),
                amm_interval: 0.5,
                validate: true,
                validate_all_up_to: 0,
                // It would hide what goes wrong among peers that keep their word.
                watchdog_patience: None,
                seed,
                ..CoreConfig::default()
            },
        }
    }

    /// At least 200 workers, and faults in proportion.
    pub fn large(seed: u64) -> Self {
        let base = Self::turbulent(seed);
        let mut rng = Rng::new(seed ^ 0x1a96e);
        Self {
            workers: 200 + rng.below(100),
            nthreads: 1 + rng.below(2),
            clients: 1 + rng.below(2),
            graphs: 1,
            tasks: 300 + rng.below(400),
            faults: Faults::all(rng.range(2.0, 20.0)),
            turmoil: rng.range(1.0, 4.0),
            validate_every: 64,
            ..base
        }
    }

    /// The same with workers of that kind.
    pub fn with_workers(self, worker: WorkerKind) -> Self {
        Self { worker, ..self }
    }

    /// The same with peers that lose orders and claim what they do not have.
    pub fn treacherous(mut self) -> Self {
        self.faults = self.faults.with_treachery(1.0);
        self.config.watchdog_patience = Some(2.0);
        self
    }

    /// Whether peers break their word: then the scheduler's books may differ from what workers hold.
    pub fn is_treacherous(&self) -> bool {
        self.faults.false_claims > 0.0 || self.faults.losses > 0.0
    }
}
