//! Receiving callers: the scheduler, other workers, clients.

use std::sync::Arc;
use std::time::Duration;

use oxidask_wire::connection::{AcceptPolicy, SocketOptions, configure};
use oxidask_wire::{Connection, Generation};
use tokio::net::TcpListener;

use crate::host::Handle;
use crate::interpreter::Interpreter;
use crate::requests::Server;
use crate::settings::Settings;

/// Serves callers until the worker leaves.
pub(crate) async fn listen(
    listener: TcpListener,
    settings: Arc<Settings>,
    handle: Handle,
    interpreter: Arc<dyn Interpreter>,
) {
    let policy = Arc::new(AcceptPolicy {
        // All peers have our release.
        silent: Generation::of(&settings.release),
        ..AcceptPolicy::default()
    });
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
        let (server, policy) = (Arc::clone(&server), Arc::clone(&policy));
        tokio::spawn(async move {
            if let Err(error) = configure(&stream, &SocketOptions::default()) {
                tracing::debug!("socket options of {peer}: {error}");
            }
            match Connection::accept(stream, &policy, Some(peer), None).await {
                Ok(connection) => server.serve(connection).await,
                Err(error) => tracing::debug!("{peer} was not let in: {error}"),
            }
        });
    }
}
