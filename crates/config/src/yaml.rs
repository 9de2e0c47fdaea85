//! YAML (and JSON, its subset) files, with plain words resolved as PyYAML's safe loader does: YAML 1.1,
//! where `yes` and `on` are true and `1e6` is text. Dates stay text.

use std::collections::HashMap;
use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use crate::error::ConfigError;
use crate::literal::key_text;
use crate::value::{ConfigMap, ConfigValue};

/// Mappings and lists within each other.
const MAX_DEPTH: usize = 64;
/// Values of one file, copies by alias included.
const MAX_VALUES: usize = 200_000;

/// Parses one file's text; None when it is empty.
///
/// # Errors
/// [`ConfigError::Malformed`] and [`ConfigError::NotAMapping`].
pub fn parse(path: &Path, text: &str) -> Result<Option<ConfigMap>, ConfigError> {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        values: 0,
        span: Span::default(),
    };
    let value = reader
        .document()
        .map_err(|problem| reader.error(path, problem))?;
    match value {
        ConfigValue::None => Ok(None),
        ConfigValue::Map(map) => Ok(Some(map)),
        other => Err(ConfigError::NotAMapping {
            path: path.to_owned(),
            found: other.type_name(),
        }),
    }
}

/// What is wrong, and where if not at the last event.
enum Problem {
    Scan(ScanError),
    Here(String),
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Self::Here(text.to_owned())
    }
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, (ConfigValue, usize)>,
    values: usize,
    span: Span,
}

impl<'a> Reader<'a> {
    fn error(&self, path: &Path, problem: Problem) -> ConfigError {
        let (marker, problem) = match problem {
            Problem::Scan(error) => (*error.marker(), error.info().replace('\n', " ")),
            Problem::Here(text) => (self.span.start, text),
        };
        let (line, column) = (marker.line(), marker.col().saturating_add(1));
        ConfigError::Malformed {
            path: path.to_owned(),
            line,
            column,
            problem,
        }
    }

    fn next(&mut self) -> Result<Event<'a>, Problem> {
        let (event, span) = self
            .events
            .next()
            .unwrap_or(Ok((Event::StreamEnd, self.span)))
            .map_err(Problem::Scan)?;
        self.span = span;
        Ok(event)
    }

    fn document(&mut self) -> Result<ConfigValue, Problem> {
        let mut value = None;
        loop {
            match self.next()? {
                Event::StreamEnd => return Ok(value.unwrap_or(ConfigValue::None)),
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) if value.is_some() => {
                    return Err("the file holds more than one document".into());
                }
                Event::DocumentStart(_) => {
                    let event = self.next()?;
                    value = Some(self.value(event, 0)?);
                }
                _ => return Err("expected the start of a document".into()),
            }
        }
    }

    fn count(&mut self, values: usize) -> Result<(), Problem> {
        self.values = self.values.saturating_add(values);
        if self.values > MAX_VALUES {
            return Err("too many values".into());
        }
        Ok(())
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<ConfigValue, Problem> {
        if depth > MAX_DEPTH {
            return Err("nested too deeply".into());
        }
        self.count(1)?;
        let before = self.values;
        let (value, anchor) = match event {
            Event::Alias(id) => {
                let (value, values) = self
                    .anchors
                    .get(&id)
                    .ok_or("an alias to nothing before it")?
                    .clone();
                self.count(values)?;
                return Ok(value);
            }
            Event::Scalar(text, style, anchor, tag) => {
                (scalar(&text, style, tag.as_deref())?, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), "seq")?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), "map")?;
                (self.map(depth)?, anchor)
            }
            _ => return Err("expected a value".into()),
        };
        if anchor != 0 {
            self.anchors
                .insert(anchor, (value.clone(), self.values - before + 1));
        }
        Ok(value)
    }

    fn list(&mut self, depth: usize) -> Result<ConfigValue, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(ConfigValue::List(items)),
                event => items.push(self.value(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<ConfigValue, Problem> {
        let mut map = ConfigMap::new();
        let mut merged = Vec::new();
        loop {
            let key = match self.next()? {
                Event::MappingEnd => break,
                event => {
                    let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
                    let key = self.value(event, depth + 1)?;
                    if merge { None } else { Some(key) }
                }
            };
            let event = self.next()?;
            let value = self.value(event, depth + 1)?;
            match key {
                None => merged.push(value),
                Some(key) => {
                    let key = key_text(&key).ok_or("a list or a mapping cannot be a key")?;
                    map.insert(key, value);
                }
            }
        }
        for value in merged {
            merge_into(&mut map, value)?;
        }
        Ok(ConfigValue::Map(map))
    }
}

/// `<<: *other`: what the mapping itself says wins, then the first of several merged ones.
fn merge_into(map: &mut ConfigMap, value: ConfigValue) -> Result<(), Problem> {
    match value {
        ConfigValue::Map(other) => {
            for (key, value) in other {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        ConfigValue::List(items) => items.into_iter().try_for_each(|item| match item {
            ConfigValue::Map(_) => merge_into(map, item),
            _ => Err("'<<' takes mappings".into()),
        }),
        _ => Err("'<<' takes a mapping or a list of mappings".into()),
    }
}

fn check_tag(tag: Option<&Tag>, allowed: &str) -> Result<(), Problem> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == allowed => Ok(()),
        Some(tag) => Err(Problem::Here(format!("unsupported tag {tag}"))),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<ConfigValue, Problem> {
    let Some(tag) = tag else {
        let plain = style == ScalarStyle::Plain;
        return Ok(if plain {
            resolve(text)
        } else {
            ConfigValue::Str(text.to_owned())
        });
    };
    let value = match tag.suffix.as_str() {
        "str" => ConfigValue::Str(text.to_owned()),
        "int" | "float" | "bool" | "null" => resolve(text),
        _ => return Err(Problem::Here(format!("unsupported tag {tag}"))),
    };
    if !tag.is_yaml_core_schema() {
        return Err(Problem::Here(format!("unsupported tag {tag}")));
    }
    Ok(match value {
        ConfigValue::Int(_) if tag.suffix == "float" => {
            text.parse().map_or(value, ConfigValue::Float)
        }
        value => value,
    })
}

/// A plain word as YAML 1.1 understands it.
fn resolve(text: &str) -> ConfigValue {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return ConfigValue::None,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return ConfigValue::Bool(true);
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return ConfigValue::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return ConfigValue::Float(f64::NAN),
        _ => {}
    }
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return ConfigValue::Float(if negative {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        });
    }
    int(digits, negative)
        .or_else(|| float(text, digits))
        .unwrap_or_else(|| ConfigValue::Str(text.to_owned()))
}

fn int(digits: &str, negative: bool) -> Option<ConfigValue> {
    let first = digits.chars().next().filter(char::is_ascii_digit)?;
    let plain = digits.replace('_', "");
    let value = if let Some(hex) = plain.strip_prefix("0x") {
        i64::from_str_radix(hex, 16).ok()?
    } else if let Some(binary) = plain.strip_prefix("0b") {
        i64::from_str_radix(binary, 2).ok()?
    } else if plain.contains(':') {
        sexagesimal(&plain)?
    } else if !plain.chars().all(|c| c.is_ascii_digit()) {
        return None;
    } else if first == '0' && plain.len() > 1 {
        i64::from_str_radix(&plain, 8).ok()?
    } else if let Ok(value) = plain.parse::<i64>() {
        value
    } else {
        let value: f64 = plain.parse().ok()?;
        return Some(ConfigValue::Float(if negative { -value } else { value }));
    };
    Some(ConfigValue::Int(if negative {
        value.checked_neg()?
    } else {
        value
    }))
}

/// `1:30` is ninety.
fn sexagesimal(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let first = parts.next()?;
    if first.starts_with('0') || !first.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    parts.try_fold(first.parse().ok()?, |sum: i64, part| {
        let short = matches!(part.len(), 1 | 2) && part.chars().all(|c| c.is_ascii_digit());
        let digit: i64 = part.parse().ok().filter(|digit| short && *digit < 60)?;
        sum.checked_mul(60)?.checked_add(digit)
    })
}

/// Only with a point, an exponent only with a sign, and no sign before a leading point.
fn float(text: &str, digits: &str) -> Option<ConfigValue> {
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (digits.get(..at)?, digits.get(at + 1..)),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let number = |part: &str| part.chars().all(|c| c.is_ascii_digit() || c == '_');
    let starts_with_digit = mantissa.starts_with(|c: char| c.is_ascii_digit())
        || (whole.is_empty()
            && text == digits
            && fraction.starts_with(|c: char| c.is_ascii_digit()));
    let exponent_fits = exponent.is_none_or(|exponent| {
        exponent
            .strip_prefix(['+', '-'])
            .is_some_and(|e| !e.is_empty() && number(e))
    });
    if !(number(whole) && number(fraction) && starts_with_digit && exponent_fits) {
        return None;
    }
    text.replace('_', "").parse().ok().map(ConfigValue::Float)
}
