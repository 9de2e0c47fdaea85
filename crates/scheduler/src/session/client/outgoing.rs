//! Effects of the core → messages of a client's stream.

use bytes::Bytes;
use oxidask_scheduler_core::effect::{ClientMsg, TaskError};
use oxidask_wire::message::ErrorObject;
use oxidask_wire::message::client::ToClient;
use oxidask_wire::release::Release;

use crate::exceptions;

/// What a [`ToClient`] made from an effect borrows from, besides the effect.
pub(super) enum Prepared<'a> {
    /// As it is.
    Plain(&'a ClientMsg),
    /// An exception that the scheduler itself made for this client's release.
    Raised(&'a oxidask_key::Key, ErrorObject),
}

/// Makes the exceptions of the scheduler itself for the client's release.
pub(super) fn prepare(effect: &ClientMsg, release: Release) -> Prepared<'_> {
    match effect {
        ClientMsg::TaskErred { key, error } if !matches!(error, TaskError::Remote { .. }) => {
            Prepared::Raised(key, exceptions::of_task(error, release))
        }
        _ => Prepared::Plain(effect),
    }
}

/// The message that tells a client what the core wants.
pub(super) fn message<'a>(prepared: &'a Prepared<'_>) -> ToClient<'a> {
    let effect = match prepared {
        Prepared::Raised(key, exception) => {
            return ToClient::TaskErred {
                key,
                exception: Some(exception),
                traceback: None,
            };
        }
        Prepared::Plain(effect) => *effect,
    };
    match effect {
        ClientMsg::KeyInMemory { key, type_ } => ToClient::KeyInMemory {
            key,
            type_: type_
                .as_ref()
                .and_then(|type_| type_.get::<Bytes>())
                .map(|type_| &type_[..]),
            workers: None,
        },
        ClientMsg::TaskErred { key, error } => {
            let (exception, traceback) = match error {
                TaskError::Remote {
                    exception,
                    traceback,
                    ..
                } => (
                    exception.get::<ErrorObject>(),
                    traceback.as_ref().and_then(|t| t.get::<ErrorObject>()),
                ),
                _ => (None, None),
            };
            ToClient::TaskErred {
                key,
                exception,
                traceback,
            }
        }
        ClientMsg::TaskRetried { key } => ToClient::TaskRetried { key },
        ClientMsg::LostData { key } => ToClient::LostData { key },
        ClientMsg::CancelledKeys { keys, reason, msg } => ToClient::CancelledKeys {
            keys,
            reason: reason.as_deref(),
            msg: msg.as_deref(),
        },
        ClientMsg::Restart => ToClient::Restart,
    }
}
