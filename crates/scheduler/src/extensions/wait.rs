//! Waiting with a time limit that a peer chose, safe to abandon at any moment.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Longest time limit taken at its word; beyond that (and for `inf`) the wait has no limit.
const LONGEST: f64 = 10.0 * 365.0 * 86400.0;

/// The time limit ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub(crate) struct Elapsed;

/// Until when to wait. `None` in Python (no limit) is [`Deadline::NEVER`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// No limit.
    pub(crate) const NEVER: Self = Self(None);

    /// `seconds` from now. Zero, negative and NaN mean: do not wait at all.
    pub(crate) fn after(seconds: Option<f64>) -> Self {
        Self(match seconds {
            Some(s) if s > LONGEST => None,
            Some(s) if s > 0.0 => Some(Instant::now() + Duration::from_secs_f64(s)),
            Some(_) => Some(Instant::now()),
            None => None,
        })
    }

    /// Waits for `future`, at most until the deadline. A future that is ready wins over a deadline
    /// that has passed.
    pub(crate) async fn limit<F: Future>(self, future: F) -> Result<F::Output, Elapsed> {
        match self.0 {
            Some(at) => tokio::time::timeout_at(at, future)
                .await
                .map_err(|_| Elapsed),
            None => Ok(future.await),
        }
    }

    /// Whether the time is up.
    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }
}

/// Repeats `attempt` after each notification until it yields something.
///
/// Dropping the returned future is safe: a notification it had received but not used goes to the
/// next waiter.
pub(crate) async fn wait_until<T>(
    notify: &Notify,
    deadline: Deadline,
    mut attempt: impl FnMut() -> Option<T>,
) -> Result<T, Elapsed> {
    loop {
        let notified = notify.notified();
        tokio::pin!(notified);
        // Queue up before looking, so that no change can slip in between.
        notified.as_mut().enable();
        if let Some(value) = attempt() {
            return Ok(value);
        }
        deadline.limit(notified).await?;
    }
}

/// Locks `mutex` also after a panic elsewhere: one broken request must not take the others along.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn odd_time_limits_do_not_panic() {
        for (seconds, waits) in [
            (Some(f64::NAN), false),
            (Some(-1.0), false),
            (Some(0.0), false),
            (Some(f64::NEG_INFINITY), false),
            (Some(f64::INFINITY), true),
            (Some(1e300), true),
            (Some(5.0), true),
            (None, true),
        ] {
            let deadline = Deadline::after(seconds);
            assert_eq!(!deadline.has_passed(), waits, "{seconds:?}");
            let slept = deadline
                .limit(tokio::time::sleep(Duration::from_secs(1)))
                .await;
            assert_eq!(slept.is_ok(), waits, "{seconds:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_waiter_passes_its_turn_on() {
        let notify = Notify::new();
        let first = wait_until(&notify, Deadline::NEVER, || None::<()>);
        let mut first = Box::pin(first);
        assert!(futures_poll_once(first.as_mut()).await.is_none());
        let ready = std::cell::Cell::new(false);
        let second = wait_until(&notify, Deadline::NEVER, || ready.get().then_some(()));
        let mut second = Box::pin(second);
        assert!(futures_poll_once(second.as_mut()).await.is_none());

        ready.set(true);
        notify.notify_one();
        drop(first);
        second.await.expect("the turn of the first waiter");
    }

    /// Polls `future` a single time.
    async fn futures_poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut future = Some(future);
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.take().map(|f| f.poll(cx)) {
                Some(std::task::Poll::Ready(value)) => Some(value),
                _ => None,
            })
        })
        .await
    }
}
