//! What the worker spent its time on since the last heartbeat (`digests_total_since_heartbeat`, releases
//! since 2023.4.0, and what the extension `spans` tells, since 2023.5.0).

use std::collections::HashMap;
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_wire::Value;
use parking_lot::Mutex;

use crate::recent::Recent;

/// Sums that are taken away with each heartbeat.
#[derive(Debug, Default)]
pub struct Digests(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    sums: Taken,
    /// Seconds of the last executions, which no heartbeat takes away.
    durations: Recent,
}

/// Sums since the last time.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    plain: HashMap<&'static str, f64>,
    activities: HashMap<[&'static str; 3], f64>,
    executed: HashMap<(Option<Arc<str>>, String), Spent>,
}

/// Seconds of executions with the same prefix.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    cpu: f64,
    other: f64,
    failed: f64,
}

impl Digests {
    /// A task ran for `wall` seconds, of which its thread was at work for `cpu`.
    pub fn executed(&self, span: Option<&Arc<str>>, key: &Key, wall: f64, cpu: f64, failed: bool) {
        let name = (span.cloned(), key.prefix());
        let mut inner = self.0.lock();
        inner.durations.push(wall);
        let spent = inner.sums.executed.entry(name).or_default();
        if failed {
            spent.failed += wall;
        } else {
            let cpu = cpu.clamp(0.0, wall);
            spent.cpu += cpu;
            spent.other += wall - cpu;
        }
    }

    /// One of the sums that have a name only, as `latency`.
    pub(crate) fn add(&self, name: &'static str, value: f64) {
        *self.0.lock().sums.plain.entry(name).or_default() += value;
    }

    /// Something that is no task: `("get-data", "network", "seconds")`.
    pub(crate) fn activity(&self, label: [&'static str; 3], value: f64) {
        if value > 0.0 {
            *self.0.lock().sums.activities.entry(label).or_default() += value;
        }
    }

    /// Median of the seconds of the last executions; NaN when there were none.
    pub(crate) fn median_duration(&self) -> f64 {
        self.0.lock().durations.median()
    }

    pub(crate) fn take(&self) -> Taken {
        std::mem::take(&mut self.0.lock().sums)
    }
}

impl Taken {
    /// For the metrics: without spans.
    pub(crate) fn squashed(&self) -> Value {
        let mut sums: HashMap<(&str, &'static str), f64> = HashMap::new();
        for ((_, prefix), spent) in &self.executed {
            for (activity, seconds) in spent.activities() {
                *sums.entry((prefix, activity)).or_default() += seconds;
            }
        }
        let executed = sums.into_iter().map(|((prefix, activity), seconds)| {
            let label = ["execute", prefix, activity, "seconds"];
            (Value::array(label), Value::from(seconds))
        });
        let plain = self.plain.iter();
        let plain = plain.map(|(name, value)| (Value::from(*name), Value::from(*value)));
        let activities = self.activities.iter();
        let activities = activities.map(|(label, value)| (Value::array(*label), (*value).into()));
        Value::Map(executed.chain(plain).chain(activities).collect())
    }

    /// For the extension `spans`.
    pub(crate) fn by_span(&self) -> Value {
        let executed = self.executed.iter().flat_map(|((span, prefix), spent)| {
            spent
                .activities()
                .into_iter()
                .map(move |(activity, seconds)| {
                    let label = [
                        Value::from("execute"),
                        span.as_deref().into(),
                        prefix.as_str().into(),
                        activity.into(),
                        "seconds".into(),
                    ];
                    (Value::Array(label.into()), Value::from(seconds))
                })
        });
        Value::Map(executed.collect())
    }
}

impl Spent {
    fn activities(&self) -> Vec<(&'static str, f64)> {
        let all = [
            ("thread-cpu", self.cpu),
            ("thread-noncpu", self.other),
            ("failed", self.failed),
        ];
        all.into_iter().filter(|(_, value)| *value > 0.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_by_prefix_and_by_span_and_taken_once() {
        let digests = Digests::default();
        let span: Arc<str> = "s".into();
        let key = |name: &str| Key::Str(name.into());
        digests.executed(Some(&span), &key("inc-1"), 3.0, 2.0, false);
        digests.executed(None, &key("inc-2"), 1.0, 5.0, false);
        digests.executed(None, &key("inc-2"), 4.0, 0.0, true);
        digests.add("latency", 0.5);
        digests.activity(["get-data", "network", "seconds"], 0.25);
        let taken = digests.take();
        let found = |map: &Value, label: Value| {
            let entries = map.as_map().unwrap_or_default();
            let entry = entries.iter().find(|(name, _)| *name == label);
            entry.and_then(|(_, value)| value.as_f64())
        };
        let label = |activity| Value::array(["execute", "inc", activity, "seconds"]);
        let squashed = taken.squashed();
        assert_eq!(found(&squashed, label("thread-cpu")), Some(3.0));
        assert_eq!(found(&squashed, label("thread-noncpu")), Some(1.0));
        assert_eq!(found(&squashed, label("failed")), Some(4.0));
        assert_eq!(found(&squashed, "latency".into()), Some(0.5));
        let network = Value::array(["get-data", "network", "seconds"]);
        assert_eq!(found(&squashed, network), Some(0.25));
        assert_eq!(taken.by_span().as_map().map(<[_]>::len), Some(4));
        assert_eq!(digests.take().squashed(), Value::Map(Vec::new()));
    }
}
