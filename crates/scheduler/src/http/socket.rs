//! Web sockets: stock's `/eventstream`, and `/status/ws` that feeds the live pages.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::feed::{Topics, Update};
use super::routes::Site;
use super::source::HttpSource;
use super::watch::{Happening, Happenings, Ran};
use crate::clock;

/// Web sockets at the same time.
pub(super) const MAX_SOCKETS: usize = 256;
/// Bytes that a browser may send in one message; it has nothing to say but `ping`.
const MAX_MESSAGE: usize = 16 << 10;
/// Tasks told in one message.
const MAX_RAN: usize = 5000;
/// A browser that does not read for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Which origins of pages may open a web socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(pub Vec<String>);

impl Origins {
    /// Programs tell no origin. Pages may come from the host they talk to, and from those that the list
    /// names: `host`, `host:port`, or `*`, which is any host.
    fn allow(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(ORIGIN) else {
            return true;
        };
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let origin = origin.split_once("://").map_or(origin, |(_, host)| host);
        let same = headers.get(HOST).and_then(|host| host.to_str().ok()) == Some(origin);
        let name = origin.rsplit_once(':').map_or(origin, |(name, _)| name);
        let named = |allowed: &String| {
            matches!(allowed.as_str(), "*" | "*:*") || allowed == origin || allowed == name
        };
        same || self.0.iter().any(named)
    }
}

/// Accepts a web socket, or says why not.
fn accept<S: HttpSource, F>(
    site: &Site<S>,
    origins: &Origins,
    headers: &HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    serve: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    if !origins.allow(headers) {
        let text = "pages of this origin may not read from this scheduler; see \
             distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let Ok(permit) = Arc::clone(&site.sockets).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many web sockets").into_response();
    };
    upgrade
        .max_message_size(MAX_MESSAGE)
        .on_upgrade(|socket| async move {
            let _permit: OwnedSemaphorePermit = permit;
            serve(socket).await;
        })
}

pub(super) async fn event_stream<S: HttpSource>(
    State(site): State<Site<S>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let source = Arc::clone(&site.source);
    // Stock lets no page of another origin read this one.
    accept(
        &site,
        &Origins::default(),
        &headers,
        upgrade,
        |socket| async move {
            events(&*source, socket).await;
        },
    )
}

/// Tells a watcher what happens, as stock's event stream does; workers first.
async fn events<S: HttpSource>(source: &S, mut socket: WebSocket) {
    let mut happenings = source.happenings();
    for worker in source.workers().await.unwrap_or_default() {
        let message = json!({"name": "add_worker", "worker": worker.address});
        if !send(&mut socket, &message).await {
            return;
        }
    }
    loop {
        let messages = tokio::select! {
            next = happenings.next() => match next {
                Some(Ok(happening)) => told(&happening),
                Some(Err(lost)) => vec![json!({"name": "lost", "count": lost})],
                None => return,
            },
            said = socket.recv() => match said {
                Some(Ok(said)) => answer(&said).into_iter().collect(),
                _ => return,
            },
        };
        for message in messages {
            if !send(&mut socket, &message).await {
                return;
            }
        }
    }
}

fn answer(said: &Message) -> Option<Value> {
    let Message::Text(text) = said else {
        return None;
    };
    let said: Value = serde_json::from_str(text).ok()?;
    let is_ping = said.get("name").and_then(Value::as_str) == Some("ping");
    let now = || {
        chrono::Local::now()
            .format("%Y-%m-%d %H:%M:%S%.6f")
            .to_string()
    };
    is_ping.then(|| json!({"name": "pong", "timestamp": now()}))
}

fn told(happening: &Happening) -> Vec<Value> {
    let (name, about) = match happening {
        Happening::Restart => return vec![json!({"name": "restart"})],
        Happening::Ran(ran) => return transitions(ran),
        Happening::AddWorker(worker) => ("add_worker", ("worker", worker)),
        Happening::RemoveWorker(worker) => ("remove_worker", ("worker", worker)),
        Happening::AddClient(client) => ("add_client", ("client", client)),
        Happening::RemoveClient(client) => ("remove_client", ("client", client)),
        Happening::UpdateGraph(client) => ("update_graph", ("client", client)),
    };
    let (field, value) = about;
    vec![json!({"name": name, field: &**value})]
}

/// One message for each thing done for the task.
fn transitions(ran: &Ran) -> Vec<Value> {
    let one = |(action, start, stop): &(String, f64, f64)| {
        let mut fields: Map<String, Value> = ran
            .message
            .iter()
            .filter(|(name, value)| *name != "op" && !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        fields.insert("name".to_owned(), "transition".into());
        fields.insert("key".to_owned(), ran.key.as_str().into());
        fields.insert("prefix".to_owned(), ran.prefix.as_str().into());
        fields.insert("worker".to_owned(), ran.worker.as_str().into());
        fields.insert("action".to_owned(), action.as_str().into());
        fields.insert("start".to_owned(), (*start).into());
        fields.insert("stop".to_owned(), (*stop).into());
        fields.insert("color".to_owned(), color(action, &ran.prefix).into());
        Value::Object(fields)
    };
    ran.actions.iter().map(one).collect()
}

/// A colour by what is done; computing has one by the kind of task.
fn color(action: &str, prefix: &str) -> &'static str {
    const KINDS: [&str; 10] = [
        "#4e79a7", "#59a14f", "#9c755f", "#edc948", "#76b7b2", "#af7aa1", "#8cd17d", "#b6992d",
        "#499894", "#d4a6c8",
    ];
    match action {
        "transfer" => "red",
        "disk-read" | "disk-write" => "orange",
        "deserialize" => "gray",
        _ => {
            let sum = prefix.bytes().fold(0_usize, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(byte.into())
            });
            KINDS.get(sum % KINDS.len()).copied().unwrap_or("#4e79a7")
        }
    }
}

/// What a page asks for.
#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    topics: Option<String>,
    /// Milliseconds between messages.
    interval: Option<u64>,
}

pub(super) async fn live<S: HttpSource>(
    State(site): State<Site<S>>,
    Query(wish): Query<Wish>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let source = Arc::clone(&site.source);
    let topics = Topics::parse(wish.topics.as_deref());
    let every = Duration::from_millis(wish.interval.unwrap_or(500).clamp(100, 60_000));
    accept(
        &site,
        &site.origins,
        &headers,
        upgrade,
        move |socket| async move {
            feed(&*source, socket, topics, every).await;
        },
    )
}

/// Sends snapshots until the page goes away. Large clusters get rarer ones.
async fn feed<S: HttpSource>(source: &S, mut socket: WebSocket, topics: Topics, every: Duration) {
    let mut happenings = topics.ran.then(|| source.happenings());
    loop {
        let began = clock::now();
        let Ok(snapshot) = source.snapshot(topics).await else {
            return;
        };
        let (ran, lost) = happenings.as_mut().map(ended).unwrap_or_default();
        let workers = snapshot.workers.as_ref().map_or(0, Vec::len);
        let update = Update {
            snapshot: &snapshot,
            ran: topics.ran.then_some(&ran),
            lost,
        };
        let Ok(update) = serde_json::to_value(&update) else {
            return;
        };
        if !send(&mut socket, &update).await {
            return;
        }
        let took = clock::seconds(clock::now().since(began));
        let least = Duration::from_millis(u64::try_from(workers).unwrap_or(u64::MAX));
        let pause = tokio::time::sleep(every.max(least).max(took * 4));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                said = socket.recv() => if !matches!(said, Some(Ok(_))) {
                    return;
                },
            }
        }
    }
}

/// Tasks that ended since the last call, and how many are left out.
fn ended(happenings: &mut Happenings) -> (Vec<Arc<Ran>>, u64) {
    let (mut ran, mut lost) = (Vec::new(), 0_u64);
    while let Some(next) = happenings.try_next() {
        match next.as_deref() {
            Ok(Happening::Ran(task)) if ran.len() < MAX_RAN => ran.push(Arc::clone(task)),
            Ok(Happening::Ran(_)) => lost += 1,
            Ok(_) => {}
            Err(missed) => lost += missed,
        }
    }
    (ran, lost)
}

/// Whether the page is still there.
async fn send(socket: &mut WebSocket, message: &Value) -> bool {
    let sending = socket.send(Message::Text(message.to_string().into()));
    matches!(
        tokio::time::timeout(WRITE_TIMEOUT, sending).await,
        Ok(Ok(()))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_origins_are_kept_out() {
        let table: [(&[&str], Option<&str>, bool); 8] = [
            (&[], None, true),
            (&[], Some("http://here:8787"), true),
            (&[], Some("https://evil.invalid"), false),
            (&["good.invalid"], Some("http://good.invalid"), true),
            (&["good.invalid"], Some("http://good.invalid:99"), true),
            (&["good.invalid:80"], Some("http://good.invalid:99"), false),
            (&["good.invalid"], Some("http://evil.invalid"), false),
            (&["*"], Some("http://evil.invalid"), true),
        ];
        for (list, origin, allowed) in table {
            let origins = Origins(list.iter().map(|name| (*name).to_owned()).collect());
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "here:8787".parse().expect("valid"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().expect("valid"));
            }
            assert_eq!(origins.allow(&headers), allowed, "{list:?} {origin:?}");
        }
    }

    #[test]
    fn each_action_of_a_task_is_told_with_what_the_worker_said() {
        let message = json!({"op": "task-finished", "nbytes": 28, "typename": "int", "type": null});
        let ran = Ran {
            key: "inc-1".to_owned(),
            prefix: "inc".to_owned(),
            worker: "tcp://w:1".to_owned(),
            finish: "memory",
            actions: vec![
                ("transfer".to_owned(), 1.0, 2.0),
                ("compute".to_owned(), 2.0, 3.0),
            ],
            message: message.as_object().cloned().unwrap_or_default(),
            ..Ran::default()
        };
        let told = told(&Happening::Ran(Arc::new(ran)));
        assert_eq!(told.len(), 2);
        assert_eq!(told[0]["color"], "red");
        let expected = [
            ("name", json!("transition")),
            ("key", json!("inc-1")),
            ("action", json!("compute")),
            ("nbytes", json!(28)),
            ("start", json!(2.0)),
        ];
        for (field, value) in expected {
            assert_eq!(told[1][field], value, "{field}");
        }
        assert!(told[1].get("type").is_none() && told[1].get("op").is_none());
    }

    #[test]
    fn only_pings_are_answered() {
        let pong = answer(&Message::Text("{\"name\": \"ping\"}".into())).expect("an answer");
        assert_eq!(pong["name"], "pong");
        for said in ["", "[]", "{\"name\": 3}", "{\"name\": \"other\"}"] {
            assert!(answer(&Message::Text(said.into())).is_none(), "{said}");
        }
    }
}
