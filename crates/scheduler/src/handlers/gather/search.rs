//! Finding out who gives which results, and opening their answers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use oxidask_key::Key;
use oxidask_wire::connection::Opening;
use oxidask_wire::message::Message;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::core_thread::CoreStopped;
use crate::peers::{PeerConnection, PeerError};
use crate::views;

/// Workers answer `busy` when they already serve many; as long stock waits before it asks again.
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(150);
/// First release whose workers do not know `max_connections` in `get_data`.
const NO_MAX_CONNECTIONS: Release = Release::new(2023, 8, 1);
/// First release whose answers can be passed on frame by frame.
const BY_FRAMES: Release = Release::new(2021, 3, 1);
/// Bytes of one gather that are read from workers before the client takes them: enough for small
/// results to leave their workers at once.
const READ_AHEAD: usize = 64 << 20;

/// What could be had.
pub(super) struct Found {
    /// Answers of workers.
    pub(super) parts: Vec<Part>,
    /// Keys nobody could give, with the workers that should have had them, in the order of asking.
    pub(super) missing: Vec<(Key, Vec<Arc<str>>)>,
}

/// The answer of one worker.
pub(super) struct Part {
    /// Key and value as they stand in the body: payloads are markers.
    pub(super) data: Vec<(Key, Value)>,
    /// Lengths of the frames behind the body.
    pub(super) lengths: Vec<usize>,
    /// The bytes of these frames.
    pub(super) frames: Frames,
}

/// Where the bytes are.
pub(super) enum Frames {
    /// Here, in pieces of any length.
    Read(VecDeque<Bytes>),
    /// Still at the worker, which wants to hear `OK` when all of them are read.
    Open(Box<PeerConnection>),
}

impl Frames {
    /// The next piece; nothing at the end, when the worker has been thanked.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, PeerError> {
        match self {
            Self::Read(pieces) => Ok(pieces.pop_front()),
            Self::Open(connection) => {
                let piece = connection.piece().await?;
                if piece.is_some() {
                    return Ok(piece);
                }
                connection.send(&"OK".into()).await?;
                if let Self::Open(connection) = std::mem::replace(self, Self::Read(VecDeque::new()))
                {
                    connection.give_back();
                }
                Ok(None)
            }
        }
    }
}

impl Part {
    /// Reads everything and binds the payloads.
    pub(super) async fn into_values(mut self) -> Result<Vec<(Key, Value)>, PeerError> {
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.frames.next().await? {
            bytes.extend_from_slice(&piece);
        }
        let mut bytes = bytes.freeze();
        let body = Value::array(self.data.iter().map(|(_, value)| value.clone())).encode();
        let mut frames = vec![body];
        for length in &self.lengths {
            frames.push(bytes.split_to((*length).min(bytes.len())));
        }
        let unreadable = |source| PeerError::Read {
            address: "gathered data".into(),
            source: oxidask_wire::error::ReadError::Decode(source),
        };
        let message = Message::from_frames(frames.into_iter()).map_err(unreadable)?;
        let Value::Array(values) = message.value().map_err(unreadable)? else {
            return Ok(Vec::new());
        };
        let keys = self.data.into_iter().map(|(key, _)| key);
        Ok(keys.zip(values).collect())
    }
}

/// Asks the holders of these keys, again while they are busy, and others when one fails.
///
/// # Errors
/// When the core has stopped.
pub(super) async fn search(
    context: &Arc<Context>,
    keys: &[Key],
    serializers: Option<&Value>,
) -> Result<Found, CoreStopped> {
    let mut open: HashSet<Key> = keys.iter().cloned().collect();
    let mut failed: HashSet<(Arc<str>, Option<Key>)> = HashSet::new();
    let mut missing: HashMap<Key, Vec<Arc<str>>> = HashMap::new();
    let mut parts = Vec::new();
    let room = Arc::new(AtomicUsize::new(READ_AHEAD));
    let mut round = 0usize;
    while !open.is_empty() {
        let asked: Vec<Key> = open.iter().cloned().collect();
        let who_has = views::who_has(&context.core, asked).await?;
        let mut by_worker: HashMap<Arc<str>, Vec<Key>> = HashMap::new();
        for (key, holders) in who_has {
            let usable = |holder: &&Arc<str>| {
                !failed.contains(&(Arc::clone(holder), None))
                    && !failed.contains(&(Arc::clone(holder), Some(key.clone())))
            };
            let left: Vec<&Arc<str>> = holders.iter().filter(usable).collect();
            // Spreads the load over the holders without a random number.
            match left.get(round % left.len().max(1)) {
                Some(holder) => by_worker.entry(Arc::clone(holder)).or_default().push(key),
                None => {
                    open.remove(&key);
                    missing.insert(key, holders);
                }
            }
        }
        round += 1;
        let mut busy = false;
        for (worker, keys, answer) in ask(context, by_worker, serializers, &room).await {
            match answer {
                Ok(Some(part)) => {
                    for (key, _) in &part.data {
                        open.remove(key);
                    }
                    let lacks = keys.into_iter().filter(|key| open.contains(key));
                    failed.extend(lacks.map(|key| (Arc::clone(&worker), Some(key))));
                    parts.push(part);
                }
                Ok(None) => busy = true,
                Err(error) => {
                    tracing::info!(target: "distributed.scheduler", "Could not gather from {worker}: {error}");
                    failed.insert((worker, None));
                }
            }
        }
        if busy {
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }
    let in_order = |key: &Key| missing.remove(key).map(|holders| (key.clone(), holders));
    let missing = keys.iter().filter_map(in_order).collect();
    Ok(Found { parts, missing })
}

/// A worker, what it was asked for, and its answer; nothing when it is busy.
type Asked = (Arc<str>, Vec<Key>, Result<Option<Part>, PeerError>);

/// Asks each worker for its keys, all at the same time.
async fn ask(
    context: &Arc<Context>,
    by_worker: HashMap<Arc<str>, Vec<Key>>,
    serializers: Option<&Value>,
    room: &Arc<AtomicUsize>,
) -> Vec<Asked> {
    let mut tasks = tokio::task::JoinSet::new();
    for (worker, keys) in by_worker {
        let (context, room) = (Arc::clone(context), Arc::clone(room));
        let serializers = serializers.cloned().unwrap_or_default();
        tasks.spawn(async move {
            let answer = get_data(&context, &worker, &keys, serializers, &room).await;
            (worker, keys, answer)
        });
    }
    let mut asked = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        asked.extend(joined);
    }
    asked
}

/// `get_data` of one worker; nothing when it is busy.
pub(super) async fn get_data(
    context: &Context,
    worker: &Arc<str>,
    keys: &[Key],
    serializers: Value,
    room: &AtomicUsize,
) -> Result<Option<Part>, PeerError> {
    let mut retried = false;
    loop {
        let mut connection = context.peers.connect(worker).await?;
        let mut request = Value::map([
            ("op", Value::from("get_data")),
            ("reply", true.into()),
            ("keys", Value::array(keys)),
            ("who", Value::Nil),
            ("serializers", serializers.clone()),
        ]);
        if connection.release() < NO_MAX_CONNECTIONS {
            request.insert("max_connections", false);
        }
        return match opened(&mut connection, &request).await {
            Ok(opening) => take(connection, opening, keys, room).await,
            // It may have closed an idle connection.
            Err(_) if connection.is_reused() && !retried => {
                retried = true;
                context.peers.forget(worker);
                continue;
            }
            Err(error) => Err(error),
        };
    }
}

/// The beginning of an answer, and its frames if they had to be read.
struct Opened {
    body: Value,
    lengths: Vec<usize>,
    frames: Option<Vec<Bytes>>,
}

async fn opened(connection: &mut PeerConnection, request: &Value) -> Result<Opened, PeerError> {
    if connection.release() >= BY_FRAMES {
        let Opening { body, lengths } = connection.open(request).await?;
        let body = Value::decode(&body).map_err(|error| connection.read_error(error))?;
        return Ok(Opened {
            body,
            lengths,
            frames: None,
        });
    }
    let answer = Message::from_value(&connection.ask(request).await?);
    let frames: Vec<Bytes> = answer.frames().skip(1).cloned().collect();
    Ok(Opened {
        body: Value::decode(answer.body()).map_err(|error| connection.read_error(error))?,
        lengths: frames.iter().map(Bytes::len).collect(),
        frames: Some(frames),
    })
}

async fn take(
    mut connection: PeerConnection,
    opened: Opened,
    keys: &[Key],
    room: &AtomicUsize,
) -> Result<Option<Part>, PeerError> {
    let Opened {
        mut body,
        lengths,
        frames,
    } = opened;
    match body.get("status").and_then(Value::as_str) {
        Some("OK") => {}
        Some("busy") if lengths.is_empty() => {
            connection.give_back();
            return Ok(None);
        }
        _ => {
            return Err(PeerError::Remote(
                whole(&mut connection, body, &lengths).await?,
            ));
        }
    }
    let Some(Value::Map(entries)) = body.remove("data") else {
        return Err(PeerError::Remote(body));
    };
    let asked: HashSet<&Key> = keys.iter().collect();
    let mut named = HashSet::new();
    let entry = |(key, value): (Value, Value)| {
        let key = key.to_key()?;
        // A worker that tells more than it was asked for is not listened to.
        (asked.contains(&key) && named.insert(key.clone())).then_some((key, value))
    };
    let data = entries.into_iter().filter_map(entry).collect();
    let mut part = Part {
        data,
        frames: match frames {
            Some(frames) => {
                connection.send(&"OK".into()).await?;
                connection.give_back();
                Frames::Read(frames.into())
            }
            None => Frames::Open(Box::new(connection)),
        },
        lengths,
    };
    let total = part
        .lengths
        .iter()
        .fold(0, |a: usize, b| a.saturating_add(*b));
    let taken = room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |r| {
        r.checked_sub(total)
    });
    if taken.is_ok() {
        let mut pieces = VecDeque::new();
        while let Some(piece) = part.frames.next().await? {
            pieces.push_back(piece);
        }
        part.frames = Frames::Read(pieces);
    }
    Ok(Some(part))
}

/// A whole answer that says what went wrong.
async fn whole(
    connection: &mut PeerConnection,
    body: Value,
    lengths: &[usize],
) -> Result<Value, PeerError> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = connection.piece().await? {
        bytes.extend_from_slice(&piece);
    }
    let mut bytes = bytes.freeze();
    let mut frames = vec![body.encode()];
    for length in lengths {
        frames.push(bytes.split_to((*length).min(bytes.len())));
    }
    let message = Message::from_frames(frames.into_iter());
    let value = message.and_then(|message| message.value());
    value.map_err(|error| connection.read_error(error))
}
