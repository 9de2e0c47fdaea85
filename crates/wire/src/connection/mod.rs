//! Connections: bytes on a socket to [`Message`]s and back, with whom we speak settled first.
//!
//! [`Connection::accept`] finds out what a caller speaks (`accept.rs`), [`Connection::connect`]
//! calls a peer (`connect.rs`). Afterwards a connection is a [`Reader`] and a [`Writer`], which may
//! be used by different tasks.

mod accept;
mod address;
mod connect;
mod halves;
mod landing;
mod memory;
mod reader;
mod socket;
pub mod tls;
mod websocket;
mod writer;

use std::net::SocketAddr;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

pub use accept::AcceptPolicy;
pub use address::{Address, Scheme};
pub use connect::ConnectOptions;
pub use halves::{ReadSide, WriteSide};
pub use landing::{Landing, LandingPlace};
pub use memory::PeerMemory;
pub use reader::{Opening, Reader};
pub use socket::{SocketOptions, configure};
pub use tls::{Security, TlsOptions, TlsServer, TlsVersion};
pub use websocket::{WebSocket, websocket_answer};
pub use writer::Writer;

pub use crate::framing::Limits;
use crate::handshake::Handshake;
use crate::message::Message;
use crate::release::Generation;

/// What a transport tells about itself and the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportInfo {
    /// Which one it is.
    pub scheme: Scheme,
    /// The certificate that the other end has shown, and that was accepted.
    pub certificate: Option<CertificateDer<'static>>,
}

/// A byte stream that can be read and written by different tasks: TCP, TLS over it (`tls`), or
/// WebSocket messages taken for one (`websocket.rs`).
pub trait Transport: Send + 'static {
    /// What is known of it.
    fn info(&self) -> TransportInfo {
        TransportInfo::default()
    }

    /// Both directions.
    fn into_halves(self) -> (ReadSide, WriteSide);
}

/// The reading half of a TLS stream. Stock peers close the socket without a farewell in TLS; our
/// framing has lengths and notices a message that was cut.
struct UncleanEnd<R>(R);

impl<R: AsyncRead + Unpin> AsyncRead for UncleanEnd<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf).map(|read| {
            read.or_else(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Ok(()),
                _ => Err(error),
            })
        })
    }
}

impl Transport for TcpStream {
    fn into_halves(self) -> (ReadSide, WriteSide) {
        halves::of_tcp(self)
    }
}

impl Transport for tokio::io::DuplexStream {
    fn into_halves(self) -> (ReadSide, WriteSide) {
        let (read, write) = tokio::io::split(self);
        (
            ReadSide::Other(Box::new(read)),
            WriteSide::Other(Box::new(write)),
        )
    }
}

/// A connection whose framing and handshake are settled.
#[derive(Debug)]
pub struct Connection {
    /// Incoming messages.
    pub reader: Reader,
    /// Outgoing messages.
    pub writer: Writer,
    generation: Generation,
    handshake: Option<Handshake>,
    peer: Option<SocketAddr>,
    info: TransportInfo,
}

impl Connection {
    /// What the peer speaks. Its release is known only from its registration.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What the peer told about itself; nothing before 2.23.0.
    pub fn handshake(&self) -> Option<&Handshake> {
        self.handshake.as_ref()
    }

    /// Extensions of a peer of our own; nothing for stock.
    pub fn capabilities(&self) -> Option<&[String]> {
        self.handshake.as_ref()?.capabilities.as_deref()
    }

    /// The other end.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The transport it runs on.
    pub fn scheme(&self) -> Scheme {
        self.info.scheme
    }

    /// The certificate that the other end has shown; nothing without TLS.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.info.certificate.as_ref()
    }

    /// The next message; see [`Reader::read`].
    pub async fn read(&mut self) -> Result<Message, crate::error::ReadError> {
        self.reader.read().await
    }

    /// Sends a message; see [`Writer::send`].
    pub async fn send(&mut self, message: &Message) -> Result<(), crate::error::WriteError> {
        self.writer.send(message).await
    }

    /// Whether [`Self::adopt`] moves it: it is plain TCP.
    pub fn is_adoptable(&self) -> bool {
        matches!(self.reader.io, ReadSide::Tcp(_))
    }

    /// Has the runtime that this is called on wait for the socket from now on, if it is plain TCP. Others stay
    /// where they are: what is wrapped around their sockets can not be taken apart.
    ///
    /// # Errors
    /// When the system refuses; the connection is lost then.
    pub fn adopt(mut self) -> io::Result<Self> {
        let (read, write) = halves::adopt(self.reader.io, self.writer.io)?;
        self.reader.io = read;
        self.writer.io = write;
        Ok(self)
    }

    /// Both halves, for different tasks.
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}
