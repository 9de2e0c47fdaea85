//! Walking a stream batch without building it.

use crate::error::DecodeError;
use crate::message::Message;
use crate::msgpack::{Cursor, Token};
use crate::value::{Value, decode_prefix};

/// One operation of a batch, still msgpack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item<'a> {
    /// What the peer wants done.
    pub op: &'a str,
    /// The whole map.
    pub raw: &'a [u8],
    /// Where it came from: owner of storage and payloads.
    pub message: &'a Message,
}

impl Item<'_> {
    /// The item as a value, payloads bound.
    pub fn value(&self) -> Result<Value, DecodeError> {
        let bytes = self.message.body().slice_ref(self.raw);
        decode_prefix(&bytes, self.message.indexed_payloads()).map(|(value, _)| value)
    }
}

/// Iterator over the operations of a message. After an error it ends.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    message: &'a Message,
    cursor: Cursor<'a>,
    left: u32,
    started: bool,
}

impl<'a> Items<'a> {
    pub(super) fn new(message: &'a Message) -> Self {
        Self {
            message,
            cursor: Cursor::new(message.body()),
            left: 1,
            started: false,
        }
    }

    /// Whether the item that came last is the last one.
    pub fn is_at_end(&self) -> bool {
        self.started && self.left == 0
    }

    fn step(&mut self) -> Result<Option<Item<'a>>, DecodeError> {
        if !self.started {
            self.started = true;
            if let Token::Array(n) = self.cursor.peek()? {
                self.cursor.token()?;
                self.left = n;
            }
        }
        while self.left > 0 {
            self.left -= 1;
            if let Some((op, raw)) = take_item(self.message.body(), &mut self.cursor)? {
                return Ok(Some(Item {
                    op,
                    raw,
                    message: self.message,
                }));
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.left = 0;
        }
        step.transpose()
    }
}

/// `"op"` in msgpack.
const OP: &[u8] = b"\xa2op";

/// Reads over one item, a map: its `op`, which newer workers put last, and its bytes. Nothing for the
/// text `"OK"`.
fn take_item<'a>(
    body: &'a [u8],
    cursor: &mut Cursor<'a>,
) -> Result<Option<(&'a str, &'a [u8])>, DecodeError> {
    let start = cursor.position();
    let entries = match cursor.token()? {
        Token::Map(n) => n,
        Token::Str("OK") => return Ok(None),
        other => {
            return Err(DecodeError::Type {
                expected: "map",
                found: other.type_name(),
            });
        }
    };
    let mut op = None;
    for _ in 0..entries {
        let name = cursor.skip()?;
        if op.is_some() || name != OP {
            cursor.skip()?;
            continue;
        }
        op = match cursor.token()? {
            Token::Str(text) => Some(text),
            other => {
                return Err(DecodeError::Type {
                    expected: "op as str",
                    found: other.type_name(),
                });
            }
        };
    }
    let raw = body.get(start..cursor.position()).unwrap_or_default();
    op.map(|op| Some((op, raw)))
        .ok_or(DecodeError::Missing("op"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_item_is_known_as_such() {
        let op = |name: &str| Value::map([("op", name)]);
        for (batch, ends) in [
            (Value::array([op("a"), op("b")]), vec![false, true]),
            (op("alone"), vec![true]),
        ] {
            let message = Message::from_value(&batch);
            let mut items = message.items();
            assert!(!items.is_at_end(), "not begun");
            let mut seen = Vec::new();
            while let Some(item) = items.next() {
                item.expect("an operation");
                seen.push(items.is_at_end());
            }
            assert_eq!(seen, ends);
        }
    }
}
