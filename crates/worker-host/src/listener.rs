//! Receiving callers: the scheduler, other workers, clients.

use std::sync::Arc;
use std::time::Duration;

use oxidask_wire::connection::{AcceptPolicy, SocketOptions, configure};
use oxidask_wire::{Connection, Generation};
use tokio::net::TcpListener;
use tokio::time::timeout;

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
    let tls = settings.security.server().filter(|_| settings.encrypted);
    let tls = tls.cloned();
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
        let (server, policy, tls) = (Arc::clone(&server), Arc::clone(&policy), tls.clone());
        tokio::spawn(async move {
            if let Err(error) = configure(&stream, &SocketOptions::default()) {
                tracing::debug!("socket options of {peer}: {error}");
            }
            let accepted = match tls {
                None => Connection::accept(stream, &policy, Some(peer), None).await,
                Some(tls) => {
                    let shaken = timeout(policy.handshake_timeout, tls.accept(stream)).await;
                    let reason = match shaken {
                        Ok(Ok(stream)) => {
                            let accepted = Connection::accept(stream, &policy, Some(peer), None);
                            return server.serve_accepted(accepted.await, peer).await;
                        }
                        Ok(Err(error)) => error.to_string(),
                        Err(_) => "no answer in time".to_owned(),
                    };
                    tracing::warn!(
                        target: "distributed.comm.tcp",
                        "TLS handshake failed with remote 'tls://{peer}': {reason}"
                    );
                    return;
                }
            };
            server.serve_accepted(accepted, peer).await;
        });
    }
}
