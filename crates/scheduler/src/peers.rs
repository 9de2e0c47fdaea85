//! Outgoing connections to workers and nannies: one pool, keyed by address; idle connections are
//! reused, their number is bounded. The release that a peer told when it registered decides how it
//! is spoken to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oxidask_wire::connection::{ConnectOptions, Connection, Opening, Security};
use oxidask_wire::error::{ConnectError, ReadError, WriteError};
use oxidask_wire::message::Message;
use oxidask_wire::release::{Generation, Release};
use oxidask_wire::value::Value;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rpc::RpcError;
use crate::workers::WorkerTable;

/// Connections open at the same time, as stock's pool.
const MAX_OPEN: usize = 512;
/// Idle connections kept per address.
const MAX_IDLE_PER_ADDRESS: usize = 4;

/// Why a peer could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No connection. Worded as stock does, which goes on trying until the time is over.
    #[error("Timed out trying to connect to {address} after {} s", timeout.as_secs_f64())]
    Connect {
        /// Who.
        address: Arc<str>,
        /// `comm.timeouts.connect`.
        timeout: Duration,
        /// Why.
        source: ConnectError,
    },
    /// No connection, and never will be: certificates, mostly. Stock says so at once, too.
    #[error("{0}")]
    Refused(ConnectError),
    /// The connection broke while we wrote.
    #[error("{address}: {source}")]
    Write {
        /// Who.
        address: Arc<str>,
        /// Why.
        source: WriteError,
    },
    /// The connection broke before the answer.
    #[error("{address}: {source}")]
    Read {
        /// Who.
        address: Arc<str>,
        /// Why.
        source: ReadError,
    },
    /// No answer in time.
    #[error("{address} did not answer within {timeout:?}")]
    Timeout {
        /// Who.
        address: Arc<str>,
        /// The limit.
        timeout: Duration,
    },
    /// The peer's handler raised; its error map.
    #[error("the peer's handler raised")]
    Remote(Value),
}

impl From<PeerError> for RpcError {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Remote(map) => Self::Forward(map),
            PeerError::Timeout { .. } => Self::timeout(error.to_string()),
            PeerError::Connect { .. } => Self::os_error(error.to_string()),
            PeerError::Write { .. } | PeerError::Read { .. } | PeerError::Refused(_) => {
                Self::comm_closed(error.to_string())
            }
        }
    }
}

/// The pool.
pub struct PeerPool {
    idle: Arc<Mutex<HashMap<Arc<str>, Vec<Idle>>>>,
    open: Arc<Semaphore>,
    workers: Arc<WorkerTable>,
    connect_timeout: Duration,
    security: Security,
}

struct Idle {
    connection: Connection,
    permit: OwnedSemaphorePermit,
}

/// A connection taken from the pool. Dropping it closes it; [`Self::give_back`] keeps it for the
/// next one.
pub struct PeerConnection {
    address: Arc<str>,
    release: Release,
    connection: Connection,
    reused: bool,
    permit: OwnedSemaphorePermit,
    idle: Arc<Mutex<HashMap<Arc<str>, Vec<Idle>>>>,
}

impl PeerPool {
    /// An empty pool. `connect_timeout`: `comm.timeouts.connect`.
    pub fn new(workers: Arc<WorkerTable>, connect_timeout: Duration, security: Security) -> Self {
        Self {
            idle: Arc::default(),
            open: Arc::new(Semaphore::new(MAX_OPEN)),
            workers,
            connect_timeout,
            security,
        }
    }

    /// A connection to `address`, idle or new.
    ///
    /// # Errors
    /// When no connection can be made.
    pub async fn connect(&self, address: &str) -> Result<PeerConnection, PeerError> {
        match self.take_idle(address) {
            Some(connection) => Ok(connection),
            None => self.connect_anew(address).await,
        }
    }

    /// Sends a request (a map with `op`) and waits for the answer, for ever if need be: some ops
    /// run user code. Wrap it in a timeout where a limit is wanted.
    ///
    /// # Errors
    /// When the peer cannot be reached, the connection breaks, or the handler raised
    /// ([`PeerError::Remote`]).
    pub async fn ask(&self, address: &str, request: &Value) -> Result<Value, PeerError> {
        let message = Message::from_value(request);
        if let Some(mut connection) = self.take_idle(address) {
            match connection.exchange(&message).await {
                Ok(answer) => {
                    connection.give_back();
                    return raised(answer);
                }
                // The peer may have closed an idle connection; one fresh try tells.
                Err(PeerError::Write { .. } | PeerError::Read { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut connection = self.connect_anew(address).await?;
        let answer = connection.exchange(&message).await?;
        connection.give_back();
        raised(answer)
    }

    /// [`Self::ask`] with a time limit.
    ///
    /// # Errors
    /// As [`Self::ask`], and [`PeerError::Timeout`].
    pub async fn ask_within(
        &self,
        timeout: Duration,
        address: &str,
        request: &Value,
    ) -> Result<Value, PeerError> {
        match tokio::time::timeout(timeout, self.ask(address, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(PeerError::Timeout {
                address: address.into(),
                timeout,
            }),
        }
    }

    /// Closes idle connections to a peer that is gone.
    pub fn forget(&self, address: &str) {
        self.idle.lock().remove(address);
    }

    /// The release spoken at `address`.
    pub fn release_of(&self, address: &str) -> Release {
        self.workers.release_at(address).unwrap_or(Release::NEWEST)
    }

    fn take_idle(&self, address: &str) -> Option<PeerConnection> {
        let mut idle = self.idle.lock();
        let list = idle.get_mut(address)?;
        let Idle { connection, permit } = list.pop()?;
        if list.is_empty() {
            idle.remove(address);
        }
        drop(idle);
        Some(PeerConnection {
            address: address.into(),
            release: self.release_of(address),
            connection,
            reused: true,
            permit,
            idle: Arc::clone(&self.idle),
        })
    }

    async fn connect_anew(&self, address: &str) -> Result<PeerConnection, PeerError> {
        let permit = self.permit().await;
        let release = self.release_of(address);
        let options = ConnectOptions {
            generation: Generation::of(&release),
            timeout: self.connect_timeout,
            security: self.security.clone(),
            ..ConnectOptions::default()
        };
        let connection = Connection::connect(address, &options).await;
        let connection = connection.map_err(|source| {
            tracing::debug!("{source}");
            if source.is_final() {
                tracing::warn!(target: "distributed.comm.tcp", "{source}");
                return PeerError::Refused(source);
            }
            PeerError::Connect {
                address: address.into(),
                timeout: self.connect_timeout,
                source,
            }
        })?;
        Ok(PeerConnection {
            address: address.into(),
            release,
            connection,
            reused: false,
            permit,
            idle: Arc::clone(&self.idle),
        })
    }

    /// Room for one more connection; idle ones make room when there is none.
    async fn permit(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = Arc::clone(&self.open).try_acquire_owned() {
                return permit;
            }
            let freed = self.idle.lock().drain().count();
            if freed == 0 {
                // The semaphore is never closed, so this ends the loop.
                if let Ok(permit) = Arc::clone(&self.open).acquire_owned().await {
                    return permit;
                }
            }
        }
    }
}

impl PeerConnection {
    /// Release of the peer.
    pub fn release(&self) -> Release {
        self.release
    }

    /// Whether it was used before, so that it may turn out to be closed.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a message and waits for the next one.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn ask(&mut self, request: &Value) -> Result<Value, PeerError> {
        self.exchange(&Message::from_value(request)).await
    }

    /// Sends a message and reads the beginning of the answer. The rest of it must be taken with
    /// [`Self::piece`] before the connection is used for anything else. Only for peers of releases
    /// from 2021.03.1 on.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn open(&mut self, request: &Value) -> Result<Opening, PeerError> {
        self.write(&Message::from_value(request)).await?;
        let opening = self.connection.reader.begin().await;
        opening.map_err(|source| self.read_error(source))
    }

    /// Some more of the answer; nothing when it is at its end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, PeerError> {
        let piece = self.connection.reader.piece().await;
        piece.map_err(|source| self.read_error(source))
    }

    /// What the answer in hand means if it cannot be read.
    pub fn read_error(&self, source: impl Into<ReadError>) -> PeerError {
        PeerError::Read {
            address: Arc::clone(&self.address),
            source: source.into(),
        }
    }

    /// Sends a message without waiting.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn send(&mut self, value: &Value) -> Result<(), PeerError> {
        self.write(&Message::from_value(value)).await
    }

    /// Keeps the connection for the next user. Only when it is in step: an answer was read for
    /// every request.
    pub fn give_back(self) {
        let mut idle = self.idle.lock();
        let list = idle.entry(self.address).or_default();
        if list.len() < MAX_IDLE_PER_ADDRESS {
            list.push(Idle {
                connection: self.connection,
                permit: self.permit,
            });
        }
    }

    async fn exchange(&mut self, message: &Message) -> Result<Value, PeerError> {
        self.write(message).await?;
        let answer = self.connection.read().await;
        let answer = answer.map_err(|source| self.read_error(source))?;
        answer.value().map_err(|source| self.read_error(source))
    }

    async fn write(&mut self, message: &Message) -> Result<(), PeerError> {
        self.connection
            .send(message)
            .await
            .map_err(|source| PeerError::Write {
                address: Arc::clone(&self.address),
                source,
            })
    }
}

/// Turns the error map of a handler that raised into an error.
fn raised(answer: Value) -> Result<Value, PeerError> {
    if answer.get("status").and_then(Value::as_str) == Some("uncaught-error") {
        return Err(PeerError::Remote(answer));
    }
    Ok(answer)
}
