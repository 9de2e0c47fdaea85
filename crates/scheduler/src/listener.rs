//! Accepting connections on every transport: bounded handshakes, and no spinning when the process
//! runs out of file descriptors.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use oxidask_wire::Connection;
use oxidask_wire::connection::tls::{CertificateDer, TlsStream, peer_certificate};
use oxidask_wire::connection::{
    AcceptPolicy, Scheme, SocketOptions, TlsServer, Transport, TransportInfo, WebSocket, configure,
};
use oxidask_wire::error::AcceptError;
use oxidask_wire::release::Generation;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::context::Context;
use crate::{descriptors, http, session};

/// Handshakes at the same time; further callers wait in the backlog.
const MAX_HANDSHAKES: usize = 1024;
/// Pause after an error of `accept` (mostly: no file descriptor left).
const BACKOFF: Duration = Duration::from_millis(100);

/// Opens the listening socket.
///
/// # Errors
/// When the address is in use, not ours, or not allowed.
pub fn bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() {
        TcpSocket::new_v6()?
    } else {
        TcpSocket::new_v4()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// How the callers of one port are received.
#[derive(Clone)]
pub struct Reception {
    /// Address of the port, for log lines.
    pub address: Arc<str>,
    /// Transport of the port.
    pub scheme: Scheme,
    /// Needed by transports with TLS.
    pub tls: Option<TlsServer>,
    /// What is served beside WebSocket connections; None for other transports.
    pub router: Option<Router>,
    /// What callers may speak.
    pub policy: AcceptPolicy,
    /// Options of sockets.
    pub socket: SocketOptions,
    /// How silent peers are greeted, if that is certain.
    pub silent: Option<Generation>,
}

/// Accepts connections until the task is dropped.
pub async fn accept(context: Arc<Context>, listener: TcpListener, reception: Reception) {
    let limit = descriptors::raise_limit();
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let connections = Arc::new(Semaphore::new(descriptors::for_connections(limit)));
    let reception = Arc::new(reception);
    loop {
        // Neither semaphore is ever closed.
        let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await else {
            return;
        };
        let Ok(connection) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(BACKOFF).await;
                continue;
            }
        };
        let (context, reception) = (Arc::clone(&context), Arc::clone(&reception));
        let served = async move {
            let settled = reception.settle(stream, peer, handshake).await;
            if let Some(settled) = settled {
                session::serve(context, settled, peer, connection).await;
            }
        };
        tokio::spawn(served);
    }
}

impl Reception {
    /// From a socket to a connection that messages can be read from. `handshake` is dropped once
    /// the caller has said who it is.
    async fn settle(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        handshake: OwnedSemaphorePermit,
    ) -> Option<Connection> {
        if let Err(error) = configure(&stream, &self.socket) {
            tracing::debug!("socket options of {peer}: {error}");
        }
        let settled = match self.scheme {
            Scheme::Tcp => self.accept(stream, peer).await,
            Scheme::Tls => {
                let stream = self.encrypt(stream, peer).await?;
                self.accept(stream, peer).await
            }
            Scheme::Ws => self.upgrade(stream, peer, None, handshake).await,
            Scheme::Wss => {
                let stream = self.encrypt(stream, peer).await?;
                let certificate = peer_certificate(&stream);
                self.upgrade(stream, peer, certificate, handshake).await
            }
        };
        match settled {
            Ok(connection) => Some(connection),
            Err(AcceptError::ClosedEarly) => None,
            Err(error) => {
                tracing::info!("closing connection from {peer}: {error}");
                None
            }
        }
    }

    async fn accept(
        &self,
        stream: impl Transport,
        peer: SocketAddr,
    ) -> Result<Connection, AcceptError> {
        Connection::accept(stream, &self.policy, Some(peer), self.silent).await
    }

    /// TLS. Failures are logged as in stock, except of callers that say nothing at all, as health
    /// checks do.
    async fn encrypt(&self, stream: TcpStream, peer: SocketAddr) -> Option<TlsStream<TcpStream>> {
        let tls = self.tls.as_ref()?;
        let failed = |reason: &dyn std::fmt::Display| {
            tracing::warn!(
                target: "distributed.comm.tcp",
                "Listener on '{}': TLS handshake failed with remote 'tls://{peer}': {reason}",
                self.address
            );
        };
        match tokio::time::timeout(self.policy.handshake_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                tracing::debug!("{peer} closed before the TLS handshake");
            }
            Ok(Err(error)) => failed(&error),
            Err(_) => failed(&"no answer in time"),
        }
        None
    }

    /// HTTP, until the caller asks for a WebSocket connection.
    async fn upgrade<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        certificate: Option<CertificateDer<'static>>,
        handshake: OwnedSemaphorePermit,
    ) -> Result<Connection, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // A browser may stay for long.
        drop(handshake);
        let router = self.router.clone().unwrap_or_default();
        let Some(upgraded) = http::serve_connection(stream, router).await else {
            return Err(AcceptError::ClosedEarly);
        };
        let info = TransportInfo {
            scheme: self.scheme,
            certificate,
        };
        let stream = WebSocket::upgraded(upgraded, info, self.policy.limits).await;
        self.accept(stream, peer).await
    }
}
