//! Messages of a client's stream → events of the core, and what is to be done besides.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_scheduler_core::event::{DataPlacement, Event};
use oxidask_scheduler_core::ids::ClientId;
use oxidask_wire::error::DecodeError;
use oxidask_wire::message::Item;
use oxidask_wire::message::client::FromClient;
use oxidask_wire::value::Value;

use crate::aside::aside;
use crate::clients::ClientEntry;
use crate::clock;
use crate::context::Context;

/// Keys that are released in one event.
pub(super) const RELEASED_AT_ONCE: usize = 500;

/// What one message asks for, besides events.
pub(super) enum Step {
    /// Nothing else.
    Continue,
    /// A graph to be taken in before anything that follows.
    Graph(Value),
    /// The client wants so many results no more that others must have a chance meanwhile.
    Release {
        client: ClientId,
        keys: Vec<Key>,
        stimulus_id: Arc<str>,
    },
    /// Another op, served by a handler; a map with `op`.
    Handler(Value),
    /// `restart` of releases up to 2022.7.0.
    Restart { timeout: Option<f64> },
    /// The client lives.
    Heartbeat,
    /// The client leaves.
    Close,
}

/// Turns one item of the client's stream into events, and what is to be done besides.
///
/// # Errors
/// When the item is not a message that a client may send.
pub(super) fn step(
    context: &Context,
    client: &ClientEntry,
    item: &Item<'_>,
    events: &mut Vec<Event>,
) -> Result<Step, DecodeError> {
    let stimulus = |op: &str| -> Arc<str> { clock::now().name(op) };
    // Interests may be declared for a pseudo client, such as `fire-and-forget`.
    let whom = |name: Option<&str>| -> ClientId {
        match name {
            Some(name) if name != &*client.name => context.clients.pseudo(&context.core, name),
            _ => client.id,
        }
    };
    let event = match aside(item.raw.len() / 100, || FromClient::decode(item))? {
        FromClient::UpdateGraph(item) | FromClient::UpdateGraphHlg(item) => {
            return Ok(Step::Graph(aside(item.raw.len() / 100, || item.value())?));
        }
        FromClient::ClientDesiresKeys { keys, client } => Event::ClientDesiresKeys {
            client: whom(client),
            keys,
        },
        FromClient::ClientReleasesKeys {
            keys,
            client,
            stimulus_id,
        } => {
            let client = whom(client);
            let stimulus_id = match stimulus_id {
                Some(id) => id.into(),
                None => stimulus("client-releases-keys"),
            };
            if keys.len() > RELEASED_AT_ONCE {
                return Ok(Step::Release {
                    client,
                    keys,
                    stimulus_id,
                });
            }
            Event::ClientReleasesKeys {
                client,
                keys,
                stimulus_id,
            }
        }
        FromClient::CancelKeys {
            keys,
            force,
            reason,
            msg,
        } => {
            log_cancel(client, &keys, force);
            Event::CancelKeys {
                client: client.id,
                keys,
                force,
                reason: reason.map(Arc::from),
                msg: msg.map(Arc::from),
                stimulus_id: stimulus("cancel-keys"),
            }
        }
        FromClient::ReportKey { key } => Event::ReportKey {
            client: client.id,
            key,
        },
        FromClient::UpdateData { who_has, nbytes } => Event::UpdateData {
            data: placements(who_has, nbytes),
            client: Some(client.id),
            stimulus_id: stimulus("update-data"),
        },
        FromClient::HeartbeatClient => return Ok(Step::Heartbeat),
        FromClient::CloseClient | FromClient::CloseStream => return Ok(Step::Close),
        FromClient::Restart { timeout } => return Ok(Step::Restart { timeout }),
        FromClient::SubscribeTopic { .. }
        | FromClient::UnsubscribeTopic { .. }
        | FromClient::Extension(_)
        | FromClient::Unknown(_) => return Ok(Step::Handler(item.value()?)),
    };
    events.push(event);
    Ok(Step::Continue)
}

/// The log lines that people look for when futures are cancelled; not one for each of very many.
fn log_cancel(client: &ClientEntry, keys: &[Key], force: bool) {
    const MAX_LINES: usize = 1000;
    tracing::info!(target: "distributed.scheduler", "Client {} requests to cancel {} keys", client.name, keys.len());
    for key in keys.iter().take(MAX_LINES) {
        tracing::info!(target: "distributed.scheduler", "Scheduler cancels key {key}.  Force={force}");
    }
}

/// Joins holders and sizes by key; a key without a size counts as empty.
pub(crate) fn placements(
    who_has: Vec<(Key, Vec<String>)>,
    nbytes: Vec<(Key, u64)>,
) -> Vec<DataPlacement> {
    let sizes: std::collections::HashMap<_, _> = nbytes.into_iter().collect();
    who_has
        .into_iter()
        .map(|(key, holders)| DataPlacement {
            nbytes: sizes.get(&key).copied().unwrap_or(0),
            who_has: holders
                .iter()
                .map(|holder| holder.as_str().into())
                .collect(),
            key,
        })
        .collect()
}
