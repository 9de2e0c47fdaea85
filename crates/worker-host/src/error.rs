//! Why the worker can not start, or has to end.

use oxidask_wire::error::{ConnectError, DecodeError, ReadError, WriteError};

/// Why the worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not one of this machine.
    #[error("can not listen on {address}: {source}")]
    Listen {
        /// Host and port.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// No port for HTTP.
    #[error(transparent)]
    Http(#[from] oxidask_http::listen::BindError),
    /// TLS is wanted, and there is no certificate.
    #[error(
        "TLS expects a `ssl_context` argument; give the files of authority, certificate and key \
         (--tls-ca-file, --tls-cert, --tls-key, or distributed.comm.tls in the configuration)"
    )]
    NoCertificate,
    /// Encryption is required, and the protocol has none.
    #[error(
        "encryption required by Dask configuration, refusing communication over tcp://; use --protocol tls"
    )]
    NotEncrypted,
}

/// Why there is no connection to the scheduler, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// It can not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It said nothing, or nothing that can be read.
    #[error("the scheduler's messages can not be read: {0}")]
    Read(#[from] ReadError),
    /// Nothing can be sent.
    #[error("nothing can be sent to the scheduler: {0}")]
    Write(#[from] WriteError),
    /// A message of it is none.
    #[error("a message of the scheduler can not be understood: {0}")]
    Decode(#[from] DecodeError),
    /// It does not want this worker.
    #[error("the scheduler refused this worker: {0}")]
    Refused(String),
    /// It could not be reached in time (`--death-timeout`).
    #[error("no scheduler at {address} within {seconds} s; last error: {last}")]
    Death {
        /// Where it should be.
        address: String,
        /// How long it was tried.
        seconds: f64,
        /// What went wrong at last.
        last: String,
    },
}

/// Why data did not come from a peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the answer has no status")]
    NoStatus,
}
