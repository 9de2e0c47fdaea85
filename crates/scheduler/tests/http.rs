//! The HTTP pages, over real sockets, from a source that makes everything up.

use std::sync::Arc;

use oxidask_cli::{HostAndPort, parse_dashboard_address};
use oxidask_config::{Config, ConfigValue, Env, Origin};
use oxidask_scheduler::http::{
    Answer, Counts, ErredTask, Family, Format, Happenings, Health, HttpSource, Kind, LogRow,
    Metrics, Origins, OwnFamily, Pages, PrefixFigures, ProcessFigures, Snapshot, SourceError,
    TaskPage, TaskRow, Topics, WorkerFigures, WorkerPage, WorkerRow, bind, dashboard_link,
    render_metrics, router, serve,
};
use oxidask_scheduler::security::of_dashboard;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NASTY: &str = "<b>&'\"\u{1}/?#%";

/// Knows one worker `tcp://w:1` and one task, both with a nasty name somewhere.
struct MadeUp;

fn row() -> WorkerRow {
    WorkerRow {
        address: "tcp://w:1".to_owned(),
        name: NASTY.to_owned(),
        nthreads: 2,
        ..WorkerRow::default()
    }
}

impl HttpSource for MadeUp {
    fn health(&self) -> Health {
        Health::default()
    }
    async fn snapshot(&self, topics: Topics) -> Answer<Snapshot> {
        let worker = WorkerFigures {
            name: NASTY.to_owned(),
            ..WorkerFigures::default()
        };
        Ok(Snapshot {
            time: 1.0,
            workers: topics.workers.then(|| vec![worker]),
            ..Snapshot::default()
        })
    }
    fn happenings(&self) -> Happenings {
        Happenings::new(&tokio::sync::broadcast::Sender::new(1), Box::new(()))
    }
    async fn counts(&self) -> Answer<Counts> {
        Ok(Counts {
            workers: 1,
            cores: 2,
            ..Counts::default()
        })
    }
    async fn identity(&self) -> Answer<Value> {
        Ok(json!({"type": "Scheduler"}))
    }
    async fn metrics(&self) -> Answer<Metrics> {
        Ok(Metrics {
            clients: 3,
            ..Metrics::default()
        })
    }
    fn address(&self) -> String {
        "tcp://s:8786".to_owned()
    }
    async fn workers(&self) -> Answer<Vec<WorkerRow>> {
        Ok(vec![row()])
    }
    async fn worker(&self, address: String) -> Answer<Option<WorkerPage>> {
        let page = WorkerPage {
            row: row(),
            has_what: vec![(NASTY.to_owned(), 5)],
            ..WorkerPage::default()
        };
        Ok((address == "tcp://w:1").then_some(page))
    }
    async fn task(&self, key: String) -> Answer<Option<TaskPage>> {
        let dependencies = vec![TaskRow {
            key: "y".to_owned(),
            state: "memory",
        }];
        let page = TaskPage {
            key: key.clone(),
            state: "memory",
            dependencies,
            ..TaskPage::default()
        };
        Ok((key == NASTY).then_some(page))
    }
    async fn erred_tasks(&self) -> Answer<Vec<ErredTask>> {
        Ok(vec![ErredTask {
            key: NASTY.to_owned(),
            exception: NASTY.to_owned(),
            ..ErredTask::default()
        }])
    }
    async fn logs(&self) -> Answer<Vec<LogRow>> {
        Ok(vec![("INFO".to_owned(), NASTY.to_owned())])
    }
    async fn worker_logs(&self, _: String) -> Answer<Option<Vec<LogRow>>> {
        Err(SourceError::NotSupported("worker_logs"))
    }
    async fn worker_call_stacks(&self, _: String) -> Answer<Option<Value>> {
        Ok(None)
    }
    async fn task_call_stack(&self, key: String) -> Answer<Option<Value>> {
        Ok(Some(if key == "runs" {
            json!({"tcp://w:1": {"runs": ["File \"<x>\""]}})
        } else {
            json!({})
        }))
    }
    async fn retire_workers(&self, params: Value) -> Answer<Value> {
        Ok(json!({"asked": params}))
    }
    async fn adaptive_target(&self) -> Answer<u64> {
        Err(SourceError::Stopped)
    }
    async fn check_idle(&self) -> Answer<Option<f64>> {
        Ok(Some(1.5))
    }
}

fn pages() -> Pages {
    let config = Config::defaults();
    Pages::from_config(&config, "", true)
}

/// A server with these pages; its port.
async fn start(pages: Pages) -> u16 {
    let address = parse_dashboard_address("127.0.0.1:0").expect("address");
    let listener = bind(&address, None).await.expect("a free port");
    let port = listener.port;
    let (router, problems) = router(Arc::new(MadeUp), &pages);
    assert_eq!(problems, Vec::<String>::new());
    tokio::spawn(serve(listener, router));
    port
}

struct Reply {
    status: u16,
    headers: String,
    body: String,
}

async fn request(port: u16, method: &str, path: &str, body: &str) -> Reply {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("connect");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    let (headers, body) = answer.split_once("\r\n\r\n").expect("headers");
    let status = headers
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("status");
    Reply {
        status,
        headers: headers.to_lowercase(),
        body: body.to_owned(),
    }
}

async fn get(port: u16, path: &str) -> Reply {
    request(port, "GET", path, "").await
}

#[tokio::test]
async fn health_is_plain_text() {
    let reply = get(start(pages()).await, "/health").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
    assert!(
        reply
            .headers
            .contains("content-type: text/plain; charset=utf-8")
    );
}

#[tokio::test]
async fn the_root_leads_to_the_status_page() {
    let port = start(pages()).await;
    let reply = get(port, "/").await;
    assert_eq!(reply.status, 302);
    assert!(reply.headers.contains("location: status"));
    assert_eq!(get(port, "/status").await.status, 200);
    let slash = get(port, "/status/").await;
    assert_eq!(slash.status, 302);
    assert!(slash.headers.contains("location: ../status"));
}

#[tokio::test]
async fn a_prefix_stands_before_all_pages() {
    for prefix in ["/foo", "foo/", "a/b"] {
        let port = start(Pages {
            prefix: prefix.to_owned(),
            ..pages()
        })
        .await;
        let folder = prefix.trim_matches('/');
        for path in [
            "health",
            "status",
            "json/index.html",
            "info/main/workers.html",
            "metrics",
        ] {
            assert_eq!(
                get(port, &format!("/{folder}/{path}")).await.status,
                200,
                "{prefix} {path}"
            );
            assert_eq!(
                get(port, &format!("/{path}")).await.status,
                404,
                "{prefix} {path}"
            );
        }
        let home = get(port, "/").await;
        assert!(
            home.headers.contains(&format!("location: {folder}/status")),
            "{}",
            home.headers
        );
        assert!(
            get(port, &format!("/{folder}/"))
                .await
                .headers
                .contains("location: status")
        );
    }
}

#[tokio::test]
async fn without_dashboard_only_its_pages_are_missing() {
    let port = start(Pages {
        dashboard: false,
        ..pages()
    })
    .await;
    for (path, status) in [
        ("/", 404),
        ("/status", 404),
        ("/health", 200),
        ("/json/counts.json", 200),
    ] {
        assert_eq!(get(port, path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn routes_of_the_api_are_served_unless_the_routes_are_chosen() {
    let default = Pages::from_config(&Config::defaults(), "", true);
    assert_eq!(get(start(default).await, "/api/v1").await.status, 200);
    let mut config = Config::defaults();
    let routes = ConfigValue::List(vec![ConfigValue::Str("distributed.http.health".to_owned())]);
    let origin = Origin::Variable("X".to_owned());
    config
        .set("distributed.scheduler.http.routes", routes, origin)
        .expect("valid");
    let port = start(Pages::from_config(&config, "", true)).await;
    assert_eq!(get(port, "/api/v1").await.status, 404);
    assert_eq!(get(port, "/health").await.status, 200);
}

#[tokio::test]
async fn live_pages_load_nothing_from_elsewhere() {
    let port = start(pages()).await;
    for path in [
        "/status",
        "/workers",
        "/tasks",
        "/system",
        "/individual-progress",
    ] {
        let reply = get(port, path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.headers.contains("default-src 'none'"), "{path}");
        assert!(
            !reply.body.contains("://") || reply.body.contains("tcp://s:8786"),
            "{path}"
        );
        assert!(reply.body.contains("src=\"status/app.js\""), "{path}");
    }
    for path in ["/status/app.js", "/status/style.css"] {
        let reply = get(port, path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(
            !reply.body.contains("http://") && !reply.body.contains("https://"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn single_parts_are_listed_for_jupyterlab() {
    let reply = get(start(pages()).await, "/individual-plots.json").await;
    let plots: Value = serde_json::from_str(&reply.body).expect("JSON");
    assert_eq!(plots["Individual Task Stream"], "/individual-task-stream");
    let without = Pages {
        dashboard: false,
        ..pages()
    };
    let reply = get(start(without).await, "/individual-plots.json").await;
    assert_eq!(reply.body, "{}");
}

#[tokio::test]
async fn the_feed_answers_programs_too() {
    let port = start(pages()).await;
    let reply = get(port, "/json/feed.json?topics=workers").await;
    let feed: Value = serde_json::from_str(&reply.body).expect("JSON");
    assert_eq!(feed["workers"][0]["name"], NASTY);
    let reply = get(port, "/json/feed.json?topics=scheduler").await;
    assert_eq!(reply.body, "{\"time\":1.0}");
}

#[tokio::test]
async fn web_sockets_ask_for_an_upgrade_and_a_known_origin() {
    let port = start(Pages {
        origins: Origins::default(),
        ..pages()
    })
    .await;
    for path in ["/eventstream", "/status/ws"] {
        assert_eq!(get(port, path).await.status, 400, "{path}");
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("connect");
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\norigin: http://evil.invalid\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn metrics_come_in_the_format_asked_for() {
    let port = start(pages()).await;
    assert!(
        get(port, "/metrics")
            .await
            .headers
            .contains("text/plain; version=0.0.4")
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("connect");
    let head = "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(
        answer
            .to_lowercase()
            .contains("content-type: application/openmetrics-text; version=1.0.0")
    );
    assert!(answer.contains("# TYPE dask_scheduler_workers_added counter\n"));
    assert!(answer.trim_end().ends_with("# EOF"), "{answer}");
}

#[test]
fn families_of_routes_that_are_python_are_named() {
    let routes = vec!["my.module".to_owned(), "distributed.http.health".to_owned()];
    let repeated = routes.iter().chain(&routes).cloned().collect();
    let (_, problems) = router(
        Arc::new(MadeUp),
        &Pages {
            routes: repeated,
            ..pages()
        },
    );
    assert!(
        problems.len() == 1 && problems[0].contains("my.module"),
        "{problems:?}"
    );
}

#[tokio::test]
async fn the_api_answers_in_json() {
    let port = start(pages()).await;
    assert_eq!(get(port, "/api/v1").await.body, "API V1");
    for (path, expected) in [
        (
            "/api/v1/get_workers",
            json!({"num_workers": 1, "workers": [{"name": NASTY, "address": "tcp://w:1"}]}),
        ),
        ("/api/v1/check_idle", json!({"idle_since": 1.5})),
    ] {
        let reply = get(port, path).await;
        assert!(
            reply.headers.contains("content-type: application/json"),
            "{path}"
        );
        assert_eq!(
            serde_json::from_str::<Value>(&reply.body).expect("JSON"),
            expected,
            "{path}"
        );
    }
    let reply = request(
        port,
        "POST",
        "/api/v1/retire_workers",
        "{\"workers\": [\"tcp://w:1\"]}",
    )
    .await;
    assert_eq!(
        serde_json::from_str::<Value>(&reply.body).expect("JSON"),
        json!({"asked": {"workers": ["tcp://w:1"]}})
    );
}

#[tokio::test]
async fn errors_of_the_api_are_those_of_stock() {
    let port = start(pages()).await;
    for reply in [
        get(port, "/api/v1/adaptive_target").await,
        request(port, "POST", "/api/v1/retire_workers", "{").await,
    ] {
        assert_eq!(reply.status, 500);
        assert_eq!(reply.body, "{\"Error\":\"Internal Server Error\"}");
    }
}

#[tokio::test]
async fn pages_escape_what_peers_named() {
    let port = start(pages()).await;
    for path in [
        "/info/main/workers.html",
        "/info/main/logs.html",
        "/info/main/exceptions.html",
        "/info/worker/tcp%3A%2F%2Fw%3A1.html",
        "/info/task/%3Cb%3E%26%27%22%01%2F%3F%23%25.html",
    ] {
        let reply = get(port, path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(!reply.body.contains("<b>&'"), "{path}: {}", reply.body);
        assert!(
            reply.body.contains("&lt;b&gt;&amp;&#39;&quot;\u{fffd}/?#%"),
            "{path}: {}",
            reply.body
        );
        assert!(
            !reply.body.contains("href=\"/"),
            "links are relative: {path}"
        );
    }
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let port = start(pages()).await;
    for path in [
        "/nope",
        "/info/worker/unknown",
        "/info/worker/unknown.html",
        "/info/task/unknown.html",
        "/info/call-stacks/unknown.html",
        "/%",
        "/info/task/%ff.html",
        "//",
    ] {
        let status = get(port, path).await.status;
        assert!(matches!(status, 404 | 400), "{path}: {status}");
    }
    assert_eq!(
        get(port, "/info/logs/tcp%3A%2F%2Fw%3A1.html").await.status,
        501
    );
}

#[tokio::test]
async fn call_stacks_are_shown_or_said_not_to_be_there() {
    let port = start(pages()).await;
    assert!(
        get(port, "/info/call-stack/runs.html")
            .await
            .body
            .contains("File &quot;&lt;x&gt;&quot;")
    );
    assert!(
        get(port, "/info/call-stack/other.html")
            .await
            .body
            .contains("Task not actively running")
    );
}

#[tokio::test]
async fn the_sitemap_lists_patterns_as_stock_does() {
    let reply = get(start(pages()).await, "/sitemap.json").await;
    let map: Value = serde_json::from_str(&reply.body).expect("JSON");
    let paths = map["paths"].as_array().expect("list");
    for path in [
        "/sitemap.json",
        "/health",
        "/statics/css/base.css",
        "/info/task/(.*).html",
        "/json/counts.json",
    ] {
        assert!(paths.contains(&path.into()), "{path}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_replaced_with_a_warning() {
    let first = bind(
        &[HostAndPort {
            host: "127.0.0.1".to_owned(),
            port: 0,
        }],
        None,
    )
    .await
    .expect("free");
    assert!(first.warnings.is_empty());
    let again = bind(
        &[HostAndPort {
            host: "127.0.0.1".to_owned(),
            port: first.port,
        }],
        None,
    )
    .await
    .expect("other");
    assert_ne!(again.port, first.port);
    assert!(again.warnings[0].starts_with(&format!("Port {} is already in use", first.port)));
    let nowhere = HostAndPort {
        host: "192.0.2.1".to_owned(),
        port: 0,
    };
    assert!(
        bind(&[nowhere], None)
            .await
            .expect_err("not ours")
            .to_string()
            .contains("192.0.2.1")
    );
}

#[test]
fn a_missing_certificate_is_an_error_rather_than_clear_text() {
    let mut config =
        Config::load(&Env::new([("DASK_ROOT_CONFIG", "/nonexistent")])).expect("valid");
    let certificate = ConfigValue::Str("/cert.pem".to_owned());
    let origin = Origin::Variable("X".to_owned());
    config
        .set(
            "distributed.scheduler.dashboard.tls.cert",
            certificate,
            origin,
        )
        .expect("valid");
    let error = of_dashboard(&config).expect_err("refused").to_string();
    assert!(
        error.contains("dashboard.tls.cert") && error.contains("/cert.pem"),
        "{error}"
    );
}

#[test]
fn links_to_the_dashboard_follow_their_template() {
    let variable = |name: &str| (name == "USER").then(|| "ann".to_owned());
    for (template, link) in [
        (
            "{scheme}://{host}:{port}/status",
            Ok("http://h:8787/status"),
        ),
        (
            "/user/{USER}/proxy/{port}/status",
            Ok("/user/ann/proxy/8787/status"),
        ),
        ("{NOPE}", Err("NOPE")),
        ("{", Ok("{")),
    ] {
        let ours = dashboard_link(template, "http", "h", 8787, variable);
        assert_eq!(ours.as_deref().map_err(String::as_str), link, "{template}");
    }
}

#[test]
fn metrics_have_stocks_names_and_form() {
    let metrics = Metrics {
        clients: 1,
        clients_added: 4,
        clients_removed: 3,
        tasks: vec![("memory", 2)],
        prefixes: vec![PrefixFigures {
            name: "a\"b\\c\n".to_owned(),
            compute: 1.5,
            nbytes: 28,
            state_totals: vec![("memory", 2)],
            ..PrefixFigures::default()
        }],
        stealing: vec![(1, 0.5); 15],
        extensions: vec![Family {
            name: "semaphore_acquire_total".to_owned(),
            help: "Leases".to_owned(),
            counter: true,
            label: "name",
            samples: vec![("s".to_owned(), 7.0)],
        }],
        process: ProcessFigures {
            resident_bytes: 1024,
            ..ProcessFigures::default()
        },
        own: vec![OwnFamily {
            name: "op_messages",
            help: "Ops received",
            kind: Kind::Counter,
            samples: vec![(
                vec![
                    ("peer", "worker".to_owned()),
                    ("op", "task-finished".to_owned()),
                ],
                3.0,
            )],
        }],
        ..Metrics::default()
    };
    insta::assert_snapshot!(render_metrics(&metrics, "dask", Format::Text));
    assert!(render_metrics(&metrics, "", Format::Text).starts_with("# HELP scheduler_clients "));
}
