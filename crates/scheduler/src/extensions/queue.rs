//! `distributed.Queue`: first in, first out, shared by clients; holds futures and plain data.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use oxidask_key::Key;
use oxidask_wire::value::Value;
use tokio::sync::Notify;

use super::interest::{Interest, InterestSink, PseudoClients};
use super::ops::{Ops, client_name};
use super::tasks::{key_state, wait_for_graph};
use super::wait::{Deadline, Elapsed, lock, wait_until};
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable};

/// What a queue or a variable holds. `V` is user data, never looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item<V> {
    /// A reference to a result.
    Future(Key),
    /// Data as the client sent it.
    Data(V),
}

/// Why an operation on a queue failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum QueueError {
    /// Never created, or released by all who had created it.
    #[error("{}", .0.repr())]
    Unknown(Key),
    /// Still full or empty at the end of the time limit.
    #[error("")]
    Timeout,
}

impl From<Elapsed> for QueueError {
    fn from(_: Elapsed) -> Self {
        Self::Timeout
    }
}

/// All queues.
pub(crate) struct Queues<V> {
    state: Mutex<State<V>>,
    sink: Arc<dyn InterestSink>,
}

struct State<V> {
    queues: HashMap<Key, Queue<V>>,
    /// References of each queue to each key: items that lie in the queue, plus those handed out
    /// whose receipt is not confirmed yet (`queue-future-release`).
    references: HashMap<Key, HashMap<Key, u64>>,
}

struct Queue<V> {
    items: VecDeque<Item<V>>,
    /// `None`: no limit.
    maxsize: Option<NonZeroUsize>,
    /// `queue_create` minus `queue_release`.
    users: u64,
    readable: Arc<Notify>,
    writable: Arc<Notify>,
}

impl<V> Queue<V> {
    fn new(maxsize: i64) -> Self {
        Self {
            items: VecDeque::new(),
            // Zero and negative mean unlimited, as in Python's queues.
            maxsize: usize::try_from(maxsize).ok().and_then(NonZeroUsize::new),
            users: 0,
            readable: Arc::default(),
            writable: Arc::default(),
        }
    }

    fn is_full(&self) -> bool {
        self.maxsize
            .is_some_and(|maxsize| self.items.len() >= maxsize.get())
    }
}

impl<V> Queues<V> {
    /// No queues yet; interests go to `sink`.
    pub(crate) fn new(sink: Arc<dyn InterestSink>) -> Self {
        Self {
            state: Mutex::new(State {
                queues: HashMap::new(),
                references: HashMap::new(),
            }),
            sink,
        }
    }

    /// Makes the queue, or counts one more user of it; then `maxsize` of the first call stays.
    pub(crate) fn create(&self, name: &Key, maxsize: i64) {
        let mut state = lock(&self.state);
        state
            .queues
            .entry(name.clone())
            .or_insert_with(|| Queue::new(maxsize))
            .users += 1;
    }

    /// One user less; the queue goes with the last one. Whoever waits on it learns that it is
    /// unknown.
    pub(crate) fn release(&self, name: &Key) {
        let mut state = lock(&self.state);
        let Some(queue) = state.queues.get_mut(name) else {
            return;
        };
        queue.users = queue.users.saturating_sub(1);
        if queue.users > 0 {
            return;
        }
        let Some(queue) = state.queues.remove(name) else {
            return;
        };
        queue.readable.notify_waiters();
        queue.writable.notify_waiters();
        for item in queue.items {
            if let Item::Future(key) = item {
                self.drop_reference(&mut state, name, &key);
            }
        }
    }

    /// Appends `item`, waiting for room until the deadline.
    ///
    /// # Errors
    /// The queue is unknown, or stayed full.
    pub(crate) async fn put(
        &self,
        name: &Key,
        item: Item<V>,
        deadline: Deadline,
    ) -> Result<(), QueueError> {
        let writable = self.find(name, |queue| Arc::clone(&queue.writable))?;
        // The result must not go while its future waits for room.
        let reference = match &item {
            Item::Future(key) => Some(self.reference(name, key)),
            Item::Data(_) => None,
        };
        let mut item = Some(item);
        wait_until(&writable, deadline, || {
            self.find(name, |queue| {
                if !Arc::ptr_eq(&queue.writable, &writable) {
                    return Some(Err(QueueError::Unknown(name.clone())));
                }
                if queue.is_full() {
                    return None;
                }
                queue.items.extend(item.take());
                queue.readable.notify_one();
                Some(Ok(()))
            })
            .unwrap_or_else(|error| Some(Err(error)))
        })
        .await??;
        if let Some(reference) = reference {
            reference.keep();
        }
        Ok(())
    }

    /// Takes the first item, waiting for one until the deadline.
    ///
    /// # Errors
    /// The queue is unknown, or stayed empty.
    pub(crate) async fn get(
        &self,
        name: &Key,
        deadline: Deadline,
    ) -> Result<Taken<'_, V>, QueueError> {
        let mut taken = self.take(name);
        self.get_one(&mut taken, deadline).await?;
        Ok(taken)
    }

    /// Takes `count` items, waiting as long as it takes.
    ///
    /// # Errors
    /// The queue is unknown.
    pub(crate) async fn get_many(
        &self,
        name: &Key,
        count: u64,
    ) -> Result<Taken<'_, V>, QueueError> {
        let mut taken = self.take(name);
        // One at a time: a bounded queue may never hold `count` items at once.
        for _ in 0..count {
            self.get_one(&mut taken, Deadline::NEVER).await?;
        }
        Ok(taken)
    }

    /// Takes whatever is there.
    ///
    /// # Errors
    /// The queue is unknown.
    pub(crate) fn get_all(&self, name: &Key) -> Result<Taken<'_, V>, QueueError> {
        let mut taken = self.take(name);
        taken.items = self.find(name, |queue| {
            queue.writable.notify_waiters();
            queue.items.drain(..).collect()
        })?;
        Ok(taken)
    }

    /// Number of items.
    ///
    /// # Errors
    /// The queue is unknown.
    pub(crate) fn qsize(&self, name: &Key) -> Result<usize, QueueError> {
        self.find(name, |queue| queue.items.len())
    }

    /// A client confirms that it holds the future it got from the queue.
    pub(crate) fn future_release(&self, name: &Key, key: &Key, client: Option<&str>) {
        let mut state = lock(&self.state);
        if let Some(client) = client {
            self.sink.apply(Interest::HandOver {
                client: client.to_owned(),
                key: key.clone(),
            });
        }
        self.drop_reference(&mut state, name, key);
    }

    fn find<R>(&self, name: &Key, f: impl FnOnce(&mut Queue<V>) -> R) -> Result<R, QueueError> {
        match lock(&self.state).queues.get_mut(name) {
            Some(queue) => Ok(f(queue)),
            None => Err(QueueError::Unknown(name.clone())),
        }
    }

    fn take(&self, name: &Key) -> Taken<'_, V> {
        Taken {
            queues: self,
            name: name.clone(),
            items: Vec::new(),
        }
    }

    async fn get_one(
        &self,
        taken: &mut Taken<'_, V>,
        deadline: Deadline,
    ) -> Result<(), QueueError> {
        let name = taken.name.clone();
        let readable = self.find(&name, |queue| Arc::clone(&queue.readable))?;
        let item = wait_until(&readable, deadline, || {
            self.find(&name, |queue| {
                if !Arc::ptr_eq(&queue.readable, &readable) {
                    return Some(Err(QueueError::Unknown(name.clone())));
                }
                let item = queue.items.pop_front()?;
                queue.writable.notify_one();
                Some(Ok(item))
            })
            .unwrap_or_else(|error| Some(Err(error)))
        })
        .await??;
        taken.items.push(item);
        Ok(())
    }

    fn reference(&self, name: &Key, key: &Key) -> Reference<'_, V> {
        let mut state = lock(&self.state);
        let references = state.references.entry(name.clone()).or_default();
        *references.entry(key.clone()).or_default() += 1;
        self.sink.apply(Interest::Desire {
            owner: owner(name),
            keys: vec![key.clone()],
        });
        Reference {
            queues: Some(self),
            name: name.clone(),
            key: key.clone(),
        }
    }

    fn drop_reference(&self, state: &mut State<V>, name: &Key, key: &Key) {
        let Some(references) = state.references.get_mut(name) else {
            return;
        };
        let Some(count) = references.get_mut(key) else {
            return;
        };
        *count = count.saturating_sub(1);
        if *count > 0 {
            return;
        }
        references.remove(key);
        let owner = owner(name);
        if !references.is_empty() {
            let keys = vec![key.clone()];
            self.sink.apply(Interest::Release { owner, keys });
            return;
        }
        state.references.remove(name);
        if state.queues.contains_key(name) {
            let keys = vec![key.clone()];
            self.sink.apply(Interest::Release { owner, keys });
        } else {
            self.sink.apply(Interest::Forget { owner });
        }
    }
}

/// Name of the pseudo client that holds what lies in the queue.
fn owner(name: &Key) -> String {
    format!("queue-{name}")
}

/// A reference that is given up unless it is kept.
struct Reference<'a, V> {
    queues: Option<&'a Queues<V>>,
    name: Key,
    key: Key,
}

impl<V> Reference<'_, V> {
    fn keep(mut self) {
        self.queues = None;
    }
}

impl<V> Drop for Reference<'_, V> {
    fn drop(&mut self) {
        if let Some(queues) = self.queues {
            queues.drop_reference(&mut lock(&queues.state), &self.name, &self.key);
        }
    }
}

/// Items on their way to a client. Unless [`Taken::deliver`] is called they go back to where they
/// were: a caller that is gone has consumed nothing.
pub(crate) struct Taken<'a, V> {
    queues: &'a Queues<V>,
    name: Key,
    items: Vec<Item<V>>,
}

impl<V> Taken<'_, V> {
    /// What was taken.
    pub(crate) fn items(&self) -> &[Item<V>] {
        &self.items
    }

    /// Hands the items out for good.
    pub(crate) fn deliver(mut self) -> Vec<Item<V>> {
        std::mem::take(&mut self.items)
    }
}

impl<V> Drop for Taken<'_, V> {
    fn drop(&mut self) {
        if self.items.is_empty() {
            return;
        }
        let mut state = lock(&self.queues.state);
        match state.queues.get_mut(&self.name) {
            Some(queue) => {
                for item in self.items.drain(..).rev() {
                    queue.items.push_front(item);
                    queue.readable.notify_one();
                }
            }
            None => {
                for item in std::mem::take(&mut self.items) {
                    if let Item::Future(key) = item {
                        self.queues.drop_reference(&mut state, &self.name, &key);
                    }
                }
            }
        }
    }
}

/// The ops of queues.
pub(crate) struct QueueExtension {
    queues: Queues<Value>,
    pseudo_clients: Arc<PseudoClients>,
}

impl QueueExtension {
    /// No queues yet.
    pub(crate) fn new(pseudo_clients: Arc<PseudoClients>) -> Self {
        Self {
            queues: Queues::new(pseudo_clients.clone()),
            pseudo_clients,
        }
    }

    async fn create(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let maxsize = call.opt_i64("maxsize")?.unwrap_or(0);
        self.queues.create(&call.key("name")?, maxsize);
        Ok(Value::Nil)
    }

    async fn put(self: Arc<Self>, context: Arc<Context>, mut call: Call) -> Reply {
        let name = call.key("name")?;
        let deadline = Deadline::after(call.opt_seconds("timeout")?);
        let item = stored_item(&context, &mut call, deadline).await?;
        self.queues.put(&name, item, deadline).await?;
        Ok(Value::Nil)
    }

    async fn get(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let name = call.key("name")?;
        let timeout = call.opt_seconds("timeout")?;
        let batch = call.get("batch").cloned().unwrap_or_default();
        let taken = match batch {
            Value::Bool(true) => self.queues.get_all(&name)?,
            Value::Bool(false) | Value::Nil | Value::Int(0) => {
                let taken = self.queues.get(&name, Deadline::after(timeout)).await?;
                let replies = replies(&context, &call, taken.items()).await?;
                taken.deliver();
                return Ok(replies.into_iter().next().unwrap_or_default());
            }
            _ if timeout.is_some() => {
                return Err(RpcError::not_implemented(
                    "Dask queues don't support simultaneous use of integer batch sizes and timeouts",
                ));
            }
            count => {
                let wrong = || call.wrong("batch", "bool or int", &count);
                let count = count.as_i64().ok_or_else(wrong)?;
                let count = u64::try_from(count).unwrap_or(0);
                self.queues.get_many(&name, count).await?
            }
        };
        let replies = replies(&context, &call, taken.items()).await?;
        taken.deliver();
        Ok(Value::Array(replies))
    }

    async fn qsize(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        Ok(self.queues.qsize(&call.key("name")?)?.into())
    }
}

impl Extension for QueueExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .request("queue_create", Self::create)
            .waiting("queue_put", Self::put)
            .waiting("queue_get", Self::get)
            .request("queue_qsize", Self::qsize)
            .stream("queue_release", |this, _, _, call| {
                this.queues.release(&call.key("name")?);
                Ok(())
            })
            .stream("queue-future-release", |this, _, peer, call| {
                let (name, key) = (call.key("name")?, call.key("key")?);
                this.queues.future_release(&name, &key, client_name(peer));
                Ok(())
            });
    }

    fn started(&self, context: &Arc<Context>) {
        self.pseudo_clients.bind(context);
    }
}

/// The `key` or `data` of `queue_put` and `variable_set`.
///
/// # Errors
/// `TimeoutError` when the key stays unknown, where the client's release wants to know.
pub(super) async fn stored_item(
    context: &Arc<Context>,
    call: &mut Call,
    deadline: Deadline,
) -> Result<Item<Value>, RpcError> {
    if call.get("key").is_none() {
        return Ok(Item::Data(call.take("data")));
    }
    let key = call.key("key")?;
    wait_for_graph(context, &call.caller, std::slice::from_ref(&key), deadline).await?;
    Ok(Item::Future(key))
}

async fn replies(
    context: &Arc<Context>,
    call: &Call,
    items: &[Item<Value>],
) -> Result<Vec<Value>, RpcError> {
    let mut replies = Vec::new();
    for item in items {
        replies.push(item_reply(context, call, item).await?);
    }
    Ok(replies)
}

/// An item as `queue_get` and `variable_get` answer it.
pub(super) async fn item_reply(
    context: &Arc<Context>,
    call: &Call,
    item: &Item<Value>,
) -> Result<Value, RpcError> {
    let (kind, value) = match item {
        Item::Data(data) => ("msgpack", data.clone()),
        Item::Future(key) => ("Future", Value::from(key)),
    };
    let mut reply = Value::map([("type", kind.into()), ("value", value)]);
    if let Item::Future(key) = item {
        let known = key_state(context, call, key).await?;
        reply.insert("state", known.state);
        if let Some((exception, traceback)) = known.error {
            reply.insert("exception", exception);
            reply.insert("traceback", traceback);
        }
    }
    Ok(reply)
}

impl From<QueueError> for RpcError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Unknown(name) => Self::key_error(name),
            QueueError::Timeout => Self::timeout(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::interest::testing::Recorder;
    use super::*;

    fn queues() -> (Arc<Queues<u32>>, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        let sink: Arc<dyn InterestSink> = recorder.clone();
        (Arc::new(Queues::new(sink)), recorder)
    }

    fn name() -> Key {
        Key::from("x")
    }

    fn seconds(s: f64) -> Deadline {
        Deadline::after(Some(s))
    }

    #[tokio::test(start_paused = true)]
    async fn first_in_first_out() {
        let (queues, _) = queues();
        queues.create(&name(), 0);
        for i in 0..3 {
            queues
                .put(&name(), Item::Data(i), Deadline::NEVER)
                .await
                .expect("room");
        }
        assert_eq!(queues.qsize(&name()), Ok(3));
        for i in 0..3 {
            let taken = queues.get(&name(), seconds(0.0)).await.expect("an item");
            assert_eq!(taken.deliver(), [Item::Data(i)]);
        }
        let empty = queues.get(&name(), seconds(0.1)).await.map(Taken::deliver);
        assert_eq!(empty, Err(QueueError::Timeout));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_queue_is_an_error_for_everything() {
        let (queues, _) = queues();
        let unknown = QueueError::Unknown(name());
        let put = queues
            .put(&name(), Item::Data(1), Deadline::NEVER)
            .await
            .expect_err("unknown");
        assert_eq!(put, unknown);
        assert_eq!(queues.qsize(&name()), Err(unknown.clone()));
        let all = queues.get_all(&name()).map(Taken::deliver);
        assert_eq!(all, Err(unknown.clone()));
        let get = queues
            .get(&name(), Deadline::NEVER)
            .await
            .map(Taken::deliver);
        assert_eq!(get, Err(unknown.clone()));
        assert_eq!(unknown.to_string(), "'x'", "KeyError shows the repr");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_put_wait() {
        let (queues, recorder) = queues();
        queues.create(&name(), 1);
        queues
            .put(&name(), Item::Future("a".into()), Deadline::NEVER)
            .await
            .expect("room");
        let late = queues
            .put(&name(), Item::Future("b".into()), seconds(1.0))
            .await;
        assert_eq!(late, Err(QueueError::Timeout));
        assert_eq!(recorder.wanted("queue-x"), ["a"], "b is given up again");

        let other = Arc::clone(&queues);
        let put = tokio::spawn(async move {
            other
                .put(&name(), Item::Future("c".into()), seconds(10.0))
                .await
        });
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(recorder.wanted("queue-x"), ["a", "c"], "held while waiting");
        queues
            .get(&name(), Deadline::NEVER)
            .await
            .expect("a")
            .deliver();
        assert_eq!(put.await.expect("joined"), Ok(()));
        assert_eq!(queues.qsize(&name()), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_get_that_is_not_delivered_leaves_the_queue_as_it_was() {
        let (queues, recorder) = queues();
        queues.create(&name(), 0);
        for key in ["a", "b", "c"] {
            queues
                .put(&name(), Item::Future(key.into()), Deadline::NEVER)
                .await
                .expect("room");
        }
        let taken = queues.get_many(&name(), 2).await.expect("two items");
        assert_eq!(taken.items().len(), 2);
        drop(taken);
        let all = queues.get_all(&name()).expect("all");
        let expected = ["a", "b", "c"].map(|k| Item::Future(k.into()));
        assert_eq!(all.deliver(), expected);
        assert_eq!(recorder.wanted("queue-x"), ["a", "b", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_while_waiting_consumes_nothing() {
        let (queues, _) = queues();
        queues.create(&name(), 0);
        let gone = {
            let queues = Arc::clone(&queues);
            tokio::spawn(async move {
                queues
                    .get_many(&name(), 2)
                    .await
                    .map(|taken| taken.deliver().len())
            })
        };
        let waiting = {
            let queues = Arc::clone(&queues);
            tokio::spawn(async move {
                queues
                    .get(&name(), Deadline::NEVER)
                    .await
                    .map(Taken::deliver)
            })
        };
        tokio::task::yield_now().await;
        queues
            .put(&name(), Item::Data(1), Deadline::NEVER)
            .await
            .expect("room");
        tokio::task::yield_now().await;
        gone.abort();
        assert!(gone.await.is_err(), "it was still waiting for a second");
        let got = waiting.await.expect("joined").expect("the first item");
        assert_eq!(got, [Item::Data(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_producers_and_consumers_lose_nothing() {
        let (queues, _) = queues();
        queues.create(&name(), 3);
        let mut consumers = Vec::new();
        for _ in 0..10 {
            let queues = Arc::clone(&queues);
            consumers.push(tokio::spawn(async move {
                let mut sum = 0;
                for _ in 0..20 {
                    let taken = queues.get(&name(), Deadline::NEVER).await.expect("item");
                    for item in taken.deliver() {
                        if let Item::Data(i) = item {
                            sum += i;
                        }
                    }
                }
                sum
            }));
        }
        for producer in 0..10u32 {
            let queues = Arc::clone(&queues);
            tokio::spawn(async move {
                for i in 0..20 {
                    queues
                        .put(&name(), Item::Data(producer * 20 + i), Deadline::NEVER)
                        .await
                        .expect("room");
                }
            });
        }
        let mut sum = 0;
        for consumer in consumers {
            sum += consumer.await.expect("joined");
        }
        assert_eq!(sum, (0..200).sum::<u32>());
    }

    #[tokio::test(start_paused = true)]
    async fn results_are_held_until_the_receiver_confirms() {
        let (queues, recorder) = queues();
        queues.create(&name(), 0);
        for _ in 0..2 {
            queues
                .put(&name(), Item::Future("a".into()), Deadline::NEVER)
                .await
                .expect("room");
        }
        for _ in 0..2 {
            queues
                .get(&name(), Deadline::NEVER)
                .await
                .expect("a")
                .deliver();
        }
        queues.future_release(&name(), &"a".into(), Some("Client-1"));
        assert_eq!(recorder.wanted("queue-x"), ["a"], "one receipt is missing");
        assert_eq!(recorder.wanted("Client-1"), ["a"]);
        queues.future_release(&name(), &"a".into(), Some("Client-2"));
        assert!(recorder.wanted("queue-x").is_empty());
        queues.future_release(&name(), &"a".into(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_user_takes_the_queue_along() {
        let (queues, recorder) = queues();
        queues.create(&name(), 0);
        queues.create(&name(), 5);
        for key in ["lying", "handed-out"] {
            queues
                .put(&name(), Item::Future(key.into()), Deadline::NEVER)
                .await
                .expect("room");
        }
        queues
            .get(&name(), Deadline::NEVER)
            .await
            .expect("lying")
            .deliver();
        let waiting = {
            let queues = Arc::clone(&queues);
            tokio::spawn(async move { queues.get_many(&name(), 5).await.map(Taken::deliver) })
        };
        tokio::task::yield_now().await;
        queues.release(&name());
        assert!(queues.qsize(&name()).is_ok(), "one user is left");
        queues.release(&name());
        assert_eq!(
            waiting.await.expect("joined"),
            Err(QueueError::Unknown(name()))
        );
        assert_eq!(recorder.wanted("queue-x"), ["lying"], "not confirmed yet");
        queues.future_release(&name(), &"lying".into(), Some("Client-1"));
        assert!(recorder.wanted("queue-x").is_empty());
        let owner = "queue-x".to_owned();
        assert_eq!(recorder.last(), Some(Interest::Forget { owner }));
        assert!(lock(&queues.state).references.is_empty());
        queues.release(&name());
    }
}
