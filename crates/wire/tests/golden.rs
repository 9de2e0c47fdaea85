//! Every message recorded from stock peers (`protocol/vectors`, made by `cargo xtask record`) is
//! read, understood and written again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use oxidask_wire::connection::{Limits, Reader, Writer};
use oxidask_wire::handshake::Handshake;
use oxidask_wire::message::ErrorObject;
use oxidask_wire::message::client::FromClient;
use oxidask_wire::message::worker::FromWorker;
use oxidask_wire::rpc::Request;
use oxidask_wire::{Generation, Message, Release, Value};
use serde::Deserialize;

#[derive(Deserialize)]
struct Index {
    release: String,
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    file: String,
    from: String,
    kind: String,
    ops: Vec<String>,
    #[serde(skip)]
    release: String,
    #[serde(skip)]
    raw: Vec<u8>,
}

impl Sample {
    fn generation(&self) -> Generation {
        Generation::of(&Release::parse(&self.release).expect("release in index.json"))
    }

    fn name(&self) -> String {
        format!("{}/{}", self.release, self.file)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocol/vectors")
}

fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    for release in ["2.30.1", "2022.12.0", "2026.8.0"] {
        let folder = folder().join(release);
        let text = std::fs::read_to_string(folder.join("index.json")).expect("recorded samples");
        let index: Index = serde_json::from_str(&text).expect("index.json");
        assert_eq!(index.release, release);
        assert!(
            index.samples.len() > 100,
            "{release}: {} samples",
            index.samples.len()
        );
        for mut sample in index.samples {
            sample.raw = std::fs::read(folder.join(&sample.file)).expect(&sample.file);
            sample.release = release.to_owned();
            all.push(sample);
        }
    }
    all
}

async fn read(raw: &[u8], generation: Generation) -> Message {
    let mut reader = Reader::over(
        std::io::Cursor::new(raw.to_vec()),
        generation,
        Limits::default(),
    );
    let message = reader.read().await.expect("recorded message");
    assert!(reader.read().await.is_err(), "one message per sample");
    message
}

async fn write(message: &Message, generation: Generation) -> Vec<u8> {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    let mut writer = Writer::over(ours, generation);
    writer.send(message).await.expect("to memory");
    drop(writer);
    let mut out = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut out)
        .await
        .expect("from memory");
    out
}

#[tokio::test]
async fn every_sample_is_written_again_as_it_was() {
    for sample in samples() {
        let generation = sample.generation();
        let message = read(&sample.raw, generation).await;
        let again = write(&message, generation).await;
        if generation == Generation::M3 {
            // Passed on byte for byte, but for the number in front, which newer peers set to less
            // than the total when the message is large.
            assert_eq!(again[8..], sample.raw[8..], "{}", sample.name());
        } else if message.payloads().len() == 0 {
            assert_eq!(again, sample.raw, "{}", sample.name());
        } else {
            // Lifted objects may come in another order; what they are must not change.
            let read_again = read(&again, generation).await;
            let name = sample.name();
            assert_eq!(
                sorted(read_again.value().expect(&name)),
                sorted(message.value().expect(&name)),
                "{name}"
            );
        }
    }
}

/// Maps in a fixed order: putting lifted objects back moves them to the end.
fn sorted(value: Value) -> Value {
    match value {
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            entries.sort_by_key(|(k, _)| k.encode());
            Value::Map(entries)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Payload(p) => Value::array([
            sorted(p.header().expect("header")),
            Value::array(p.frames().iter().cloned()),
        ]),
        other => other,
    }
}

#[tokio::test]
async fn every_sample_survives_the_round_trip_through_values() {
    for sample in samples() {
        let message = read(&sample.raw, sample.generation()).await;
        let name = sample.name();
        let value = message.value().expect(&name);
        let again = Message::from_value(&value);
        assert_eq!(again.value().expect("ours"), value, "{name}");
        if sample.generation() == Generation::M3 {
            assert_eq!(again, message, "{name}: stock writes msgpack as we do");
        }
    }
}

#[tokio::test]
async fn handshakes_name_the_interpreter() {
    let mut seen = 0;
    for sample in samples().iter().filter(|s| s.kind == "handshake") {
        let message = read(&sample.raw, sample.generation()).await;
        let name = sample.name();
        let handshake = Handshake::from_message(&message).expect(&name);
        assert_eq!(handshake.python.first(), Some(&3));
        assert_eq!(handshake.capabilities, None);
        assert!((4..=5).contains(&handshake.pickle_protocol));
        seen += 1;
    }
    assert!(seen >= 12);
}

#[tokio::test]
async fn requests_are_understood_and_written_again() {
    let mut seen = 0;
    for sample in samples().iter().filter(|s| s.kind == "request") {
        let message = read(&sample.raw, sample.generation()).await;
        let name = sample.name();
        let request = Request::decode(&message).expect(&name);
        assert_eq!(request.op, sample.ops[0]);
        assert!(request.args.get("op").is_none() && request.args.get("reply").is_none());
        assert_eq!(
            Request::decode(&request.to_message()).expect("ours"),
            request
        );
        seen += 1;
    }
    assert!(seen > 150, "{seen}");
}

#[tokio::test]
async fn every_stream_operation_of_workers_has_a_type() {
    let mut finished = 0;
    for sample in samples()
        .iter()
        .filter(|s| s.kind == "stream" && s.from == "worker")
    {
        let message = read(&sample.raw, sample.generation()).await;
        let ops: Vec<String> = message
            .items()
            .map(|item| item.expect("item").op.to_owned())
            .collect();
        assert_eq!(ops, sample.ops, "{}", sample.name());
        for item in message.items() {
            let name = sample.name();
            match FromWorker::decode(&item.expect("item")).expect(&name) {
                FromWorker::Unknown(item) => panic!("{name}: {} is unknown", item.op),
                FromWorker::TaskFinished(task) => {
                    finished += 1;
                    assert!(task.nbytes.is_some_and(|n| n > 0), "{name}");
                    assert!(task.type_.is_some_and(|t| t.starts_with(b"\x80")), "{name}");
                    assert!(!task.startstops.unwrap_or_default().is_empty(), "{name}");
                    assert_eq!(
                        task.run_id.is_some(),
                        sample.release == "2026.8.0",
                        "{name}"
                    );
                    assert_eq!(
                        task.stimulus_id.is_some(),
                        sample.release != "2.30.1",
                        "{name}"
                    );
                }
                FromWorker::TaskErred(task) => {
                    let Some(ErrorObject::Payload(payload)) = task.exception else {
                        panic!("{name}: the exception is a lifted object");
                    };
                    let pickle = if sample.release == "2.30.1" {
                        payload
                            .as_pickle(1 << 20)
                            .expect(&name)
                            .map(|(pickle, _)| pickle)
                    } else {
                        assert!(task.exception_text.contains("ZeroDivisionError"), "{name}");
                        payload.as_plain_bytes(1 << 20).expect(&name)
                    };
                    let pickle = pickle.expect("an exception");
                    assert!(contains(&pickle, b"ZeroDivisionError"), "{name}");
                }
                _ => {}
            }
        }
    }
    assert!(finished >= 3);
}

fn contains(haystack: &Bytes, needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[tokio::test]
async fn every_stream_operation_of_clients_has_a_type() {
    let mut graphs = 0;
    let clients = ["client", "worker-client"];
    let all = samples();
    for sample in all
        .iter()
        .filter(|s| s.kind == "stream" && clients.contains(&s.from.as_str()))
    {
        let message = read(&sample.raw, sample.generation()).await;
        for item in message.items() {
            let name = sample.name();
            match FromClient::decode(&item.expect("item")).expect(&name) {
                FromClient::Unknown(item) => panic!("{name}: {} is unknown", item.op),
                FromClient::UpdateGraph(item) | FromClient::UpdateGraphHlg(item) => {
                    graphs += 1;
                    let graph = item.value().expect(&name);
                    assert!(
                        graph.get("keys").and_then(Value::to_keys).is_some(),
                        "{name}"
                    );
                    if sample.release == "2026.8.0" {
                        let expr = graph
                            .get("expr_ser")
                            .and_then(Value::as_payload)
                            .expect(&name);
                        let (pickle, _) = expr.as_pickle(1 << 20).expect(&name).expect(&name);
                        assert!(contains(&pickle, b"_reconstruct"), "{name}");
                    }
                }
                _ => {}
            }
        }
    }
    assert!(graphs > 20, "{graphs}");
}

#[tokio::test]
async fn messages_cut_or_changed_anywhere_are_errors_or_other_messages() {
    for sample in samples().iter().filter(|s| s.raw.len() < 2000) {
        let generation = sample.generation();
        let step = (sample.raw.len() / 23).max(1);
        for at in (0..sample.raw.len()).step_by(step) {
            for flip in [0x01u8, 0x80, 0xff] {
                let mut raw = sample.raw.clone();
                raw[at] ^= flip;
                let limits = Limits {
                    max_message: 1 << 20,
                    max_frames: 1000,
                };
                let mut reader = Reader::over(std::io::Cursor::new(raw), generation, limits);
                let Ok(message) = reader.read().await else {
                    continue;
                };
                let _ = message.value();
                let _ = Request::decode(&message);
                for item in message.items().map_while(Result::ok) {
                    let _ = FromWorker::decode(&item);
                    let _ = FromClient::decode(&item);
                }
                for payload in message.payloads() {
                    let payload = Arc::clone(payload);
                    let _ = payload.as_pickle(1 << 20);
                    let _ = payload.as_plain_bytes(1 << 20);
                }
                let _ = write(&message, generation).await;
            }
            let mut cut = Reader::over(
                std::io::Cursor::new(sample.raw[..at].to_vec()),
                generation,
                Limits::default(),
            );
            assert!(cut.read().await.is_err(), "{} cut at {at}", sample.name());
        }
    }
}
