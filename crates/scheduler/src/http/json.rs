//! `/json/…`, `/individual-plots.json`, `/sitemap.json`, `/health`, `/ready` and `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::dashboard::{self, LivePage};
use super::feed::Topics;
use super::html::page;
use super::metrics;
use super::openmetrics::Format;
use super::routes::Site;
use super::source::{Health, HttpSource, SourceError};

type Shared<S> = State<Site<S>>;

const PLAIN: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "text/plain; charset=utf-8")];

/// A core that is silent for so long does not come back: the container is to be restarted. Taking a very
/// large graph in keeps it busy for much less.
const DEAD: Duration = Duration::from_secs(300);
/// A core that is silent for so long gets no new peers.
const BUSY: Duration = Duration::from_secs(10);

/// Liveness: restart the process when this fails.
pub(super) async fn health<S: HttpSource>(State(site): Shared<S>) -> Response {
    alive(site.source.health())
}

fn alive(health: Health) -> Response {
    if health.silence < DEAD {
        return (PLAIN, "ok").into_response();
    }
    let text = format!(
        "the core has not answered for {} s",
        health.silence.as_secs()
    );
    (StatusCode::SERVICE_UNAVAILABLE, PLAIN, text).into_response()
}

/// Readiness: send no new peers while this fails.
pub(super) async fn ready<S: HttpSource>(State(site): Shared<S>) -> Response {
    let health = site.source.health();
    if health.stopping {
        let text = "the scheduler is shutting down";
        return (StatusCode::SERVICE_UNAVAILABLE, PLAIN, text).into_response();
    }
    if health.silence >= BUSY {
        let text = format!("the core is busy for {} s", health.silence.as_secs());
        return (StatusCode::SERVICE_UNAVAILABLE, PLAIN, text).into_response();
    }
    alive(health)
}

pub(super) async fn prometheus<S: HttpSource>(
    State(site): Shared<S>,
    headers: HeaderMap,
) -> Result<Response, SourceError> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let metrics = site.source.metrics().await?;
    let text = metrics::render(&metrics, &site.namespace, format);
    Ok(([(CONTENT_TYPE, format.content_type())], text).into_response())
}

/// What a program wants to know.
#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    topics: Option<String>,
}

/// One snapshot of what the live pages show.
pub(super) async fn feed<S: HttpSource>(
    State(site): Shared<S>,
    Query(wish): Query<Wish>,
) -> Result<Response, SourceError> {
    let topics = Topics::parse(wish.topics.as_deref());
    Ok(Json(site.source.snapshot(topics).await?).into_response())
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
    let links: String = ["counts.json", "identity.json", "feed.json"]
        .iter()
        .map(|name| format!("<li><a href=\"{name}\">{name}</a></li>"))
        .collect();
    let body = format!("<p>For programs that watch the scheduler:</p><ul>{links}</ul>");
    Html(page("Index of JSON routes", "", &body)).into_response()
}

/// Pages with one part each, for those who arrange them themselves (JupyterLab).
pub(super) async fn individual_plots<S: HttpSource>(State(site): Shared<S>) -> Response {
    let pages = dashboard::PAGES.iter().filter(|_| site.dashboard);
    let pages: BTreeMap<String, &str> = pages.filter_map(LivePage::individual).collect();
    Json(pages).into_response()
}

pub(super) async fn sitemap<S: HttpSource>(State(site): Shared<S>) -> Response {
    Json(json!({ "paths": &*site.paths })).into_response()
}
