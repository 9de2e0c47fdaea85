//! The types of configuration keys: what each accepts, and how it is read.

use crate::units::{parse_bytes, parse_number, parse_timedelta, whole_bytes};
use crate::value::{ConfigMap, ConfigValue};

/// The type of a declared key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false; numbers count as in Python, nothing is false.
    Bool,
    /// True, false, or nothing: decide by circumstances.
    OptBool,
    /// A whole number, not negative.
    Count,
    /// A whole number, not negative, or nothing.
    OptCount,
    /// A whole number of either sign.
    Int,
    /// A number; `inf` is one.
    Number,
    /// Text.
    Text,
    /// Text or nothing.
    OptText,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of texts. One text is a list of one.
    Texts,
    /// A list of anything.
    List,
    /// A mapping of anything.
    Map,
    /// A mapping of names to durations.
    Durations,
    /// A duration or nothing; bare numbers count in this unit (`s`, `ms`).
    Duration(&'static str),
    /// An amount of bytes; false or nothing for no limit.
    Bytes,
    /// A part of the whole, usually between 0 and 1; false for off.
    Fraction,
    /// The name of a compression; false or nothing for none.
    Compression,
    /// A version such as 1.2, or nothing.
    Version,
    /// Anything: read by Python only.
    Any,
}

/// The default of a declared key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    /// Nothing.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Str(&'static str),
    /// A list.
    List(&'static [Default]),
    /// A mapping.
    Map(&'static [(&'static str, Default)]),
    /// The key is absent until somebody sets it.
    Absent,
}

impl Default {
    /// As a value; `Absent` is nothing.
    #[must_use]
    pub fn value(&self) -> ConfigValue {
        match self {
            Self::None | Self::Absent => ConfigValue::None,
            Self::Bool(value) => ConfigValue::Bool(*value),
            Self::Int(value) => ConfigValue::Int(*value),
            Self::Float(value) => ConfigValue::Float(*value),
            Self::Str(text) => ConfigValue::Str((*text).to_owned()),
            Self::List(items) => ConfigValue::List(items.iter().map(Self::value).collect()),
            Self::Map(items) => ConfigValue::Map(
                items
                    .iter()
                    .map(|(name, item)| ((*name).to_owned(), item.value()))
                    .collect::<ConfigMap>(),
            ),
        }
    }
}

impl Kind {
    /// Whether a value fits.
    #[must_use]
    pub fn accepts(self, value: &ConfigValue) -> bool {
        match self {
            Self::Bool => truth(value).is_some(),
            Self::OptBool => *value == ConfigValue::None || truth(value).is_some(),
            Self::Count => count(value).is_some(),
            Self::OptCount => *value == ConfigValue::None || count(value).is_some(),
            Self::Int => whole(value).is_some(),
            Self::Number => number(value).is_some(),
            Self::Text => text(value).is_some(),
            Self::OptText => *value == ConfigValue::None || text(value).is_some(),
            Self::Word(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Self::Texts => texts(value).is_some(),
            Self::List => matches!(value, ConfigValue::List(_) | ConfigValue::Str(_)),
            Self::Map => matches!(value, ConfigValue::Map(_) | ConfigValue::None),
            Self::Durations => durations(value).is_some(),
            Self::Duration(unit) => duration(value, unit).is_some(),
            Self::Bytes => bytes(value).is_some(),
            Self::Fraction => fraction(value).is_some(),
            Self::Compression => {
                matches!(
                    value,
                    ConfigValue::None | ConfigValue::Bool(false) | ConfigValue::Str(_)
                )
            }
            Self::Version => {
                *value == ConfigValue::None || number(value).is_some_and(|version| version > 0.0)
            }
            Self::Any => true,
        }
    }

    /// What the key may hold, for an error message.
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Bool => "true or false",
            Self::OptBool => "true, false or null",
            Self::Count => "a whole number",
            Self::OptCount => "a whole number or null",
            Self::Int => "a whole number, possibly negative",
            Self::Number => "a number",
            Self::Text => "text",
            Self::OptText => "text or null",
            Self::Word(words) => return format!("one of {}", words.join(", ")),
            Self::Texts => "a list of texts",
            Self::List => "a list",
            Self::Map => "a mapping",
            Self::Durations => "a mapping of names to durations such as 1us or 2s",
            Self::Duration("ms") => {
                "a duration such as 500ms or 30s (bare numbers are milliseconds), or null"
            }
            Self::Duration(_) => "a duration such as 500ms, 30s or 1h, or null",
            Self::Bytes => "a size such as 10MiB or 4GB, or false",
            Self::Fraction => "a number between 0 and 1, or false",
            Self::Compression => "the name of a compression, or false",
            Self::Version => "a version such as 1.2, or null",
            Self::Any => "anything",
        }
        .to_owned()
    }
}

pub(crate) fn truth(value: &ConfigValue) -> Option<bool> {
    match value {
        ConfigValue::None => Some(false),
        ConfigValue::Bool(value) => Some(*value),
        ConfigValue::Int(value) => Some(*value != 0),
        _ => None,
    }
}

pub(crate) fn whole(value: &ConfigValue) -> Option<i64> {
    match value {
        ConfigValue::Int(value) => Some(*value),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked to be whole and within 53 bits"
        )]
        ConfigValue::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => {
            Some(*value as i64)
        }
        ConfigValue::Str(text) => text.trim().parse().ok(),
        _ => None,
    }
}

pub(crate) fn count(value: &ConfigValue) -> Option<u64> {
    whole(value).and_then(|value| u64::try_from(value).ok())
}

pub(crate) fn number(value: &ConfigValue) -> Option<f64> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "as Python's float()")]
        ConfigValue::Int(value) => Some(*value as f64),
        ConfigValue::Float(value) => Some(*value),
        ConfigValue::Str(text) => parse_number(text),
        _ => None,
    }
}

/// Text; numbers are taken as written, because `DASK_…=8786` parses as one.
pub(crate) fn text(value: &ConfigValue) -> Option<String> {
    match value {
        ConfigValue::Str(text) => Some(text.clone()),
        ConfigValue::Int(_) | ConfigValue::Float(_) => Some(value.to_string()),
        ConfigValue::Bool(true) => Some("True".to_owned()),
        ConfigValue::Bool(false) => Some("False".to_owned()),
        _ => None,
    }
}

pub(crate) fn texts(value: &ConfigValue) -> Option<Vec<String>> {
    match value {
        ConfigValue::None => Some(Vec::new()),
        ConfigValue::Str(text) => Some(vec![text.clone()]),
        ConfigValue::List(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    }
}

/// Seconds; the inner None is "nothing".
#[expect(
    clippy::option_option,
    reason = "absent and wrong are different answers"
)]
pub(crate) fn duration(value: &ConfigValue, unit: &str) -> Option<Option<f64>> {
    match value {
        ConfigValue::None => Some(None),
        ConfigValue::Str(text) => parse_timedelta(text, unit).ok().map(Some),
        ConfigValue::Int(_) | ConfigValue::Float(_) => {
            let factor = parse_timedelta("1", unit).ok()?;
            let seconds = number(value)? * factor;
            (seconds.is_finite() && seconds >= 0.0).then_some(Some(seconds))
        }
        _ => None,
    }
}

pub(crate) fn durations(value: &ConfigValue) -> Option<Vec<(String, f64)>> {
    let map = match value {
        ConfigValue::None => return Some(Vec::new()),
        other => other.as_map()?,
    };
    map.iter()
        .map(|(name, value)| Some((name.clone(), duration(value, "s")??)))
        .collect()
}

/// Bytes; the inner None is "no limit".
#[expect(
    clippy::option_option,
    reason = "absent and wrong are different answers"
)]
pub(crate) fn bytes(value: &ConfigValue) -> Option<Option<u64>> {
    match value {
        ConfigValue::None | ConfigValue::Bool(false) => Some(None),
        ConfigValue::Str(text) => parse_bytes(text).ok().map(Some),
        ConfigValue::Int(value) => u64::try_from(*value).ok().map(Some),
        ConfigValue::Float(value) => whole_bytes(*value).map(Some),
        _ => None,
    }
}

/// A part of the whole; the inner None is "off".
#[expect(
    clippy::option_option,
    reason = "absent and wrong are different answers"
)]
pub(crate) fn fraction(value: &ConfigValue) -> Option<Option<f64>> {
    match value {
        ConfigValue::None | ConfigValue::Bool(false) => Some(None),
        other => number(other).filter(|part| *part >= 0.0).map(Some),
    }
}
