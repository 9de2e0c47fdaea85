//! What holds for every value and every message, and for bytes that are neither.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_wire::connection::{Limits, Reader, Writer};
use oxidask_wire::message::client::FromClient;
use oxidask_wire::message::worker::FromWorker;
use oxidask_wire::rpc::Request;
use oxidask_wire::{Generation, Message, Payload, Value};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::from),
        // NaN is not equal to itself.
        any::<f64>()
            .prop_filter("comparable", |f| !f.is_nan())
            .prop_map(Value::Float),
        ".{0,40}".prop_map(Value::Str),
        vec(any::<u8>(), 0..300).prop_map(|b| Value::Bin(b.into())),
    ]
}

fn plain() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec((inner.clone(), inner), 0..6).prop_map(Value::Map),
        ]
    })
}

fn payload() -> impl Strategy<Value = Arc<Payload>> {
    let frames = || vec(vec(any::<u8>(), 0..50).prop_map(Bytes::from), 0..4);
    prop_oneof![
        (frames(), any::<Vec<u8>>()).prop_map(|(b, p)| Payload::pickled(p, b)),
        (frames(), any::<Vec<u8>>()).prop_map(|(b, p)| Payload::pickle_object(p, b)),
        any::<Vec<u8>>().prop_map(Payload::bytes),
    ]
    .prop_map(Arc::new)
}

/// A request-like map with payloads in maps and lists, where every generation can carry them.
fn message() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![3 => plain(), 1 => payload().prop_map(Value::Payload)];
    let inner = leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![vec(inner.clone(), 0..5).prop_map(Value::Array), dict(inner),]
    });
    dict(inner)
}

/// A map as a Python `dict` makes it: no key twice, since the paths of older messages would not
/// tell two entries of one key apart.
fn dict(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    btree_map("[a-z]{1,8}", values, 0..5).prop_map(Value::map::<String, Value>)
}

fn over_the_wire(message: &Message, generation: Generation) -> Message {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(1000);
        let mut writer = Writer::over(ours, generation);
        let mut reader = Reader::over(theirs, generation, Limits::default());
        let (sent, received) = tokio::join!(writer.send(message), reader.read());
        sent.expect("sent");
        received.expect("received")
    })
}

/// The same content, however it is laid out: maps sorted, payloads as pickle or bytes.
fn content(value: &Value) -> Value {
    match value {
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries
                .iter()
                .map(|(k, v)| (k.clone(), content(v)))
                .collect();
            entries.sort_by_cached_key(|(k, v)| (k.encode(), v.encode()));
            Value::Map(entries)
        }
        Value::Array(items) => Value::Array(items.iter().map(content).collect()),
        Value::Payload(payload) => match payload.as_pickle(1 << 20).expect("ours") {
            Some((pickle, buffers)) => Value::array([Value::Bin(pickle), Value::array(buffers)]),
            None => payload.as_plain_bytes(1 << 20).expect("ours").into(),
        },
        other => other.clone(),
    }
}

fn swallow(message: &Message) {
    let _ = message.value();
    let _ = Request::decode(message);
    for item in message.items().map_while(Result::ok) {
        let _ = item.value();
        let _ = FromWorker::decode(&item);
        let _ = FromClient::decode(&item);
    }
    for payload in message.payloads() {
        let _ = payload.as_pickle(1 << 16);
        let _ = payload.as_plain_bytes(1 << 16);
    }
}

proptest! {
    #[test]
    fn values_survive_msgpack(value in plain()) {
        prop_assert_eq!(Value::decode(&value.encode()).expect("ours"), value.clone());
        let serde = rmp_serde::from_slice::<Value>(&value.encode()).expect("ours");
        prop_assert_eq!(serde, value.clone());
        prop_assert_eq!(Bytes::from(rmp_serde::to_vec(&value).expect("ours")), value.encode());
    }

    #[test]
    fn keys_survive(value in plain()) {
        if let Some(key) = value.to_key() {
            prop_assert_eq!(Value::from(&key).to_key(), Some(key));
        }
    }

    #[test]
    fn newer_messages_arrive_as_they_were(value in message()) {
        let message = Message::from_value(&value);
        let arrived = over_the_wire(&message, Generation::M3);
        prop_assert_eq!(&arrived, &message);
        prop_assert_eq!(arrived.value().expect("ours"), value);
    }

    #[test]
    fn older_messages_arrive_with_the_same_content(value in message()) {
        let message = Message::from_value(&value);
        for generation in [Generation::M0, Generation::M1, Generation::M2] {
            let arrived = over_the_wire(&message, generation).value().expect("ours");
            prop_assert_eq!(content(&arrived), content(&value));
        }
    }

    #[test]
    fn random_bytes_make_nothing_panic(
        frames in vec(vec(any::<u8>(), 0..60), 1..5), generation in 0..3usize,
    ) {
        let frames: Vec<Bytes> = frames.into_iter().map(Bytes::from).collect();
        if let Ok(message) = Message::from_frames(frames.clone().into_iter()) {
            swallow(&message);
        }
        let generation = [Generation::M0, Generation::M1, Generation::M2][generation];
        let mut raw = Vec::new();
        if generation == Generation::M2 {
            let sum: usize = frames.iter().map(Bytes::len).sum();
            raw.extend_from_slice(&((8 + 8 * frames.len() + sum) as u64).to_le_bytes());
        }
        raw.extend_from_slice(&(frames.len() as u64).to_le_bytes());
        frames.iter().for_each(|f| raw.extend_from_slice(&(f.len() as u64).to_le_bytes()));
        frames.iter().for_each(|f| raw.extend_from_slice(f));
        let mut reader = Reader::over(std::io::Cursor::new(raw), generation, Limits::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        if let Ok(message) = runtime.block_on(reader.read()) {
            swallow(&message);
        }
    }

    #[test]
    fn changed_messages_make_nothing_panic(
        value in message(), at in any::<prop::sample::Index>(), byte: u8, old: bool,
    ) {
        let generation = if old { Generation::M1 } else { Generation::M3 };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            let (ours, mut theirs) = tokio::io::duplex(1 << 20);
            let mut writer = Writer::over(ours, generation);
            writer.send(&Message::from_value(&value)).await.expect("sent");
            drop(writer);
            let mut raw = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut raw).await.expect("read");
            let at = at.index(raw.len());
            raw[at] = byte;
            let limits = Limits { max_message: 1 << 20, max_frames: 1 << 10 };
            let mut reader = Reader::over(std::io::Cursor::new(raw), generation, limits);
            if let Ok(message) = reader.read().await {
                swallow(&message);
            }
        });
    }
}

#[test]
fn nesting_beyond_the_limit_is_an_error_not_a_crash() {
    for opener in [b'\x91', b'\x81'] {
        let deep = Bytes::from(vec![opener; 1 << 20]);
        assert!(Value::decode(&deep).is_err());
        assert!(rmp_serde::from_slice::<Value>(&deep).is_err());
        let mut item = b"\x91\x82\xa2op\xa9log-event\xa3msg".to_vec();
        item.extend_from_slice(&vec![0x91; 1 << 20]);
        item.push(0xc0);
        let message = Message::from_body(item);
        swallow(&message);
        let decoded = message
            .items()
            .next()
            .expect("one")
            .map(|item| FromWorker::decode(&item).is_err());
        assert!(decoded.unwrap_or(true));
    }
}

#[test]
fn a_promise_of_billions_costs_nothing() {
    for lie in [
        &b"\xdd\xff\xff\xff\xff"[..],
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
    ] {
        assert!(Value::decode(&Bytes::from_static(lie)).is_err());
        let message = Message::from_body(lie);
        assert!(message.items().next().is_none_or(|item| item.is_err()));
    }
}
