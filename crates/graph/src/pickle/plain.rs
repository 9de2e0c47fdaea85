//! Nodes as keys and as plain values.

use bytes::Bytes;
use oxidask_key::{Key, MAX_KEY_DEPTH};

use super::arena::{Arena, Kind, NodeId};
use super::walker::{Limits, WalkError, walk};

/// Deepest nesting of a plain value.
const MAX_DEPTH: usize = 64;

/// Largest plain value in bytes of memory. A short pickle can describe
/// exponentially many values by referring to the same ones again and again.
const MAX_PLAIN_SIZE: usize = 64 << 20;

/// Largest key, likewise.
const MAX_KEY_SIZE: usize = 1 << 20;

/// What a value costs besides its text.
const VALUE_SIZE: usize = 64;

/// A value of Python's own simple types.
#[derive(Clone, Debug, PartialEq)]
pub enum PlainValue {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<PlainValue>),
    /// A tuple.
    Tuple(Vec<PlainValue>),
    /// A set or frozenset.
    Set(Vec<PlainValue>),
    /// A dict in order of insertion; of equal keys the last one counts.
    Dict(Vec<(PlainValue, PlainValue)>),
}

impl PlainValue {
    /// The value of a text key of a dict.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Dict(items) => items
                .iter()
                .rev()
                .find(|(key, _)| matches!(key, Self::Str(s) if s == name))
                .map(|(_, value)| value),
            _ => None,
        }
    }
}

/// Why a pickle is not a plain value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlainError {
    /// It cannot be read.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// It holds something else, e.g. a function; only Python can tell what it means.
    #[error("the pickle holds more than plain values: {0}")]
    NotPlain(&'static str),
}

/// Decodes a pickle of plain values, such as `annotations` and `span_metadata` of `update-graph`.
///
/// # Errors
/// See [`PlainError`].
pub fn decode_plain(pickle: Bytes, buffers: Vec<Bytes>) -> Result<PlainValue, PlainError> {
    let (arena, root) = walk(pickle, buffers, Limits::default())?;
    to_plain(&arena, root)
}

/// The plain value of a node.
///
/// # Errors
/// [`PlainError::NotPlain`].
pub fn to_plain(arena: &Arena, node: NodeId) -> Result<PlainValue, PlainError> {
    let mut left = MAX_PLAIN_SIZE;
    plain(arena, node, MAX_DEPTH, &mut left)
}

fn plain(
    arena: &Arena,
    node: NodeId,
    depth: usize,
    left: &mut usize,
) -> Result<PlainValue, PlainError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(PlainError::NotPlain("nested too deeply"));
    };
    *left = left
        .checked_sub(VALUE_SIZE + text_len(arena.kind(node)))
        .ok_or(PlainError::NotPlain("too many values"))?;
    let mut all = |nodes: &[NodeId]| -> Result<Vec<PlainValue>, PlainError> {
        nodes
            .iter()
            .map(|&n| plain(arena, n, depth, left))
            .collect()
    };
    let changed = || PlainError::NotPlain("an object of another class");
    let value = match arena.kind(node) {
        Kind::List => PlainValue::List(all(&arena.list(node).ok_or_else(changed)?)?),
        Kind::Set => PlainValue::Set(all(&arena.set(node).ok_or_else(changed)?)?),
        Kind::Dict => {
            let mut items: Vec<(PlainValue, PlainValue)> = Vec::new();
            for (key, value) in arena.dict(node).ok_or_else(changed)? {
                let mut pair = all(&[key, value])?.into_iter();
                if let (Some(key), Some(value)) = (pair.next(), pair.next()) {
                    items.push((key, value));
                }
            }
            PlainValue::Dict(items)
        }
        _ if arena.ops(node).next().is_some() => return Err(changed()),
        Kind::None => PlainValue::None,
        Kind::Bool(b) => PlainValue::Bool(b),
        Kind::Int(i) => PlainValue::Int(i),
        Kind::Float(f) => PlainValue::Float(f),
        Kind::Str(_) => match arena.text(node) {
            Some(text) => PlainValue::Str(text.to_owned()),
            None => return Err(PlainError::NotPlain("text with surrogates")),
        },
        Kind::Bytes(span) => PlainValue::Bytes(arena.bytes(span).to_vec()),
        Kind::Tuple(run) => PlainValue::Tuple(all(arena.children(run))?),
        Kind::FrozenSet(run) => PlainValue::Set(all(arena.children(run))?),
        Kind::Long(_) => return Err(PlainError::NotPlain("an integer beyond 64 bits")),
        Kind::Global { .. } => return Err(PlainError::NotPlain("a class or function")),
        _ => return Err(changed()),
    };
    Ok(value)
}

/// The task key that a node stands for, if it is of a type that keys may have.
pub fn to_key(arena: &Arena, node: NodeId) -> Option<Key> {
    let mut left = MAX_KEY_SIZE;
    key(arena, node, MAX_KEY_DEPTH, &mut left)
}

fn text_len(kind: Kind) -> usize {
    match kind {
        Kind::Str(span) | Kind::Bytes(span) => span.len as usize,
        _ => 0,
    }
}

fn key(arena: &Arena, node: NodeId, depth: usize, left: &mut usize) -> Option<Key> {
    let depth = depth.checked_sub(1)?;
    *left = left.checked_sub(VALUE_SIZE + text_len(arena.kind(node)))?;
    Some(match arena.kind(node) {
        Kind::Str(_) => Key::from(arena.text(node)?),
        Kind::Int(i) => Key::Int(i),
        Kind::Float(f) => Key::Float(f),
        Kind::Bool(b) => Key::Bool(b),
        Kind::None => Key::None,
        Kind::Bytes(span) => Key::Bytes(arena.bytes(span).into()),
        Kind::Tuple(run) => {
            let items: Option<Vec<Key>> = arena
                .children(run)
                .iter()
                .map(|&item| key(arena, item, depth, left))
                .collect();
            Key::from(items?)
        }
        _ => return None,
    })
}
