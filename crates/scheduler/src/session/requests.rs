//! The request/answer phase of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use oxidask_wire::connection::Connection;
use oxidask_wire::error::ReadError;
use oxidask_wire::message::Message;
use oxidask_wire::rpc::Request;

use super::{Origin, caller, client, feed, nanny, status, worker};
use crate::context::Context;
use crate::handlers::gather;
use crate::outbox::Checkpoint;
use crate::rpc::{self, Call, RpcError};
use crate::traffic::PeerKind;

/// What a request turned the connection into.
enum Next {
    /// More requests.
    Request,
    /// The end.
    End,
}

/// Serves an accepted connection until it ends.
pub async fn serve(context: Arc<Context>, mut connection: Connection, peer: SocketAddr) {
    let origin = Origin {
        scheme: connection.scheme(),
        peer,
        granted: context
            .roles
            .as_ref()
            .map(|rules| Arc::new(rules.grant(connection.certificate()))),
    };
    loop {
        let message = match connection.read().await {
            Ok(message) => message,
            Err(ReadError::Closed) => return,
            Err(error) if error.is_recoverable() => {
                tracing::warn!("undecodable message from {origin}: {error}");
                let answer = rpc::error_reply(
                    &RpcError::plain(error.to_string()),
                    &caller(&context, &origin),
                    context.settings.max_error_length,
                );
                if connection
                    .send(&Message::from_value(&answer))
                    .await
                    .is_err()
                {
                    return;
                }
                continue;
            }
            Err(error) => {
                tracing::warn!("closing connection from {origin}: {error}");
                return;
            }
        };
        let request = match Request::decode(&message) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!("closing connection from {origin}: not a request: {error}");
                return;
            }
        };
        let traffic = &context.traffic;
        traffic.received(PeerKind::Request, message.wire_bytes());
        traffic
            .tally(PeerKind::Request)
            .add(&request.op, message.body().len());
        drop(message);
        if let Some(stream) = takes_over(&request.op)
            && !context.settings.blocked_handlers.contains(&request.op)
        {
            let call = into_call(request, &context, &origin);
            if let Err(error) = origin.check(&call.op) {
                let (_, mut writer) = connection.split();
                match stream {
                    Stream::Client => client::deny(&call, &error, writer).await,
                    Stream::Worker => worker::deny(&context, &call, error, writer).await,
                    Stream::Nanny | Stream::WorkerStatus | Stream::Feed => {
                        let limit = context.settings.max_error_length;
                        let answer = rpc::error_reply(&error, &call.caller, limit);
                        // A caller that is gone does not need to know.
                        let _ = writer.send(&Message::from_value(&answer)).await;
                    }
                }
                return;
            }
            take_over(stream, context, call, connection).await;
            return;
        }
        match answer(&context, request, &origin, &mut connection).await {
            Next::Request => {}
            Next::End => return,
        }
    }
}

/// Serves a stream to its end.
async fn take_over(stream: Stream, context: Arc<Context>, call: Call, connection: Connection) {
    if matches!(stream, Stream::Worker) {
        let (streams, workers) = (context.streams.clone(), context.workers.len());
        let serve = |connection: Connection| {
            let (reader, writer) = connection.split();
            worker::run(context, call, reader, writer)
        };
        return streams.serve(workers, connection, serve).await;
    }
    let (reader, writer) = connection.split();
    match stream {
        Stream::Worker => {}
        Stream::Client => client::run(context, call, reader, writer).await,
        Stream::Nanny => nanny::run(context, call, reader, writer).await,
        Stream::WorkerStatus => status::run(context, reader, writer).await,
        Stream::Feed => feed::run(context, call, reader, writer).await,
    }
}

/// Ops that turn the connection into a stream.
enum Stream {
    Client,
    Worker,
    Nanny,
    WorkerStatus,
    Feed,
}

fn takes_over(op: &str) -> Option<Stream> {
    Some(match op {
        "register-client" => Stream::Client,
        "register-worker" => Stream::Worker,
        "register_nanny" => Stream::Nanny,
        "subscribe_worker_status" => Stream::WorkerStatus,
        "feed" => Stream::Feed,
        _ => return None,
    })
}

fn into_call(request: Request, context: &Context, origin: &Origin) -> Call {
    Call {
        op: request.op.into(),
        args: request.args,
        serializers: request.serializers,
        caller: caller(context, origin),
    }
}

async fn answer(
    context: &Arc<Context>,
    request: Request,
    origin: &Origin,
    connection: &mut Connection,
) -> Next {
    let Connection { reader, writer, .. } = connection;
    let (reply, close) = (request.reply, request.close || request.op == "close");
    let forwards = request.op == "gather" && reply && !writer.generation().is_path_based();
    let call = into_call(request, context, origin);
    // Until the end of this function, which is after the answer was written.
    let _stream = hold_stream(context, &call);
    let answer = match origin.check(&call.op) {
        Ok(()) if forwards && !context.settings.blocked_handlers.contains(&*call.op) => {
            return match gather::forward(Arc::clone(context), call, writer).await {
                Ok(bytes) => {
                    context.traffic.sent(PeerKind::Request, bytes);
                    if close { Next::End } else { Next::Request }
                }
                Err(error) => {
                    tracing::warn!(target: "distributed.scheduler", "gather for {origin} failed: {error}");
                    Next::End
                }
            };
        }
        Ok(()) => rpc::answer(context, call, reader).await,
        Err(error) => {
            let limit = context.settings.max_error_length;
            Some(rpc::error_reply(&error, &call.caller, limit))
        }
    };
    let Some(answer) = answer else {
        return Next::End;
    };
    if reply {
        let message = Message::from_value(&answer);
        context
            .traffic
            .sent(PeerKind::Request, message.wire_bytes());
        if let Err(error) = writer.send(&message).await {
            tracing::debug!("could not answer {origin}: {error}");
            return Next::End;
        }
    }
    if close { Next::End } else { Next::Request }
}

/// Keeps what the call causes off the stream of the client that asks, if the client needs the answer
/// first: it sets futures back when it has the answer to `retry`, and would forget results that its
/// stream has brought by then.
fn hold_stream(context: &Context, call: &Call) -> Option<Checkpoint> {
    if &*call.op != "retry" {
        return None;
    }
    let client = context.clients.named(call.get("client")?.as_str()?)?;
    let connection = client.connection.as_ref()?;
    Some(connection.outbox.checkpoint())
}
