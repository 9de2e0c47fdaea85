//! A client: submits encoded graphs and waits for their results.

use std::collections::HashSet;

use anyhow::{Result, bail};
use oxidask_wire::{Connection, Message, Value};

use crate::Target;
use crate::graph::Graph;
use crate::registration::open;
use crate::versions::versions;
use crate::worker::field;

/// A registered client.
pub(crate) struct Client {
    connection: Connection,
    name: String,
}

impl Client {
    pub(crate) async fn connect(target: &Target, name: &str) -> Result<Self> {
        let mut connection = open(target).await?;
        let name = format!("Client-{name}");
        let request = Value::map([
            ("op", Value::from("register-client")),
            ("client", (&name).into()),
            ("reply", false.into()),
            ("versions", versions(&target.release)),
        ]);
        connection.send(&Message::from_value(&request)).await?;
        let mut client = Self { connection, name };
        loop {
            let message = client.connection.read().await?;
            for item in message.items() {
                if item?.op == "stream-start" {
                    return Ok(client);
                }
            }
        }
    }

    /// Sends a graph.
    pub(crate) async fn submit(&mut self, graph: &Graph) -> Result<()> {
        Ok(self.connection.send(&graph.message).await?)
    }

    /// Waits until all results of a graph that was sent are in memory.
    pub(crate) async fn wait(&mut self, graph: &Graph) -> Result<()> {
        let mut done: HashSet<Vec<u8>> = HashSet::new();
        while done.len() < graph.keys.len() {
            let message = self.connection.read().await?;
            for item in message.items() {
                let item = item?;
                match item.op {
                    "key-in-memory" => {
                        if let Some(key) = field(item.raw, "key")? {
                            done.insert(key.to_vec());
                        }
                    }
                    // Its worker has vanished; it is computed again.
                    "lost-data" => {
                        if let Some(key) = field(item.raw, "key")? {
                            done.remove(key);
                        }
                    }
                    "task-erred" | "cancelled-key" | "cancelled-keys" => {
                        bail!("the scheduler says {:?}", item.value());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Lets go of all results of a graph.
    pub(crate) async fn release(&mut self, graph: &Graph) -> Result<()> {
        let request = Value::map([
            ("op", Value::from("client-releases-keys")),
            ("client", (&self.name).into()),
            ("keys", Value::Array(graph.keys.clone())),
        ]);
        let batch = Value::array([request]);
        Ok(self.connection.send(&Message::from_value(&batch)).await?)
    }
}

/// A connection for requests.
pub(crate) struct Rpc(Connection);

impl Rpc {
    pub(crate) async fn connect(target: &Target) -> Result<Self> {
        Ok(Self(open(target).await?))
    }

    /// The state of each key, nil for unknown ones. With no keys, the cheapest question there is.
    pub(crate) async fn states(&mut self, keys: &[Value]) -> Result<Value> {
        let request = Value::map([
            ("op", Value::from("get_task_status")),
            ("reply", true.into()),
            ("keys", Value::Array(keys.to_vec())),
        ]);
        self.0.send(&Message::from_value(&request)).await?;
        Ok(self.0.read().await?.value()?)
    }

    /// How many results there are.
    pub(crate) async fn results(&mut self) -> Result<usize> {
        let request = Value::map([("op", Value::from("who_has")), ("reply", true.into())]);
        self.0.send(&Message::from_value(&request)).await?;
        let held = self.0.read().await?.value()?;
        Ok(held.as_map().map_or(0, <[_]>::len))
    }

    /// Address of a worker that holds the result of a key.
    pub(crate) async fn holder(&mut self, key: &Value) -> Result<Option<String>> {
        let request = Value::map([
            ("op", Value::from("who_has")),
            ("reply", true.into()),
            ("keys", Value::Array(vec![key.clone()])),
        ]);
        self.0.send(&Message::from_value(&request)).await?;
        let held = self.0.read().await?.value()?;
        let holders = held.as_map().and_then(|held| held.first()?.1.as_seq());
        let first = holders.and_then(|holders| holders.first()?.as_str());
        Ok(first.map(str::to_owned))
    }

    /// Whether the scheduler knows a key.
    pub(crate) async fn knows(&mut self, key: &Value) -> Result<bool> {
        let states = self.states(std::slice::from_ref(key)).await?;
        let states = states.as_map().unwrap_or(&[]);
        Ok(states.iter().any(|(_, state)| !state.is_nil()))
    }
}
