//! A task that needs very many others comes, and is ordered, little by little: what others see is what would have come
//! of it at once.
#![allow(missing_docs)]

mod env;

use env::{ALICE, TestEnv, key, task, worker_info};
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::graph::portions::{GraphId, Portions, Rest};
use oxidask_scheduler_core::graph::{GraphUpdate, LostDependencies, NewTask, numbering};
use oxidask_scheduler_core::ids::{ClientId, WorkerId};
use oxidask_scheduler_core::task::TaskState;

const LEAVES: [&str; 6] = ["x-0", "x-1", "x-2", "x-3", "x-4", "x-5"];

/// Two workers; an order names so many inputs at a time.
fn cluster(inputs_at_once: usize) -> TestEnv {
    let mut env = TestEnv::with_config(CoreConfig {
        inputs_at_once,
        ..CoreConfig::default()
    });
    env.add_worker(0, 3);
    env.add_worker(1, 3);
    env.forget_effects();
    env
}

fn leaves_and_sum() -> Vec<NewTask> {
    let mut tasks: Vec<NewTask> = LEAVES.iter().map(|leaf| task(leaf, &[])).collect();
    tasks.push(task("sum-0", &LEAVES));
    tasks
}

/// The leaves are there, and the first two that `sum-0` needs of them.
fn begun(env: &mut TestEnv) -> Rest {
    let update = env.graph(leaves_and_sum(), &["sum-0"]);
    begin(env, update)
}

fn begin(env: &mut TestEnv, update: GraphUpdate) -> Rest {
    let numbering = numbering(&update.tasks, &update.keys).expect("few tasks");
    let portions = Portions::of(update, numbering, GraphId(1), 2).expect("large enough");
    let (outline, mut rest) = portions.begin();
    env.event(Event::BeginGraph(Box::new(outline)));
    while env.s.task(&key("sum-0")).is_none() {
        next(env, &mut rest);
    }
    rest
}

fn next(env: &mut TestEnv, rest: &mut Rest) {
    let portion = rest.next().expect("something is left");
    env.event(Event::ContinueGraph(Box::new(portion)));
}

fn all(env: &mut TestEnv, rest: Rest) {
    for portion in rest {
        env.event(Event::ContinueGraph(Box::new(portion)));
    }
}

fn state(env: &TestEnv, name: &str) -> Option<TaskState> {
    env.s.task(&key(name)).map(|task| task.state())
}

fn running(env: &TestEnv) -> Option<(u32, String)> {
    let mut tasks = env.s.tasks();
    let task = tasks.find(|task| task.state() == TaskState::Processing)?;
    Some((task.processing_on()?.id().0, task.key().to_text()))
}

/// Works off everything that is on workers.
fn work(env: &mut TestEnv) {
    while let Some((worker, name)) = running(env) {
        env.finish(worker, &name);
    }
}

fn leave(env: &mut TestEnv, client: ClientId) {
    env.event(Event::RemoveClient {
        client,
        stimulus_id: "leave".into(),
    });
    env.pass(0.0);
}

#[test]
fn it_runs_when_all_that_it_depends_on_has_come() {
    let mut env = cluster(1000);
    let mut rest = begun(&mut env);
    work(&mut env);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Waiting));
    next(&mut env, &mut rest);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Waiting));
    env.forget_effects();
    all(&mut env, rest);
    let on = env.on("sum-0").expect("it runs");
    let order = format!("w{on}: compute sum-0 [x-0@1 x-1@1 x-2@1 x-3@1 x-4@1 x-5@1]");
    env.expect(&[&order]);
    env.finish(on, "sum-0");
    assert_eq!(env.s.tasks_len(), 7, "its inputs are known");
    assert_eq!(state(&env, "x-5"), Some(TaskState::Released));
}

#[test]
fn the_watchdog_lets_it_wait() {
    let mut env = cluster(1000);
    let rest = begun(&mut env);
    work(&mut env);
    env.pass(300.0);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Waiting));
    all(&mut env, rest);
    work(&mut env);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Memory));
}

#[test]
fn it_is_forgotten_with_the_client_that_has_not_told_all() {
    let mut env = cluster(1000);
    let rest = begun(&mut env);
    let bob = env.add_client(7, "bob");
    env.event(Event::ClientDesiresKeys {
        client: bob,
        keys: vec![key("sum-0")],
    });
    env.forget_effects();
    leave(&mut env, ALICE);
    assert!(
        env.sent().contains(&"c7: cancelled sum-0".to_owned()),
        "it can not run any more"
    );
    all(&mut env, rest);
    assert_eq!(env.s.tasks_len(), 0);
}

#[test]
fn a_failure_meanwhile_is_its_own() {
    for after in [false, true] {
        let mut env = cluster(1000);
        let rest = begun(&mut env);
        // Of those that it depends on as far as is known, or of those that are to come.
        let failing = if after { "x-5" } else { "x-0" };
        let on = env.on(failing).expect("it runs");
        env.err(on, failing);
        let known = if after {
            TaskState::Waiting
        } else {
            TaskState::Erred
        };
        assert_eq!(state(&env, "sum-0"), Some(known));
        all(&mut env, rest);
        assert_eq!(state(&env, "sum-0"), Some(TaskState::Erred));
        env.event(Event::RetryKeys {
            keys: vec![key("sum-0")],
            stimulus_id: "retry".into(),
        });
        work(&mut env);
        assert_eq!(state(&env, "sum-0"), Some(TaskState::Memory));
    }
}

#[test]
fn tasks_that_failed_run_again_before_all_has_come() {
    let mut env = cluster(1000);
    let rest = begun(&mut env);
    let on = env.on("x-0").expect("it runs");
    env.err(on, "x-0");
    env.event(Event::RetryKeys {
        keys: vec![key("sum-0")],
        stimulus_id: "retry".into(),
    });
    work(&mut env);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Waiting));
    all(&mut env, rest);
    work(&mut env);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Memory));
}

#[test]
fn what_is_lost_meanwhile_is_computed_again() {
    let mut env = cluster(1000);
    let rest = begun(&mut env);
    work(&mut env);
    env.lose_worker(0);
    all(&mut env, rest);
    work(&mut env);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Memory));
}

#[test]
fn without_one_of_its_dependencies_it_can_not_run() {
    for lost_dependencies in [LostDependencies::DropTasks, LostDependencies::RefuseGraph] {
        let mut env = cluster(1000);
        env.scatter("data", &[1]);
        let mut inputs = LEAVES.to_vec();
        inputs.push("data");
        let mut tasks = leaves_and_sum();
        tasks[6] = NewTask {
            order: tasks[6].order,
            ..task("sum-0", &inputs)
        };
        let mut update = env.graph(tasks, &["sum-0"]);
        update.lost_dependencies = lost_dependencies;
        let mut rest = begin(&mut env, update);
        env.lose_worker(1);
        assert_eq!(state(&env, "data"), None);
        assert_eq!(state(&env, "sum-0"), Some(TaskState::Waiting));
        env.forget_effects();
        next(&mut env, &mut rest);
        all(&mut env, rest);
        env.pass(0.0);
        assert_eq!(state(&env, "sum-0"), None);
        let told = env.sent();
        let told: Vec<_> = told.iter().filter(|text| text.starts_with("c0")).collect();
        assert_eq!(told, ["c0: cancelled sum-0"]);
        assert_eq!(env.s.tasks_len(), 0, "nobody wants the others");
    }
}

#[test]
fn a_result_brought_meanwhile_is_kept() {
    let mut env = cluster(1000);
    let rest = begun(&mut env);
    env.scatter("sum-0", &[1]);
    all(&mut env, rest);
    work(&mut env);
    env.pass(0.0);
    assert_eq!(env.who_has("sum-0"), [1]);
    env.release(&["sum-0"]);
    env.pass(0.0);
    assert_eq!(state(&env, "sum-0"), None);
}

#[test]
fn the_same_graph_again_changes_nothing() {
    let mut env = cluster(1000);
    env.submit(leaves_and_sum(), &["sum-0"]);
    let mut update = env.graph(leaves_and_sum(), &["sum-0"]);
    update.lost_dependencies = LostDependencies::DropTasks;
    let numbering = numbering(&update.tasks, &update.keys).expect("few tasks");
    let portions = Portions::of(update, numbering, GraphId(2), 2).expect("large enough");
    let (outline, rest) = portions.begin();
    env.event(Event::BeginGraph(Box::new(outline)));
    all(&mut env, rest);
    work(&mut env);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Memory));
}

/// `sum-0` is on a worker, its order is not complete.
fn ordered() -> (TestEnv, u32) {
    let mut env = cluster(2);
    env.submit(leaves_and_sum(), &["sum-0"]);
    while env.on("sum-0").is_none() {
        let (worker, name) = running(&env).expect("a leaf runs");
        env.finish(worker, &name);
    }
    let on = env.on("sum-0").expect("it runs");
    env.forget_effects();
    (env, on)
}

fn is_sent(env: &mut TestEnv) -> Vec<String> {
    let mut sent = env.sent();
    sent.retain(|text| text.contains("compute sum-0"));
    sent
}

#[test]
fn an_order_is_given_when_it_is_complete() {
    let (mut env, on) = ordered();
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Processing));
    env.expect(&[]);
    env.pass(0.0);
    let order = format!("w{on}: compute sum-0 [x-0@1 x-1@1 x-2@1 x-3@1 x-4@1 x-5@1]");
    assert_eq!(is_sent(&mut env), [order]);
    env.finish(on, "sum-0");
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Memory));
}

#[test]
fn what_else_is_for_the_worker_comes_after_the_order() {
    let (mut env, on) = ordered();
    let more = ["y-0", "y-1", "y-2", "y-3"];
    env.submit(more.map(|name| task(name, &[])).to_vec(), &more);
    env.pass(0.0);
    let mut sent = env.sent();
    sent.retain(|text| text.starts_with(&format!("w{on}: compute")));
    assert!(sent.len() > 1 && sent[0].contains("sum-0"), "{sent:?}");
}

#[test]
fn a_task_that_nobody_wants_any_more_is_not_ordered() {
    let (mut env, on) = ordered();
    env.release(&["sum-0"]);
    env.pass(0.0);
    assert!(is_sent(&mut env).is_empty());
    assert_eq!(env.s.tasks_len(), 0);
    assert!(env.s.worker(WorkerId(on)).is_some());
}

#[test]
fn a_worker_that_leaves_is_not_ordered_anything() {
    for close in [false, true] {
        let (mut env, on) = ordered();
        env.event(Event::RemoveWorker {
            worker: WorkerId(on),
            expected: true,
            close,
            stimulus_id: "leave".into(),
        });
        let told = env.sent();
        let closed = told.contains(&format!("w{on}: close scheduler-remove-worker"));
        assert_eq!(closed, close);
        env.pass(0.0);
        work(&mut env);
        assert!(is_sent(&mut env).len() <= 1);
        assert_eq!(state(&env, "sum-0"), Some(TaskState::Memory));
        assert_eq!(env.who_has("sum-0"), [1 - on]);
    }
}

#[test]
fn an_input_that_is_lost_meanwhile_is_computed_first() {
    let (mut env, on) = ordered();
    env.lose_worker(1 - on);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Waiting));
    env.pass(0.0);
    assert!(is_sent(&mut env).is_empty());
    work(&mut env);
    env.pass(0.0);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Memory));
}

#[test]
fn inputs_that_are_too_large_fail_the_task_before_it_is_ordered() {
    let mut env = TestEnv::with_config(CoreConfig {
        inputs_at_once: 2,
        ..CoreConfig::default()
    });
    let mut info = worker_info(0, 3);
    info.memory_limit = 1000;
    env.add_worker_as(0, info);
    for leaf in LEAVES {
        env.scatter_sized(leaf, &[0], 200);
    }
    env.submit(vec![task("sum-0", &LEAVES)], &["sum-0"]);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Processing));
    env.pass(0.0);
    assert!(is_sent(&mut env).is_empty());
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Erred));
}
