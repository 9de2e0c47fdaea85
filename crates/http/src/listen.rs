//! Opening the dashboard port and serving on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
pub use oxidask_cli::HostAndPort;
use oxidask_wire::connection::TlsServer;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::connection::serve_connection;

/// Connections of HTTPS at the same time.
const MAX_ENCRYPTED: usize = 1024;
/// Time for a TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after an error of `accept` (mostly: no file descriptor left).
const BACKOFF: Duration = Duration::from_millis(100);

/// Why there is no HTTP server.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Neither the port nor any other one can be listened on.
    #[error(
        "cannot serve HTTP on {address}: {source}; choose another address with --dashboard-address"
    )]
    Address {
        /// What was asked for.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Open ports.
#[derive(Debug)]
pub struct HttpListener {
    sockets: Vec<TcpListener>,
    tls: Option<TlsServer>,
    /// The first port.
    pub port: u16,
    /// One line for each port that was taken.
    pub warnings: Vec<String>,
}

/// Opens each address; a port that is taken is replaced by a free one. An empty host means all (IPv4)
/// interfaces.
///
/// # Errors
/// [`BindError`], ready for a person.
pub async fn bind(
    addresses: &[HostAndPort],
    tls: Option<TlsServer>,
) -> Result<HttpListener, BindError> {
    let mut open = HttpListener {
        sockets: Vec::new(),
        tls,
        port: 0,
        warnings: Vec::new(),
    };
    for address in addresses {
        let host = if address.host.is_empty() {
            "0.0.0.0"
        } else {
            &address.host
        };
        let socket = match TcpListener::bind((host, address.port)).await {
            Ok(socket) => socket,
            Err(first) => {
                let second = TcpListener::bind((host, 0)).await;
                let socket = second.map_err(|_| BindError::Address {
                    address: address.to_string(),
                    source: first,
                })?;
                open.warnings.push(format!(
                    "Port {} is already in use. Perhaps you already have a cluster running? \
                     Hosting the HTTP server on port {} instead",
                    address.port,
                    socket.local_addr().map_or(0, |local| local.port())
                ));
                socket
            }
        };
        if open.sockets.is_empty() {
            open.port = socket.local_addr().map_or(0, |local| local.port());
        }
        open.sockets.push(socket);
    }
    Ok(open)
}

impl HttpListener {
    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Addresses listened on.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets
            .iter()
            .filter_map(|socket| socket.local_addr().ok())
            .collect()
    }
}

/// `distributed.dashboard.link` for a port of the host that peers are told; further names in braces are
/// environment variables (`{JUPYTERHUB_SERVICE_PREFIX}`).
///
/// # Errors
/// The name that has no value.
pub fn dashboard_link(
    template: &str,
    scheme: &str,
    host: &str,
    port: u16,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut link = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        link.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            link.push('{');
            rest = after;
            continue;
        };
        match name {
            "scheme" => link.push_str(scheme),
            "host" => link.push_str(host),
            "port" => link.push_str(&port.to_string()),
            name => link.push_str(&variable(name).ok_or_else(|| name.to_owned())?),
        }
        rest = after;
    }
    link.push_str(rest);
    Ok(link)
}

/// Serves until dropped.
pub async fn serve(listener: HttpListener, router: Router) {
    let mut servers = tokio::task::JoinSet::new();
    for socket in listener.sockets {
        let router = router.clone();
        match listener.tls.clone() {
            None => servers.spawn(async move { axum::serve(socket, router).await }),
            Some(tls) => servers.spawn(serve_encrypted(socket, tls, router)),
        };
    }
    while let Some(ended) = servers.join_next().await {
        if let Ok(Err(error)) = ended {
            tracing::error!("HTTP server ended: {error}");
        }
    }
}

/// HTTPS. Its end is the end of the task.
async fn serve_encrypted(
    socket: TcpListener,
    tls: TlsServer,
    router: Router,
) -> std::io::Result<()> {
    let connections = Arc::new(Semaphore::new(MAX_ENCRYPTED));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return Ok(());
        };
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(target: "distributed.http", "cannot accept a connection: {error}");
                tokio::time::sleep(BACKOFF).await;
                continue;
            }
        };
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(TLS_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    serve_connection(stream, router).await;
                }
                Ok(Err(error)) => {
                    tracing::debug!(target: "distributed.http", "TLS handshake with {peer} failed: {error}");
                }
                Err(_) => {
                    tracing::debug!(target: "distributed.http", "{peer} did not end its TLS handshake");
                }
            }
            drop(permit);
        });
    }
}
