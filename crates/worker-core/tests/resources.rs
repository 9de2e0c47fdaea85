//! Abstract resources.
#![allow(missing_docs)]

mod env;

use env::{TestEnv, config, finished, order};
use oxidask_worker_core::config::WorkerConfig;
use oxidask_worker_core::event::{ComputeTask, Event};
use oxidask_worker_core::task::TaskState::*;

fn cluster() -> TestEnv {
    TestEnv::with_config(WorkerConfig {
        resources: vec![("GPU".into(), 2.0), ("DISK".into(), 1.0)],
        ..config(4)
    })
}

fn needing(name: &str, needs: &[(&str, f64)], priority: f64) -> ComputeTask {
    let mut order = order(name, &[]);
    order.priority = [0.0, 0.0, priority];
    order.resource_restrictions = needs.iter().map(|&(n, a)| (n.into(), a)).collect();
    order
}

#[test]
fn tasks_wait_for_their_resources() {
    let mut env = cluster();
    for name in ["a", "b", "c"] {
        env.order(needing(name, &[("GPU", 1.0)], 0.0));
    }
    env.expect(&["run a", "run b"]);
    assert_eq!(env.state("c"), Some(Constrained));
    env.finish("a");
    env.expect(&["store a", "finished a@1", "run c"]);
    env.free(&["b"]);
    env.order(needing("d", &[("GPU", 1.0)], 0.0));
    // A cancelled task holds them until it ends.
    env.expect(&["abandon b"]);
    env.done("b", finished(1));
    env.expect(&["run d"]);
}

#[test]
fn a_seceded_task_keeps_its_resources() {
    let mut env = cluster();
    env.order(needing("a", &[("GPU", 2.0)], 0.0));
    env.secede("a");
    env.order(needing("b", &[("GPU", 1.0)], 0.0));
    env.expect(&["run a", "long-running a@1"]);
    env.finish("a");
    env.expect(&["store a", "finished a@1", "run b"]);
}

#[test]
fn a_task_that_waits_is_overtaken_only_by_what_it_does_not_need() {
    let mut env = cluster();
    env.order(needing("half", &[("GPU", 1.0)], 0.0));
    env.order(needing("whole", &[("GPU", 2.0)], 1.0));
    env.order(needing("other half", &[("GPU", 1.0)], 2.0));
    env.order(needing("disk", &[("DISK", 1.0)], 3.0));
    env.order(needing("none", &[], 4.0));
    env.expect(&["run half", "run disk", "run none"]);
    env.finish("half");
    env.expect(&["store half", "finished half@1", "run whole"]);
    env.finish("whole");
    env.expect(&["store whole", "finished whole@1", "run other half"]);
}

#[test]
fn what_is_not_offered_is_waited_for_until_it_is() {
    let mut env = cluster();
    env.order(needing("a", &[("TPU", 1.0)], 0.0));
    env.expect(&[]);
    env.event(Event::SetResources {
        resources: vec![("TPU".into(), 1.0)],
        stimulus_id: "set-resources".into(),
    });
    env.expect(&["run a"]);
    env.steal("a");
    env.expect(&["steal a executing"]);
}

#[test]
fn less_than_is_in_use_is_made_up_for_later() {
    let mut env = cluster();
    env.order(needing("a", &[("GPU", 2.0)], 0.0));
    env.event(Event::SetResources {
        resources: vec![("GPU".into(), 1.0)],
        stimulus_id: "set-resources".into(),
    });
    env.order(needing("b", &[("GPU", 1.0)], 0.0));
    env.expect(&["run a"]);
    env.finish("a");
    env.expect(&["store a", "finished a@1", "run b"]);
    let gpu = env.w.resources().find(|(n, ..)| &***n == "GPU");
    assert!(gpu.is_some_and(|(_, total, used)| total == 1.0 && used == 1.0));
}
