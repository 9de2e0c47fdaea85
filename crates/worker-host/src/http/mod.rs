//! HTTP of the worker: health and metrics (the routes of stock's worker without bokeh), and, with
//! `--dashboard`, small pages of ours. Python has no part in it.
//!
//! To add a metric: a line in `families.rs`. A page: a function in `pages.rs` and a route here.

mod families;
mod pages;

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use oxidask_http::listen::{BindError, HttpListener};
use oxidask_http::openmetrics::Format;

use oxidask_worker_core::Worker;
use oxidask_worker_core::status::WorkerStatus;

use crate::host::Handle;
use crate::settings::Settings;

/// Opens the ports; nothing if none are wanted.
pub(crate) async fn bind(settings: &Settings) -> Result<Option<HttpListener>, BindError> {
    let http = &settings.http;
    if http.addresses.is_empty() {
        return Ok(None);
    }
    let listener = oxidask_http::listen::bind(&http.addresses, http.tls.clone()).await?;
    for warning in &listener.warnings {
        tracing::warn!("{warning}");
    }
    Ok(Some(listener))
}

/// Serves until dropped.
pub(crate) async fn serve(listener: HttpListener, handle: Handle) {
    oxidask_http::listen::serve(listener, router(handle)).await;
}

const ALWAYS: [&str; 4] = ["/health", "/ready", "/metrics", "/sitemap.json"];
/// A state machine that is silent for so long does not come back.
const DEAD: Duration = Duration::from_secs(10);
const PAGES: [&str; 7] = [
    "/status",
    "/info",
    "/info/main/workers.html",
    "/info/main/tasks.html",
    "/json/counts.json",
    "/json/identity.json",
    "/json/index.html",
];

fn router(handle: Handle) -> Router {
    let pages = handle.settings().http.pages;
    let mut router = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/sitemap.json", get(sitemap));
    if pages {
        let to_status = || async { Redirect::to("info/main/workers.html") };
        router = router
            .route("/", get(|| async { Redirect::to("status") }))
            .route("/status", get(to_status))
            .route("/info", get(to_status))
            .route("/info/main/workers.html", get(pages::summary))
            .route("/info/main/tasks.html", get(pages::tasks))
            .route("/json/counts.json", get(pages::counts))
            .route("/json/identity.json", get(pages::identity))
            .route("/json/index.html", get(pages::index));
    }
    let prefix = handle.settings().http.prefix.trim_matches('/');
    let router = match prefix {
        "" => router,
        prefix => Router::new().nest(&format!("/{prefix}"), router),
    };
    router
        .fallback(|| async { (StatusCode::NOT_FOUND, "404: Not Found") })
        .with_state(handle)
}

/// Why a probe is answered with 503.
type Unwell = (StatusCode, &'static str);

fn unwell(reason: &'static str) -> Unwell {
    (StatusCode::SERVICE_UNAVAILABLE, reason)
}

async fn status(handle: &Handle) -> Result<WorkerStatus, Unwell> {
    match tokio::time::timeout(DEAD, handle.ask(Worker::status)).await {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Err(unwell("the worker has ended")),
        Err(_) => Err(unwell("the worker does not answer")),
    }
}

/// Liveness: the worker takes orders, whatever tasks do with the interpreter.
async fn health(State(handle): State<Handle>) -> Result<&'static str, Unwell> {
    status(&handle).await.map(|_| "ok")
}

/// Readiness: the scheduler can give it something to do.
async fn ready(State(handle): State<Handle>) -> Result<&'static str, Unwell> {
    let status = status(&handle).await?;
    match status {
        WorkerStatus::Paused => Err(unwell("the worker is paused: it is short of memory")),
        WorkerStatus::ClosingGracefully | WorkerStatus::Closing | WorkerStatus::Closed => {
            Err(unwell("the worker is leaving"))
        }
        WorkerStatus::Init | WorkerStatus::Running if !handle.is_connected() => {
            Err(unwell("the worker is not connected to a scheduler"))
        }
        WorkerStatus::Init | WorkerStatus::Running => Ok("ok"),
    }
}

async fn metrics(State(handle): State<Handle>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let content = [(header::CONTENT_TYPE, format.content_type())];
    (content, families::render(&handle, format).await).into_response()
}

async fn sitemap(State(handle): State<Handle>) -> Response {
    let pages: &[&str] = match handle.settings().http.pages {
        true => &PAGES,
        false => &[],
    };
    let paths: Vec<&str> = ALWAYS.iter().chain(pages).copied().collect();
    axum::Json(serde_json::json!({ "paths": paths })).into_response()
}
