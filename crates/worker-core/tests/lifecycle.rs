//! Tasks come in, run in order of their priority, and are let go.
#![allow(missing_docs)]

mod env;

use env::{TestEnv, config, datum, finished, key, order};
use oxidask_worker_core::effect::Effect;
use oxidask_worker_core::event::{Event, Outcome};
use oxidask_worker_core::ids::RunId;
use oxidask_worker_core::status::WorkerStatus;
use oxidask_worker_core::task::TaskState::*;

#[test]
fn a_task_runs_and_is_freed() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[]);
    env.expect(&["run x"]);
    assert_eq!(env.state("x"), Some(Executing));
    env.finish("x");
    env.expect(&["store x", "finished x@1"]);
    assert_eq!((env.state("x"), env.w.nbytes()), (Some(Memory), 10));
    env.free(&["x"]);
    // The scheduler knows already.
    env.expect(&["drop x"]);
    assert_eq!((env.w.tasks_len(), env.w.nbytes()), (0, 0));
}

#[test]
fn the_order_leaves_as_it_came() {
    let mut env = TestEnv::new(1);
    env.scatter("d", 1);
    env.forget_effects();
    let mut sent = order("x", &[("d", &["w1"])]);
    sent.executor = Some("gpu".into());
    sent.span_id = Some("span".into());
    env.order(sent);
    let Some(Effect::Execute { task, .. }) = env.effects.pop() else {
        panic!("nothing runs");
    };
    assert_eq!(task.executor.as_deref(), Some("gpu"));
    assert_eq!(task.span_id.as_deref(), Some("span"));
    assert_eq!(task.run_spec.get::<String>().map(String::as_str), Some("x"));
    let inputs: Vec<_> = task.inputs.iter().map(|i| i.key.clone()).collect();
    assert_eq!(inputs, [key("d")]);
}

#[test]
fn the_more_important_runs_first_and_of_equals_the_last() {
    let mut env = TestEnv::new(1);
    env.compute("busy", &[]);
    for (name, priority) in [("late", 2.0), ("a", 1.0), ("b", 1.0), ("first", -1.0)] {
        let mut order = order(name, &[]);
        order.priority = [0.0, priority, 0.0];
        env.order(order);
    }
    for (name, next) in [("busy", "first"), ("first", "b"), ("b", "a"), ("a", "late")] {
        env.forget_effects();
        env.finish(name);
        let run = format!("run {next}");
        let (store, told) = (format!("store {name}"), format!("finished {name}@1"));
        env.expect(&[&store, &told, &run]);
    }
}

#[test]
fn of_a_batch_the_most_important_runs() {
    let mut env = TestEnv::new(1);
    let mut second = order("second", &[]);
    second.priority = [0.0, 0.0, -1.0];
    let orders = [order("first", &[]), second];
    env.batch(orders.map(|o| Event::ComputeTask(Box::new(o))).into());
    env.expect(&["run second"]);
}

#[test]
fn a_chain_on_one_worker_needs_no_transfer() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[]);
    env.finish("x");
    env.forget_effects();
    env.compute("y", &[("x", &["w0"])]);
    env.expect(&["run y"]);
}

#[test]
fn a_task_may_be_ordered_before_its_input_is_done() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[]);
    env.compute("y", &[("x", &[])]);
    env.expect(&["run x"]);
    assert_eq!(env.state("y"), Some(Waiting));
    env.finish("x");
    env.expect(&["store x", "finished x@1", "run y"]);
}

#[test]
fn a_failure_is_told_and_can_be_tried_again() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[]);
    env.fail("x");
    env.expect(&["run x", "erred x@1"]);
    assert_eq!(env.state("x"), Some(Error));
    env.compute_as("x", 2);
    env.finish("x");
    env.expect(&["run x", "store x", "finished x@2"]);
}

#[test]
fn a_reschedule_gives_the_task_back() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[]);
    env.done("x", Outcome::Rescheduled);
    env.expect(&["run x", "reschedule x"]);
    assert_eq!(env.w.tasks_len(), 0);
}

#[test]
fn a_task_that_secedes_leaves_its_slot() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[]);
    env.compute("y", &[]);
    env.secede("x");
    env.secede("x");
    env.expect(&["run x", "long-running x@1", "run y"]);
    assert_eq!(env.state("x"), Some(LongRunning));
    env.finish("x");
    env.expect(&["store x", "finished x@1"]);
}

#[test]
fn what_is_freed_while_it_runs_keeps_its_thread_until_it_ends() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[]);
    env.free(&["x"]);
    env.compute("y", &[]);
    env.expect(&["run x", "abandon x"]);
    assert_eq!(env.state("x"), Some(Cancelled));
    assert_eq!(env.w.executing_count(), 1);
    env.finish("x");
    // Its result is not stored.
    env.expect(&["run y"]);
    assert_eq!(env.state("x"), None);
}

#[test]
fn freed_and_ordered_anew_it_is_another_task() {
    let mut env = TestEnv::new(2);
    env.compute_as("x", 1);
    let first = env.attempts["x"];
    env.free(&["x"]);
    env.compute_as("x", 2);
    env.expect(&["run x", "abandon x", "run x"]);
    assert_eq!(env.state("x"), Some(Resumed));
    // The outcome of the first does not count, whichever ends first.
    env.done_attempt(first, finished(1));
    env.expect(&[]);
    env.finish("x");
    env.expect(&["store x", "finished x@2"]);
    env.done_attempt(first, finished(1));
    env.expect(&[]);
}

#[test]
fn ordered_twice_without_being_freed_it_answers_the_last_order() {
    let mut env = TestEnv::new(1);
    env.compute_as("x", 1);
    env.compute_as("x", 2);
    env.finish("x");
    env.expect(&["run x", "store x", "finished x@2"]);
    env.compute_as("x", 3);
    env.expect(&["finished x@3"]);
}

#[test]
fn a_seceded_task_ordered_again_tells_again_that_it_seceded() {
    let mut env = TestEnv::new(1);
    env.compute_as("x", 1);
    env.secede("x");
    env.compute_as("x", 1);
    env.expect(&["run x", "long-running x@1"]);
    env.compute_as("x", 2);
    env.expect(&["long-running x@2"]);
}

#[test]
fn an_actor_is_stored_as_one() {
    let mut env = TestEnv::new(1);
    let mut sent = order("x", &[]);
    sent.actor = true;
    env.order(sent);
    env.finish("x");
    let stored = env
        .effects
        .iter()
        .any(|e| matches!(e, Effect::Store { actor: true, .. }));
    assert!(stored);
}

#[test]
fn a_paused_worker_begins_nothing_and_goes_on_with_what_runs() {
    let mut env = TestEnv::new(2);
    env.compute("x", &[]);
    env.status(WorkerStatus::Paused);
    env.compute("y", &[("d", &["w1"])]);
    env.compute("z", &[]);
    env.expect(&["run x", "status paused"]);
    env.finish("x");
    env.expect(&["store x", "finished x@1"]);
    env.status(WorkerStatus::Running);
    env.expect(&["status running", "gather w1: d", "run z"]);
}

#[test]
fn short_memory_pauses_what_runs_and_holds_nobody_who_leaves() {
    let mut env = TestEnv::new(1);
    let pressure = |env: &mut TestEnv, short| {
        env.event(Event::MemoryPressure {
            short,
            stimulus_id: "memory".into(),
        });
    };
    pressure(&mut env, false);
    env.expect(&[]);
    pressure(&mut env, true);
    pressure(&mut env, true);
    env.expect(&["status paused"]);
    env.compute("x", &[]);
    env.expect(&[]);
    pressure(&mut env, false);
    env.expect(&["status running", "run x"]);
    for status in [WorkerStatus::ClosingGracefully, WorkerStatus::Closing] {
        env.status(status);
        env.forget_effects();
        pressure(&mut env, true);
        pressure(&mut env, false);
        env.expect(&[]);
    }
}

#[test]
fn there_is_no_way_back_from_closing() {
    let mut env = TestEnv::new(1);
    env.status(WorkerStatus::Closing);
    env.status(WorkerStatus::ClosingGracefully);
    // The scheduler hears the truth.
    env.expect(&["status closing", "status closing"]);
    assert_eq!(env.w.status(), WorkerStatus::Closing);
}

#[test]
fn scattered_data_answers_an_order_for_it() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[]);
    env.scatter("x", 7);
    env.expect(&["run x", "abandon x", "store x", "finished x@1"]);
    env.scatter("x", 8);
    env.expect(&["store x"]);
    assert_eq!(env.w.nbytes(), 8);
    env.event(Event::UpdateData {
        data: vec![datum("a", 1), datum("b", 1)],
        report: true,
        stimulus_id: "scatter".into(),
    });
    env.expect(&["store a", "store b", "add a b"]);
}

#[test]
fn a_scheduler_that_comes_back_orders_anew() {
    let mut env = TestEnv::new(2);
    env.scatter("kept", 1);
    env.compute("long", &[]);
    env.compute("runs", &[]);
    env.secede("long");
    env.compute("also", &[]);
    env.compute("waits", &[("d", &["w1"]), ("kept", &["w0"])]);
    env.acquire("copy", &["w2"]);
    env.forget_effects();
    env.event(Event::Reconnected {
        stimulus_id: "reconnect".into(),
    });
    env.expect(&[]);
    assert_eq!(env.state("waits"), None);
    env.finish("runs");
    env.expect(&["store runs", "add runs"]);
    env.fail("also");
    env.expect(&[]);
    // What runs is taken up under the new order.
    env.compute_as("long", 7);
    env.expect(&["long-running long@7"]);
    env.finish("long");
    env.expect(&["store long", "finished long@7"]);
    env.arrive("w1", &["d"]);
    env.arrive("w2", &["copy"]);
    env.expect(&[]);
    let held: Vec<String> = env.w.data().map(|(k, _)| k.to_text()).collect();
    assert_eq!(held, ["kept", "long", "runs"]);
}

#[test]
fn stale_and_unknown_things_are_passed_over() {
    let mut env = TestEnv::new(1);
    env.free(&["nothing"]);
    env.remove(&["nothing"]);
    env.cancel("nothing");
    env.refresh("nothing", &["w1"]);
    env.remove_worker("w9");
    env.expect(&[]);
    env.steal("nothing");
    env.expect(&["steal nothing -"]);
    assert_eq!((env.w.tasks_len(), env.w.peers_len()), (0, 0));
}

#[test]
fn a_task_without_run_id_is_answered_without() {
    let mut env = TestEnv::new(1);
    let mut sent = order("x", &[]);
    sent.run_id = None;
    env.order(sent);
    env.finish("x");
    env.expect(&["run x", "store x", "finished x@-"]);
}

#[test]
fn a_task_that_needs_itself_or_the_same_twice_does_not_confuse_the_books() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("x", &["w1"]), ("d", &["w1"]), ("d", &["w2"])]);
    env.expect(&["gather w1: d"]);
    env.arrive("w1", &["d"]);
    env.expect(&["store d", "add d", "run x"]);
}

#[test]
fn the_story_of_a_key_is_kept_within_its_bytes() {
    let mut env = TestEnv::with_config(oxidask_worker_core::config::WorkerConfig {
        story_bytes: 10_000,
        ..config(1)
    });
    for i in 0..1_000 {
        let name = format!("x{i}");
        env.compute(&name, &[]);
        env.finish(&name);
        env.free(&[&name]);
    }
    assert!(env.w.story_bytes() <= 10_000);
    let story = env.w.story(&[key("x999")], &[]);
    assert!(story.len() >= 6 && story.iter().all(|e| e.key == key("x999")));
    let by_stimulus = env.w.story(&[], &["compute-x999"]);
    assert!(!by_stimulus.is_empty());
    assert_eq!(env.w.executed_total(), 1_000);
}

#[test]
fn heartbeats_find_their_figures() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[]);
    env.compute("y", &[]);
    env.free(&["x"]);
    env.compute("z", &[("d", &["w1"])]);
    let counts: Vec<_> = env.w.task_counts().map(|(s, n)| (s.as_str(), n)).collect();
    assert_eq!(
        counts,
        [
            ("waiting", 1),
            ("ready", 1),
            ("flight", 1),
            ("cancelled", 1)
        ]
    );
    let attempts: Vec<_> = env
        .w
        .attempts()
        .map(|a| (a.key.to_text(), a.wanted))
        .collect();
    assert_eq!(attempts, [("x".to_owned(), false)]);
    env.finish("x");
    let run = env.w.attempts().next().and_then(|a| a.run_id);
    assert_eq!(run, Some(RunId(1)));
    assert_eq!(env.w.transfer_figures().incoming_bytes, 1);
}
