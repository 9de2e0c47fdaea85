//! Published datasets: named collections that outlive their client. The dataset itself is user
//! data; its keys are held by a pseudo client per name.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use oxidask_key::Key;
use oxidask_wire::value::Value;
use tokio::sync::Notify;

use super::interest::{Interest, InterestSink, PseudoClients};
use super::ops::Ops;
use super::tasks::wait_patiently;
use super::wait::{Deadline, Elapsed, lock, wait_until};
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable, keys_of};

/// Flush marks kept for a `publish_wait_flush` that has not come yet. Clients send the two within
/// one call, so only marks of callers that died in between are ever dropped.
const MAX_ARRIVED: usize = 10_000;

/// The name is taken and the client did not ask to override.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("Dataset {0} already exists")]
pub(crate) struct AlreadyExists(pub(crate) Key);

/// A published dataset.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dataset<V> {
    /// As the client sent it.
    pub(crate) data: V,
    /// The results it needs.
    pub(crate) keys: Arc<[Key]>,
}

/// All published datasets.
pub(crate) struct Published<V> {
    datasets: Mutex<HashMap<Key, Dataset<V>>>,
    sink: Arc<dyn InterestSink>,
}

impl<V: Clone> Published<V> {
    /// Nothing published; interests go to `sink`.
    pub(crate) fn new(sink: Arc<dyn InterestSink>) -> Self {
        Self {
            datasets: Mutex::default(),
            sink,
        }
    }

    /// Publishes `data` under `name`.
    ///
    /// # Errors
    /// The name is taken and `overwrite` is false.
    pub(crate) fn put(
        &self,
        name: Key,
        data: V,
        keys: Vec<Key>,
        overwrite: bool,
    ) -> Result<(), AlreadyExists> {
        let mut datasets = lock(&self.datasets);
        if !overwrite && datasets.contains_key(&name) {
            return Err(AlreadyExists(name));
        }
        self.sink.apply(Interest::Desire {
            owner: owner(&name),
            keys: keys.clone(),
        });
        let keys: Arc<[Key]> = keys.into();
        let dataset = Dataset {
            data,
            keys: Arc::clone(&keys),
        };
        if let Some(old) = datasets.insert(name.clone(), dataset) {
            let new: HashSet<&Key> = keys.iter().collect();
            let gone = old.keys.iter().filter(|key| !new.contains(key));
            self.sink.apply(Interest::Release {
                owner: owner(&name),
                keys: gone.cloned().collect(),
            });
        }
        Ok(())
    }

    /// The dataset of that name.
    pub(crate) fn get(&self, name: &Key) -> Option<Dataset<V>> {
        lock(&self.datasets).get(name).cloned()
    }

    /// Removes a dataset; names that are not published are left alone.
    pub(crate) fn delete(&self, name: &Key) {
        let mut datasets = lock(&self.datasets);
        if datasets.remove(name).is_some() {
            self.sink.apply(Interest::Forget { owner: owner(name) });
        }
    }

    /// The names, sorted by their text.
    pub(crate) fn list(&self) -> Vec<Key> {
        let mut names: Vec<Key> = lock(&self.datasets).keys().cloned().collect();
        names.sort_by_cached_key(Key::to_text);
        names
    }
}

/// Name of the pseudo client that holds the keys.
fn owner(name: &Key) -> String {
    format!("published-{name}")
}

/// Marks that clients send on their stream so that an RPC can wait until all that was sent before
/// has arrived (since 2024.4.2).
#[derive(Default)]
pub(crate) struct Flushes {
    state: Mutex<FlushState>,
}

#[derive(Default)]
struct FlushState {
    /// Marks that arrived and nobody waited for yet, in order of arrival.
    arrived: VecDeque<Key>,
    waiting: HashMap<Key, Waiting>,
}

#[derive(Default)]
struct Waiting {
    callers: usize,
    arrived: bool,
    notify: Arc<Notify>,
}

impl Flushes {
    /// The mark arrived on the stream.
    pub(crate) fn arrived(&self, uid: Key) {
        let mut state = lock(&self.state);
        if let Some(waiting) = state.waiting.get_mut(&uid) {
            waiting.arrived = true;
            waiting.notify.notify_waiters();
            return;
        }
        if state.arrived.len() >= MAX_ARRIVED {
            state.arrived.pop_front();
        }
        state.arrived.push_back(uid);
    }

    /// Waits until the mark has arrived.
    ///
    /// # Errors
    /// It did not in time.
    pub(crate) async fn wait(&self, uid: &Key, deadline: Deadline) -> Result<(), Elapsed> {
        let (_caller, notify) = Caller::enter(self, uid);
        wait_until(&notify, deadline, || {
            let state = lock(&self.state);
            state.waiting.get(uid)?.arrived.then_some(())
        })
        .await
    }
}

/// Counts a waiting caller while it lives.
struct Caller<'a> {
    flushes: &'a Flushes,
    uid: Key,
}

impl<'a> Caller<'a> {
    fn enter(flushes: &'a Flushes, uid: &Key) -> (Self, Arc<Notify>) {
        let mut state = lock(&flushes.state);
        let place = state.arrived.iter().rposition(|other| other == uid);
        let has_arrived = place.and_then(|i| state.arrived.remove(i)).is_some();
        let waiting = state.waiting.entry(uid.clone()).or_default();
        waiting.callers += 1;
        waiting.arrived |= has_arrived;
        let notify = Arc::clone(&waiting.notify);
        let caller = Self {
            flushes,
            uid: uid.clone(),
        };
        (caller, notify)
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.flushes.state);
        if let Some(waiting) = state.waiting.get_mut(&self.uid) {
            waiting.callers = waiting.callers.saturating_sub(1);
            if waiting.callers == 0 {
                state.waiting.remove(&self.uid);
            }
        }
    }
}

/// The ops of published datasets.
pub(crate) struct PublishExtension {
    published: Published<Value>,
    flushes: Flushes,
    pseudo_clients: Arc<PseudoClients>,
}

impl PublishExtension {
    /// Nothing published yet.
    pub(crate) fn new(pseudo_clients: Arc<PseudoClients>) -> Self {
        Self {
            published: Published::new(pseudo_clients.clone()),
            flushes: Flushes::default(),
            pseudo_clients,
        }
    }

    /// Since 2026.6.0 the fields are plural and the request itself waits for the flush; before,
    /// they are singular, and the answer repeats the name.
    async fn put(self: Arc<Self>, context: Arc<Context>, mut call: Call) -> Reply {
        let overwrite = call.flag("override", false);
        if call.get("names").is_none() {
            let (name, keys) = (call.key("name")?, call.keys("keys")?);
            let reply = Value::map([("status", "OK".into()), ("name", Value::from(&name))]);
            let data = call.take("data");
            wait_patiently(&context, &keys).await?;
            self.published.put(name, data, keys, overwrite)?;
            return Ok(reply);
        }
        self.wait_for_client(&context, &call).await?;
        let names = call.keys("names")?;
        let data = into_items(call.take("data"));
        let keys = into_items(call.take("keys"));
        if names.len() != data.len() || names.len() != keys.len() {
            return Err(RpcError::value_error(
                "names, keys and data must be of equal length",
            ));
        }
        for ((name, data), keys) in names.into_iter().zip(data).zip(keys) {
            let keys = keys_of(&keys).ok_or_else(|| call.wrong("keys", "lists of keys", &keys))?;
            self.published.put(name, data, keys, overwrite)?;
        }
        Ok(Value::Nil)
    }

    async fn get(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let get = |name: &Key| {
            self.published.get(name).map(|dataset| {
                let keys = Value::array(dataset.keys.iter());
                Value::map([("data", dataset.data), ("keys", keys)])
            })
        };
        match call.get("names") {
            None => Ok(get(&call.key("name")?).into()),
            Some(_) => Ok(Value::array(call.keys("names")?.iter().map(get))),
        }
    }

    async fn delete(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        if call.get("names").is_none() {
            self.published.delete(&call.key("name")?);
            return Ok(Value::Nil);
        }
        self.wait_for_client(&context, &call).await?;
        for name in call.keys("names")? {
            self.published.delete(&name);
        }
        Ok(Value::Nil)
    }

    async fn list(self: Arc<Self>, _: Arc<Context>, _: Call) -> Reply {
        Ok(Value::array(self.published.list()))
    }

    /// 2024.4.2 – 2026.3.0.
    async fn wait_flush(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let uid = call.key("uid")?;
        let _ = self.flushes.wait(&uid, Deadline::NEVER).await;
        Ok(Value::Nil)
    }

    /// Waits until what the client sent on its stream has arrived, as long as it is connected.
    async fn wait_for_client(&self, context: &Arc<Context>, call: &Call) -> Result<(), RpcError> {
        let (uid, client) = (call.key("uid")?, call.str("client")?);
        loop {
            let patience = Deadline::after(Some(CLIENT_CHECK_INTERVAL));
            if self.flushes.wait(&uid, patience).await.is_ok() {
                return Ok(());
            }
            if context.clients.named(client).is_none() {
                return Err(RpcError::timeout(""));
            }
        }
    }
}

/// Seconds between two looks whether the client that should flush is still there.
const CLIENT_CHECK_INTERVAL: f64 = 30.0;

/// The elements of an array.
fn into_items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        other => other.as_seq().map(<[Value]>::to_vec).unwrap_or_default(),
    }
}

impl Extension for PublishExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .waiting("publish_put", Self::put)
            .request("publish_get", Self::get)
            .waiting("publish_delete", Self::delete)
            .request("publish_list", Self::list)
            .waiting("publish_wait_flush", Self::wait_flush)
            .stream("publish_flush_batched_send", |this, _, _, call| {
                this.flushes.arrived(call.key("uid")?);
                Ok(())
            });
    }

    fn started(&self, context: &Arc<Context>) {
        self.pseudo_clients.bind(context);
    }
}

impl From<AlreadyExists> for RpcError {
    fn from(error: AlreadyExists) -> Self {
        Self::key_error(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::interest::testing::Recorder;
    use super::*;

    fn published() -> (Published<u32>, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        let sink: Arc<dyn InterestSink> = recorder.clone();
        (Published::new(sink), recorder)
    }

    fn keys(keys: &[&str]) -> Vec<Key> {
        keys.iter().map(|&key| key.into()).collect()
    }

    #[test]
    fn datasets_hold_their_keys() {
        let (published, recorder) = published();
        let name = Key::from("data");
        published
            .put(name.clone(), 1, keys(&["a", "b"]), false)
            .expect("a free name");
        assert_eq!(recorder.wanted("published-data"), ["a", "b"]);
        assert_eq!(published.get(&name).map(|d| d.data), Some(1));
        published.delete(&name);
        published.delete(&name);
        assert!(recorder.wanted("published-data").is_empty());
        assert_eq!(published.get(&name), None);
    }

    #[test]
    fn a_name_is_overwritten_only_on_request() {
        let (published, recorder) = published();
        let name = Key::from("data");
        for (data, overwrite) in [(1, false), (2, false), (3, true)] {
            let done = published.put(name.clone(), data, keys(&["a"]), overwrite);
            assert_eq!(done.is_ok(), data != 2);
        }
        published
            .put(name.clone(), 4, keys(&["a", "c"]), true)
            .expect("overwritten");
        published
            .put(name.clone(), 5, keys(&["c"]), true)
            .expect("overwritten");
        assert_eq!(recorder.wanted("published-data"), ["c"]);
        assert_eq!(
            AlreadyExists(name).to_string(),
            "Dataset data already exists"
        );
    }

    #[test]
    fn names_are_listed_by_their_text() {
        let (published, _) = published();
        for name in [Key::from("b"), Key::Int(1), Key::from([Key::from("a")])] {
            published.put(name, 0, vec![], false).expect("a free name");
        }
        let expected = [Key::from([Key::from("a")]), Key::Int(1), Key::from("b")];
        assert_eq!(published.list(), expected, "('a',) < 1 < b");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_is_seen_whichever_comes_first() {
        let flushes = Arc::new(Flushes::default());
        let uid = Key::from("1");
        flushes.arrived(uid.clone());
        assert_eq!(flushes.wait(&uid, Deadline::NEVER).await, Ok(()));

        let uid = Key::from("2");
        let early = flushes.wait(&uid, Deadline::after(Some(30.0)));
        assert_eq!(early.await, Err(Elapsed));
        let waiting = {
            let (flushes, uid) = (Arc::clone(&flushes), uid.clone());
            tokio::spawn(async move { flushes.wait(&uid, Deadline::NEVER).await })
        };
        tokio::task::yield_now().await;
        flushes.arrived(uid.clone());
        assert_eq!(waiting.await.expect("joined"), Ok(()));
        let state = lock(&flushes.state);
        assert!(state.waiting.is_empty() && state.arrived.is_empty());
    }

    #[test]
    fn marks_that_nobody_asks_for_are_bounded() {
        let flushes = Flushes::default();
        for i in 0..2 * MAX_ARRIVED {
            flushes.arrived(Key::Int(i as i64));
        }
        assert_eq!(lock(&flushes.state).arrived.len(), MAX_ARRIVED);
    }
}
