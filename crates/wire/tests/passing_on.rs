//! What peers send is passed on to others of older releases, whose readers are strict: it arrives in order, or is refused
//! before anything is written.

use bytes::Bytes;
use oxidask_wire::error::DecodeError;
use oxidask_wire::{Generation, Message, Payload, Value};

const OLD: Generation = Generation::M1;
const LIMIT: usize = 1 << 20;

/// The message as a peer of an older release reads it.
fn passed_on(value: &Value) -> Result<Value, DecodeError> {
    let frames = Message::from_value(value).frames_for(OLD)?;
    let arrived = Message::from_frames_of(OLD, frames, LIMIT).expect("readable");
    arrived.value()
}

/// `{data: …}` with a payload, and its frames as an older release has them.
fn frames_of(header: Value, frames: &[&'static str]) -> Vec<Bytes> {
    let frames = frames.iter().map(|frame| Bytes::from(*frame)).collect();
    let value = Value::map([("data", Payload::serialized(header, frames))]);
    let arrived = passed_on(&value).expect("passed on");
    let payload = arrived.get("data").and_then(Value::as_payload);
    payload
        .expect("a payload")
        .logical_frames(LIMIT)
        .expect("valid")
}

fn split(counts: &[u32]) -> Value {
    let counts = Value::array(counts.iter().copied());
    Value::map([
        ("serializer", Value::from("dask")),
        ("split-num-sub-frames", counts),
    ])
}

fn bytes(text: &'static str) -> Value {
    Payload::bytes(text).into()
}

fn text_of(value: Option<&Value>) -> Bytes {
    let payload = value.and_then(Value::as_payload).expect("a payload");
    let bytes = payload.as_plain_bytes(LIMIT).expect("valid");
    bytes.expect("bytes")
}

/// The old form has only the lengths of frames: an empty piece behind a whole frame would belong to nobody.
#[test]
fn empty_pieces_of_split_frames_are_left_out() {
    assert_eq!(frames_of(split(&[2]), &["abc", ""]), ["abc"]);
    assert_eq!(frames_of(split(&[2]), &["", ""]), [""]);
    assert_eq!(
        frames_of(split(&[3, 2]), &["", "ab", "", "", "c"]),
        ["ab", "c"]
    );
}

#[test]
fn a_frame_of_no_pieces_is_an_empty_one() {
    assert_eq!(frames_of(split(&[0]), &[]), [""]);
    assert_eq!(
        frames_of(split(&[1, 0, 1, 1]), &["a", "", "b"]),
        ["a", "", "", "b"]
    );
}

#[test]
fn frames_that_no_header_has_a_use_for_are_left_out() {
    assert_eq!(frames_of(split(&[1]), &["a", "unused"]), ["a"]);
    assert_eq!(frames_of(split(&[]), &["unused"]), [] as [&str; 0]);
}

/// Python's `dict` takes the last one, and so do we; no path could tell them apart.
#[test]
fn an_entry_that_is_there_twice_is_sent_once() {
    let twice = |first, second| Value::Map(vec![("k".into(), first), ("k".into(), second)]);
    let arrived = passed_on(&twice(bytes("first"), bytes("second"))).expect("passed on");
    assert_eq!(text_of(arrived.get("k")), "second");

    let list = |text| Value::array([bytes(text)]);
    let arrived = passed_on(&twice(list("first"), list("second"))).expect("passed on");
    let list_of = |value: &Value| value.get("k").and_then(Value::as_seq).map(<[_]>::to_vec);
    assert_eq!(
        text_of(list_of(&arrived).expect("a list").first()),
        "second"
    );

    let arrived = passed_on(&twice(5.into(), list("only"))).expect("passed on");
    assert_eq!(text_of(list_of(&arrived).expect("a list").first()), "only");
    let arrived = passed_on(&twice(list("none"), 5.into()));
    assert_eq!(arrived.expect("passed on"), Value::map([("k", 5)]));
}

/// What no path goes through is nobody's business.
#[test]
fn entries_beside_objects_stay_as_they_are() {
    let odd = Value::Map(vec![(Value::Nil, 1.into()), (Value::Nil, 2.into())]);
    let arrived = passed_on(&Value::map([("odd", odd.clone()), ("data", bytes("x"))]));
    assert_eq!(arrived.expect("passed on").get("odd"), Some(&odd));
}

#[test]
fn keys_that_python_holds_for_one_are_one() {
    let keys = [
        Value::Int(0),
        Value::Bool(false),
        Value::Float(0.0),
        Value::Float(-0.0),
    ];
    let entries = keys.map(|key| (Value::array([key]), Value::array([bytes("x")])));
    let arrived = passed_on(&Value::Map(entries.to_vec())).expect("passed on");
    assert_eq!(arrived.as_map().map(<[_]>::len), Some(1));
}

#[test]
fn objects_that_no_path_leads_to_are_refused() {
    let mut deep = Value::Nil;
    for _ in 0..100 {
        deep = Value::array([deep]);
    }
    let keys = [
        Value::Float(f64::NAN),
        Value::Map(Vec::new()),
        bytes("key"),
        deep,
    ];
    for key in keys {
        let value = Value::Map(vec![(key.clone(), Value::array([bytes("x")]))]);
        assert!(passed_on(&value).is_err(), "{key:?}");
    }
}

/// It lies two levels deeper in the header of the old form.
#[test]
fn heads_that_would_be_nested_too_deeply_are_refused() {
    let mut deep = Value::Nil;
    for _ in 0..510 {
        deep = Value::array([deep]);
    }
    let value = |deep| {
        let header = Value::map([("deep", deep)]);
        Value::map([("data", Payload::serialized(header, Vec::new()))])
    };
    let error = passed_on(&value(deep.clone())).expect_err("too deep");
    assert!(matches!(error, DecodeError::TooDeep), "{error}");
    let Value::Array(mut less) = deep else {
        panic!("an array")
    };
    passed_on(&value(less.remove(0))).expect("passed on");
}

/// What a header lies about is put in order as well.
#[test]
fn compressed_frames_with_others_behind_them_get_plain() {
    let plain = Bytes::from(vec![7u8; 1000]);
    let packed = Bytes::from(lz4_flex::block::compress_prepend_size(&plain));
    let header = Value::map([
        ("serializer", Value::from("dask")),
        ("type", "bytes".into()),
        ("split-num-sub-frames", Value::array([1])),
        ("compression", Value::array(["lz4"])),
    ]);
    let payload = Payload::serialized(header, vec![packed, Bytes::from("unused")]);
    let arrived = passed_on(&Value::map([("data", payload)])).expect("passed on");
    assert_eq!(text_of(arrived.get("data")), plain);
}

/// `{headers: {["data"]: head}, keys: [["data"]]}` of an older peer, and frames.
fn from_an_older_peer(head: Value, frames: &[&'static str]) -> Result<Message, DecodeError> {
    let path = Value::array(["data"]);
    let header = Value::map([
        ("headers", Value::Map(vec![(path.clone(), head)])),
        ("keys", Value::array([path])),
    ]);
    let mut all = vec![
        Bytes::new(),
        Value::Map(Vec::new()).encode(),
        header.encode(),
    ];
    all.extend(frames.iter().map(|frame| Bytes::from(*frame)));
    Message::from_frames_of(OLD, all, LIMIT)
}

/// And the other way round: newer readers go by the last number of frames that a header has.
#[test]
fn what_older_peers_send_is_in_order_for_newer_ones() {
    let number = || (Value::from("num-sub-frames"), Value::Int(7));
    let head = vec![number(), ("count".into(), 1.into()), number(), number()];
    let message = from_an_older_peer(Value::Map(head), &["x"]).expect("valid");
    let frames: Vec<Bytes> = message.frames().cloned().collect();
    let arrived = Message::from_frames(frames.into_iter()).expect("readable");
    assert_eq!(arrived, message);

    let error = from_an_older_peer(Value::Nil, &[]).expect_err("no head");
    assert!(error.to_string().contains("head is not a map"), "{error}");
}

/// One payload that has many markers would be written as many times.
#[test]
fn markers_stand_for_no_more_than_was_sent() {
    let payload = Payload::serialized(split(&[3]), vec![Bytes::new(); 3]);
    let value = Value::array([Value::from(payload), bytes("other")]);
    let sent = Message::from_value(&value);
    assert_eq!(sent.value().expect("as it was composed"), value);
    let marker = Value::map([("__Serialized__", Value::from(1))]);
    let body = Value::array(vec![marker; 3]).encode();
    let frames = std::iter::once(body).chain(sent.frames().skip(1).cloned());
    let frames = frames.collect::<Vec<Bytes>>().into_iter();
    let message = Message::from_frames(frames).expect("its frames are in order");
    let error = message.value().expect_err("three times what was sent once");
    assert!(matches!(error, DecodeError::Frames(_)), "{error}");
}
