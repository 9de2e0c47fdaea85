//! Workers come, go, pause and fall silent.
#![allow(missing_docs)]

mod env;

use env::{TestEnv, key, task, with, worker_info};
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::effect::{ClientMsg, Effect, TaskError};
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::graph::TaskOptions;
use oxidask_scheduler_core::ids::{Timestamp, WorkerId};
use oxidask_scheduler_core::task::TaskState;
use oxidask_scheduler_core::worker::{WorkerMetrics, WorkerStatus};

#[test]
fn tasks_of_a_lost_worker_run_elsewhere() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[])], &["x"]);
    let on = env.on("x").expect("sent to a worker");
    env.forget_effects();
    env.lose_worker(on);
    let other = 1 - on;
    env.expect(&[
        &format!("w{other}: compute x []"),
        &format!("removed w{on}"),
        &format!("w{other}: remove-worker tcp://10.0.0.{on}:1000"),
    ]);
    assert_eq!(env.s.task(&key("x")).map(|t| t.suspicious()), Some(1));
    assert_eq!(env.s.task_prefix("x").map(|p| p.suspicious()), Some(1));
}

#[test]
fn results_of_a_lost_worker_are_computed_again_as_far_as_needed() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(
        vec![task("x", &[]), task("y", &["x"]), task("z", &["y"])],
        &["z"],
    );
    let on = env.on("x").expect("sent to a worker");
    env.finish(on, "x");
    env.finish(on, "y");
    env.forget_effects();
    // x was freed; y is an input of z, which is running: all three are needed again.
    assert_eq!(env.state("x"), TaskState::Released);
    env.lose_worker(on);
    assert_eq!(
        env.states(&["x", "y", "z"]),
        ["processing", "waiting", "waiting"]
    );
    assert_eq!(env.on("x"), Some(1 - on));
}

#[test]
fn a_copy_elsewhere_is_enough() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[])], &["x"]);
    env.finish(0, "x");
    env.add_keys(1, &["x"]);
    env.forget_effects();
    env.lose_worker(0);
    env.expect(&["removed w0", "w1: remove-worker tcp://10.0.0.0:1000"]);
    assert_eq!(env.who_has("x"), [1]);
}

#[test]
fn a_task_that_kills_workers_fails_in_the_end() {
    let mut env = TestEnv::with_config(CoreConfig {
        allowed_failures: 1,
        ..CoreConfig::default()
    });
    env.add_worker(0, 1);
    env.submit(vec![task("x", &[]), task("y", &["x"])], &["y"]);
    env.lose_worker(0);
    env.add_worker(1, 1);
    assert_eq!(env.on("x"), Some(1));
    env.forget_effects();
    env.lose_worker(1);
    let effects = env.effects();
    let killed = effects.iter().find_map(|e| match e {
        Effect::ToClient(
            _,
            ClientMsg::TaskErred {
                error:
                    TaskError::KilledWorker {
                        task,
                        last_worker,
                        allowed_failures,
                    },
                ..
            },
        ) => Some((
            task.to_text(),
            last_worker.address.to_string(),
            *allowed_failures,
        )),
        _ => None,
    });
    assert_eq!(killed, Some(("x".into(), "tcp://10.0.0.1:1000".into(), 1)));
    assert_eq!(env.states(&["x", "y"]), ["erred", "erred"]);
}

#[test]
fn tasks_are_not_blamed_for_an_expected_departure() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[])], &["x"]);
    let on = env.on("x").expect("sent to a worker");
    env.forget_effects();
    env.event(Event::RemoveWorker {
        worker: WorkerId(on),
        expected: true,
        close: true,
        stimulus_id: "retire".into(),
    });
    assert_eq!(env.s.task(&key("x")).map(|t| t.suspicious()), Some(0));
    let sent = env.sent();
    assert_eq!(sent[0], format!("w{on}: close scheduler-remove-worker"));
}

#[test]
fn scattered_data_is_lost_with_its_worker_and_so_is_what_needs_it() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.scatter("d", &[0]);
    env.submit(vec![task("x", &["d"])], &["x"]);
    env.forget_effects();
    env.lose_worker(0);
    let sent = env.sent();
    assert!(sent.contains(&"c0: cancelled d".to_owned()), "{sent:?}");
    assert!(sent.contains(&"c0: cancelled x".to_owned()), "{sent:?}");
    assert_eq!(env.s.tasks_len(), 0);
}

#[test]
fn an_actor_is_lost_with_its_worker() {
    let mut env = TestEnv::cluster(&[1, 1]);
    let actor = TaskOptions {
        actor: true,
        ..TaskOptions::default()
    };
    env.submit(vec![with(task("a", &[]), actor)], &["a"]);
    let on = env.on("a").expect("sent to a worker");
    env.finish(on, "a");
    env.forget_effects();
    env.lose_worker(on);
    let effects = env.effects();
    assert!(
        effects.iter().any(|e| matches!(
            e,
            Effect::ToClient(
                _,
                ClientMsg::TaskErred {
                    error: TaskError::ActorLost { .. },
                    ..
                }
            )
        )),
        "{effects:?}"
    );
    assert_eq!(env.state("a"), TaskState::Erred);
}

#[test]
fn a_paused_worker_gets_nothing_new_and_what_waited_when_it_goes_on() {
    let mut env = TestEnv::cluster(&[1]);
    env.set_status(0, WorkerStatus::Paused);
    env.submit(vec![task("x", &[])], &["x"]);
    assert_eq!(env.state("x"), TaskState::NoWorker);
    assert_eq!(env.s.idle().count(), 0);
    env.forget_effects();
    env.set_status(0, WorkerStatus::Running);
    env.expect(&["w0: compute x []"]);
}

#[test]
fn without_workers_tasks_wait_and_go_out_by_priority() {
    let mut env = TestEnv::new();
    env.submit(vec![task("a", &[]), task("b", &[])], &["a", "b"]);
    assert_eq!(
        env.states(&["a", "b"]),
        ["queued", "queued"],
        "more tasks than twice no threads"
    );
    env.add_worker(0, 4);
    env.expect(&["w0: compute a []", "w0: compute b []"]);
}

#[test]
fn a_worker_that_comes_back_is_another_one() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[])], &["x"]);
    let run = env.run_id("x");
    env.lose_worker(0);
    env.add_worker_as(5, worker_info(0, 1));
    env.forget_effects();
    let late = env.finished(0, "x", run);
    env.event(Event::TaskFinished(Box::new(late)));
    env.expect(&[]);
    assert_eq!(env.on("x"), Some(5));
}

#[test]
fn silent_workers_are_removed_or_restarted_by_their_nanny() {
    let mut env = TestEnv::with_config(CoreConfig {
        worker_ttl: Some(10.0),
        ..CoreConfig::default()
    });
    env.add_worker(0, 1);
    let mut info = worker_info(1, 1);
    info.nanny = Some("tcp://10.0.0.1:2000".into());
    env.add_worker_as(1, info);
    env.add_worker(2, 1);
    env.forget_effects();
    for _ in 0..30 {
        env.event(Event::WorkerSeen {
            worker: WorkerId(2),
        });
        env.pass(1.0);
    }
    assert_eq!(
        env.sent(),
        [
            "w0: close scheduler-remove-worker",
            "removed w0",
            "w1: remove-worker tcp://10.0.0.0:1000",
            "w2: remove-worker tcp://10.0.0.0:1000",
            "unresponsive w1",
        ]
    );
    assert_eq!(env.s.workers_len(), 2);
}

#[test]
fn tasks_without_a_worker_fail_after_the_time_out() {
    let mut env = TestEnv::with_config(CoreConfig {
        no_workers_timeout: Some(5.0),
        ..CoreConfig::default()
    });
    let elsewhere = TaskOptions {
        workers: Some(vec!["tcp://10.9.9.9:1".into()]),
        ..TaskOptions::default()
    };
    env.add_worker(0, 1);
    env.submit(
        vec![with(task("restricted", &[]), elsewhere)],
        &["restricted"],
    );
    env.pass(4.0);
    assert_eq!(env.state("restricted"), TaskState::NoWorker);
    env.forget_effects();
    env.pass(2.0);
    let error = env
        .s
        .task(&key("restricted"))
        .and_then(|t| t.error().cloned());
    assert!(
        matches!(&error, Some(TaskError::NoValidWorker { worker_restrictions, .. }) if worker_restrictions.len() == 1),
        "{error:?}"
    );

    env.lose_worker(0);
    env.submit(vec![task("plain", &[])], &["plain"]);
    env.pass(6.0);
    let error = env.s.task(&key("plain")).and_then(|t| t.error().cloned());
    assert!(
        matches!(error, Some(TaskError::NoWorker { .. })),
        "{error:?}"
    );
}

#[test]
fn heartbeats_update_figures() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[])], &["x"]);
    let on = env.on("x").expect("sent to a worker");
    let metrics = WorkerMetrics {
        memory: 1000,
        bandwidth: Some(200e6),
        ..WorkerMetrics::default()
    };
    env.event(Event::Heartbeat {
        worker: WorkerId(on),
        metrics,
        executing: vec![(key("x"), 3.0)],
    });
    assert_eq!(
        env.s.bandwidth(),
        150e6,
        "half of the workers has a say of one half"
    );
    let worker = env.s.worker(WorkerId(on)).expect("registered");
    assert_eq!(worker.memory().process, 1000);
    assert_eq!(worker.executing(), [(key("x"), 3.0)]);
    assert_eq!(
        worker.occupancy(),
        6.0,
        "twice what the longest has taken so far"
    );
}

#[test]
fn memory_that_stays_counts_as_old() {
    let mut env = TestEnv::with_config(CoreConfig {
        worker_ttl: None,
        ..CoreConfig::default()
    });
    let mut info = worker_info(0, 1);
    info.metrics.memory = 100;
    env.add_worker_as(0, info);
    let mut beat = |memory: u64, seconds: f64| {
        env.pass(seconds);
        env.event(Event::Heartbeat {
            worker: WorkerId(0),
            metrics: WorkerMetrics {
                memory,
                ..WorkerMetrics::default()
            },
            executing: vec![],
        });
        let m = env.s.worker(WorkerId(0)).expect("registered").memory();
        (m.unmanaged_old, m.unmanaged_recent())
    };
    assert_eq!(beat(100, 0.0), (100, 0));
    assert_eq!(beat(300, 1.0), (100, 200));
    assert_eq!(beat(300, 20.0), (100, 200));
    assert_eq!(
        beat(300, 20.0),
        (300, 0),
        "the low value is out of the window"
    );
    assert_eq!(beat(50, 1.0), (50, 0));
}

#[test]
fn idle_since() {
    let mut env = TestEnv::cluster(&[1]);
    let check = |env: &mut TestEnv, busy| {
        env.pass(0.25);
        env.event(Event::CheckIdle { busy });
        env.s.idle_since()
    };
    let first = check(&mut env, false);
    assert_eq!(first, Some(env.now));
    assert_eq!(check(&mut env, false), first);
    assert_eq!(check(&mut env, true), None);
    env.submit(vec![task("x", &[])], &["x"]);
    assert_eq!(check(&mut env, false), None);
    assert_eq!(check(&mut env, false), None, "a task is running");
    env.finish(0, "x");
    assert_eq!(check(&mut env, false), None, "something has happened since");
    assert_eq!(check(&mut env, false), Some(env.now));
    assert!(env.now > Timestamp(0.0));
}

#[test]
fn events_of_unknown_workers_and_clients_are_ignored() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[])], &["x"]);
    env.forget_effects();
    let message = env.finished(77, "x", env.run_id("x"));
    env.event(Event::TaskFinished(Box::new(message)));
    env.set_status(77, WorkerStatus::Paused);
    env.lose_worker(77);
    env.add_keys(77, &["x"]);
    env.event(Event::Heartbeat {
        worker: WorkerId(77),
        metrics: WorkerMetrics::default(),
        executing: vec![],
    });
    env.event(Event::RemoveClient {
        client: oxidask_scheduler_core::ids::ClientId(77),
        stimulus_id: "?".into(),
    });
    env.expect(&[]);
    assert_eq!(env.state("x"), TaskState::Processing);
}
