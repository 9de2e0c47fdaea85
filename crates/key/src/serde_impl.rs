//! A key in serde's data model: `str`, `bytes`, numbers, sequences. Tuples are sequences.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use crate::{Key, MAX_KEY_DEPTH};

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Str(s) => serializer.serialize_str(s),
            Self::Bytes(b) => serializer.serialize_bytes(b),
            Self::Int(i) => serializer.serialize_i64(*i),
            Self::UInt(u) => serializer.serialize_u64(*u),
            Self::Float(f) => serializer.serialize_f64(*f),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::None => serializer.serialize_unit(),
            Self::Tuple(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items.iter() {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        KeySeed { depth: 0 }.deserialize(deserializer)
    }
}

/// Carries the depth, so that a peer cannot make us recurse without bound.
#[derive(Clone, Copy)]
struct KeySeed {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a task key (str, bytes, int, float or tuple of keys)")
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Key, E> {
        Ok(Key::Str(v.into()))
    }

    fn visit_bytes<E: Error>(self, v: &[u8]) -> Result<Key, E> {
        Ok(Key::Bytes(v.into()))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Key, E> {
        Ok(Key::Int(v))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Key, E> {
        Ok(i64::try_from(v).map_or(Key::UInt(v), Key::Int))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Key, E> {
        Ok(Key::Float(v))
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Key, E> {
        Ok(Key::Bool(v))
    }

    fn visit_unit<E: Error>(self) -> Result<Key, E> {
        Ok(Key::None)
    }

    fn visit_none<E: Error>(self) -> Result<Key, E> {
        Ok(Key::None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Key, A::Error> {
        let next = Self {
            depth: self.depth + 1,
        };
        if next.depth > MAX_KEY_DEPTH {
            return Err(A::Error::custom("task key is nested too deeply"));
        }
        // No capacity from the peer's length: it may promise more than it sends.
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(next)? {
            items.push(item);
        }
        Ok(Key::Tuple(items.into()))
    }
}
