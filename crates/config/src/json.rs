//! JSON as Python reads and writes it: `Infinity`, `-Infinity` and `NaN` are numbers.

use serde_json::Value;

use crate::value::{ConfigMap, ConfigValue};

/// Marks a word that JSON proper does not have; cannot stand at the start of configured text.
const MARK: &str = "\u{0}number:";

/// Parses a JSON document.
///
/// # Errors
/// The parser's words when it is not JSON.
pub(crate) fn parse(text: &str) -> Result<ConfigValue, String> {
    let value: Value =
        serde_json::from_str(&quote_words(text)).map_err(|error| error.to_string())?;
    Ok(convert(value))
}

/// Puts quotes and a mark around `Infinity`, `-Infinity` and `NaN` outside of texts.
fn quote_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let (mut in_text, mut escaped) = (false, false);
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"]
            .iter()
            .find(|word| rest.starts_with(**word));
        if let (false, Some(word)) = (in_text, word) {
            out.push_str("\"\\u0000number:");
            out.push_str(word);
            out.push('"');
            rest = rest.get(word.len()..).unwrap_or_default();
            continue;
        }
        if c == '"' && !escaped {
            in_text = !in_text;
        }
        escaped = in_text && c == '\\' && !escaped;
        out.push(c);
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    out
}

fn convert(value: Value) -> ConfigValue {
    match value {
        Value::Null => ConfigValue::None,
        Value::Bool(value) => ConfigValue::Bool(value),
        Value::Number(number) => match number.as_i64() {
            Some(value) => ConfigValue::Int(value),
            None => ConfigValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => match text.strip_prefix(MARK) {
            Some("Infinity") => ConfigValue::Float(f64::INFINITY),
            Some("-Infinity") => ConfigValue::Float(f64::NEG_INFINITY),
            Some(_) => ConfigValue::Float(f64::NAN),
            None => ConfigValue::Str(text),
        },
        Value::Array(items) => ConfigValue::List(items.into_iter().map(convert).collect()),
        Value::Object(map) => ConfigValue::Map(
            map.into_iter()
                .map(|(key, value)| (key, convert(value)))
                .collect::<ConfigMap>(),
        ),
    }
}
