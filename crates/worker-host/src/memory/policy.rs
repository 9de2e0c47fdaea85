//! When to spill, when to stop, when to pause: rules over numbers, without clock or measurement.

/// Bytes at which something is to be done; none: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// `--memory-limit`.
    pub limit: Option<u64>,
    /// `target`: more managed data than this is spilled.
    pub target: Option<u64>,
    /// `spill`: a process that is larger spills until it is down at [`Self::target`] again.
    pub spill: Option<u64>,
    /// `pause`: a process that is larger begins no more tasks.
    pub pause: Option<u64>,
}

/// A worker's memory at a moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Of the process, as the system tells.
    pub process: u64,
    /// Of data that is not on disk.
    pub managed: u64,
}

impl Thresholds {
    /// From fractions of a limit. A fraction that is nothing switches off what it is for.
    pub fn of(limit: u64, target: Option<f64>, spill: Option<f64>, pause: Option<f64>) -> Self {
        let part = |fraction: Option<f64>| Some((limit as f64 * fraction?) as u64);
        Self {
            limit: Some(limit),
            target: part(target),
            spill: part(spill),
            pause: part(pause),
        }
    }

    /// Whether anything is ever written to disk.
    pub fn spills(&self) -> bool {
        self.target.is_some() || self.spill.is_some()
    }

    /// Whether the size of the process matters.
    pub fn watches_process(&self) -> bool {
        self.spill.is_some() || self.pause.is_some()
    }

    /// Most bytes that data in memory may take: what is larger than that alone goes straight to disk.
    pub fn most_managed(&self) -> u64 {
        self.target.unwrap_or(u64::MAX)
    }

    /// Whether the process is so large that the worker pauses.
    pub fn is_short(&self, process: u64) -> bool {
        self.pause.is_some_and(|pause| process > pause)
    }

    /// Whether the process is so large that spilling begins.
    pub fn is_large(&self, process: u64) -> bool {
        self.spill.is_some_and(|spill| process > spill)
    }

    /// Percent of the limit.
    pub fn percent(&self, process: u64) -> u64 {
        let limit = self.limit.unwrap_or(0).max(1);
        u64::try_from(u128::from(process) * 100 / u128::from(limit)).unwrap_or(u64::MAX)
    }
}

/// What comes next while data is spilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Enough.
    Done,
    /// Write the least recently used.
    Evict,
    /// Collect garbage first: more was written than had to go, and the process is as large as before.
    Collect,
}

/// Spilling from the moment it has to be until it is enough.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Bytes that the process has to shrink; none: only managed data is too large.
    need: Option<u64>,
    /// Bytes written.
    spilled: u64,
    collected: bool,
}

impl Round {
    /// The process is too large, which is found out regularly; the round goes on until it is small.
    pub fn process_is_large(&mut self, thresholds: &Thresholds, process: u64) {
        let goal = thresholds.target.or(thresholds.spill).unwrap_or(0);
        if self.need.is_none() {
            *self = Self {
                need: Some(process.saturating_sub(goal)),
                ..Self::default()
            };
        }
    }

    /// Bytes of this key are on disk now.
    pub fn has_spilled(&mut self, nbytes: u64) {
        self.spilled = self.spilled.saturating_add(nbytes);
        self.collected = false;
    }

    /// Garbage was collected.
    pub fn has_collected(&mut self) {
        self.collected = true;
    }

    /// Whether collecting garbage may help, when there is nothing more to write.
    pub fn may_collect(&self) -> bool {
        self.is_for_process() && !self.collected
    }

    /// Whether it is about the process, not only about managed data.
    pub fn is_for_process(&self) -> bool {
        self.need.is_some()
    }

    /// What to do at these sizes.
    pub fn step(&mut self, thresholds: &Thresholds, measured: Measured) -> Step {
        let goal = thresholds.target.or(thresholds.spill).unwrap_or(0);
        if let Some(need) = self.need {
            if measured.process > goal {
                return match self.spilled > need && !self.collected {
                    true => Step::Collect,
                    false => Step::Evict,
                };
            }
            self.need = None;
        }
        match thresholds.target {
            Some(target) if measured.managed > target => Step::Evict,
            _ => Step::Done,
        }
    }
}

/// Lets a message through once in a while.
#[derive(Clone, Copy, Debug)]
pub struct Seldom {
    every: f64,
    last: Option<f64>,
}

impl Seldom {
    /// At most once in so many seconds.
    pub fn new(every: f64) -> Self {
        Self { every, last: None }
    }

    /// Whether it is time; `now` in seconds.
    pub fn now(&mut self, now: f64) -> bool {
        let due = self.last.is_none_or(|last| now - last >= self.every);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Thresholds = Thresholds {
        limit: Some(100),
        target: Some(60),
        spill: Some(70),
        pause: Some(80),
    };

    fn at(process: u64, managed: u64) -> Measured {
        Measured { process, managed }
    }

    #[test]
    fn fractions_switch_off_what_they_are_for() {
        assert_eq!(Thresholds::of(100, Some(0.6), Some(0.7), Some(0.8)), T);
        let off = Thresholds::of(100, None, None, None);
        assert!(!off.spills() && !off.watches_process() && !off.is_short(1000));
        assert_eq!(off.most_managed(), u64::MAX);
        let only_pause = Thresholds::of(100, None, None, Some(0.8));
        assert!(only_pause.watches_process() && !only_pause.spills());
    }

    #[test]
    fn managed_data_is_spilled_down_to_the_target() {
        let mut round = Round::default();
        assert_eq!(round.step(&T, at(0, 61)), Step::Evict);
        round.has_spilled(1);
        assert_eq!(round.step(&T, at(0, 60)), Step::Done);
    }

    #[test]
    fn a_large_process_spills_until_it_is_at_the_target() {
        let mut round = Round::default();
        assert!(!T.is_large(70) && T.is_large(71));
        round.process_is_large(&T, 75);
        assert_eq!(round.step(&T, at(75, 30)), Step::Evict);
        round.has_spilled(10);
        assert_eq!(round.step(&T, at(65, 20)), Step::Evict);
        round.has_spilled(6);
        // More has left than was too much, and the process has not shrunk.
        assert_eq!(round.step(&T, at(65, 14)), Step::Collect);
        round.has_collected();
        assert_eq!(round.step(&T, at(65, 14)), Step::Evict);
        assert_eq!(round.step(&T, at(60, 14)), Step::Done);
        assert!(!round.is_for_process());
    }

    #[test]
    fn without_a_target_spilling_ends_where_it_began() {
        let only_spill = Thresholds { target: None, ..T };
        let mut round = Round::default();
        round.process_is_large(&only_spill, 75);
        assert_eq!(round.step(&only_spill, at(71, 30)), Step::Evict);
        assert_eq!(round.step(&only_spill, at(70, 30)), Step::Done);
        assert_eq!(Round::default().step(&only_spill, at(99, 99)), Step::Done);
    }

    #[test]
    fn pausing_and_percent() {
        assert!(!T.is_short(80) && T.is_short(81));
        assert_eq!(T.percent(81), 81);
        assert_eq!(Thresholds::default().percent(5), 500);
    }

    #[test]
    fn messages_are_seldom() {
        let mut seldom = Seldom::new(10.0);
        let due: Vec<bool> = [0.0, 1.0, 9.9, 10.0, 11.0].map(|t| seldom.now(t)).into();
        assert_eq!(due, [true, false, false, true, false]);
    }
}
