//! The sessions of a scheduler: one per release of `distributed` that clients run functions of.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use oxidask_wire::release::Release;
use parking_lot::Mutex;

use super::config::PythonHostConfig;
use super::delegate::BoxFuture;
use super::error::HostError;
use super::lasting::Lasting;
use super::link::Link;
use super::process::{Process, Role};
use super::session::{Session, StateSource};
use super::{Backend, PythonHost};

/// A session, or the room for one: locked while one is started, so that no second one is.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Session>>>>;

/// Sessions by release.
pub(super) struct Sessions {
    source: Option<Arc<dyn StateSource>>,
    slots: Mutex<HashMap<Release, Slot>>,
    /// Those that run.
    open: Mutex<HashMap<u64, Weak<Session>>>,
    /// What each session of a release is given, in order.
    lasting: Mutex<HashMap<Release, Vec<Lasting>>>,
    closed: AtomicBool,
}

impl Sessions {
    /// None yet. Without a source functions cannot be run.
    pub(super) fn new(source: Option<Arc<dyn StateSource>>) -> Arc<Self> {
        Arc::new(Self {
            source,
            slots: Mutex::default(),
            open: Mutex::default(),
            lasting: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// The session for clients of `release`, started if there is none.
    ///
    /// # Errors
    /// When there is no Python for it, or it does not start.
    pub(super) async fn get(
        &self,
        host: &PythonHost,
        release: Release,
    ) -> Result<Arc<Session>, HostError> {
        let Some(source) = &self.source else {
            return Err(HostError::Off);
        };
        if self.closed.load(Ordering::Acquire) {
            return Err(HostError::ShuttingDown);
        }
        let slot = Arc::clone(self.slots.lock().entry(release).or_default());
        let mut open = slot.lock().await;
        if let Some(session) = open.as_ref().filter(|session| session.is_open()) {
            return Ok(Arc::clone(session));
        }
        let link = match host.backend(release).await? {
            Backend::Local => Link::local(Process::start(&host.config, Role::Session).await?),
            Backend::Delegated(peers) => {
                let deadline = tokio::time::Instant::now() + host.config.timeout;
                let peer = peers.choose(release, &[], deadline).await?;
                Link::delegated(peers, peer)
            }
        };
        let session = Session::start(link, release, Arc::clone(source));
        {
            let mut known = self.open.lock();
            known.retain(|_, session| session.strong_count() > 0);
            known.insert(session.id, Arc::downgrade(&session));
        }
        let lasting = self.lasting.lock().get(&release).cloned();
        let lasting = lasting.unwrap_or_default();
        host.furnish(&session, lasting).await;
        *open = Some(Arc::clone(&session));
        end_when_idle(&slot, &session, &host.config);
        Ok(session)
    }

    /// Starts the session of a release again, unless somebody did.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) fn revive(
        self: Arc<Self>,
        host: PythonHost,
        release: Release,
    ) -> BoxFuture<'static, Result<(), HostError>> {
        // Boxed, as starting a session leads back here.
        Box::pin(async move {
            if self.closed.load(Ordering::Acquire) {
                return Ok(());
            }
            self.get(&host, release).await.map(drop)
        })
    }

    /// See [`StateSource::settle`].
    pub(super) async fn settle(&self, session: &Session) {
        if let Some(source) = &self.source {
            source.settle(session.id).await;
        }
    }

    /// The session of this number, if it runs.
    pub(super) fn by_id(&self, id: u64) -> Option<Arc<Session>> {
        let session = self.open.lock().get(&id)?.upgrade()?;
        session.is_open().then_some(session)
    }

    /// Sessions that run and have plugins or preloads in them.
    pub(super) fn lasting_ones(&self) -> Vec<Arc<Session>> {
        let open: Vec<_> = self
            .open
            .lock()
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        open.into_iter()
            .filter(|session| session.is_open() && session.is_pinned())
            .collect()
    }

    /// Each session of `release` that comes is given this too. A plugin replaces one of its name.
    pub(super) fn keep(&self, release: Release, lasting: Lasting) {
        if let Lasting::Plugin { name, .. } = &lasting {
            self.let_go(release, name);
        }
        let mut all = self.lasting.lock();
        all.entry(release).or_default().push(lasting);
    }

    /// Sessions that come are not given the plugin of this name any more.
    pub(super) fn let_go(&self, release: Release, name: &str) {
        if let Some(all) = self.lasting.lock().get_mut(&release) {
            all.retain(|one| !matches!(one, Lasting::Plugin { name: other, .. } if other == name));
        }
    }

    /// Whether sessions of `release` are given anything.
    pub(super) fn has_lasting(&self, release: Release) -> bool {
        !self.closed.load(Ordering::Acquire)
            && self
                .lasting
                .lock()
                .get(&release)
                .is_some_and(|all| !all.is_empty())
    }

    /// Whether there is one for clients of `release`.
    pub(super) async fn is_open(&self, release: Release) -> bool {
        let slot = self.slots.lock().get(&release).cloned();
        match slot {
            Some(slot) => slot.lock().await.as_ref().is_some_and(|s| s.is_open()),
            None => false,
        }
    }

    /// Ends all of them.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for (_, slot) in self.slots.lock().drain() {
            if let Ok(mut open) = slot.try_lock() {
                *open = None;
            }
        }
    }
}

fn end_when_idle(slot: &Slot, session: &Arc<Session>, config: &PythonHostConfig) {
    let (slot, session) = (Arc::downgrade(slot), Arc::downgrade(session));
    let idle_timeout = config.idle_timeout;
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(idle_timeout / 4).await;
            let (Some(slot), Some(session)) = (slot.upgrade(), session.upgrade()) else {
                return;
            };
            let mut open = slot.lock().await;
            if session.idle_for() >= idle_timeout {
                if open
                    .as_ref()
                    .is_some_and(|open| Arc::ptr_eq(open, &session))
                {
                    *open = None;
                }
                return;
            }
        }
    });
}
