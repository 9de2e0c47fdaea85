//! Graphs come in, run in order, and are forgotten.
#![allow(missing_docs)]

mod env;

use env::{ALICE, TestEnv, key, task, with};
use oxidask_scheduler_core::effect::{ClientMsg, Effect, WorkerMsg};
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::graph::{LostDependencies, TaskOptions};
use oxidask_scheduler_core::ids::{RunId, WorkerId};
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

#[test]
fn compute_message_carries_what_the_worker_needs() {
    let mut env = TestEnv::cluster(&[1]);
    let options = TaskOptions {
        resources: vec![("GPU".into(), 1.0)],
        priority: Some(5.0),
        ..TaskOptions::default()
    };
    let mut info = env::worker_info(7, 1);
    info.resources = vec![("GPU".into(), 2.0)];
    env.add_worker_as(7, info);
    env.scatter("d", &[0]);
    env.forget_effects();
    env.submit(vec![with(task("x", &["d"]), options)], &["x"]);
    let effects = env.effects();
    let sent = effects.iter().find_map(|e| match e {
        Effect::ToWorker(WorkerId(7), WorkerMsg::ComputeTask(c)) => Some(c),
        _ => None,
    });
    let Some(c) = sent else {
        panic!("{effects:?}");
    };
    assert_eq!(c.key, key("x"));
    assert_eq!(c.run_id, RunId(0));
    assert_eq!(c.priority[0], -5.0, "larger user priority runs first");
    assert_eq!(c.duration, 0.5, "unknown-task-duration");
    assert_eq!(c.who_has, [(key("d"), vec![env::address(0)])]);
    assert_eq!(c.nbytes, [(key("d"), 10)]);
    assert_eq!(
        c.resource_restrictions.as_deref(),
        Some(&[("GPU".into(), 1.0)][..])
    );
    assert_eq!(c.run_spec.get::<String>().map(String::as_str), Some("x"));
}

#[test]
fn ready_tasks_go_out_in_order_of_priority() {
    let mut env = TestEnv::cluster(&[1]);
    env.set_status(0, oxidask_scheduler_core::worker::WorkerStatus::Paused);
    let mut tasks = vec![task("a", &[]), task("b", &[]), task("c", &[])];
    for (t, order) in tasks.iter_mut().zip([3, 1, 2]) {
        t.order = order;
    }
    let urgent = TaskOptions {
        priority: Some(1.0),
        ..TaskOptions::default()
    };
    tasks.push(with(task("d", &[]), urgent));
    env.submit(tasks, &["a", "b", "c", "d"]);
    env.forget_effects();
    env.set_status(0, oxidask_scheduler_core::worker::WorkerStatus::Running);
    // Queued or not, the most urgent is first, then the order of the graph.
    let mut order = Vec::new();
    while let Some(name) = env.processing(0).first().cloned() {
        order.push(name.clone());
        env.finish(0, &name);
    }
    assert_eq!(order, ["d", "b", "c", "a"]);
}

#[test]
fn dependents_become_ready_in_order_of_priority() {
    let mut env = TestEnv::cluster(&[4]);
    let mut tasks = vec![
        task("x", &[]),
        task("late", &["x"]),
        task("early", &["x"]),
        task("middle", &["x"]),
    ];
    for (t, order) in tasks.iter_mut().zip([1, 9, 2, 5]) {
        t.order = order;
    }
    env.submit(tasks, &["late", "early", "middle"]);
    env.forget_effects();
    env.finish(0, "x");
    env.expect(&[
        "w0: compute early [x@1]",
        "w0: compute middle [x@1]",
        "w0: compute late [x@1]",
    ]);
}

#[test]
fn graphs_that_arrive_close_together_share_a_generation() {
    let mut env = TestEnv::cluster(&[1]);
    let generation = |env: &TestEnv, name: &str| {
        let priority = env.s.task(&key(name)).and_then(|t| t.priority());
        priority.map(|p| p[1])
    };
    for (name, timeout, pause) in [("a", 0.06, 0.0), ("b", 0.06, 0.01), ("c", 0.06, 1.0)] {
        env.pass(pause);
        let mut update = env.graph(vec![task(name, &[])], &[name]);
        update.fifo_timeout = timeout;
        env.event(Event::UpdateGraph(Box::new(update)));
    }
    assert_eq!(generation(&env, "a"), Some(1.0));
    assert_eq!(generation(&env, "b"), Some(1.0));
    assert_eq!(generation(&env, "c"), Some(2.0));

    // A task that submits tasks gets them before anything of its generation.
    let mut update = env.graph(vec![task("child", &[])], &["child"]);
    update.submitting_task = Some(key("c"));
    env.event(Event::UpdateGraph(Box::new(update)));
    assert!(generation(&env, "child") < generation(&env, "a"));
}

#[test]
fn a_task_known_already_is_not_run_again() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[])], &["x"]);
    env.finish(0, "x");
    env.forget_effects();
    env.submit(vec![task("x", &[]), task("y", &["x"])], &["y"]);
    env.expect(&["w0: compute y [x@1]", "c0: memory x"]);

    // A second client is told at once, and nobody else.
    let bob = env.add_client(1, "bob");
    env.submit_as(bob, vec![task("x", &[])], &["x"]);
    env.expect(&["c1: memory x"]);
}

#[test]
fn the_result_is_told_to_all_who_want_it_and_kept_until_the_last_lets_go() {
    let mut env = TestEnv::cluster(&[1]);
    let bob = env.add_client(1, "bob");
    env.submit(vec![task("x", &[])], &["x"]);
    env.submit_as(bob, vec![task("x", &[])], &["x"]);
    env.forget_effects();
    env.finish(0, "x");
    env.expect(&["c0: memory x", "c1: memory x"]);
    env.release(&["x"]);
    env.expect(&[]);
    env.event(Event::RemoveClient {
        client: bob,
        stimulus_id: "bye".into(),
    });
    env.expect(&["w0: free x"]);
    assert_eq!(env.s.tasks_len(), 0);
}

#[test]
fn unreachable_tasks_are_not_taken_in() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[]), task("unused", &["x"])], &["x"]);
    assert_eq!(env.s.tasks_len(), 1);
    assert_eq!(env.state("unused"), TaskState::Forgotten);
    assert_eq!(env.s.task_group("unused").map(|g| g.size()), None);
}

#[test]
fn same_key_with_other_dependencies_keeps_the_first() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(
        vec![task("a", &[]), task("b", &[]), task("x", &["a"])],
        &["x", "b"],
    );
    env.submit(vec![task("b", &[]), task("x", &["b"])], &["x"]);
    let dependencies: Vec<String> = env
        .s
        .task(&key("x"))
        .into_iter()
        .flat_map(|t| t.dependencies())
        .map(|t| t.key().to_text())
        .collect();
    assert_eq!(dependencies, ["a"]);
}

#[test]
fn a_graph_with_a_lost_dependency_is_refused_as_a_whole() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("y", &["gone"]), task("ok", &[])], &["y", "ok"]);
    env.expect(&["c0: cancelled y,ok"]);
    assert_eq!(env.s.tasks_len(), 0);
    assert_eq!(env.s.task_groups().count(), 0);

    env.submit(vec![], &["nothing"]);
    env.expect(&["c0: cancelled nothing"]);
}

#[test]
fn or_only_the_tasks_concerned_are_dropped() {
    let mut env = TestEnv::cluster(&[1]);
    let mut update = env.graph(
        vec![task("y", &["gone"]), task("z", &["y"]), task("ok", &[])],
        &["z", "ok"],
    );
    update.lost_dependencies = LostDependencies::DropTasks;
    env.event(Event::UpdateGraph(Box::new(update)));
    env.expect(&["w0: compute ok []", "c0: cancelled z"]);
    assert_eq!(env.s.tasks_len(), 1);
}

#[test]
fn fire_and_forget_wants_a_task_until_it_is_done() {
    let mut env = TestEnv::cluster(&[1]);
    let pseudo = env.add_client(9, "fire-and-forget");
    env.submit(vec![task("x", &[]), task("y", &["x"])], &["y"]);
    env.event(Event::ClientDesiresKeys {
        client: pseudo,
        keys: vec![key("y")],
    });
    env.release(&["y"]);
    env.expect(&["w0: compute x []"]);
    env.finish(0, "x");
    env.finish(0, "y");
    assert_eq!(env.s.tasks_len(), 0, "done, so nobody wants it");
    let sent = env.sent();
    assert!(
        sent.iter().all(|m| !m.starts_with("c9")),
        "a pseudo client gets no messages: {sent:?}"
    );
}

#[test]
fn wanting_an_unknown_key_changes_nothing() {
    let mut env = TestEnv::cluster(&[1]);
    env.event(Event::ClientDesiresKeys {
        client: ALICE,
        keys: vec![key("?")],
    });
    env.expect(&[]);
    assert_eq!(env.s.tasks_len(), 0);
    env.event(Event::ReportKey {
        client: ALICE,
        key: key("?"),
    });
    env.expect(&["c0: cancelled ?"]);
}

#[test]
fn groups_and_prefixes_count_states_sizes_and_durations() {
    let mut env = TestEnv::cluster(&[1]);
    let names = env.map("inc", 3);
    env.finish(0, &names[0]);
    let group = env.s.task_group("inc").expect("the group of inc-0");
    assert_eq!(group.size(), 3);
    assert_eq!(group.count(TaskState::Memory), 1);
    assert_eq!(group.nbytes_total(), 8);
    assert!((group.duration() - 0.1).abs() < 1e-6);
    let prefix = env.s.task_prefix("inc").expect("the prefix of inc-0");
    assert_eq!(prefix.name().as_ref(), "inc");
    assert!((prefix.duration_average().unwrap_or(0.0) - 0.1).abs() < 1e-5);
    assert_eq!(
        prefix
            .types()
            .map(|(n, c)| (n.to_string(), c))
            .collect::<Vec<_>>(),
        [("int".into(), 1)]
    );

    env.release(&["inc-0", "inc-1", "inc-2"]);
    assert!(env.s.task_group("inc").is_none());
    let prefix = env.s.task_prefix("inc").expect("prefixes stay");
    assert_eq!(prefix.size(), 0);
    assert!(prefix.duration_average().is_some(), "what was learnt stays");
}

#[test]
fn default_durations_and_averages() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("split-shuffle-1", &[])], &["split-shuffle-1"]);
    let average = env
        .s
        .task_prefix("split-shuffle")
        .and_then(|p| p.duration_average());
    assert_eq!(average, Some(1e-6));
    for (name, expected) in [("f-1", 0.1), ("f-2", 0.1)] {
        env.submit(vec![task(name, &[])], &[name]);
        env.finish(0, name);
        let average = env.s.task_prefix("f").and_then(|p| p.duration_average());
        assert!((average.unwrap_or(0.0) - expected).abs() < 1e-5);
    }
}

#[test]
fn the_story_of_a_task() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[]), task("y", &["x"])], &["y"]);
    env.finish(0, "x");
    env.finish(0, "y");
    let story: Vec<String> = env
        .s
        .story(&[key("x")])
        .iter()
        .map(|e| {
            let to: Vec<String> = e
                .recommendations()
                .map(|(k, s)| format!("{k}:{}", s.as_str()))
                .collect();
            format!(
                "{} {} {} [{}]",
                e.key,
                e.start.as_str(),
                e.finish.as_str(),
                to.join(" ")
            )
        })
        .collect();
    assert_eq!(
        story,
        [
            "y released waiting [x:waiting]",
            "x released waiting [x:processing]",
            "x waiting processing []",
            "x processing memory [y:processing]",
            "y processing memory [x:released]",
            "x memory released []",
        ]
    );
}

#[test]
fn observers_see_each_transition_with_the_message_that_caused_it() {
    let mut env = TestEnv::cluster(&[1]);
    env.event(Event::ObserveTransitions { enabled: true });
    env.submit(vec![task("x", &[])], &["x"]);
    let mut message = env.finished(0, "x", env.run_id("x"));
    message.raw = Some(oxidask_scheduler_core::opaque::Opaque::new(42));
    env.event(Event::TaskFinished(Box::new(message)));
    let seen: Vec<_> = env
        .effects()
        .into_iter()
        .filter_map(|e| match e {
            Effect::Transition(t) => Some((t.start, t.finish, t.raw.is_some(), t.worker)),
            _ => None,
        })
        .collect();
    use TaskState::{Memory, Processing, Released, Waiting};
    assert_eq!(
        seen,
        [
            (Released, Waiting, false, None),
            (Waiting, Processing, false, None),
            (Processing, Memory, true, Some(WorkerId(0))),
        ]
    );
}

#[test]
fn restart_forgets_everything_and_tells_everybody() {
    let mut env = TestEnv::cluster(&[1]);
    env.scatter("d", &[0]);
    env.submit(vec![task("x", &[]), task("y", &["x", "d"])], &["y"]);
    env.forget_effects();
    env.event(Event::Restart {
        stimulus_id: "restart".into(),
    });
    assert_eq!(env.s.tasks_len(), 0);
    assert_eq!(env.s.task_prefixes().count(), 0);
    let sent = env.sent();
    assert!(sent.contains(&"w0: free x".to_owned()), "{sent:?}");
    assert_eq!(sent.last().map(String::as_str), Some("c0: restart"));
}

#[test]
fn key_in_memory_carries_the_type_from_the_worker() {
    let mut env = TestEnv::cluster(&[1]);
    env.submit(vec![task("x", &[])], &["x"]);
    env.forget_effects();
    env.finish(0, "x");
    let effects = env.effects();
    assert!(
        matches!(
            effects.first(),
            Some(Effect::ToClient(
                ALICE,
                ClientMsg::KeyInMemory { type_: Some(_), .. }
            ))
        ),
        "{effects:?}"
    );
}
