//! The event log: what happened, by topic (`Client.log_event`, `get_events`, `subscribe_topic`).
//! Bounded in number per topic and in bytes over all topics.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use oxidask_config::Config;
use oxidask_key::Key;
use oxidask_wire::value::Value;
use tokio::time::Instant;

use super::ops::Ops;
use super::wait::lock;
use crate::clients::ClientEntry;
use crate::clock;
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable, StreamPeer};
use crate::weight::Weigh;
use crate::workers::WorkerEntry;

/// Bytes that an entry or a topic takes besides its payload and name.
const OVERHEAD: usize = 128;

/// How much the log keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Entries per topic: `distributed.admin.low-level-log-length` (up to 2024.5.2
    /// `distributed.scheduler.events-log-length`).
    pub(crate) entries: usize,
    /// Bytes over all topics.
    pub(crate) bytes: usize,
}

/// Something that happened. Shared by all topics it belongs to.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry<V> {
    /// Seconds since the epoch.
    pub(crate) timestamp: f64,
    /// What the peer logged, or a map of our own.
    pub(crate) payload: V,
}

/// An entry to be sent to the subscribers of a topic.
#[derive(Debug)]
pub(crate) struct Delivery<V> {
    /// Which topic.
    pub(crate) topic: Key,
    /// Names of the clients.
    pub(crate) clients: Vec<Arc<str>>,
    /// What.
    pub(crate) entry: Arc<Entry<V>>,
}

/// All topics.
pub(crate) struct EventLog<V> {
    state: Mutex<State<V>>,
    limits: Limits,
}

struct State<V> {
    topics: HashMap<Key, Topic<V>>,
    bytes: usize,
}

struct Topic<V> {
    entries: VecDeque<(Arc<Entry<V>>, usize)>,
    /// Entries ever logged.
    count: u64,
    /// Sorted, so that messages go out in the same order in every run.
    subscribers: BTreeSet<Arc<str>>,
}

impl<V> Default for Topic<V> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            count: 0,
            subscribers: BTreeSet::new(),
        }
    }
}

impl<V> Topic<V> {
    fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.subscribers.is_empty()
    }

    /// Drops the `n` oldest entries; the bytes freed.
    fn drop_oldest(&mut self, n: usize) -> usize {
        let n = n.min(self.entries.len());
        let freed = self.entries.drain(..n).map(|(_, bytes)| bytes).sum();
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        freed
    }
}

impl<V> EventLog<V> {
    /// An empty log.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::new(State {
                topics: HashMap::new(),
                bytes: 0,
            }),
            limits,
        }
    }

    /// Logs `payload` of `bytes` bytes under each of `topics`. What is returned has to be sent.
    pub(crate) fn log(
        &self,
        topics: Vec<Key>,
        timestamp: f64,
        payload: V,
        bytes: usize,
    ) -> Vec<Delivery<V>> {
        let entry = Arc::new(Entry { timestamp, payload });
        let mut state = lock(&self.state);
        let mut deliveries = Vec::new();
        for name in topics {
            let cost = bytes
                .saturating_add(OVERHEAD)
                .saturating_add(name.heap_bytes());
            let topic = state.topics.entry(name.clone()).or_default();
            topic.count += 1;
            if !topic.subscribers.is_empty() {
                deliveries.push(Delivery {
                    topic: name.clone(),
                    clients: topic.subscribers.iter().cloned().collect(),
                    entry: Arc::clone(&entry),
                });
            }
            if cost <= self.limits.bytes && self.limits.entries > 0 {
                let excess = (topic.entries.len() + 1).saturating_sub(self.limits.entries);
                let freed = topic.drop_oldest(excess);
                topic.entries.push_back((Arc::clone(&entry), cost));
                state.bytes = state.bytes.saturating_sub(freed).saturating_add(cost);
                self.keep_within_bytes(&mut state);
            } else if topic.is_idle() {
                state.topics.remove(&name);
            }
        }
        deliveries
    }

    /// The entries of a topic, oldest first.
    pub(crate) fn entries(&self, topic: &Key) -> Vec<Arc<Entry<V>>> {
        let state = lock(&self.state);
        state.topics.get(topic).map_or_else(Vec::new, |topic| {
            let entries = topic.entries.iter();
            entries.map(|(entry, _)| Arc::clone(entry)).collect()
        })
    }

    /// The entries of all topics that have any, topics sorted by their text.
    pub(crate) fn all_entries(&self) -> Vec<(Key, Vec<Arc<Entry<V>>>)> {
        let mut names: Vec<Key> = {
            let state = lock(&self.state);
            let filled = state.topics.iter().filter(|(_, t)| !t.entries.is_empty());
            filled.map(|(name, _)| name.clone()).collect()
        };
        names.sort_by_cached_key(Key::to_text);
        let entries = names.into_iter().map(|name| {
            let entries = self.entries(&name);
            (name, entries)
        });
        entries.collect()
    }

    /// A client wants new entries of a topic.
    pub(crate) fn subscribe(&self, topic: Key, client: Arc<str>) {
        let mut state = lock(&self.state);
        let topic = state.topics.entry(topic).or_default();
        topic.subscribers.insert(client);
    }

    /// A client wants no more of them.
    pub(crate) fn unsubscribe(&self, topic: &Key, client: &str) {
        let mut state = lock(&self.state);
        if let Some(entry) = state.topics.get_mut(topic) {
            entry.subscribers.remove(client);
            if entry.is_idle() {
                state.topics.remove(topic);
            }
        }
    }

    /// A client is gone.
    pub(crate) fn client_removed(&self, client: &str) {
        lock(&self.state).topics.retain(|_, topic| {
            topic.subscribers.remove(client);
            !topic.is_idle()
        });
    }

    /// Forgets the entries of a topic: the worker or client it is named after has been gone for
    /// `distributed.scheduler.events-cleanup-delay`. Subscriptions stay.
    pub(crate) fn truncate(&self, topic: &Key) {
        let mut state = lock(&self.state);
        if let Some(entry) = state.topics.get_mut(topic) {
            let freed = entry.drop_oldest(usize::MAX);
            if entry.is_idle() {
                state.topics.remove(topic);
            }
            state.bytes = state.bytes.saturating_sub(freed);
        }
    }

    /// Entries ever logged, by topic that is still known; for the metrics page.
    pub(crate) fn counts(&self) -> Vec<(Key, u64)> {
        let state = lock(&self.state);
        let counts = state.topics.iter();
        counts
            .map(|(name, topic)| (name.clone(), topic.count))
            .collect()
    }

    /// Bytes in use, as counted.
    pub(crate) fn bytes(&self) -> usize {
        lock(&self.state).bytes
    }

    /// Above the limit each topic loses its older half: rare, and fair to quiet topics.
    fn keep_within_bytes(&self, state: &mut State<V>) {
        while state.bytes > self.limits.bytes {
            let mut freed = 0;
            state.topics.retain(|_, topic| {
                freed += topic.drop_oldest(topic.entries.len().div_ceil(2));
                !topic.is_idle()
            });
            if freed == 0 {
                break;
            }
            state.bytes = state.bytes.saturating_sub(freed);
        }
    }
}

/// The ops of the event log.
pub struct EventLogExtension {
    this: Weak<Self>,
    log: EventLog<Value>,
    /// `distributed.scheduler.events-cleanup-delay`: how long the entries of a worker or client
    /// that is gone are kept.
    cleanup_delay: Duration,
    departed: Mutex<Departed>,
}

/// Peers that are gone and whose entries are kept, the longest gone first.
#[derive(Default)]
struct Departed {
    queue: VecDeque<(Instant, Owner)>,
    /// Somebody looks after them.
    swept: bool,
}

/// Whom a topic is named after.
#[derive(Debug, PartialEq)]
enum Owner {
    Client(Arc<str>),
    Worker(Arc<str>),
}

/// Peers that are gone and whose entries are kept. Short-lived clients come by the thousand: stock keeps those of all
/// of them for an hour.
const MAX_DEPARTED: usize = 1000;

/// Bytes of entries kept over all topics.
const MAX_BYTES: usize = 64 << 20;

impl EventLogExtension {
    /// An empty log.
    pub fn new(config: &Config) -> Arc<Self> {
        // Renamed in 2024.6.0; the default went from 100000 to 1000 as well.
        let entries = config.count("distributed.admin.low-level-log-length");
        let limits = Limits {
            entries: entries.and_then(|n| n.try_into().ok()).unwrap_or(1000),
            bytes: MAX_BYTES,
        };
        let delay = config.seconds("distributed.scheduler.events-cleanup-delay");
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            log: EventLog::new(limits),
            cleanup_delay: clock::seconds(delay.unwrap_or(3600.0)),
            departed: Mutex::default(),
        })
    }

    /// Number of entries ever logged, by topic; for the metrics page.
    pub fn counts(&self) -> Vec<(Key, u64)> {
        self.log.counts()
    }

    /// Bytes the log takes; for the metrics page.
    pub fn bytes(&self) -> usize {
        self.log.bytes()
    }

    fn write(&self, context: &Arc<Context>, topics: Vec<Key>, payload: Value) {
        context.python.event_logged(&topics, &payload);
        let bytes = payload.weight();
        for delivery in self.log.log(topics, clock::now().0, payload, bytes) {
            let message = Value::map([
                ("op", "event".into()),
                ("topic", Value::from(delivery.topic)),
                ("event", entry_value(&delivery.entry)),
            ]);
            for client in delivery.clients {
                if let Some(client) = context.clients.named(&client) {
                    context.clients.tell(client.id, message.clone());
                }
            }
        }
    }

    async fn log_event(self: Arc<Self>, context: Arc<Context>, mut call: Call) -> Reply {
        let topics = topics_of(&call)?;
        let payload = call.take("msg").detached();
        context.obituaries.note(&context.workers, &payload);
        self.write(&context, topics, payload);
        Ok(Value::Nil)
    }

    async fn events(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let values = |entries: &[Arc<Entry<Value>>]| Value::array(entries.iter().map(entry_value));
        if call.get("topic").is_some() {
            return Ok(values(&self.log.entries(&call.key("topic")?)));
        }
        let all = self.log.all_entries();
        let pairs = all.iter().map(|(topic, entries)| (topic, values(entries)));
        Ok(pairs.collect())
    }

    /// A worker logs something: its address is added, unless the topic tells it.
    fn worker_logs(
        &self,
        context: &Arc<Context>,
        peer: &StreamPeer,
        mut call: Call,
    ) -> Result<(), RpcError> {
        let topics = topics_of(&call)?;
        let mut payload = call.take("msg").detached();
        if let StreamPeer::Worker(worker) = peer {
            let address = &worker.info.address;
            if !matches!(topics.as_slice(), [Key::Str(topic)] if topic == address) {
                payload.insert("worker", address);
            }
        }
        self.write(context, topics, payload);
        Ok(())
    }

    /// Forgets the topic of a peer that is gone after the delay, or when many others have gone since.
    fn forget_later(&self, context: &Arc<Context>, owner: Owner) {
        let now = Instant::now();
        let due = now.checked_add(self.cleanup_delay);
        let (excess, unswept) = {
            let mut departed = lock(&self.departed);
            let excess = departed.add(due.unwrap_or(now), owner);
            (excess, !std::mem::replace(&mut departed.swept, true))
        };
        if let Some(owner) = excess {
            self.forget(context, owner);
        }
        if unswept {
            tokio::spawn(sweep(Weak::clone(&self.this), Arc::downgrade(context)));
        }
    }

    /// Forgets the topic of a peer, unless it has come back.
    fn forget(&self, context: &Context, owner: Owner) {
        let is_back = match &owner {
            Owner::Client(name) => context.clients.named(name).is_some(),
            Owner::Worker(address) => context.workers.at(address).is_some(),
        };
        let (Owner::Client(topic) | Owner::Worker(topic)) = owner;
        if !is_back {
            self.log.truncate(&Key::Str(topic));
        }
    }

    /// Forgets what is due; when to look again, if anybody is left.
    fn forget_due(&self, context: &Context) -> Option<Instant> {
        let (due, next) = lock(&self.departed).take_due(Instant::now());
        for owner in due {
            self.forget(context, owner);
        }
        next
    }
}

impl Departed {
    /// Adds a peer; the one that has to go for it.
    fn add(&mut self, due: Instant, owner: Owner) -> Option<Owner> {
        self.queue.push_back((due, owner));
        let excess = self.queue.len() > MAX_DEPARTED;
        let longest = excess.then(|| self.queue.pop_front()).flatten();
        longest.map(|(_, owner)| owner)
    }

    /// Those that are due, and when the next one is. If there is none, nobody looks after them any more.
    fn take_due(&mut self, now: Instant) -> (Vec<Owner>, Option<Instant>) {
        let due = self.queue.iter().take_while(|&&(due, _)| due <= now);
        let due = due.count();
        let owners = self.queue.drain(..due).map(|(_, owner)| owner).collect();
        let next = self.queue.front().map(|&(due, _)| due);
        if next.is_none() {
            *self = Self::default();
        }
        (owners, next)
    }
}

/// Forgets topics when they are due, until there are none left.
async fn sweep(log: Weak<EventLogExtension>, context: Weak<Context>) {
    loop {
        let next = match (log.upgrade(), context.upgrade()) {
            (Some(log), Some(context)) => log.forget_due(&context),
            _ => None,
        };
        let Some(next) = next else {
            return;
        };
        tokio::time::sleep_until(next).await;
    }
}

impl Extension for EventLogExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .request("log_event", Self::log_event)
            .request("events", Self::events)
            .stream("log-event", |this, context, peer, call| {
                this.worker_logs(context, peer, call)
            })
            .stream("subscribe-topic", |this, _, peer, call| {
                if let StreamPeer::Client(client) = peer {
                    this.log
                        .subscribe(call.key("topic")?, Arc::clone(&client.name));
                }
                Ok(())
            })
            .stream("unsubscribe-topic", |this, _, peer, call| {
                if let StreamPeer::Client(client) = peer {
                    this.log.unsubscribe(&call.key("topic")?, &client.name);
                }
                Ok(())
            });
    }

    fn log_event(&self, context: &Arc<Context>, topics: &[Arc<str>], event: &Value) {
        let topics = topics.iter().cloned().map(Key::Str).collect();
        self.write(context, topics, event.clone());
    }

    fn client_removed(&self, context: &Arc<Context>, client: &Arc<ClientEntry>) {
        self.log.client_removed(&client.name);
        self.forget_later(context, Owner::Client(Arc::clone(&client.name)));
    }

    fn worker_removed(&self, context: &Arc<Context>, worker: &Arc<WorkerEntry>, _: &str) {
        self.forget_later(context, Owner::Worker(Arc::clone(&worker.info.address)));
    }
}

/// `topic`: one (text), or several (an array).
fn topics_of(call: &Call) -> Result<Vec<Key>, RpcError> {
    match call.required("topic")?.as_seq() {
        Some(_) => call.keys("topic"),
        None => Ok(vec![call.key("topic")?]),
    }
}

/// `[timestamp, payload]`.
fn entry_value(entry: &Arc<Entry<Value>>) -> Value {
    Value::Array(vec![entry.timestamp.into(), entry.payload.clone()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        entries: 3,
        bytes: 1_000_000,
    };

    fn payloads(log: &EventLog<u32>, topic: &str) -> Vec<u32> {
        let entries = log.entries(&topic.into());
        entries.iter().map(|entry| entry.payload).collect()
    }

    #[test]
    fn entries_are_kept_by_topic_up_to_a_number() {
        let log = EventLog::new(LIMITS);
        for i in 0..5 {
            let topics = vec![Key::from("a"), Key::from("b")];
            log.log(topics, f64::from(i), i as u32, 10);
        }
        log.log(vec![Key::from("b")], 9.0, 9, 10);
        assert_eq!(payloads(&log, "a"), [2, 3, 4]);
        assert_eq!(payloads(&log, "b"), [3, 4, 9]);
        assert!(payloads(&log, "c").is_empty());
        assert_eq!(log.entries(&"a".into())[0].timestamp, 2.0);
        let all: Vec<Key> = log
            .all_entries()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(all, [Key::from("a"), Key::from("b")]);
        let mut counts = log.counts();
        counts.sort_by_key(|(name, _)| name.to_text());
        assert_eq!(counts, [(Key::from("a"), 5), (Key::from("b"), 6)]);
    }

    #[test]
    fn memory_is_bounded_whatever_is_logged() {
        let limits = Limits {
            entries: 1000,
            bytes: 10_000,
        };
        let log = EventLog::new(limits);
        for i in 0..2000i64 {
            log.log(vec![Key::Int(i), "busy".into()], 0.0, 0, 500);
            assert!(log.bytes() <= limits.bytes);
        }
        assert!(!payloads(&log, "busy").is_empty());
        assert!(lock(&log.state).topics.len() < 20, "empty topics go");
        log.log(vec!["huge".into()], 0.0, 0, usize::MAX);
        assert!(payloads(&log, "huge").is_empty());
        for i in 0..2000i64 {
            log.truncate(&Key::Int(i));
        }
        log.truncate(&"busy".into());
        assert_eq!(log.bytes(), 0);
    }

    #[test]
    fn of_departed_peers_the_last_are_remembered_until_they_are_due() {
        let (mut departed, start) = (Departed::default(), Instant::now());
        let owner = |number: usize| Owner::Client(number.to_string().into());
        let second = |number: usize| start + Duration::from_secs(number as u64);
        for number in 0..MAX_DEPARTED {
            assert_eq!(departed.add(second(number), owner(number)), None);
        }
        assert_eq!(
            departed.add(second(MAX_DEPARTED), owner(MAX_DEPARTED)),
            Some(owner(0))
        );
        let (due, next) = departed.take_due(second(2));
        assert_eq!((due, next), (vec![owner(1), owner(2)], Some(second(3))));
        departed.swept = true;
        let (due, next) = departed.take_due(second(MAX_DEPARTED));
        assert_eq!((due.len(), next), (MAX_DEPARTED - 2, None));
        assert!(!departed.swept, "who comes next is looked after anew");
    }

    #[test]
    fn subscribers_get_what_comes_after() {
        let log = EventLog::new(LIMITS);
        let topic = Key::from("a");
        assert!(log.log(vec![topic.clone()], 0.0, 0, 1).is_empty());
        log.subscribe(topic.clone(), "c1".into());
        log.subscribe(topic.clone(), "c2".into());
        let deliveries = log.log(vec!["b".into(), topic.clone()], 1.0, 1, 1);
        assert_eq!(deliveries.len(), 1);
        assert_eq!(deliveries[0].clients, ["c1".into(), "c2".into()]);
        assert_eq!(deliveries[0].entry.payload, 1);
        log.unsubscribe(&topic, "c1");
        log.client_removed("c2");
        assert!(log.log(vec![topic.clone()], 2.0, 2, 1).is_empty());
        log.truncate(&topic);
        log.subscribe(topic.clone(), "c3".into());
        log.truncate(&topic);
        assert_eq!(log.log(vec![topic], 3.0, 3, 1).len(), 1, "still subscribed");
    }
}
