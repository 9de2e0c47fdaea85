//! The message format between the scheduler and its Python host.
//!
//! A message is: count of frames (`u32`), their lengths (`u64` each), the frames; all little-endian.
//! Frame 0 is a msgpack map, the *header*. The same format goes through the pipe of a local host and
//! through the `run` RPC of a delegate. What the messages mean is said in [`super::requests`].

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// More frames than this are taken for garbage.
const MAX_FRAMES: u32 = 1 << 24;
/// Memory is taken in steps of at most this many bytes, so that a length alone costs nothing.
const READ_STEP: usize = 4 << 20;

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    /// A msgpack map.
    pub(super) header: Bytes,
    /// Whatever the header describes.
    pub(super) frames: Vec<Bytes>,
}

/// The other side sent something that is no message, or broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The pipe is closed, at the border between two messages.
    #[error("it closed the pipe")]
    Closed,
    /// The pipe broke, or was closed inside a message.
    #[error("the pipe broke: {0}")]
    Io(#[from] io::Error),
    /// The first bytes cannot be the beginning of a message.
    #[error("it announced {count} frames, which cannot be right")]
    FrameCount {
        /// As announced.
        count: u32,
    },
    /// The frames add up to more than is allowed.
    #[error("it announced {announced} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Sum of the announced lengths.
        announced: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A message that lies in memory ends too early.
    #[error("it is cut off")]
    CutOff,
}

impl Message {
    /// The message as the list of buffers to write, in order.
    pub(super) fn encode(&self) -> Vec<Bytes> {
        let lengths = || std::iter::once(&self.header).chain(&self.frames);
        let mut prefix = BytesMut::with_capacity(4 + 8 * (1 + self.frames.len()));
        prefix.put_u32_le(u32::try_from(lengths().count()).unwrap_or(u32::MAX));
        for frame in lengths() {
            prefix.put_u64_le(frame.len() as u64);
        }
        std::iter::once(prefix.freeze())
            .chain(lengths().cloned())
            .collect()
    }

    /// Reads a message that lies in memory as a whole.
    ///
    /// # Errors
    /// [`FrameError::FrameCount`] and [`FrameError::CutOff`].
    pub(super) fn decode(mut data: Bytes) -> Result<Self, FrameError> {
        let count = data.try_get_u32_le().map_err(|_| FrameError::CutOff)?;
        if !(1..=MAX_FRAMES).contains(&count) {
            return Err(FrameError::FrameCount { count });
        }
        let table = count as usize * 8;
        if data.len() < table {
            return Err(FrameError::CutOff);
        }
        let mut lengths = data.split_to(table);
        let mut take = || {
            let length = usize::try_from(lengths.get_u64_le()).map_err(|_| FrameError::CutOff)?;
            (length <= data.len())
                .then(|| data.split_to(length))
                .ok_or(FrameError::CutOff)
        };
        let header = take()?;
        let frames = (1..count).map(|_| take()).collect::<Result<_, _>>()?;
        Ok(Self { header, frames })
    }
}

/// A message in one piece.
pub(super) fn joined(message: &Message) -> Bytes {
    let parts = message.encode();
    let mut out = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.freeze()
}

/// Writes one message and flushes.
///
/// # Errors
/// When the other side does not read any more.
pub(super) async fn write_message(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &Message,
) -> io::Result<()> {
    for buffer in message.encode() {
        writer.write_all(&buffer).await?;
    }
    writer.flush().await
}

/// Reads one message of at most `limit` bytes.
///
/// # Errors
/// See [`FrameError`].
pub(super) async fn read_message(
    reader: &mut (impl AsyncRead + Unpin),
    limit: u64,
) -> Result<Message, FrameError> {
    let mut count = [0; 4];
    let first = reader.read(&mut count).await?;
    if first == 0 {
        return Err(FrameError::Closed);
    }
    if let Some(rest) = count.get_mut(first..) {
        reader.read_exact(rest).await?;
    }
    let count = u32::from_le_bytes(count);
    if !(1..=MAX_FRAMES).contains(&count) {
        return Err(FrameError::FrameCount { count });
    }
    let mut table = read_exactly(reader, count as usize * 8).await?;
    let mut lengths = Vec::new();
    let mut announced = 0_u64;
    while table.has_remaining() {
        let length = table.get_u64_le();
        announced = announced.saturating_add(length);
        if announced > limit {
            return Err(FrameError::TooLarge { announced, limit });
        }
        lengths.push(usize::try_from(length).map_err(|_| FrameError::CutOff)?);
    }
    let mut frames = Vec::new();
    for length in lengths {
        frames.push(read_exactly(reader, length).await?);
    }
    let header = frames.remove(0);
    Ok(Message { header, frames })
}

async fn read_exactly(reader: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Bytes> {
    let mut data = BytesMut::new();
    while data.len() < length {
        let step = (length - data.len()).min(READ_STEP);
        data.reserve(step);
        let mut window = (&mut data).limit(step);
        if reader.read_buf(&mut window).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(data.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(frames: &[&'static [u8]]) -> Message {
        Message {
            header: Bytes::from_static(b"\x80"),
            frames: frames.iter().copied().map(Bytes::from_static).collect(),
        }
    }

    fn joined(message: &Message) -> Vec<u8> {
        message.encode().concat()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for frames in [&[][..], &[b"".as_slice()], &[b"abc", b"", b"defg"]] {
            let message = message(frames);
            assert_eq!(
                Message::decode(joined(&message).into()).unwrap(),
                message,
                "{frames:?}"
            );
        }
    }

    #[tokio::test]
    async fn messages_follow_each_other_in_a_stream() {
        let (first, second) = (message(&[b"abc"]), message(&[]));
        let stream = [joined(&first), joined(&second)].concat();
        let mut reader = stream.as_slice();
        assert_eq!(read_message(&mut reader, 1000).await.unwrap(), first);
        assert_eq!(read_message(&mut reader, 1000).await.unwrap(), second);
        assert!(matches!(
            read_message(&mut reader, 1000).await,
            Err(FrameError::Closed)
        ));
    }

    #[tokio::test]
    async fn every_cut_is_noticed() {
        let whole = joined(&message(&[b"abc", b"de"]));
        for cut in 1..whole.len() {
            let mut reader = &whole[..cut];
            assert!(
                matches!(
                    read_message(&mut reader, 1000).await,
                    Err(FrameError::Io(_))
                ),
                "cut at {cut}"
            );
            assert!(
                matches!(
                    Message::decode(Bytes::copy_from_slice(&whole[..cut])),
                    Err(FrameError::CutOff)
                ),
                "cut at {cut}"
            );
        }
    }

    #[tokio::test]
    async fn text_on_the_pipe_is_garbage() {
        let mut reader = b"Traceback (most recent call last):\n".as_slice();
        assert!(matches!(
            read_message(&mut reader, 1000).await,
            Err(FrameError::FrameCount { .. })
        ));
    }

    #[tokio::test]
    async fn absurd_lengths_are_refused_before_anything_is_allocated() {
        let mut data = 2_u32.to_le_bytes().to_vec();
        data.extend(u64::MAX.to_le_bytes());
        data.extend(1_u64.to_le_bytes());
        assert!(matches!(
            read_message(&mut data.as_slice(), 1 << 40).await,
            Err(FrameError::TooLarge { .. })
        ));
        assert!(matches!(
            Message::decode(data.into()),
            Err(FrameError::CutOff)
        ));
    }
}
