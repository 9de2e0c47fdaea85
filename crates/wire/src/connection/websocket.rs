//! The WebSocket transport (2020.12.0 and later): one binary message that holds the number of
//! frames (64 bit, little endian), then one per frame. No lengths, so that there is one framing for
//! all releases.
//!
//! A [`WebSocket`] is a [`Transport`] like the others: what arrives is handed on as a stream in the
//! newer framing (F2) and what is written in it is cut into messages, so that readers and writers
//! need not know. That costs a copy, which nobody who chooses this transport will notice.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, http};

use super::{Address, Limits, ReadSide, Transport, TransportInfo, WriteSide};
use crate::framing::write_prelude;
use crate::release::Generation;

const WORD: usize = 8;
/// Largest WebSocket message. Stock cuts payloads into 8 MiB (`distributed.comm.websockets.shard`);
/// only the msgpack part of a message may be larger. The library makes room for what a peer
/// announces, so that this is also what a hostile peer can have reserved.
const MAX_PIECE: usize = 256 << 20;
/// Read at once. The library allocates it for each connection.
const READ_BUFFER: usize = 16 << 10;

/// An upgraded connection.
pub struct WebSocket<S> {
    stream: WebSocketStream<S>,
    info: TransportInfo,
    limits: Limits,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> WebSocket<S> {
    /// The called side, after the answer to the upgrade request.
    pub async fn upgraded(stream: S, info: TransportInfo, limits: Limits) -> Self {
        let config = Some(config(&limits));
        let stream = WebSocketStream::from_raw_socket(stream, Role::Server, config).await;
        Self {
            stream,
            info,
            limits,
        }
    }

    /// Asks `target` for an upgrade.
    ///
    /// # Errors
    /// When it refuses, or the connection breaks.
    pub(super) async fn call(
        stream: S,
        target: &Address,
        info: TransportInfo,
        limits: Limits,
    ) -> io::Result<Self> {
        // Beneath, TLS is settled already: to the library it is all the same.
        let url = Address {
            scheme: super::Scheme::Ws,
            ..target.clone()
        };
        let config = Some(config(&limits));
        let url = format!("{url}/");
        let called = tokio_tungstenite::client_async_with_config(url, stream, config).await;
        let (stream, _) = called.map_err(into_io)?;
        Ok(Self {
            stream,
            info,
            limits,
        })
    }
}

/// The answer to a request for an upgrade.
///
/// # Errors
/// What the request lacks.
pub fn websocket_answer<T>(request: &http::Request<T>) -> Result<http::Response<()>, String> {
    let answer = tungstenite::handshake::server::create_response_with_body(request, || ());
    answer.map_err(|error| error.to_string())
}

fn config(limits: &Limits) -> WebSocketConfig {
    let piece = limits.max_message.min(MAX_PIECE);
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(piece))
        .max_frame_size(Some(piece))
}

fn into_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for WebSocket<S> {
    fn info(&self) -> TransportInfo {
        self.info.clone()
    }

    fn into_halves(self) -> (ReadSide, WriteSide) {
        let (sink, stream) = self.stream.split();
        let read = ReadHalf {
            stream,
            joiner: Joiner::new(self.limits),
        };
        let write = WriteHalf {
            sink,
            splitter: Splitter::default(),
        };
        (
            ReadSide::Other(Box::new(read)),
            WriteSide::Other(Box::new(write)),
        )
    }
}

/// Puts frames together to a message in F2.
struct Joiner {
    limits: Limits,
    /// Frames that are still to come; None between messages.
    missing: Option<usize>,
    frames: Vec<Bytes>,
    size: usize,
    /// Whole messages, to be read.
    out: VecDeque<Bytes>,
}

impl Joiner {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            missing: None,
            frames: Vec::new(),
            size: 0,
            out: VecDeque::new(),
        }
    }

    fn push(&mut self, piece: Bytes) -> io::Result<()> {
        let invalid = |detail| Err(io::Error::new(io::ErrorKind::InvalidData, detail));
        let Some(missing) = self.missing else {
            let Ok(count) = <[u8; WORD]>::try_from(&*piece) else {
                return invalid("the number of frames is not of 8 bytes");
            };
            let count = usize::try_from(u64::from_le_bytes(count)).unwrap_or(usize::MAX);
            if count == 0 || count > self.limits.max_frames {
                return invalid("bad number of frames");
            }
            self.missing = Some(count);
            return Ok(());
        };
        self.size = self.size.saturating_add(piece.len());
        if self.size > self.limits.max_message {
            return invalid("message too large");
        }
        self.frames.push(piece);
        self.missing = Some(missing - 1);
        if missing == 1 {
            self.finish();
        }
        Ok(())
    }

    fn finish(&mut self) {
        let mut prelude = BytesMut::new();
        write_prelude(&self.frames, Generation::M3, &mut prelude);
        self.out.push_back(prelude.freeze());
        let frames = self.frames.drain(..);
        self.out.extend(frames.filter(|frame| !frame.is_empty()));
        (self.missing, self.size) = (None, 0);
    }

    fn take(&mut self, buf: &mut ReadBuf<'_>) {
        while let Some(front) = self.out.front_mut()
            && buf.remaining() > 0
        {
            let length = front.len().min(buf.remaining());
            buf.put_slice(&front[..length]);
            front.advance(length);
            if front.is_empty() {
                self.out.pop_front();
            }
        }
    }
}

struct ReadHalf<S> {
    stream: SplitStream<WebSocketStream<S>>,
    joiner: Joiner,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ReadHalf<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.joiner.out.is_empty() {
            match ready!(Pin::new(&mut this.stream).poll_next(cx)) {
                Some(Ok(Message::Binary(piece))) => this.joiner.push(piece)?,
                // The library answers pings.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(end(&this.joiner)),
                Some(Ok(Message::Text(_))) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "text message");
                    return Poll::Ready(Err(error));
                }
                Some(Err(error)) if is_end(&error) => return Poll::Ready(end(&this.joiner)),
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            }
        }
        this.joiner.take(buf);
        Poll::Ready(Ok(()))
    }
}

/// Whether the peer is gone, politely or not, as opposed to misbehaving.
fn is_end(error: &tungstenite::Error) -> bool {
    use tungstenite::error::ProtocolError;
    match error {
        tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed
        | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => true,
        tungstenite::Error::Io(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}

fn end(joiner: &Joiner) -> io::Result<()> {
    if joiner.missing.is_none() {
        return Ok(());
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Cuts a stream in F2 into WebSocket messages.
#[derive(Default)]
struct Splitter {
    expects: Expects,
    piece: BytesMut,
    lengths: VecDeque<usize>,
    /// To be sent.
    out: VecDeque<Bytes>,
}

/// What comes next in the stream.
#[derive(Clone, Copy, Default)]
enum Expects {
    /// The total length, which is not sent.
    #[default]
    Total,
    /// The number of frames.
    Count,
    /// So many lengths.
    Lengths(usize),
    /// The first of the frames left.
    Frame,
}

impl Splitter {
    /// Takes bytes until there is something to send; how many were taken.
    fn push(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while self.out.is_empty() {
            let wanted = match self.expects {
                Expects::Total | Expects::Count => WORD,
                Expects::Lengths(count) => count.saturating_mul(WORD),
                Expects::Frame => self.lengths.front().copied().unwrap_or(0),
            };
            let rest = &bytes[taken..];
            let part = rest.len().min(wanted - self.piece.len());
            self.piece.extend_from_slice(&rest[..part]);
            taken += part;
            if self.piece.len() < wanted {
                break;
            }
            self.complete();
        }
        taken
    }

    fn complete(&mut self) {
        let piece = self.piece.split().freeze();
        self.expects = match self.expects {
            Expects::Total => Expects::Count,
            Expects::Count => {
                let count = words(&piece).next().unwrap_or(0);
                self.out.push_back(piece);
                Expects::Lengths(count)
            }
            Expects::Lengths(_) => {
                self.lengths.extend(words(&piece));
                Expects::Frame
            }
            Expects::Frame => {
                self.lengths.pop_front();
                self.out.push_back(piece);
                Expects::Frame
            }
        };
        if matches!(self.expects, Expects::Frame) && self.lengths.is_empty() {
            self.expects = Expects::Total;
        }
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    bytes.chunks_exact(WORD).map(|word| {
        let word = <[u8; WORD]>::try_from(word).map_or(0, u64::from_le_bytes);
        usize::try_from(word).unwrap_or(usize::MAX)
    })
}

struct WriteHalf<S> {
    sink: SplitSink<WebSocketStream<S>, Message>,
    splitter: Splitter,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WriteHalf<S> {
    /// Gives what is complete to the library.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.splitter.out.is_empty() {
            ready!(Pin::new(&mut self.sink).poll_ready(cx)).map_err(closed)?;
            if let Some(piece) = self.splitter.out.pop_front() {
                let message = Message::Binary(piece);
                Pin::new(&mut self.sink)
                    .start_send(message)
                    .map_err(closed)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn closed(error: tungstenite::Error) -> io::Error {
    if is_end(&error) {
        return io::ErrorKind::BrokenPipe.into();
    }
    into_io(error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WriteHalf<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Poll::Ready(Ok(this.splitter.push(buf)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        // The last frame may be an empty one, for which no byte is written.
        while this.splitter.push(&[]) == 0 && !this.splitter.out.is_empty() {
            ready!(this.poll_send(cx))?;
        }
        Pin::new(&mut this.sink).poll_flush(cx).map_err(closed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.sink).poll_close(cx).map_err(closed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{DuplexStream, duplex};

    use super::super::{AcceptPolicy, ConnectOptions, Connection, Reader, Scheme};
    use super::*;
    use crate::error::ReadError;
    use crate::value::Value;

    fn sent(splitter: &mut Splitter, mut bytes: &[u8], step: usize) -> Vec<Bytes> {
        let mut out = Vec::new();
        loop {
            let taken = splitter.push(&bytes[..bytes.len().min(step)]);
            bytes = &bytes[taken..];
            let before = out.len();
            out.extend(splitter.out.drain(..));
            if bytes.is_empty() && before == out.len() {
                return out;
            }
        }
    }

    proptest! {
        #[test]
        fn messages_are_cut_and_put_together_again(
            messages in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6), 1..4),
            step in 1usize..64,
        ) {
            let mut stream = BytesMut::new();
            let mut expected = Vec::new();
            for frames in &messages {
                let frames: Vec<Bytes> = frames.iter().cloned().map(Bytes::from).collect();
                write_prelude(&frames, Generation::M3, &mut stream);
                frames.iter().for_each(|frame| stream.extend_from_slice(frame));
                expected.push(Bytes::copy_from_slice(&(frames.len() as u64).to_le_bytes()));
                expected.extend(frames);
            }
            let pieces = sent(&mut Splitter::default(), &stream, step);
            prop_assert_eq!(&pieces, &expected);

            let mut joiner = Joiner::new(Limits::default());
            for piece in pieces {
                joiner.push(piece).expect("valid");
            }
            prop_assert_eq!(joiner.out.iter().flatten().copied().collect::<Vec<u8>>(), stream.to_vec());
        }

        #[test]
        fn no_messages_of_a_peer_make_it_panic(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..10), 0..20),
        ) {
            let mut joiner = Joiner::new(Limits { max_message: 50, max_frames: 5 });
            let _ = pieces.into_iter().try_for_each(|piece| joiner.push(piece.into()));
        }
    }

    /// Both ends in this process, over a pipe.
    async fn pair() -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
        let (near, far) = duplex(1 << 16);
        let info = TransportInfo {
            scheme: Scheme::Ws,
            certificate: None,
        };
        let limits = Limits::default();
        let target = Address::parse("ws://127.0.0.1:1").expect("valid");
        let (served, called) = tokio::join!(
            tokio_tungstenite::accept_async(near),
            WebSocket::call(far, &target, info.clone(), limits)
        );
        let stream = served.expect("upgraded");
        let served = WebSocket {
            stream,
            info,
            limits,
        };
        (served, called.expect("upgraded"))
    }

    #[tokio::test(start_paused = true)]
    async fn peers_of_old_and_new_releases_are_understood() {
        for generation in [Generation::M1, Generation::M2, Generation::M3] {
            let (near, far) = pair().await;
            let policy = AcceptPolicy::default();
            let options = ConnectOptions {
                generation,
                ..ConnectOptions::default()
            };
            let (served, called) = tokio::join!(
                Connection::accept(near, &policy, None, None),
                Connection::establish("test", far, &options)
            );
            let (mut served, mut called) = (served.expect("accepted"), called.expect("called"));
            assert_eq!(served.generation(), generation.over_websocket());
            assert_eq!(called.scheme(), Scheme::Ws);
            for size in [1, 100_000, 3_000_000] {
                let value = Value::from("x".repeat(size));
                let message = crate::message::Message::from_value(&value);
                let sent = async { called.send(&message).await.expect("sent") };
                let (read, ()) = tokio::join!(served.read(), sent);
                assert_eq!(read.expect("read").value().expect("decoded"), value);
                let sent = async { served.send(&message).await.expect("sent") };
                let (read, ()) = tokio::join!(called.read(), sent);
                assert_eq!(read.expect("read").value().expect("decoded"), value);
            }
            drop(called);
            let end = served.read().await;
            assert!(matches!(end, Err(ReadError::Closed)), "{end:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_within_a_message_is_noticed() {
        use futures_util::SinkExt;
        let (near, mut far) = pair().await;
        let (read, _write) = near.into_halves();
        let mut reader = Reader::over(read, Generation::M3, Limits::default());
        let count = Bytes::copy_from_slice(&2u64.to_le_bytes());
        far.stream.send(Message::Binary(count)).await.expect("sent");
        far.stream
            .send(Message::Ping(Bytes::new()))
            .await
            .expect("sent");
        let frame = Bytes::from_static(b"one of two");
        far.stream.send(Message::Binary(frame)).await.expect("sent");
        drop(far);
        let end = reader.read().await;
        assert!(matches!(end, Err(ReadError::Io(_))), "{end:?}");
    }

    #[test]
    fn numbers_beyond_the_limits_are_refused() {
        for count in [0, 6, u64::MAX] {
            let limits = Limits {
                max_message: 50,
                max_frames: 5,
            };
            let mut joiner = Joiner::new(limits);
            let error = joiner.push(Bytes::copy_from_slice(&count.to_le_bytes()));
            assert!(error.is_err(), "{count}");
        }
    }
}
