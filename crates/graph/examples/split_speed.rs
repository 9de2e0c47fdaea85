//! Times splitting and ordering: `split_speed FILE.case`, as written by `tests/python/expressions.py`
//!
//! Times are CPU times of the thread, so that a busy machine does not count.

use std::time::Duration;

use bytes::Bytes;
use oxidask_graph::intake::expr::split_expr;
use oxidask_graph::order::{Algorithm, OrderTask, order};
use oxidask_graph::pickle::plain::to_key;
use oxidask_graph::pickle::walker::walk;
use oxidask_graph::{Intake, Limits};

/// Time this thread has spent on a CPU.
fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = stat.split_whitespace().next().unwrap_or_default();
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let mut rest: Bytes = std::fs::read(&path)?.into();
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let len = u32::from_le_bytes(rest.split_to(4)[..].try_into()?);
            frames.push(rest.split_to(len as usize));
        }
        let (arena, root) = walk(frames.remove(0), Vec::new(), Limits::default())?;
        let keys = arena.list(root).unwrap_or_default();
        let keys: Vec<_> = keys.iter().filter_map(|&k| to_key(&arena, k)).collect();
        for _ in 0..3 {
            let start = cpu_time()?;
            let Intake::Split(graph) = split_expr(&frames, &keys, Limits::default())? else {
                return Err("needs Python".into());
            };
            let split = cpu_time()? - start;
            let start = cpu_time()?;
            let tasks = graph.tasks.iter().map(OrderTask::from);
            let order = order(tasks, &graph.numbering, Algorithm::V2026)?;
            let ordered = cpu_time()? - start;
            let count = order.len() as f64;
            let bytes: usize = graph
                .tasks
                .iter()
                .map(|task| task.spec.pickle.body.len())
                .sum();
            println!(
                "{path}: {count} tasks, split {:.2} µs/task, order {:.2} µs/task, {:.0} bytes/task of their own",
                split.as_secs_f64() * 1e6 / count,
                ordered.as_secs_f64() * 1e6 / count,
                bytes as f64 / count,
            );
        }
    }
    Ok(())
}
