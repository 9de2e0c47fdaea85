//! `distributed.Variable`: one value by name, a future or plain data, shared by clients.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use oxidask_key::Key;

use oxidask_wire::value::Value;

use super::interest::{Interest, InterestSink, PseudoClients};
use super::named::{Idle, Named, Wake};
use super::ops::{Ops, client_name};
use super::queue::{Item, item_reply, stored_item};
use super::wait::{Deadline, Elapsed, lock};
use crate::clients::ClientEntry;
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable, StreamPeer};

/// All variables.
pub(crate) struct Variables<V> {
    values: Named<Slot<V>>,
    /// By variable and key. Locked after `values` where both are needed.
    holds: Mutex<HashMap<Key, HashMap<Key, Hold>>>,
    sink: Arc<dyn InterestSink>,
}

struct Slot<V>(Option<Item<V>>);

impl<V> Default for Slot<V> {
    fn default() -> Self {
        Self(None)
    }
}

impl<V> Idle for Slot<V> {
    fn is_idle(&self) -> bool {
        self.0.is_none()
    }
}

/// Why a variable still wants a key.
#[derive(Default)]
struct Hold {
    /// It is the value.
    current: bool,
    /// Receipts not confirmed yet, and by whom (client name, if it told).
    tokens: HashMap<String, Option<String>>,
}

/// The value of a variable on its way to a client. A token that is not delivered is void.
pub(crate) struct Got<'a, V> {
    variables: &'a Variables<V>,
    name: Key,
    item: Item<V>,
    token: Option<String>,
}

impl<V> Variables<V> {
    /// No variables yet; interests go to `sink`.
    pub(crate) fn new(sink: Arc<dyn InterestSink>) -> Self {
        Self {
            values: Named::default(),
            holds: Mutex::default(),
            sink,
        }
    }

    /// Sets the value. The one before is kept until all who got it have confirmed the receipt.
    pub(crate) fn set(&self, name: &Key, item: Item<V>) {
        self.values.change(name, |slot| {
            if let Item::Future(key) = &item {
                self.hold(name, key);
            }
            let same = matches!((&item, &slot.0), (Item::Future(new), Some(Item::Future(old))) if new == old);
            let old = slot.0.replace(item);
            let wake = if old.is_none() { Wake::All } else { Wake::Nobody };
            if let (Some(Item::Future(old)), false) = (old, same) {
                self.unhold(name, &old);
            }
            ((), wake)
        });
    }

    /// The value, waiting until there is one. `client` is who gets it, `token` a fresh name for
    /// the receipt of a future.
    ///
    /// # Errors
    /// Nobody set the variable in time.
    pub(crate) async fn get(
        &self,
        name: &Key,
        client: Option<&str>,
        token: String,
        deadline: Deadline,
    ) -> Result<Got<'_, V>, Elapsed>
    where
        V: Clone,
    {
        let item = self
            .values
            .wait(name, deadline, |slot| {
                let item = slot.0.clone()?;
                // Registered under the lock: no `set` may slip in and let the result go.
                if let Item::Future(key) = &item {
                    let mut holds = lock(&self.holds);
                    let hold = holds.entry(name.clone()).or_default();
                    let tokens = &mut hold.entry(key.clone()).or_default().tokens;
                    tokens.insert(token.clone(), client.map(str::to_owned));
                }
                Some(item)
            })
            .await?;
        let token = matches!(item, Item::Future(_)).then_some(token);
        Ok(Got {
            variables: self,
            name: name.clone(),
            item,
            token,
        })
    }

    /// A client confirms that it holds the future it got (`variable-future-release` up to
    /// 2024.8.1, `variable-future-received-confirm` since 2024.8.2).
    pub(crate) fn confirm(&self, name: &Key, key: &Key, token: &str, client: Option<&str>) {
        if let Some(client) = client {
            self.sink.apply(Interest::HandOver {
                client: client.to_owned(),
                key: key.clone(),
            });
        }
        self.void(name, key, token);
    }

    /// Removes the variable. Its value is kept until all who got it have confirmed the receipt.
    pub(crate) fn delete(&self, name: &Key) {
        self.values.change(name, |slot| {
            if let Some(Item::Future(key)) = slot.0.take() {
                self.unhold(name, &key);
            }
            ((), Wake::Nobody)
        });
    }

    /// A client is gone: it will confirm nothing any more.
    pub(crate) fn client_removed(&self, client: &str) {
        lock(&self.holds).retain(|name, keys| {
            for hold in keys.values_mut() {
                hold.tokens
                    .retain(|_, owner| owner.as_deref() != Some(client));
            }
            self.drop_unneeded(name, keys)
        });
    }

    fn hold(&self, name: &Key, key: &Key) {
        let mut holds = lock(&self.holds);
        let keys = holds.entry(name.clone()).or_default();
        keys.entry(key.clone()).or_default().current = true;
        self.sink.apply(Interest::Desire {
            owner: owner(name),
            keys: vec![key.clone()],
        });
    }

    fn unhold(&self, name: &Key, key: &Key) {
        self.change_hold(name, key, |hold| hold.current = false);
    }

    fn void(&self, name: &Key, key: &Key, token: &str) {
        self.change_hold(name, key, |hold| {
            hold.tokens.remove(token);
        });
    }

    fn change_hold(&self, name: &Key, key: &Key, f: impl FnOnce(&mut Hold)) {
        let mut holds = lock(&self.holds);
        let Some(keys) = holds.get_mut(name) else {
            return;
        };
        if let Some(hold) = keys.get_mut(key) {
            f(hold);
        }
        if !self.drop_unneeded(name, keys) {
            holds.remove(name);
        }
    }

    /// Releases the keys that are needed no longer; whether any is left.
    fn drop_unneeded(&self, name: &Key, keys: &mut HashMap<Key, Hold>) -> bool {
        let is_needed = |hold: &Hold| hold.current || !hold.tokens.is_empty();
        if !keys.values().any(is_needed) {
            self.sink.apply(Interest::Forget { owner: owner(name) });
            return false;
        }
        keys.retain(|key, hold| {
            let keep = is_needed(hold);
            if !keep {
                self.sink.apply(Interest::Release {
                    owner: owner(name),
                    keys: vec![key.clone()],
                });
            }
            keep
        });
        true
    }
}

/// Name of the pseudo client that holds the value.
fn owner(name: &Key) -> String {
    format!("variable-{name}")
}

impl<V> Got<'_, V> {
    /// The value.
    pub(crate) fn item(&self) -> &Item<V> {
        &self.item
    }

    /// Hands the value out for good: the value, and the token to be confirmed if it is a future.
    pub(crate) fn deliver(mut self) -> (Item<V>, Option<String>)
    where
        V: Clone,
    {
        (self.item.clone(), self.token.take())
    }
}

impl<V> Drop for Got<'_, V> {
    fn drop(&mut self) {
        if let (Some(token), Item::Future(key)) = (self.token.take(), &self.item) {
            self.variables.void(&self.name, key, &token);
        }
    }
}

/// The ops of variables.
pub(crate) struct VariableExtension {
    variables: Variables<Value>,
    pseudo_clients: Arc<PseudoClients>,
}

impl VariableExtension {
    /// No variables yet.
    pub(crate) fn new(pseudo_clients: Arc<PseudoClients>) -> Self {
        Self {
            variables: Variables::new(pseudo_clients.clone()),
            pseudo_clients,
        }
    }

    async fn set(self: Arc<Self>, context: Arc<Context>, mut call: Call) -> Reply {
        let name = call.key("name")?;
        let deadline = Deadline::after(call.opt_seconds("timeout")?);
        let item = stored_item(&context, &mut call, deadline).await?;
        self.variables.set(&name, item);
        Ok(Value::Nil)
    }

    async fn get(self: Arc<Self>, context: Arc<Context>, call: Call) -> Reply {
        let name = call.key("name")?;
        let deadline = Deadline::after(call.opt_seconds("timeout")?);
        let token = uuid::Uuid::new_v4().simple().to_string();
        let client = call.opt_str("client")?;
        let got = self
            .variables
            .get(&name, client, token, deadline)
            .await
            .map_err(|_| RpcError::timeout(""))?;
        let mut reply = item_reply(&context, &call, got.item()).await?;
        if let (_, Some(token)) = got.deliver() {
            reply.insert("token", token);
        }
        Ok(reply)
    }

    fn confirm(&self, peer: &StreamPeer, call: &Call) -> Result<(), RpcError> {
        let (name, key) = (call.key("name")?, call.key("key")?);
        let token = call.str("token")?;
        self.variables
            .confirm(&name, &key, token, client_name(peer));
        Ok(())
    }
}

impl Extension for VariableExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        let mut ops = Ops::new(table, self);
        ops.waiting("variable_set", Self::set)
            .waiting("variable_get", Self::get)
            .stream("variable_delete", |this, _, _, call| {
                this.variables.delete(&call.key("name")?);
                Ok(())
            });
        for op in [
            "variable-future-release",
            "variable-future-received-confirm",
        ] {
            ops.stream(op, |this, _, peer, call| this.confirm(peer, &call));
        }
    }

    fn started(&self, context: &Arc<Context>) {
        self.pseudo_clients.bind(context);
    }

    fn client_removed(&self, _: &Arc<Context>, client: &Arc<ClientEntry>) {
        self.variables.client_removed(&client.name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::interest::testing::Recorder;
    use super::*;

    fn variables() -> (Arc<Variables<u32>>, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        let sink: Arc<dyn InterestSink> = recorder.clone();
        (Arc::new(Variables::new(sink)), recorder)
    }

    fn name() -> Key {
        Key::from("v")
    }

    fn future(key: &str) -> Item<u32> {
        Item::Future(key.into())
    }

    async fn get(variables: &Variables<u32>, token: &str) -> Item<u32> {
        variables
            .get(&name(), Some("Client-1"), token.to_owned(), Deadline::NEVER)
            .await
            .expect("a value")
            .deliver()
            .0
    }

    #[tokio::test(start_paused = true)]
    async fn get_waits_for_the_first_set() {
        let (variables, _) = variables();
        let early = variables
            .get(&name(), None, "t".into(), Deadline::after(Some(1.0)))
            .await;
        assert!(early.is_err());
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let variables = Arc::clone(&variables);
            waiting.push(tokio::spawn(async move { get(&variables, "t").await }));
        }
        tokio::task::yield_now().await;
        variables.set(&name(), Item::Data(7));
        for get in waiting {
            assert_eq!(get.await.expect("joined"), Item::Data(7));
        }
        variables.set(&name(), Item::Data(8));
        assert_eq!(get(&variables, "t").await, Item::Data(8));
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_value_stays_until_its_receipts_are_confirmed() {
        let (variables, recorder) = variables();
        variables.set(&name(), future("old"));
        get(&variables, "t1").await;
        get(&variables, "t2").await;
        variables.set(&name(), future("new"));
        assert_eq!(recorder.wanted("variable-v"), ["new", "old"]);
        variables.confirm(&name(), &"old".into(), "t1", Some("Client-1"));
        assert_eq!(recorder.wanted("Client-1"), ["old"]);
        assert_eq!(recorder.wanted("variable-v"), ["new", "old"]);
        variables.confirm(&name(), &"old".into(), "t2", None);
        assert_eq!(recorder.wanted("variable-v"), ["new"]);
        variables.confirm(&name(), &"old".into(), "t2", None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_set_again_while_waiting_for_receipts_stays() {
        let (variables, recorder) = variables();
        variables.set(&name(), future("a"));
        get(&variables, "t").await;
        variables.set(&name(), future("b"));
        variables.set(&name(), future("a"));
        variables.confirm(&name(), &"a".into(), "t", None);
        assert_eq!(recorder.wanted("variable-v"), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn setting_the_same_future_twice_keeps_it() {
        let (variables, recorder) = variables();
        variables.set(&name(), future("a"));
        variables.set(&name(), future("a"));
        assert_eq!(recorder.wanted("variable-v"), ["a"]);
        variables.delete(&name());
        assert!(recorder.wanted("variable-v").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn receipts_of_a_client_that_is_gone_do_not_count() {
        let (variables, recorder) = variables();
        variables.set(&name(), future("a"));
        get(&variables, "t").await;
        variables.delete(&name());
        assert_eq!(recorder.wanted("variable-v"), ["a"]);
        variables.client_removed("Client-1");
        assert!(recorder.wanted("variable-v").is_empty());
        assert!(lock(&variables.holds).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_get_that_is_not_delivered_leaves_no_token() {
        let (variables, recorder) = variables();
        variables.set(&name(), future("a"));
        let got = variables
            .get(&name(), None, "t".into(), Deadline::NEVER)
            .await
            .expect("a value");
        assert_eq!(got.item(), &future("a"));
        variables.delete(&name());
        assert_eq!(recorder.wanted("variable-v"), ["a"], "on its way");
        drop(got);
        assert!(recorder.wanted("variable-v").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deleted_variable_is_forgotten() {
        let (variables, _) = variables();
        variables.set(&name(), Item::Data(1));
        variables.delete(&name());
        variables.delete(&name());
        assert_eq!(variables.values.len(), 0);
        let late = variables
            .get(&name(), None, "t".into(), Deadline::after(Some(1.0)))
            .await;
        assert!(late.is_err());
        assert_eq!(variables.values.len(), 0, "waiting leaves nothing behind");
    }
}
