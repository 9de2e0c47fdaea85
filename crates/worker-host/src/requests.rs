//! Answering requests. What concerns only state and data is answered here; everything else is an
//! operation that runs user code or needs Python's objects, and goes to the interpreter.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_wire::pickle::Exception;
use oxidask_wire::rpc::{ErrorStatus, Request, error_reply};
use oxidask_wire::{Connection, Message, Value};
use oxidask_worker_core::event::Event;

use crate::books::{Input, Served};
use crate::clock::{now, stimulus};
use crate::error::PeerError;
use crate::host::Handle;
use crate::interpreter::{Interpreter, Object};
use crate::near::{self, Offer};
use crate::settings::Settings;
use crate::store::Held;

/// How long a caller of `get_data` may take to say that it has it, after it was written.
const ACKNOWLEDGE: Duration = Duration::from_secs(300);

/// What every connection of callers needs.
pub(crate) struct Server {
    settings: Arc<Settings>,
    handle: Handle,
    interpreter: Arc<dyn Interpreter>,
}

/// What is to be said to a request.
enum Answer {
    Value(Value),
    Frames(Vec<Bytes>),
    /// It was said already.
    Said,
}

impl Server {
    pub(crate) fn new(
        settings: Arc<Settings>,
        handle: Handle,
        interpreter: Arc<dyn Interpreter>,
    ) -> Self {
        Self {
            settings,
            handle,
            interpreter,
        }
    }

    /// Serves one caller until it leaves, or says something that is no request.
    pub(crate) async fn serve(&self, mut connection: Connection) {
        let peer = connection.peer();
        loop {
            let Ok(message) = connection.read().await else {
                return;
            };
            let request = match Request::decode(&message) {
                Ok(request) => request,
                Err(error) => {
                    tracing::warn!("not a request, from {peer:?}: {error}");
                    return;
                }
            };
            let (reply, close) = (request.reply, request.close || request.op == "close");
            let answer = match self.answer(&mut connection, request, &message).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!("connection of {peer:?} ended: {error}");
                    return;
                }
            };
            let message = match answer {
                Answer::Value(value) => Message::from_value(&value),
                Answer::Frames(frames) => match Message::from_frames(frames.into_iter()) {
                    Ok(message) => message,
                    Err(error) => {
                        tracing::error!("Python answered what is no message: {error}");
                        return;
                    }
                },
                Answer::Said => continue,
            };
            if reply && connection.send(&message).await.is_err() {
                return;
            }
            if close {
                return;
            }
        }
    }

    async fn answer(
        &self,
        connection: &mut Connection,
        request: Request,
        message: &Message,
    ) -> Result<Answer, PeerError> {
        Ok(Answer::Value(match request.op.as_str() {
            "close" => "OK".into(),
            "ping" => Value::Bin(Bytes::from_static(b"pong")),
            "echo" => request.args.get("data").cloned().unwrap_or_default(),
            "identity" => self.identity(),
            "keys" => Value::array(self.handle.store().keys()),
            "get_data" => return self.get_data(connection, &request).await,
            "connection_stream" => return self.stream(connection).await,
            "free_keys" | "delete_data" => self.free_keys(&request),
            "close_gracefully" => {
                let reason = request.args.get("reason").and_then(Value::as_str);
                let reason = reason.unwrap_or("worker-close-gracefully");
                self.handle.close_gracefully(reason, None);
                "OK".into()
            }
            "terminate" => {
                let reason = request.args.get("reason").and_then(Value::as_str);
                self.handle.close(reason.unwrap_or("terminate"));
                "OK".into()
            }
            op => {
                let frames = message.frames().cloned().collect();
                match self.interpreter.request(frames).await {
                    Ok(Some(frames)) => return Ok(Answer::Frames(frames)),
                    Ok(None) => Value::Nil,
                    Err(_) => {
                        let error = format!("the worker ended during {op}");
                        self.error(&Exception::runtime_error(error))
                    }
                }
            }
        }))
    }

    /// Operations of a peer that wants no answers, until it leaves: handlers of plugins and extensions.
    async fn stream(&self, connection: &mut Connection) -> Result<Answer, PeerError> {
        loop {
            let batch = connection.read().await?.value()?;
            let single = std::slice::from_ref(&batch);
            for item in batch.as_seq().unwrap_or(single) {
                if item.get("op").and_then(Value::as_str) == Some("close-stream") {
                    return Ok(Answer::Said);
                }
                let message = Message::from_value(item);
                self.interpreter.stream(message.frames().cloned().collect());
            }
        }
    }

    fn error(&self, exception: &Exception) -> Value {
        let release = Some(&self.settings.release);
        error_reply(exception, ErrorStatus::UncaughtError, release)
    }

    fn identity(&self) -> Value {
        Value::map([
            ("type", Value::from("Worker")),
            ("id", self.handle.id().into()),
            ("scheduler", self.settings.scheduler.as_str().into()),
            ("nthreads", self.settings.nthreads.into()),
            ("memory_limit", self.settings.memory_limit.into()),
        ])
    }

    fn free_keys(&self, request: &Request) -> Value {
        let Some(keys) = request.args.get("keys").and_then(Value::to_keys) else {
            return self.error(&Exception::type_error("free_keys needs a list of keys"));
        };
        let cause = request.args.get("stimulus_id").and_then(Value::as_str);
        self.handle.event(Event::FreeKeys {
            keys,
            stimulus_id: cause.map_or_else(|| stimulus("free-keys"), Into::into),
        });
        "OK".into()
    }

    async fn get_data(
        &self,
        connection: &mut Connection,
        request: &Request,
    ) -> Result<Answer, PeerError> {
        let keys: Option<Vec<Key>> = request.args.get("keys").and_then(Value::to_keys);
        let Some(keys) = keys else {
            let error = Exception::type_error("get_data needs a list of keys");
            return Ok(Answer::Value(self.error(&error)));
        };
        let who = request.args.get("who").and_then(Value::as_str);
        let (sender, answer) = tokio::sync::oneshot::channel();
        self.handle.send(Input::GetData {
            who: who.map(Into::into),
            keys,
            unlimited: request.args.get("max_connections") == Some(&Value::Bool(false)),
            answer: sender,
        });
        let (id, held) = match answer.await {
            Ok(Served::Data(id, held)) => (id, held),
            Ok(Served::Busy) | Err(_) => {
                return Ok(Answer::Value(Value::map([("status", "busy")])));
            }
        };
        // However it ends, also when this connection's task is dropped.
        let _sent = Sent(&self.handle, id);
        let serializers = request.serializers.clone();
        // Before they may be let go of, which can be while they are on their way.
        let sizes = self.handle.sizes(held.iter().map(|(key, _)| key));
        let data = self.in_memory(held).await;
        let Ok(Some(frames)) = self.interpreter.dump(data, serializers).await else {
            let error = Exception::runtime_error("the data can not be serialised");
            return Ok(Answer::Value(self.error(&error)));
        };
        let start = now().0;
        let near = self.settings.near_memory
            && request.args.get(near::WELCOME) == Some(&Value::Bool(true));
        if let Some(offer) = near.then(|| Offer::of(&frames)).flatten() {
            let answer = acknowledged(connection, &Message::from_value(&offer.to_value())).await?;
            drop(offer);
            if answer.value()?.as_str() == Some("OK") {
                self.handle.sent(who, start, sizes);
                return Ok(Answer::Said);
            }
        }
        let message = Message::from_frames(frames.into_iter())?;
        acknowledged(connection, &message).await?;
        self.handle.sent(who, start, sizes);
        Ok(Answer::Said)
    }

    /// What can be brought back into memory. The rest is lost: the scheduler is told.
    async fn in_memory(&self, held: Vec<(Key, Held)>) -> Vec<(Key, Object)> {
        let mut data = Vec::with_capacity(held.len());
        for (key, held) in held {
            match self.handle.memory().load(&key, held).await {
                Ok(object) => data.push((key, object)),
                Err(error) => {
                    tracing::error!(target: "distributed.spill", "{error}");
                    self.handle.event(Event::RemoveReplicas {
                        keys: vec![key],
                        stimulus_id: stimulus("spilled-data-lost"),
                    });
                }
            }
        }
        data
    }
}

/// Sends data, or where it is, and waits for what the caller says to it.
async fn acknowledged(
    connection: &mut Connection,
    message: &Message,
) -> Result<Message, PeerError> {
    connection.send(message).await?;
    let answer = tokio::time::timeout(ACKNOWLEDGE, connection.read()).await;
    Ok(answer.map_err(|_| PeerError::NoStatus)??)
}

/// Tells the state machine at its end that a request has been served.
struct Sent<'a>(&'a Handle, oxidask_worker_core::ids::RequestId);

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.0.event(Event::DataSent { request: self.1 });
    }
}
