//! The value of a configuration key, whatever its source.

use std::fmt;

use indexmap::IndexMap;
use serde::{Serialize, Serializer};

/// A nested mapping; keys are text, as in every place Dask reads configuration from.
pub type ConfigMap = IndexMap<String, ConfigValue>;

/// One value of the configuration. Python's tuples and sets arrive as lists.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigValue {
    /// `None`, `null`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number; numbers beyond 64 bits become `Float`.
    Int(i64),
    /// A floating-point number, possibly infinite.
    Float(f64),
    /// Text.
    Str(String),
    /// A list, tuple or set.
    List(Vec<ConfigValue>),
    /// A mapping.
    Map(ConfigMap),
}

impl ConfigValue {
    /// The text, if this is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The mapping, if this is one.
    #[must_use]
    pub fn as_map(&self) -> Option<&ConfigMap> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The items, if this is a list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[ConfigValue]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// What a person calls this type in a message.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Str(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// JSON as Python's `json.dumps` writes it (`Infinity` and `NaN` are words).
impl fmt::Display for ConfigValue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("null"),
            Self::Bool(value) => write!(out, "{value}"),
            Self::Int(value) => write!(out, "{value}"),
            Self::Float(value) if value.is_nan() => out.write_str("NaN"),
            Self::Float(value) if value.is_infinite() => out.write_str(if *value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            }),
            Self::Float(value) => write!(out, "{value:?}"),
            Self::Str(text) => write_text(out, text),
            Self::List(items) => {
                out.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(out, "{comma}{item}")?;
                }
                out.write_str("]")
            }
            Self::Map(map) => {
                out.write_str("{")?;
                for (index, (key, value)) in map.iter().enumerate() {
                    out.write_str(if index == 0 { "" } else { ", " })?;
                    write_text(out, key)?;
                    write!(out, ": {value}")?;
                }
                out.write_str("}")
            }
        }
    }
}

fn write_text(out: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let quoted = serde_json::to_string(text).map_err(|_| fmt::Error)?;
    out.write_str(&quoted)
}

impl Serialize for ConfigValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Str(text) => serializer.serialize_str(text),
            Self::List(items) => items.serialize(serializer),
            Self::Map(map) => serializer.collect_map(map),
        }
    }
}
