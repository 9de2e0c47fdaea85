//! Nannies that are starting: they have fetched their plugins and are installing them. Whoever adds
//! a nanny plugin waits for them, as they would miss it otherwise.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Nannies between `register_nanny` and their report that they are up.
#[derive(Debug)]
pub struct NannyTable {
    starting: Arc<Mutex<HashMap<u64, String>>>,
    last: Mutex<u64>,
    count: Arc<watch::Sender<usize>>,
}

impl Default for NannyTable {
    fn default() -> Self {
        Self {
            starting: Arc::default(),
            last: Mutex::default(),
            count: Arc::new(watch::Sender::new(0)),
        }
    }
}

/// One starting nanny; it counts as starting until this is dropped.
#[derive(Debug)]
pub struct StartingNanny {
    id: u64,
    starting: Arc<Mutex<HashMap<u64, String>>>,
    count: Arc<watch::Sender<usize>>,
}

impl NannyTable {
    /// A nanny begins to start.
    pub fn begin(&self, address: &str) -> StartingNanny {
        let id = {
            let mut last = self.last.lock();
            *last += 1;
            *last
        };
        let mut starting = self.starting.lock();
        starting.insert(id, address.to_owned());
        self.count.send_replace(starting.len());
        StartingNanny {
            id,
            starting: Arc::clone(&self.starting),
            count: Arc::clone(&self.count),
        }
    }

    /// Waits until no nanny is starting.
    pub async fn all_started(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for StartingNanny {
    fn drop(&mut self) {
        let mut starting = self.starting.lock();
        starting.remove(&self.id);
        self.count.send_replace(starting.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plugins_wait_for_nannies_that_start() {
        let table = NannyTable::default();
        table.all_started().await;
        let nanny = table.begin("tcp://127.0.0.1:1");
        let wait = table.all_started();
        tokio::pin!(wait);
        assert!(futures_pending(&mut wait).await);
        drop(nanny);
        wait.await;
    }

    async fn futures_pending(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())
        })
        .await
    }
}
