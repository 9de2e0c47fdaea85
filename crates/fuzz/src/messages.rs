//! Messages of peers of every generation, and that they can be sent on to others of every
//! generation.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_graph::Limits;
use oxidask_graph::intake::packed::{Input, expand};
use oxidask_wire::connection::{Reader, Writer};
use oxidask_wire::handshake::Handshake;
use oxidask_wire::message::client::FromClient;
use oxidask_wire::message::worker::FromWorker;
use oxidask_wire::rpc::Request;
use oxidask_wire::{Generation, Message, Payload, Value};
use tokio::io::duplex;

use crate::frames::LIMITS;
use crate::{choice, pieces, run};

const GENERATIONS: [Generation; 4] = [
    Generation::M0,
    Generation::M1,
    Generation::M2,
    Generation::M3,
];

/// Bytes that a payload may have when it is unpacked.
const UNPACKED: usize = 1 << 16;

/// What a native graph intake may take.
pub(crate) const INTAKE: Limits = Limits {
    max_nodes: 1 << 18,
    max_output: 4 << 20,
    max_steps: 1 << 20,
};

/// The first byte chooses sender's and receiver's generation, the rest is the sender's frames.
pub fn messages(data: &[u8]) {
    let (way, data) = choice(data);
    let frames = pieces(data);
    let (from, to) = (way & 3, way >> 2 & 3);
    let generation = |number: u8| GENERATIONS[usize::from(number)];
    let Some(message) = arrive(&frames, generation(from)) else {
        return;
    };
    swallow(&message);
    if let Ok(value) = message.value() {
        send_on(&value, generation(to));
    }
}

/// The message as it comes out of a reader.
fn arrive(frames: &[Bytes], generation: Generation) -> Option<Message> {
    let mut raw = Vec::new();
    let mut word = |number: usize| raw.extend_from_slice(&(number as u64).to_le_bytes());
    let sum: usize = frames.iter().map(Bytes::len).sum();
    if generation.has_total_length() {
        word(8 + 8 * frames.len() + sum);
    }
    word(frames.len());
    frames.iter().for_each(|frame| word(frame.len()));
    frames.iter().for_each(|frame| raw.extend_from_slice(frame));
    let mut reader = Reader::over(std::io::Cursor::new(raw), generation, LIMITS);
    run(reader.read()).ok()
}

/// What was understood can be said, and is understood again.
fn send_on(value: &Value, generation: Generation) {
    let message = Message::from_value(value);
    assert_eq!(
        message
            .value()
            .map_err(|error| error.to_string())
            .as_ref()
            .map(Value::encode),
        Ok(value.encode()),
        "bytes of our own"
    );
    run(async {
        let (near, far) = duplex(1 << 12);
        let mut writer = Writer::over(near, generation);
        let limits = oxidask_wire::connection::Limits::default();
        let mut reader = Reader::over(far, generation, limits);
        let send = async {
            let sent = writer.send(&message).await;
            drop(writer);
            sent
        };
        let (sent, received) = tokio::join!(send, reader.read());
        if sent.is_ok() {
            let received = received.expect("a message of our own");
            swallow(&received);
        }
    });
}

/// Everything that is done with a message.
pub(crate) fn swallow(message: &Message) {
    let _ = Request::decode(message);
    let _ = Handshake::from_message(message);
    for item in message.items().map_while(Result::ok) {
        let _ = item.value();
        let _ = FromWorker::decode(&item);
        let _ = FromClient::decode(&item);
    }
    for payload in message.payloads() {
        let _ = payload.as_pickle(UNPACKED);
        let _ = payload.as_plain_bytes(UNPACKED);
        let _ = payload.to_serialized();
    }
    let Ok(value) = message.value() else { return };
    if let Some(key) = value.get("key").and_then(Value::to_key) {
        let _ = (key.prefix(), key.group(), key.repr());
        assert_eq!(Value::from(&key).to_key(), Some(key), "keys survive");
    }
    if let Some(hlg) = value.get("hlg").and_then(input) {
        let _ = expand(&hlg, INTAKE);
    }
}

fn input(value: &Value) -> Option<Input<Arc<Payload>>> {
    Some(match value {
        Value::Nil => Input::Nil,
        Value::Bool(flag) => Input::Bool(*flag),
        Value::Int(number) => Input::Int(*number),
        Value::UInt(_) => return None,
        Value::Float(number) => Input::Float(*number),
        Value::Str(text) => Input::Str(text.clone()),
        Value::Bin(bytes) => Input::Bin(bytes.clone()),
        Value::Payload(payload) => Input::Payload(Arc::clone(payload)),
        Value::Array(items) => Input::Array(items.iter().map(input).collect::<Option<_>>()?),
        Value::Map(entries) => {
            let entry = |(key, value): &(Value, Value)| Some((input(key)?, input(value)?));
            Input::Map(entries.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}
