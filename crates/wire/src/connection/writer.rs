//! The sending half.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::BoxWrite;
use crate::error::WriteError;
use crate::framing::write_prelude;
use crate::legacy;
use crate::message::Message;
use crate::release::Generation;

/// Frames from this size on are written from where they lie; smaller ones are copied together.
const JOIN_BELOW: usize = 8 << 10;
/// Most pieces that are handed to the system at once.
const MAX_SLICES: usize = 64;

/// Writes messages. What is queued and not yet written stays queued when a future is dropped.
pub struct Writer {
    io: BoxWrite,
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
    pub(crate) fn new(io: BoxWrite, generation: Generation) -> Self {
        Self {
            io,
            generation,
            queue: VecDeque::new(),
            tail: BytesMut::new(),
        }
    }

    /// Writes to anything, for a peer known to speak `generation`: tests, recordings, simulations.
    pub fn over(io: impl AsyncWrite + Send + Unpin + 'static, generation: Generation) -> Self {
        Self::new(Box::new(io), generation)
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
            self.feed_frames(&legacy::encode(message)?);
        } else {
            let frames: Vec<Bytes> = message.frames().cloned().collect();
            self.feed_frames(&frames);
        }
        Ok(())
    }

    fn feed_frames(&mut self, frames: &[Bytes]) {
        write_prelude(frames, self.generation, &mut self.tail);
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
        self.feed_frames(frames);
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
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slot, piece) in slices.iter_mut().zip(&self.queue) {
                *slot = IoSlice::new(piece);
                count += 1;
            }
            let written = self.io.write_vectored(&slices[..count]).await?;
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
