//! `distributed.MultiLock` (since 2021.03.1): several locks at once, or any `num_locks` of them,
//! without deadlocks between callers that want overlapping sets.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use oxidask_key::Key;
use oxidask_wire::value::Value;
use tokio::sync::Notify;

use super::ops::Ops;
use super::wait::{Deadline, lock, wait_until};
use crate::context::Context;
use crate::hooks::Extension;
use crate::rpc::{Call, Reply, RpcError, RpcTable};

/// Why an operation on multi-locks failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum MultiLockError {
    /// The `MultiLock` object asks for locks while it holds or awaits some.
    #[error("{} has locks or waits for some already", .0.repr())]
    Busy(Key),
    /// More locks needed than named, or none.
    #[error("cannot acquire {num_locks} of {named} locks")]
    Count {
        /// Number needed.
        num_locks: i64,
        /// Number named.
        named: usize,
    },
    /// Nothing to release.
    #[error("{}", .0.repr())]
    Unknown(Key),
}

/// All multi-locks. They share no names with [`super::lock`] and [`super::semaphore`].
#[derive(Default)]
pub(crate) struct MultiLocks {
    state: Mutex<State>,
}

/// A user stands in the line of each lock it asked for; the first in line holds the lock.
#[derive(Default)]
struct State {
    lines: HashMap<Key, VecDeque<Key>>,
    /// By user (the id of a `MultiLock` object).
    requests: HashMap<Key, Request>,
}

struct Request {
    /// In whose lines the user stands.
    locks: Vec<Key>,
    /// Locks still needed.
    missing: usize,
    granted: Arc<Notify>,
}

impl MultiLocks {
    /// Takes `num_locks` of `locks` for `user`; whether that worked before the deadline.
    ///
    /// # Errors
    /// The user has a request already, or the numbers make no sense.
    pub(crate) async fn acquire(
        &self,
        mut locks: Vec<Key>,
        user: Key,
        num_locks: i64,
        deadline: Deadline,
    ) -> Result<bool, MultiLockError> {
        let mut seen = std::collections::HashSet::new();
        locks.retain(|name| seen.insert(name.clone()));
        let count = usize::try_from(num_locks)
            .ok()
            .filter(|n| (1..=locks.len()).contains(n))
            .ok_or(MultiLockError::Count {
                num_locks,
                named: locks.len(),
            })?;
        let granted = lock(&self.state).request(locks, user.clone(), count)?;
        let mut pending = Pending {
            locks: self,
            user: Some(user.clone()),
        };
        let acquired = wait_until(&granted, deadline, || {
            let state = lock(&self.state);
            let request = state.requests.get(&user)?;
            (request.missing == 0).then_some(())
        })
        .await
        .is_ok();
        if acquired {
            pending.user = None;
        }
        Ok(acquired)
    }

    /// Gives back all locks of `user`.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn release(&self, user: &Key) -> Result<(), MultiLockError> {
        if lock(&self.state).retract(user) {
            Ok(())
        } else {
            Err(MultiLockError::Unknown(user.clone()))
        }
    }
}

impl State {
    fn request(
        &mut self,
        mut locks: Vec<Key>,
        user: Key,
        num_locks: usize,
    ) -> Result<Arc<Notify>, MultiLockError> {
        if self.requests.contains_key(&user) {
            return Err(MultiLockError::Busy(user));
        }
        let length = |name: &Key| self.lines.get(name).map_or(0, VecDeque::len);
        locks.sort_by_key(length);
        let mut missing = num_locks;
        let mut asked = 0;
        for name in &locks {
            let line = self.lines.entry(name.clone()).or_default();
            line.push_back(user.clone());
            asked += 1;
            if line.len() == 1 {
                missing -= 1;
                if missing == 0 {
                    break;
                }
            }
        }
        locks.truncate(asked);
        let granted = Arc::new(Notify::new());
        let request = Request {
            locks,
            missing,
            granted: Arc::clone(&granted),
        };
        self.requests.insert(user, request);
        Ok(granted)
    }

    /// Takes `user` out of all lines; whether it stood in any.
    fn retract(&mut self, user: &Key) -> bool {
        let Some(request) = self.requests.remove(user) else {
            return false;
        };
        for name in request.locks {
            let Some(line) = self.lines.get_mut(&name) else {
                continue;
            };
            let held = line.front() == Some(user);
            line.retain(|other| other != user);
            let Some(next) = line.front() else {
                self.lines.remove(&name);
                continue;
            };
            if let (true, Some(next)) = (held, self.requests.get_mut(next)) {
                // May come on top of what the user needs, if more locks get free than it asked for.
                next.missing = next.missing.saturating_sub(1);
                if next.missing == 0 {
                    next.granted.notify_one();
                }
            }
        }
        true
    }
}

/// Takes a request back when its caller gives up or goes.
struct Pending<'a> {
    locks: &'a MultiLocks,
    user: Option<Key>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(user) = &self.user {
            lock(&self.locks.state).retract(user);
        }
    }
}

/// The ops of multi-locks.
#[derive(Default)]
pub(crate) struct MultiLockExtension {
    locks: MultiLocks,
}

impl MultiLockExtension {
    async fn acquire(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let (names, id) = (call.keys("locks")?, call.key("id")?);
        let all = i64::try_from(names.len()).unwrap_or(i64::MAX);
        let num_locks = call.opt_i64("num_locks")?.unwrap_or(all);
        let deadline = Deadline::after(call.opt_seconds("timeout")?);
        let acquired = self.locks.acquire(names, id, num_locks, deadline).await;
        Ok(acquired?.into())
    }

    async fn release(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        self.locks.release(&call.key("id")?)?;
        Ok(Value::Nil)
    }
}

impl Extension for MultiLockExtension {
    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .waiting("multi_lock_acquire", Self::acquire)
            .request("multi_lock_release", Self::release);
    }
}

impl From<MultiLockError> for RpcError {
    fn from(error: MultiLockError) -> Self {
        match error {
            MultiLockError::Unknown(user) => Self::key_error(user),
            // Stock fails an assertion.
            MultiLockError::Busy(_) | MultiLockError::Count { .. } => {
                Self::value_error(error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<Key> {
        names.iter().map(|&name| name.into()).collect()
    }

    async fn try_acquire(locks: &MultiLocks, wanted: &[&str], user: &str, n: i64) -> bool {
        let now = Deadline::after(Some(0.0));
        locks
            .acquire(names(wanted), user.into(), n, now)
            .await
            .expect("a valid request")
    }

    fn is_empty(locks: &MultiLocks) -> bool {
        let state = lock(&locks.state);
        state.lines.is_empty() && state.requests.is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn all_or_nothing() {
        let locks = MultiLocks::default();
        assert!(try_acquire(&locks, &["a", "b"], "1", 2).await);
        assert!(!try_acquire(&locks, &["b", "c"], "2", 2).await);
        assert!(try_acquire(&locks, &["c"], "3", 1).await, "2 gave c back");
        locks.release(&"1".into()).expect("held");
        locks.release(&"3".into()).expect("held");
        assert!(is_empty(&locks));
    }

    #[tokio::test(start_paused = true)]
    async fn some_of_several() {
        let locks = MultiLocks::default();
        assert!(try_acquire(&locks, &["a"], "1", 1).await);
        assert!(try_acquire(&locks, &["a", "b", "c"], "2", 2).await);
        assert!(!try_acquire(&locks, &["a", "b", "c"], "3", 1).await);
        assert!(try_acquire(&locks, &["d", "a"], "4", 1).await);
        for user in ["1", "2", "4"] {
            locks.release(&user.into()).expect("held");
        }
        assert!(is_empty(&locks));
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_go_on_when_their_last_lock_is_free() {
        let locks = Arc::new(MultiLocks::default());
        assert!(try_acquire(&locks, &["a"], "1", 1).await);
        assert!(try_acquire(&locks, &["b"], "2", 1).await);
        let waiting = {
            let locks = Arc::clone(&locks);
            tokio::spawn(async move {
                locks
                    .acquire(names(&["a", "b"]), "3".into(), 2, Deadline::NEVER)
                    .await
            })
        };
        tokio::task::yield_now().await;
        locks.release(&"1".into()).expect("held");
        assert!(!try_acquire(&locks, &["a"], "4", 1).await, "3 has a now");
        assert!(!waiting.is_finished());
        locks.release(&"2".into()).expect("held");
        assert_eq!(waiting.await.expect("joined"), Ok(true));
        locks.release(&"3".into()).expect("held");
        assert!(is_empty(&locks));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_goes_leaves_the_lines() {
        let locks = Arc::new(MultiLocks::default());
        assert!(try_acquire(&locks, &["a"], "1", 1).await);
        let waiting = {
            let locks = Arc::clone(&locks);
            tokio::spawn(async move {
                locks
                    .acquire(names(&["a", "b"]), "2".into(), 2, Deadline::NEVER)
                    .await
            })
        };
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.is_err());
        assert!(try_acquire(&locks, &["b"], "3", 1).await);
        locks.release(&"1".into()).expect("held");
        locks.release(&"3".into()).expect("held");
        assert!(is_empty(&locks));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_make_no_sense_are_refused() {
        let locks = MultiLocks::default();
        for (wanted, n) in [
            (&["a"][..], 2),
            (&["a"][..], 0),
            (&[][..], 0),
            (&["a", "a"][..], 2),
        ] {
            let refused = locks
                .acquire(names(wanted), "1".into(), n, Deadline::NEVER)
                .await;
            assert!(
                matches!(refused, Err(MultiLockError::Count { .. })),
                "{wanted:?} {n}"
            );
        }
        assert!(try_acquire(&locks, &["a"], "1", 1).await);
        let twice = locks
            .acquire(names(&["b"]), "1".into(), 1, Deadline::NEVER)
            .await;
        assert_eq!(twice, Err(MultiLockError::Busy("1".into())));
        locks.release(&"1".into()).expect("held");
        assert_eq!(
            locks.release(&"1".into()),
            Err(MultiLockError::Unknown("1".into()))
        );
    }
}
