//! Fields of typed messages that serde cannot derive: keys in all container forms, numbers that
//! Python sends in several types, exceptions in all their forms.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::message::Item;
use crate::payload::Payload;
use crate::value::{MAX_DEPTH, is_marker};

/// One entry of `startstops`: seconds since the epoch on the worker's clock.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct StartStop<'a> {
    /// `compute`, `transfer`, `deserialize`, `disk-read`, …
    pub action: &'a str,
    /// Begin.
    pub start: f64,
    /// End.
    pub stop: f64,
    /// Peer address of a transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<&'a str>,
}

/// An exception or traceback as it travels.
#[derive(Clone, Debug, PartialEq)]
pub enum ErrorObject {
    /// Lifted: the object itself (≤ 2021.07.x) or its pickle as bytes (since 2021.08.0).
    Payload(Arc<Payload>),
    /// Its pickle inside the msgpack.
    Pickle(Bytes),
    /// Only a text; peers make a plain `Exception` of it.
    Text(String),
}

/// [`ErrorObject`] before its marker is resolved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum RawError<'a> {
    #[default]
    Nil,
    Marker(i64),
    Pickle(&'a [u8]),
    Text(&'a str),
}

impl RawError<'_> {
    pub(super) fn resolve(self, item: &Item<'_>) -> Result<Option<ErrorObject>, DecodeError> {
        Ok(match self {
            Self::Nil => None,
            Self::Marker(index) => Some(ErrorObject::Payload(Arc::clone(
                item.message.payload_at(index)?,
            ))),
            Self::Pickle(bytes) => Some(ErrorObject::Pickle(item.message.keep(bytes))),
            Self::Text(text) => Some(ErrorObject::Text(text.to_owned())),
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawError<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = RawError<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an exception: a serialised object, bytes, text or nil")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(RawError::Nil)
            }

            fn visit_borrowed_bytes<E: de::Error>(self, v: &'de [u8]) -> Result<Self::Value, E> {
                Ok(RawError::Pickle(v))
            }

            fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(RawError::Text(v))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = None;
                while let Some(name) = map.next_key::<&str>()? {
                    if is_marker(name) {
                        found = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                found
                    .map(RawError::Marker)
                    .ok_or_else(|| de::Error::custom("map without marker"))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// Keys in an array, in `{"__Set__": true, "as-list": […]}`, or nil (none).
pub(super) fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Key>, D::Error> {
    struct V;
    impl<'de> Visitor<'de> for V {
        type Value = Vec<Key>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list or set of keys")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut keys = Vec::new();
            while let Some(key) = seq.next_element()? {
                keys.push(key);
            }
            Ok(keys)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut keys = None;
            while let Some(name) = map.next_key::<&str>()? {
                match name {
                    "as-list" => keys = Some(map.next_value()?),
                    _ => {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
            }
            keys.ok_or_else(|| de::Error::custom("set without `as-list`"))
        }
    }
    deserializer.deserialize_any(V)
}

/// A count: ints, floats (cut off), nil. Below zero is none.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    struct V;
    impl Visitor<'_> for V {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number or nil")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_u64<E: de::Error>(self, v: u64) -> Result<Self::Value, E> {
            Ok(Some(v))
        }

        fn visit_i64<E: de::Error>(self, v: i64) -> Result<Self::Value, E> {
            Ok(u64::try_from(v).ok())
        }

        fn visit_f64<E: de::Error>(self, v: f64) -> Result<Self::Value, E> {
            // The cast saturates; NaN becomes 0.
            Ok((v >= 0.0).then_some(v as u64))
        }
    }
    deserializer.deserialize_any(V)
}

/// A map as pairs in order.
pub(super) fn pairs<'de, D, K, V>(deserializer: D) -> Result<Vec<(K, V)>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de>,
    V: Deserialize<'de>,
{
    struct Pairs<K, V>(std::marker::PhantomData<(K, V)>);
    impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Pairs<K, V> {
        type Value = Vec<(K, V)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map or nil")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_any(Pairs(std::marker::PhantomData))
}

/// Decodes the fields of one item into a struct that borrows from it.
pub(super) fn decode<'a, T: Deserialize<'a>>(item: &Item<'a>) -> Result<T, DecodeError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(item.raw);
    deserializer.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut deserializer).map_err(|error| DecodeError::Message {
        op: item.op.to_owned(),
        detail: error.to_string(),
    })
}
