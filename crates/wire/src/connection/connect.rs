//! Calling a peer: workers and nannies, whose release is known from their registration.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsStream;

use super::{
    Address, Connection, Limits, Reader, Scheme, Security, SocketOptions, Transport, TransportInfo,
    WebSocket, Writer, configure, tls,
};
use crate::error::{ConnectError, WriteError};
use crate::handshake::Handshake;
use crate::release::Generation;

/// How a peer is called.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// What it speaks: [`Generation::of`] its release.
    pub generation: Generation,
    /// Time for connection and handshake together (`distributed.comm.timeouts.connect`).
    pub timeout: Duration,
    /// Whether to try again until the time is over when the connection is refused.
    pub retry: bool,
    /// Bounds of a message.
    pub limits: Limits,
    /// Options of the socket.
    pub socket: SocketOptions,
    /// Pickle protocol we announce. Stock schedulers say 4 here, so that results that travel
    /// through them are in-band.
    pub pickle_protocol: i64,
    /// Extensions we announce to peers of our own.
    pub capabilities: Vec<String>,
    /// Our certificate, and whose we accept.
    pub security: Security,
    /// The name that is asked for in TLS (SNI), if any.
    pub server_name: Option<String>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            generation: Generation::M3,
            timeout: Duration::from_secs(30),
            retry: false,
            limits: Limits::default(),
            socket: SocketOptions::default(),
            pickle_protocol: 4,
            capabilities: Vec::new(),
            security: Security::default(),
            server_name: None,
        }
    }
}

impl Connection {
    /// Calls `address` and settles the handshake. We write first, which every listener accepts.
    pub async fn connect(address: &str, options: &ConnectOptions) -> Result<Self, ConnectError> {
        let target = Address::parse(address)?;
        let security = &options.security;
        if security.require_encryption() && !target.scheme.is_encrypted() {
            return Err(ConnectError::NotEncrypted(address.into()));
        }
        if target.scheme.is_encrypted() && security.server().is_none() {
            return Err(ConnectError::NoCertificate(address.into()));
        }
        let deadline = Instant::now() + options.timeout;
        let timed_out = || ConnectError::Timeout {
            address: address.into(),
            timeout: options.timeout,
        };
        let io = |source| ConnectError::Io {
            address: address.into(),
            source,
        };
        let work = async {
            let stream = call(&target, options.retry).await.map_err(io)?;
            configure(&stream, &options.socket).map_err(io)?;
            let peer = stream.peer_addr().ok();
            let mut connection = dress(address, &target, stream, options).await?;
            connection.peer = peer;
            Ok(connection)
        };
        timeout_at(deadline, work).await.map_err(|_| timed_out())?
    }

    /// The handshake of a caller, on any byte stream. `address` is for error messages.
    pub async fn establish(
        address: &str,
        stream: impl Transport,
        options: &ConnectOptions,
    ) -> Result<Self, ConnectError> {
        let info = stream.info();
        let (read, write) = stream.into_halves();
        let mut spoken = options.generation;
        if info.scheme.is_websocket() {
            spoken = spoken.over_websocket();
        }
        let mut reader = Reader::new(read, spoken, options.limits);
        let mut writer = Writer::new(write, spoken);
        let mut handshake = None;
        if spoken > Generation::M0 {
            let ours = Handshake::ours(options.pickle_protocol, &options.capabilities);
            writer
                .send(&ours.to_message())
                .await
                .map_err(|error| match error {
                    WriteError::Io(source) => ConnectError::Io {
                        address: address.into(),
                        source,
                    },
                    WriteError::Encode(source) => ConnectError::Read {
                        address: address.into(),
                        source: source.into(),
                    },
                })?;
            let answer = reader.greeting().await;
            let answer = answer.map_err(|source| ConnectError::Read {
                address: address.into(),
                source,
            })?;
            let theirs =
                Handshake::from_message(&answer).map_err(|source| ConnectError::Handshake {
                    address: address.into(),
                    source,
                })?;
            handshake = Some(theirs);
        }
        let generation = reader.generation();
        writer.set_generation(generation);
        Ok(Self {
            reader,
            writer,
            generation,
            handshake,
            peer: None,
            info,
        })
    }
}

/// Puts what the address asks for on top of TCP, and settles the handshake.
async fn dress(
    address: &str,
    target: &Address,
    stream: TcpStream,
    options: &ConnectOptions,
) -> Result<Connection, ConnectError> {
    let limits = options.limits;
    let websocket = |source| ConnectError::WebSocket {
        address: address.into(),
        source,
    };
    match target.scheme {
        Scheme::Tcp => Connection::establish(address, stream, options).await,
        Scheme::Tls => {
            let stream = encrypt(address, stream, options).await?;
            Connection::establish(address, stream, options).await
        }
        Scheme::Ws => {
            let info = TransportInfo {
                scheme: Scheme::Ws,
                certificate: None,
            };
            let stream = WebSocket::call(stream, target, info, limits).await;
            Connection::establish(address, stream.map_err(websocket)?, options).await
        }
        Scheme::Wss => {
            let stream = encrypt(address, stream, options).await?;
            let info = TransportInfo {
                scheme: Scheme::Wss,
                certificate: tls::peer_certificate(&stream),
            };
            let stream = WebSocket::call(stream, target, info, limits).await;
            Connection::establish(address, stream.map_err(websocket)?, options).await
        }
    }
}

async fn encrypt(
    address: &str,
    stream: TcpStream,
    options: &ConnectOptions,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let name = options.server_name.as_deref();
    match options.security.connect(name, stream).await {
        Some(Ok(stream)) => Ok(stream),
        Some(Err(source)) => Err(ConnectError::Tls {
            address: address.into(),
            source,
        }),
        None => Err(ConnectError::NoCertificate(address.into())),
    }
}

async fn call(target: &Address, retry: bool) -> io::Result<TcpStream> {
    let mut pause = Duration::from_millis(10);
    loop {
        match TcpStream::connect((target.host.as_str(), target.port)).await {
            Err(error) if retry && error.kind() == io::ErrorKind::ConnectionRefused => {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            other => return other,
        }
    }
}
