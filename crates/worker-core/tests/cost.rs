//! What a task costs. Only an order of magnitude is asserted: the figure is printed
//! (`cargo test --profile simulation -p oxidask-worker-core --test cost -- --nocapture`).
#![allow(missing_docs)]
#![expect(clippy::disallowed_methods, reason = "this measures")]

mod env;

use std::time::Instant;

use env::{config, finished};
use oxidask_key::Key;
use oxidask_worker_core::config::WorkerConfig;
use oxidask_worker_core::effect::Effect;
use oxidask_worker_core::event::{ComputeTask, Event, Replica, StimulusId};
use oxidask_worker_core::ids::{RunId, Timestamp};
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_core::{Effects, Worker};

const TASKS: u32 = 20_000;
const BATCH: u32 = 20;

fn order(i: u32, spec: &Opaque, inputs: Vec<Replica>) -> Event {
    Event::ComputeTask(Box::new(ComputeTask {
        key: Key::from(format!("inc-{i}")),
        run_id: Some(RunId(i64::from(i))),
        priority: [0.0, 0.0, f64::from(i)],
        inputs,
        run_spec: spec.clone(),
        resource_restrictions: Vec::new(),
        actor: false,
        executor: None,
        annotations: None,
        span_id: None,
        stimulus_id: "compute-task".into(),
    }))
}

/// Microseconds per task, from order to freedom, of the core alone: the median of the batches, so that
/// what else the machine does hardly counts.
fn measure(inputs: impl Fn(u32) -> Vec<Replica>) -> f64 {
    let mut w = Worker::new(WorkerConfig {
        validate: false,
        ..config(4)
    });
    let spec = Opaque::new(());
    let stimulus: StimulusId = "task-finished".into();
    let outcome = finished(28);
    let now = Timestamp(0.0);
    let mut batches = Vec::new();
    let (mut effects, mut more) = (Effects::new(), Effects::new());
    for batch in 0..TASKS / BATCH {
        let ids = batch * BATCH..(batch + 1) * BATCH;
        let orders: Vec<Event> = ids.clone().map(|i| order(i, &spec, inputs(i))).collect();
        let keys: Vec<Key> = ids.map(|i| Key::from(format!("inc-{i}"))).collect();
        let stimulus_id = StimulusId::clone(&stimulus);
        let free = Event::FreeKeys { keys, stimulus_id };
        let begin = Instant::now();
        w.handle_batch(now, orders, &mut effects);
        while !effects.is_empty() {
            for effect in effects.drain(..) {
                if let Effect::Execute { attempt, .. } = effect {
                    let event = Event::Executed {
                        attempt,
                        outcome: outcome.clone(),
                        stimulus_id: StimulusId::clone(&stimulus),
                    };
                    w.handle(now, event, &mut more);
                }
            }
            std::mem::swap(&mut effects, &mut more);
        }
        w.handle(now, free, &mut effects);
        batches.push(begin.elapsed().as_secs_f64());
        effects.clear();
    }
    assert_eq!((w.tasks_len(), w.executed_total()), (0, u64::from(TASKS)));
    batches.sort_by(f64::total_cmp);
    batches[batches.len() / 2] * 1e6 / f64::from(BATCH)
}

#[test]
fn a_trivial_task_costs_microseconds() {
    let alone = measure(|_| Vec::new());
    println!("{alone:.2} µs per trivial task");
    // Without optimisation, on a busy machine.
    assert!(alone < 200.0, "{alone:.2} µs");
}
