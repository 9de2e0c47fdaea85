//! The sending half.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::WriteSide;
use crate::error::WriteError;
use crate::framing::write_lengths;
use crate::legacy;
use crate::message::Message;
use crate::release::Generation;

/// Frames from this size on are written from where they lie; smaller ones are copied together.
const JOIN_BELOW: usize = 8 << 10;
/// Most pieces that are handed to the system at once.
const MAX_SLICES: usize = 64;

/// Writes messages. What is queued and not yet written stays queued when a future is dropped.
pub struct Writer {
    pub(super) io: WriteSide,
    generation: Generation,
    queue: VecDeque<Bytes>,
    /// Small pieces behind the queue, not yet closed off.
    tail: BytesMut,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("generation", &self.generation)
            .field("queued", &self.queued_bytes())
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(crate) fn new(io: WriteSide, generation: Generation) -> Self {
        Self {
            io,
            generation,
            queue: VecDeque::new(),
            tail: BytesMut::new(),
        }
    }

    /// Writes to anything, for a peer known to speak `generation`: tests, recordings, simulations.
    pub fn over(io: impl AsyncWrite + Send + Unpin + 'static, generation: Generation) -> Self {
        Self::new(WriteSide::Other(Box::new(io)), generation)
    }

    /// What the peer speaks.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn set_generation(&mut self, generation: Generation) {
        self.generation = generation;
    }

    /// Bytes that wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.queue.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }

    /// Queues a message without writing; [`Self::flush`] writes everything queued.
    pub fn feed(&mut self, message: &Message) -> Result<(), WriteError> {
        if self.generation.is_path_based() {
            self.feed_frames(legacy::encode(message)?.iter());
        } else {
            self.feed_frames(message.frames());
        }
        Ok(())
    }

    fn feed_frames<'f>(&mut self, frames: impl Iterator<Item = &'f Bytes> + Clone) {
        let lengths = frames.clone().map(Bytes::len);
        write_lengths(lengths, self.generation, &mut self.tail);
        for frame in frames {
            if frame.len() < JOIN_BELOW {
                self.tail.extend_from_slice(frame);
            } else {
                self.close_tail();
                self.queue.push_back(frame.clone());
            }
        }
    }

    /// Writes frames as they are.
    pub(crate) async fn send_frames(&mut self, frames: &[Bytes]) -> io::Result<()> {
        self.feed_frames(frames.iter());
        self.flush_io().await
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
    }

    /// Writes what is queued.
    pub async fn flush(&mut self) -> Result<(), WriteError> {
        Ok(self.flush_io().await?)
    }

    async fn flush_io(&mut self) -> io::Result<()> {
        self.close_tail();
        while !self.queue.is_empty() {
            let written = match self.queue.front() {
                // Mostly: the system has less to do for one piece.
                Some(piece) if self.queue.len() == 1 => self.io.write(piece).await?,
                _ => {
                    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                    let mut count = 0;
                    for (slot, piece) in slices.iter_mut().zip(&self.queue) {
                        *slot = IoSlice::new(piece);
                        count += 1;
                    }
                    self.io.write_vectored(&slices[..count]).await?
                }
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.advance(written);
        }
        self.io.flush().await
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(front) = self.queue.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.queue.pop_front();
        }
    }

    /// Queues the beginning of a message: its first frame, and the lengths of those behind it, whose
    /// bytes the caller sends with [`Self::send_piece`]. Only for peers of releases from 2021.03.1 on.
    pub fn begin(&mut self, body: &Bytes, lengths: &[usize]) {
        let all: Vec<usize> = [body.len()]
            .into_iter()
            .chain(lengths.iter().copied())
            .collect();
        write_lengths(all.iter().copied(), self.generation, &mut self.tail);
        self.tail.extend_from_slice(body);
    }

    /// Writes bytes of the message begun, and what is queued before them.
    pub async fn send_piece(&mut self, piece: Bytes) -> Result<(), WriteError> {
        self.close_tail();
        self.queue.push_back(piece);
        self.flush().await
    }

    /// Queues and writes a message.
    pub async fn send(&mut self, message: &Message) -> Result<(), WriteError> {
        self.feed(message)?;
        self.flush().await
    }

    /// Writes what is queued and tells the peer that nothing follows.
    pub async fn shutdown(&mut self) -> Result<(), WriteError> {
        self.flush().await?;
        self.io.shutdown().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Limits, Reader};
    use crate::error::ReadError;

    const BIG: usize = 3_000_000;

    /// A message with one large and one small frame, as it travels.
    fn frames() -> [Bytes; 3] {
        let large: Vec<u8> = (0..BIG).map(|n| (n % 251) as u8).collect();
        [Bytes::from_static(b"\x80"), large.into(), "end".into()]
    }

    #[tokio::test]
    async fn a_message_can_be_passed_on_in_pieces() {
        let (first, second) = (tokio::io::duplex(1 << 16), tokio::io::duplex(1 << 16));
        let frames = frames();
        let sent = frames.clone();
        let source = tokio::spawn(async move {
            let mut writer = Writer::over(first.0, Generation::M3);
            writer.send_frames(&sent).await.expect("sent");
            writer.send_frames(&sent[..1]).await.expect("sent");
        });
        let relay = tokio::spawn(async move {
            // Far less than the message has.
            let limits = Limits {
                max_message: 1000,
                ..Limits::default()
            };
            let mut reader = Reader::over(first.1, Generation::M3, limits);
            let mut writer = Writer::over(second.0, Generation::M3);
            let opening = reader.begin().await.expect("begun");
            assert_eq!(opening.lengths, [BIG, 3]);
            writer.begin(&opening.body, &opening.lengths);
            while let Some(piece) = reader.piece().await.expect("read") {
                assert!(piece.len() <= 1 << 17, "{} bytes at once", piece.len());
                writer.send_piece(piece).await.expect("written");
            }
            let next = reader.read().await.expect("the next message");
            assert_eq!(next.body(), &frames[0]);
            frames
        });
        let mut sink = Reader::over(second.1, Generation::M3, Limits::default());
        let opening = sink.begin().await.expect("begun");
        let mut bytes = BytesMut::new();
        while let Some(piece) = sink.piece().await.expect("read") {
            bytes.extend_from_slice(&piece);
        }
        source.await.expect("source");
        let frames = relay.await.expect("relay");
        assert_eq!(opening.body, frames[0]);
        assert!(bytes[..BIG] == frames[1] && bytes[BIG..] == frames[2]);
    }

    #[tokio::test]
    async fn a_message_that_ends_early_is_noticed() {
        let (source, sink) = tokio::io::duplex(1 << 16);
        let mut writer = Writer::over(source, Generation::M3);
        writer.begin(&Bytes::from_static(b"\x80"), &[10]);
        writer.send_piece("1234".into()).await.expect("sent");
        drop(writer);
        let mut reader = Reader::over(sink, Generation::M3, Limits::default());
        reader.begin().await.expect("begun");
        assert_eq!(reader.piece().await.expect("some"), Some("1234".into()));
        assert!(matches!(reader.piece().await, Err(ReadError::Cut)));
    }
}
