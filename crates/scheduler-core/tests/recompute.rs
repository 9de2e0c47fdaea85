//! Tasks whose data is gone although they are done (P2P shuffles).
#![allow(missing_docs)]

mod env;

use env::{TestEnv, key, task};
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::task::TaskState;

#[test]
fn tasks_that_are_needed_run_again() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(
        vec![
            task("in", &[]),
            task("barrier", &["in"]),
            task("out", &["barrier"]),
        ],
        &["out"],
    );
    env.finish(0, "in");
    env.finish(0, "barrier");
    env.forget_effects();
    assert_eq!(env.state("out"), TaskState::Processing);

    let keys = ["out", "barrier", "in", "unknown"].map(key).to_vec();
    env.event(Event::RecomputeTasks {
        keys,
        stimulus_id: "test".into(),
    });
    assert_eq!(env.state("in"), TaskState::Processing);
    assert_eq!(env.state("barrier"), TaskState::Waiting);
    assert_eq!(env.state("out"), TaskState::Waiting);
    env.finish(0, "in");
    env.finish(0, "barrier");
    env.finish(0, "out");
    assert_eq!(env.state("out"), TaskState::Memory);
}

#[test]
fn failed_tasks_stay_as_they_are() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[])], &["x"]);
    env.err(0, "x");
    env.event(Event::RecomputeTasks {
        keys: vec![key("x")],
        stimulus_id: "test".into(),
    });
    assert_eq!(env.state("x"), TaskState::Erred);
}
