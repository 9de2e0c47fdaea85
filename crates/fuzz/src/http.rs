//! Requests to the dashboard port and to the port of WebSocket comms, on a connection of their own.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use oxidask_config::Config;
use oxidask_scheduler::http::{
    Answer, Counts, ErredTask, Happenings, Health, HttpSource, LogRow, Metrics, Pages, Snapshot,
    SourceError, TaskPage, Topics, WorkerPage, WorkerRow, router, serve_connection,
    with_websockets,
};
use oxidask_wire::connection::{AcceptPolicy, Connection, Scheme, TransportInfo, WebSocket};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::broadcast;
use tokio::time::timeout;

use crate::frames::LIMITS;
use crate::messages::swallow;
use crate::{choice, run};

/// Larger than what libFuzzer makes.
const PIPE: usize = 1 << 20;
/// Answers may be longer (a live feed never ends); this much of them is read.
const ANSWER: usize = 1 << 16;
/// On the virtual clock.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first byte chooses the port and whether the caller hangs up at once; the rest is what the
/// caller says.
pub fn http(data: &[u8]) {
    let (way, data) = choice(data);
    let (is_comm, hangs_up) = (way & 1 == 1, way & 2 == 2);
    run(async {
        let (near, far) = duplex(PIPE);
        let (mut listen, mut talk) = tokio::io::split(far);
        if talk.write_all(data).await.is_err() {
            return;
        }
        let serve = tokio::spawn(serve(near, is_comm));
        if hangs_up {
            let _ = talk.shutdown().await;
        }
        let mut answer = Vec::new();
        let reading = (&mut listen).take(ANSWER as u64);
        let _ = timeout(PATIENCE, { reading }.read_to_end(&mut answer)).await;
        check(&answer);
        drop((listen, talk));
        // A panic in the task is ours.
        match timeout(PATIENCE, serve).await {
            Ok(served) => served.expect("served without panic"),
            Err(_) => panic!("the connection outlives its caller"),
        }
    });
}

async fn serve(stream: tokio::io::DuplexStream, is_comm: bool) {
    let pages = Pages::from_config(&Config::defaults(), "", true);
    let (pages, _) = router(Arc::new(MadeUp), &pages);
    if !is_comm {
        serve_connection(stream, pages).await;
        return;
    }
    let Some(upgraded) = serve_connection(stream, with_websockets(Some(pages))).await else {
        return;
    };
    let info = TransportInfo {
        scheme: Scheme::Ws,
        certificate: None,
    };
    let stream = WebSocket::upgraded(upgraded, info, LIMITS).await;
    let policy = AcceptPolicy {
        limits: LIMITS,
        ..AcceptPolicy::default()
    };
    let Ok(mut connection) = Connection::accept(stream, &policy, None, None).await else {
        return;
    };
    while let Ok(message) = connection.read().await {
        swallow(&message);
    }
}

/// Nothing or a response; no request makes the server fail.
fn check(answer: &[u8]) {
    let Some(status) = answer.strip_prefix(b"HTTP/1.1 ") else {
        let short = answer.len() < 12 || answer.starts_with(b"HTTP/1.0 ");
        assert!(short, "no response: {:?}", String::from_utf8_lossy(answer));
        return;
    };
    let is_ours = status.starts_with(b"500");
    let api_says_so = answer.windows(5).any(|part| part == b"Error");
    assert!(
        !is_ours || api_says_so,
        "{:?}",
        String::from_utf8_lossy(answer)
    );
}

/// One worker `tcp://w:1`, one task `x`, and a name that HTML must not take for its own.
struct MadeUp;

const NAME: &str = "<b>&'\"";

fn row() -> WorkerRow {
    WorkerRow {
        address: "tcp://w:1".to_owned(),
        name: NAME.to_owned(),
        nthreads: 2,
        ..WorkerRow::default()
    }
}

impl HttpSource for MadeUp {
    fn health(&self) -> Health {
        Health::default()
    }
    async fn snapshot(&self, _: Topics) -> Answer<Snapshot> {
        Ok(Snapshot::default())
    }
    fn happenings(&self) -> Happenings {
        Happenings::new(
            &broadcast::Sender::new(1),
            Box::new(()) as Box<dyn Any + Send>,
        )
    }
    async fn counts(&self) -> Answer<Counts> {
        Ok(Counts::default())
    }
    async fn identity(&self) -> Answer<Value> {
        Ok(json!({"type": "Scheduler"}))
    }
    async fn metrics(&self) -> Answer<Metrics> {
        Ok(Metrics::default())
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
            has_what: vec![(NAME.to_owned(), 5)],
            ..WorkerPage::default()
        };
        Ok((address == "tcp://w:1").then_some(page))
    }
    async fn task(&self, key: String) -> Answer<Option<TaskPage>> {
        let page = TaskPage {
            key: key.clone(),
            state: "memory",
            ..TaskPage::default()
        };
        Ok((key == "x").then_some(page))
    }
    async fn erred_tasks(&self) -> Answer<Vec<ErredTask>> {
        Ok(Vec::new())
    }
    async fn logs(&self) -> Answer<Vec<LogRow>> {
        Ok(vec![("INFO".to_owned(), NAME.to_owned())])
    }
    async fn worker_logs(&self, _: String) -> Answer<Option<Vec<LogRow>>> {
        Ok(None)
    }
    async fn worker_call_stacks(&self, _: String) -> Answer<Option<Value>> {
        Ok(None)
    }
    async fn task_call_stack(&self, _: String) -> Answer<Option<Value>> {
        Ok(Some(json!({})))
    }
    async fn retire_workers(&self, params: Value) -> Answer<Value> {
        Ok(json!({ "asked": params }))
    }
    async fn adaptive_target(&self) -> Answer<u64> {
        Err(SourceError::Stopped)
    }
    async fn check_idle(&self) -> Answer<Option<f64>> {
        Ok(Some(1.5))
    }
}
