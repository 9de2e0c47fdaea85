//! HTTP on connections that somebody else has accepted: HTTPS, and WebSocket comms, whose port may
//! be shared with the pages.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::service::{Service, service_fn};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use oxidask_wire::connection::websocket_answer;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

/// Time for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a request to upgrade leaves the connection.
type Slot = Arc<Mutex<Option<OnUpgrade>>>;

/// Serves one connection until it ends, or until it has become a WebSocket connection, which only a
/// router made by [`with_websockets`] allows.
pub async fn serve_connection<S>(io: S, router: Router) -> Option<TokioIo<Upgraded>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let slot = Slot::default();
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Arc::clone(&slot));
        router.call(request)
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    let connection = server.serve_connection(TokioIo::new(io), service);
    if let Err(error) = connection.with_upgrades().await {
        tracing::debug!(target: "distributed.http", "connection ended: {error}");
    }
    let upgrade = slot.lock().take()?;
    match upgrade.await {
        Ok(upgraded) => Some(TokioIo::new(upgraded)),
        Err(error) => {
            tracing::debug!(target: "distributed.http", "no upgrade: {error}");
            None
        }
    }
}

/// Pages (none: every other path is not found) with WebSocket connections at `/`.
pub fn with_websockets(pages: Option<Router>) -> Router {
    let pages = pages.unwrap_or_else(|| Router::new().fallback(|| async { not_found() }));
    pages.layer(middleware::from_fn(upgrade))
}

fn not_found() -> Response {
    StatusCode::NOT_FOUND.into_response()
}

async fn upgrade(mut request: Request, next: Next) -> Response {
    let wanted = request.headers().get(header::UPGRADE);
    let is_websocket =
        wanted.is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if request.uri().path() != "/" || !is_websocket {
        return next.run(request).await;
    }
    let slot = request.extensions_mut().remove::<Slot>();
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    match (websocket_answer(&request), slot, upgrade) {
        (Ok(answer), Some(slot), Some(upgrade)) => {
            *slot.lock() = Some(upgrade);
            answer.map(|()| Body::empty())
        }
        (Err(problem), ..) => (StatusCode::BAD_REQUEST, problem).into_response(),
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}
