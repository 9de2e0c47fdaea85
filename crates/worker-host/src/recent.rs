//! The last so many of some measurements, for their median.

use std::collections::VecDeque;

/// How many: a minute of ticks, and enough of everything else.
const LENGTH: usize = 128;

/// Bounded; the oldest go first.
#[derive(Debug, Default)]
pub(crate) struct Recent(VecDeque<f64>);

impl Recent {
    pub(crate) fn push(&mut self, value: f64) {
        if self.0.len() == LENGTH {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// NaN of nothing, as stock's digests say.
    pub(crate) fn median(&self) -> f64 {
        median(self.0.iter().copied())
    }
}

/// The value in the middle; NaN of nothing.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    let middle = values.len() / 2;
    if values.is_empty() {
        return f64::NAN;
    }
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_last_values() {
        let mut recent = Recent::default();
        assert!(recent.median().is_nan());
        for value in 0..1000 {
            recent.push(f64::from(value));
        }
        assert_eq!(recent.median(), 936.0);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
    }
}
