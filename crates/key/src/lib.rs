//! Task keys: the one vocabulary word that wire, graph intake and both cores share.
//!
//! A Dask key is a `str` (the only legal type up to `distributed` 2023.8), or since 2023.9.0 also
//! `bytes`, `int`, `float` or a (nested) tuple of keys. This crate holds the type, its Python-like
//! equality, its text forms (`str()`, `repr()`), and Dask's rules for the *prefix* and *group* of a
//! key. It knows no wire format; `serde` support (feature `serde`) describes a key in serde's data
//! model and leaves the encoding to the format.
//!
//! [`numbering`] has the keys of a graph as numbers, for those who look at its dependencies.
//!
//! Reading order: [`Key`], `split.rs` (prefix and group), `numbering.rs`.

pub mod numbering;
#[cfg(feature = "serde")]
mod serde_impl;
mod split;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Deepest nesting of tuples that a key may have. Peers choose keys, so recursion needs a bound.
pub const MAX_KEY_DEPTH: usize = 32;

/// The name of a task. Cheap to clone (shared storage), immutable.
///
/// Equality and hashing follow Python: `1 == 1.0 == True`, and `str` never equals `bytes`.
#[derive(Clone)]
pub enum Key {
    /// The common case.
    Str(Arc<str>),
    /// Since 2023.9.0.
    Bytes(Arc<[u8]>),
    /// Since 2023.9.0.
    Int(i64),
    /// An integer above `i64::MAX` (msgpack carries up to `u64::MAX`).
    UInt(u64),
    /// Since 2023.9.0.
    Float(f64),
    /// Python's `True`/`False`, which are integers to Python.
    Bool(bool),
    /// `None` as an element of a tuple.
    None,
    /// Since 2023.9.0.
    Tuple(Arc<[Key]>),
}

impl Key {
    /// The text of a `str` key, nothing for every other type.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The key as Python's `str()` prints it: the text itself for `str`, `repr()` for the rest.
    pub fn to_text(&self) -> String {
        self.to_string()
    }

    /// The key as Python's `repr()` prints it, e.g. `'x'` or `('x-123', 0, 1)`.
    pub fn repr(&self) -> String {
        let mut out = String::new();
        write_repr(self, &mut out);
        out
    }

    /// Numeric value of an int, float or bool, as far as equality needs it.
    fn number(&self) -> Option<Number> {
        match *self {
            Self::Int(i) => Some(Number::Int(i128::from(i))),
            Self::UInt(u) => Some(Number::Int(i128::from(u))),
            Self::Bool(b) => Some(Number::Int(i128::from(b))),
            // The guard keeps the cast exact; beyond 2^53 floats and ints of that size collide in
            // Python as well when they are numerically equal.
            Self::Float(f) if f.fract() == 0.0 && f.abs() < 1e30 => Some(Number::Int(f as i128)),
            Self::Float(f) => Some(Number::Float(if f.is_nan() {
                f64::NAN.to_bits()
            } else {
                f.to_bits()
            })),
            _ => None,
        }
    }

    /// Heap bytes this key holds (not shared out between clones).
    pub fn heap_bytes(&self) -> usize {
        const ARC: usize = 16;
        match self {
            Self::Str(s) => ARC + s.len(),
            Self::Bytes(b) => ARC + b.len(),
            Self::Tuple(t) => {
                ARC + t
                    .iter()
                    .map(|k| size_of::<Self>() + k.heap_bytes())
                    .sum::<usize>()
            }
            _ => 0,
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Number {
    Int(i128),
    Float(u64),
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Tuple(a), Self::Tuple(b)) => a == b,
            (Self::None, Self::None) => true,
            _ => match (self.number(), other.number()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        }
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Str(s) => s.hash(state),
            Self::Bytes(b) => {
                state.write_u8(1);
                b.hash(state);
            }
            Self::Tuple(t) => {
                state.write_u8(2);
                for key in t.iter() {
                    key.hash(state);
                }
            }
            Self::None => state.write_u8(3),
            _ => {
                state.write_u8(4);
                self.number().hash(state);
            }
        }
    }
}

impl From<&str> for Key {
    fn from(s: &str) -> Self {
        Self::Str(s.into())
    }
}

impl From<String> for Key {
    fn from(s: String) -> Self {
        Self::Str(s.into())
    }
}

impl From<Arc<str>> for Key {
    fn from(s: Arc<str>) -> Self {
        Self::Str(s)
    }
}

impl From<i64> for Key {
    fn from(i: i64) -> Self {
        Self::Int(i)
    }
}

impl<const N: usize> From<[Key; N]> for Key {
    fn from(keys: [Key; N]) -> Self {
        Self::Tuple(Arc::new(keys))
    }
}

impl From<Vec<Key>> for Key {
    fn from(keys: Vec<Key>) -> Self {
        Self::Tuple(keys.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(s) => f.write_str(s),
            _ => f.write_str(&self.repr()),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repr())
    }
}

fn write_repr(key: &Key, out: &mut String) {
    match key {
        Key::Str(s) => repr_str(s, out),
        Key::Bytes(b) => repr_bytes(b, out),
        Key::Int(i) => out.push_str(&i.to_string()),
        Key::UInt(u) => out.push_str(&u.to_string()),
        Key::Float(f) => out.push_str(&repr_float(*f)),
        Key::Bool(true) => out.push_str("True"),
        Key::Bool(false) => out.push_str("False"),
        Key::None => out.push_str("None"),
        Key::Tuple(items) => {
            out.push('(');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_repr(item, out);
            }
            if items.len() == 1 {
                out.push(',');
            }
            out.push(')');
        }
    }
}

/// Python's `repr` of a `str`: single quotes unless the text has one and no double quote.
fn repr_str(s: &str, out: &mut String) {
    let quote = if s.contains('\'') && !s.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in s.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

fn repr_bytes(b: &[u8], out: &mut String) {
    let quote = if b.contains(&b'\'') && !b.contains(&b'"') {
        b'"'
    } else {
        b'\''
    };
    out.push('b');
    out.push(char::from(quote));
    for &c in b {
        match c {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(char::from(c));
            }
            0x20..=0x7e => out.push(char::from(c)),
            c => out.push_str(&format!("\\x{c:02x}")),
        }
    }
    out.push(char::from(quote));
}

/// Python's `repr` of a float: shortest digits that round-trip, exponent below 1e-4 and from 1e16.
fn repr_float(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf" } else { "-inf" }.into();
    }
    let magnitude = f.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{f:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(d) => ('-', d),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    let text = format!("{f}");
    if text.contains('.') {
        text
    } else {
        text + ".0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn tuple(items: &[Key]) -> Key {
        Key::Tuple(items.into())
    }

    #[test]
    fn equality_follows_python() {
        assert_eq!(Key::Int(1), Key::Float(1.0));
        assert_eq!(Key::Int(1), Key::Bool(true));
        assert_eq!(Key::UInt(7), Key::Int(7));
        assert_ne!(Key::Int(1), Key::Float(1.5));
        assert_ne!(Key::from("1"), Key::Int(1));
        assert_ne!(Key::from("x"), Key::Bytes(b"x".as_slice().into()));
        let set: HashSet<Key> = [Key::Int(1), Key::Float(1.0), Key::Bool(true)].into();
        assert_eq!(set.len(), 1, "equal keys hash alike");
    }

    #[test]
    fn repr_is_pythons() {
        let cases: [(Key, &str); 10] = [
            (Key::from("x"), "'x'"),
            (Key::from("it's"), "\"it's\""),
            (Key::from("a\\b\n"), "'a\\\\b\\n'"),
            (tuple(&[Key::from("x-1"), Key::Int(0)]), "('x-1', 0)"),
            (tuple(&[Key::from("x")]), "('x',)"),
            (Key::Bytes(b"\x00'a".as_slice().into()), "b\"\\x00'a\""),
            (Key::Float(1.0), "1.0"),
            (Key::Float(1e16), "1e+16"),
            (Key::Float(1.5e-7), "1.5e-07"),
            (Key::Bool(true), "True"),
        ];
        for (key, expected) in cases {
            assert_eq!(key.repr(), expected);
        }
        assert_eq!(Key::from("x").to_text(), "x");
    }
}
