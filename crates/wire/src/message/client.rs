//! Stream messages between client and scheduler.

use std::sync::Arc;

use oxidask_key::Key;
use serde::Deserialize;

use super::fields::{self, decode};
use super::{ErrorObject, ExtensionOp, Item};
use crate::error::DecodeError;
use crate::value::Value;

/// Client → scheduler.
#[derive(Clone, Debug, PartialEq)]
pub enum FromClient<'a> {
    /// A graph of pickled tasks (≤ 2.30.1; later releases send it with `tasks: {}` to want known
    /// keys), a pickled `HighLevelGraph` (2023.4.0 – 2025.3.1) or an expression (≥ 2025.4.0).
    UpdateGraph(Item<'a>),
    /// A graph in layers (2020.12.0 – 2023.3.2.1).
    UpdateGraphHlg(Item<'a>),
    /// Keep these results, and tell.
    ClientDesiresKeys {
        /// What.
        keys: Vec<Key>,
        /// For whom, if not for the sender.
        client: Option<&'a str>,
    },
    /// No longer needed.
    ClientReleasesKeys {
        /// What.
        keys: Vec<Key>,
        /// For whom, if not for the sender.
        client: Option<&'a str>,
        /// Cause (since 2022.04.2).
        stimulus_id: Option<&'a str>,
    },
    /// Stop these (since 2023.3.1; before an RPC).
    CancelKeys {
        /// What.
        keys: Vec<Key>,
        /// Also if others want them.
        force: bool,
        /// Since 2025.3.0.
        reason: Option<&'a str>,
        /// Since 2025.3.0.
        msg: Option<&'a str>,
    },
    /// Tell the state of a key.
    ReportKey {
        /// Which.
        key: Key,
    },
    /// Data was put on workers.
    UpdateData {
        /// Holders of each key.
        who_has: Vec<(Key, Vec<String>)>,
        /// Size of each key in bytes.
        nbytes: Vec<(Key, u64)>,
    },
    /// Every 5 s.
    HeartbeatClient,
    /// The client leaves.
    CloseClient,
    /// Forget everything (≤ 2022.7.0; later an RPC).
    Restart {
        /// Seconds.
        timeout: Option<f64>,
    },
    /// Since 2021.09.1.
    SubscribeTopic {
        /// Which.
        topic: &'a str,
    },
    /// Since 2021.09.1.
    UnsubscribeTopic {
        /// Which.
        topic: &'a str,
    },
    /// End of the stream.
    CloseStream,
    /// Queue, Variable, Pub/Sub, published data.
    Extension(ExtensionOp),
    /// An op of no release we know.
    Unknown(Item<'a>),
}

#[derive(Deserialize)]
struct Small<'a> {
    #[serde(default)]
    key: Option<Key>,
    #[serde(default, deserialize_with = "fields::keys")]
    keys: Vec<Key>,
    #[serde(default, borrow)]
    client: Option<&'a str>,
    #[serde(default)]
    force: Option<bool>,
    #[serde(default, borrow)]
    reason: Option<&'a str>,
    #[serde(default, borrow)]
    msg: Option<&'a str>,
    #[serde(default, borrow)]
    topic: Option<&'a str>,
    #[serde(default, borrow)]
    stimulus_id: Option<&'a str>,
}

#[derive(Deserialize)]
struct UpdateData {
    #[serde(default, deserialize_with = "fields::pairs")]
    who_has: Vec<(Key, Vec<String>)>,
    #[serde(default, deserialize_with = "fields::pairs")]
    nbytes: Vec<(Key, u64)>,
}

#[derive(Deserialize)]
struct Restart {
    #[serde(default)]
    timeout: Value,
}

impl<'a> FromClient<'a> {
    /// Reads one item of a client's stream.
    pub fn decode(item: &Item<'a>) -> Result<Self, DecodeError> {
        Ok(match item.op {
            "update-graph" => Self::UpdateGraph(*item),
            "update-graph-hlg" => Self::UpdateGraphHlg(*item),
            "heartbeat-client" => Self::HeartbeatClient,
            "close-client" => Self::CloseClient,
            "close-stream" => Self::CloseStream,
            "update-data" => {
                let UpdateData { who_has, nbytes } = decode(item)?;
                Self::UpdateData { who_has, nbytes }
            }
            "restart" => {
                let Restart { timeout } = decode(item)?;
                Self::Restart {
                    timeout: timeout.as_f64(),
                }
            }
            "client-desires-keys"
            | "client-releases-keys"
            | "cancel-keys"
            | "report-key"
            | "subscribe-topic"
            | "unsubscribe-topic" => Self::small(item)?,
            _ => match ExtensionOp::decode(item)? {
                Some(op) => Self::Extension(op),
                None => Self::Unknown(*item),
            },
        })
    }

    fn small(item: &Item<'a>) -> Result<Self, DecodeError> {
        let Small {
            key,
            keys,
            client,
            force,
            reason,
            msg,
            topic,
            stimulus_id,
        } = decode(item)?;
        let topic = topic.ok_or(DecodeError::Missing("topic"));
        Ok(match item.op {
            "client-desires-keys" => Self::ClientDesiresKeys { keys, client },
            "client-releases-keys" => Self::ClientReleasesKeys {
                keys,
                client,
                stimulus_id,
            },
            "cancel-keys" => Self::CancelKeys {
                keys,
                force: force.unwrap_or_default(),
                reason,
                msg,
            },
            "report-key" => Self::ReportKey {
                key: key.ok_or(DecodeError::Missing("key"))?,
            },
            "subscribe-topic" => Self::SubscribeTopic { topic: topic? },
            _ => Self::UnsubscribeTopic { topic: topic? },
        })
    }
}

/// Scheduler → client, in terms of the newest release.
#[derive(Clone, Debug)]
pub enum ToClient<'a> {
    /// Answer to `register-client`; must be alone in the first batch. 2.x before 2.23 get no texts.
    StreamStart {
        /// Shown as a Python warning unless empty.
        warning: &'a str,
        /// Makes the client raise ImportError unless empty.
        error: &'a str,
    },
    /// A result exists.
    KeyInMemory {
        /// Which.
        key: &'a Key,
        /// Pickled type, when known from the worker.
        type_: Option<&'a [u8]>,
        /// Holders, when told for a scatter or report.
        workers: Option<&'a [Arc<str>]>,
    },
    /// A task failed for good.
    TaskErred {
        /// Which.
        key: &'a Key,
        /// What was raised.
        exception: Option<&'a ErrorObject>,
        /// Where.
        traceback: Option<&'a ErrorObject>,
    },
    /// A failed task runs again.
    TaskRetried {
        /// Which.
        key: &'a Key,
    },
    /// A result is gone.
    LostData {
        /// Which.
        key: &'a Key,
    },
    /// Futures are cancelled. Before 2023.3.1 one `cancelled-key` each.
    CancelledKeys {
        /// Which.
        keys: &'a [Key],
        /// Sent since 2025.3.0.
        reason: Option<&'a str>,
        /// Sent since 2025.3.0.
        msg: Option<&'a str>,
    },
    /// All futures are cancelled.
    Restart,
    /// An entry of the event log (since 2021.09.1).
    Event {
        /// Topic.
        topic: &'a str,
        /// Seconds since the epoch.
        time: f64,
        /// What happened.
        payload: &'a Value,
    },
    /// Since 2025.4.0.
    AdjustHeartbeatInterval {
        /// Seconds.
        interval: f64,
    },
    /// Up to 2025.3.1.
    PubsubMsg {
        /// Topic.
        name: &'a Value,
        /// What was published.
        msg: &'a Value,
    },
    /// Something failed outside of any task; clients log it.
    Error {
        /// What.
        exception: &'a ErrorObject,
    },
    /// The stream ends.
    StreamClosed,
    /// Anything else, composed by the caller.
    Other(&'a Value),
}
