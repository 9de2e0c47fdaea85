//! The HTML pages: status and `/info`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use chrono::{DateTime, Local};
use serde_json::Value;

use super::html::{bytes, escape, link, page, seconds, table};
use super::routes::Site;
use super::source::{
    HttpSource, LogRow, SourceError, TaskPage, TaskRow, TransitionRow, WorkerPage, WorkerRow,
};

type Shared<S> = State<Site<S>>;

impl IntoResponse for SourceError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotSupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (
            status,
            page(
                "Error",
                "",
                &format!("<p>{}</p>", escape(&self.to_string())),
            ),
        )
            .into_response()
    }
}

/// The page, or 404 when what it is about does not exist.
fn found(page: Option<String>) -> Response {
    match page {
        Some(page) => Html(page).into_response(),
        None => not_found(),
    }
}

pub(super) fn not_found() -> Response {
    (
        StatusCode::NOT_FOUND,
        Html(page("404: Not Found", "", "<p>There is no such page.</p>")),
    )
        .into_response()
}

/// The part before `.html` of a page's path.
fn stem(path: &str) -> Option<&str> {
    path.strip_suffix(".html")
}

fn worker_table(workers: &[WorkerRow]) -> String {
    let headers = [
        "Worker",
        "Name",
        "Cores",
        "Memory",
        "Memory use",
        "Occupancy",
        "Processing",
        "In-memory",
        "Services",
        "Logs",
        "Last seen",
    ];
    let rows = workers.iter().map(|worker| {
        let limit = if worker.memory_limit == 0 {
            String::new()
        } else {
            bytes(worker.memory_limit)
        };
        let dashboard = worker.dashboard_port.map_or_else(String::new, |port| {
            format!(
                "<a href=\"../../proxy/{port}/{}/status\">dashboard</a>",
                escape(&worker.host)
            )
        });
        vec![
            link("../worker/", &worker.address),
            escape(&worker.name),
            worker.nthreads.to_string(),
            limit,
            bytes(worker.memory),
            seconds(worker.occupancy),
            worker.processing.to_string(),
            worker.in_memory.to_string(),
            dashboard,
            link("../logs/", &worker.address),
            seconds(worker.last_seen),
        ]
    });
    table(&headers, rows)
}

pub(super) async fn workers<S: HttpSource>(
    State(site): Shared<S>,
) -> Result<Response, SourceError> {
    let workers = site.source.workers().await?;
    let body = format!(
        "<p>Scheduler {}</p><p><a href=\"logs.html\">Logs</a> · <a href=\"exceptions.html\">Exceptions</a> · \
         <a href=\"../../status\">Status</a></p>{}",
        escape(&site.source.address()),
        worker_table(&workers)
    );
    Ok(Html(page("Workers", "", &body)).into_response())
}

pub(super) async fn worker<S: HttpSource>(
    State(site): Shared<S>,
    Path(path): Path<String>,
) -> Result<Response, SourceError> {
    let Some(address) = stem(&path) else {
        return Ok(not_found());
    };
    let worker = site.source.worker(address.to_owned()).await?;
    Ok(found(worker.map(|worker| worker_page(&worker))))
}

fn worker_page(worker: &WorkerPage) -> String {
    let address = &worker.row.address;
    let results = worker
        .has_what
        .iter()
        .map(|(key, size)| vec![link("../task/", key), bytes(*size)]);
    let tasks = worker
        .processing
        .iter()
        .map(|(key, priority)| vec![link("../task/", key), escape(priority)]);
    let mut body = worker_table(std::slice::from_ref(&worker.row));
    body.push_str("<h2>In Memory</h2>");
    body.push_str(&table(&["Task", "Bytes"], results));
    body.push_str("<h2>Processing</h2>");
    let stacks = link("../call-stacks/", address).replacen(
        &format!(">{}<", escape(address)),
        ">Call Stacks<",
        1,
    );
    body.push_str(&stacks);
    body.push_str(&table(&["Task", "Priority"], tasks));
    if !worker.resources.is_empty() {
        body.push_str("<h2>Resources</h2>");
        let rows = worker.resources.iter();
        let rows =
            rows.map(|(name, used, total)| vec![escape(name), used.to_string(), total.to_string()]);
        body.push_str(&table(&["Resource", "Consumed", "Total"], rows));
    }
    page(&format!("Worker: {address}"), "", &body)
}

pub(super) async fn task<S: HttpSource>(
    State(site): Shared<S>,
    Path(path): Path<String>,
) -> Result<Response, SourceError> {
    let Some(key) = stem(&path) else {
        return Ok(not_found());
    };
    let task = site.source.task(key.to_owned()).await?;
    Ok(found(task.map(|task| task_page(&task))))
}

fn task_rows(tasks: &[TaskRow]) -> String {
    table(
        &["Key", "State"],
        tasks
            .iter()
            .map(|task| vec![link("", &task.key), task.state.to_owned()]),
    )
}

fn task_page(task: &TaskPage) -> String {
    let mut facts = vec![("Status", task.state.to_owned())];
    if let Some(worker) = &task.processing_on {
        facts.push(("Processing on", link("../worker/", worker)));
        facts.push(("Call stack", link("../call-stack/", &task.key)));
    }
    facts.extend(task.type_name.iter().map(|name| ("Type", escape(name))));
    facts.extend(task.nbytes.map(|size| ("Bytes", bytes(size))));
    facts.extend(
        task.waiting_on
            .iter()
            .map(|task| ("Waiting on", link("", &task.key))),
    );
    facts.extend(
        task.priority
            .iter()
            .map(|priority| ("Priority", escape(priority))),
    );
    facts.extend(
        task.facts
            .iter()
            .map(|(name, value)| (*name, escape(value))),
    );
    let facts = facts
        .into_iter()
        .map(|(name, value)| vec![format!("<b>{}</b>", escape(name)), value]);
    let mut body = table(&["", ""], facts);
    if let Some((exception, traceback)) = &task.error {
        body.push_str(&failure(exception, traceback));
    }
    body.push_str("<h2>Dependencies</h2>");
    body.push_str(&task_rows(&task.dependencies));
    body.push_str("<h2>Dependents</h2>");
    body.push_str(&task_rows(&task.dependents));
    if !task.who_has.is_empty() {
        body.push_str("<h2>Workers with data</h2>");
        body.push_str(&worker_table(&task.who_has));
    }
    if !task.who_wants.is_empty() {
        body.push_str("<h2>Clients with future</h2>");
        body.push_str(&table(
            &["Client"],
            task.who_wants.iter().map(|client| vec![escape(client)]),
        ));
    }
    body.push_str("<h2>Transition Log</h2>");
    body.push_str(&story(&task.story));
    page(&format!("Task: {}", task.key), "", &body)
}

fn story(transitions: &[TransitionRow]) -> String {
    let headers = [
        "Time",
        "Key",
        "Start",
        "Finish",
        "Stimulus ID",
        "Recommendations",
    ];
    let rows = transitions.iter().map(|row| {
        let led_to: Vec<String> = row
            .recommendations
            .iter()
            .map(|task| format!("{}: {}", link("", &task.key), task.state))
            .collect();
        vec![
            local_time(row.time),
            link("", &row.key),
            row.start.to_owned(),
            row.finish.to_owned(),
            escape(&row.stimulus_id),
            led_to.join(", "),
        ]
    });
    table(&headers, rows)
}

fn local_time(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked by from_timestamp_micros"
    )]
    let time = DateTime::from_timestamp_micros((seconds * 1e6) as i64);
    time.map_or_else(String::new, |time| {
        time.with_timezone(&Local)
            .format("%Y-%m-%d %H:%M:%S%.6f")
            .to_string()
    })
}

fn failure(exception: &str, traceback: &str) -> String {
    format!(
        "<p>Exception: <code>{}</code></p><details><summary>Traceback</summary><pre>{}</pre></details>",
        escape(exception),
        escape(traceback)
    )
}

pub(super) async fn exceptions<S: HttpSource>(
    State(site): Shared<S>,
) -> Result<Response, SourceError> {
    let mut body = String::new();
    for task in site.source.erred_tasks().await? {
        let workers: Vec<String> = task
            .erred_on
            .iter()
            .map(|worker| link("../worker/", worker))
            .collect();
        body.push_str(&format!(
            "<h2>{}</h2><p>Worker(s): {}</p>",
            link("../task/", &task.key),
            workers.join(", ")
        ));
        body.push_str(&failure(&task.exception, &task.traceback));
    }
    Ok(Html(page("Exceptions", "", &body)).into_response())
}

fn log_page(title: &str, lines: &[LogRow]) -> String {
    let lines: Vec<String> = lines.iter().map(|(_, text)| escape(text)).collect();
    page(title, "", &format!("<pre>{}</pre>", lines.join("\n")))
}

pub(super) async fn logs<S: HttpSource>(State(site): Shared<S>) -> Result<Response, SourceError> {
    Ok(Html(log_page("Logs", &site.source.logs().await?)).into_response())
}

pub(super) async fn worker_logs<S: HttpSource>(
    State(site): Shared<S>,
    Path(path): Path<String>,
) -> Result<Response, SourceError> {
    let Some(address) = stem(&path) else {
        return Ok(not_found());
    };
    let lines = site.source.worker_logs(address.to_owned()).await?;
    Ok(found(lines.map(|lines| {
        log_page(&format!("Logs: {address}"), &lines)
    })))
}

/// `{worker: {task: [line, …]}}` as sections.
fn stacks(stacks: &Value) -> String {
    let mut body = String::new();
    for (worker, tasks) in stacks.as_object().into_iter().flatten() {
        body.push_str(&format!("<h2>Worker: {}</h2>", escape(worker)));
        for (task, lines) in tasks.as_object().into_iter().flatten() {
            let lines = lines
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let text: Vec<String> = lines.map(escape).collect();
            body.push_str(&format!(
                "<h3>Key: {}</h3><pre>{}</pre>",
                escape(task),
                text.join("\n")
            ));
        }
    }
    body
}

pub(super) async fn worker_call_stacks<S: HttpSource>(
    State(site): Shared<S>,
    Path(path): Path<String>,
) -> Result<Response, SourceError> {
    let Some(address) = stem(&path) else {
        return Ok(not_found());
    };
    let found_stacks = site.source.worker_call_stacks(address.to_owned()).await?;
    Ok(found(found_stacks.map(|all| {
        page(&format!("Call Stacks: {address}"), "", &stacks(&all))
    })))
}

pub(super) async fn task_call_stack<S: HttpSource>(
    State(site): Shared<S>,
    Path(path): Path<String>,
) -> Result<Response, SourceError> {
    let Some(key) = stem(&path) else {
        return Ok(not_found());
    };
    let found_stacks = site.source.task_call_stack(key.to_owned()).await?;
    Ok(found(found_stacks.map(|all| {
        let running = all.as_object().is_some_and(|workers| !workers.is_empty());
        let body = if running {
            stacks(&all)
        } else {
            // These words are looked for by tools of stock.
            "<p>Task not actively running. It may be finished or not yet started</p>".to_owned()
        };
        page(&format!("Call Stack: {key}"), "", &body)
    })))
}

pub(super) async fn proxy(Path((port, host, path)): Path<(u16, String, String)>) -> Response {
    let target = escape(&format!("{host}:{port}/{path}"));
    let body = format!(
        "<p>The dashboard of this worker is at <a href=\"http://{target}\">{target}</a>, if your machine can \
         reach it.</p><p>This scheduler does not pass pages of workers on.</p>"
    );
    Html(page("Worker dashboard", "", &body)).into_response()
}
