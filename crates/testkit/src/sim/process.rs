//! What a simulated worker process is to the simulation, whichever brain it has: the simple one of
//! `worker.rs` or the real one of `core_worker.rs`.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::effect::WorkerMsg;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::ids::RunId;
use oxidask_scheduler_core::worker::WorkerStatus;

/// What a worker does in answer to something.
#[derive(Debug)]
pub enum Action {
    /// Tell the scheduler.
    Tell(Event),
    /// Ask a peer for one result.
    Fetch {
        /// Whom, by address.
        holder: Arc<str>,
        /// What.
        key: Key,
    },
    /// Ask a peer for many.
    Gather {
        /// Names the request.
        transfer: u64,
        /// Whom, by address.
        holder: Arc<str>,
        /// What.
        keys: Vec<Key>,
        /// Expected size.
        nbytes: u64,
    },
    /// Occupy a thread for so long.
    Run {
        /// Which task.
        key: Key,
        /// Tells this run from an earlier, cancelled one.
        token: u64,
        /// Seconds.
        duration: f64,
    },
    /// The run secedes after so many seconds.
    Secede {
        /// Which run.
        token: u64,
        /// Seconds.
        after: f64,
    },
    /// Ask again where a key is, a little later.
    RefreshLater {
        /// Which.
        key: Key,
    },
    /// Time is to be told at this moment.
    WakeAt(f64),
    /// Close the connection.
    Leave,
    /// The worker found a mistake of its own, in words: the run has failed.
    Broken(String),
}

/// What became of a request to a peer.
#[derive(Clone, Debug)]
pub enum Gathered {
    /// Results the peer has of what was asked for, with their sizes.
    Answered(Vec<(Key, u64, u64)>),
    /// It has too many connections.
    Busy,
    /// It is gone, or cut off.
    Unreachable,
}

/// A worker process.
pub trait WorkerProcess {
    /// What the worker is up to, as it sees itself.
    fn status(&self) -> WorkerStatus;

    /// Pauses, resumes or retires the worker.
    fn set_status(&mut self, now: f64, status: WorkerStatus) -> Vec<Action>;

    /// A message of the scheduler.
    fn on_message(&mut self, now: f64, msg: WorkerMsg) -> Vec<Action>;

    /// A thread is done with a run.
    fn on_done(&mut self, now: f64, key: &Key, token: u64) -> Vec<Action>;

    /// A run secedes.
    fn on_secede(&mut self, _now: f64, _token: u64) -> Vec<Action> {
        Vec::new()
    }

    /// The answer to [`Action::Fetch`]; nothing if the peer did not have the data or is gone.
    fn on_fetched(&mut self, _holder: &str, _key: Key, _value: Option<u64>) -> Vec<Action> {
        Vec::new()
    }

    /// The answer to [`Action::Gather`].
    fn on_gathered(&mut self, _now: f64, _transfer: u64, _outcome: Gathered) -> Vec<Action> {
        Vec::new()
    }

    /// Whether to ask the scheduler (still) where `key` is: the answer to [`Action::RefreshLater`].
    fn on_refresh_due(&mut self, _key: Key) -> Option<Event> {
        None
    }

    /// The answer to [`Action::WakeAt`].
    fn on_time(&mut self, _now: f64) -> Vec<Action> {
        Vec::new()
    }

    /// A peer asks for data; each request is followed by [`WorkerProcess::on_sent`] unless it is
    /// refused.
    fn on_get_data(&mut self, _now: f64, _request: u64, _who: &str, keys: &[Key]) -> Gathered {
        let held = keys
            .iter()
            .filter_map(|k| Some((k.clone(), self.value(k)?, 1 << 16)));
        Gathered::Answered(held.collect())
    }

    /// A request of a peer is done.
    fn on_sent(&mut self, _now: f64, _request: u64) {}

    /// The value it holds for a key.
    fn value(&self, key: &Key) -> Option<u64>;

    /// Number of tasks it has not done, for bounds checks.
    fn backlog(&self) -> usize;

    /// Whether it has been told to run the task, and has not done so yet.
    fn knows(&self, key: &Key) -> bool;

    /// Whether it neither holds anything, nor has anything to do.
    fn is_empty(&self) -> bool;

    /// A little of what it holds and has to do, for messages.
    fn shown(&self) -> String;

    /// Any key it holds the result of, for faults that need one.
    fn some_result(&self) -> Option<Key>;

    /// Any key it is working on, for faults that need one.
    fn some_key(&self) -> Option<(Key, RunId)>;

    /// Tasks that occupy a thread now.
    fn executing(&self) -> Vec<Key>;
}
