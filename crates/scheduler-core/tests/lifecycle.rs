//! The life of tasks when nothing goes wrong.
#![allow(missing_docs)]

mod env;

use env::{TestEnv, task};
use oxidask_scheduler_core::task::TaskState;

#[test]
fn a_chain_runs_and_is_forgotten() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[]), task("y", &["x"])], &["y"]);
    env.expect(&["w0: compute x []"]);
    assert_eq!(env.state("y"), TaskState::Waiting);

    env.finish(0, "x");
    env.expect(&["w0: compute y [x@1]"]);
    assert_eq!(env.who_has("x"), [0]);

    env.finish(0, "y");
    // The result first; then x, which nobody needs any more, is let go.
    env.expect(&["c0: memory y", "w0: free x"]);
    assert_eq!(env.state("x"), TaskState::Released);
    assert_eq!(env.state("y"), TaskState::Memory);

    env.release(&["y"]);
    env.expect(&["w0: free y"]);
    assert_eq!(env.state("x"), TaskState::Forgotten);
    assert_eq!(env.s.tasks_len(), 0);
    assert_eq!(env.s.task_groups().count(), 0);
}
