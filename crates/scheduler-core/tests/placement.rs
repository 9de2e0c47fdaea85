//! Which worker gets a task.
#![allow(missing_docs)]

mod env;

use std::sync::Arc;

use env::{TestEnv, address, key, task, with, worker_info};
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::graph::TaskOptions;
use oxidask_scheduler_core::ids::WorkerId;
use oxidask_scheduler_core::task::TaskState;
use oxidask_scheduler_core::worker::WorkerStatus;

fn on_workers(workers: &[&str]) -> TaskOptions {
    TaskOptions {
        workers: Some(workers.iter().map(|&w| Arc::from(w)).collect()),
        ..TaskOptions::default()
    }
}

fn unlimited() -> CoreConfig {
    CoreConfig {
        worker_saturation: f64::INFINITY,
        ..CoreConfig::default()
    }
}

#[test]
fn tasks_go_to_their_data() {
    let mut env = TestEnv::cluster(&[1, 1, 1]);
    env.scatter("a", &[2]);
    env.submit(vec![task("x", &["a"])], &["x"]);
    assert_eq!(env.on("x"), Some(2));
}

#[test]
fn and_to_the_larger_part_of_it() {
    let mut env = TestEnv::cluster(&[1, 1, 1]);
    env.scatter_sized("small", &[0], 1_000);
    env.scatter_sized("large", &[1], 1_000_000_000);
    env.submit(vec![task("x", &["small", "large"])], &["x"]);
    assert_eq!(env.on("x"), Some(1));
}

#[test]
fn unless_the_worker_with_the_data_has_too_much_to_do() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.scatter_sized("a", &[0, 1], 1_000);
    env.submit(vec![task("x", &["a"]), task("y", &["a"])], &["x", "y"]);
    let mut on = [env.on("x"), env.on("y")];
    on.sort();
    assert_eq!(on, [Some(0), Some(1)]);
}

#[test]
fn unrelated_tasks_take_turns() {
    let mut env = TestEnv::cluster(&[2, 2, 2]);
    env.submit(
        vec![task("a", &[]), task("b", &[]), task("c", &[])],
        &["a", "b", "c"],
    );
    let mut on = [env.on("a"), env.on("b"), env.on("c")];
    on.sort();
    assert_eq!(on, [Some(0), Some(1), Some(2)]);
}

/// Restrictions by address, name, host.
#[test]
fn restrictions_name_workers_in_several_ways() {
    for restriction in ["tcp://10.0.0.1:1000", "10.0.0.1:1000", "w1", "10.0.0.1"] {
        let mut env = TestEnv::cluster(&[1, 1, 1]);
        env.submit(
            vec![with(task("x", &[]), on_workers(&[restriction]))],
            &["x"],
        );
        assert_eq!(env.on("x"), Some(1), "{restriction}");
        let task = env.s.task(&key("x")).expect("submitted");
        let by_host = restriction == "10.0.0.1";
        assert_eq!(task.host_restrictions().len(), usize::from(by_host));
        assert_eq!(task.worker_restrictions().len(), usize::from(!by_host));
    }
}

#[test]
fn a_restricted_task_waits_for_its_worker() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(
        vec![with(task("x", &[]), on_workers(&["tcp://10.0.0.5:1000"]))],
        &["x"],
    );
    assert_eq!(env.state("x"), TaskState::NoWorker);
    env.add_worker(4, 1);
    assert_eq!(env.state("x"), TaskState::NoWorker);
    env.add_worker(5, 1);
    assert_eq!(env.on("x"), Some(5));
}

#[test]
fn unless_others_are_allowed() {
    let mut env = TestEnv::cluster(&[1]);
    let mut options = on_workers(&["tcp://10.0.0.5:1000"]);
    options.allow_other_workers = true;
    env.submit(vec![with(task("x", &[]), options)], &["x"]);
    assert_eq!(env.on("x"), Some(0));
}

#[test]
fn restrictions_set_later_count_for_the_next_run() {
    let mut env = TestEnv::cluster(&[1]);
    env.set_status(0, WorkerStatus::Paused);
    env.submit(vec![task("x", &[])], &["x"]);
    env.event(Event::SetRestrictions {
        restrictions: vec![(key("x"), Some(vec![address(3)]))],
    });
    env.set_status(0, WorkerStatus::Running);
    assert_eq!(env.state("x"), TaskState::NoWorker);
    env.event(Event::SetRestrictions {
        restrictions: vec![(key("x"), None)],
    });
    assert_eq!(env.on("x"), Some(0));
}

#[test]
fn tasks_that_must_not_be_queued_are_spread_at_once() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.set_status(0, WorkerStatus::Paused);
    env.set_status(1, WorkerStatus::Paused);
    env.scatter("barrier", &[0]);
    let names: Vec<String> = (0..20).map(|i| format!("unpack-{i}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    let tasks = names
        .iter()
        .map(|n| task(n, &["start"]))
        .chain([task("start", &[])]);
    env.submit(tasks.collect(), &keys);
    env.event(Event::SetQueueable {
        keys: keys.iter().map(|k| key(k)).collect(),
        queueable: false,
    });
    env.set_status(0, WorkerStatus::Running);
    env.set_status(1, WorkerStatus::Running);
    let on = env.on("start").expect("there are workers");
    env.finish(on, "start");
    assert_eq!(env.s.queued_count(), 0);
    assert_eq!(env.processing(0).len(), 10);
    assert_eq!(env.processing(1).len(), 10);
}

#[test]
fn resources_are_needed_and_counted() {
    let gpu = |n: f64| TaskOptions {
        resources: vec![("GPU".into(), n)],
        ..TaskOptions::default()
    };
    let mut env = TestEnv::cluster(&[1, 1]);
    env.submit(vec![with(task("x", &[]), gpu(2.0))], &["x"]);
    assert_eq!(env.state("x"), TaskState::NoWorker);
    let resources = |n: f64| Event::SetResources {
        worker: WorkerId(1),
        resources: vec![("GPU".into(), n)],
        stimulus_id: "resources".into(),
    };
    env.event(resources(1.0));
    assert_eq!(env.state("x"), TaskState::NoWorker);
    env.event(resources(2.0));
    assert_eq!(env.on("x"), Some(1));
    let used = |env: &TestEnv| {
        env.s
            .worker(WorkerId(1))
            .map(|w| w.used_resources().to_vec())
    };
    assert_eq!(used(&env), Some(vec![("GPU".into(), 2.0)]));
    env.finish(1, "x");
    assert_eq!(used(&env), Some(vec![("GPU".into(), 0.0)]));
}

#[test]
fn tasks_go_only_to_workers_of_their_release() {
    let mut env = TestEnv::new();
    for (worker, release) in [(0, "2026.8.0"), (1, "2.30.1")] {
        let mut info = worker_info(worker, 1);
        info.release = release.into();
        env.add_worker_as(worker, info);
    }
    let submit = |env: &mut TestEnv, name: &str, n: usize, release: &str| {
        let names: Vec<String> = (0..n).map(|i| format!("{name}-{i}")).collect();
        let tasks = names.iter().map(|n| task(n, &[])).collect();
        let keys: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut update = env.graph(tasks, &keys);
        update.release = release.into();
        env.event(Event::UpdateGraph(Box::new(update)));
    };
    submit(&mut env, "old", 20, "2.30.1");
    submit(&mut env, "none", 1, "2022.12.0");
    assert_eq!(env.processing(0), Vec::<String>::new());
    assert_eq!(env.processing(1).len(), 2, "the rest is queued");
    assert_eq!(env.state("none-0"), TaskState::NoWorker);
    // A full queue of one release does not hold up another.
    submit(&mut env, "new", 20, "2026.8.0");
    assert_eq!(env.processing(0), ["new-0", "new-1"]);
    env.finish(0, "new-0");
    assert_eq!(env.processing(0), ["new-1", "new-2"]);
    submit(&mut env, "any", 1, "");
    env.add_worker_as(2, {
        let mut info = worker_info(2, 1);
        info.release = "2022.12.0".into();
        info
    });
    assert_eq!(env.on("none-0"), Some(2));
}

#[test]
fn root_tasks_are_sent_as_threads_come_free() {
    let mut env = TestEnv::cluster(&[2, 2]);
    let names = env.map("load", 20);
    // 1.1 tasks per thread, rounded up.
    assert_eq!(env.processing(0).len(), 3);
    assert_eq!(env.processing(1).len(), 3);
    assert_eq!(env.s.queued_count(), 14);
    assert_eq!(
        env.s.queued().next().map(|t| t.key().to_text()),
        Some("load-6".into())
    );
    let first = env.processing(0)[0].clone();
    env.forget_effects();
    env.finish(0, &first);
    env.expect(&[&format!("c0: memory {first}"), "w0: compute load-6 []"]);
    assert_eq!(env.state(&names[7]), TaskState::Queued);
}

#[test]
fn what_follows_runs_before_new_roots() {
    let mut env = TestEnv::cluster(&[1]);
    let mut tasks = Vec::new();
    let roots: Vec<String> = (0..6).map(|i| format!("load-{i}")).collect();
    let next: Vec<String> = (0..6).map(|i| format!("inc-{i}")).collect();
    for (root, inc) in roots.iter().zip(&next) {
        tasks.push(task(root, &[]));
        tasks.push(task(inc, &[root]));
    }
    let keys: Vec<&str> = next.iter().map(String::as_str).collect();
    env.submit(tasks, &keys);
    env.forget_effects();
    env.finish(0, "load-0");
    env.expect(&["w0: compute inc-0 [load-0@1]"]);
    assert_eq!(env.processing(0), ["load-1", "inc-0"]);
}

#[test]
fn a_seceded_task_makes_room() {
    let mut env = TestEnv::cluster(&[1]);
    env.map("f", 4);
    assert_eq!(env.processing(0), ["f-0", "f-1"]);
    env.event(Event::LongRunning {
        worker: WorkerId(0),
        key: key("f-0"),
        compute_duration: Some(0.25),
        run_id: env.run_id("f-0"),
        stimulus_id: "secede".into(),
    });
    assert_eq!(env.processing(0), ["f-0", "f-1", "f-2"]);
    assert_eq!(
        env.s.task_prefix("f").and_then(|p| p.duration_average()),
        Some(0.25)
    );
    let worker = env.s.worker(WorkerId(0)).expect("registered");
    assert_eq!(worker.long_running().count(), 1);
    assert_eq!(worker.occupancy(), 0.5, "seceded tasks do not count");
}

#[test]
fn without_queueing_siblings_stay_together() {
    let mut env = TestEnv::with_config(unlimited());
    for w in 0..2 {
        env.add_worker(w, 2);
    }
    let names = env.map("load", 12);
    assert_eq!(env.s.queued_count(), 0);
    let on: Vec<Option<u32>> = names.iter().map(|n| env.on(n)).collect();
    let half = |range: std::ops::Range<usize>| on[range].to_vec();
    assert_eq!(
        half(0..6),
        vec![on[0]; 6],
        "a worker's share: 12 tasks on 4 threads, 2 threads"
    );
    assert_eq!(half(6..12), vec![on[6]; 6]);
    assert_ne!(on[0], on[6]);
}

#[test]
fn data_producers_count_as_roots() {
    let mut env = TestEnv::cluster(&[1]);
    let producer = TaskOptions {
        data_producer: true,
        ..TaskOptions::default()
    };
    let tasks = ["a", "b", "c"].map(|n| with(task(n, &[]), producer.clone()));
    env.submit(tasks.to_vec(), &["a", "b", "c"]);
    assert_eq!(
        env.states(&["a", "b", "c"]),
        ["processing", "processing", "queued"]
    );
}

#[test]
fn idle_and_saturated() {
    let mut env = TestEnv::with_config(unlimited());
    env.add_worker(0, 1);
    env.add_worker(1, 1);
    let pinned = on_workers(&["w0"]);
    let names: Vec<String> = (0..10).map(|i| format!("f-{i}")).collect();
    let tasks = names
        .iter()
        .map(|n| with(task(n, &[]), pinned.clone()))
        .collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    env.submit(tasks, &keys);
    let list = |views: Vec<WorkerId>| views.into_iter().map(|w| w.0).collect::<Vec<_>>();
    assert_eq!(list(env.s.idle().map(|w| w.id()).collect()), [1]);
    assert_eq!(env.s.worker(WorkerId(0)).map(|w| w.occupancy()), Some(5.0));
    assert_eq!(env.s.total_occupancy(), 5.0);
    // pending = 5 s · 9/10; average per thread = 2.5 s; 4.5 < 1.9 · 2.5
    assert_eq!(env.s.saturated().count(), 0);
    env.add_worker(2, 1);
    env.event(Event::Reschedule {
        worker: None,
        key: key("f-0"),
        stimulus_id: "x".into(),
    });
    assert_eq!(list(env.s.saturated().map(|w| w.id()).collect()), [0]);
}

#[test]
fn inputs_to_be_fetched_count_as_work() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.scatter_sized("d", &[0], 100_000_000);
    env.submit(
        vec![
            with(task("x", &["d"]), on_workers(&["w1"])),
            with(task("y", &["d"]), on_workers(&["w1"])),
        ],
        &["x", "y"],
    );
    let worker = |env: &TestEnv| {
        let w = env.s.worker(WorkerId(1)).expect("registered");
        (
            w.occupancy(),
            w.needs_what().map(|(_, n)| n).collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        worker(&env),
        (2.0, vec![2]),
        "fetched once: 0.5 + 0.5 + 1 second"
    );
    env.add_keys(1, &["d"]);
    assert_eq!(worker(&env), (1.0, vec![]));
}

#[test]
fn addresses_are_coerced() {
    let env = TestEnv::cluster(&[1, 1]);
    for (text, expected) in [
        ("w1", Some("tcp://10.0.0.1:1000")),
        ("10.0.0.9:80", Some("tcp://10.0.0.9:80")),
        ("localhost:80", Some("tcp://127.0.0.1:80")),
        ("tls://10.0.0.9:80", Some("tls://10.0.0.9:80")),
        ("tcp://[::1]:80", Some("tcp://[::1]:80")),
        ("inproc://10.0.0.9/1/2", Some("inproc://10.0.0.9/1/2")),
        ("10.0.0.9", None),
        ("some-host", None),
        ("::1", None),
        ("host:port", None),
    ] {
        assert_eq!(env.s.coerce_address(text).as_deref(), expected, "{text}");
    }
}
