//! `distributed.Event`: a flag by name that many can wait for.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_wire::value::Value;

use super::named::{Idle, Named, Wake};
use super::ops::Ops;
use super::wait::Deadline;
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcTable};

/// All events that are set or waited for.
#[derive(Default)]
pub(crate) struct Events {
    flags: Named<Flag>,
}

#[derive(Default)]
struct Flag {
    is_set: bool,
    /// How often it was set: who waits is released by a `set` even when a `clear` follows at once.
    times_set: u64,
}

impl Idle for Flag {
    fn is_idle(&self) -> bool {
        !self.is_set
    }
}

impl Events {
    /// Waits until the event is set; whether that happened before the deadline.
    pub(crate) async fn wait(&self, name: &Key, deadline: Deadline) -> bool {
        let mut seen = None;
        self.flags
            .wait(name, deadline, |flag| {
                let before = *seen.get_or_insert(flag.times_set);
                (flag.is_set || flag.times_set != before).then_some(())
            })
            .await
            .is_ok()
    }

    /// Sets the event and releases all who wait.
    pub(crate) fn set(&self, name: &Key) {
        self.flags.change(name, |flag| {
            flag.is_set = true;
            flag.times_set += 1;
            ((), Wake::All)
        });
    }

    /// Clears the event.
    pub(crate) fn clear(&self, name: &Key) {
        self.flags.change(name, |flag| {
            flag.is_set = false;
            ((), Wake::Nobody)
        });
    }

    /// Whether the event is set.
    pub(crate) fn is_set(&self, name: &Key) -> bool {
        self.flags.read(name, |flag| flag.is_set).unwrap_or(false)
    }
}

/// The ops of events.
#[derive(Default)]
pub(crate) struct EventExtension {
    events: Events,
}

impl EventExtension {
    async fn wait(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let deadline = Deadline::after(call.opt_seconds("timeout")?);
        Ok(self.events.wait(&call.key("name")?, deadline).await.into())
    }

    async fn set(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        self.events.set(&call.key("name")?);
        Ok(Value::Nil)
    }

    async fn clear(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        self.events.clear(&call.key("name")?);
        Ok(Value::Nil)
    }

    async fn is_set(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        Ok(self.events.is_set(&call.key("name")?).into())
    }
}

impl Extension for EventExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .waiting("event_wait", Self::wait)
            .request("event_set", Self::set)
            .request("event_clear", Self::clear)
            .request("event_is_set", Self::is_set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Key {
        Key::from([Key::from("scope"), Key::from("x")])
    }

    #[tokio::test(start_paused = true)]
    async fn set_releases_all_who_wait() {
        let events = Arc::new(Events::default());
        assert!(!events.wait(&name(), Deadline::after(Some(0.1))).await);
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let events = Arc::clone(&events);
            waiting.push(tokio::spawn(async move {
                events.wait(&name(), Deadline::NEVER).await
            }));
        }
        tokio::task::yield_now().await;
        assert!(!events.is_set(&name()));
        events.set(&name());
        events.clear(&name());
        for task in waiting {
            assert!(task.await.expect("joined"), "cleared after it was set");
        }
        assert!(!events.is_set(&name()));
        assert!(!events.wait(&name(), Deadline::after(Some(0.0))).await);
    }

    #[tokio::test(start_paused = true)]
    async fn only_events_that_are_set_or_waited_for_need_memory() {
        let events = Arc::new(Events::default());
        events.clear(&name());
        assert!(!events.is_set(&name()));
        assert_eq!(events.flags.len(), 0);
        events.set(&name());
        assert!(events.wait(&name(), Deadline::NEVER).await);
        assert_eq!(events.flags.len(), 1);
        events.clear(&name());
        assert_eq!(events.flags.len(), 0);

        let waiting = {
            let events = Arc::clone(&events);
            tokio::spawn(async move { events.wait(&name(), Deadline::NEVER).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(events.flags.len(), 1);
        waiting.abort();
        assert!(waiting.await.is_err());
        assert_eq!(events.flags.len(), 0, "a caller that went leaves nothing");
    }
}
