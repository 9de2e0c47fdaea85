//! Receiving callers: the scheduler, other workers, clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use oxidask_http::connection::{serve_connection, with_websockets};
use oxidask_wire::connection::tls::{CertificateDer, TlsStream, peer_certificate};
use oxidask_wire::connection::{
    AcceptPolicy, Scheme, SocketOptions, TlsServer, Transport, TransportInfo, WebSocket, configure,
};
use oxidask_wire::error::AcceptError;
use oxidask_wire::{Connection, Generation};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::host::Handle;
use crate::interpreter::Interpreter;
use crate::near;
use crate::peers::LIMITS;
use crate::requests::Server;
use crate::settings::Settings;

/// Serves callers until the worker leaves.
pub(crate) async fn listen(
    listener: TcpListener,
    settings: Arc<Settings>,
    handle: Handle,
    interpreter: Arc<dyn Interpreter>,
) {
    let policy = AcceptPolicy {
        // All peers have our release.
        silent: Generation::of(&settings.release),
        limits: LIMITS,
        capabilities: match settings.near_memory {
            true => vec![near::CAPABILITY.into()],
            false => Vec::new(),
        },
        ..AcceptPolicy::default()
    };
    let reception = Arc::new(Reception {
        scheme: settings.scheme,
        tls: settings.security.server().cloned(),
        pages: with_websockets(None),
        policy,
    });
    let landing = Arc::new(handle.memory().landing().clone());
    let server = Arc::new(Server::new(settings, handle, interpreter));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("can not accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (server, reception) = (Arc::clone(&server), Arc::clone(&reception));
        let landing = Arc::clone(&landing);
        tokio::spawn(async move {
            if let Err(error) = configure(&stream, &SocketOptions::default()) {
                tracing::debug!("socket options of {peer}: {error}");
            }
            match reception.settle(stream, peer).await {
                Some(Ok(mut connection)) => {
                    connection.reader.land_in(landing);
                    server.serve(connection).await;
                }
                Some(Err(error)) => tracing::debug!("{peer} was not let in: {error}"),
                None => {}
            }
        });
    }
}

/// How callers are received.
struct Reception {
    scheme: Scheme,
    tls: Option<TlsServer>,
    /// What is served where WebSocket connections come in: nothing else.
    pages: Router,
    policy: AcceptPolicy,
}

impl Reception {
    /// From a socket to a connection that messages can be read from; nothing if that is said already.
    async fn settle(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<Result<Connection, AcceptError>> {
        Some(match self.scheme {
            Scheme::Tcp => self.accept(stream, peer).await,
            Scheme::Tls => {
                let stream = self.encrypt(stream, peer).await?;
                self.accept(stream, peer).await
            }
            Scheme::Ws => self.upgrade(stream, peer, None).await?,
            Scheme::Wss => {
                let stream = self.encrypt(stream, peer).await?;
                let certificate = peer_certificate(&stream);
                self.upgrade(stream, peer, certificate).await?
            }
        })
    }

    async fn accept(
        &self,
        stream: impl Transport,
        peer: SocketAddr,
    ) -> Result<Connection, AcceptError> {
        Connection::accept(stream, &self.policy, Some(peer), None).await
    }

    async fn encrypt(&self, stream: TcpStream, peer: SocketAddr) -> Option<TlsStream<TcpStream>> {
        let shaken = timeout(
            self.policy.handshake_timeout,
            self.tls.as_ref()?.accept(stream),
        );
        let reason = match shaken.await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(
            target: "distributed.comm.tcp",
            "TLS handshake failed with remote 'tls://{peer}': {reason}"
        );
        None
    }

    /// HTTP, until the caller asks for a WebSocket connection.
    async fn upgrade<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        certificate: Option<CertificateDer<'static>>,
    ) -> Option<Result<Connection, AcceptError>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let upgraded = serve_connection(stream, self.pages.clone()).await?;
        let info = TransportInfo {
            scheme: self.scheme,
            certificate,
        };
        let stream = WebSocket::upgraded(upgraded, info, self.policy.limits).await;
        Some(self.accept(stream, peer).await)
    }
}
