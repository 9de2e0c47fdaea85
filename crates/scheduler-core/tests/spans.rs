//! Every group of tasks that a graph names belongs to a span, given by the client or by default.
#![allow(missing_docs)]

mod env;

use env::{TestEnv, key, task, with};
use oxidask_scheduler_core::graph::TaskOptions;

fn span(env: &TestEnv, name: &str) -> Option<String> {
    let task = env.s.task(&key(name))?;
    task.group().span_id().map(ToString::to_string)
}

#[test]
fn unfinished_work_shares_a_default_span() {
    let mut env = TestEnv::cluster(&[4]);
    env.submit(vec![task("x-1", &[])], &["x-1"]);
    let first = span(&env, "x-1").expect("a span");
    assert_eq!(first.len(), 36, "a UUID: {first}");
    env.submit(vec![task("y-1", &[])], &["y-1"]);
    assert_eq!(span(&env, "y-1"), Some(first.clone()));

    env.finish(0, "x-1");
    env.finish(0, "y-1");
    env.submit(vec![task("z-1", &[])], &["z-1"]);
    let second = span(&env, "z-1").expect("a span");
    assert_ne!(
        second, first,
        "the next span begins when the last one is done"
    );
    // More tasks of a group belong to the span that the group has.
    env.submit(vec![task("x-2", &[])], &["x-2"]);
    assert_eq!(span(&env, "x-2"), span(&env, "x-1"));
}

#[test]
fn the_clients_span_comes_first() {
    let mut env = TestEnv::cluster(&[4]);
    let options = TaskOptions {
        span_id: Some("mine".into()),
        ..TaskOptions::default()
    };
    env.submit(vec![with(task("x", &[]), options)], &["x"]);
    env.submit(vec![task("y", &["x"])], &["y"]);
    assert_eq!(span(&env, "x").as_deref(), Some("mine"));
    assert_ne!(span(&env, "y").as_deref(), Some("mine"));
}

#[test]
fn scattered_data_has_a_span_once_a_graph_refers_to_it() {
    let mut env = TestEnv::cluster(&[1]);
    env.scatter("x", &[0]);
    assert_eq!(span(&env, "x"), None);
    env.submit(vec![task("y", &["x"])], &["y"]);
    assert_eq!(span(&env, "x"), span(&env, "y"));
    assert!(span(&env, "x").is_some());
}
