//! Decoded msgpack as this room needs it, with handles for serialised objects.

use bytes::Bytes;
use oxidask_key::Key;

/// A value of a message. `P` is whatever the shell uses to refer to a serialised object.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<P> {
    /// `None`.
    Nil,
    /// A flag.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bin(Bytes),
    /// List or tuple: the wire does not tell them apart. A set (`{__Set__: …, as-list: […]}`) may
    /// come as such a map or as an array.
    Array(Vec<Input<P>>),
    /// Pairs in the order of the sender.
    Map(Vec<(Input<P>, Input<P>)>),
    /// A serialised object.
    Payload(P),
}

impl<P> Input<P> {
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        let found = self.entries()?.iter();
        found
            .rev()
            .find(|(key, _)| key.text() == Some(name))
            .map(|(_, value)| value)
    }

    pub(super) fn entries(&self) -> Option<&[(Self, Self)]> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The elements of an array or set.
    pub(super) fn items(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            Self::Map(_) => {
                self.field("__Set__")?;
                match self.field("as-list")? {
                    Self::Array(items) => Some(items),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// A number of things: what may be iterated over.
    pub(super) fn count(&self) -> Option<usize> {
        usize::try_from(self.int()?).ok()
    }

    pub(super) fn ints(&self) -> Option<Vec<i64>> {
        self.items()?.iter().map(Self::int).collect()
    }

    pub(super) fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// The key that a value stands for; tuples are keys by their printed form.
    pub(super) fn key(&self) -> Option<Key> {
        match self {
            Self::Str(text) => Some(Key::from(text.as_str())),
            Self::Bin(bytes) => Some(Key::Bytes(bytes[..].into())),
            other => Some(Key::from(
                other.raw_key(oxidask_key::MAX_KEY_DEPTH)?.to_text(),
            )),
        }
    }

    pub(super) fn raw_key(&self, depth: usize) -> Option<Key> {
        let depth = depth.checked_sub(1)?;
        Some(match self {
            Self::Nil => Key::None,
            Self::Bool(b) => Key::Bool(*b),
            Self::Int(i) => Key::Int(*i),
            Self::Float(f) => Key::Float(*f),
            Self::Str(text) => Key::from(text.as_str()),
            Self::Bin(bytes) => Key::Bytes(bytes[..].into()),
            Self::Array(items) => {
                let items: Option<Vec<Key>> = items.iter().map(|i| i.raw_key(depth)).collect();
                Key::from(items?)
            }
            Self::Map(_) | Self::Payload(_) => return None,
        })
    }

    pub(super) fn is_same_number(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            _ => false,
        }
    }
}
