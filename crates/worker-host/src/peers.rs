//! Fetching data from other workers, stock or ours.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use oxidask_key::Key;
use oxidask_wire::connection::{Address, ConnectOptions, LandingPlace, Limits};
use oxidask_wire::rpc::Request;
use oxidask_wire::{Connection, Generation, Message, Release, Value};
use oxidask_worker_core::event::{Datum, GatherOutcome};
use oxidask_worker_core::opaque::Opaque;
use parking_lot::Mutex;

use crate::error::PeerError;
use crate::interpreter::Interpreter;
use crate::near::{self, NearError, Offered};
use crate::settings::Settings;

/// Idle connections kept for each peer.
const IDLE_PER_PEER: usize = 4;
/// Data is as large as it is: memory is taken as it arrives, and it has its own limits.
pub(crate) const LIMITS: Limits = Limits {
    max_message: 1 << 44,
    max_frames: 1 << 20,
};
/// First release that does not know `max_connections` any more.
const NO_MAX_CONNECTIONS: Release = Release::new(2023, 8, 1);

/// Connections to other workers.
pub(crate) struct Peers {
    /// Our own address, told to those who are asked.
    address: Arc<str>,
    release: Release,
    options: ConnectOptions,
    interpreter: Arc<dyn Interpreter>,
    landing: Arc<dyn LandingPlace>,
    idle: Mutex<HashMap<Arc<str>, Vec<Connection>>>,
    /// Addresses from here come from this machine; nothing if no memory is to be read.
    machine: Option<IpAddr>,
    /// Whose memory this process may not read, though they are on this machine.
    far: Mutex<HashSet<Arc<str>>>,
}

impl Peers {
    pub(crate) fn new(
        address: Arc<str>,
        settings: &Settings,
        interpreter: Arc<dyn Interpreter>,
        landing: Arc<dyn LandingPlace>,
    ) -> Self {
        let machine = Address::parse(&address)
            .ok()
            .and_then(|own| own.host.parse().ok());
        Self {
            machine: machine.filter(|_| settings.near_memory),
            far: Mutex::default(),
            address,
            release: settings.release,
            options: connect_options(settings),
            interpreter,
            landing,
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
        let mut connection = Connection::connect(worker, &self.options).await?;
        connection.reader.land_in(Arc::clone(&self.landing));
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

    /// Whether its memory may be read: it has announced that, and calls from this machine.
    fn is_near(&self, worker: &Arc<str>, connection: &Connection) -> bool {
        let announced = connection.capabilities().unwrap_or_default();
        let peer = connection.peer().map(|peer| peer.ip().to_canonical());
        self.machine.is_some_and(|own| {
            peer.is_some_and(|peer| peer.is_loopback() || peer == own.to_canonical())
                && announced.iter().any(|name| name == near::CAPABILITY)
                && !self.far.lock().contains(worker)
        })
    }

    /// Reads what a worker on this machine offers.
    async fn fetch(&self, answer: &Value) -> Result<Vec<Bytes>, NearError> {
        let offered = Offered::from_value(answer)?;
        if offered.bytes() < near::LONG {
            return offered.fetch(&*self.landing);
        }
        let landing = Arc::clone(&self.landing);
        let fetch = tokio::task::spawn_blocking(move || offered.fetch(&*landing));
        fetch.await.unwrap_or(Err(NearError::Gone))
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
        let near = self.is_near(worker, &connection);
        if near {
            args.insert(near::WELCOME, true);
        }
        let request = Request::new("get_data", args).to_message();
        connection.send(&request).await?;
        let mut reply = connection.read().await?;
        let (mut said, mut read) = (status(&reply)?, None);
        if near && said == near::OFFERED {
            match self.fetch(&reply.value()?).await {
                Ok(frames) => {
                    read = Some(frames);
                    said = "OK".into();
                }
                Err(error) => {
                    tracing::info!("the memory of {worker} is not read: {error}");
                    self.far.lock().insert(Arc::clone(worker));
                    let answer = Message::from_value(&Value::from("far"));
                    connection.send(&answer).await?;
                    reply = connection.read().await?;
                    said = status(&reply)?;
                }
            }
        }
        match said.as_str() {
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
        let frames = read.unwrap_or_else(|| reply.frames().cloned().collect());
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
        limits: LIMITS,
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
