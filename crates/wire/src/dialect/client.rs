//! Composing the stream operations of clients.

use super::worker::{op, optional_text, text};
use super::{Dialect, begin_batch, finish_batch};
use crate::message::client::ToClient;
use crate::message::{Composer, Message};
use crate::msgpack::Writer;

impl Dialect {
    /// One transport message for a client of this release. What the release has no operation for is
    /// left out.
    pub fn encode_client_batch(&self, batch: &[ToClient<'_>]) -> Message {
        let mut composer = begin_batch();
        let mut count = 0;
        for item in batch {
            count += self.client_item(&mut composer, item);
        }
        finish_batch(composer, count)
    }

    /// Appends one operation; returns how many messages it became.
    fn client_item(&self, c: &mut Composer, item: &ToClient<'_>) -> u32 {
        let w = &mut c.out;
        match item {
            ToClient::StreamStart { warning, error } => {
                op(w, "stream-start", 2);
                text(w, "warning", warning);
                text(w, "error", error);
            }
            ToClient::KeyInMemory {
                key,
                type_,
                workers,
            } => {
                op(
                    w,
                    "key-in-memory",
                    1 + usize::from(type_.is_some()) + usize::from(workers.is_some()),
                );
                w.str("key");
                w.key(key);
                if let Some(type_) = type_ {
                    w.str("type");
                    w.bin(type_);
                }
                if let Some(workers) = workers {
                    w.str("workers");
                    w.array(workers.len());
                    workers.iter().for_each(|address| w.str(address));
                }
            }
            ToClient::TaskErred {
                key,
                exception,
                traceback,
            } => {
                op(w, "task-erred", 3);
                w.str("key");
                w.key(key);
                w.str("exception");
                self.error_object(c, *exception);
                c.out.str("traceback");
                self.error_object(c, *traceback);
            }
            ToClient::TaskRetried { key } => one_key(w, "task-retried", key),
            ToClient::LostData { key } => one_key(w, "lost-data", key),
            ToClient::CancelledKeys { keys, reason, msg } => {
                return self.cancelled_keys(w, keys, *reason, *msg);
            }
            ToClient::Restart => op(w, "restart", 0),
            ToClient::Event {
                topic,
                time,
                payload,
            } if self.event => {
                op(w, "event", 2);
                text(w, "topic", topic);
                w.str("event");
                w.array(2);
                w.float(*time);
                c.value(payload);
            }
            ToClient::AdjustHeartbeatInterval { interval } if self.adjust_heartbeat => {
                op(w, "adjust-heartbeat-interval", 1);
                w.str("interval");
                w.float(*interval);
            }
            ToClient::PubsubMsg { name, msg } if self.pubsub => {
                op(w, "pubsub-msg", 2);
                w.str("name");
                c.value(name);
                c.out.str("msg");
                c.value(msg);
            }
            ToClient::Error { exception } => {
                op(w, "error", 1);
                w.str("exception");
                self.error_object(c, Some(exception));
            }
            ToClient::StreamClosed => op(w, "stream-closed", 0),
            ToClient::Other(value) => c.value(value),
            ToClient::Event { .. }
            | ToClient::AdjustHeartbeatInterval { .. }
            | ToClient::PubsubMsg { .. } => return 0,
        }
        1
    }

    fn cancelled_keys(
        &self,
        w: &mut Writer,
        keys: &[oxidask_key::Key],
        reason: Option<&str>,
        msg: Option<&str>,
    ) -> u32 {
        if !self.cancelled_keys {
            keys.iter().for_each(|key| one_key(w, "cancelled-key", key));
            return u32::try_from(keys.len()).unwrap_or(u32::MAX);
        }
        op(
            w,
            "cancelled-keys",
            if self.cancelled_reason { 3 } else { 1 },
        );
        w.str("keys");
        w.keys(keys);
        if self.cancelled_reason {
            w.str("reason");
            optional_text(w, reason);
            w.str("msg");
            optional_text(w, msg);
        }
        1
    }
}

fn one_key(w: &mut Writer, name: &str, key: &oxidask_key::Key) {
    op(w, name, 1);
    w.str("key");
    w.key(key);
}
