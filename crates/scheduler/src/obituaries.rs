//! How the processes of workers died. The connection of a worker ends without a reason; its nanny knows
//! the reason a moment later, and nannies of ours tell it as an event ([`obituary`]) in the log of events,
//! which harms no other scheduler. Workers that have such a nanny say so when they register.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oxidask_wire::obituary;
use oxidask_wire::value::Value;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::workers::{WorkerEntry, WorkerTable};

/// Longest text that is taken, in bytes.
const MAX_TEXT: usize = 4096;
/// A nanny may have died with its worker.
const PATIENCE: Duration = Duration::from_millis(500);
/// What was told about a worker that did not leave then means nothing later.
const FRESH: Duration = Duration::from_secs(5);

/// What nannies told of workers that are still registered.
#[derive(Debug, Default)]
pub struct Obituaries {
    /// By address of the worker.
    told: Mutex<HashMap<Arc<str>, Told>>,
    news: Notify,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    reason: Arc<str>,
}

impl Obituaries {
    /// Takes note if the event says that the process of a registered worker has ended.
    pub fn note(&self, workers: &WorkerTable, event: &Value) {
        let text = |name| event.get(name).and_then(Value::as_str);
        if text("action") != Some(obituary::ACTION) {
            return;
        }
        let (Some(worker), Some(reason)) = (text("worker"), text("reason")) else {
            return;
        };
        let Some(worker) = workers
            .at(worker)
            .filter(|w| obituary::will_be_told(&w.extra))
        else {
            return;
        };
        if reason.len() > MAX_TEXT {
            return;
        }
        let mut told = self.told.lock();
        told.retain(|_, told| told.at.elapsed() < FRESH);
        let news = Told {
            at: Instant::now(),
            reason: reason.into(),
        };
        told.insert(Arc::clone(&worker.info.address), news);
        drop(told);
        self.news.notify_waiters();
    }

    /// How a worker whose connection has ended died. Waits a moment for its nanny, if that will tell.
    pub async fn of(&self, worker: &WorkerEntry) -> Option<Arc<str>> {
        if !obituary::will_be_told(&worker.extra) {
            return None;
        }
        let told = async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                // From here on no news is missed.
                news.as_mut().enable();
                if let Some(reason) = self.take(worker) {
                    return reason;
                }
                news.await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.ok()
    }

    /// The same, without waiting.
    pub fn take(&self, worker: &WorkerEntry) -> Option<Arc<str>> {
        let told = self.told.lock().remove(&worker.info.address)?;
        (told.at.elapsed() < FRESH).then_some(told.reason)
    }
}
