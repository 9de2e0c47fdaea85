//! Messages of releases up to 2021.03.0 (M0–M2): lifted objects are found by their *path* in the
//! message instead of by markers. They are turned into the newer form on arrival and back on
//! departure, so that nothing else knows them.
//!
//! Frames: small header (empty, or `{compression}`), small payload (msgpack), and if anything was
//! lifted: header `{headers: {path: head}, keys: [path], bytestrings: [path]}`, payload frames.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::compression::decompress;
use crate::error::DecodeError;
use crate::message::Message;
use crate::payload::Payload;
use crate::value::Value;

mod encode;

pub(crate) use encode::encode;

/// Most steps that putting lifted objects back may take; a hostile message could otherwise make
/// the search in its maps quadratic.
const MAX_STEPS: usize = 1 << 26;

/// Turns the frames of an old message into a message. `limit` bounds what decompression makes.
pub(crate) fn decode(frames: Vec<Bytes>, limit: usize) -> Result<Message, DecodeError> {
    let mut frames = frames.into_iter();
    let small_header = frames.next().unwrap_or_default();
    let mut body = frames
        .next()
        .ok_or(DecodeError::Frames("small payload is missing"))?;
    if !small_header.is_empty() {
        let header = Value::decode(&small_header)?;
        if let Some(name) = header.get("compression").and_then(Value::as_str) {
            body = decompress(name, &body, limit)?;
        }
    }
    let Some(header) = frames.next() else {
        return Ok(Message::from_body(body));
    };
    let mut message = Value::decode(&body)?;
    let header = Value::decode(&header)?;
    put_back(&mut message, &header, frames, limit)?;
    Ok(Message::from_value(&message))
}

fn put_back(
    message: &mut Value,
    header: &Value,
    mut frames: std::vec::IntoIter<Bytes>,
    mut limit: usize,
) -> Result<(), DecodeError> {
    let field = |name| header.get(name).ok_or(DecodeError::Missing(name));
    let keys = field("keys")?
        .as_seq()
        .ok_or(DecodeError::Frames("`keys` is not a list"))?;
    let heads = field("headers")?
        .as_map()
        .ok_or(DecodeError::Frames("`headers` is not a map"))?;
    let heads: HashMap<Bytes, &Value> = heads.iter().map(|(p, h)| (p.encode(), h)).collect();
    let bytestrings = header
        .get("bytestrings")
        .and_then(Value::as_seq)
        .unwrap_or_default();
    let bytestrings: std::collections::HashSet<Bytes> =
        bytestrings.iter().map(Value::encode).collect();
    let mut steps = MAX_STEPS;
    for path in keys {
        let name = path.encode();
        let head = heads
            .get(&name)
            .ok_or(DecodeError::Frames("path without head"))?;
        let count = head
            .get("count")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > frames.len() {
            return Err(DecodeError::Frames(
                "head promises more frames than were sent",
            ));
        }
        let pieces: Vec<Bytes> = frames.by_ref().take(count).collect();
        let payload = from_head(head, pieces, &mut limit)?;
        let value = if bytestrings.contains(&name) {
            let bytes = payload.as_plain_bytes(limit)?;
            bytes.map_or(Value::Payload(Arc::new(payload)), Value::Bin)
        } else {
            Value::Payload(Arc::new(payload))
        };
        let path = path
            .as_seq()
            .ok_or(DecodeError::Frames("path is not a list"))?;
        put(message, path, value, &mut steps)?;
    }
    Ok(())
}

/// Puts `value` where `path` says: map entries had been removed, list slots set to nil.
fn put(
    mut holder: &mut Value,
    path: &[Value],
    value: Value,
    steps: &mut usize,
) -> Result<(), DecodeError> {
    const NOWHERE: DecodeError = DecodeError::Frames("path leads nowhere");
    let Some((last, way)) = path.split_last() else {
        *holder = value;
        return Ok(());
    };
    for step in way {
        holder = match holder {
            Value::Map(entries) => {
                let at = entries.iter().position(|(k, _)| k == step);
                let cost = at.unwrap_or(entries.len());
                *steps = steps.checked_sub(cost).ok_or(DecodeError::TooMany)?;
                at.and_then(|at| entries.get_mut(at))
                    .map(|(_, v)| v)
                    .ok_or(NOWHERE)?
            }
            Value::Array(items) => slot(items, step).ok_or(NOWHERE)?,
            _ => return Err(NOWHERE),
        };
    }
    match holder {
        // The sender removed the entry, so it need not be looked for.
        Value::Map(entries) => entries.push((last.clone(), value)),
        Value::Array(items) => *slot(items, last).ok_or(NOWHERE)? = value,
        _ => return Err(NOWHERE),
    }
    Ok(())
}

fn slot<'a>(items: &'a mut [Value], index: &Value) -> Option<&'a mut Value> {
    items.get_mut(usize::try_from(index.as_u64()?).ok()?)
}

/// A payload from an old head. Compressed frames are restored: the old header counts plain bytes,
/// the new one compressed ones.
fn from_head(head: &Value, pieces: Vec<Bytes>, limit: &mut usize) -> Result<Payload, DecodeError> {
    if head.as_map().is_none() {
        return Err(DecodeError::Frames("head is not a map"));
    }
    let names = head
        .get("compression")
        .and_then(Value::as_seq)
        .unwrap_or_default()
        .to_vec();
    let restore = |(at, piece): (usize, Bytes)| match names.get(at).and_then(Value::as_str) {
        None => Ok(piece),
        Some(name) => {
            let plain = decompress(name, &piece, *limit)?;
            *limit -= plain.len();
            Ok(plain)
        }
    };
    let frames: Vec<Bytes> = pieces
        .into_iter()
        .enumerate()
        .map(restore)
        .collect::<Result<_, DecodeError>>()?;
    let mut header = head.clone();
    header.remove("count");
    header.remove("lengths");
    header.insert(
        "compression",
        Value::array(frames.iter().map(|_| Value::Nil)),
    );
    if let Some(lengths) = head.get("lengths").and_then(Value::as_seq) {
        let counts = pieces_per_frame(lengths, &frames)?;
        let mut offset = 0;
        let offsets = counts.iter().map(|n| {
            offset += n;
            offset - n
        });
        header.insert("split-offsets", Value::array(offsets.collect::<Vec<_>>()));
        header.insert("split-num-sub-frames", Value::array(counts));
    }
    if is_pickle(&header)
        && let Some(Value::Array(flags)) = header.get_mut("writeable")
        && !flags.is_empty()
    {
        // The old field counts the pickle itself as well, the new one only its buffers.
        flags.remove(0);
    }
    Ok(Payload::serialized(header, frames))
}

/// How many pieces make up each logical frame.
fn pieces_per_frame(lengths: &[Value], frames: &[Bytes]) -> Result<Vec<usize>, DecodeError> {
    let disagree = || DecodeError::Frames("lengths and frames disagree");
    let mut rest = frames;
    let mut counts = Vec::new();
    for length in lengths {
        let length = length
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(disagree)?;
        let mut taken = 0;
        let mut pieces = 0;
        // An empty logical frame normally has one (empty) piece.
        let empty_piece = length == 0 && rest.first().is_some_and(Bytes::is_empty);
        while taken < length || (empty_piece && pieces == 0) {
            let (piece, after) = rest.split_first().ok_or_else(disagree)?;
            taken += piece.len();
            pieces += 1;
            rest = after;
        }
        if taken != length {
            return Err(disagree());
        }
        counts.push(pieces);
    }
    if rest.is_empty() {
        Ok(counts)
    } else {
        Err(disagree())
    }
}

fn is_pickle(header: &Value) -> bool {
    header.get("serializer").and_then(Value::as_str) == Some("pickle")
}
