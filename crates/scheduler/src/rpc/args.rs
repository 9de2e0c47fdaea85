//! A request as a handler sees it: typed access to its keyword arguments.

use std::net::IpAddr;
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::RpcError;
use crate::roles::Roles;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `tcp://ip:port` of the connection.
    pub address: Arc<str>,
    /// Its host.
    pub ip: Option<IpAddr>,
    /// Release of a registered peer on that host, which is most likely the caller's. RPC
    /// connections do not tell; replies hardly differ.
    pub release: Release,
    /// What it may ask for.
    pub roles: Roles,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is asked for.
    pub op: Arc<str>,
    /// Keyword arguments: a map without `op`, `reply`, `close` and `serializers`.
    pub args: Value,
    /// Serialisers the caller can read, if it said so.
    pub serializers: Option<Value>,
    /// Who asks.
    pub caller: Arc<Caller>,
}

impl Call {
    /// An argument; nothing when it is missing or `None`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.args.get(name).filter(|value| !value.is_nil())
    }

    /// Takes an argument out; nil when it is missing.
    pub fn take(&mut self, name: &str) -> Value {
        self.args.remove(name).unwrap_or_default()
    }

    /// An argument that must be there (it may be `None`).
    ///
    /// # Errors
    /// `TypeError`, as Python's call would.
    pub fn required(&self, name: &str) -> Result<&Value, RpcError> {
        self.args.get(name).ok_or_else(|| {
            RpcError::type_error(format!("{}() missing required argument: '{name}'", self.op))
        })
    }

    /// Text that must be there.
    ///
    /// # Errors
    /// `TypeError` when it is missing or of another type.
    pub fn str(&self, name: &str) -> Result<&str, RpcError> {
        let value = self.required(name)?;
        value.as_str().ok_or_else(|| self.wrong(name, "str", value))
    }

    /// Text, or nothing.
    ///
    /// # Errors
    /// `TypeError` when it is of another type.
    pub fn opt_str(&self, name: &str) -> Result<Option<&str>, RpcError> {
        let of_type = |value: &Value| self.wrong(name, "str", value);
        self.get(name)
            .map(|value| value.as_str().ok_or_else(|| of_type(value)))
            .transpose()
    }

    /// The text of a str or a number, as names of workers may be both.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.to_key().map(|key| key.to_text())
    }

    /// One task key that must be there.
    ///
    /// # Errors
    /// `TypeError` when it is missing or no key.
    pub fn key(&self, name: &str) -> Result<Key, RpcError> {
        let value = self.required(name)?;
        value.to_key().ok_or_else(|| self.wrong(name, "key", value))
    }

    /// Task keys that must be there.
    ///
    /// # Errors
    /// `TypeError` when they are missing or no keys.
    pub fn keys(&self, name: &str) -> Result<Vec<Key>, RpcError> {
        let value = self.required(name)?;
        keys_of(value).ok_or_else(|| self.wrong(name, "list of keys", value))
    }

    /// Task keys, or nothing.
    ///
    /// # Errors
    /// `TypeError` when they are no keys.
    pub fn opt_keys(&self, name: &str) -> Result<Option<Vec<Key>>, RpcError> {
        self.get(name).map(|_| self.keys(name)).transpose()
    }

    /// A list of texts (numbers by their text), or nothing. A single text counts as a list of one.
    ///
    /// # Errors
    /// `TypeError` when it is something else.
    pub fn opt_texts(&self, name: &str) -> Result<Option<Vec<String>>, RpcError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        if let Some(text) = value.as_str() {
            return Ok(Some(vec![text.to_owned()]));
        }
        let keys = keys_of(value).ok_or_else(|| self.wrong(name, "list of str", value))?;
        Ok(Some(keys.iter().map(Key::to_text).collect()))
    }

    /// A flag with a default.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.get(name).and_then(truth).unwrap_or(default)
    }

    /// A number, or nothing.
    ///
    /// # Errors
    /// `TypeError` when it is something else.
    pub fn opt_f64(&self, name: &str) -> Result<Option<f64>, RpcError> {
        let of_type = |value: &Value| self.wrong(name, "float", value);
        self.get(name)
            .map(|value| value.as_f64().ok_or_else(|| of_type(value)))
            .transpose()
    }

    /// An integer, or nothing.
    ///
    /// # Errors
    /// `TypeError` when it is something else.
    pub fn opt_i64(&self, name: &str) -> Result<Option<i64>, RpcError> {
        let of_type = |value: &Value| self.wrong(name, "int", value);
        self.get(name)
            .map(|value| value.as_i64().ok_or_else(|| of_type(value)))
            .transpose()
    }

    /// Seconds: a number, or text such as `"500ms"`; nothing when missing or `None`.
    ///
    /// # Errors
    /// `ValueError` when the text is no duration, `TypeError` for other types.
    pub fn opt_seconds(&self, name: &str) -> Result<Option<f64>, RpcError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value {
            Value::Str(text) => parse_seconds(text).map(Some).ok_or_else(|| {
                RpcError::value_error(format!("Could not interpret '{text}' as a time"))
            }),
            _ => self.opt_f64(name),
        }
    }

    /// `TypeError` for an argument of the wrong type.
    pub fn wrong(&self, name: &str, expected: &str, value: &Value) -> RpcError {
        RpcError::type_error(format!(
            "{}() argument '{name}' must be {expected}, not {}",
            self.op,
            value.type_name()
        ))
    }
}

/// Keys of an array, of a set, or of the keys of a map.
pub fn keys_of(value: &Value) -> Option<Vec<Key>> {
    if let Some(keys) = value.to_keys() {
        return Some(keys);
    }
    value
        .as_map()?
        .iter()
        .map(|(key, _)| key.to_key())
        .collect()
}

/// A duration in Dask's spelling, in seconds.
fn parse_seconds(text: &str) -> Option<f64> {
    oxidask_config::parse_timedelta(text, "s").ok()
}

fn truth(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| value.as_f64().map(|f| f != 0.0))
}
