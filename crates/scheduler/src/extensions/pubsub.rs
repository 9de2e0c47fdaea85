//! `distributed.Pub` and `Sub` (up to 2025.3.1). Workers publish to each other directly; the
//! scheduler introduces them, and carries what clients publish or subscribe to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use oxidask_key::Key;
use oxidask_wire::value::Value;

use super::ops::Ops;
use super::wait::lock;
use crate::clients::ClientEntry;
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable, StreamPeer};
use crate::workers::WorkerEntry;

/// A message to be sent for a topic. Fields as on the wire; `name` is the topic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outgoing<V> {
    /// `pubsub-add-subscriber` to the publishing worker `to`.
    AddSubscriber {
        /// Address of the publisher.
        to: Arc<str>,
        /// Address of the new subscriber.
        address: Arc<str>,
    },
    /// `pubsub-remove-subscriber` to the publishing worker `to`.
    RemoveSubscriber {
        /// Address of the publisher.
        to: Arc<str>,
        /// Address of the subscriber.
        address: Arc<str>,
    },
    /// `pubsub-publish-scheduler`: whether clients listen.
    PublishScheduler {
        /// Address of the publisher.
        to: Arc<str>,
        /// Whether messages have to be sent to the scheduler as well.
        publish: bool,
    },
    /// `pubsub-msg` to a client, by its name.
    ToClient {
        /// Name of the client.
        to: Arc<str>,
        /// As the publisher sent it.
        msg: V,
    },
    /// `pubsub-msg` to a worker, by its address.
    ToWorker {
        /// Address of the worker.
        to: Arc<str>,
        /// As the publisher sent it.
        msg: V,
    },
}

/// Who sent a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Peer {
    /// A worker, by its address.
    Worker(Arc<str>),
    /// A client, by its name.
    Client(Arc<str>),
}

/// What a new publisher has to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PublisherInfo {
    /// Addresses of the workers that subscribed.
    pub(crate) subscribers: Vec<Arc<str>>,
    /// Whether clients subscribed.
    pub(crate) publish_scheduler: bool,
}

/// All topics with a publisher or a subscriber.
#[derive(Default)]
pub(crate) struct PubSub {
    topics: Mutex<HashMap<Key, Topic>>,
}

/// Sorted, so that messages go out in the same order in every run.
#[derive(Default)]
struct Topic {
    /// Worker addresses.
    publishers: BTreeSet<Arc<str>>,
    /// Worker addresses.
    subscribers: BTreeSet<Arc<str>>,
    /// Client names.
    clients: BTreeSet<Arc<str>>,
}

impl PubSub {
    /// A worker publishes from now on.
    pub(crate) fn add_publisher(&self, name: &Key, worker: Arc<str>) -> PublisherInfo {
        self.change(name, |topic| {
            topic.publishers.insert(worker);
            PublisherInfo {
                subscribers: topic.subscribers.iter().cloned().collect(),
                publish_scheduler: !topic.clients.is_empty(),
            }
        })
    }

    /// A worker publishes no longer.
    pub(crate) fn remove_publisher(&self, name: &Key, worker: &str) {
        self.change(name, |topic| {
            topic.publishers.remove(worker);
        });
    }

    /// Somebody listens from now on.
    pub(crate) fn add_subscriber<V>(&self, name: &Key, peer: Peer) -> Vec<Outgoing<V>> {
        self.change(name, |topic| match peer {
            Peer::Worker(address) => {
                topic.subscribers.insert(Arc::clone(&address));
                topic.tell_publishers(|to| Outgoing::AddSubscriber {
                    to,
                    address: Arc::clone(&address),
                })
            }
            Peer::Client(client) => {
                topic.clients.insert(client);
                topic.tell_publishers(|to| Outgoing::PublishScheduler { to, publish: true })
            }
        })
    }

    /// Somebody listens no longer.
    pub(crate) fn remove_subscriber<V>(&self, name: &Key, peer: &Peer) -> Vec<Outgoing<V>> {
        self.change(name, |topic| topic.remove_subscriber(peer))
    }

    /// Carries `msg` to the clients that listen, and if a client published it, to the workers.
    pub(crate) fn publish<V: Clone>(&self, name: &Key, msg: &V, from: &Peer) -> Vec<Outgoing<V>> {
        let topics = lock(&self.topics);
        let Some(topic) = topics.get(name) else {
            return Vec::new();
        };
        let clients = topic.clients.iter().map(|to| Outgoing::ToClient {
            to: Arc::clone(to),
            msg: msg.clone(),
        });
        let mut outgoing: Vec<_> = clients.collect();
        if matches!(from, Peer::Client(_)) {
            outgoing.extend(topic.subscribers.iter().map(|to| Outgoing::ToWorker {
                to: Arc::clone(to),
                msg: msg.clone(),
            }));
        }
        outgoing
    }

    /// A peer is gone: it neither publishes nor listens. Returns what to send, by topic.
    pub(crate) fn peer_removed<V>(&self, peer: &Peer) -> BTreeMap<String, (Key, Vec<Outgoing<V>>)> {
        let mut topics = lock(&self.topics);
        let mut outgoing = BTreeMap::new();
        topics.retain(|name, topic| {
            if let Peer::Worker(address) = peer {
                topic.publishers.remove(address);
            }
            let messages = topic.remove_subscriber(peer);
            if !messages.is_empty() {
                outgoing.insert(name.repr(), (name.clone(), messages));
            }
            !topic.is_idle()
        });
        outgoing
    }

    fn change<R>(&self, name: &Key, f: impl FnOnce(&mut Topic) -> R) -> R {
        let mut topics = lock(&self.topics);
        let topic = topics.entry(name.clone()).or_default();
        let result = f(topic);
        if topic.is_idle() {
            topics.remove(name);
        }
        result
    }
}

impl Topic {
    fn is_idle(&self) -> bool {
        self.publishers.is_empty() && self.subscribers.is_empty() && self.clients.is_empty()
    }

    fn tell_publishers<V>(&self, message: impl FnMut(Arc<str>) -> Outgoing<V>) -> Vec<Outgoing<V>> {
        self.publishers.iter().cloned().map(message).collect()
    }

    fn remove_subscriber<V>(&mut self, peer: &Peer) -> Vec<Outgoing<V>> {
        match peer {
            Peer::Worker(address) if self.subscribers.remove(address) => {
                self.tell_publishers(|to| Outgoing::RemoveSubscriber {
                    to,
                    address: Arc::clone(address),
                })
            }
            Peer::Client(client) if self.clients.remove(client) && self.clients.is_empty() => {
                self.tell_publishers(|to| Outgoing::PublishScheduler { to, publish: false })
            }
            _ => Vec::new(),
        }
    }
}

/// The ops of Pub/Sub.
#[derive(Default)]
pub(crate) struct PubSubExtension {
    pubsub: PubSub,
}

impl PubSubExtension {
    async fn add_publisher(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let (name, worker) = (call.key("name")?, call.str("worker")?);
        let info = self.pubsub.add_publisher(&name, worker.into());
        let nothing = || Value::Map(Vec::new());
        let subscribers = info.subscribers.iter().map(|address| (address, nothing()));
        Ok(Value::map([
            ("subscribers", subscribers.collect::<Value>()),
            ("publish-scheduler", info.publish_scheduler.into()),
        ]))
    }

    fn publish(
        &self,
        context: &Arc<Context>,
        peer: &StreamPeer,
        mut call: Call,
    ) -> Result<(), RpcError> {
        let name = call.key("name")?;
        let msg = call.take("msg");
        let outgoing = self.pubsub.publish(&name, &msg, &Peer::of(peer));
        send(context, &name, outgoing);
        Ok(())
    }

    fn unsubscribe(
        &self,
        context: &Arc<Context>,
        peer: &StreamPeer,
        call: &Call,
    ) -> Result<(), RpcError> {
        let name = call.key("name")?;
        let outgoing = self.pubsub.remove_subscriber(&name, &Peer::of(peer));
        send(context, &name, outgoing);
        Ok(())
    }

    fn peer_removed(&self, context: &Arc<Context>, peer: &Peer) {
        for (name, outgoing) in self.pubsub.peer_removed(peer).into_values() {
            send(context, &name, outgoing);
        }
    }
}

impl Extension for PubSubExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        let mut ops = Ops::new(table, self);
        ops.request("pubsub_add_publisher", Self::add_publisher)
            .stream("pubsub-add-subscriber", |this, context, peer, call| {
                let name = call.key("name")?;
                let outgoing = this.pubsub.add_subscriber(&name, Peer::of(peer));
                send(context, &name, outgoing);
                Ok(())
            })
            .stream("pubsub-remove-publisher", |this, _, peer, call| {
                if let Peer::Worker(address) = Peer::of(peer) {
                    this.pubsub.remove_publisher(&call.key("name")?, &address);
                }
                Ok(())
            })
            .stream("pubsub-msg", |this, context, peer, call| {
                this.publish(context, peer, call)
            });
        // Clients sometimes misspell it; stock's scheduler drops them for that.
        for op in ["pubsub-remove-subscriber", "pubsub-remove-subscribers"] {
            ops.stream(op, |this, context, peer, call| {
                this.unsubscribe(context, peer, &call)
            });
        }
    }

    fn client_removed(&self, context: &Arc<Context>, client: &Arc<ClientEntry>) {
        self.peer_removed(context, &Peer::Client(Arc::clone(&client.name)));
    }

    fn worker_removed(&self, context: &Arc<Context>, worker: &Arc<WorkerEntry>, _: &str) {
        self.peer_removed(context, &Peer::Worker(Arc::clone(&worker.info.address)));
    }
}

impl Peer {
    fn of(peer: &StreamPeer) -> Self {
        match peer {
            StreamPeer::Client(client) => Self::Client(Arc::clone(&client.name)),
            StreamPeer::Worker(worker) => Self::Worker(Arc::clone(&worker.info.address)),
        }
    }
}

/// Queues `outgoing` for their peers; those that are gone are passed over.
fn send(context: &Arc<Context>, name: &Key, outgoing: Vec<Outgoing<Value>>) {
    let message = |op: &str, field: &str, value: Value| {
        Value::map([("op", op.into()), ("name", name.into()), (field, value)])
    };
    let tell_worker = |to: &str, message: Value| {
        if let Some(worker) = context.workers.at(to) {
            worker.outbox.send_message(message);
        }
    };
    for item in outgoing {
        match item {
            Outgoing::AddSubscriber { to, address } => {
                let address = Value::from(address);
                tell_worker(&to, message("pubsub-add-subscriber", "address", address));
            }
            Outgoing::RemoveSubscriber { to, address } => {
                let address = Value::from(address);
                tell_worker(&to, message("pubsub-remove-subscriber", "address", address));
            }
            Outgoing::PublishScheduler { to, publish } => {
                let publish = Value::from(publish);
                tell_worker(&to, message("pubsub-publish-scheduler", "publish", publish));
            }
            Outgoing::ToWorker { to, msg } => tell_worker(&to, message("pubsub-msg", "msg", msg)),
            Outgoing::ToClient { to, msg } => {
                if let Some(client) = context.clients.named(&to) {
                    context
                        .clients
                        .tell(client.id, message("pubsub-msg", "msg", msg));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Key {
        Key::from("t")
    }

    fn worker(address: &str) -> Peer {
        Peer::Worker(address.into())
    }

    fn client(name: &str) -> Peer {
        Peer::Client(name.into())
    }

    type Sent = Vec<Outgoing<u8>>;

    #[test]
    fn publishers_and_subscribers_learn_of_each_other() {
        let pubsub = PubSub::default();
        let info = pubsub.add_publisher(&topic(), "a".into());
        assert_eq!(info, PublisherInfo::default());
        let sent: Sent = pubsub.add_subscriber(&topic(), worker("b"));
        let expected = Outgoing::AddSubscriber {
            to: "a".into(),
            address: "b".into(),
        };
        assert_eq!(sent, [expected]);
        let sent: Sent = pubsub.add_subscriber(&topic(), client("c"));
        let expected = Outgoing::PublishScheduler {
            to: "a".into(),
            publish: true,
        };
        assert_eq!(sent, [expected]);
        let info = pubsub.add_publisher(&topic(), "d".into());
        assert_eq!(info.subscribers, ["b".into()]);
        assert!(info.publish_scheduler);
    }

    #[test]
    fn publishers_stop_sending_to_the_scheduler_with_the_last_client() {
        let pubsub = PubSub::default();
        pubsub.add_publisher(&topic(), "a".into());
        for name in ["c1", "c2"] {
            let _: Sent = pubsub.add_subscriber(&topic(), client(name));
        }
        let sent: Sent = pubsub.remove_subscriber(&topic(), &client("c1"));
        assert!(sent.is_empty());
        let sent: Sent = pubsub.remove_subscriber(&topic(), &client("c2"));
        let expected = Outgoing::PublishScheduler {
            to: "a".into(),
            publish: false,
        };
        assert_eq!(sent, [expected]);
        let sent: Sent = pubsub.remove_subscriber(&topic(), &client("c2"));
        assert!(sent.is_empty(), "told once");
    }

    #[test]
    fn messages_reach_each_listener_once() {
        let pubsub = PubSub::default();
        let _: Sent = pubsub.add_subscriber(&topic(), worker("w"));
        let _: Sent = pubsub.add_subscriber(&topic(), client("c"));
        let to_client = Outgoing::ToClient {
            to: "c".into(),
            msg: 7,
        };
        let to_worker = Outgoing::ToWorker {
            to: "w".into(),
            msg: 7,
        };
        let by_client = pubsub.publish(&topic(), &7, &client("x"));
        assert_eq!(by_client, [to_client.clone(), to_worker]);
        let by_worker = pubsub.publish(&topic(), &7, &worker("x"));
        assert_eq!(by_worker, [to_client], "workers send to workers directly");
        assert!(pubsub.publish(&"other".into(), &7, &client("x")).is_empty());
    }

    #[test]
    fn a_peer_that_is_gone_is_forgotten_everywhere() {
        let pubsub = PubSub::default();
        pubsub.add_publisher(&topic(), "a".into());
        pubsub.add_publisher(&"other".into(), "b".into());
        let _: Sent = pubsub.add_subscriber(&topic(), worker("b"));
        let sent = pubsub.peer_removed::<u8>(&worker("b"));
        let expected = Outgoing::RemoveSubscriber {
            to: "a".into(),
            address: "b".into(),
        };
        assert_eq!(sent["'t'"], (topic(), vec![expected]));
        assert_eq!(sent.len(), 1);
        pubsub.remove_publisher(&topic(), "a");
        assert!(lock(&pubsub.topics).is_empty());
    }
}
