//! The receiving half.

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Landing, LandingPlace, Limits, ReadSide};
use crate::error::ReadError;
use crate::framing::{Parsed, Prelude, Sniff, parse, slices, sniff, take_frames};
use crate::legacy;
use crate::message::Message;
use crate::release::Generation;

/// Least room for a read.
const ROOM: usize = 8 << 10;
/// Most room that is made for bytes of which none is there yet.
const CHUNK: usize = 64 << 10;
/// Messages from this size on are read into the memory of the [`LandingPlace`].
const LANDS_FROM: usize = 4 << 20;
/// The first frame of this size in them is aligned.
const ALIGNED_FROM: usize = 64 << 10;

/// Reads messages. Nothing is allocated for bytes that have not arrived, beyond as much again as
/// already has; or, once there is a sixty-fourth of a large message, as the whole of it takes.
pub struct Reader {
    pub(super) io: ReadSide,
    buf: BytesMut,
    prelude: Option<Prelude>,
    /// Bytes that must be in the buffer before looking at it again makes sense.
    wanted: usize,
    generation: Generation,
    limits: Limits,
    /// Read while the peer's protocol was found out; comes first.
    unread: Option<Message>,
    /// Bytes of the message that [`Self::begin`] began, not yet given away.
    rest: usize,
    place: Option<Arc<dyn LandingPlace>>,
    /// Where the message goes whose prelude is known.
    landing: Option<Box<dyn Landing>>,
}

/// The beginning of a message whose further frames are read piece by piece ([`Reader::begin`]).
#[derive(Debug)]
pub struct Opening {
    /// The first frame: msgpack, with markers.
    pub body: Bytes,
    /// Lengths of the frames behind it.
    pub lengths: Vec<usize>,
}

/// From so many bytes of it on a message gets room for a whole that is at most so many times as large …
const TRUSTED: (usize, usize) = (1 << 20, 64);
/// … and no larger than this. Until something arrives it is no memory, only addresses.
const MOST_AT_ONCE: usize = 1 << 30;

/// How much room to make when so many bytes are there and so many are missing. What is there is copied each time,
/// and everybody on this thread waits: a hundred megabytes take as many milliseconds.
fn room(have: usize, missing: usize) -> usize {
    let (from, times) = TRUSTED;
    let is_trusted = have >= from && missing / times < have && missing <= MOST_AT_ONCE;
    match is_trusted {
        true => missing,
        false => missing.min(have.max(CHUNK)),
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("generation", &self.generation)
            .field("buffered", &self.buf.len())
            .finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn new(io: ReadSide, generation: Generation, limits: Limits) -> Self {
        Self {
            io,
            buf: BytesMut::new(),
            prelude: None,
            wanted: 0,
            generation,
            limits,
            unread: None,
            rest: 0,
            place: None,
            landing: None,
        }
    }

    /// Large messages are read into memory from there from now on.
    pub fn land_in(&mut self, place: Arc<dyn LandingPlace>) {
        self.place = Some(place);
    }

    /// Reads from anything, for a peer known to speak `generation`: tests, recordings, simulations.
    pub fn over(
        io: impl AsyncRead + Send + Unpin + 'static,
        generation: Generation,
        limits: Limits,
    ) -> Self {
        Self::new(ReadSide::Other(Box::new(io)), generation, limits)
    }

    /// What the peer speaks.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn set_generation(&mut self, generation: Generation) {
        self.generation = generation;
    }

    /// What the bytes that are there say about the peer's framing.
    pub(crate) fn sniff(&self) -> Sniff {
        sniff(&self.buf)
    }

    /// Whether the bytes that are there begin so.
    pub(crate) fn begins_with(&self, bytes: &[u8]) -> bool {
        self.buf.starts_with(bytes)
    }

    /// Gives a message back, to be read again.
    pub(crate) fn unread(&mut self, message: Message) {
        self.unread = Some(message);
    }

    /// Whether anything has arrived that is not read yet.
    pub(crate) fn has_bytes(&self) -> bool {
        !self.buf.is_empty()
    }

    /// The next message. May be dropped at any await point without losing bytes.
    ///
    /// After [`ReadError::Decode`] the stream is still in step and the next message can be read;
    /// after any other error it is unusable.
    pub async fn read(&mut self) -> Result<Message, ReadError> {
        loop {
            if let Some(message) = self.try_take()? {
                return Ok(message);
            }
            self.fill(self.wanted).await?;
        }
    }

    /// The first message of whoever was called. Its first frame is the greeting; one that took us for
    /// silent has sent a second for releases that look there (`accept.rs`).
    pub(super) async fn greeting(&mut self) -> Result<Message, ReadError> {
        loop {
            if let Some(mut frames) = self.try_take_frames()? {
                if !self.generation.is_path_based() {
                    frames.truncate(1);
                }
                return self.decode(frames);
            }
            self.fill(self.wanted).await?;
        }
    }

    /// A message that has arrived whole already, if there is one. Never waits.
    pub fn try_take(&mut self) -> Result<Option<Message>, ReadError> {
        if let Some(message) = self.unread.take() {
            return Ok(Some(message));
        }
        let frames = self.try_take_frames()?;
        frames.map(|frames| self.decode(frames)).transpose()
    }

    fn decode(&self, frames: Vec<Bytes>) -> Result<Message, ReadError> {
        match self.generation.is_path_based() {
            true => Ok(legacy::decode(frames, self.limits.max_message)?),
            false => Ok(Message::from_frames(frames.into_iter())?),
        }
    }

    /// The frames of a message that has arrived whole, if there is one.
    fn try_take_frames(&mut self) -> Result<Option<Vec<Bytes>>, ReadError> {
        let prelude = match self.prelude.take() {
            Some(prelude) => prelude,
            None => match parse(&self.buf, self.generation, &self.limits)? {
                Parsed::Need(bytes) => {
                    self.wanted = bytes;
                    return Ok(None);
                }
                Parsed::Prelude(prelude) => prelude,
            },
        };
        if self.landing.is_none() && self.buf.len() < prelude.total {
            self.land(&prelude);
        }
        let missing = match &mut self.landing {
            Some(landing) => !landing.room().is_empty(),
            None => self.buf.len() < prelude.total,
        };
        if missing {
            self.wanted = prelude.total;
            self.prelude = Some(prelude);
            return Ok(None);
        }
        let frames = match self.landing.take() {
            Some(landing) => slices(&landing.whole(), &prelude),
            None => take_frames(&mut self.buf, &prelude),
        };
        // 2021.03.0 alone has the new framing and the old messages, whose first frame is empty.
        if self.generation == Generation::M3 && frames.first().is_some_and(Bytes::is_empty) {
            self.generation = Generation::M2;
        }
        Ok(Some(frames))
    }

    /// Gives a large message, of which all bytes that are there are the beginning, memory of its own.
    fn land(&mut self, prelude: &Prelude) {
        let place = self.place.as_ref();
        let Some(place) = place.filter(|_| prelude.total >= LANDS_FROM) else {
            return;
        };
        let aligned = prelude.first_large(ALIGNED_FROM);
        self.landing = place
            .landing(prelude.total, aligned)
            .and_then(|mut landing| {
                let here = self.buf.len();
                landing.room().get_mut(..here)?.copy_from_slice(&self.buf);
                landing.filled(here);
                self.buf.clear();
                Some(landing)
            });
    }

    /// The first frame of the next message, and the lengths of the others, which are left where they
    /// are: [`Self::piece`] reads them. Of the limits, the number of bytes counts for the first frame
    /// alone. Only for peers of releases from 2021.03.1 on.
    pub async fn begin(&mut self) -> Result<Opening, ReadError> {
        if self.rest > 0 || self.unread.is_some() || self.prelude.is_some() {
            return Err(ReadError::Framing("another message is being read"));
        }
        let limits = Limits {
            max_message: usize::MAX,
            ..self.limits
        };
        let mut prelude = loop {
            match parse(&self.buf, self.generation, &limits)? {
                Parsed::Need(bytes) => self.fill(bytes).await?,
                Parsed::Prelude(prelude) => break prelude,
            }
        };
        let length = prelude.lengths.first().copied().unwrap_or_default();
        if length > self.limits.max_message {
            return Err(ReadError::TooLarge {
                announced: length as u64,
                unit: "bytes",
                limit: self.limits.max_message as u64,
            });
        }
        let wanted = prelude.start.saturating_add(length);
        while self.buf.len() < wanted {
            self.fill(wanted).await?;
        }
        self.rest = prelude.total - wanted;
        self.wanted = 0;
        self.buf.advance(prelude.start);
        let body = Bytes::copy_from_slice(&self.buf[..length]);
        self.buf.advance(length);
        prelude.lengths.remove(0);
        Ok(Opening {
            body,
            lengths: prelude.lengths,
        })
    }

    /// Some of the bytes that follow in the message begun; nothing when it is at its end. At most
    /// [`CHUNK`] bytes are held for it.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.rest == 0 {
            return Ok(None);
        }
        if self.buf.is_empty() {
            match self.fill(self.rest.min(CHUNK)).await {
                Err(ReadError::Closed) => return Err(ReadError::Cut),
                other => other?,
            }
        }
        let length = self.buf.len().min(self.rest);
        self.rest -= length;
        Ok(Some(self.buf.split_to(length).freeze()))
    }

    /// Waits for more bytes; `wanted` in the buffer would be enough.
    pub(crate) async fn fill(&mut self, wanted: usize) -> Result<(), ReadError> {
        if let Some(landing) = &mut self.landing {
            return match self.io.read(landing.room()).await? {
                0 => Err(ReadError::Cut),
                nbytes => {
                    landing.filled(nbytes);
                    Ok(())
                }
            };
        }
        let have = self.buf.len();
        let missing = wanted.saturating_sub(have).max(ROOM);
        self.buf.reserve(room(have, missing));
        if self.io.read_buf(&mut self.buf).await? > 0 {
            Ok(())
        } else if have == 0 {
            Err(ReadError::Closed)
        } else {
            Err(ReadError::Cut)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room that is made for a message, and how much was copied for it at once.
    fn read(total: usize) -> Vec<(usize, usize)> {
        let mut have = 0;
        let mut steps = Vec::new();
        while have < total {
            let made = room(have, total - have);
            steps.push((made, have));
            have += made;
        }
        assert_eq!(have, total, "not more than the message");
        steps
    }

    #[test]
    fn room_is_made_for_what_has_arrived_or_little_more() {
        for total in [1, CHUNK, 1 << 20, 110 << 20, 3 << 30] {
            for (made, have) in read(total) {
                let allowed = match have < TRUSTED.0 {
                    true => have.max(CHUNK),
                    false => TRUSTED.1 * have,
                };
                assert!(
                    made <= allowed && made <= MOST_AT_ONCE.max(have),
                    "{made} for {have}"
                );
            }
        }
    }

    #[test]
    fn little_of_a_large_message_is_copied_to_make_room() {
        for total in [1 << 20, 100 << 20, 110 << 20, 1 << 30] {
            let copied = read(total).into_iter().map(|(_, have)| have).max();
            let most = (total / TRUSTED.1 * 2).max(TRUSTED.0);
            assert!(copied <= Some(most), "{copied:?} of {total}");
        }
    }
}
