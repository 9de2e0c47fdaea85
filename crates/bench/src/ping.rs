//! How long the scheduler takes to answer the cheapest question, while it is under load; also a suite of its own, for the load of
//! somebody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use crate::Target;
use crate::client::Rpc;

/// Between an answer and the next question.
const PAUSE: Duration = Duration::from_millis(10);

/// What the suite takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Between an answer and the next question, in milliseconds
    #[arg(long, default_value_t = 10)]
    pause: u64,
}

/// Asks until stdin is closed; the percentiles, in milliseconds.
pub(crate) async fn run(target: &Target, options: &Options) -> Result<Value> {
    let ping = Ping::start_with(target, Duration::from_millis(options.pause));
    let closed = tokio::task::spawn_blocking(|| {
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())
    });
    closed.await?.context("stdin cannot be read")?;
    ping.stop()
}

/// Asks until it is stopped; on a thread of its own, so that what else this process does is not measured.
pub(crate) struct Ping {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<f64>>>,
}

impl Ping {
    pub(crate) fn start(target: &Target) -> Self {
        Self::start_with(target, PAUSE)
    }

    fn start_with(target: &Target, pause: Duration) -> Self {
        let stopped = Arc::<AtomicBool>::default();
        let (target, stop) = (target.clone(), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(ask(&target, &stop, pause))
        });
        Self { stopped, thread }
    }

    /// Median, 99th percentile and longest, in milliseconds.
    ///
    /// # Errors
    /// When the scheduler did not answer.
    pub(crate) fn stop(self) -> Result<Value> {
        self.stopped.store(true, Ordering::Relaxed);
        let times = self.thread.join();
        let mut times = times.map_err(|_| anyhow!("the thread that asks panicked"))??;
        Ok(percentiles(&mut times, 1e3))
    }
}

async fn ask(target: &Target, stopped: &AtomicBool, pause: Duration) -> Result<Vec<f64>> {
    let mut rpc = Rpc::connect(target).await?;
    let mut times = Vec::new();
    while !stopped.load(Ordering::Relaxed) {
        let asked = Instant::now();
        rpc.states(&[]).await?;
        times.push(asked.elapsed().as_secs_f64());
        tokio::time::sleep(pause).await;
    }
    Ok(times)
}

/// Percentiles of some seconds, in seconds / `unit`.
pub(crate) fn percentiles(seconds: &mut [f64], unit: f64) -> Value {
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (seconds.len() as f64 * share) as usize;
        let found = seconds.get(index.min(seconds.len().saturating_sub(1)));
        found.map(|seconds| seconds * unit)
    };
    json!({
        "count": seconds.len(), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::percentiles;

    #[test]
    fn percentiles_of_a_thousand() {
        let mut seconds: Vec<f64> = (0..1000).rev().map(f64::from).collect();
        let found = percentiles(&mut seconds, 1.0);
        assert_eq!(found["p50"], 500.0);
        assert_eq!(found["p99"], 990.0);
        assert_eq!(found["max"], 999.0);
        assert!(percentiles(&mut [], 1.0)["p50"].is_null());
    }
}
