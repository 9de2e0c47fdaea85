//! [`Value`]: any msgpack value as Dask uses it, for everything that is not a hot message: RPC
//! arguments, registrations, events, graph submissions.
//!
//! Reading order: this file, then `codec.rs` (bytes to values and back, with payloads bound),
//! `serde_impl.rs` (values in serde's data model, without payloads).

mod codec;
mod convert;
mod serde_impl;

use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::{Key, MAX_KEY_DEPTH};

use crate::error::DecodeError;
use crate::payload::Payload;

pub(crate) use codec::{decode_prefix, encode_into, find_payload, is_marker};

/// Deepest nesting of arrays and maps that is read or written: as much as Python's msgpack writes.
/// Profiles of workers use two levels per frame of a stack.
pub const MAX_DEPTH: usize = 512;
/// Bytes of stack that a thread needs that handles values of peers: twice what the deepest ones take in
/// an unoptimised build.
pub const STACK_SIZE: usize = 8 << 20;
/// Most values that one message may hold when it is decoded dynamically (each takes some 40 bytes
/// of ours for as little as one of the peer's).
pub const MAX_NODES: usize = 1 << 24;

/// A msgpack value, owned. Maps keep their order and may have keys of any type.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    /// `None`.
    #[default]
    Nil,
    /// `True`, `False`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// A float.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes; shares the storage of the message it came in.
    Bin(Bytes),
    /// List or tuple: the wire does not tell them apart.
    Array(Vec<Value>),
    /// Pairs in the order of the sender.
    Map(Vec<(Value, Value)>),
    /// An object that travels beside the msgpack ([`crate::message::Message`]).
    Payload(Arc<Payload>),
}

impl Value {
    /// Decodes exactly one value that fills `bytes`. Markers of payloads stay maps; use
    /// [`crate::message::Message::value`] to have them bound.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let (value, used) = decode_prefix(bytes, &[])?;
        match bytes.len() - used {
            0 => Ok(value),
            left => Err(DecodeError::Trailing(left)),
        }
    }

    /// The same with storage of its own. Bytes share that of the message they came in, and what is kept of it must not
    /// keep the whole: a few lines of source code came with a graph of a hundred megabytes.
    #[must_use]
    pub fn detached(&self) -> Self {
        match self {
            Self::Bin(bytes) => Self::Bin(Bytes::copy_from_slice(bytes)),
            Self::Payload(payload) => Self::Payload(Arc::new(payload.detached())),
            Self::Array(items) => Self::Array(items.iter().map(Self::detached).collect()),
            Self::Map(entries) => {
                let entries = entries.iter();
                let detached = entries.map(|(key, value)| (key.detached(), value.detached()));
                Self::Map(detached.collect())
            }
            other => other.clone(),
        }
    }

    /// The frame that this value stands for, if it is an unbound marker and nothing else.
    pub fn marker(&self) -> Option<usize> {
        match self {
            Self::Map(entries) => match entries.as_slice() {
                [(Self::Str(name), Self::Int(index))] if is_marker(name) => {
                    usize::try_from(*index).ok()
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Moves the frames that unbound markers in this value name by so many places, for a message whose
    /// frames are to stand behind those of others.
    pub fn shift_markers(&mut self, by: usize) {
        match self {
            Self::Array(items) => items.iter_mut().for_each(|item| item.shift_markers(by)),
            Self::Map(entries) => {
                if let [(Self::Str(name), Self::Int(index))] = entries.as_mut_slice()
                    && is_marker(name)
                    && *index > 0
                {
                    *index = index.saturating_add(i64::try_from(by).unwrap_or(i64::MAX));
                    return;
                }
                let values = entries.iter_mut().map(|(_, value)| value);
                values.for_each(|value| value.shift_markers(by));
            }
            _ => {}
        }
    }

    /// msgpack of a value that contains no payload; a payload becomes nil.
    pub fn encode(&self) -> Bytes {
        let mut writer = crate::msgpack::Writer::new();
        encode_into(self, &mut writer, &mut |_, w| w.nil());
        writer.buf.into()
    }

    /// A map with text keys.
    pub fn map<K: Into<String>, V: Into<Value>>(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let pair = |(k, v): (K, V)| (Self::Str(k.into()), v.into());
        Self::Map(entries.into_iter().map(pair).collect())
    }

    /// An array.
    pub fn array<V: Into<Value>>(items: impl IntoIterator<Item = V>) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }

    /// A set, as releases from 2020.12.0 write it. Everywhere stock expects a set from us, an array
    /// serves as well.
    pub fn set<V: Into<Value>>(items: impl IntoIterator<Item = V>) -> Self {
        Self::map([
            ("__Set__", Self::Bool(true)),
            ("as-list", Self::array(items)),
        ])
    }

    /// The entry of a map under a text key. Nothing for other types.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let entries = self.as_map()?;
        entries
            .iter()
            .find(|(k, _)| k.as_str() == Some(key))
            .map(|(_, v)| v)
    }

    /// Like [`Self::get`], for changing.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match self {
            Self::Map(entries) => entries
                .iter_mut()
                .find(|(k, _)| k.as_str() == Some(key))
                .map(|(_, v)| v),
            _ => None,
        }
    }

    /// Takes the entry of a map out.
    pub fn remove(&mut self, key: &str) -> Option<Self> {
        match self {
            Self::Map(entries) => {
                let at = entries.iter().position(|(k, _)| k.as_str() == Some(key))?;
                Some(entries.remove(at).1)
            }
            _ => None,
        }
    }

    /// Sets the entry of a map; does nothing to other types.
    pub fn insert(&mut self, key: &str, value: impl Into<Value>) {
        if let Some(slot) = self.get_mut(key) {
            *slot = value.into();
        } else if let Self::Map(entries) = self {
            entries.push((Self::Str(key.into()), value.into()));
        }
    }

    /// Whether it is `None`.
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// Text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    /// An integer, a flag, or a float without fraction that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Int(i) => Some(i),
            Self::Bool(b) => Some(i64::from(b)),
            Self::Float(f) if f.fract() == 0.0 && f.abs() < 9.2e18 => Some(f as i64),
            _ => None,
        }
    }

    /// An integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::UInt(u) => Some(u),
            _ => self.as_i64().and_then(|i| u64::try_from(i).ok()),
        }
    }

    /// Any number.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Float(f) => Some(f),
            Self::Int(i) => Some(i as f64),
            Self::UInt(u) => Some(u as f64),
            Self::Bool(b) => Some(f64::from(u8::from(b))),
            _ => None,
        }
    }

    /// A flag; integers count as Python counts them.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(b) => Some(b),
            Self::Int(i) => Some(i != 0),
            _ => None,
        }
    }

    /// Bytes.
    pub fn as_bin(&self) -> Option<&Bytes> {
        match self {
            Self::Bin(b) => Some(b),
            _ => None,
        }
    }

    /// Elements of an array or of a set (`{"__Set__": true, "as-list": […]}`).
    pub fn as_seq(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            Self::Map(_) => match (self.get("__Set__"), self.get("as-list")) {
                (Some(Self::Bool(true)), Some(Self::Array(items))) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    /// Entries of a map.
    pub fn as_map(&self) -> Option<&[(Self, Self)]> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The payload bound here.
    pub fn as_payload(&self) -> Option<&Arc<Payload>> {
        match self {
            Self::Payload(payload) => Some(payload),
            _ => None,
        }
    }

    /// The value as a task key, if it is of a legal type and not nested too deeply.
    pub fn to_key(&self) -> Option<Key> {
        self.to_key_at(0)
    }

    fn to_key_at(&self, depth: usize) -> Option<Key> {
        Some(match self {
            Self::Nil => Key::None,
            Self::Bool(b) => Key::Bool(*b),
            Self::Int(i) => Key::Int(*i),
            Self::UInt(u) => Key::UInt(*u),
            Self::Float(f) => Key::Float(*f),
            Self::Str(s) => Key::Str(s.as_str().into()),
            Self::Bin(b) => Key::Bytes(b.as_ref().into()),
            Self::Array(_) if depth >= MAX_KEY_DEPTH => return None,
            Self::Array(items) => {
                let keys: Option<Vec<Key>> = items.iter().map(|v| v.to_key_at(depth + 1)).collect();
                Key::Tuple(keys?.into())
            }
            Self::Map(_) | Self::Payload(_) => return None,
        })
    }

    /// Keys of an array or set; `None` if it is neither or an element is no key.
    pub fn to_keys(&self) -> Option<Vec<Key>> {
        self.as_seq()?.iter().map(Self::to_key).collect()
    }

    /// Name of the type in Python's words.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::UInt(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Bin(_) => "bytes",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Payload(_) => "serialised object",
        }
    }
}
