//! Subscribers of `subscribe_worker_status` (Cluster objects): each is told of workers that come
//! and go, in order. Any number may be subscribed.

use oxidask_wire::value::Value;
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// The subscribers.
#[derive(Debug, Default)]
pub struct StatusFeed {
    subscribers: Mutex<Vec<mpsc::UnboundedSender<Value>>>,
}

impl StatusFeed {
    /// A new subscription.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Value> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.subscribers.lock().push(sender);
        receiver
    }

    /// A worker registered; `identity` is its entry without `metrics` and `last_seen`.
    pub fn added(&self, address: &str, identity: Value) {
        self.tell(&Value::array([
            Value::from("add"),
            Value::map([("workers", Value::map([(address, identity)]))]),
        ]));
    }

    /// A worker is gone.
    pub fn removed(&self, address: &str) {
        self.tell(&Value::array(["remove", address]));
    }

    fn tell(&self, message: &Value) {
        self.subscribers
            .lock()
            .retain(|subscriber| subscriber.send(message.clone()).is_ok());
    }
}
