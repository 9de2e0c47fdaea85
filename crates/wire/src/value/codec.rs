//! Values from bytes and back. The reader binds payload markers, the writer hands payloads to the
//! caller, who knows how they are laid out.

use std::sync::Arc;

use bytes::Bytes;

use super::{MAX_DEPTH, MAX_NODES, Value};
use crate::error::DecodeError;
use crate::message::IndexedPayload;
use crate::msgpack::{Cursor, Token, Writer};
use crate::payload::Payload;

/// Decodes one value from the beginning of `bytes`; returns it with the number of bytes used.
pub(crate) fn decode_prefix(
    bytes: &Bytes,
    payloads: &[IndexedPayload],
) -> Result<(Value, usize), DecodeError> {
    let mut decoder = Decoder {
        bytes,
        cursor: Cursor::new(bytes),
        payloads,
        bindable: payloads
            .last()
            .map_or(0, |last| last.frame as usize + last.payload.frames().len()),
        nodes: 0,
    };
    let value = decoder.value(0)?;
    let used = decoder.cursor.position();
    Ok((value, used))
}

struct Decoder<'a> {
    bytes: &'a Bytes,
    cursor: Cursor<'a>,
    payloads: &'a [IndexedPayload],
    /// Frames that markers may still stand for: each payload has one marker, and one that had many would
    /// be passed on as often.
    bindable: usize,
    nodes: usize,
}

impl Decoder<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::TooDeep);
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(DecodeError::TooMany);
        }
        Ok(match self.cursor.token()? {
            Token::Nil => Value::Nil,
            Token::Bool(b) => Value::Bool(b),
            Token::Int(i) => Value::Int(i),
            Token::UInt(u) => Value::UInt(u),
            Token::Float(f) => Value::Float(f),
            Token::Str(s) => Value::Str(s.to_owned()),
            Token::Bin(b) => Value::Bin(self.bytes.slice_ref(b)),
            Token::Array(n) => {
                let mut items = self.room(n);
                for _ in 0..n {
                    items.push(self.value(depth + 1)?);
                }
                Value::Array(items)
            }
            Token::Map(n) => {
                let mut entries = self.room(n);
                for _ in 0..n {
                    let key = self.value(depth + 1)?;
                    let value = self.value(depth + 1)?;
                    entries.push((key, value));
                }
                self.bind(entries)?
            }
        })
    }

    /// Room for what the peer promises, as far as bytes for it have arrived.
    fn room<T>(&self, promised: u32) -> Vec<T> {
        let promised = usize::try_from(promised).unwrap_or(usize::MAX);
        Vec::with_capacity(promised.min(self.cursor.remaining()).min(1024))
    }

    fn bind(&mut self, entries: Vec<(Value, Value)>) -> Result<Value, DecodeError> {
        if !self.payloads.is_empty()
            && let [(Value::Str(name), Value::Int(index))] = entries.as_slice()
            && is_marker(name)
            && *index > 0
        {
            let payload = find_payload(self.payloads, *index)?;
            self.bindable = (self.bindable)
                .checked_sub(1 + payload.frames().len())
                .ok_or(DecodeError::Frames("markers stand for more than was sent"))?;
            return Ok(Value::Payload(Arc::clone(payload)));
        }
        Ok(Value::Map(entries))
    }
}

/// Whether `name` is the key of a one-entry map that stands for a payload.
pub(crate) fn is_marker(name: &str) -> bool {
    name == "__Serialized__" || name == "__Pickled__"
}

/// The payload whose header is frame `index`.
pub(crate) fn find_payload(
    payloads: &[IndexedPayload],
    index: i64,
) -> Result<&Arc<Payload>, DecodeError> {
    let frame = u32::try_from(index).map_err(|_| DecodeError::NoSuchPayload(index))?;
    payloads
        .binary_search_by_key(&frame, |p| p.frame)
        .ok()
        .and_then(|at| payloads.get(at))
        .map(|p| &p.payload)
        .ok_or(DecodeError::NoSuchPayload(index))
}

/// Appends `value`; `payload` writes what stands for a payload. What is nested deeper than
/// [`MAX_DEPTH`] (never read from the wire) becomes nil.
pub(crate) fn encode_into(
    value: &Value,
    out: &mut Writer,
    payload: &mut dyn FnMut(&Arc<Payload>, &mut Writer),
) {
    encode_at(value, out, payload, 0);
}

fn encode_at(
    value: &Value,
    out: &mut Writer,
    payload: &mut dyn FnMut(&Arc<Payload>, &mut Writer),
    depth: usize,
) {
    if depth > MAX_DEPTH {
        return out.nil();
    }
    match value {
        Value::Nil => out.nil(),
        Value::Bool(b) => out.bool(*b),
        Value::Int(i) => out.int(*i),
        Value::UInt(u) => out.uint(*u),
        Value::Float(f) => out.float(*f),
        Value::Str(s) => out.str(s),
        Value::Bin(b) => out.bin(b),
        Value::Array(items) => {
            out.array(items.len());
            for item in items {
                encode_at(item, out, payload, depth + 1);
            }
        }
        Value::Map(entries) => {
            out.map(entries.len());
            for (k, v) in entries {
                encode_at(k, out, payload, depth + 1);
                encode_at(v, out, payload, depth + 1);
            }
        }
        Value::Payload(p) => payload(p, out),
    }
}
