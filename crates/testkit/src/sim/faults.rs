//! What goes wrong in a simulation, and how often.

/// How hostile a run is. All rates are events per virtual second over the whole cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Workers that die without a word (the connection breaks).
    pub kills: f64,
    /// Workers whose machine loses power: not even the connection breaks, only their silence tells.
    pub power_cuts: f64,
    /// Workers that appear.
    pub arrivals: f64,
    /// Links that deliver nothing for up to two seconds.
    pub partitions: f64,
    /// Links that deliver nothing for longer than a worker's time-to-live.
    pub long_partitions: f64,
    /// Links that become ten times slower.
    pub slow_links: f64,
    /// Workers that pause for up to a second.
    pub pauses: f64,
    /// Workers retired with their data moved first.
    pub retirements: f64,
    /// Messages of workers about unknown keys, stale runs and cancelled tasks.
    pub lies: f64,
    /// Claims of workers to hold data that they do not hold.
    pub false_claims: f64,
    /// Probability that a worker's message is delivered a second time, later.
    pub duplicates: f64,
    /// Probability that an order to run a task, or the news of its end, is lost.
    pub losses: f64,
    /// Clients that cancel or release some of their futures.
    pub cancels: f64,
    /// Clients that leave with work under way.
    pub departures: f64,
}

impl Faults {
    /// Everything that peers do who keep their word, scaled so that a run of some ten virtual seconds
    /// sees several of each.
    pub fn all(intensity: f64) -> Self {
        Self {
            kills: 0.5 * intensity,
            power_cuts: 0.1 * intensity,
            arrivals: 0.5 * intensity,
            partitions: 0.5 * intensity,
            long_partitions: 0.05 * intensity,
            slow_links: 0.3 * intensity,
            pauses: 0.5 * intensity,
            retirements: 0.2 * intensity,
            lies: 3.0 * intensity,
            false_claims: 0.0,
            duplicates: 0.01 * intensity,
            losses: 0.0,
            cancels: 0.3 * intensity,
            departures: 0.05 * intensity,
        }
    }

    /// What no honest peer on a stream does: only the watchdog gets such a run to its end.
    pub fn with_treachery(self, intensity: f64) -> Self {
        Self {
            false_claims: 0.5 * intensity,
            losses: 0.01 * intensity,
            ..self
        }
    }

    /// Pairs of a rate and the fault it stands for.
    pub(super) fn rates(&self) -> [(f64, FaultKind); 12] {
        [
            (self.kills, FaultKind::Kill),
            (self.power_cuts, FaultKind::PowerCut),
            (self.arrivals, FaultKind::Arrive),
            (self.partitions, FaultKind::Partition),
            (self.long_partitions, FaultKind::LongPartition),
            (self.slow_links, FaultKind::SlowLink),
            (self.pauses, FaultKind::Pause),
            (self.retirements, FaultKind::Retire),
            (self.lies, FaultKind::Lie),
            (self.false_claims, FaultKind::FalseClaim),
            (self.cancels, FaultKind::Cancel),
            (self.departures, FaultKind::Depart),
        ]
    }
}

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    Kill,
    PowerCut,
    Arrive,
    Partition,
    LongPartition,
    SlowLink,
    Pause,
    Retire,
    Lie,
    FalseClaim,
    Cancel,
    Depart,
}
