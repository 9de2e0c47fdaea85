//! `benchmark_hardware`: bandwidth of disk, memory and network, as workers measure it, averaged.

use std::sync::Arc;

use indexmap::IndexMap;
use oxidask_wire::value::Value;

use crate::context::Context;
use crate::handlers::broadcast::{OnError, all, ask_all};
use crate::rpc::{Call, Reply, RpcError};

/// The op. The network is measured between disjoint pairs of workers.
pub async fn benchmark_hardware(context: Arc<Context>, _call: Call) -> Reply {
    let targets = all(&context);
    let mut result = Vec::new();
    for (name, op) in [("disk", "benchmark_disk"), ("memory", "benchmark_memory")] {
        let msg = Value::map([("op", op)]);
        let answers = ask_all(&context, &targets, msg, false, OnError::Raise).await?;
        let answers: Vec<Value> = answers.into_iter().map(|(_, answer)| answer).collect();
        result.push((name, averages(&answers)));
    }
    result.push(("network", averages(&network(&context).await?)));
    Ok(Value::map(result))
}

async fn network(context: &Arc<Context>) -> Result<Vec<Value>, RpcError> {
    let workers = context.workers.all();
    let half = workers.len() / 2;
    let mut tasks = tokio::task::JoinSet::new();
    // Workers that registered one after the other tend to be on one host; these pairs are apart.
    for (from, to) in workers.iter().zip(workers.iter().skip(half)).take(half) {
        let (context, from) = (Arc::clone(context), Arc::clone(&from.info.address));
        let request = Value::map([
            ("op", Value::from("benchmark_network")),
            ("reply", true.into()),
            ("address", (&to.info.address).into()),
        ]);
        tasks.spawn(async move { context.peers.ask(&from, &request).await });
    }
    let mut answers = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        answers.push(joined.map_err(|_| RpcError::runtime_error("benchmark aborted"))??);
    }
    Ok(answers)
}

/// Mean of the figures under each label.
fn averages(answers: &[Value]) -> Value {
    let mut sums: IndexMap<&str, (f64, f64)> = IndexMap::new();
    for answer in answers {
        for (label, figure) in answer.as_map().unwrap_or(&[]) {
            if let (Some(label), Some(figure)) = (label.as_str(), figure.as_f64()) {
                let (sum, count) = sums.entry(label).or_default();
                *sum += figure;
                *count += 1.0;
            }
        }
    }
    Value::map(
        sums.into_iter()
            .map(|(label, (sum, count))| (label, sum / count)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_averaged_by_label() {
        let answers = [
            Value::map([("1 kiB", 1.0), ("1 MiB", 5.0)]),
            Value::map([("1 kiB", 3.0)]),
        ];
        assert_eq!(
            averages(&answers),
            Value::map([("1 kiB", 2.0), ("1 MiB", 5.0)])
        );
        assert_eq!(averages(&[]), Value::Map(Vec::new()));
    }
}
