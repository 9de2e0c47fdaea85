//! The shuffles that are going on: who takes part, which worker gets which output.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_wire::value::Value;

use super::protocol::{AnswerForm, Protocol, RunFigures};
use super::spec::{Outputs, Partition};

/// A request of a worker does not fit what is known of its shuffle: it comes from a run that is
/// over, or from a graph that was changed. Workers expect this as `P2PConsistencyError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConsistencyError {
    /// No such shuffle is going on.
    #[error("No active shuffle with id='{0}' found")]
    Inactive(String),
    /// Of an earlier run.
    #[error("Request stale, expected run_id={asked} for {shuffle}")]
    Stale {
        /// Run that the worker means.
        asked: i64,
        /// The shuffle as text.
        shuffle: String,
    },
    /// Of a run that never was.
    #[error("Request invalid, expected run_id={asked} for {shuffle}")]
    Invalid {
        /// Run that the worker means.
        asked: i64,
        /// The shuffle as text.
        shuffle: String,
    },
    /// The worker is not registered.
    #[error("Scheduler is unaware of this worker '{0}'")]
    UnknownWorker(String),
    /// There is no barrier task of the expected name.
    #[error(
        "Barrier task with key {} does not exist. This may be caused by task fusion during graph generation.",
        .0.repr()
    )]
    NoBarrier(Key),
    /// The asking task should not run.
    #[error("Expected {} to be processing, is {state}.", .key.repr())]
    NotProcessing {
        /// The task.
        key: Key,
        /// What it is instead.
        state: &'static str,
    },
}

/// All shuffles that are going on.
#[derive(Default)]
pub(crate) struct Shuffles {
    active: HashMap<String, Shuffle>,
    last_run_id: i64,
    /// Spreads small shuffles over the workers.
    shift: usize,
    /// The latest runs of which a task raised.
    failed_runs: BTreeSet<i64>,
    /// See [`Shuffles::changed_busy_workers`].
    busy: BTreeSet<Arc<str>>,
}

/// Failed runs remembered.
const MAX_FAILED_RUNS: usize = 1000;

struct Shuffle {
    run_id: i64,
    class: &'static str,
    participants: BTreeSet<Arc<str>>,
    worker_for: HashMap<Partition, Arc<str>>,
    protocol: Protocol,
    /// For everybody who takes part.
    answer: Value,
    /// Output tasks that were pinned to a worker, with the workers they were restricted to before.
    pinned: HashMap<Key, Option<Vec<Arc<str>>>>,
}

impl Shuffle {
    fn describe(&self, id: &str) -> String {
        format!("{}<{id}[{}]>", self.class, self.run_id)
    }

    fn check(&self, id: &str, asked: i64) -> Result<(), ConsistencyError> {
        let shuffle = || self.describe(id);
        match self.run_id.cmp(&asked) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(ConsistencyError::Stale {
                asked,
                shuffle: shuffle(),
            }),
            std::cmp::Ordering::Less => Err(ConsistencyError::Invalid {
                asked,
                shuffle: shuffle(),
            }),
        }
    }
}

/// A shuffle that is over.
#[derive(Debug, PartialEq)]
pub(crate) struct Ended {
    /// Its run.
    pub(crate) run_id: i64,
    /// How those who take part speak.
    pub(crate) protocol: Protocol,
    /// The shuffle as text.
    pub(crate) description: String,
    /// Addresses of the workers to be told.
    pub(crate) participants: Vec<Arc<str>>,
    /// Restrictions to be restored.
    pub(crate) pinned: Vec<(Key, Option<Vec<Arc<str>>>)>,
}

/// A shuffle to be set up.
pub(crate) struct NewShuffle<'a> {
    /// Its name.
    pub(crate) id: &'a str,
    /// How the workers speak.
    pub(crate) protocol: Protocol,
    /// What it makes, each with the index of its worker among `workers`: see [`Outputs::assign`].
    pub(crate) outputs: &'a Outputs,
    /// Only these outputs, if given.
    pub(crate) wanted: Option<&'a HashSet<Partition>>,
    /// What answers are made of.
    pub(crate) form: &'a AnswerForm,
    /// Who gets outputs.
    pub(crate) workers: Vec<Arc<str>>,
    /// Shuffles with the same output tasks: partitions go where they go there.
    pub(crate) siblings: &'a [String],
    /// The span of its tasks.
    pub(crate) span_id: Option<&'a str>,
    /// The first to take part, if it is known.
    pub(crate) worker: Option<&'a Arc<str>>,
}

impl Shuffles {
    /// The answer to those who take part in a shuffle that is going on, to whom `worker` belongs from
    /// now on.
    pub(crate) fn join(&mut self, id: &str, worker: Option<&Arc<str>>) -> Option<Value> {
        let shuffle = self.active.get_mut(id)?;
        shuffle.participants.extend(worker.cloned());
        Some(shuffle.answer.clone())
    }

    /// Sets a shuffle up and gives the answer to those who take part.
    pub(crate) fn create(&mut self, new: NewShuffle<'_>) -> Value {
        let mut workers = new.workers;
        if workers.is_empty() {
            workers.extend(new.worker.cloned());
        }
        let shift = self.shift % workers.len().max(1);
        workers.rotate_left(shift);
        self.shift = self.shift.wrapping_add(1);

        let siblings = new.siblings.iter();
        let siblings: Vec<&Shuffle> = siblings.filter_map(|id| self.active.get(id)).collect();
        let settled = |partition: &Partition| {
            let known = siblings.iter().rev();
            known.filter_map(|s| s.worker_for.get(partition)).next()
        };
        let assigned = new.outputs.assign(workers.len()).into_iter();
        let assigned: Vec<(Partition, Arc<str>)> = assigned
            .filter(|(partition, _)| new.wanted.is_none_or(|wanted| wanted.contains(partition)))
            .filter_map(|(partition, index)| {
                let worker = settled(&partition).or_else(|| workers.get(index))?;
                Some((partition.clone(), Arc::clone(worker)))
            })
            .collect();
        self.last_run_id += 1;
        let run_id = self.last_run_id;
        let figures = RunFigures {
            run_id,
            span_id: new.span_id,
            assigned: &assigned,
        };
        let answer = new.protocol.answer(new.form, &figures);
        let output_workers = assigned.iter().map(|(_, worker)| Arc::clone(worker));
        let shuffle = Shuffle {
            run_id,
            class: "SchedulerShuffleState",
            participants: output_workers.chain(new.worker.cloned()).collect(),
            worker_for: assigned.into_iter().collect(),
            protocol: new.protocol,
            answer: answer.clone(),
            pinned: HashMap::new(),
        };
        self.active.insert(new.id.to_owned(), shuffle);
        answer
    }

    /// The worker that gets this output.
    pub(crate) fn worker_for(&self, id: &str, partition: &Partition) -> Option<Arc<str>> {
        self.active.get(id)?.worker_for.get(partition).cloned()
    }

    /// Addresses of those that take part in whatever run is going on.
    ///
    /// # Errors
    /// None is.
    pub(crate) fn all_participants(&self, id: &str) -> Result<Vec<Arc<str>>, ConsistencyError> {
        Ok(self.get(id)?.participants.iter().cloned().collect())
    }

    /// Addresses of all that take part in some shuffle, if they are others than when last asked.
    pub(crate) fn changed_busy_workers(&mut self) -> Option<Vec<Arc<str>>> {
        let active = self.active.values();
        let busy: BTreeSet<_> = active
            .flat_map(|s| s.participants.iter().cloned())
            .collect();
        (busy != self.busy).then(|| {
            self.busy = busy;
            self.busy.iter().cloned().collect()
        })
    }

    /// The run that is going on.
    ///
    /// # Errors
    /// None is.
    pub(crate) fn run_id(&self, id: &str) -> Result<i64, ConsistencyError> {
        Ok(self.get(id)?.run_id)
    }

    /// Addresses of those that take part in this run.
    ///
    /// # Errors
    /// The run is over.
    pub(crate) fn participants(
        &self,
        id: &str,
        run_id: i64,
    ) -> Result<Vec<Arc<str>>, ConsistencyError> {
        let shuffle = self.get(id)?;
        shuffle.check(id, run_id)?;
        Ok(shuffle.participants.iter().cloned().collect())
    }

    /// An output task of this run is going to be pinned to a worker; `before` are the workers it
    /// was restricted to. Whether it was not pinned yet.
    ///
    /// # Errors
    /// The run is over.
    pub(crate) fn pin(
        &mut self,
        id: &str,
        run_id: i64,
        key: &Key,
        before: Option<Vec<Arc<str>>>,
    ) -> Result<bool, ConsistencyError> {
        self.get(id)?.check(id, run_id)?;
        // Output tasks may be shared with another shuffle, e.g. in a join.
        if self
            .active
            .values()
            .any(|shuffle| shuffle.pinned.contains_key(key))
        {
            return Ok(false);
        }
        if let Some(shuffle) = self.active.get_mut(id) {
            shuffle.pinned.insert(key.clone(), before);
        }
        Ok(true)
    }

    /// Ends a shuffle, if it is going on.
    pub(crate) fn end(&mut self, id: &str) -> Option<Ended> {
        let shuffle = self.active.remove(id)?;
        let mut pinned: Vec<_> = shuffle.pinned.clone().into_iter().collect();
        pinned.sort_by_cached_key(|(key, _)| key.repr());
        Some(Ended {
            run_id: shuffle.run_id,
            protocol: shuffle.protocol,
            description: shuffle.describe(id),
            participants: shuffle.participants.into_iter().collect(),
            pinned,
        })
    }

    /// The shuffles that `worker` takes part in.
    pub(crate) fn of_worker(&self, worker: &str) -> Vec<String> {
        let taking_part = |shuffle: &Shuffle| shuffle.participants.contains(worker);
        let active = self.active.iter();
        let mut ids: Vec<String> = active
            .filter(|(_, shuffle)| taking_part(shuffle))
            .map(|(id, _)| id.clone())
            .collect();
        ids.sort();
        ids
    }

    /// Those that are going on and have not failed, with their runs.
    pub(crate) fn healthy(&self) -> Vec<(String, i64)> {
        let active = self.active.iter();
        let mut runs: Vec<(String, i64)> = active
            .filter(|(_, shuffle)| !self.failed_runs.contains(&shuffle.run_id))
            .map(|(id, shuffle)| (id.clone(), shuffle.run_id))
            .collect();
        runs.sort();
        runs
    }

    /// A task of this run raised; whether that is news.
    pub(crate) fn fail(&mut self, run_id: i64) -> bool {
        let is_news = self.failed_runs.insert(run_id);
        if self.failed_runs.len() > MAX_FAILED_RUNS {
            self.failed_runs.pop_first();
        }
        is_news
    }

    /// All that are going on.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.active.keys().cloned().collect();
        ids.sort();
        ids
    }

    fn get(&self, id: &str) -> Result<&Shuffle, ConsistencyError> {
        let shuffle = self.active.get(id);
        shuffle.ok_or_else(|| ConsistencyError::Inactive(id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|&name| name.into()).collect()
    }

    fn create(shuffles: &mut Shuffles, id: &str, siblings: &[&str]) -> Value {
        let siblings: Vec<String> = siblings.iter().map(|&s| s.to_owned()).collect();
        shuffles.create(NewShuffle {
            id,
            protocol: Protocol::Restricting,
            outputs: &Outputs::Frame {
                npartitions: 6,
                parts: (0..6).collect(),
            },
            wanted: None,
            form: &AnswerForm::Fields(Vec::new()),
            workers: addresses(&["a", "b"]),
            siblings: &siblings,
            span_id: None,
            worker: Some(&"c".into()),
        })
    }

    #[test]
    fn everybody_who_asks_takes_part() {
        let mut shuffles = Shuffles::default();
        assert_eq!(shuffles.join("s", Some(&"a".into())), None);
        let run_spec = create(&mut shuffles, "s", &[]);
        assert_eq!(shuffles.join("s", Some(&"d".into())), Some(run_spec));
        let all = addresses(&["a", "b", "c", "d"]);
        assert_eq!(shuffles.participants("s", 1), Ok(all));
        assert_eq!(shuffles.all_participants("s").map(|all| all.len()), Ok(4));
        assert_eq!(
            shuffles.changed_busy_workers().map(|all| all.len()),
            Some(4)
        );
        assert_eq!(shuffles.changed_busy_workers(), None);
        assert_eq!(shuffles.of_worker("d"), ["s"]);
        assert!(shuffles.of_worker("e").is_empty());
    }

    #[test]
    fn each_run_has_its_own_number() {
        let mut shuffles = Shuffles::default();
        create(&mut shuffles, "s", &[]);
        let ended = shuffles.end("s").expect("going on");
        assert_eq!(ended.description, "SchedulerShuffleState<s[1]>");
        assert_eq!(shuffles.end("s"), None);
        create(&mut shuffles, "s", &[]);
        assert!(shuffles.participants("s", 2).is_ok());
        let stale = shuffles.participants("s", 1).expect_err("an earlier run");
        assert!(matches!(stale, ConsistencyError::Stale { asked: 1, .. }));
        let invalid = shuffles.participants("s", 3).expect_err("no such run");
        assert!(matches!(
            invalid,
            ConsistencyError::Invalid { asked: 3, .. }
        ));
        let inactive = shuffles.participants("t", 1).expect_err("no such shuffle");
        assert_eq!(inactive.to_string(), "No active shuffle with id='t' found");
    }

    #[test]
    fn a_failure_is_news_once() {
        let mut shuffles = Shuffles::default();
        create(&mut shuffles, "s", &[]);
        assert_eq!(shuffles.healthy(), [("s".to_owned(), 1)]);
        assert!(shuffles.fail(1));
        assert!(!shuffles.fail(1));
        assert!(shuffles.healthy().is_empty());
    }

    #[test]
    fn shuffles_that_feed_the_same_tasks_agree_on_workers() {
        let mut shuffles = Shuffles::default();
        create(&mut shuffles, "left", &[]);
        create(&mut shuffles, "right", &["left"]);
        create(&mut shuffles, "other", &[]);
        let worker_for = |id: &str| shuffles.active[id].worker_for.clone();
        assert_eq!(worker_for("left"), worker_for("right"));
        assert_eq!(
            worker_for("left"),
            worker_for("other"),
            "after a full turn of two workers"
        );
        create(&mut shuffles, "shifted", &[]);
        let worker_for = |id: &str| shuffles.active[id].worker_for.clone();
        assert_ne!(worker_for("left"), worker_for("shifted"));
    }

    #[test]
    fn outputs_are_pinned_once_and_freed_at_the_end() {
        let mut shuffles = Shuffles::default();
        create(&mut shuffles, "left", &[]);
        create(&mut shuffles, "right", &["left"]);
        let key = Key::from("output");
        let before = Some(addresses(&["a"]));
        assert_eq!(shuffles.pin("left", 1, &key, before.clone()), Ok(true));
        assert_eq!(shuffles.pin("left", 1, &key, None), Ok(false));
        assert_eq!(shuffles.pin("right", 2, &key, None), Ok(false));
        assert!(shuffles.pin("right", 1, &key, None).is_err());
        let ended = shuffles.end("left").expect("going on");
        assert_eq!(ended.pinned, [(key, before)]);
    }
}
