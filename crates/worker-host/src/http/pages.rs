//! Pages of ours: what the worker is, and what it is doing.

use axum::Json;
use axum::extract::State;
use axum::response::Html;
use oxidask_http::html::{bytes, escape, page, seconds, table};
use oxidask_worker_core::Worker;
use oxidask_worker_core::status::WorkerStatus;
use serde_json::{Map, Value, json};

use crate::clock::now;
use crate::host::Handle;
use crate::metrics::resident_bytes;

/// Most tasks on a page.
const MOST_TASKS: usize = 1000;
const LINKS: &str = "<p><a href=\"workers.html\">worker</a> <a href=\"tasks.html\">tasks</a> \
     <a href=\"../../json/counts.json\">counts</a> <a href=\"../../metrics\">metrics</a></p>\n";

pub(super) async fn summary(State(handle): State<Handle>) -> Html<String> {
    let asked = handle.ask(|core| (core.status(), core.executing_count(), core.ready_count()));
    let (status, executing, ready) = asked.await.unwrap_or((WorkerStatus::Closed, 0, 0));
    let (sizes, settings) = (handle.store().sizes(), handle.settings());
    let limit = settings.memory_limit.map_or("none".to_owned(), bytes);
    let rows = [
        ("Address", handle.address().to_string()),
        ("Scheduler", settings.scheduler.clone()),
        ("Status", status.as_str().to_owned()),
        ("Threads", settings.nthreads.to_string()),
        ("Memory limit", limit),
        ("Process memory", bytes(resident_bytes().unwrap_or(0))),
        ("Data in memory", bytes(sizes.memory)),
        (
            "Data on disk",
            format!(
                "{} keys, {} in files",
                sizes.spilled_count,
                bytes(sizes.spilled_disk)
            ),
        ),
        ("Executing", executing.to_string()),
        ("Ready", ready.to_string()),
        ("Keys", handle.store().len().to_string()),
        ("Local directory", settings.local_directory.clone()),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), escape(&value)]);
    let body = format!("{LINKS}{}", table(&["", ""], rows));
    Html(page(&format!("Worker {}", handle.address()), "", &body))
}

pub(super) async fn tasks(State(handle): State<Handle>) -> Html<String> {
    let asked = handle.ask(|core| {
        let running = core.attempts().map(|a| (a.key.to_text(), a.started));
        let tasks = core.tasks().take(MOST_TASKS);
        let tasks = tasks.map(|t| (t.key().to_text(), t.state().as_str(), t.nbytes()));
        let (running, tasks) = (running.collect::<Vec<_>>(), tasks.collect::<Vec<_>>());
        (running, tasks, core.tasks_len())
    });
    let (running, tasks, count) = asked.await.unwrap_or_default();
    let running = running
        .into_iter()
        .map(|(key, started)| vec![escape(&key), seconds(now().since(started))]);
    let shown = tasks.len();
    let tasks = tasks
        .into_iter()
        .map(|(key, state, nbytes)| vec![escape(&key), state.to_owned(), bytes(nbytes)]);
    let body = format!(
        "{LINKS}<h2>Running</h2>\n{}<h2>Tasks ({shown} of {count})</h2>\n{}",
        table(&["Key", "Runs for"], running),
        table(&["Key", "State", "Size"], tasks),
    );
    Html(page(&format!("Tasks of {}", handle.address()), "", &body))
}

pub(super) async fn counts(State(handle): State<Handle>) -> Json<Value> {
    let asked = handle.ask(|core| {
        let counts = core.task_counts();
        let counts: Map<String, Value> = counts
            .map(|(state, count)| (state.as_str().to_owned(), count.into()))
            .collect();
        (counts, Worker::nbytes(core), core.executing_count())
    });
    let (counts, nbytes, executing) = asked.await.unwrap_or_default();
    let sizes = handle.store().sizes();
    Json(json!({
        "tasks": counts,
        "bytes": nbytes,
        "spilled_bytes": sizes.spilled_disk,
        "executing": executing,
        "cores": handle.settings().nthreads,
    }))
}

pub(super) async fn identity(State(handle): State<Handle>) -> Json<Value> {
    let settings = handle.settings();
    Json(json!({
        "type": "Worker",
        "id": handle.id(),
        "address": &**handle.address(),
        "scheduler": settings.scheduler,
        "nthreads": settings.nthreads,
        "memory_limit": settings.memory_limit,
    }))
}

pub(super) async fn index() -> Html<String> {
    let link = |name: &str| vec![format!("<a href=\"{name}\">{name}</a>")];
    let rows = ["counts.json", "identity.json"].map(link);
    Html(page("JSON", "", &table(&["Page"], rows)))
}
