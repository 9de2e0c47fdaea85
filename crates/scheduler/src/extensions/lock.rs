//! `distributed.Lock` up to 2024.7.0. Since 2024.7.1 a lock is a semaphore with one lease, see
//! [`super::semaphore`]; the two kinds do not know each other.

use std::sync::Arc;

use oxidask_key::Key;
use oxidask_wire::value::Value;

use super::named::{Idle, Named, Wake};
use super::ops::Ops;
use super::wait::Deadline;
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable};

/// All locks.
#[derive(Default)]
pub(crate) struct Locks {
    holders: Named<Holder>,
}

/// The id of the `Lock` object that holds the lock.
#[derive(Default)]
struct Holder(Option<Key>);

impl Idle for Holder {
    fn is_idle(&self) -> bool {
        self.0.is_none()
    }
}

/// A lock was released by somebody who does not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("This lock has not yet been acquired")]
pub(crate) struct NotAcquired;

impl Locks {
    /// Takes the lock for `id`; whether that worked before the deadline.
    pub(crate) async fn acquire(&self, name: &Key, id: Key, deadline: Deadline) -> bool {
        let mut id = Some(id);
        self.holders
            .wait(name, deadline, |holder| {
                if holder.0.is_some() {
                    return None;
                }
                holder.0 = id.take();
                Some(())
            })
            .await
            .is_ok()
    }

    /// Frees the lock and wakes who waited longest.
    ///
    /// # Errors
    /// `id` does not hold it.
    pub(crate) fn release(&self, name: &Key, id: &Key) -> Result<(), NotAcquired> {
        self.holders.change(name, |holder| {
            if holder.0.as_ref() != Some(id) {
                return (Err(NotAcquired), Wake::Nobody);
            }
            holder.0 = None;
            (Ok(()), Wake::One)
        })
    }
}

/// The ops of locks.
#[derive(Default)]
pub(crate) struct LockExtension {
    locks: Locks,
}

impl LockExtension {
    async fn acquire(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let (name, id) = (call.key("name")?, call.key("id")?);
        let deadline = Deadline::after(call.opt_seconds("timeout")?);
        Ok(self.locks.acquire(&name, id, deadline).await.into())
    }

    async fn release(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let (name, id) = (call.key("name")?, call.key("id")?);
        let released = self.locks.release(&name, &id);
        released.map_err(|error| RpcError::value_error(error.to_string()))?;
        Ok(Value::Nil)
    }
}

impl Extension for LockExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .waiting("lock_acquire", Self::acquire)
            .request("lock_release", Self::release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Key {
        Key::from("x")
    }

    #[tokio::test(start_paused = true)]
    async fn one_holder_at_a_time() {
        let locks = Arc::new(Locks::default());
        assert!(locks.acquire(&name(), "a".into(), Deadline::NEVER).await);
        let late = Deadline::after(Some(0.1));
        assert!(!locks.acquire(&name(), "b".into(), late).await);
        assert_eq!(locks.release(&name(), &"b".into()), Err(NotAcquired));

        let waiting = {
            let locks = Arc::clone(&locks);
            tokio::spawn(async move { locks.acquire(&name(), "c".into(), Deadline::NEVER).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(locks.release(&name(), &"a".into()), Ok(()));
        assert!(waiting.await.expect("joined"));
        assert_eq!(locks.release(&name(), &"c".into()), Ok(()));
        assert_eq!(locks.holders.len(), 0, "free locks need no memory");
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_come_in_the_order_of_their_requests() {
        let locks = Arc::new(Locks::default());
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        assert!(
            locks
                .acquire(&name(), "first".into(), Deadline::NEVER)
                .await
        );
        let mut waiting = Vec::new();
        for i in 0..5 {
            let (locks, order) = (Arc::clone(&locks), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                locks.acquire(&name(), Key::Int(i), Deadline::NEVER).await;
                order.lock().expect("no panic").push(i);
                locks.release(&name(), &Key::Int(i)).expect("held");
            }));
            tokio::task::yield_now().await;
        }
        locks.release(&name(), &"first".into()).expect("held");
        for task in waiting {
            task.await.expect("joined");
        }
        assert_eq!(*order.lock().expect("no panic"), [0, 1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_goes_does_not_take_the_lock_along() {
        let locks = Arc::new(Locks::default());
        assert!(locks.acquire(&name(), "a".into(), Deadline::NEVER).await);
        let mut waiting = Vec::new();
        for id in ["gone", "patient"] {
            let locks = Arc::clone(&locks);
            waiting.push(tokio::spawn(async move {
                locks.acquire(&name(), id.into(), Deadline::NEVER).await
            }));
            tokio::task::yield_now().await;
        }
        // Released and abandoned at once: the turn was given to a caller that never used it.
        locks.release(&name(), &"a".into()).expect("held");
        waiting[0].abort();
        assert!(waiting.pop().expect("two").await.expect("joined"));
    }
}
