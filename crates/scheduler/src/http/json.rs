//! `/json/…`, `/individual-plots.json`, `/sitemap.json`, `/health` and `/metrics`.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use serde_json::json;

use super::html::page;
use super::metrics;
use super::routes::Site;
use super::source::{HttpSource, SourceError};

type Shared<S> = State<Site<S>>;

pub(super) async fn health() -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], "ok").into_response()
}

pub(super) async fn prometheus<S: HttpSource>(
    State(site): Shared<S>,
) -> Result<Response, SourceError> {
    let metrics = site.source.metrics().await?;
    let text = metrics::render(&metrics, &site.namespace);
    Ok((
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response())
}

pub(super) async fn counts<S: HttpSource>(State(site): Shared<S>) -> Result<Response, SourceError> {
    Ok(Json(site.source.counts().await?).into_response())
}

pub(super) async fn identity<S: HttpSource>(
    State(site): Shared<S>,
) -> Result<Response, SourceError> {
    Ok(Json(site.source.identity().await?).into_response())
}

pub(super) async fn index() -> Response {
    let links: String = ["counts.json", "identity.json"]
        .iter()
        .map(|name| format!("<li><a href=\"{name}\">{name}</a></li>"))
        .collect();
    let body = format!("<p>For programs that watch the scheduler:</p><ul>{links}</ul>");
    Html(page("Index of JSON routes", "", &body)).into_response()
}

/// Single plots are pages of the bokeh dashboard, which this scheduler does not have.
pub(super) async fn individual_plots() -> Response {
    Json(json!({})).into_response()
}

pub(super) async fn sitemap<S: HttpSource>(State(site): Shared<S>) -> Response {
    Json(json!({ "paths": &*site.paths })).into_response()
}
