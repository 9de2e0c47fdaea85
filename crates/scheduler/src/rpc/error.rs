//! What goes wrong in a handler, as the exception that the caller shall raise.

use oxidask_key::Key;
use oxidask_wire::pickle::Exception;
use oxidask_wire::value::Value;

use crate::core_thread::CoreStopped;

/// Why a handler failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RpcError {
    /// The caller shall raise this.
    #[error("{}", _0.repr())]
    Raise(Exception),
    /// The error map of another peer (a worker), passed on as it came.
    #[error("a peer answered with an error")]
    Forward(Value),
}

macro_rules! constructors {
    ($($name:ident => $exception:ident, $python:literal);+ $(;)?) => {$(
        #[doc = concat!("The caller raises `", $python, "(message)`.")]
        pub fn $name(message: impl Into<String>) -> Self {
            Self::Raise(Exception::$exception(message))
        }
    )+};
}

impl RpcError {
    constructors! {
        plain => plain, "Exception";
        value_error => value_error, "ValueError";
        type_error => type_error, "TypeError";
        permission_error => permission_error, "PermissionError";
        runtime_error => runtime_error, "RuntimeError";
        not_implemented => not_implemented, "NotImplementedError";
        timeout => timeout_error, "TimeoutError";
        os_error => os_error, "OSError";
        comm_closed => comm_closed, "CommClosedError";
        index_error => index_error, "IndexError";
        p2p_consistency => p2p_consistency_error, "P2PConsistencyError";
    }

    /// The caller raises `KeyError(key)`.
    pub fn key_error(key: impl Into<Key>) -> Self {
        Self::Raise(Exception::key_error(&key.into()))
    }

    /// The exception; that of another peer is told as text.
    pub fn exception(&self) -> Exception {
        match self {
            Self::Raise(exception) => exception.clone(),
            Self::Forward(map) => {
                let text = map.get("exception_text").or_else(|| map.get("text"));
                Exception::plain(text.and_then(Value::as_str).unwrap_or("error of a peer"))
            }
        }
    }
}

impl From<CoreStopped> for RpcError {
    fn from(stopped: CoreStopped) -> Self {
        Self::runtime_error(stopped.to_string())
    }
}
