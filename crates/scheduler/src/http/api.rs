//! `/api/v1`: for launchers that steer a cluster over HTTP (the Dask operator). Served when
//! `distributed.scheduler.http.routes` names `distributed.http.scheduler.api`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::routes::Site;
use super::source::{Answer, HttpSource};

type Shared<S> = State<Site<S>>;

pub(super) async fn version() -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], "API V1").into_response()
}

/// The answer, or stock's error: status 500 and a fixed object.
fn answer(result: Answer<Value>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => {
            tracing::warn!("request to /api/v1 failed: {error}");
            let body = Json(json!({"Error": "Internal Server Error"}));
            (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
        }
    }
}

pub(super) async fn retire_workers<S: HttpSource>(State(site): Shared<S>, body: Bytes) -> Response {
    let params = serde_json::from_slice::<Value>(&body);
    let params = params.map_err(|error| super::source::SourceError::Failed(error.to_string()));
    match params {
        Ok(params) => answer(site.source.retire_workers(params).await),
        Err(error) => answer(Err(error)),
    }
}

pub(super) async fn get_workers<S: HttpSource>(State(site): Shared<S>) -> Response {
    answer(site.source.workers().await.map(|workers| {
        let rows: Vec<Value> = workers
            .iter()
            .map(|worker| json!({"name": worker.name, "address": worker.address}))
            .collect();
        json!({"num_workers": rows.len(), "workers": rows})
    }))
}

pub(super) async fn adaptive_target<S: HttpSource>(State(site): Shared<S>) -> Response {
    answer(
        site.source
            .adaptive_target()
            .await
            .map(|workers| json!({"workers": workers})),
    )
}

pub(super) async fn check_idle<S: HttpSource>(State(site): Shared<S>) -> Response {
    answer(
        site.source
            .check_idle()
            .await
            .map(|since| json!({"idle_since": since})),
    )
}
