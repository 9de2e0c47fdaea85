//! Passing results on to the client as they come.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_wire::connection::Writer;
use oxidask_wire::error::WriteError;
use oxidask_wire::message::Message;
use oxidask_wire::value::Value;

use super::search::{Frames, Part};
use super::succession::{Layout, Progress, Succession};
use super::{answer, find, missing, order};
use crate::context::Context;
use crate::peers::PeerError;
use crate::rpc::{self, Call, RpcError};

/// Why a client did not get its whole answer; its connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// A worker went away in the middle of its data, whose lengths the client has been told, and
    /// nobody has the same.
    #[error("a worker went away while its data were passed on, and nobody else has the same: {0}")]
    Worker(#[from] PeerError),
    /// The client went away.
    #[error(transparent)]
    Client(#[from] WriteError),
}

/// `gather` for clients of releases from 2021.03.1 on, which speak the form we keep: one answer whose
/// frames go from the workers' connections to the client's, one worker after the other, as fast as
/// the client takes them. The bytes sent.
///
/// # Errors
/// See [`ForwardError`]; requests that make no sense are answered.
pub async fn forward(
    context: Arc<Context>,
    call: Call,
    writer: &mut Writer,
) -> Result<usize, ForwardError> {
    let limit = context.settings.max_error_length;
    let failed = |error: RpcError| match error {
        RpcError::Forward(map) => map,
        error => rpc::error_reply(&error, &call.caller, limit),
    };
    let keys = match call.keys("keys") {
        Ok(keys) => keys,
        Err(error) => return send(writer, &failed(error)).await,
    };
    let found = match find(&context, &keys, &call).await {
        Ok(found) => found,
        Err(error) => return send(writer, &failed(error.into())).await,
    };
    if let Some(answer) = missing(&found, &call) {
        return send(writer, &answer).await;
    }
    let mut parts = found.parts;
    // Only what is not here yet can be lost.
    let layout = |part: &Part| match part.frames {
        Frames::Open(_) => Layout::of(part),
        Frames::Read(_) => Layout::default(),
    };
    let layouts: Vec<Layout> = parts.iter().map(layout).collect();
    let (body, lengths) = compose(&mut parts, &keys);
    writer.begin(&body, &lengths);
    let mut succession = Succession::new(&context, call.serializers.as_ref());
    for (part, layout) in parts.into_iter().zip(layouts) {
        pass_on(part, Progress::new(layout), &mut succession, writer).await?;
    }
    writer.flush().await?;
    Ok(lengths.iter().fold(body.len(), |a, b| a.saturating_add(*b)))
}

/// The frames of a worker's answer; when it is lost in between, the rest from somebody else.
async fn pass_on(
    part: Part,
    mut progress: Progress,
    succession: &mut Succession<'_>,
    writer: &mut Writer,
) -> Result<(), ForwardError> {
    let mut frames = part.frames;
    let mut lost = None;
    loop {
        match frames.next().await {
            Ok(Some(piece)) => {
                if matches!(frames, Frames::Open(_)) {
                    progress.add(&piece);
                }
                writer.send_piece(piece).await?;
                continue;
            }
            // A successor may have had only some of the keys.
            Ok(None) if lost.is_none() || progress.is_complete() => return Ok(()),
            Ok(None) => {}
            Err(_) if progress.is_complete() => return Ok(()),
            Err(error) => lost = Some(error),
        }
        let Some(successor) = succession.after(&progress).await else {
            return lost.map_or(Ok(()), |lost| Err(lost.into()));
        };
        frames = successor.frames;
        if let Some(piece) = successor.first {
            progress.add(&piece);
            writer.send_piece(piece).await?;
        }
    }
}

/// An answer without results.
async fn send(writer: &mut Writer, answer: &Value) -> Result<usize, ForwardError> {
    let message = Message::from_value(answer);
    writer.send(&message).await?;
    Ok(message.wire_bytes())
}

/// The body of the answer, and the lengths of the frames of all parts, one part after the other.
fn compose(parts: &mut [Part], keys: &[Key]) -> (Bytes, Vec<usize>) {
    let mut data = Vec::new();
    let mut lengths = Vec::new();
    for part in parts {
        for (key, mut value) in part.data.drain(..) {
            value.shift_markers(lengths.len());
            data.push((key, value));
        }
        lengths.extend_from_slice(&part.lengths);
    }
    order(&mut data, keys);
    (answer(data).encode(), lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxidask_wire::payload::Payload;

    /// The answer of a worker with these results.
    fn part(results: &[(&str, &str)]) -> Part {
        let data: Value = results
            .iter()
            .map(|(key, text)| (*key, Value::from(Payload::bytes(text.to_string()))))
            .collect();
        let message = Message::from_value(&data);
        let frames: Vec<Bytes> = message.frames().skip(1).cloned().collect();
        let Ok(Value::Map(entries)) = Value::decode(message.body()) else {
            panic!("a map was written");
        };
        let entries = entries.into_iter();
        Part {
            data: entries
                .filter_map(|(key, value)| Some((key.to_key()?, value)))
                .collect(),
            lengths: frames.iter().map(Bytes::len).collect(),
            frames: Frames::Read(frames.into()),
        }
    }

    async fn read_all(parts: Vec<Part>) -> Vec<Bytes> {
        let mut frames = Vec::new();
        for mut part in parts {
            while let Ok(Some(frame)) = part.frames.next().await {
                frames.push(frame);
            }
        }
        frames
    }

    #[tokio::test]
    async fn parts_become_one_message_in_the_order_of_asking() {
        let mut parts = vec![part(&[("c", "3"), ("a", "1")]), part(&[("b", "2")])];
        let keys: Vec<Key> = ["a", "b", "c"].map(Key::from).into();
        let (body, lengths) = compose(&mut parts, &keys);
        let frames: Vec<Bytes> = std::iter::once(body).chain(read_all(parts).await).collect();
        let told: Vec<usize> = frames.iter().skip(1).map(Bytes::len).collect();
        assert_eq!(lengths, told);
        let message = Message::from_frames(frames.into_iter()).expect("well formed");
        let value = message.value().expect("markers that fit");
        assert_eq!(value.get("status").and_then(Value::as_str), Some("OK"));
        let data = value.get("data").and_then(Value::as_map).expect("data");
        let texts: Vec<(String, Bytes)> = data
            .iter()
            .map(|(key, value)| {
                let Value::Payload(payload) = value else {
                    panic!("{value:?} is no payload");
                };
                let bytes = payload.as_plain_bytes(100).expect("decodes");
                (key.to_key().expect("key").to_text(), bytes.expect("bytes"))
            })
            .collect();
        let expected = [("a", "1"), ("b", "2"), ("c", "3")];
        assert_eq!(
            texts,
            expected.map(|(key, text)| (key.to_owned(), Bytes::from(text)))
        );
    }

    #[tokio::test]
    async fn parts_can_be_read_into_values() {
        let values = part(&[("a", "1"), ("b", "2")]).into_values().await;
        let values = values.expect("well formed");
        let keys: Vec<String> = values.iter().map(|(key, _)| key.to_text()).collect();
        assert_eq!(keys, ["a", "b"]);
        assert!(values.iter().all(|(_, v)| matches!(v, Value::Payload(_))));
    }
}
