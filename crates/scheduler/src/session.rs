//! One task per accepted connection: requests and answers until the peer registers as a client or
//! worker (or subscribes), which turns the connection into a stream.

pub mod client;
mod feed;
mod nanny;
mod requests;
mod status;
pub mod worker;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use oxidask_scheduler_core::ids::Timestamp;
use oxidask_wire::connection::Scheme;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;

use crate::clock;
use crate::context::Context;
use crate::roles::{Granted, Roles};
use crate::rpc::{Caller, RpcError};

pub use requests::serve;

/// Least time for a burst of writes to a stream under load; what is queued meanwhile goes into one
/// message. An idle stream is written to at once.
const FLUSH_INTERVAL: Duration = Duration::from_millis(2);
/// The same for a client to which results flow in: it looks at what it got every 10 ms or so.
const FLUSH_INTERVAL_OF_FLOW: Duration = Duration::from_millis(8);
/// Writes to a worker within [`FLUSH_INTERVAL`] before it is held back. A stock worker, which collects
/// for 2 ms itself, never comes near it: a timer for each of its tasks would cost as much as the task.
const BURST: u32 = 4;

/// Holds back the writes of a stream: to a few per [`FLUSH_INTERVAL`]; or, on a stream of news, to one,
/// and up to one per [`FLUSH_INTERVAL_OF_FLOW`] while each write takes along several items: a caller
/// that waits for one result before it asks for the next never meets the longer one.
#[derive(Debug)]
struct Pace {
    /// When the current interval began, and the writes in it.
    began: Option<tokio::time::Instant>,
    writes: u32,
    burst: u32,
    interval: Duration,
    longest: Duration,
}

impl Pace {
    /// For a stream on which the other end waits for every message.
    fn even() -> Self {
        Self::up_to(FLUSH_INTERVAL, BURST)
    }

    /// For a stream of news.
    fn of_flow() -> Self {
        Self::up_to(FLUSH_INTERVAL_OF_FLOW, 1)
    }

    fn up_to(longest: Duration, burst: u32) -> Self {
        Self {
            began: None,
            writes: 0,
            burst,
            interval: FLUSH_INTERVAL,
            longest,
        }
    }

    /// Waits until the next write may begin.
    async fn turn(&mut self) {
        if let Some(began) = self.began
            && self.writes >= self.burst
        {
            tokio::time::sleep_until(began + self.interval).await;
        }
    }

    /// A write of so many items ended.
    fn wrote(&mut self, items: usize) {
        let now = tokio::time::Instant::now();
        self.writes += 1;
        if self.began.is_none_or(|began| now - began >= self.interval) {
            self.began = Some(now);
            self.writes = 1;
        }
        self.interval = match items {
            0 | 1 => FLUSH_INTERVAL,
            _ => (self.interval * 2).min(self.longest),
        };
    }
}

/// The release in `versions.packages.distributed`; peers that do not tell are taken for the newest.
fn release_of(versions: &Value) -> Release {
    versions
        .get("packages")
        .and_then(|packages| packages.get("distributed"))
        .and_then(Value::as_str)
        .and_then(Release::parse)
        .unwrap_or(Release::NEWEST)
}

/// The other end of a connection.
#[derive(Clone, Debug)]
struct Origin {
    scheme: Scheme,
    peer: SocketAddr,
    /// What its certificate gives it; None: everything.
    granted: Option<Arc<Granted>>,
}

impl Origin {
    fn roles(&self) -> Roles {
        self.granted
            .as_ref()
            .map_or(Roles::ADMIN, |granted| granted.roles)
    }

    /// Whether it may ask for an op.
    ///
    /// # Errors
    /// `PermissionError`, which is also logged.
    fn check(&self, op: &str) -> Result<(), RpcError> {
        match &self.granted {
            Some(granted) if !granted.roles.may(op) => {
                let Granted { roles, subject } = &**granted;
                let reason = format!("{subject} has {roles}, which may not ask for '{op}'");
                tracing::warn!(target: "distributed.scheduler", "Permission denied to {self}: {reason}");
                Err(RpcError::permission_error(reason))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.peer)
    }
}

/// Who asks on a connection. The release is that of a registered peer on the same host.
fn caller(context: &Context, origin: &Origin) -> Arc<Caller> {
    let ip = origin.peer.ip();
    Arc::new(Caller {
        address: origin.to_string().into(),
        ip: Some(ip),
        release: context.releases.of(ip),
        roles: origin.roles(),
    })
}

/// Scheduler's clock minus a peer's, from the `now` it sent.
fn time_delay(now: &Value, received: Timestamp) -> f64 {
    now.as_f64().map_or(0.0, |now| received.0 - now)
}

/// A name for a cause that the peer did not name.
pub(crate) fn stimulus(what: &str) -> Arc<str> {
    clock::now().name(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flow_of_news_is_held_back_for_longer() {
        let mut pace = Pace::of_flow();
        pace.wrote(1);
        assert_eq!(pace.interval, FLUSH_INTERVAL);
        for _ in 0..9 {
            pace.wrote(2);
        }
        assert_eq!(pace.interval, FLUSH_INTERVAL_OF_FLOW);
        pace.wrote(1);
        assert_eq!(pace.interval, FLUSH_INTERVAL);
        let mut even = Pace::even();
        even.wrote(100);
        assert_eq!(even.interval, FLUSH_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_held_back_after_a_burst() {
        let started = tokio::time::Instant::now();
        let mut even = Pace::even();
        for _ in 0..BURST {
            even.turn().await;
            even.wrote(1);
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        even.turn().await;
        assert_eq!(started.elapsed(), FLUSH_INTERVAL);
        even.wrote(1);
        even.turn().await;
        assert_eq!(started.elapsed(), FLUSH_INTERVAL, "a new interval");
    }
}
