//! Tasks that fail, are retried or cancelled.
#![allow(missing_docs)]

mod env;

use env::{ALICE, TestEnv, address, key, task, with};
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::effect::{ClientMsg, Effect, TaskError};
use oxidask_scheduler_core::event::{Event, Verdict};
use oxidask_scheduler_core::graph::TaskOptions;
use oxidask_scheduler_core::ids::{ClientId, RunId, WorkerId};
use oxidask_scheduler_core::task::TaskState;
use oxidask_scheduler_core::worker::WorkerMetrics;

fn retry(env: &mut TestEnv, names: &[&str]) {
    env.event(Event::RetryKeys {
        keys: names.iter().map(|n| key(n)).collect(),
        stimulus_id: "retry".into(),
    });
}

fn cancel(env: &mut TestEnv, client: ClientId, names: &[&str], force: bool) {
    env.event(Event::CancelKeys {
        client,
        keys: names.iter().map(|n| key(n)).collect(),
        force,
        reason: Some("because".into()),
        msg: None,
        stimulus_id: "cancel".into(),
    });
}

#[test]
fn an_error_fails_all_that_depends_on_it() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(
        vec![task("x", &[]), task("y", &["x"]), task("z", &["y"])],
        &["y", "z"],
    );
    env.forget_effects();
    env.err(0, "x");
    env.expect(&["c0: erred y", "c0: erred z"]);
    for name in ["x", "y", "z"] {
        let task = env.s.task(&key(name)).expect("failed tasks stay");
        assert_eq!(task.state(), TaskState::Erred);
        assert_eq!(task.exception_blame(), Some(&key("x")));
    }
    assert_eq!(env.s.erred_tasks().next().map(|e| &e.key), Some(&key("x")));
    env.release(&["y", "z"]);
    assert_eq!(env.s.tasks_len(), 0);
}

#[test]
fn the_error_is_the_one_the_worker_sent() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[])], &["x"]);
    env.forget_effects();
    env.err(0, "x");
    let effects = env.effects();
    let Some(Effect::ToClient(
        _,
        ClientMsg::TaskErred {
            error: TaskError::Remote { exception, .. },
            ..
        },
    )) = effects.first()
    else {
        panic!("{effects:?}");
    };
    assert_eq!(
        exception.get::<String>().map(String::as_str),
        Some("error in x")
    );
}

#[test]
fn retries_are_used_up_first() {
    let mut env = TestEnv::cluster(&[1]);
    let twice = TaskOptions {
        retries: 2,
        ..TaskOptions::default()
    };
    env.submit(vec![with(task("x", &[]), twice)], &["x"]);
    for left in [1, 0] {
        env.forget_effects();
        env.err(0, "x");
        env.expect(&["w0: free x", "w0: compute x []"]);
        assert_eq!(env.s.task(&key("x")).map(|t| t.retries()), Some(left));
    }
    env.err(0, "x");
    env.expect(&["c0: erred x"]);
}

#[test]
fn a_client_can_have_failed_tasks_run_again() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[]), task("y", &["x"])], &["y"]);
    env.err(0, "x");
    env.forget_effects();
    retry(&mut env, &["y"]);
    env.expect(&["w0: free x", "w0: compute x []", "c0: retried y"]);
    env.finish(0, "x");
    env.finish(0, "y");
    assert_eq!(env.state("y"), TaskState::Memory);
}

#[test]
fn retrying_a_result_computes_it_anew() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[])], &["x"]);
    env.finish(0, "x");
    env.forget_effects();
    retry(&mut env, &["x"]);
    assert_eq!(env.state("x"), TaskState::Processing);
    env.forget_effects();
    env.finish(0, "x");
    env.expect(&["c0: memory x"]);
}

#[test]
fn retrying_one_of_two_failures_tells_of_the_other() {
    let mut env = TestEnv::cluster(&[2]);
    env.submit(
        vec![task("a", &[]), task("b", &[]), task("y", &["a", "b"])],
        &["a", "b", "y"],
    );
    env.err(0, "a");
    env.err(0, "b");
    env.forget_effects();
    retry(&mut env, &["a"]);
    // Stock leaves y waiting for b for ever.
    assert_eq!(
        env.states(&["a", "b", "y"]),
        ["processing", "erred", "erred"]
    );
    let blame = env
        .s
        .task(&key("y"))
        .and_then(|t| t.exception_blame().cloned());
    assert_eq!(blame, Some(key("b")));
    retry(&mut env, &["y"]);
    assert_eq!(
        env.states(&["a", "b", "y"]),
        ["processing", "processing", "waiting"]
    );
}

#[test]
fn a_new_graph_on_a_failed_task_fails_at_once() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[])], &["x"]);
    env.err(0, "x");
    env.forget_effects();
    env.submit(
        vec![task("x", &[]), task("y", &["x"]), task("z", &["y"])],
        &["z"],
    );
    assert_eq!(env.states(&["y", "z"]), ["erred", "erred"]);
    assert!(env.sent().contains(&"c0: erred z".to_owned()));
}

#[test]
fn results_of_an_older_run_are_not_believed() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[])], &["x"]);
    let old = env.run_id("x");
    let first = env.on("x").expect("sent to a worker");
    env.event(Event::Reschedule {
        worker: None,
        key: key("x"),
        stimulus_id: "reschedule".into(),
    });
    let new = env.run_id("x");
    assert_eq!((old, new), (Some(RunId(0)), Some(RunId(1))));
    env.forget_effects();
    let second = env.on("x").expect("sent again");
    let other = 1 - second;
    let message = env.finished(other, "x", old);
    env.event(Event::TaskFinished(Box::new(message)));
    env.expect(&[&format!("w{other}: free x")]);
    assert_eq!(env.state("x"), TaskState::Processing);

    // From the worker that runs it now, an old id means that something is wrong there: start anew.
    let message = env.finished(second, "x", old);
    env.event(Event::TaskFinished(Box::new(message)));
    assert_eq!(env.state("x"), TaskState::Processing);
    assert_eq!(env.run_id("x"), Some(RunId(2)));
    let _ = first;
}

#[test]
fn late_results_of_an_older_run_take_no_copy_from_tasks() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[])], &["x"]);
    let old = env.run_id("x");
    env.event(Event::Reschedule {
        worker: None,
        key: key("x"),
        stimulus_id: "reschedule".into(),
    });
    let second = env.on("x").expect("sent again");
    env.finish(second, "x");
    let other = 1 - second;
    env.forget_effects();
    let late = env.finished(other, "x", old);
    env.event(Event::TaskFinished(Box::new(late.clone())));
    env.expect(&[&format!("w{other}: remove-replicas x")]);
    assert_eq!(env.who_has("x"), [second]);

    // It may have fetched the result since, for a task of its own.
    let there = TaskOptions {
        workers: Some(vec![address(other)]),
        ..TaskOptions::default()
    };
    env.submit(vec![with(task("y", &["x"]), there)], &["y"]);
    assert_eq!(env.on("y"), Some(other));
    env.forget_effects();
    env.event(Event::TaskFinished(Box::new(late.clone())));
    env.expect(&[]);

    env.add_keys(other, &["x"]);
    env.forget_effects();
    env.event(Event::TaskFinished(Box::new(late)));
    env.expect(&[]);
    assert_eq!(env.who_has("x"), [second, other]);
}

#[test]
fn results_nobody_waits_for_are_freed() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[])], &["x"]);
    let run = env.run_id("x");
    env.release(&["x"]);
    env.forget_effects();
    let late = env.finished(0, "x", run);
    env.event(Event::TaskFinished(Box::new(late)));
    env.expect(&["w0: free x"]);
    env.err(0, "x");
    env.expect(&[]);
}

#[test]
fn a_second_result_of_the_same_run_is_a_copy() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[])], &["x"]);
    env.finish(0, "x");
    env.forget_effects();
    let again = env.finished(1, "x", env.run_id("x"));
    env.event(Event::TaskFinished(Box::new(again)));
    env.expect(&[]);
    assert_eq!(env.who_has("x"), [0, 1]);
}

#[test]
fn old_workers_do_not_name_the_run() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[])], &["x"]);
    let on = env.on("x").expect("sent to a worker");
    let elsewhere = env.finished(1 - on, "x", None);
    env.forget_effects();
    env.event(Event::TaskFinished(Box::new(elsewhere)));
    env.expect(&[&format!("w{}: free x", 1 - on)]);
    let here = env.finished(on, "x", None);
    env.event(Event::TaskFinished(Box::new(here)));
    assert_eq!(env.who_has("x"), [on]);
}

#[test]
fn cancelling_stops_a_task_and_what_depends_on_it() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(
        vec![task("x", &[]), task("y", &["x"]), task("z", &["y"])],
        &["x", "z"],
    );
    env.forget_effects();
    cancel(&mut env, ALICE, &["x"], false);
    env.expect(&["w0: free x", "c0: cancelled z,x"]);
    assert_eq!(env.s.tasks_len(), 0);
}

#[test]
fn a_task_that_others_want_is_only_given_up() {
    let mut env = TestEnv::cluster(&[1]);
    let bob = env.add_client(1, "bob");
    env.submit(vec![task("x", &[])], &["x"]);
    env.submit_as(bob, vec![task("x", &[])], &["x"]);
    env.forget_effects();
    cancel(&mut env, ALICE, &["x"], false);
    env.expect(&[]);
    assert_eq!(env.state("x"), TaskState::Processing);
    cancel(&mut env, ALICE, &["x"], true);
    env.expect(&["w0: free x", "c0: cancelled x", "c1: cancelled x"]);
}

#[test]
fn a_long_chain_is_cancelled_without_deep_recursion() {
    let mut env = TestEnv::with_config(CoreConfig::default());
    let names: Vec<String> = (0..20_000).map(|i| format!("x-{i}")).collect();
    let tasks = names
        .iter()
        .enumerate()
        .map(|(i, name)| match i.checked_sub(1) {
            Some(before) => task(name, &[&names[before]]),
            None => task(name, &[]),
        })
        .collect();
    env.submit(tasks, &["x-19999"]);
    env.event(Event::ClientDesiresKeys {
        client: ALICE,
        keys: vec![key("x-0")],
    });
    cancel(&mut env, ALICE, &["x-0"], false);
    env.pass(0.0);
    assert_eq!(env.s.tasks_len(), 0);
}

#[test]
fn inputs_larger_than_the_worker_fail_the_task() {
    let mut env = TestEnv::new();
    let mut info = env::worker_info(0, 1);
    info.memory_limit = 1000;
    env.add_worker_as(0, info);
    env.scatter_sized("d", &[0], 1001);
    env.forget_effects();
    env.submit(vec![task("x", &["d"])], &["x"]);
    let effects = env.effects();
    let message = effects.iter().find_map(|e| match e {
        Effect::ToClient(
            _,
            ClientMsg::TaskErred {
                error: TaskError::Memory { message },
                ..
            },
        ) => Some(&**message),
        _ => None,
    });
    assert_eq!(
        message,
        Some(
            "Task 'x' has 0.98 kiB worth of input dependencies, but worker tcp://10.0.0.0:1000 has \
         memory_limit set to 0.98 kiB. It seems like you called client.compute() on a huge \
         collection. Consider writing to distributed storage or slicing/reducing first."
        )
    );
    assert_eq!(env.processing(0), Vec::<String>::new());
}

#[test]
fn the_watchdog_asks_about_a_seceded_task_that_its_worker_does_not_tell_of() {
    let mut env = TestEnv::with_config(CoreConfig {
        watchdog_patience: Some(2.0),
        ..CoreConfig::default()
    });
    env.add_worker(0, 1);
    env.submit(vec![task("x", &[])], &["x"]);
    env.event(Event::LongRunning {
        worker: WorkerId(0),
        key: key("x"),
        compute_duration: Some(0.1),
        run_id: env.run_id("x"),
        stimulus_id: "secede".into(),
    });
    let heartbeat = |executing| Event::Heartbeat {
        worker: WorkerId(0),
        metrics: WorkerMetrics::default(),
        executing,
    };
    let asked = |env: &mut TestEnv| {
        let effects = env.effects();
        let suspicions = effects
            .iter()
            .filter(|e| matches!(e, Effect::Suspicious(_)));
        suspicions.count()
    };
    env.event(heartbeat(vec![(key("x"), 1.0)]));
    env.pass(10.0);
    assert_eq!(asked(&mut env), 0, "it runs");
    env.event(heartbeat(Vec::new()));
    env.pass(10.0);
    assert!(asked(&mut env) > 0, "its end was lost");
    let run_id = env.run_id("x").unwrap_or(RunId(-1));
    env.event(Event::Examined {
        worker: WorkerId(0),
        task: Some((key("x"), run_id)),
        verdict: Verdict::Unknown,
        stimulus_id: "watchdog".into(),
    });
    assert_ne!(env.run_id("x"), Some(run_id), "it runs again");
}
