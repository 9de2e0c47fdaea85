//! One transport message, whatever framing it came in: msgpack with inline markers ([`Message::body`])
//! and the payloads the markers point at. Batches of a stream are looked at item by item
//! ([`Message::items`]); what is hot has a type ([`worker`], [`client`]), everything else a
//! [`Value`].

pub mod client;
mod extension;
mod fields;
mod finished;
mod items;
pub mod order;
pub mod worker;

use std::sync::Arc;

use bytes::Bytes;

use crate::error::DecodeError;
use crate::legacy;
use crate::msgpack::Writer;
use crate::payload::{Payload, scan_header};
use crate::release::Generation;
use crate::value::{Value, decode_prefix, encode_into};

pub use extension::ExtensionOp;
pub use fields::{ErrorObject, StartStop};
pub use items::{Item, Items};

/// A payload and the index of its header in the list of frames, which is what markers name.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexedPayload {
    pub(crate) frame: u32,
    pub(crate) payload: Arc<Payload>,
}

/// One transport message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    body: Bytes,
    /// In ascending order of `frame`, without gaps.
    payloads: Vec<IndexedPayload>,
}

impl Message {
    /// A message without payloads; `body` must be msgpack.
    pub fn from_body(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            payloads: Vec::new(),
        }
    }

    /// Takes the frames of a message of release 2021.03.1 or newer apart.
    pub fn from_frames(mut frames: std::vec::IntoIter<Bytes>) -> Result<Self, DecodeError> {
        let body = frames
            .next()
            .ok_or(DecodeError::Frames("message without frames"))?;
        let mut payloads = Vec::new();
        let mut index = 1usize;
        while let Some(header) = frames.next() {
            let scan = scan_header(&header)?;
            if scan.frames > frames.len() {
                return Err(DecodeError::Frames(
                    "num-sub-frames promises more than was sent",
                ));
            }
            let sub_frames = frames.by_ref().take(scan.frames).collect();
            let frame = u32::try_from(index).map_err(|_| DecodeError::Frames("too many frames"))?;
            let payload = Arc::new(Payload::from_wire(scan.kind, header, sub_frames));
            payloads.push(IndexedPayload { frame, payload });
            index += 1 + scan.frames;
        }
        Ok(Self { body, payloads })
    }

    /// The frames of this message for releases from 2021.03.1 on.
    pub fn frames(&self) -> impl Iterator<Item = &Bytes> + Clone {
        std::iter::once(&self.body).chain(
            self.payloads
                .iter()
                .flat_map(|p| std::iter::once(p.payload.header_bytes()).chain(p.payload.frames())),
        )
    }

    /// The frames as a release of that generation puts them together and takes them apart.
    ///
    /// # Errors
    /// A payload can not be found by a path.
    pub fn frames_for(&self, generation: Generation) -> Result<Vec<Bytes>, DecodeError> {
        if generation.is_path_based() {
            return legacy::encode(self);
        }
        Ok(self.frames().cloned().collect())
    }

    /// The message that a release of that generation put together; `limit` bounds the bytes that
    /// decompression makes.
    ///
    /// # Errors
    /// These are not the frames of a message.
    pub fn from_frames_of(
        generation: Generation,
        frames: Vec<Bytes>,
        limit: usize,
    ) -> Result<Self, DecodeError> {
        if generation.is_path_based() {
            return legacy::decode(frames, limit);
        }
        Self::from_frames(frames.into_iter())
    }

    /// The msgpack part.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The payloads in the order of their frames.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = &Arc<Payload>> {
        self.payloads.iter().map(|p| &p.payload)
    }

    pub(crate) fn indexed_payloads(&self) -> &[IndexedPayload] {
        &self.payloads
    }

    /// Bytes of body and payloads.
    pub fn wire_bytes(&self) -> usize {
        self.body.len() + self.payloads().map(|p| p.wire_bytes()).sum::<usize>()
    }

    /// The whole message as a value, payloads bound. An empty body is an error.
    pub fn value(&self) -> Result<Value, DecodeError> {
        let (value, used) = decode_prefix(&self.body, &self.payloads)?;
        match self.body.len() - used {
            0 => Ok(value),
            left => Err(DecodeError::Trailing(left)),
        }
    }

    /// A message from a value; its payloads get markers.
    pub fn from_value(value: &Value) -> Self {
        let mut composer = Composer::new();
        composer.value(value);
        composer.finish()
    }

    /// Replaces markers inside `value` (which came out of this message) by the payloads.
    pub fn bind(&self, value: Value) -> Result<Value, DecodeError> {
        if self.payloads.is_empty() {
            return Ok(value);
        }
        let mut out = Writer::new();
        encode_into(&value, &mut out, &mut |_, w| w.nil());
        decode_prefix(&out.buf.into(), &self.payloads).map(|(value, _)| value)
    }

    /// The payload that a marker with this index names.
    pub fn payload_at(&self, index: i64) -> Result<&Arc<Payload>, DecodeError> {
        crate::value::find_payload(&self.payloads, index)
    }

    /// `part`, which must be a slice of this message's body, as bytes that may be kept. Shares the
    /// message's storage unless that would keep a large message alive for a small part.
    pub fn keep(&self, part: &[u8]) -> Bytes {
        if part.len() < 4096 && part.len() * 4 < self.body.len() {
            Bytes::copy_from_slice(part)
        } else {
            self.body.slice_ref(part)
        }
    }

    /// Items of a stream batch: the elements of an array, or the one map. The text `"OK"` is
    /// skipped, as stock does.
    pub fn items(&self) -> Items<'_> {
        Items::new(self)
    }
}

/// Builds a message: msgpack is appended to [`Self::out`], payloads get their markers.
#[derive(Debug, Default)]
pub(crate) struct Composer {
    pub(crate) out: Writer,
    payloads: Vec<IndexedPayload>,
    next_frame: u32,
}

impl Composer {
    pub(crate) fn new() -> Self {
        Self {
            out: Writer::with_capacity(512),
            payloads: Vec::new(),
            next_frame: 1,
        }
    }

    /// Writes the marker of `payload` and takes it along.
    pub(crate) fn payload(&mut self, payload: &Arc<Payload>) {
        let Self {
            out,
            payloads,
            next_frame,
        } = self;
        attach(payload, out, payloads, next_frame);
    }

    /// Writes a value, with its payloads.
    pub(crate) fn value(&mut self, value: &Value) {
        let Self {
            out,
            payloads,
            next_frame,
        } = self;
        encode_into(value, out, &mut |payload, out| {
            attach(payload, out, payloads, next_frame)
        });
    }

    pub(crate) fn finish(self) -> Message {
        Message {
            body: self.out.buf.into(),
            payloads: self.payloads,
        }
    }
}

fn attach(
    payload: &Arc<Payload>,
    out: &mut Writer,
    payloads: &mut Vec<IndexedPayload>,
    next_frame: &mut u32,
) {
    out.map(1);
    out.str(payload.kind().marker());
    out.int(i64::from(*next_frame));
    payloads.push(IndexedPayload {
        frame: *next_frame,
        payload: Arc::clone(payload),
    });
    let frames = u32::try_from(payload.frames().len()).unwrap_or(u32::MAX);
    *next_frame = next_frame.saturating_add(1).saturating_add(frames);
}
