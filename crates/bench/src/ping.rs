//! How long the scheduler takes to answer the cheapest question, while it is under load.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::Target;
use crate::client::Rpc;

/// Between an answer and the next question.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks until it is stopped.
pub(crate) struct Ping {
    task: JoinHandle<Result<()>>,
    times: std::sync::Arc<std::sync::Mutex<Vec<f64>>>,
}

impl Ping {
    pub(crate) async fn start(target: &Target) -> Result<Self> {
        let mut rpc = Rpc::connect(target).await?;
        let times = std::sync::Arc::<std::sync::Mutex<Vec<f64>>>::default();
        let told = std::sync::Arc::clone(&times);
        let task = tokio::spawn(async move {
            loop {
                let asked = Instant::now();
                rpc.states(&[]).await?;
                if let Ok(mut times) = told.lock() {
                    times.push(asked.elapsed().as_secs_f64());
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Ok(Self { task, times })
    }

    /// Median, 99th percentile and longest, in milliseconds.
    pub(crate) fn stop(self) -> Value {
        self.task.abort();
        let mut times = self
            .times
            .lock()
            .map(|times| times.clone())
            .unwrap_or_default();
        percentiles(&mut times, 1e3)
    }
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
