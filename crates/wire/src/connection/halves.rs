//! The two directions of a byte stream, and how plain TCP moves from one runtime to another.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The reading direction of a [`Transport`](super::Transport).
pub enum ReadSide {
    /// Of plain TCP.
    Tcp(OwnedReadHalf),
    /// Of anything else.
    Other(Box<dyn AsyncRead + Send + Unpin>),
}

/// The writing direction of a [`Transport`](super::Transport).
pub enum WriteSide {
    /// Of plain TCP.
    Tcp(OwnedWriteHalf),
    /// Of anything else.
    Other(Box<dyn AsyncWrite + Send + Unpin>),
}

/// Both directions of a plain TCP stream.
pub(super) fn of_tcp(stream: TcpStream) -> (ReadSide, WriteSide) {
    let (read, write) = stream.into_split();
    (ReadSide::Tcp(read), WriteSide::Tcp(write))
}

/// Has the runtime that this is called on wait for the socket from now on, if it is plain TCP. Others stay where
/// they are: what is wrapped around their sockets can not be taken apart.
///
/// # Errors
/// When the system refuses; the stream is lost then.
pub(super) fn adopt(read: ReadSide, write: WriteSide) -> io::Result<(ReadSide, WriteSide)> {
    match (read, write) {
        (ReadSide::Tcp(read), WriteSide::Tcp(write)) => {
            let stream = read.reunite(write).map_err(io::Error::other)?;
            let stream = TcpStream::from_std(stream.into_std()?)?;
            Ok(of_tcp(stream))
        }
        others => Ok(others),
    }
}

impl AsyncRead for ReadSide {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Other(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WriteSide {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(half) => Pin::new(half).poll_write(cx, buf),
            Self::Other(half) => Pin::new(half).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(half) => Pin::new(half).poll_write_vectored(cx, pieces),
            Self::Other(half) => Pin::new(half).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(half) => half.is_write_vectored(),
            Self::Other(half) => half.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(half) => Pin::new(half).poll_flush(cx),
            Self::Other(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Self::Other(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}
