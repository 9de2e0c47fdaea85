//! Accepting connections: bounded handshakes, and no spinning when the process runs out of file
//! descriptors.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use oxidask_wire::Connection;
use oxidask_wire::connection::{AcceptPolicy, SocketOptions, configure};
use oxidask_wire::error::AcceptError;
use oxidask_wire::release::Generation;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use crate::context::Context;
use crate::session;

/// Handshakes at the same time; further callers wait in the backlog.
const MAX_HANDSHAKES: usize = 1024;
/// Pause after an error of `accept` (mostly: no file descriptor left).
const BACKOFF: Duration = Duration::from_millis(100);
/// Part of the file descriptors that connections may use, as stock.
const FD_SHARE: u64 = 2;

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

/// Accepts connections until the task is dropped. `silent`: how silent peers are greeted, if that
/// is certain.
pub async fn accept(
    context: Arc<Context>,
    listener: TcpListener,
    policy: AcceptPolicy,
    socket: SocketOptions,
    silent: Option<Generation>,
) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let connections = Arc::new(Semaphore::new(connection_limit()));
    let policy = Arc::new(policy);
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
        let (context, policy) = (Arc::clone(&context), Arc::clone(&policy));
        let served = async move {
            let settled = settle(stream, peer, &policy, socket, silent).await;
            drop(handshake);
            if let Some(settled) = settled {
                session::serve(context, settled, peer).await;
            }
            drop(connection);
        };
        tokio::spawn(served);
    }
}

async fn settle(
    stream: TcpStream,
    peer: SocketAddr,
    policy: &AcceptPolicy,
    socket: SocketOptions,
    silent: Option<Generation>,
) -> Option<Connection> {
    if let Err(error) = configure(&stream, &socket) {
        tracing::debug!("socket options of {peer}: {error}");
    }
    match Connection::accept(stream, policy, Some(peer), silent).await {
        Ok(connection) => Some(connection),
        Err(AcceptError::ClosedEarly) => None,
        Err(error) => {
            tracing::info!("closing connection from {peer}: {error}");
            None
        }
    }
}

/// Connections that fit into the limit of open files.
fn connection_limit() -> usize {
    let limit = std::fs::read_to_string("/proc/self/limits").ok();
    let files = limit.as_deref().and_then(|text| {
        let line = text
            .lines()
            .find(|line| line.starts_with("Max open files"))?;
        line.split_whitespace().nth(3)?.parse::<u64>().ok()
    });
    let share = files.unwrap_or(1 << 20) / FD_SHARE;
    usize::try_from(share)
        .unwrap_or(usize::MAX)
        .clamp(64, Semaphore::MAX_PERMITS)
}
