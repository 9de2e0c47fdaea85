//! Copies of results: who has them, the memory manager, plans.
#![allow(missing_docs)]

mod env;

use env::{TestEnv, address, key, task, worker_info};
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::event::{DataPlacement, Event};
use oxidask_scheduler_core::ids::WorkerId;
use oxidask_scheduler_core::policy::{PlanError, Retirement, WorkersToClose};
use oxidask_scheduler_core::task::TaskState;
use oxidask_scheduler_core::worker::{WorkerMetrics, WorkerStatus};

#[test]
fn scattered_data_is_told_and_kept() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.scatter("d", &[0, 1]);
    env.expect(&["c0: memory d"]);
    assert_eq!(env.who_has("d"), [0, 1]);
    assert_eq!(env.s.worker(WorkerId(0)).map(|w| w.nbytes()), Some(10));
    assert_eq!(env.s.replicated_tasks().count(), 1);
    env.release(&["d"]);
    env.expect(&["w0: free d", "w1: free d"]);
    assert_eq!(env.s.tasks_len(), 0);
}

#[test]
fn data_on_no_known_worker_does_not_exist() {
    let mut env = TestEnv::cluster(&[1]);
    env.scatter("d", &[9]);
    env.expect(&[]);
    assert_eq!(env.s.tasks_len(), 0);
}

#[test]
fn scattering_what_is_being_computed_ends_the_computation() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[]), task("y", &["x"])], &["y"]);
    env.forget_effects();
    env.scatter("x", &[1]);
    env.expect(&["w0: free x", "c0: memory x", "w1: compute y [x@1]"]);
}

#[test]
fn copies_nobody_knows_of_are_refused() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[])], &["x"]);
    env.finish(0, "x");
    env.forget_effects();
    env.add_keys(1, &["x", "unknown"]);
    env.expect(&["w1: remove-replicas unknown"]);
    assert_eq!(env.who_has("x"), [0, 1]);
}

#[test]
fn dropping_the_last_copy_computes_it_again() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[])], &["x"]);
    env.finish(0, "x");
    env.forget_effects();
    env.event(Event::ReleaseWorkerData {
        worker: WorkerId(0),
        key: key("x"),
        stimulus_id: "drop".into(),
    });
    env.expect(&["c0: lost x", "w0: compute x []"]);
}

#[test]
fn missing_data_is_computed_again_or_gone() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.scatter("d", &[0]);
    env.submit(vec![task("x", &[])], &["x"]);
    let on = env.on("x").expect("sent to a worker");
    env.finish(on, "x");
    env.forget_effects();
    for (name, holder) in [("x", on), ("d", 0)] {
        env.event(Event::MissingData {
            worker: WorkerId(1),
            key: key(name),
            errant_worker: address(holder),
            stimulus_id: "missing".into(),
        });
    }
    assert_eq!(env.states(&["x", "d"]), ["processing", "forgotten"]);
}

#[test]
fn workers_can_ask_who_has_what() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![task("x", &[]), task("y", &["x"])], &["x", "y"]);
    env.finish(0, "x");
    env.forget_effects();
    env.event(Event::RequestRefreshWhoHas {
        worker: WorkerId(1),
        keys: vec![key("x"), key("y"), key("unknown")],
        stimulus_id: "ask".into(),
    });
    env.expect(&["w1: who-has x@1 y@0", "w1: free unknown"]);
}

#[test]
fn the_last_copy_is_never_asked_for() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.scatter("d", &[0, 1]);
    env.forget_effects();
    let drop = |worker| Event::RequestRemoveReplicas {
        worker: WorkerId(worker),
        keys: vec![key("d")],
        stimulus_id: "drop".into(),
    };
    env.event(drop(0));
    env.expect(&["w0: remove-replicas d"]);
    env.event(drop(1));
    env.expect(&[]);
    assert_eq!(env.who_has("d"), [1]);
    env.event(Event::RequestAcquireReplicas {
        worker: WorkerId(0),
        keys: vec![key("d")],
        stimulus_id: "fetch".into(),
    });
    env.expect(&["w0: acquire-replicas d"]);
}

/// Workers give up copies that they are told to, even if a task there is about to need them.
#[test]
fn copies_that_tasks_wait_for_are_not_asked_for() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.scatter("d", &[0, 1]);
    env.submit(vec![task("x", &["d"])], &["x"]);
    let busy = env.on("x").expect("sent to a worker");
    env.forget_effects();
    let drop = |worker| Event::RequestRemoveReplicas {
        worker: WorkerId(worker),
        keys: vec![key("d")],
        stimulus_id: "drop".into(),
    };
    env.event(drop(busy));
    env.expect(&[]);
    assert_eq!(env.who_has("d"), [0, 1]);
    env.event(drop(1 - busy));
    env.expect(&[&format!("w{}: remove-replicas d", 1 - busy)]);
}

#[test]
fn superfluous_copies_are_dropped_periodically() {
    let mut env = sized_cluster(&[10, 1000, 100]);
    env.scatter("d", &[0, 1, 2]);
    env.forget_effects();
    env.pass(2.5);
    env.expect(&["w1: remove-replicas d", "w2: remove-replicas d"]);
    assert_eq!(
        env.who_has("d"),
        [0],
        "the worker with least memory in use keeps it"
    );
    env.pass(2.5);
    env.expect(&[]);
}

#[test]
fn copies_that_tasks_are_going_to_use_stay() {
    let mut env = TestEnv::cluster(&[1, 1, 1]);
    env.scatter("d", &[0, 1, 2]);
    env.submit(vec![task("x", &["d"]), task("y", &["d"])], &["x", "y"]);
    let (x, y) = (env.on("x"), env.on("y"));
    assert_ne!(x, y);
    env.forget_effects();
    env.event(Event::RunMemoryManager);
    let unused = (0..3)
        .find(|&w| Some(w) != x && Some(w) != y)
        .expect("three workers");
    env.expect(&[&format!("w{unused}: remove-replicas d")]);
}

#[test]
fn a_stopped_memory_manager_does_nothing_by_itself() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.event(Event::SetMemoryManager { enabled: false });
    assert!(!env.s.memory_manager_running());
    env.scatter("d", &[0, 1]);
    env.forget_effects();
    env.pass(10.0);
    env.expect(&[]);
}

fn retire(env: &mut TestEnv, worker: u32) {
    env.event(Event::RetireWorker {
        worker: WorkerId(worker),
        stimulus_id: "retire".into(),
    });
}

#[test]
fn a_retiring_worker_hands_over_what_only_it_has() {
    for manager in [true, false] {
        let mut env = TestEnv::cluster(&[1, 1]);
        env.event(Event::SetMemoryManager { enabled: manager });
        env.scatter("only", &[0]);
        env.scatter("both", &[0, 1]);
        env.forget_effects();
        retire(&mut env, 0);
        env.expect(&["w0: status closing_gracefully"]);
        assert_eq!(env.s.retirement(WorkerId(0)), Some(Retirement::InProgress));
        env.pass(0.0);
        env.expect(&["w1: acquire-replicas only", "w0: remove-replicas both"]);
        env.add_keys(1, &["only"]);
        assert_eq!(env.s.retirement(WorkerId(0)), Some(Retirement::Done));
        env.pass(2.5);
        env.expect(&["w0: remove-replicas only"]);
        env.pass(2.5);
        assert_eq!(env.s.retirement(WorkerId(0)), Some(Retirement::Done));
        env.event(Event::RemoveWorker {
            worker: WorkerId(0),
            expected: true,
            close: true,
            stimulus_id: "retired".into(),
        });
        assert_eq!(env.who_has("only"), [1]);
    }
}

#[test]
fn the_last_worker_cannot_retire_with_data() {
    let mut env = TestEnv::cluster(&[1]);
    env.scatter("d", &[0]);
    env.forget_effects();
    retire(&mut env, 0);
    env.pass(0.0);
    assert_eq!(
        env.s.retirement(WorkerId(0)),
        Some(Retirement::NoRecipients)
    );
    env.expect(&["w0: status closing_gracefully", "w0: status running"]);
    env.set_status(0, WorkerStatus::Running);
    assert_eq!(env.s.running().count(), 1);
}

#[test]
fn two_workers_that_retire_together_do_not_give_to_each_other() {
    let mut env = TestEnv::cluster(&[1, 1, 1]);
    env.scatter("a", &[0]);
    env.scatter("b", &[1]);
    retire(&mut env, 0);
    retire(&mut env, 1);
    env.forget_effects();
    env.pass(0.0);
    env.expect(&["w2: acquire-replicas a,b"]);
}

fn sized_cluster(memory: &[u64]) -> TestEnv {
    let mut env = TestEnv::new();
    for (i, &used) in memory.iter().enumerate() {
        let mut info = worker_info(i as u32, 1);
        info.memory_limit = 1000;
        info.metrics.memory = used;
        env.add_worker_as(i as u32, info);
    }
    env
}

#[test]
fn rebalance_moves_the_oldest_from_the_fullest_to_the_emptiest() {
    let mut env = sized_cluster(&[0, 0, 0]);
    for i in 0..8 {
        env.scatter_sized(&format!("d-{i}"), &[0], 100);
    }
    for (w, memory) in [(0, 800), (1, 0), (2, 100)] {
        env.event(Event::Heartbeat {
            worker: WorkerId(w),
            metrics: WorkerMetrics {
                memory,
                ..WorkerMetrics::default()
            },
            executing: vec![],
        });
    }
    let plan = env.s.plan_rebalance(None, None).expect("all data is there");
    let moves: Vec<String> = plan
        .iter()
        .map(|m| format!("{} {}->{}", m.key, &m.sender[13..14], &m.recipient[13..14]))
        .collect();
    assert_eq!(
        moves,
        ["d-0 0->1", "d-1 0->2", "d-2 0->1", "d-3 0->2"].map(String::from)
    );
    let only = env
        .s
        .plan_rebalance(Some(&[key("d-7")]), None)
        .expect("is there");
    assert_eq!(only.len(), 1);
    assert_eq!(
        env.s.plan_rebalance(Some(&[key("gone")]), None),
        Err(PlanError::MissingData(vec![key("gone")]))
    );
}

#[test]
fn replicate_plans_copies_in_rounds() {
    let mut env = TestEnv::cluster(&[1, 1, 1, 1, 1, 1]);
    env.scatter("d", &[0]);
    let plan = env
        .s
        .plan_replicate(&[key("d")], None, None, 2, true)
        .expect("d is there");
    assert_eq!(plan.fetch.len(), 2, "two copies from one");
    assert!(plan.drop.is_empty());
    env.add_keys(1, &["d"]);
    env.add_keys(2, &["d"]);
    let plan = env
        .s
        .plan_replicate(&[key("d")], Some(2), None, 2, true)
        .expect("d is there");
    assert_eq!(plan.drop, [(address(2), vec![key("d")])]);
    assert!(plan.fetch.is_empty());
    let none = env.s.plan_replicate(&[key("d")], Some(0), None, 2, true);
    assert_eq!(none, Err(PlanError::NoCopies));
}

#[test]
fn adaptive_target_grows_with_the_work() {
    let mut env = TestEnv::with_config(CoreConfig {
        adaptive_target_duration: 5.0,
        ..CoreConfig::default()
    });
    assert_eq!(env.s.adaptive_target(None), 0);
    env.map("f", 100);
    // 100 tasks of half a second each in five seconds.
    assert_eq!(env.s.adaptive_target(None), 10);
    assert_eq!(env.s.adaptive_target(Some(1.0)), 50);
    assert_eq!(
        env.s.adaptive_target(Some(1e9)),
        1,
        "there is work, so one at least"
    );
    env.add_worker(0, 2);
    assert_eq!(env.s.adaptive_target(None), 5, "workers have two threads");
}

#[test]
fn idle_workers_with_little_data_are_closed_first() {
    let mut env = sized_cluster(&[0, 0, 0]);
    env.scatter_sized("d", &[0], 400);
    env.scatter_sized("e", &[1], 100);
    let close = |env: &TestEnv, how: WorkersToClose| -> Vec<u32> {
        let group = |w: WorkerId| w.0.to_string().into();
        env.s
            .workers_to_close(&how, group)
            .iter()
            .map(|w| w.0)
            .collect()
    };
    // Twice the data (500 B) fits one worker (1000 B).
    assert_eq!(close(&env, WorkersToClose::default()), [2, 1]);
    let n = |n| WorkersToClose {
        n: Some(n),
        ..WorkersToClose::default()
    };
    assert_eq!(close(&env, n(1)), [2]);
    let target = WorkersToClose {
        target: Some(1),
        minimum: Some(2),
        ..WorkersToClose::default()
    };
    assert_eq!(close(&env, target), [2]);
    env.submit(vec![task("x", &["d"])], &["x"]);
    assert_eq!(close(&env, n(2)), [2, 1], "busy ones last");
    let together = env.s.workers_to_close(&n(3), |_| "all".into());
    assert_eq!(together.len(), 3);
}

#[test]
fn sizes_that_change_are_taken_over() {
    let mut env = TestEnv::cluster(&[1]);
    for nbytes in [10, 30] {
        env.event(Event::UpdateData {
            data: vec![DataPlacement {
                key: key("d"),
                who_has: vec![address(0)],
                nbytes,
            }],
            client: None,
            stimulus_id: "scatter".into(),
        });
    }
    assert_eq!(env.s.worker(WorkerId(0)).map(|w| w.nbytes()), Some(30));
    assert_eq!(env.state("d"), TaskState::Memory);
}
