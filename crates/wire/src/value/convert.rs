//! Conversions into [`Value`].

use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;

use super::Value;
use crate::payload::Payload;

macro_rules! from {
    ($($type:ty => |$v:ident| $make:expr),+ $(,)?) => {$(
        impl From<$type> for Value {
            fn from($v: $type) -> Self { $make }
        }
    )+};
}

from! {
    () => |_v| Self::Nil,
    bool => |v| Self::Bool(v),
    i32 => |v| Self::Int(i64::from(v)),
    u16 => |v| Self::Int(i64::from(v)),
    u32 => |v| Self::Int(i64::from(v)),
    i64 => |v| Self::Int(v),
    u64 => |v| i64::try_from(v).map_or(Self::UInt(v), Self::Int),
    usize => |v| Self::from(v as u64),
    f64 => |v| Self::Float(v),
    &str => |v| Self::Str(v.into()),
    String => |v| Self::Str(v),
    &String => |v| Self::Str(v.clone()),
    Arc<str> => |v| Self::Str(v.as_ref().into()),
    &Arc<str> => |v| Self::Str(v.as_ref().into()),
    Bytes => |v| Self::Bin(v),
    &'static [u8] => |v| Self::Bin(Bytes::from_static(v)),
    Vec<Value> => |v| Self::Array(v),
    Payload => |v| Self::Payload(Arc::new(v)),
    Arc<Payload> => |v| Self::Payload(v),
    &Key => |v| match v {
        Key::Str(s) => Self::Str(s.as_ref().into()),
        Key::Bytes(b) => Self::Bin(Bytes::copy_from_slice(b)),
        Key::Int(i) => Self::Int(*i),
        Key::UInt(u) => Self::UInt(*u),
        Key::Float(f) => Self::Float(*f),
        Key::Bool(b) => Self::Bool(*b),
        Key::None => Self::Nil,
        Key::Tuple(items) => Self::Array(items.iter().map(Self::from).collect()),
    },
    Key => |v| Self::from(&v),
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Nil, Into::into)
    }
}

impl<K: Into<Value>, V: Into<Value>> FromIterator<(K, V)> for Value {
    /// A map with keys of any type.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self::Map(
            entries
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        )
    }
}
