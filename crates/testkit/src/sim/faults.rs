//! What goes wrong in a simulation, and how often.

/// How hostile a run is. All rates are events per virtual second over the whole cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Workers that die without a word (the connection breaks).
    pub kills: f64,
    /// Workers that appear.
    pub arrivals: f64,
    /// Links that deliver nothing for up to two seconds.
    pub partitions: f64,
    /// Links that become ten times slower.
    pub slow_links: f64,
    /// Workers that pause for up to a second.
    pub pauses: f64,
    /// Workers retired with their data moved first.
    pub retirements: f64,
    /// Messages of workers about unknown keys, stale runs and cancelled tasks.
    pub lies: f64,
    /// Probability that a worker's message is delivered a second time, later.
    pub duplicates: f64,
    /// Clients that cancel or release some of their futures.
    pub cancels: f64,
}

impl Faults {
    /// Everything at once, scaled so that a run of some ten virtual seconds sees several of each.
    pub fn all(intensity: f64) -> Self {
        Self {
            kills: 0.5 * intensity,
            arrivals: 0.5 * intensity,
            partitions: 0.5 * intensity,
            slow_links: 0.3 * intensity,
            pauses: 0.5 * intensity,
            // Not yet: the shell's half of a retirement (closing the worker at its end) is not simulated.
            retirements: 0.0,
            lies: 3.0 * intensity,
            duplicates: 0.01 * intensity,
            cancels: 0.3 * intensity,
        }
    }

    /// Pairs of a rate and the fault it stands for.
    pub(super) fn rates(&self) -> [(f64, FaultKind); 8] {
        [
            (self.kills, FaultKind::Kill),
            (self.arrivals, FaultKind::Arrive),
            (self.partitions, FaultKind::Partition),
            (self.slow_links, FaultKind::SlowLink),
            (self.pauses, FaultKind::Pause),
            (self.retirements, FaultKind::Retire),
            (self.lies, FaultKind::Lie),
            (self.cancels, FaultKind::Cancel),
        ]
    }
}

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    Kill,
    Arrive,
    Partition,
    SlowLink,
    Pause,
    Retire,
    Lie,
    Cancel,
}
