//! Every group of tasks that a graph names belongs to a span, given by the client or by default.
#![allow(missing_docs)]

mod env;

use env::{TestEnv, key, task, with};
use oxidask_scheduler_core::event::{Event, SpanMetric};
use oxidask_scheduler_core::graph::{SpanTag, TaskOptions};
use oxidask_scheduler_core::task::TaskState;

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
        span: vec![SpanTag {
            tag: "work".into(),
            id: "mine".into(),
        }],
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

#[test]
fn spans_outlive_their_tasks() {
    let mut env = TestEnv::cluster(&[4]);
    let tag = |name: &str| SpanTag {
        tag: name.into(),
        id: format!("id of {name}").into(),
    };
    let options = TaskOptions {
        span: vec![tag("outer"), tag("inner")],
        ..TaskOptions::default()
    };
    env.submit(vec![with(task("x", &[]), options)], &["x"]);
    env.finish(0, "x");
    env.event(Event::SpansMeasured {
        measured: vec![SpanMetric {
            span: "id of inner".into(),
            what: key("seconds"),
            value: 0.5,
            whole: false,
        }],
    });
    env.release(&["x"]);
    assert!(env.s.task(&key("x")).is_none());

    let spans: Vec<_> = env.s.spans().collect();
    assert_eq!(spans.len(), 2);
    let (outer, inner) = (spans[0], spans[1]);
    assert_eq!(inner.parent(), Some(outer.id()));
    let name: Vec<&str> = inner.name().iter().map(|tag| &**tag).collect();
    assert_eq!(name, ["outer", "inner"]);
    assert_eq!(outer.enqueued(), inner.enqueued());
    let metrics: Vec<_> = inner.metrics().collect();
    assert_eq!(metrics, [(&key("seconds"), 0.5, false)]);
    let groups: Vec<_> = inner.past_groups().collect();
    assert_eq!(groups.len(), 1);
    assert_eq!(&**groups[0].name(), "x");
    let gone = TaskState::Forgotten;
    assert!(groups[0].states().contains(&(gone, 1)));

    env.event(Event::Restart {
        stimulus_id: "restart".into(),
    });
    assert_eq!(env.s.spans().count(), 2);
}

#[test]
fn changes_of_the_number_of_threads_are_remembered() {
    let mut env = TestEnv::cluster(&[4, 2]);
    env.lose_worker(0);
    let threads: Vec<u64> = env.s.total_nthreads_history().map(|(_, n)| n).collect();
    assert_eq!(threads, [4, 6, 2]);
}
