//! Values of the wire and JSON.

use oxidask_wire::value::Value;

/// A value of the wire as JSON: keys of maps become text, what JSON does not have becomes null.
pub(super) fn to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Nil | Value::Bin(_) | Value::Payload(_) => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::UInt(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Str(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Map(pairs) => {
            let text = |key: &Value| {
                key.to_key()
                    .map_or_else(|| format!("{key:?}"), |key| key.to_text())
            };
            Json::Object(
                pairs
                    .iter()
                    .map(|(key, value)| (text(key), to_json(value)))
                    .collect(),
            )
        }
    }
}

/// JSON as a value of the wire.
pub(super) fn from_json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::Nil,
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, float) => float.unwrap_or(f64::NAN).into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => Value::Array(items.iter().map(from_json).collect()),
        Json::Object(map) => Value::map(
            map.iter()
                .map(|(key, value)| (key.as_str(), from_json(value))),
        ),
    }
}
