//! What can go wrong when the scheduler asks Python.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oxidask_wire::message::ErrorObject;
use oxidask_wire::pickle::Exception;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use super::frames::FrameError;

/// One request to the Python host failed; nothing else did.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// `python-host` is `off`.
    #[error(
        "the scheduler would need Python for this, which is turned off (--python-host off). Set it to auto, local or delegated"
    )]
    Off,
    /// Nobody can do it.
    #[error(
        "the scheduler needs a Python with distributed {release} for this, and has none: {local}; {delegated}. Give it one with --python PATH, or connect a worker of that release"
    )]
    NoBackend {
        /// Release of the client.
        release: Release,
        /// Why no local one.
        local: String,
        /// Why no delegate.
        delegated: String,
    },
    /// Something that only a Python of our own can do.
    #[error(
        "the scheduler needs a Python of its own with distributed for this, and has none: {reason}. Give it one with --python PATH"
    )]
    NoHome {
        /// Why not.
        reason: String,
    },
    /// The local Python did not come up.
    #[error("the scheduler could not start its Python host with {python}: {reason}")]
    Start {
        /// The interpreter.
        python: String,
        /// What it said or what happened.
        reason: String,
    },
    /// It died, or the delegate's connection broke.
    #[error("the Python host ({host}) died while it worked on this: {reason}")]
    Crashed {
        /// Process or peer.
        host: String,
        /// How, with the last lines of its stderr if it was ours.
        reason: String,
    },
    /// It took too long and was ended.
    #[error("the Python host ({host}) gave no answer within {} s; oxidask.python-host.{setting} sets the limit", timeout.as_secs_f64())]
    TimedOut {
        /// Process or peer.
        host: String,
        /// The limit.
        timeout: Duration,
        /// Name of the setting.
        setting: &'static str,
    },
    /// Its answer makes no sense.
    #[error("the Python host ({host}) gave an answer that makes no sense: {reason}")]
    Garbage {
        /// Process or peer.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A function of our own raised; the error map that it answered with.
    #[error("the Python host answered with an error")]
    Answered(Value),
    /// The Python code raised.
    #[error("{}", .0.text)]
    Raised(Box<Raised>),
    /// The scheduler is going down.
    #[error("the scheduler is shutting down")]
    ShuttingDown,
}

/// An exception of the code that ran.
#[derive(Clone, Debug)]
pub struct Raised {
    /// `Type: text`.
    pub text: String,
    /// As Python prints it.
    pub traceback: String,
    /// Stock's error message (`status`, `exception`, `traceback`, `exception_text`,
    /// `traceback_text`) as the frames that a stock server of `release` writes. Empty when the
    /// Python at hand could not even make that.
    pub message: Vec<Bytes>,
    /// Release of `distributed` that wrote the message.
    pub release: Release,
}

impl HostError {
    /// Stock's error message, if the Python code raised: a map with `status`, `exception`,
    /// `traceback`, `exception_text`, `traceback_text`.
    pub fn message(&self) -> Option<Value> {
        let raised = match self {
            Self::Raised(raised) => raised,
            Self::Answered(map) => return Some(map.clone()),
            _ => return None,
        };
        super::session::decode(raised.message.clone(), "").ok()
    }

    /// The exception (and traceback) that a task which depends on this shall fail with.
    pub fn objects(&self) -> (ErrorObject, Option<ErrorObject>) {
        let message = self.message().unwrap_or_default();
        let object = |name| match message.get(name)? {
            Value::Payload(payload) => Some(ErrorObject::Payload(Arc::clone(payload))),
            Value::Bin(pickle) => Some(ErrorObject::Pickle(pickle.clone())),
            Value::Str(text) => Some(ErrorObject::Text(text.clone())),
            _ => None,
        };
        let exception = object("exception").unwrap_or_else(|| {
            ErrorObject::Pickle(Exception::runtime_error(self.to_string()).pickle())
        });
        (exception, object("traceback"))
    }

    /// Garbage of `host`.
    pub(super) fn garbage(host: &str, reason: impl ToString) -> Self {
        Self::Garbage {
            host: host.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// What a broken pipe to `host` means.
    pub(super) fn pipe(host: &str, error: FrameError, last_words: &str) -> Self {
        match error {
            FrameError::Closed | FrameError::Io(_) => Self::Crashed {
                host: host.to_owned(),
                reason: if last_words.is_empty() {
                    error.to_string()
                } else {
                    format!("{error}. Its last words:\n{last_words}")
                },
            },
            _ => Self::garbage(host, error),
        }
    }
}
