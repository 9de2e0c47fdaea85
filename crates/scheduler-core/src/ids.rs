//! Identities inside the core. Text (keys, addresses, names) is turned into ids at the border.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A task, an index into the core's slab. Reused after the task is forgotten; never leaves the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub(crate) u32);

/// A registered worker. Chosen by the shell, counting up, never reused in the life of a scheduler:
/// a worker that comes back under the same address is another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

/// A client or pseudo client (`queue-<name>`, `published-<name>`, `fire-and-forget`). Chosen by the
/// shell, counting up, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientId(pub u32);

/// One assignment of a task to a worker (`run_id` on the wire since 2023.1.1). Results that carry
/// another run id than the task's current one are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId(pub i64);

/// Seconds since the Unix epoch on a clock that never runs backwards. The core has no clock; every
/// entry point is told the time.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
pub struct Timestamp(pub f64);

impl Timestamp {
    /// Seconds from `earlier` to `self`; negative if `earlier` is later.
    pub fn since(self, earlier: Self) -> f64 {
        self.0 - earlier.0
    }

    /// A name for something that happens now: `prefix-<seconds>`, as stock's stimulus ids look. Digits
    /// are written by hand, since every task is sent with one and printing a float exactly is slow.
    #[must_use]
    pub fn name(self, prefix: &str) -> Arc<str> {
        // The cast saturates; NaN becomes 0.
        let micros = (self.0 * 1e6) as u64;
        let (mut whole, mut rest) = (micros / 1_000_000, micros % 1_000_000);
        let mut digits = [b'.'; 21];
        let (left, right) = digits.split_at_mut(14);
        for digit in right.iter_mut().skip(1).rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let mut begin = left.len();
        for (index, digit) in left.iter_mut().enumerate().rev() {
            *digit = b'0' + (whole % 10) as u8;
            whole /= 10;
            begin = index;
            if whole == 0 {
                break;
            }
        }
        let digits = std::str::from_utf8(digits.get(begin..).unwrap_or_default());
        let mut name = String::with_capacity(prefix.len() + 22);
        name.push_str(prefix);
        name.push('-');
        // Digits are text.
        name.push_str(digits.unwrap_or_default());
        name.into()
    }

    /// The moment `seconds` later.
    pub fn after(self, seconds: f64) -> Self {
        Self(self.0 + seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_time_to_the_microsecond() {
        for (seconds, name) in [
            (0.0, "x-0.000000"),
            (1.25, "x-1.250000"),
            (1_795_248_690.000_001, "x-1795248690.000001"),
            (-1.0, "x-0.000000"),
            (f64::NAN, "x-0.000000"),
            (f64::INFINITY, "x-18446744073709.551615"),
        ] {
            assert_eq!(&*Timestamp(seconds).name("x"), name);
        }
    }
}
