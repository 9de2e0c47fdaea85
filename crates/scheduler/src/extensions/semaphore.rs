//! `distributed.Semaphore`, and since 2024.7.1 `distributed.Lock`: a number of leases by name.
//! Holders refresh their leases; those of holders that died run out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oxidask_config::Config;
use oxidask_key::Key;
use oxidask_wire::value::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::ops::Ops;
use super::wait::{Deadline, Elapsed, lock, wait_until};
use crate::clock;
use crate::context::Context;
use crate::hooks::Extension;
use crate::http::Family;
use crate::rpc::{Call, Reply, RpcError, RpcTable};

/// Why an operation on a semaphore failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum SemaphoreError {
    /// Never registered, or closed.
    #[error("Semaphore or Lock `{0}` not known.")]
    Unknown(Key),
    /// Registered twice with different numbers of leases.
    #[error("Inconsistent max leases: {asked}, expected: {expected}")]
    Inconsistent {
        /// Number asked for now.
        asked: i64,
        /// Number it has.
        expected: i64,
    },
}

/// All semaphores.
#[derive(Default)]
pub(crate) struct Semaphores {
    semaphores: Mutex<HashMap<Key, Semaphore>>,
}

struct Semaphore {
    max_leases: i64,
    /// `None`: leases do not run out.
    lease_timeout: Option<Duration>,
    /// When each lease was last refreshed.
    leases: HashMap<Key, Instant>,
    released: Arc<Notify>,
    figures: Figures,
}

/// Figures of one semaphore, for the metrics page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Leases granted so far.
    pub acquired: u64,
    /// Leases given back or run out so far.
    pub released: u64,
    /// Callers waiting now.
    pub pending: u64,
    /// Seconds the latest callers waited, the latest counting half.
    pub average_pending_lease_time: f64,
    /// Most leases at a time.
    pub max_leases: i64,
    /// Leases held now.
    pub active_leases: u64,
}

impl Semaphore {
    fn is_free(&self) -> bool {
        i64::try_from(self.leases.len()).is_ok_and(|n| n < self.max_leases)
    }

    fn release(&mut self, lease: &Key) -> bool {
        let held = self.leases.remove(lease).is_some();
        if held {
            self.figures.released += 1;
            self.released.notify_one();
        }
        held
    }
}

impl Semaphores {
    /// Declares a semaphore. A second declaration must agree on the number of leases; the lease
    /// time-out of the first one stays.
    ///
    /// # Errors
    /// The number differs.
    pub(crate) fn register(
        &self,
        name: &Key,
        max_leases: i64,
        lease_timeout: Option<Duration>,
    ) -> Result<(), SemaphoreError> {
        let mut semaphores = lock(&self.semaphores);
        let semaphore = semaphores.entry(name.clone()).or_insert_with(|| Semaphore {
            max_leases,
            lease_timeout,
            leases: HashMap::new(),
            released: Arc::default(),
            figures: Figures::default(),
        });
        if semaphore.max_leases == max_leases {
            Ok(())
        } else {
            Err(SemaphoreError::Inconsistent {
                asked: max_leases,
                expected: semaphore.max_leases,
            })
        }
    }

    /// Takes the lease `lease`; whether that worked before the deadline. Callers repeat requests
    /// whose answer was lost, so a lease that is held already is granted again.
    ///
    /// # Errors
    /// The semaphore is unknown or was closed while waiting.
    pub(crate) async fn acquire(
        &self,
        name: &Key,
        lease: &Key,
        deadline: Deadline,
    ) -> Result<bool, SemaphoreError> {
        let released = self.find(name, |semaphore| Arc::clone(&semaphore.released))?;
        let _pending = Pending::enter(self, name);
        let granted = wait_until(&released, deadline, || {
            self.find(name, |semaphore| {
                if !Arc::ptr_eq(&semaphore.released, &released) {
                    // Closed and declared anew meanwhile: not the semaphore that was asked for.
                    return Some(Err(SemaphoreError::Unknown(name.clone())));
                }
                if !semaphore.leases.contains_key(lease) && !semaphore.is_free() {
                    return None;
                }
                semaphore.leases.insert(lease.clone(), Instant::now());
                semaphore.figures.acquired += 1;
                Some(Ok(()))
            })
            .unwrap_or_else(|error| Some(Err(error)))
        })
        .await;
        match granted {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) => Err(error),
            Err(Elapsed) => Ok(false),
        }
    }

    /// Gives a lease back. Stock only warns when it is not held (it may have run out) or the
    /// semaphore is unknown; whether it was held.
    pub(crate) fn release(&self, name: &Key, lease: &Key) -> bool {
        self.find(name, |semaphore| semaphore.release(lease))
            .unwrap_or(false)
    }

    /// Holders are alive. A lease that had run out is held again even when that makes too many.
    /// Returns the leases that were unknown.
    pub(crate) fn refresh(&self, name: &Key, leases: Vec<Key>) -> Vec<Key> {
        self.find(name, |semaphore| {
            let now = Instant::now();
            leases
                .into_iter()
                .filter(|lease| semaphore.leases.insert(lease.clone(), now).is_none())
                .collect()
        })
        .unwrap_or_default()
    }

    /// Number of leases held.
    pub(crate) fn value(&self, name: &Key) -> usize {
        self.find(name, |semaphore| semaphore.leases.len())
            .unwrap_or(0)
    }

    /// Removes the semaphore, whoever holds leases; waiting callers get an error. Returns the
    /// number of leases that were held.
    pub(crate) fn close(&self, name: &Key) -> usize {
        let Some(semaphore) = lock(&self.semaphores).remove(name) else {
            return 0;
        };
        semaphore.released.notify_waiters();
        semaphore.leases.len()
    }

    /// Frees the leases that were not refreshed in time; called each
    /// `distributed.scheduler.locks.lease-validation-interval`. Returns what was freed.
    pub(crate) fn expire(&self) -> Vec<(Key, Key)> {
        let now = Instant::now();
        let mut freed = Vec::new();
        for (name, semaphore) in lock(&self.semaphores).iter_mut() {
            let Some(timeout) = semaphore.lease_timeout else {
                continue;
            };
            let late: Vec<Key> = semaphore
                .leases
                .iter()
                .filter(|(_, refreshed)| now.saturating_duration_since(**refreshed) > timeout)
                .map(|(lease, _)| lease.clone())
                .collect();
            for lease in late {
                semaphore.release(&lease);
                freed.push((name.clone(), lease));
            }
        }
        freed
    }

    /// Figures of all semaphores.
    pub(crate) fn figures(&self) -> Vec<(Key, Figures)> {
        lock(&self.semaphores)
            .iter()
            .map(|(name, semaphore)| {
                let figures = Figures {
                    max_leases: semaphore.max_leases,
                    active_leases: semaphore.leases.len() as u64,
                    ..semaphore.figures.clone()
                };
                (name.clone(), figures)
            })
            .collect()
    }

    fn find<R>(
        &self,
        name: &Key,
        f: impl FnOnce(&mut Semaphore) -> R,
    ) -> Result<R, SemaphoreError> {
        match lock(&self.semaphores).get_mut(name) {
            Some(semaphore) => Ok(f(semaphore)),
            None => Err(SemaphoreError::Unknown(name.clone())),
        }
    }
}

/// Counts a waiting caller while it lives, and how long it waited.
struct Pending<'a> {
    semaphores: &'a Semaphores,
    name: Key,
    since: Instant,
}

impl<'a> Pending<'a> {
    fn enter(semaphores: &'a Semaphores, name: &Key) -> Self {
        let _ = semaphores.find(name, |semaphore| semaphore.figures.pending += 1);
        Self {
            semaphores,
            name: name.clone(),
            since: Instant::now(),
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let waited = self.since.elapsed().as_secs_f64();
        let _ = self.semaphores.find(&self.name, |semaphore| {
            let figures = &mut semaphore.figures;
            figures.pending = figures.pending.saturating_sub(1);
            figures.average_pending_lease_time =
                (figures.average_pending_lease_time + waited) / 2.0;
        });
    }
}

/// The ops of semaphores.
pub struct SemaphoreExtension {
    semaphores: Arc<Semaphores>,
    /// `distributed.scheduler.locks.lease-timeout`, for clients up to 2024.7.0.
    lease_timeout: Option<Duration>,
    /// `distributed.scheduler.locks.lease-validation-interval`.
    validation_interval: Duration,
}

impl SemaphoreExtension {
    /// No semaphores yet.
    pub fn new(config: &Config) -> Self {
        let seconds = |name: &str| {
            let path = format!("distributed.scheduler.locks.{name}");
            config.seconds(&path).filter(|s| s.is_finite())
        };
        Self {
            semaphores: Arc::default(),
            lease_timeout: seconds("lease-timeout").map(clock::seconds),
            validation_interval: clock::seconds(
                seconds("lease-validation-interval").unwrap_or(10.0),
            )
            .max(Duration::from_millis(1)),
        }
    }

    /// Figures of all semaphores, for the metrics page.
    pub fn figures(&self) -> Vec<(Key, Figures)> {
        self.semaphores.figures()
    }

    async fn register(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let name = call.key("name")?;
        let max_leases = call
            .opt_i64("max_leases")?
            .ok_or_else(|| call.wrong("max_leases", "int", &Value::Nil))?;
        // Since 2024.7.1 the client says, and `None` means that leases never run out.
        let lease_timeout = match call.args.get("lease_timeout") {
            None => self.lease_timeout,
            Some(_) => call.opt_seconds("lease_timeout")?.map(clock::seconds),
        };
        self.semaphores.register(&name, max_leases, lease_timeout)?;
        Ok(Value::Nil)
    }

    async fn acquire(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let (name, lease) = (call.key("name")?, call.key("lease_id")?);
        let deadline = Deadline::after(call.opt_seconds("timeout")?);
        let granted = self.semaphores.acquire(&name, &lease, deadline).await?;
        Ok(granted.into())
    }

    async fn release(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let (name, lease) = (call.key("name")?, call.key("lease_id")?);
        if !self.semaphores.release(&name, &lease) {
            tracing::warn!(
                "Tried to release Lock or Semaphore {name} but the lease {lease} is not held; it may have timed out"
            );
        }
        Ok(Value::Nil)
    }

    async fn refresh(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let (name, leases) = (call.key("name")?, call.keys("lease_ids")?);
        for lease in self.semaphores.refresh(&name, leases) {
            tracing::error!(
                "Refreshing an unknown lease {lease} of {name}: it timed out before, so that more leases than allowed may be held. A task that holds the GIL for long is the usual cause"
            );
        }
        Ok(Value::Nil)
    }

    async fn value(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        Ok(self.semaphores.value(&call.key("name")?).into())
    }

    async fn close(self: Arc<Self>, _: Arc<Context>, call: Call) -> Reply {
        let name = call.key("name")?;
        let held = self.semaphores.close(&name);
        if held > 0 {
            tracing::warn!("Closing semaphore {name} while {held} leases are held");
        }
        Ok(Value::Nil)
    }
}

impl Extension for SemaphoreExtension {
    fn metrics(&self) -> Vec<Family> {
        let all = self.figures();
        let family = |name: &str, help: &str, counter: bool, figure: fn(&Figures) -> f64| Family {
            name: format!("semaphore_{name}"),
            help: help.to_owned(),
            counter,
            label: "name",
            samples: all
                .iter()
                .map(|(name, figures)| (name.to_text(), figure(figures)))
                .collect(),
        };
        vec![
            family("max_leases", "Leases allowed at a time", false, |f| {
                f.max_leases as f64
            }),
            family("active_leases", "Leases held", false, |f| {
                f.active_leases as f64
            }),
            family(
                "pending_leases",
                "Callers that wait for a lease",
                false,
                |f| f.pending as f64,
            ),
            family("acquire_total", "Leases granted so far", true, |f| {
                f.acquired as f64
            }),
            family(
                "release_total",
                "Leases given back or run out so far",
                true,
                |f| f.released as f64,
            ),
            family(
                "average_pending_lease_time_s",
                "Seconds that the latest callers waited in the scheduler, the latest counting half",
                false,
                |f| f.average_pending_lease_time,
            ),
        ]
    }

    fn register(self: Arc<Self>, table: &mut RpcTable) {
        Ops::new(table, self)
            .request("semaphore_register", Self::register)
            .waiting("semaphore_acquire", Self::acquire)
            .request("semaphore_release", Self::release)
            .request("semaphore_refresh_leases", Self::refresh)
            .request("semaphore_value", Self::value)
            .request("semaphore_close", Self::close);
    }

    fn started(&self, _: &Arc<Context>) {
        let semaphores = Arc::downgrade(&self.semaphores);
        let mut interval = tokio::time::interval(self.validation_interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn(async move {
            loop {
                interval.tick().await;
                let Some(semaphores) = semaphores.upgrade() else {
                    return;
                };
                for (name, lease) in semaphores.expire() {
                    tracing::debug!("Lease {lease} of {name} timed out");
                }
            }
        });
    }
}

impl From<SemaphoreError> for RpcError {
    fn from(error: SemaphoreError) -> Self {
        match error {
            SemaphoreError::Unknown(_) => Self::runtime_error(error.to_string()),
            SemaphoreError::Inconsistent { .. } => Self::value_error(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE_TIMEOUT: Option<Duration> = Some(Duration::from_secs(30));

    fn name() -> Key {
        Key::from("s")
    }

    fn seconds(s: f64) -> Deadline {
        Deadline::after(Some(s))
    }

    fn with_leases(n: i64) -> Arc<Semaphores> {
        let semaphores = Arc::new(Semaphores::default());
        semaphores
            .register(&name(), n, LEASE_TIMEOUT)
            .expect("new semaphore");
        semaphores
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_leases_than_declared() {
        let semaphores = with_leases(2);
        for lease in ["a", "b"] {
            let got = semaphores
                .acquire(&name(), &lease.into(), Deadline::NEVER)
                .await;
            assert_eq!(got, Ok(true));
        }
        let third = semaphores.acquire(&name(), &"c".into(), seconds(1.0)).await;
        assert_eq!(third, Ok(false));
        assert_eq!(semaphores.value(&name()), 2);
        assert!(semaphores.release(&name(), &"a".into()));
        assert!(!semaphores.release(&name(), &"a".into()), "only once");
        let third = semaphores.acquire(&name(), &"c".into(), seconds(0.0)).await;
        assert_eq!(third, Ok(true));
        let figures = &semaphores.figures()[0].1;
        assert_eq!(
            (figures.acquired, figures.released, figures.pending),
            (3, 1, 0)
        );
        assert_eq!((figures.max_leases, figures.active_leases), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeated_request_gets_the_same_lease() {
        let semaphores = with_leases(1);
        for _ in 0..2 {
            let got = semaphores.acquire(&name(), &"a".into(), seconds(0.0)).await;
            assert_eq!(got, Ok(true));
        }
        assert_eq!(semaphores.value(&name()), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn declarations_must_agree() {
        let semaphores = with_leases(1);
        assert_eq!(semaphores.register(&name(), 1, None), Ok(()));
        let error = semaphores
            .register(&name(), 2, LEASE_TIMEOUT)
            .expect_err("two are not one");
        assert_eq!(error.to_string(), "Inconsistent max leases: 2, expected: 1");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_unknown_or_closed_cannot_be_acquired() {
        let semaphores = Arc::new(Semaphores::default());
        let unknown = Err(SemaphoreError::Unknown(name()));
        let got = semaphores
            .acquire(&name(), &"a".into(), Deadline::NEVER)
            .await;
        assert_eq!(got, unknown);
        assert!(!semaphores.release(&name(), &"a".into()));
        assert_eq!(semaphores.value(&name()), 0);

        semaphores
            .register(&name(), 1, LEASE_TIMEOUT)
            .expect("new semaphore");
        let held = semaphores
            .acquire(&name(), &"a".into(), Deadline::NEVER)
            .await;
        assert_eq!(held, Ok(true));
        let waiting = {
            let semaphores = Arc::clone(&semaphores);
            tokio::spawn(async move {
                semaphores
                    .acquire(&name(), &"b".into(), Deadline::NEVER)
                    .await
            })
        };
        tokio::task::yield_now().await;
        assert_eq!(semaphores.close(&name()), 1);
        assert_eq!(waiting.await.expect("joined"), unknown);
        assert_eq!(semaphores.close(&name()), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn leases_run_out_unless_refreshed() {
        let semaphores = with_leases(1);
        let got = semaphores
            .acquire(&name(), &"a".into(), Deadline::NEVER)
            .await;
        assert_eq!(got, Ok(true));
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(semaphores.refresh(&name(), vec!["a".into()]).is_empty());
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(semaphores.expire().is_empty());

        let waiting = {
            let semaphores = Arc::clone(&semaphores);
            tokio::spawn(async move {
                semaphores
                    .acquire(&name(), &"b".into(), Deadline::NEVER)
                    .await
            })
        };
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(semaphores.expire(), [(name(), Key::from("a"))]);
        assert_eq!(waiting.await.expect("joined"), Ok(true));

        // The holder was only slow: two hold the lease now.
        let unknown = semaphores.refresh(&name(), vec!["a".into(), "b".into()]);
        assert_eq!(unknown, [Key::from("a")]);
        assert_eq!(semaphores.value(&name()), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn leases_without_timeout_do_not_run_out() {
        let semaphores = Semaphores::default();
        semaphores
            .register(&name(), 1, None)
            .expect("new semaphore");
        let got = semaphores
            .acquire(&name(), &"a".into(), Deadline::NEVER)
            .await;
        assert_eq!(got, Ok(true));
        tokio::time::sleep(Duration::from_secs(1_000_000)).await;
        assert!(semaphores.expire().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_while_waiting_takes_no_lease() {
        let semaphores = with_leases(1);
        let got = semaphores
            .acquire(&name(), &"a".into(), Deadline::NEVER)
            .await;
        assert_eq!(got, Ok(true));
        let mut waiting = Vec::new();
        for lease in ["gone", "patient"] {
            let semaphores = Arc::clone(&semaphores);
            waiting.push(tokio::spawn(async move {
                semaphores
                    .acquire(&name(), &lease.into(), Deadline::NEVER)
                    .await
            }));
            tokio::task::yield_now().await;
        }
        assert_eq!(semaphores.figures()[0].1.pending, 2);
        semaphores.release(&name(), &"a".into());
        waiting[0].abort();
        let patient = waiting.pop().expect("two").await.expect("joined");
        assert_eq!(patient, Ok(true));
        let gone = waiting.pop().expect("one").await;
        assert!(gone.is_err());
        assert!(!semaphores.release(&name(), &"gone".into()));
        assert_eq!(semaphores.figures()[0].1.pending, 0);
    }
}
