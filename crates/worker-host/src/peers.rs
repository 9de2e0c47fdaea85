//! Fetching data from other workers, stock or ours.

use std::collections::HashMap;
use std::sync::Arc;

use oxidask_key::Key;
use oxidask_wire::connection::ConnectOptions;
use oxidask_wire::rpc::Request;
use oxidask_wire::{Connection, Generation, Message, Release, Value};
use oxidask_worker_core::event::{Datum, GatherOutcome};
use oxidask_worker_core::opaque::Opaque;
use parking_lot::Mutex;

use crate::error::PeerError;
use crate::interpreter::Interpreter;
use crate::settings::Settings;

/// Idle connections kept for each peer.
const IDLE_PER_PEER: usize = 4;
/// First release that does not know `max_connections` any more.
const NO_MAX_CONNECTIONS: Release = Release::new(2023, 8, 1);

/// Connections to other workers.
pub(crate) struct Peers {
    /// Our own address, told to those who are asked.
    address: Arc<str>,
    release: Release,
    options: ConnectOptions,
    interpreter: Arc<dyn Interpreter>,
    idle: Mutex<HashMap<Arc<str>, Vec<Connection>>>,
}

impl Peers {
    pub(crate) fn new(
        address: Arc<str>,
        settings: &Settings,
        interpreter: Arc<dyn Interpreter>,
    ) -> Self {
        Self {
            address,
            release: settings.release,
            options: connect_options(settings),
            interpreter,
            idle: Mutex::default(),
        }
    }

    /// Asks `worker` for data. An error means that it can not be reached.
    pub(crate) async fn get_data(
        &self,
        worker: &Arc<str>,
        keys: &[Key],
    ) -> Result<GatherOutcome, PeerError> {
        // One that was idle may have been closed by the other side meanwhile.
        if let Some(connection) = self.take_idle(worker) {
            match self.ask(connection, worker, keys).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => tracing::debug!("an idle connection to {worker} was dead: {error}"),
            }
        }
        let connection = Connection::connect(worker, &self.options).await?;
        self.ask(connection, worker, keys).await
    }

    fn take_idle(&self, worker: &Arc<str>) -> Option<Connection> {
        self.idle.lock().get_mut(worker)?.pop()
    }

    fn keep(&self, worker: &Arc<str>, connection: Connection) {
        let mut idle = self.idle.lock();
        let kept = idle.entry(Arc::clone(worker)).or_default();
        if kept.len() < IDLE_PER_PEER {
            kept.push(connection);
        }
    }

    async fn ask(
        &self,
        mut connection: Connection,
        worker: &Arc<str>,
        keys: &[Key],
    ) -> Result<GatherOutcome, PeerError> {
        let mut args = Value::map([
            ("keys", Value::array(keys.iter())),
            ("who", Value::from(&self.address)),
        ]);
        if self.release < NO_MAX_CONNECTIONS {
            args.insert("max_connections", Value::Nil);
        }
        let request = Request::new("get_data", args).to_message();
        connection.send(&request).await?;
        let reply = connection.read().await?;
        match status(&reply)?.as_str() {
            "OK" => {}
            "busy" => {
                self.keep(worker, connection);
                return Ok(GatherOutcome::Busy);
            }
            other => {
                tracing::warn!("{worker} answers get_data with {other}");
                self.keep(worker, connection);
                return Ok(GatherOutcome::Busy);
            }
        }
        connection
            .send(&Message::from_value(&Value::from("OK")))
            .await?;
        self.keep(worker, connection);
        // Objects are made in them: nobody else may have them.
        let frames = reply.frames().cloned().collect();
        drop(reply);
        let Ok(loaded) = self.interpreter.load(frames, keys.to_vec()).await else {
            // Python is ending, and so are we.
            return Ok(GatherOutcome::Busy);
        };
        let datum = |(key, object, nbytes)| Datum {
            key,
            value: Opaque::new(object),
            nbytes,
        };
        let report = |(key, failure)| (key, Opaque::new(failure));
        Ok(GatherOutcome::Answered {
            data: loaded.data.into_iter().map(datum).collect(),
            failed: loaded.failed.into_iter().map(report).collect(),
        })
    }
}

/// How peers and the scheduler are called.
pub(crate) fn connect_options(settings: &Settings) -> ConnectOptions {
    ConnectOptions {
        generation: Generation::of(&settings.release),
        timeout: settings.connect_timeout,
        pickle_protocol: 5,
        security: settings.security.clone(),
        server_name: settings.server_name.clone(),
        ..ConnectOptions::default()
    }
}

/// The field `status` of a reply.
fn status(reply: &Message) -> Result<String, PeerError> {
    let value = reply.value()?;
    let status = value.get("status").and_then(Value::as_str);
    status.map(str::to_owned).ok_or(PeerError::NoStatus)
}
