//! The request/answer phase of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use oxidask_wire::connection::Connection;
use oxidask_wire::error::ReadError;
use oxidask_wire::message::Message;
use oxidask_wire::rpc::Request;
use tokio::sync::OwnedSemaphorePermit;

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

/// Serves an accepted connection, whose descriptor is among those of `permit`: up to its first request here, then where
/// such connections are served.
pub async fn serve(
    context: Arc<Context>,
    mut connection: Connection,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let origin = Origin {
        scheme: connection.scheme(),
        peer,
        granted: context
            .roles
            .as_ref()
            .map(|rules| Arc::new(rules.grant(connection.certificate()))),
    };
    let Some(first) = next(&context, &origin, &mut connection).await else {
        return;
    };
    let place = match takes_over(&first.op) {
        Some(Stream::Worker) => context.places.of_stream(),
        _ => context.places.of_requests(),
    };
    let served = place.serve(connection, move |connection| async move {
        converse(context, &origin, first, connection).await;
        drop(permit);
    });
    served.await;
}

/// The next request; nothing when the connection ends, which is logged unless the caller has ended it.
async fn next(context: &Context, origin: &Origin, connection: &mut Connection) -> Option<Request> {
    let message = loop {
        match connection.read().await {
            Ok(message) => break message,
            Err(ReadError::Closed) => return None,
            Err(error) if error.is_recoverable() => {
                tracing::warn!("undecodable message from {origin}: {error}");
                let answer = rpc::error_reply(
                    &RpcError::plain(error.to_string()),
                    &caller(context, origin),
                    context.settings.max_error_length,
                );
                let answer = Message::from_value(&answer);
                connection.send(&answer).await.ok()?;
            }
            Err(error) => {
                tracing::warn!("closing connection from {origin}: {error}");
                return None;
            }
        }
    };
    let request = match Request::decode(&message) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!("closing connection from {origin}: not a request: {error}");
            return None;
        }
    };
    let traffic = &context.traffic;
    traffic.received(PeerKind::Request, message.wire_bytes());
    traffic
        .tally(PeerKind::Request)
        .add(&request.op, message.body().len());
    Some(request)
}

/// Serves one request after the other until one takes the connection over, or it ends.
async fn converse(
    context: Arc<Context>,
    origin: &Origin,
    mut request: Request,
    mut connection: Connection,
) {
    loop {
        if let Some(stream) = takes_over(&request.op)
            && !context.settings.blocked_handlers.contains(&request.op)
        {
            let call = into_call(request, &context, origin);
            return match origin.check(&call.op) {
                Ok(()) => take_over(stream, context, call, connection).await,
                Err(error) => deny(stream, &context, call, error, connection).await,
            };
        }
        match answer(&context, request, origin, &mut connection).await {
            Next::Request => {}
            Next::End => return,
        }
        match next(&context, origin, &mut connection).await {
            Some(next) => request = next,
            None => return,
        }
    }
}

/// Tells a caller that its certificate does not allow what it wants to be.
async fn deny(
    stream: Stream,
    context: &Context,
    call: Call,
    error: RpcError,
    connection: Connection,
) {
    let (_, mut writer) = connection.split();
    match stream {
        Stream::Client => client::deny(&call, &error, writer).await,
        Stream::Worker => worker::deny(context, &call, error, writer).await,
        Stream::Nanny | Stream::WorkerStatus | Stream::Feed => {
            let limit = context.settings.max_error_length;
            let answer = rpc::error_reply(&error, &call.caller, limit);
            // A caller that is gone does not need to know.
            let _ = writer.send(&Message::from_value(&answer)).await;
        }
    }
}

/// Serves a stream to its end.
async fn take_over(stream: Stream, context: Arc<Context>, call: Call, connection: Connection) {
    let (reader, writer) = connection.split();
    match stream {
        Stream::Client => client::run(context, call, reader, writer).await,
        Stream::Worker => worker::run(context, call, reader, writer).await,
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
