//! Requests and replies: one connection carries request, reply, request, reply …

use crate::error::DecodeError;
use crate::message::Message;
use crate::payload::Payload;
use crate::pickle::Exception;
use crate::release::Release;
use crate::value::Value;

/// A request. What is not one of the four named fields is an argument of the operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is asked for.
    pub op: String,
    /// Whether an answer is expected (default yes).
    pub reply: bool,
    /// Whether the connection ends after the answer (default no).
    pub close: bool,
    /// Serialisers the caller can read, if it says so.
    pub serializers: Option<Value>,
    /// The arguments: a map, payloads bound.
    pub args: Value,
}

impl Request {
    /// Reads a request. A message that is no map or has no `op` makes stock close the connection.
    pub fn decode(message: &Message) -> Result<Self, DecodeError> {
        let mut args = message.value()?;
        if args.as_map().is_none() {
            return Err(DecodeError::Type {
                expected: "map",
                found: args.type_name(),
            });
        }
        let op = match args.remove("op") {
            Some(Value::Str(op)) => op,
            Some(other) => {
                return Err(DecodeError::Type {
                    expected: "op as str",
                    found: other.type_name(),
                });
            }
            None => return Err(DecodeError::Missing("op")),
        };
        let mut flag = |name, default| {
            args.remove(name)
                .and_then(|v| v.as_bool())
                .unwrap_or(default)
        };
        let reply = flag("reply", true);
        let close = flag("close", false);
        Ok(Self {
            op,
            reply,
            close,
            serializers: args.remove("serializers"),
            args,
        })
    }

    /// A request of ours: `args` must be a map.
    pub fn new(op: &str, args: Value) -> Self {
        Self {
            op: op.into(),
            reply: true,
            close: false,
            serializers: None,
            args,
        }
    }

    /// The message that carries it. `close` is written only when it is set, `reply` always.
    pub fn to_message(&self) -> Message {
        let mut entries = vec![("op".into(), Value::from(self.op.as_str()))];
        if let Value::Map(args) = &self.args {
            entries.extend(args.iter().cloned());
        }
        entries.push(("reply".into(), self.reply.into()));
        if self.close {
            entries.push(("close".into(), true.into()));
        }
        if let Some(serializers) = &self.serializers {
            entries.push(("serializers".into(), serializers.clone()));
        }
        Message::from_value(&Value::Map(entries))
    }
}

/// First release whose error replies carry pickled bytes and texts.
const TEXTS: Release = Release::new(2021, 8, 0);

/// How a failed request is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorStatus {
    /// The caller raises the exception.
    UncaughtError,
    /// The call site decides.
    Error,
}

impl ErrorStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::UncaughtError => "uncaught-error",
            Self::Error => "error",
        }
    }
}

/// The reply to a request that failed. Callers whose release is unknown (pools) get the fields of
/// all releases, which every one accepts.
pub fn error_reply(exception: &Exception, status: ErrorStatus, release: Option<&Release>) -> Value {
    let pickle = exception.pickle();
    let mut reply = Value::map([("status", Value::from(status.as_str()))]);
    // Raw bytes where peers expect bytes; up to 2021.07 the object itself was serialised. Both
    // accept a plain pickle.
    let lifted = release.is_some_and(|release| *release >= TEXTS);
    reply.insert(
        "exception",
        if lifted {
            Value::from(Payload::bytes(pickle))
        } else {
            Value::Bin(pickle)
        },
    );
    reply.insert("traceback", Value::Nil);
    if release.is_none_or(|release| *release < TEXTS) {
        reply.insert("text", exception.message());
    }
    if release.is_none_or(|release| *release >= TEXTS) {
        reply.insert("exception_text", exception.repr());
        reply.insert("traceback_text", "");
    }
    reply
}
