//! The shell's half of the watchdog: asks workers about what the core finds suspicious, and keeps a
//! dump of what turned out to be wrong. What is suspicious, and what follows from an answer, is
//! decided by the core (`policy/watchdog.rs` there).

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oxidask_key::Key;
use oxidask_scheduler_core::Scheduler;
use oxidask_scheduler_core::effect::Suspicion;
use oxidask_scheduler_core::event::{Event, Verdict};
use oxidask_scheduler_core::ids::WorkerId;
use oxidask_scheduler_core::recording::{Encoder, Entry};
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::clock;
use crate::context::Context;
use crate::hooks::Extension;
use crate::http::Family;
use crate::rpc::RpcTable;
use crate::session::stimulus;
use crate::workers::WorkerEntry;

/// A worker that does not answer within this time is left to its time-to-live.
const PATIENCE: Duration = Duration::from_secs(10);
/// Holders asked for what they hold, for one suspicion.
const HOLDERS: usize = 8;
/// Dumps in the life of a scheduler.
const DUMPS: u64 = 20;
/// Tasks in one dump.
const DUMPED_TASKS: usize = 500;
/// First release whose workers can tell the story of a task by this argument.
const STORIES: Release = Release::new(2022, 6, 1);

/// Counts what was found, for `/metrics`.
#[derive(Debug, Default)]
pub struct Watchdog {
    progressing: AtomicU64,
    unknown: AtomicU64,
    inputs_missing: AtomicU64,
    no_answer: AtomicU64,
    dumps: AtomicU64,
}

impl Extension for Watchdog {
    fn register(self: Arc<Self>, _table: &mut RpcTable) {}

    fn metrics(&self) -> Vec<Family> {
        let verdicts = [
            ("progressing", &self.progressing),
            ("unknown", &self.unknown),
            ("inputs-missing", &self.inputs_missing),
            ("no-answer", &self.no_answer),
        ];
        #[expect(clippy::cast_precision_loss, reason = "a metric is a double")]
        let samples = verdicts.map(|(name, count)| {
            let count = count.load(Ordering::Relaxed);
            (name.to_owned(), count as f64)
        });
        vec![Family {
            name: "oxidask_watchdog_examinations_total".to_owned(),
            help: "Tasks and retirements that stood still, by what the worker said".to_owned(),
            counter: true,
            label: "verdict",
            samples: samples.to_vec(),
        }]
    }
}

impl Watchdog {
    /// Asks about one suspicion and passes the answer to the core.
    pub async fn examine(&self, context: &Arc<Context>, suspicion: Suspicion) {
        let verdict = judge(context, &suspicion).await;
        let count = match &verdict {
            Verdict::Progressing => &self.progressing,
            Verdict::Unknown => &self.unknown,
            Verdict::InputsMissing(_) => &self.inputs_missing,
            Verdict::NoAnswer => &self.no_answer,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if matches!(verdict, Verdict::Unknown | Verdict::InputsMissing(_)) {
            let what = match &suspicion.task {
                Some((key, _)) => format!("task {key:?}"),
                None => "retirement".to_owned(),
            };
            let found = match &verdict {
                Verdict::InputsMissing(missing) => {
                    format!("{} results are not where they should be", missing.len())
                }
                _ => "the worker does not know it".to_owned(),
            };
            let dump = self.dump(context, &suspicion).await;
            tracing::warn!(
                target: "distributed.scheduler",
                "Watchdog: {what} made no progress for {:.0} s: {found}; it is set right{dump}",
                suspicion.seconds
            );
        }
        context.core.send(Event::Examined {
            worker: suspicion.worker,
            task: suspicion.task,
            verdict,
            stimulus_id: stimulus("watchdog"),
        });
    }

    /// Writes the part of the state around the task; says where, for the log.
    async fn dump(&self, context: &Arc<Context>, suspicion: &Suspicion) -> String {
        let key = suspicion.task.as_ref().map(|(key, _)| key.clone());
        let key = key.or_else(|| suspicion.inputs.first().map(|(key, _)| key.clone()));
        let number = self.dumps.fetch_add(1, Ordering::Relaxed);
        let (Some(key), true) = (key, number < DUMPS) else {
            return String::new();
        };
        let bytes = context.core.query(move |state| encode(state, &key)).await;
        let Ok(bytes) = bytes else {
            return String::new();
        };
        let folder = context.config.str("oxidask.scheduler.watchdog-directory");
        let folder = folder.map_or_else(std::env::temp_dir, PathBuf::from);
        let name = format!("oxidask-watchdog-{}-{number}.rec", std::process::id());
        let path = folder.join(name);
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || std::fs::write(path, bytes)).await;
        match written {
            Ok(Ok(())) => format!("; state before it: {shown}"),
            Ok(Err(error)) => format!("; cannot write {shown}: {error}"),
            Err(_) => String::new(),
        }
    }
}

fn encode(state: &Scheduler, key: &Key) -> Vec<u8> {
    let mut encoder = Encoder::new(state.config());
    for event in state.extract(key, DUMPED_TASKS) {
        encoder.push(&Entry::Event(clock::now(), event));
    }
    encoder.take()
}

async fn judge(context: &Arc<Context>, suspicion: &Suspicion) -> Verdict {
    let Some(worker) = context.workers.get(suspicion.worker) else {
        return Verdict::NoAnswer;
    };
    if let Some((key, _)) = &suspicion.task {
        match knows(context, &worker, key).await {
            Known::Running => return Verdict::Progressing,
            Known::No => return Verdict::Unknown,
            Known::NoAnswer => return Verdict::NoAnswer,
            Known::Waiting => {}
        }
    }
    let missing = missing_inputs(context, &suspicion.inputs).await;
    match missing.is_empty() {
        true => Verdict::Progressing,
        false => Verdict::InputsMissing(missing),
    }
}

enum Known {
    /// A thread is on it, or the worker is too old to tell more.
    Running,
    Waiting,
    No,
    NoAnswer,
}

/// What the worker says of a task: first its threads, then its log.
async fn knows(context: &Context, worker: &WorkerEntry, key: &Key) -> Known {
    let address = &worker.info.address;
    let question = Value::map([
        ("op", Value::from("call_stack")),
        ("keys", Value::array([key])),
        ("reply", true.into()),
    ]);
    match context.peers.ask_within(PATIENCE, address, &question).await {
        Err(_) => return Known::NoAnswer,
        Ok(stacks) if stacks.as_map().is_some_and(|map| !map.is_empty()) => return Known::Running,
        Ok(_) => {}
    }
    if worker.release < STORIES {
        return Known::Waiting;
    }
    let question = Value::map([
        ("op", Value::from("get_story")),
        ("keys_or_stimuli", Value::array([key])),
        ("reply", true.into()),
    ]);
    match context.peers.ask_within(PATIENCE, address, &question).await {
        Err(_) => Known::NoAnswer,
        Ok(story) => match last_state(&story, key) {
            Some(state) if NOT_THERE.contains(&state) => Known::No,
            Some(_) => Known::Waiting,
            None => Known::No,
        },
    }
}

/// States in which a worker does nothing for a task, and will not.
const NOT_THERE: [&str; 5] = ["forgotten", "released", "memory", "error", "missing"];

/// State of a task after the last transition in a worker's story: entries are `(key, start, asked
/// for, reached, …)`; others say nothing about the state, except that an order to run it has come in.
fn last_state<'a>(story: &'a Value, key: &Key) -> Option<&'a str> {
    let entries = story.as_seq()?;
    entries.iter().rev().find_map(|entry| {
        let entry = entry.as_seq()?;
        if entry.first()?.to_key().as_ref() != Some(key) {
            return None;
        }
        match entry.get(1)?.as_str()? {
            "compute-task" => Some("waiting"),
            // `(key, start, asked for, reached, recommendations, stimulus_id, time)`
            _ if entry.len() >= 6 => entry.get(3)?.as_str(),
            _ => None,
        }
    })
}

/// Those of the inputs that their holders do not have.
async fn missing_inputs(
    context: &Arc<Context>,
    inputs: &[(Key, Vec<WorkerId>)],
) -> Vec<(Key, WorkerId)> {
    let mut holders: Vec<WorkerId> = Vec::new();
    for holder in inputs.iter().flat_map(|(_, holders)| holders) {
        if holders.len() < HOLDERS && !holders.contains(holder) {
            holders.push(*holder);
        }
    }
    let mut missing = Vec::new();
    for holder in holders {
        let Some(worker) = context.workers.get(holder) else {
            continue;
        };
        let question = Value::map([("op", Value::from("keys")), ("reply", true.into())]);
        let address = &worker.info.address;
        let answer = context.peers.ask_within(PATIENCE, address, &question).await;
        let Some(held) = answer.ok().as_ref().and_then(keys) else {
            continue;
        };
        for (key, holders) in inputs {
            if holders.contains(&holder) && !held.contains(key) {
                missing.push((key.clone(), holder));
            }
        }
    }
    missing
}

fn keys(answer: &Value) -> Option<HashSet<Key>> {
    Some(answer.as_seq()?.iter().filter_map(Value::to_key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(words: &[&str]) -> Value {
        Value::array(words.iter().map(|word| Value::from(*word)))
    }

    #[test]
    fn the_story_of_a_worker_tells_whether_it_knows_a_task() {
        let key = Key::from("x");
        let order = entry(&["x", "compute-task", "released", "s1", "0.1"]);
        let waits = entry(&["x", "released", "waiting", "waiting", "{}", "s1", "0.1"]);
        let done = entry(&["x", "executing", "memory", "memory", "{}", "s2", "0.2"]);
        let gone = entry(&["x", "memory", "released", "forgotten", "{}", "s3", "0.3"]);
        let other = entry(&["y", "waiting", "ready", "ready", "{}", "s1", "0.4"]);
        let table: [(&[&Value], Option<&str>); 5] = [
            (&[], None),
            (&[&other], None),
            (&[&order, &other], Some("waiting")),
            (&[&order, &waits, &done], Some("memory")),
            (&[&order, &waits, &done, &gone, &other], Some("forgotten")),
        ];
        for (entries, expected) in table {
            let story = Value::array(entries.iter().map(|entry| (*entry).clone()));
            assert_eq!(last_state(&story, &key), expected, "{story:?}");
        }
        let again = Value::array([gone, order]);
        assert_eq!(last_state(&again, &key), Some("waiting"));
    }
}
