//! How workers of each release ask about shuffles and want to be answered. What the answers mean is
//! not said here.

use std::sync::Arc;

use oxidask_wire::payload::Payload;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::spec::{Partition, PickledSpec};
use super::state::ConsistencyError;
use crate::rpc::RpcError;

/// The way a worker's release speaks of shuffles; a later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// 2022.05.1 to 2022.12.0: `shuffle_get` sets up; nobody can be told that a shuffle is over, so it
    /// cannot be run again while workers remember it.
    OneRun,
    /// 2022.12.1 to 2023.1.0: `shuffle-fail` ends a shuffle on a worker.
    Ending,
    /// 2023.1.1 to 2023.2.0: runs have ids.
    Runs,
    /// 2023.2.1 to 2023.4.1: `shuffle_get_or_create` sets up, for arrays too.
    Arrays,
    /// 2023.5.0 to 2023.8.0: outputs that came to the wrong worker ask to be restricted.
    Restricting,
    /// 2023.8.1 to 2024.5.2: specs are pickled objects, in requests and answers.
    Pickled,
    /// Since 2024.6.0: answers have a status, errors are `P2PConsistencyError`. (Since 2024.11.0 the
    /// spec is in the barrier task and no more in the request.)
    Checked,
}

impl Protocol {
    /// What workers of this release speak.
    pub(crate) fn of(release: Release) -> Self {
        let since = [
            (Release::new(2024, 6, 0), Self::Checked),
            (Release::new(2023, 8, 1), Self::Pickled),
            (Release::new(2023, 5, 0), Self::Restricting),
            (Release::new(2023, 2, 1), Self::Arrays),
            (Release::new(2023, 1, 1), Self::Runs),
            (Release::new(2022, 12, 1), Self::Ending),
        ];
        let found = since.into_iter().find(|(first, _)| release >= *first);
        found.map_or(Self::OneRun, |(_, protocol)| protocol)
    }

    /// Outputs have to be bound to their workers before they start: they cannot ask for it.
    pub(crate) fn restricts_at_once(self) -> bool {
        self < Self::Restricting
    }

    /// The message to a worker that a run is over; nothing if it has no such message.
    pub(crate) fn over(self, id: &str, run_id: i64, message: &str) -> Option<Value> {
        let mut over = Value::map([
            ("op", Value::from("shuffle-fail")),
            ("shuffle_id", id.into()),
            ("message", message.into()),
        ]);
        match self {
            Self::OneRun => return None,
            Self::Ending => {}
            _ => over.insert("run_id", run_id),
        }
        Some(over)
    }

    /// How a worker is told that its request fits no run.
    pub(crate) fn refusal(self, error: &ConsistencyError) -> RpcError {
        match error {
            error if self == Self::Checked => RpcError::p2p_consistency(error.to_string()),
            ConsistencyError::Inactive(id) => RpcError::key_error(id.as_str()),
            error => RpcError::runtime_error(error.to_string()),
        }
    }

    /// The answer to whoever takes part in a run.
    pub(crate) fn answer(self, form: &AnswerForm, run: &RunFigures<'_>) -> Value {
        match form {
            AnswerForm::Fields(echo) => {
                let mut answer = Value::map([
                    ("status", Value::from("OK")),
                    ("run_id", run.run_id.into()),
                    ("worker_for", worker_for(run.assigned)),
                    ("output_workers", output_workers(run.assigned)),
                ]);
                for (name, value) in echo {
                    answer.insert(name, value.clone());
                }
                answer
            }
            AnswerForm::Object(spec) => {
                let (pickle, buffers) = spec.run_spec(run.run_id, run.span_id, run.assigned);
                let run_spec = Value::Payload(Arc::new(Payload::pickled(pickle, buffers)));
                match self {
                    Self::Checked => Value::map([("status", "OK".into()), ("run_spec", run_spec)]),
                    _ => run_spec,
                }
            }
        }
    }
}

/// What an answer is made of besides the run itself.
#[derive(Clone, Debug)]
pub(crate) enum AnswerForm {
    /// Fields of the request that come back (up to 2023.8.0).
    Fields(Vec<(&'static str, Value)>),
    /// An object of class `ShuffleRunSpec` (since 2023.8.1).
    Object(PickledSpec),
}

/// A run, as answers describe it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunFigures<'a> {
    /// Its number.
    pub(crate) run_id: i64,
    /// The span of its tasks.
    pub(crate) span_id: Option<&'a str>,
    /// The worker of each output.
    pub(crate) assigned: &'a [(Partition, Arc<str>)],
}

fn worker_for(assigned: &[(Partition, Arc<str>)]) -> Value {
    let entry = |(partition, worker): &(Partition, Arc<str>)| {
        let partition = match partition {
            Partition::Number(part) => Value::Int(*part),
            Partition::Position(position) => Value::array(position.iter().copied()),
        };
        (partition, Value::from(worker))
    };
    Value::Map(assigned.iter().map(entry).collect())
}

fn output_workers(assigned: &[(Partition, Arc<str>)]) -> Value {
    let workers: std::collections::BTreeSet<&Arc<str>> =
        assigned.iter().map(|(_, worker)| worker).collect();
    Value::set(workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_has_its_protocol() {
        let table = [
            ((2022, 5, 1), Protocol::OneRun),
            ((2022, 12, 0), Protocol::OneRun),
            ((2022, 12, 1), Protocol::Ending),
            ((2023, 1, 0), Protocol::Ending),
            ((2023, 1, 1), Protocol::Runs),
            ((2023, 2, 0), Protocol::Runs),
            ((2023, 2, 1), Protocol::Arrays),
            ((2023, 4, 1), Protocol::Arrays),
            ((2023, 5, 0), Protocol::Restricting),
            ((2023, 8, 0), Protocol::Restricting),
            ((2023, 8, 1), Protocol::Pickled),
            ((2024, 5, 2), Protocol::Pickled),
            ((2024, 6, 0), Protocol::Checked),
            ((2026, 8, 0), Protocol::Checked),
        ];
        for ((major, minor, patch), protocol) in table {
            let release = Release::new(major, minor, patch);
            assert_eq!(Protocol::of(release), protocol, "{major}.{minor}.{patch}");
        }
    }

    #[test]
    fn the_end_is_told_as_each_release_understands_it() {
        assert_eq!(Protocol::OneRun.over("s", 1, "gone"), None);
        let over = Protocol::Ending.over("s", 1, "gone").expect("a message");
        assert_eq!(
            over.get("run_id"),
            None,
            "the handler takes no such argument"
        );
        let over = Protocol::Runs.over("s", 1, "gone").expect("a message");
        assert_eq!(over.get("run_id"), Some(&Value::Int(1)));
    }

    #[test]
    fn answers_up_to_2023_8_0_are_plain_maps() {
        let assigned: Vec<(Partition, Arc<str>)> = vec![
            (Partition::Number(0), "tcp://a:1".into()),
            (Partition::Position(vec![1, 2]), "tcp://a:1".into()),
        ];
        let run = RunFigures {
            run_id: 3,
            span_id: None,
            assigned: &assigned,
        };
        let form = AnswerForm::Fields(vec![("column", "x".into())]);
        let answer = Protocol::Arrays.answer(&form, &run);
        let expected = Value::Map(vec![
            (0.into(), "tcp://a:1".into()),
            (Value::array([1, 2]), "tcp://a:1".into()),
        ]);
        assert_eq!(answer.get("worker_for"), Some(&expected));
        assert_eq!(
            answer.get("output_workers"),
            Some(&Value::set(["tcp://a:1"]))
        );
        assert_eq!(answer.get("column"), Some(&"x".into()));
        assert_eq!(answer.get("run_id"), Some(&3.into()));
    }
}
