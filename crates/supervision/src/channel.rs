//! A pair of connected Unix sockets, one end of which is the standard input of a process: one JSON object
//! per line in each direction. Whoever reads the end of it knows that the other process has died.

use std::io;
use std::os::fd::OwnedFd;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Longest line that is read.
const MAX_LINE: u64 = 1 << 20;

/// Why nothing more comes.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other process has closed its end, most probably by dying.
    #[error("the other end is closed")]
    Closed,
    /// Nothing can be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what we send.
    #[error("a line that is no message: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Two connected ends; the second one is for another process.
///
/// # Errors
/// When the system has no more sockets.
pub fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// The end that a process was given. Must be called within a tokio runtime.
///
/// # Errors
/// When it is no socket.
pub fn inherited(end: OwnedFd) -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(end);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Reading half.
#[derive(Debug)]
pub struct Receiver(BufReader<OwnedReadHalf>);

/// Writing half.
#[derive(Debug)]
pub struct Sender(OwnedWriteHalf);

/// Both halves of an end.
#[must_use]
pub fn split(stream: UnixStream) -> (Receiver, Sender) {
    let (read, write) = stream.into_split();
    (Receiver(BufReader::new(read)), Sender(write))
}

impl Receiver {
    /// The next message. Not safe to be cancelled within a line; lines are written in one piece.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] at the end.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<T, ChannelError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.0).take(MAX_LINE);
        let read = bounded.read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Err(ChannelError::Closed);
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

impl Sender {
    /// Sends a message.
    ///
    /// # Errors
    /// When the other process has died.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), ChannelError> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.write_all(&line).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FromWorker, ToWorker};

    #[tokio::test]
    async fn both_sides_speak_and_notice_the_end() {
        let (ours, theirs) = pair().expect("a pair");
        let (mut from_worker, mut to_worker) = split(ours);
        let (mut orders, mut reports) = split(inherited(theirs).expect("a socket"));
        let stop = ToWorker::Stop {
            reason: "nanny-kill\n".into(),
            timeout: 1.5,
        };
        to_worker.send(&stop).await.expect("sent");
        assert_eq!(orders.next::<ToWorker>().await.expect("read"), stop);
        let started = FromWorker::Started {
            address: "tcp://127.0.0.1:1".into(),
        };
        reports.send(&started).await.expect("sent");
        assert_eq!(
            from_worker.next::<FromWorker>().await.expect("read"),
            started
        );
        drop((orders, reports));
        let end = from_worker.next::<FromWorker>().await;
        assert!(matches!(end, Err(ChannelError::Closed)));
    }
}
