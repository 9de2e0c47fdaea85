//! The sessions of a scheduler: one per release of `distributed` that clients run functions of.

use std::collections::HashMap;
use std::sync::Arc;

use oxidask_wire::release::Release;
use parking_lot::Mutex;

use super::config::PythonHostConfig;
use super::error::HostError;
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
}

impl Sessions {
    /// None yet. Without a source functions cannot be run.
    pub(super) fn new(source: Option<Arc<dyn StateSource>>) -> Arc<Self> {
        Arc::new(Self {
            source,
            slots: Mutex::default(),
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
        *open = Some(Arc::clone(&session));
        end_when_idle(&slot, &session, &host.config);
        Ok(session)
    }

    /// Ends all of them.
    pub(super) fn close(&self) {
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
