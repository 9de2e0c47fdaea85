//! `task-finished`, of which a scheduler reads one per task: decoded by hand, without serde, because
//! the code that serde generates for it costs more than the rest of the way into the scheduler.

use oxidask_key::Key;
use serde::Deserialize;

use super::StartStop;
use super::worker::TaskFinished;
use crate::error::DecodeError;
use crate::message::Item;
use crate::msgpack::{Cursor, Token};
use crate::value::{MAX_DEPTH, Value};

/// Reads the fields of one item; those that are not known are skipped.
pub(super) fn decode<'a>(item: &Item<'a>) -> Result<TaskFinished<'a>, DecodeError> {
    let mut cursor = Cursor::new(item.raw);
    let mut key = None;
    let mut task = TaskFinished {
        key: Key::None,
        run_id: None,
        nbytes: None,
        type_: None,
        typename: None,
        startstops: None,
        metadata: Value::Nil,
        thread: None,
        stimulus_id: None,
    };
    for _ in 0..map(cursor.token()?)? {
        match cursor.name()? {
            b"key" => key = Some(read_key(&mut cursor)?),
            b"run_id" => task.run_id = int(cursor.token()?)?,
            b"nbytes" => task.nbytes = count(cursor.token()?)?,
            b"type" => task.type_ = bytes(cursor.token()?)?,
            b"typename" => task.typename = text(cursor.token()?)?,
            b"startstops" => task.startstops = startstops(&mut cursor)?,
            b"metadata" => task.metadata = metadata(&mut cursor)?,
            b"thread" => task.thread = count(cursor.token()?)?,
            b"stimulus_id" => task.stimulus_id = text(cursor.token()?)?,
            _ => {
                cursor.skip()?;
            }
        }
    }
    task.key = key.ok_or(DecodeError::Missing("key"))?;
    Ok(task)
}

fn wrong<T>(expected: &'static str, found: Token<'_>) -> Result<T, DecodeError> {
    Err(DecodeError::Type {
        expected,
        found: found.type_name(),
    })
}

fn map(token: Token<'_>) -> Result<u32, DecodeError> {
    match token {
        Token::Map(entries) => Ok(entries),
        other => wrong("map", other),
    }
}

fn text(token: Token<'_>) -> Result<Option<&str>, DecodeError> {
    match token {
        Token::Str(text) => Ok(Some(text)),
        Token::Nil => Ok(None),
        other => wrong("str or None", other),
    }
}

fn bytes(token: Token<'_>) -> Result<Option<&[u8]>, DecodeError> {
    match token {
        Token::Bin(bytes) => Ok(Some(bytes)),
        Token::Nil => Ok(None),
        other => wrong("bytes or None", other),
    }
}

fn int(token: Token<'_>) -> Result<Option<i64>, DecodeError> {
    match token {
        Token::Int(n) => Ok(Some(n)),
        Token::Nil => Ok(None),
        other => wrong("int or None", other),
    }
}

/// Ints, floats (cut off), nil. Below zero is none.
fn count(token: Token<'_>) -> Result<Option<u64>, DecodeError> {
    match token {
        Token::Int(n) => Ok(u64::try_from(n).ok()),
        Token::UInt(n) => Ok(Some(n)),
        // The cast saturates; NaN becomes none.
        Token::Float(n) => Ok((n >= 0.0).then_some(n as u64)),
        Token::Nil => Ok(None),
        other => wrong("number or None", other),
    }
}

fn seconds(token: Token<'_>) -> Result<f64, DecodeError> {
    match token {
        Token::Float(n) => Ok(n),
        Token::Int(n) => Ok(n as f64),
        Token::UInt(n) => Ok(n as f64),
        other => wrong("number", other),
    }
}

fn startstops<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Vec<StartStop<'a>>>, DecodeError> {
    let entries = match cursor.token()? {
        Token::Array(entries) => entries,
        Token::Nil => return Ok(None),
        other => return wrong("array or None", other),
    };
    // No capacity from the peer's number: it may promise more than it sends.
    let mut all = Vec::new();
    for _ in 0..entries {
        all.push(startstop(cursor)?);
    }
    Ok(Some(all))
}

fn startstop<'a>(cursor: &mut Cursor<'a>) -> Result<StartStop<'a>, DecodeError> {
    let (mut action, mut start, mut stop, mut source) = (None, None, None, None);
    for _ in 0..map(cursor.token()?)? {
        match cursor.name()? {
            b"action" => action = text(cursor.token()?)?,
            b"start" => start = Some(seconds(cursor.token()?)?),
            b"stop" => stop = Some(seconds(cursor.token()?)?),
            b"source" => source = text(cursor.token()?)?,
            _ => {
                cursor.skip()?;
            }
        }
    }
    Ok(StartStop {
        action: action.ok_or(DecodeError::Missing("action"))?,
        start: start.ok_or(DecodeError::Missing("start"))?,
        stop: stop.ok_or(DecodeError::Missing("stop"))?,
        source,
    })
}

fn read_key(cursor: &mut Cursor<'_>) -> Result<Key, DecodeError> {
    if let Token::Str(key) = cursor.peek()? {
        cursor.token()?;
        return Ok(Key::Str(key.into()));
    }
    general(cursor.skip()?)
}

/// Nothing for the empty map, which nearly all are.
fn metadata(cursor: &mut Cursor<'_>) -> Result<Value, DecodeError> {
    match cursor.peek()? {
        Token::Nil | Token::Map(0) => cursor.skip().map(|_| Value::Nil),
        _ => general(cursor.skip()?),
    }
}

fn general<'a, T: Deserialize<'a>>(raw: &'a [u8]) -> Result<T, DecodeError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(raw);
    deserializer.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut deserializer).map_err(|error| DecodeError::Message {
        op: "task-finished".to_owned(),
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::message::worker::FromWorker;
    use crate::msgpack::Writer;

    fn decoded(write: impl FnOnce(&mut Writer)) -> Result<String, DecodeError> {
        let mut w = Writer::new();
        write(&mut w);
        let message = Message::from_body(w.buf);
        let item = message.items().next().expect("an item")?;
        FromWorker::decode(&item).map(|task| format!("{task:?}"))
    }

    /// A map with the op and one more entry.
    fn with(name: &str, value: impl FnOnce(&mut Writer)) -> Result<String, DecodeError> {
        decoded(|w| {
            w.map(3);
            w.str("key");
            w.str("x");
            w.str(name);
            value(w);
            w.str("op");
            w.str("task-finished");
        })
    }

    #[test]
    fn fields_are_read_in_every_form_that_python_sends() {
        let contains = |found: Result<String, DecodeError>, part: &str| {
            let found = found.expect("decoded");
            assert!(found.contains(part), "{part} in {found}");
        };
        contains(with("nbytes", |w| w.float(7.9)), "nbytes: Some(7)");
        contains(with("nbytes", |w| w.int(-1)), "nbytes: None");
        contains(with("nbytes", |w| w.nil()), "nbytes: None");
        contains(with("thread", |w| w.uint(u64::MAX)), "thread: Some(1844");
        contains(with("run_id", |w| w.int(3)), "run_id: Some(3)");
        contains(with("type", |w| w.bin(b"ab")), "type_: Some([97, 98])");
        contains(with("metadata", |w| w.map(0)), "metadata: Nil");
        contains(with("startstops", |w| w.nil()), "startstops: None");
        contains(with("future", |w| w.array(0)), "run_id: None");
        let metadata = with("metadata", |w| {
            w.map(1);
            w.str("a");
            w.int(1);
        });
        contains(metadata, "metadata: Map([");
        let key = decoded(|w| {
            w.map(2);
            w.str("op");
            w.str("task-finished");
            w.str("key");
            w.array(2);
            w.str("x");
            w.int(1);
        });
        contains(key, "key: ('x', 1)");
        let times = with("startstops", |w| {
            w.array(1);
            w.map(4);
            w.str("action");
            w.str("compute");
            w.str("start");
            w.float(1.5);
            w.str("stop");
            w.int(2);
            w.str("more");
            w.nil();
        });
        contains(times, "start: 1.5, stop: 2.0, source: None");
    }

    #[test]
    fn wrong_fields_are_errors() {
        for (name, value) in [
            ("nbytes", b"\xa1x".as_slice()),
            ("type", b"\xa1x"),
            ("typename", b"\x01"),
            ("run_id", b"\xcb\x00\x00\x00\x00\x00\x00\x00\x00"),
            ("startstops", b"\x01"),
            ("startstops", b"\x91\x80"),
        ] {
            let result = with(name, |w| w.raw(value));
            assert!(result.is_err(), "{name}: {result:?}");
        }
        let keyless = decoded(|w| {
            w.map(1);
            w.str("op");
            w.str("task-finished");
        });
        assert!(matches!(keyless, Err(DecodeError::Missing("key"))));
    }
}
