//! Stream operations of the scheduler's extensions; stock accepts them from clients and workers.

use oxidask_key::Key;
use serde::Deserialize;

use super::fields::decode;
use crate::error::DecodeError;
use crate::message::Item;
use crate::value::Value;

/// Queue, Variable, Pub/Sub, published data.
#[derive(Clone, Debug, PartialEq)]
pub enum ExtensionOp {
    /// One user of a queue is gone (`queue_release`).
    QueueRelease {
        /// Queue.
        name: Value,
    },
    /// A client no longer needs a future it got from a queue.
    QueueFutureRelease {
        /// Queue.
        name: Value,
        /// Future.
        key: Key,
    },
    /// `variable_delete`.
    VariableDelete {
        /// Variable.
        name: Value,
    },
    /// A client took over a future it got from a variable: `variable-future-release` (≤ 2024.8.1),
    /// `variable-future-received-confirm` (≥ 2024.8.2).
    VariableFutureReceived {
        /// Variable.
        name: Value,
        /// Future.
        key: Key,
        /// Which hand-over.
        token: Value,
    },
    /// ≤ 2025.3.1.
    PubsubAddSubscriber {
        /// Topic.
        name: Value,
    },
    /// ≤ 2025.3.1; both spellings (`…-subscriber`, `…-subscribers`).
    PubsubRemoveSubscriber {
        /// Topic.
        name: Value,
    },
    /// ≤ 2025.3.1.
    PubsubRemovePublisher {
        /// Topic.
        name: Value,
    },
    /// ≤ 2025.3.1.
    PubsubMsg {
        /// Topic.
        name: Value,
        /// What was published; payloads bound.
        msg: Value,
    },
    /// 2024.4.2 and newer: everything sent before this has arrived.
    PublishFlush {
        /// Names the flush.
        uid: Value,
    },
}

#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    name: Value,
    key: Key,
    token: Value,
    msg: Value,
    uid: Value,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            name: Value::Nil,
            key: Key::None,
            token: Value::Nil,
            msg: Value::Nil,
            uid: Value::Nil,
        }
    }
}

impl ExtensionOp {
    /// Decodes `item` if its op belongs to an extension.
    pub(super) fn decode(item: &Item<'_>) -> Result<Option<Self>, DecodeError> {
        let known = matches!(
            item.op,
            "queue_release"
                | "queue-future-release"
                | "variable_delete"
                | "variable-future-release"
                | "variable-future-received-confirm"
                | "pubsub-add-subscriber"
                | "pubsub-remove-subscriber"
                | "pubsub-remove-subscribers"
                | "pubsub-remove-publisher"
                | "pubsub-msg"
                | "publish_flush_batched_send"
        );
        if !known {
            return Ok(None);
        }
        let Fields {
            name,
            key,
            token,
            msg,
            uid,
        } = decode(item)?;
        Ok(Some(match item.op {
            "queue_release" => Self::QueueRelease { name },
            "queue-future-release" => Self::QueueFutureRelease { name, key },
            "variable_delete" => Self::VariableDelete { name },
            "pubsub-add-subscriber" => Self::PubsubAddSubscriber { name },
            "pubsub-remove-publisher" => Self::PubsubRemovePublisher { name },
            "pubsub-msg" => Self::PubsubMsg {
                name,
                msg: item.message.bind(msg)?,
            },
            "publish_flush_batched_send" => Self::PublishFlush { uid },
            op if op.starts_with("pubsub-remove-subscriber") => {
                Self::PubsubRemoveSubscriber { name }
            }
            _ => Self::VariableFutureReceived { name, key, token },
        }))
    }
}
