//! Messages for peers up to 2021.03.0: payloads are taken out, and named by their paths.
//!
//! What is passed on comes from other peers, and an old reader is strict: it takes the frames of all payloads
//! from one list by what their heads say. So everything is written in the one form that can not be misread.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::MAX_KEY_DEPTH;

use super::is_pickle;
use crate::error::DecodeError;
use crate::message::Message;
use crate::payload::{MAX_PLAIN, NUM_SUB_FRAMES, Payload};
use crate::value::{MAX_DEPTH, MAX_NODES, Value};

/// Depth of heads, and of the steps of paths, in the header `{headers: {path: head}, …}`.
const HEAD_DEPTH: usize = 2;
const STEP_DEPTH: usize = 3;

/// Turns a message into the frames of an old one.
pub(crate) fn encode(message: &Message) -> Result<Vec<Bytes>, DecodeError> {
    encode_within(message, MAX_PLAIN)
}

fn encode_within(message: &Message, bytes: usize) -> Result<Vec<Bytes>, DecodeError> {
    if message.payloads().len() == 0 {
        return Ok(vec![Bytes::new(), message.body().clone()]);
    }
    let mut value = message.value()?;
    let mut lifted = Lifted {
        payloads: Vec::new(),
        budget: Budget {
            nodes: MAX_NODES,
            bytes,
        },
    };
    lift(&mut value, &mut Vec::new(), &mut lifted)?;
    if matches!(value, Value::Payload(_)) {
        return Err(DecodeError::Frames(
            "releases before 2021.03.1 cannot send a bare object",
        ));
    }
    let Lifted {
        payloads,
        mut budget,
    } = lifted;
    let mut heads = Vec::new();
    let mut paths = Vec::new();
    let mut frames = Vec::new();
    for (path, payload) in payloads {
        let (head, pieces) = to_head(&payload, &mut budget)?;
        heads.push((Value::Array(path.clone()), head));
        paths.push(Value::Array(path));
        frames.extend(pieces);
    }
    let header = Value::map([
        ("headers", Value::Map(heads)),
        ("keys", Value::Array(paths)),
        ("bytestrings", Value::Array(Vec::new())),
    ]);
    let mut out = vec![Bytes::new(), value.encode(), header.encode()];
    out.extend(frames);
    Ok(out)
}

/// What may be made for one message. Any number of places may name one payload, and each gets a path, a head and plain
/// frames of its own: a small message could become one that fills the memory.
struct Budget {
    nodes: usize,
    bytes: usize,
}

impl Budget {
    /// Takes what `value` needs at that depth of the header.
    fn spend(&mut self, value: &Value, depth: usize) -> Result<(), DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::TooDeep);
        }
        self.nodes = self.nodes.checked_sub(1).ok_or(DecodeError::TooMany)?;
        match value {
            Value::Str(text) => self.take(text.len()),
            Value::Bin(bytes) => self.take(bytes.len()),
            Value::Array(items) => items
                .iter()
                .try_for_each(|item| self.spend(item, depth + 1)),
            Value::Map(entries) => entries.iter().try_for_each(|(key, item)| {
                self.spend(key, depth + 1)?;
                self.spend(item, depth + 1)
            }),
            _ => Ok(()),
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(DecodeError::Frames(
            "objects are larger than an old peer may get",
        ))?;
        Ok(())
    }
}

/// Payloads with the paths to them.
struct Lifted {
    payloads: Vec<(Vec<Value>, Arc<Payload>)>,
    budget: Budget,
}

impl Lifted {
    fn push(&mut self, path: &[Value], payload: &Arc<Payload>) -> Result<(), DecodeError> {
        for step in path {
            if !can_be_found(step, 0) {
                return Err(DecodeError::Frames("no path leads to an object"));
            }
            self.budget.spend(step, STEP_DEPTH)?;
        }
        self.payloads.push((path.to_vec(), Arc::clone(payload)));
        Ok(())
    }
}

/// Takes payloads out of `value`, with the paths to them.
fn lift(value: &mut Value, path: &mut Vec<Value>, lifted: &mut Lifted) -> Result<(), DecodeError> {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push(index.into());
                if let Value::Payload(payload) = item {
                    lifted.push(path, payload)?;
                    *item = Value::Nil;
                } else {
                    lift(item, path, lifted)?;
                }
                path.pop();
            }
        }
        Value::Map(entries) => {
            let before = lifted.payloads.len();
            let mut counts = Vec::with_capacity(entries.len());
            for (key, item) in entries.iter_mut() {
                let before = lifted.payloads.len();
                path.push(key.clone());
                if let Value::Payload(payload) = item {
                    lifted.push(path, payload)?;
                } else {
                    lift(item, path, lifted)?;
                }
                path.pop();
                counts.push(lifted.payloads.len() - before);
            }
            if lifted.payloads.len() > before {
                leave_last_of_each_key(entries, &counts, &mut lifted.payloads, before);
                entries.retain(|(_, item)| !matches!(item, Value::Payload(_)));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Makes entries what a `dict` would: a path with a key that is there twice could lead to either. `counts` are the
/// payloads that were found in each entry; they begin at `first`.
fn leave_last_of_each_key(
    entries: &mut Vec<(Value, Value)>,
    counts: &[usize],
    payloads: &mut Vec<(Vec<Value>, Arc<Payload>)>,
    first: usize,
) {
    let mut seen = HashSet::with_capacity(entries.len());
    let mut is_last: Vec<bool> = entries
        .iter()
        .rev()
        .map(|(key, _)| seen.insert(identity(key).encode()))
        .collect();
    if !is_last.contains(&false) {
        return;
    }
    is_last.reverse();
    let mut found = payloads.split_off(first).into_iter();
    for (is_last, count) in is_last.iter().zip(counts) {
        let of_entry = found.by_ref().take(*count);
        if *is_last {
            payloads.extend(of_entry);
        } else {
            of_entry.for_each(drop);
        }
    }
    let mut is_last = is_last.into_iter();
    entries.retain(|_| is_last.next().unwrap_or(true));
}

/// What is the same for keys that are one to a `dict`, as `1`, `1.0` and `True`.
fn identity(key: &Value) -> Value {
    match key {
        Value::Array(items) => Value::array(items.iter().map(identity)),
        Value::Bool(_) | Value::Float(_) => key.as_i64().map_or_else(|| key.clone(), Value::Int),
        _ => key.clone(),
    }
}

/// Whether a reader finds this key again: it can be one in Python, and it is equal to itself.
fn can_be_found(key: &Value, depth: usize) -> bool {
    match key {
        Value::Float(number) => !number.is_nan(),
        Value::Array(items) => {
            depth < MAX_KEY_DEPTH && items.iter().all(|item| can_be_found(item, depth + 1))
        }
        Value::Map(_) | Value::Payload(_) => false,
        _ => true,
    }
}

/// The old head of a payload, and its frames: plain, since lengths are those of plain bytes; without any that its header
/// has no use for, which nobody reads; and without empty pieces, which lengths give to nobody, except for a frame that
/// is empty as a whole.
fn to_head(payload: &Payload, budget: &mut Budget) -> Result<(Value, Vec<Bytes>), DecodeError> {
    let payload = payload.to_serialized_within(&mut budget.bytes)?;
    let mut head = payload.header()?;
    let plain = payload.decompressed(&head, &mut budget.bytes)?;
    let counts: Vec<usize> = match head.get("split-num-sub-frames").and_then(Value::as_seq) {
        Some(counts) => {
            let count = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
            counts
                .iter()
                .map(count)
                .collect::<Option<_>>()
                .ok_or(DecodeError::Frames(
                    "split-num-sub-frames is not a list of counts",
                ))?
        }
        None => vec![1; plain.len()],
    };
    let mut rest = plain.as_slice();
    let mut lengths = Vec::new();
    let mut frames = Vec::new();
    for count in counts {
        let (pieces, after) = rest.split_at_checked(count).ok_or(DecodeError::Frames(
            "split-num-sub-frames and frames disagree",
        ))?;
        let length = pieces.iter().map(Bytes::len).sum::<usize>();
        if length == 0 {
            frames.push(Bytes::new());
        }
        frames.extend(pieces.iter().filter(|piece| !piece.is_empty()).cloned());
        lengths.push(length);
        rest = after;
    }
    for name in [NUM_SUB_FRAMES, "split-num-sub-frames", "split-offsets"] {
        head.remove(name);
    }
    let mut writeable = match head.remove("writeable") {
        Some(Value::Array(flags)) => flags,
        _ => Vec::new(),
    };
    if is_pickle(&head) && writeable.len() < lengths.len() {
        writeable.insert(0, Value::Bool(false));
    }
    writeable.resize(lengths.len(), Value::Bool(false));
    head.insert("writeable", Value::Array(writeable));
    head.insert("lengths", Value::array(lengths));
    head.insert(
        "compression",
        Value::array(frames.iter().map(|_| Value::Nil)),
    );
    head.insert("count", frames.len());
    budget.spend(&head, HEAD_DEPTH)?;
    Ok((head, frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A marker takes some bytes; what it stands for is made for each of them.
    #[test]
    fn many_markers_of_one_payload_do_not_fill_the_memory() {
        let zeros = Bytes::from(vec![0; 1 << 20]);
        let packed = Bytes::from(lz4_flex::block::compress_prepend_size(&zeros));
        let header = Value::map([("compression", Value::array(["lz4"]))]);
        let bomb = Value::from(Payload::serialized(header, vec![packed]));
        let bombs = Value::map([("data", Value::Array(vec![bomb; 10]))]);

        let long = "long".repeat(1 << 18);
        let object = Value::from(Payload::bytes("x"));
        let below = Value::map([(long, Value::Array(vec![object; 10]))]);

        for value in [bombs, below] {
            let message = Message::from_value(&value);
            assert!(encode_within(&message, 11 << 20).is_ok());
            assert!(encode_within(&message, 9 << 20).is_err());
        }
    }
}
