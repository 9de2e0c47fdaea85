//! Stream messages between worker and scheduler. What comes in is read tolerantly, whatever the
//! release; what goes out is composed field by field for the worker's release ([`crate::dialect`]).

use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use serde::Deserialize;

use super::fields::{self, RawError, decode};
use super::{ErrorObject, ExtensionOp, Item, StartStop, finished};
use crate::error::DecodeError;
use crate::payload::Payload;
use crate::value::Value;

/// Worker → scheduler.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker<'a> {
    /// A task ended well.
    TaskFinished(TaskFinished<'a>),
    /// A task raised.
    TaskErred(TaskErred<'a>),
    /// Results were dropped: `keys` up to 2021.09.1, one `key` since 2021.10.0.
    ReleaseWorkerData {
        /// What.
        keys: Vec<Key>,
        /// Cause (since 2022.04.2).
        stimulus_id: Option<&'a str>,
    },
    /// Copies were made.
    AddKeys {
        /// What.
        keys: Vec<Key>,
        /// Cause (since 2021.10.0).
        stimulus_id: Option<&'a str>,
    },
    /// A task left the thread pool.
    LongRunning {
        /// Which.
        key: Key,
        /// Seconds it had run.
        compute_duration: Option<f64>,
        /// Since 2025.2.0.
        run_id: Option<i64>,
        /// Cause.
        stimulus_id: Option<&'a str>,
    },
    /// Run the task elsewhere.
    Reschedule {
        /// Which.
        key: Key,
        /// Cause.
        stimulus_id: Option<&'a str>,
    },
    /// A worker let go of a task before it was done (`release`, ≤ 2021.09.1). If the task is
    /// processing there it must be given out again: workers of the first 2.x releases handle
    /// `delete-data` late, after a `compute-task` of the same key that came behind it.
    Release {
        /// Which.
        key: Key,
    },
    /// Answer to a steal request.
    StealResponse {
        /// Which.
        key: Key,
        /// The worker's state of the task.
        state: Option<&'a str>,
        /// Id of the request (since 2021.10.0).
        stimulus_id: Option<&'a str>,
    },
    /// `running`, `paused`, … (since 2021.10.0).
    WorkerStatusChange {
        /// Stock's spelling.
        status: &'a str,
        /// Cause.
        stimulus_id: Option<&'a str>,
    },
    /// An entry for the event log (since 2020.12.0).
    LogEvent {
        /// Text or array of texts.
        topic: Value,
        /// Payloads bound.
        msg: Value,
    },
    /// Where is this data? (since 2022.6.0).
    RequestRefreshWhoHas {
        /// What.
        keys: Vec<Key>,
        /// Cause.
        stimulus_id: Option<&'a str>,
    },
    /// A peer did not have what it should (≤ 2022.05.2).
    MissingData {
        /// What.
        key: Key,
        /// Address of that peer.
        errant_worker: &'a str,
        /// Cause.
        stimulus_id: Option<&'a str>,
    },
    /// Every 60 s.
    KeepAlive,
    /// The worker leaves.
    CloseStream,
    /// Queue, Variable, Pub/Sub, published data.
    Extension(ExtensionOp),
    /// An op of no release we know.
    Unknown(Item<'a>),
}

/// `task-finished`.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFinished<'a> {
    /// Which task.
    pub key: Key,
    /// Which assignment (since 2023.1.1).
    pub run_id: Option<i64>,
    /// Size of the result in bytes.
    pub nbytes: Option<u64>,
    /// Pickled type of the result.
    pub type_: Option<&'a [u8]>,
    /// Printable name of that type.
    pub typename: Option<&'a str>,
    /// What took how long.
    pub startstops: Option<Vec<StartStop<'a>>>,
    /// What the task left behind (since 2020.12.0); nil when nothing.
    pub metadata: Value,
    /// Thread that ran it.
    pub thread: Option<u64>,
    /// Cause (since 2022.04.2).
    pub stimulus_id: Option<&'a str>,
}

/// `task-erred`.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskErred<'a> {
    /// Which task.
    pub key: Key,
    /// Which assignment (since 2023.7.0).
    pub run_id: Option<i64>,
    /// What it raised.
    pub exception: Option<ErrorObject>,
    /// Where.
    pub traceback: Option<ErrorObject>,
    /// `repr` of the exception (since 2021.08.0).
    pub exception_text: &'a str,
    /// Printed traceback (since 2021.08.0).
    pub traceback_text: &'a str,
    /// What took how long.
    pub startstops: Vec<StartStop<'a>>,
    /// Thread that ran it.
    pub thread: Option<u64>,
    /// Cause (since 2022.04.2).
    pub stimulus_id: Option<&'a str>,
}

#[derive(Deserialize)]
struct RawTaskErred<'a> {
    key: Key,
    #[serde(default)]
    run_id: Option<i64>,
    #[serde(default, borrow)]
    exception: RawError<'a>,
    #[serde(default, borrow)]
    traceback: RawError<'a>,
    #[serde(default, borrow)]
    exception_text: Option<&'a str>,
    #[serde(default, borrow)]
    traceback_text: Option<&'a str>,
    #[serde(default, borrow)]
    startstops: Option<Vec<StartStop<'a>>>,
    #[serde(default, deserialize_with = "fields::count")]
    thread: Option<u64>,
    #[serde(default, borrow)]
    stimulus_id: Option<&'a str>,
}

impl<'a> TaskErred<'a> {
    fn decode(item: &Item<'a>) -> Result<Self, DecodeError> {
        let raw: RawTaskErred<'a> = decode(item)?;
        Ok(Self {
            key: raw.key,
            run_id: raw.run_id,
            exception: raw.exception.resolve(item)?,
            traceback: raw.traceback.resolve(item)?,
            exception_text: raw.exception_text.unwrap_or_default(),
            traceback_text: raw.traceback_text.unwrap_or_default(),
            startstops: raw.startstops.unwrap_or_default(),
            thread: raw.thread,
            stimulus_id: raw.stimulus_id,
        })
    }
}

/// The small messages, whose fields are a subset of these.
#[derive(Deserialize)]
struct Small<'a> {
    #[serde(default)]
    key: Option<Key>,
    #[serde(default, deserialize_with = "fields::keys")]
    keys: Vec<Key>,
    #[serde(default)]
    compute_duration: Option<f64>,
    #[serde(default)]
    run_id: Option<i64>,
    #[serde(default, borrow)]
    state: Option<&'a str>,
    #[serde(default, borrow)]
    status: Option<&'a str>,
    #[serde(default, borrow)]
    errant_worker: Option<&'a str>,
    #[serde(default, borrow)]
    stimulus_id: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct LogEvent {
    topic: Value,
    msg: Value,
}

impl<'a> FromWorker<'a> {
    /// Reads one item of a worker's stream.
    pub fn decode(item: &Item<'a>) -> Result<Self, DecodeError> {
        Ok(match item.op {
            "task-finished" => Self::TaskFinished(finished::decode(item)?),
            "task-erred" => Self::TaskErred(TaskErred::decode(item)?),
            "keep-alive" => Self::KeepAlive,
            "close-stream" => Self::CloseStream,
            "log-event" => {
                let LogEvent { topic, msg } = decode(item)?;
                Self::LogEvent {
                    topic,
                    msg: item.message.bind(msg)?,
                }
            }
            "release-worker-data"
            | "add-keys"
            | "long-running"
            | "reschedule"
            | "release"
            | "steal-response"
            | "worker-status-change"
            | "request-refresh-who-has"
            | "missing-data" => Self::small(item)?,
            _ => match ExtensionOp::decode(item)? {
                Some(op) => Self::Extension(op),
                None => Self::Unknown(*item),
            },
        })
    }

    fn small(item: &Item<'a>) -> Result<Self, DecodeError> {
        let Small {
            key,
            mut keys,
            compute_duration,
            run_id,
            state,
            status,
            errant_worker,
            stimulus_id,
        } = decode(item)?;
        let one = |key: Option<Key>| key.ok_or(DecodeError::Missing("key"));
        Ok(match item.op {
            "release-worker-data" => {
                keys.extend(key);
                Self::ReleaseWorkerData { keys, stimulus_id }
            }
            "add-keys" => Self::AddKeys { keys, stimulus_id },
            "long-running" => Self::LongRunning {
                key: one(key)?,
                compute_duration,
                run_id,
                stimulus_id,
            },
            "reschedule" => Self::Reschedule {
                key: one(key)?,
                stimulus_id,
            },
            "release" => Self::Release { key: one(key)? },
            "steal-response" => Self::StealResponse {
                key: one(key)?,
                state,
                stimulus_id,
            },
            "worker-status-change" => Self::WorkerStatusChange {
                status: status.ok_or(DecodeError::Missing("status"))?,
                stimulus_id,
            },
            "request-refresh-who-has" => Self::RequestRefreshWhoHas { keys, stimulus_id },
            _ => Self::MissingData {
                key: one(key)?,
                errant_worker: errant_worker.ok_or(DecodeError::Missing("errant_worker"))?,
                stimulus_id,
            },
        })
    }
}

/// A pickle in two pieces: tasks of one graph have the first in common, and share it in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pickle {
    /// Common to many, if there is something.
    pub prefix: Option<Arc<Bytes>>,
    /// What follows.
    pub body: Box<[u8]>,
}

impl Pickle {
    /// Prefix and body.
    pub fn pieces(&self) -> [&[u8]; 2] {
        let prefix = self.prefix.as_deref();
        [prefix.map_or(&[], |prefix| &prefix[..]), &self.body]
    }

    /// The whole in one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.pieces().concat().into()
    }
}

impl From<&[u8]> for Pickle {
    fn from(body: &[u8]) -> Self {
        Self {
            prefix: None,
            body: body.into(),
        }
    }
}

/// Out-of-band buffers of a pickle. Mostly there are none, and that takes one word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::box_collection, reason = "keeps the whole at 8 bytes")]
pub struct Buffers(Option<Box<Vec<Bytes>>>);

impl From<Vec<Bytes>> for Buffers {
    fn from(buffers: Vec<Bytes>) -> Self {
        Self((!buffers.is_empty()).then(|| Box::new(buffers)))
    }
}

impl std::ops::Deref for Buffers {
    type Target = [Bytes];

    fn deref(&self) -> &[Bytes] {
        self.0.as_deref().map_or(&[], |buffers| &buffers[..])
    }
}

/// What a task runs, as the client's release wrote it. Millions of them are kept, so the common one is small.
#[derive(Clone, Debug, PartialEq)]
pub enum RunSpec {
    /// A pickle with its out-of-band buffers (≥ 2023.8.1): a triple up to 2024.10.0, a
    /// `dask._task_spec.GraphNode` since 2024.11.0.
    Pickled {
        /// The stream.
        pickle: Pickle,
        /// Buffers in the order the stream asks for them.
        buffers: Buffers,
    },
    /// What older releases write (≤ 2023.8.0).
    Legacy(Box<LegacySpec>),
}

impl RunSpec {
    /// A pickle.
    pub fn pickled(pickle: impl Into<Pickle>, buffers: Vec<Bytes>) -> Self {
        Self::Pickled {
            pickle: pickle.into(),
            buffers: buffers.into(),
        }
    }
}

impl From<LegacySpec> for RunSpec {
    fn from(spec: LegacySpec) -> Self {
        Self::Legacy(Box::new(spec))
    }
}

/// What a task runs, up to 2023.8.0.
#[derive(Clone, Debug, PartialEq)]
pub enum LegacySpec {
    /// Three pickles: function, tuple of arguments, dict of keyword arguments.
    Parts {
        /// Pickled callable.
        function: Bytes,
        /// Pickled tuple; absent when there are none.
        args: Option<Bytes>,
        /// Pickled dict; absent when there are none.
        kwargs: Option<Bytes>,
    },
    /// A pickled function and arguments of which some are serialised objects of their own, put
    /// together by the worker.
    Call {
        /// Pickled callable.
        function: Bytes,
        /// An array, or the bytes of a pickle.
        args: Value,
        /// A map, or the bytes of a pickle; nil when there are none.
        kwargs: Value,
    },
    /// A whole task as one serialised object.
    Serialized(Arc<Payload>),
    /// A whole task that the worker puts together from serialised objects and keys.
    Task(Value),
}

/// Addresses of the holders of each key.
pub type WhoHas<'a> = &'a [(Key, Vec<Arc<str>>)];

/// Scheduler → worker, in terms of the newest release. [`crate::dialect::Dialect`] says what a
/// worker of an older release is told instead; what such a worker cannot be told is left out.
#[derive(Clone, Debug)]
pub enum ToWorker<'a> {
    /// Run a task.
    ComputeTask(ComputeTask<'a>),
    /// Forget tasks and results. Before 2021.06.1 `release-task` and `delete-data`.
    FreeKeys {
        /// What.
        keys: &'a [Key],
        /// Cause.
        stimulus_id: &'a str,
    },
    /// Drop copies unless needed. Before 2021.10.0 as [`Self::FreeKeys`] was.
    RemoveReplicas {
        /// What.
        keys: &'a [Key],
        /// Cause.
        stimulus_id: &'a str,
    },
    /// Fetch copies (since 2021.10.0).
    AcquireReplicas {
        /// Holders; no list may be empty.
        who_has: WhoHas<'a>,
        /// Sizes in bytes.
        nbytes: &'a [(Key, u64)],
        /// Cause.
        stimulus_id: &'a str,
    },
    /// Answer to `request-refresh-who-has` (since 2022.6.0).
    RefreshWhoHas {
        /// Holders; lists may be empty.
        who_has: WhoHas<'a>,
        /// Cause.
        stimulus_id: &'a str,
    },
    /// Give a task back.
    StealRequest {
        /// Which.
        key: &'a Key,
        /// Names the request.
        stimulus_id: &'a str,
    },
    /// Change status (since 2022.02.0).
    StatusChange {
        /// `running`, `paused`, `closing_gracefully`.
        status: &'a str,
        /// Cause.
        stimulus_id: &'a str,
    },
    /// Another worker left (since 2023.3.2).
    RemoveWorker {
        /// Its address.
        worker: &'a str,
        /// Cause.
        stimulus_id: &'a str,
    },
    /// Shut down.
    Close {
        /// Sent since 2022.10.1.
        reason: &'a str,
    },
    /// End of the stream.
    CloseStream,
    /// Anything else, composed by the caller for this worker's release: `shuffle-fail`, `pubsub-…`.
    Other(&'a Value),
}

/// `compute-task`.
#[derive(Clone, Debug)]
pub struct ComputeTask<'a> {
    /// Which task.
    pub key: &'a Key,
    /// Which assignment (sent since 2023.1.1).
    pub run_id: i64,
    /// (−user priority, generation, order).
    pub priority: [f64; 3],
    /// Expected seconds (sent up to 2025.1.0).
    pub duration: f64,
    /// What to run.
    pub run_spec: &'a RunSpec,
    /// Whether the worker may be unable to unpickle that: then it is sent so that nothing but the task
    /// fails.
    pub unproven: bool,
    /// Holders of each dependency; no list may be empty.
    pub who_has: WhoHas<'a>,
    /// Size of each dependency in bytes.
    pub nbytes: &'a [(Key, u64)],
    /// Abstract resources it takes.
    pub resource_restrictions: &'a [(Arc<str>, f64)],
    /// Whether the result is an actor.
    pub actor: bool,
    /// msgpack of a map; nothing stands for an empty map.
    pub annotations: Option<&'a [u8]>,
    /// Sent since 2023.6.0.
    pub span_id: Option<&'a str>,
    /// Cause (sent since 2021.10.0).
    pub stimulus_id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_run_spec_takes_four_words_beside_its_body() {
        assert_eq!(size_of::<RunSpec>(), 4 * size_of::<usize>());
    }

    #[test]
    fn a_pickle_is_the_same_in_one_piece_or_two() {
        let whole = Pickle::from(&b"prefix body"[..]);
        let pieces = Pickle {
            prefix: Some(Arc::new(Bytes::from("prefix "))),
            body: (*b"body").into(),
        };
        assert_eq!(whole.to_bytes(), pieces.to_bytes());
        assert_eq!(pieces.pieces(), [&b"prefix "[..], b"body"]);
        assert_eq!(whole.pieces()[0], b"");
    }
}
