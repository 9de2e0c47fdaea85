//! Objects that travel beside the msgpack of a message, unread: a header and frames.
//!
//! The one form kept in memory is that of releases from 2021.03.1 on; older forms are turned into it
//! on arrival (`legacy`). A payload that came in this form leaves byte for byte as it came.

use bytes::{Bytes, BytesMut};

use crate::compression::decompress;
use crate::error::DecodeError;
use crate::msgpack::{Cursor, Token, Writer};
use crate::value::Value;

/// How the object was lifted out, which decides the marker in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// `{"__Serialized__": k}`: rebuilt by peers, passed through by schedulers.
    Serialized,
    /// `{"__Pickled__": k}` (since 2022.04.0): unpickled by every receiver.
    Pickled,
}

impl PayloadKind {
    /// Key of the marker.
    pub fn marker(self) -> &'static str {
        match self {
            Self::Serialized => "__Serialized__",
            Self::Pickled => "__Pickled__",
        }
    }
}

/// An opaque object: header and frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    kind: PayloadKind,
    header: Bytes,
    frames: Vec<Bytes>,
}

/// Field of a sub-header that says how many frames follow it.
pub(crate) const NUM_SUB_FRAMES: &str = "num-sub-frames";

/// Most bytes that decompression makes of a message on the way to an older peer. Newer peers compress nothing for us.
pub(crate) const MAX_PLAIN: usize = 1 << 30;

/// `pickle.dumps(bytes)`, small enough to be written by hand.
const BYTES_CLASS: &[u8] = b"cbuiltins\nbytes\n.";

impl Payload {
    /// A payload as it came off the wire: `header` is the msgpack sub-header, complete.
    pub(crate) fn from_wire(kind: PayloadKind, header: Bytes, frames: Vec<Bytes>) -> Self {
        Self {
            kind,
            header,
            frames,
        }
    }

    /// A serialised object from its parts; `header` is a map, the number of frames is added.
    pub fn serialized(mut header: Value, frames: Vec<Bytes>) -> Self {
        // A peer's header may have the entry more than once.
        while header.remove(NUM_SUB_FRAMES).is_some() {}
        header.insert(NUM_SUB_FRAMES, frames.len());
        Self {
            kind: PayloadKind::Serialized,
            header: header.encode(),
            frames,
        }
    }

    /// A pickle that every receiver loads on arrival (`__Pickled__`, peers since 2022.04.0).
    pub fn pickled(pickle: impl AsRef<[u8]>, buffers: Vec<Bytes>) -> Self {
        Self::pickled_in_pieces([pickle.as_ref(), &[]], buffers)
    }

    /// [`Self::pickled`] of a pickle in two pieces.
    pub(crate) fn pickled_in_pieces(pickle: [&[u8]; 2], buffers: Vec<Bytes>) -> Self {
        let length = pickle[0].len() + pickle[1].len();
        let mut w = Writer::with_capacity(length + 64);
        w.map(3);
        w.str("pickled-obj");
        w.bin_head(length);
        w.raw(pickle[0]);
        w.raw(pickle[1]);
        w.str("compression");
        w.array(buffers.len());
        buffers.iter().for_each(|_| w.nil());
        w.str(NUM_SUB_FRAMES);
        w.int(i64::try_from(buffers.len()).unwrap_or(i64::MAX));
        Self {
            kind: PayloadKind::Pickled,
            header: w.buf.into(),
            frames: buffers,
        }
    }

    /// Raw bytes as stock lifts them (`serializer: dask`, type `bytes`).
    pub fn bytes(data: impl Into<Bytes>) -> Self {
        let header = Value::map([
            ("sub-header", Value::Map(Vec::new())),
            ("type", "builtins.bytes".into()),
            ("type-serialized", BYTES_CLASS.into()),
            ("serializer", "dask".into()),
        ]);
        Self::serialized(header, vec![data.into()])
    }

    /// An object pickled by us or by somebody else, for the final receiver only (`serializer:
    /// pickle`); schedulers pass it through.
    pub fn pickle_object(pickle: impl Into<Bytes>, buffers: Vec<Bytes>) -> Self {
        let writeable = Value::array(buffers.iter().map(|_| false));
        let header = Value::map([("serializer", "pickle".into()), ("writeable", writeable)]);
        let frames = std::iter::once(pickle.into()).chain(buffers).collect();
        Self::serialized(header, frames)
    }

    /// The same with storage of its own, see [`Value::detached`].
    #[must_use]
    pub fn detached(&self) -> Self {
        let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        Self {
            kind: self.kind,
            header: own(&self.header),
            frames: self.frames.iter().map(own).collect(),
        }
    }

    /// How it was lifted out.
    pub fn kind(&self) -> PayloadKind {
        self.kind
    }

    /// The msgpack sub-header, with `num-sub-frames`.
    pub fn header_bytes(&self) -> &Bytes {
        &self.header
    }

    /// The sub-header as a value.
    pub fn header(&self) -> Result<Value, DecodeError> {
        Value::decode(&self.header)
    }

    /// Frames as they travel: possibly split and compressed.
    pub fn frames(&self) -> &[Bytes] {
        &self.frames
    }

    /// Bytes it occupies on the wire.
    pub fn wire_bytes(&self) -> usize {
        self.header.len() + self.frames.iter().map(Bytes::len).sum::<usize>()
    }

    /// The same object under the other marker is another payload; this only re-labels a pickle:
    /// `__Pickled__` becomes `serializer: pickle` for peers before 2022.04.0. Buffers get plain.
    ///
    /// # Errors
    /// It is no pickle, or its buffers can not be decompressed within 1 GiB.
    pub fn to_serialized(&self) -> Result<Self, DecodeError> {
        self.to_serialized_within(&mut { MAX_PLAIN })
    }

    /// [`Self::to_serialized`]; what decompression makes is taken from `budget` (bytes).
    pub(crate) fn to_serialized_within(&self, budget: &mut usize) -> Result<Self, DecodeError> {
        match self.kind {
            PayloadKind::Serialized => Ok(self.clone()),
            PayloadKind::Pickled => {
                let header = self.header()?;
                let pickle = header.get("pickled-obj").and_then(Value::as_bin);
                let pickle = pickle.ok_or(DecodeError::Type {
                    expected: "a pickle",
                    found: "another payload",
                })?;
                let buffers = self.decompressed(&header, budget)?;
                Ok(Self::pickle_object(pickle.clone(), buffers))
            }
        }
    }

    /// Frames as the serialiser made them: decompressed and re-joined. Shares storage where nothing
    /// had to be done. At most `limit` bytes altogether are produced anew.
    pub fn logical_frames(&self, limit: usize) -> Result<Vec<Bytes>, DecodeError> {
        let header = self.header()?;
        let mut budget = limit;
        let plain = self.decompressed(&header, &mut budget)?;
        let Some(counts) = header.get("split-num-sub-frames").and_then(Value::as_seq) else {
            return Ok(plain);
        };
        let mut logical = Vec::new();
        let mut rest = plain.as_slice();
        for count in counts {
            let count = count.as_u64().and_then(|n| usize::try_from(n).ok());
            let Some((pieces, after)) = count.and_then(|n| rest.split_at_checked(n)) else {
                return Err(DecodeError::Frames(
                    "split-num-sub-frames and frames disagree",
                ));
            };
            logical.push(join(pieces, &mut budget)?);
            rest = after;
        }
        Ok(logical)
    }

    /// Frames as they travel, but plain.
    pub(crate) fn decompressed(
        &self,
        header: &Value,
        budget: &mut usize,
    ) -> Result<Vec<Bytes>, DecodeError> {
        let names = header
            .get("compression")
            .and_then(Value::as_seq)
            .unwrap_or(&[]);
        let restore = |(at, frame): (usize, &Bytes)| {
            let Some(name) = names.get(at).and_then(Value::as_str) else {
                return Ok(frame.clone());
            };
            let plain = decompress(name, frame, *budget)?;
            *budget = budget.saturating_sub(plain.len());
            Ok(plain)
        };
        self.frames.iter().enumerate().map(restore).collect()
    }

    /// The bytes, if the object is a `bytes`, `bytearray` or `memoryview` as stock lifts them.
    pub fn as_plain_bytes(&self, limit: usize) -> Result<Option<Bytes>, DecodeError> {
        let header = self.header()?;
        let type_name = header
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let is_bytes = matches!(
            type_name.strip_prefix("builtins.").unwrap_or(type_name),
            "bytes" | "bytearray" | "memoryview"
        );
        if header.get("serializer").and_then(Value::as_str) != Some("dask") || !is_bytes {
            return Ok(None);
        }
        let frames = self.logical_frames(limit)?;
        join(&frames, &mut { limit }).map(Some)
    }

    /// The pickle and its out-of-band buffers, if the object is one: `__Pickled__`, or serialised
    /// with `serializer: pickle`.
    pub fn as_pickle(&self, limit: usize) -> Result<Option<(Bytes, Vec<Bytes>)>, DecodeError> {
        if let Some(pickle) = self.bare_pickle() {
            return Ok(Some((pickle, Vec::new())));
        }
        let header = self.header()?;
        if let Some(pickle) = header.get("pickled-obj").and_then(Value::as_bin) {
            let mut budget = limit;
            return Ok(Some((
                pickle.clone(),
                self.decompressed(&header, &mut budget)?,
            )));
        }
        if header.get("serializer").and_then(Value::as_str) != Some("pickle") {
            return Ok(None);
        }
        let mut frames = self.logical_frames(limit)?.into_iter();
        Ok(frames.next().map(|pickle| (pickle, frames.collect())))
    }
}

impl Payload {
    /// The pickle of a payload without frames, as nearly every task is one: read without building a
    /// value. Nothing says nothing.
    fn bare_pickle(&self) -> Option<Bytes> {
        if !self.frames.is_empty() {
            return None;
        }
        let mut cursor = Cursor::new(&self.header);
        let Token::Map(entries) = cursor.token().ok()? else {
            return None;
        };
        for _ in 0..entries {
            let Token::Str(name) = cursor.token().ok()? else {
                return None;
            };
            if name == "pickled-obj" {
                return match cursor.token().ok()? {
                    Token::Bin(pickle) => Some(self.header.slice_ref(pickle)),
                    _ => None,
                };
            }
            cursor.skip().ok()?;
        }
        None
    }
}

fn join(pieces: &[Bytes], budget: &mut usize) -> Result<Bytes, DecodeError> {
    if let [whole] = pieces {
        return Ok(whole.clone());
    }
    let total: usize = pieces.iter().map(Bytes::len).sum();
    if total > *budget {
        return Err(DecodeError::Frames("object is larger than allowed"));
    }
    *budget -= total;
    let mut out = BytesMut::with_capacity(total);
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    Ok(out.freeze())
}

/// What a sub-header says about itself, read without building a value.
pub(crate) struct HeaderScan {
    pub(crate) kind: PayloadKind,
    pub(crate) frames: usize,
}

/// Reads kind and number of frames of a sub-header.
pub(crate) fn scan_header(header: &[u8]) -> Result<HeaderScan, DecodeError> {
    let mut cursor = Cursor::new(header);
    let Token::Map(n) = cursor.token()? else {
        return Err(DecodeError::Frames("payload header is not a map"));
    };
    let mut scan = HeaderScan {
        kind: PayloadKind::Serialized,
        frames: 0,
    };
    let mut counted = false;
    for _ in 0..n {
        match cursor.peek()? {
            Token::Str("pickled-obj") => scan.kind = PayloadKind::Pickled,
            Token::Str(NUM_SUB_FRAMES) => {
                cursor.skip()?;
                let Token::Int(count) = cursor.token()? else {
                    return Err(DecodeError::Frames("num-sub-frames is not a number"));
                };
                scan.frames = usize::try_from(count)
                    .map_err(|_| DecodeError::Frames("num-sub-frames is negative"))?;
                counted = true;
                continue;
            }
            _ => {}
        }
        cursor.skip()?;
        cursor.skip()?;
    }
    if !counted {
        return Err(DecodeError::Missing(NUM_SUB_FRAMES));
    }
    Ok(scan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_detached_does_not_keep_the_message_it_came_in() {
        let message = Bytes::from(vec![7; 1000]);
        let header = message.slice(..10);
        let frames = vec![message.slice(10..12)];
        let payload = Payload::from_wire(PayloadKind::Serialized, header, frames);
        let code = Value::from(std::sync::Arc::new(payload));
        let list = Value::array([code, Value::Bin(message.slice(20..30)), "text".into()]);
        let value = Value::map([("code", list)]);
        let kept = value.detached();
        assert_eq!(kept, value);
        drop(value);
        assert!(message.is_unique(), "nothing else holds it");
    }

    #[test]
    fn a_pickle_without_buffers_is_found_wherever_its_header_has_it() {
        let bin = || Value::Bin(Bytes::from("p"));
        let payload = |header: Value| Payload {
            kind: PayloadKind::Pickled,
            header: header.encode(),
            frames: Vec::new(),
        };
        let found = |header: Value| payload(header).as_pickle(10).ok().flatten();
        let last = [
            ("compression", Value::array::<Value>([])),
            ("pickled-obj", bin()),
        ];
        assert_eq!(found(Value::map(last)), Some(("p".into(), Vec::new())));
        let keyed = Value::Map(vec![(7.into(), Value::Nil), ("pickled-obj".into(), bin())]);
        assert_eq!(found(keyed), Some(("p".into(), Vec::new())));
        let text = Value::map([("pickled-obj", "p")]);
        assert_eq!(found(text), None);
        assert_eq!(found(Value::Nil), None);
    }

    #[test]
    fn bytes_and_pickles_come_back_out() {
        let raw = Payload::bytes("hello");
        assert_eq!(
            raw.as_plain_bytes(10).expect("valid"),
            Some(Bytes::from("hello"))
        );
        assert_eq!(raw.as_pickle(10).expect("valid"), None);
        let buffers = vec![Bytes::from("b0"), Bytes::from("b1")];
        for payload in [
            Payload::pickled(b"pickle", buffers.clone()),
            Payload::pickle_object("pickle", buffers.clone()),
            Payload::pickled(b"pickle", buffers.clone())
                .to_serialized()
                .expect("valid"),
        ] {
            let found = payload.as_pickle(10).expect("valid");
            assert_eq!(found, Some((Bytes::from("pickle"), buffers.clone())));
            assert_eq!(payload.as_plain_bytes(10).expect("valid"), None);
            let scan = scan_header(payload.header_bytes()).expect("valid");
            assert_eq!(
                (scan.kind, scan.frames),
                (payload.kind(), payload.frames().len())
            );
        }
    }

    #[test]
    fn split_and_compressed_frames_are_restored_within_the_limit() {
        let half = Bytes::from(vec![7u8; 50_000]);
        let packed = Bytes::from(lz4_flex::block::compress_prepend_size(&half));
        let header = Value::map([
            ("serializer", Value::from("dask")),
            ("type", "bytes".into()),
            ("split-num-sub-frames", Value::array([2])),
            ("split-offsets", Value::array([0])),
            ("compression", Value::array([Value::Nil, "lz4".into()])),
        ]);
        let payload = Payload::serialized(header, vec![half, packed]);
        let whole = payload
            .as_plain_bytes(200_000)
            .expect("valid")
            .expect("bytes");
        assert_eq!(whole, vec![7u8; 100_000]);
        assert!(payload.as_plain_bytes(100_000).is_err(), "both steps count");
    }

    #[test]
    fn headers_that_lie_are_errors() {
        let lie = Value::map([("split-num-sub-frames", Value::array([3]))]);
        let payload = Payload::serialized(lie, vec![Bytes::new()]);
        assert!(payload.logical_frames(10).is_err());
        assert!(scan_header(b"\x90").is_err());
        assert!(scan_header(b"\x80").is_err());
    }
}
