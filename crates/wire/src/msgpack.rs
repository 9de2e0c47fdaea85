//! msgpack at the level of tokens: a borrowing cursor and an appending writer. Values, typed
//! messages and scanners are built on these two; nothing here knows a message.

use oxidask_key::{Key, MAX_KEY_DEPTH};
use rmp::Marker;
use rmp::encode as enc;

use crate::error::DecodeError;

/// One msgpack token. Containers give their length; their elements are the tokens that follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// `nil`.
    Nil,
    /// `true`, `false`.
    Bool(bool),
    /// Any integer that fits.
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// 32 or 64 bit.
    Float(f64),
    /// Text.
    Str(&'a str),
    /// Bytes.
    Bin(&'a [u8]),
    /// That many values follow.
    Array(u32),
    /// That many pairs of values follow.
    Map(u32),
}

impl Token<'_> {
    /// Name of the type for error messages, in Python's words.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::UInt(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Bin(_) => "bytes",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
        }
    }
}

/// Reads tokens from a slice. Never allocates, never recurses, never panics.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the beginning of `buf`.
    pub fn new(buf: &'a [u8]) -> Self {
        Self { buf, pos: 0 }
    }

    /// Offset of the next token.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.buf.len() - self.pos
    }

    /// Whether everything has been read.
    pub fn is_at_end(&self) -> bool {
        self.remaining() == 0
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.pos.checked_add(n);
        match end.and_then(|end| self.buf.get(self.pos..end)) {
            Some(slice) => {
                self.pos += n;
                Ok(slice)
            }
            None => Err(DecodeError::Truncated { at: self.pos }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let slice = self.take(N)?;
        <[u8; N]>::try_from(slice).map_err(|_| DecodeError::Truncated { at: self.pos })
    }

    fn be8(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::from(self.array::<1>()?[0]))
    }

    fn be16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn be32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn str(&mut self, len: usize) -> Result<Token<'a>, DecodeError> {
        let at = self.pos;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes)
            .map(Token::Str)
            .map_err(|_| DecodeError::Utf8 { at })
    }

    fn bin(&mut self, len: usize) -> Result<Token<'a>, DecodeError> {
        self.take(len).map(Token::Bin)
    }

    /// The next token.
    pub fn token(&mut self) -> Result<Token<'a>, DecodeError> {
        let at = self.pos;
        let [byte] = self.array::<1>()?;
        let wide = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        match Marker::from_u8(byte) {
            Marker::FixPos(n) => Ok(Token::Int(i64::from(n))),
            Marker::FixNeg(n) => Ok(Token::Int(i64::from(n))),
            Marker::FixMap(n) => Ok(Token::Map(u32::from(n))),
            Marker::FixArray(n) => Ok(Token::Array(u32::from(n))),
            Marker::FixStr(n) => self.str(usize::from(n)),
            Marker::Null => Ok(Token::Nil),
            Marker::True => Ok(Token::Bool(true)),
            Marker::False => Ok(Token::Bool(false)),
            Marker::U8 => Ok(Token::Int(i64::from(u8::from_be_bytes(self.array()?)))),
            Marker::U16 => Ok(Token::Int(i64::from(self.be16()?))),
            Marker::U32 => Ok(Token::Int(i64::from(self.be32()?))),
            Marker::U64 => {
                let n = u64::from_be_bytes(self.array()?);
                Ok(i64::try_from(n).map_or(Token::UInt(n), Token::Int))
            }
            Marker::I8 => Ok(Token::Int(i64::from(i8::from_be_bytes(self.array()?)))),
            Marker::I16 => Ok(Token::Int(i64::from(i16::from_be_bytes(self.array()?)))),
            Marker::I32 => Ok(Token::Int(i64::from(i32::from_be_bytes(self.array()?)))),
            Marker::I64 => Ok(Token::Int(i64::from_be_bytes(self.array()?))),
            Marker::F32 => Ok(Token::Float(f64::from(f32::from_be_bytes(self.array()?)))),
            Marker::F64 => Ok(Token::Float(f64::from_be_bytes(self.array()?))),
            Marker::Str8 => self.be8().and_then(|n| self.str(n)),
            Marker::Str16 => self.be16().and_then(|n| self.str(usize::from(n))),
            Marker::Str32 => self.be32().and_then(|n| self.str(wide(n))),
            Marker::Bin8 => self.be8().and_then(|n| self.bin(n)),
            Marker::Bin16 => self.be16().and_then(|n| self.bin(usize::from(n))),
            Marker::Bin32 => self.be32().and_then(|n| self.bin(wide(n))),
            Marker::Array16 => Ok(Token::Array(u32::from(self.be16()?))),
            Marker::Array32 => Ok(Token::Array(self.be32()?)),
            Marker::Map16 => Ok(Token::Map(u32::from(self.be16()?))),
            Marker::Map32 => Ok(Token::Map(self.be32()?)),
            _ => Err(DecodeError::Marker { marker: byte, at }),
        }
    }

    /// The next token without moving.
    pub fn peek(&self) -> Result<Token<'a>, DecodeError> {
        self.clone().token()
    }

    /// The next token, which must be text, as bytes that are not checked: the name of a field, to be
    /// compared with known ones.
    pub fn name(&mut self) -> Result<&'a [u8], DecodeError> {
        let at = self.pos;
        let [byte] = self.array::<1>()?;
        let length = match byte {
            0xa0..=0xbf => usize::from(byte & 0x1f),
            0xd9 => self.be8()?,
            0xda => usize::from(self.be16()?),
            0xdb => usize::try_from(self.be32()?).unwrap_or(usize::MAX),
            marker => return Err(DecodeError::Marker { marker, at }),
        };
        self.take(length)
    }

    /// Skips one whole value, however deep, and returns its bytes. Text is not checked.
    pub fn skip(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.pos;
        let mut left = self.skip_token()?;
        while left > 0 {
            // Each promised value takes a byte at least.
            if left > self.remaining() as u64 {
                return Err(DecodeError::Truncated { at: self.pos });
            }
            left -= 1;
            left += self.skip_token()?;
        }
        Ok(&self.buf[start..self.pos])
    }

    /// Skips one token; returns how many values it promises.
    fn skip_token(&mut self) -> Result<u64, DecodeError> {
        let at = self.pos;
        let [byte] = self.array::<1>()?;
        let body = match byte {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 0,
            0x80..=0x8f => return Ok(2 * u64::from(byte & 0x0f)),
            0x90..=0x9f => return Ok(u64::from(byte & 0x0f)),
            0xa0..=0xbf => usize::from(byte & 0x1f),
            0xcc | 0xd0 => 1,
            0xcd | 0xd1 => 2,
            0xce | 0xd2 | 0xca => 4,
            0xcf | 0xd3 | 0xcb => 8,
            0xd9 | 0xc4 => self.be8()?,
            0xda | 0xc5 => usize::from(self.be16()?),
            0xdb | 0xc6 => usize::try_from(self.be32()?).unwrap_or(usize::MAX),
            0xdc => return Ok(u64::from(self.be16()?)),
            0xdd => return Ok(u64::from(self.be32()?)),
            0xde => return Ok(2 * u64::from(self.be16()?)),
            0xdf => return Ok(2 * u64::from(self.be32()?)),
            _ => return Err(DecodeError::Marker { marker: byte, at }),
        };
        self.take(body)?;
        Ok(0)
    }
}

/// Appends msgpack to a buffer, always in the shortest form, as stock does.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    /// What has been written.
    pub buf: Vec<u8>,
}

// Writing to a Vec cannot fail, so the results of `rmp` carry nothing.
impl Writer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            buf: Vec::with_capacity(bytes),
        }
    }

    /// `nil`.
    pub fn nil(&mut self) {
        self.buf.push(0xc0);
    }

    /// A flag.
    pub fn bool(&mut self, v: bool) {
        self.buf.push(if v { 0xc3 } else { 0xc2 });
    }

    /// An integer.
    pub fn int(&mut self, v: i64) {
        let _ = enc::write_sint(&mut self.buf, v);
    }

    /// An integer that may be above `i64::MAX`.
    pub fn uint(&mut self, v: u64) {
        let _ = enc::write_uint(&mut self.buf, v);
    }

    /// A float, 64 bit.
    pub fn float(&mut self, v: f64) {
        let _ = enc::write_f64(&mut self.buf, v);
    }

    /// Text.
    pub fn str(&mut self, v: &str) {
        let _ = enc::write_str(&mut self.buf, v);
    }

    /// Bytes.
    pub fn bin(&mut self, v: &[u8]) {
        let _ = enc::write_bin(&mut self.buf, v);
    }

    /// Head of bytes; `n` of them must follow. More than `u32::MAX` is no message.
    pub fn bin_head(&mut self, n: usize) {
        let _ = enc::write_bin_len(&mut self.buf, u32::try_from(n).unwrap_or(u32::MAX));
    }

    /// Head of an array; `n` values must follow. More than `u32::MAX` cannot occur in memory we hold.
    pub fn array(&mut self, n: usize) {
        let _ = enc::write_array_len(&mut self.buf, u32::try_from(n).unwrap_or(u32::MAX));
    }

    /// Head of a map; `n` pairs must follow.
    pub fn map(&mut self, n: usize) {
        let _ = enc::write_map_len(&mut self.buf, u32::try_from(n).unwrap_or(u32::MAX));
    }

    /// Bytes that are msgpack already.
    pub fn raw(&mut self, msgpack: &[u8]) {
        self.buf.extend_from_slice(msgpack);
    }

    /// A task key; tuples become arrays.
    pub fn key(&mut self, key: &Key) {
        self.key_at(key, 0);
    }

    fn key_at(&mut self, key: &Key, depth: usize) {
        match key {
            Key::Str(s) => self.str(s),
            Key::Bytes(b) => self.bin(b),
            Key::Int(i) => self.int(*i),
            Key::UInt(u) => self.uint(*u),
            Key::Float(f) => self.float(*f),
            Key::Bool(b) => self.bool(*b),
            Key::None => self.nil(),
            // Keys from the wire are never deeper; one that was built deeper ends in nil.
            Key::Tuple(_) if depth > MAX_KEY_DEPTH => self.nil(),
            Key::Tuple(items) => {
                self.array(items.len());
                for item in items.iter() {
                    self.key_at(item, depth + 1);
                }
            }
        }
    }

    /// An array of keys.
    pub fn keys(&mut self, keys: &[Key]) {
        self.array(keys.len());
        for key in keys {
            self.key(key);
        }
    }
}
