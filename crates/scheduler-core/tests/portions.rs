//! Large graphs come in portions: what others see is what a graph in one piece would have led to.
#![allow(missing_docs)]

mod env;

use std::collections::BTreeMap;

use env::{ALICE, TestEnv, key, task};
use oxidask_scheduler_core::effect::{ClientMsg, Effect, LoggedEvent};
use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::graph::portions::{GraphId, Portions, Rest};
use oxidask_scheduler_core::graph::{GraphUpdate, LostDependencies, NewTask, numbering};
use oxidask_scheduler_core::ids::{ClientId, WorkerId};
use oxidask_scheduler_core::task::TaskState;
use proptest::prelude::*;

fn portions(
    update: GraphUpdate,
    graph: GraphId,
    limit: usize,
) -> Result<Portions, Box<GraphUpdate>> {
    let numbering = numbering(&update.tasks, &update.keys).expect("few tasks");
    Portions::of(update, numbering, graph, limit)
}

fn cut(update: GraphUpdate, limit: usize) -> Portions {
    portions(update, GraphId(1), limit).expect("large enough to be cut up")
}

fn begin(env: &mut TestEnv, mut portions: Portions) -> Rest {
    let states: Vec<_> = env
        .s
        .tasks()
        .map(|t| (t.key().clone(), t.state()))
        .collect();
    portions.found(&states);
    let (outline, rest) = portions.begin();
    env.event(Event::BeginGraph(Box::new(outline)));
    rest
}

fn all(env: &mut TestEnv, portions: Rest) {
    for portion in portions {
        env.event(Event::ContinueGraph(Box::new(portion)));
    }
}

fn next(env: &mut TestEnv, portions: &mut Rest) {
    let portion = portions.next().expect("a portion is left");
    env.event(Event::ContinueGraph(Box::new(portion)));
}

/// Works off everything that is on workers.
fn work(env: &mut TestEnv) {
    loop {
        let running = env.s.tasks().find(|t| t.state() == TaskState::Processing);
        let Some((worker, name)) =
            running.and_then(|t| Some((t.processing_on()?.id(), t.key().to_text())))
        else {
            return;
        };
        env.finish(worker.0, &name);
    }
}

fn told(env: &mut TestEnv) -> Vec<ClientMsg> {
    let told = |effect| match effect {
        Effect::ToClient(ALICE, message) => Some(message),
        _ => None,
    };
    env.effects().into_iter().filter_map(told).collect()
}

fn state(env: &TestEnv, name: &str) -> Option<TaskState> {
    env.s.task(&key(name)).map(|t| t.state())
}

/// `leaf-0` … `leaf-3`, their `sum-0`, and `end-0` after it.
fn small(env: &mut TestEnv) -> GraphUpdate {
    let leaves = ["leaf-0", "leaf-1", "leaf-2", "leaf-3"];
    let mut tasks: Vec<NewTask> = leaves.iter().map(|leaf| task(leaf, &[])).collect();
    tasks.push(task("sum-0", &leaves));
    tasks.push(task("end-0", &["sum-0"]));
    env.graph(tasks, &["end-0"])
}

#[test]
fn small_graphs_stay_in_one_piece() {
    let mut env = TestEnv::cluster(&[1]);
    let update = small(&mut env);
    assert!(
        portions(update, GraphId(0), 6).is_err(),
        "6 tasks, 5 dependencies"
    );
}

#[test]
fn an_order_that_is_none_stays_in_one_piece() {
    let mut env = TestEnv::cluster(&[1]);
    let mut update = small(&mut env);
    update.tasks[0].order = 99;
    assert!(portions(update, GraphId(0), 1).is_err());
}

#[test]
fn what_later_portions_need_is_kept() {
    let mut env = TestEnv::cluster(&[4]);
    let update = small(&mut env);
    let mut portions = begin(&mut env, cut(update, 2));
    next(&mut env, &mut portions);
    assert_eq!(state(&env, "leaf-0"), Some(TaskState::Processing));
    work(&mut env);
    assert_eq!(
        state(&env, "leaf-0"),
        Some(TaskState::Memory),
        "nobody wants it, `sum` is to come"
    );
    all(&mut env, portions);
    work(&mut env);
    assert_eq!(state(&env, "end-0"), Some(TaskState::Memory));
    env.release(&["end-0"]);
    assert_eq!(env.s.tasks_len(), 0);
}

#[test]
fn another_client_may_want_what_is_still_to_come() {
    let mut env = TestEnv::cluster(&[4]);
    let bob = env.add_client(2, "bob");
    let update = small(&mut env);
    let mut portions = begin(&mut env, cut(update, 2));
    next(&mut env, &mut portions);
    let keys = vec![key("end-0"), key("sum-0"), key("nobody's")];
    env.event(Event::ClientDesiresKeys { client: bob, keys });
    let keys = vec![key("sum-0")];
    let stimulus_id = "changed-its-mind".into();
    env.event(Event::ClientReleasesKeys {
        client: bob,
        keys,
        stimulus_id,
    });
    all(&mut env, portions);
    env.release(&["end-0"]);
    work(&mut env);
    assert_eq!(
        state(&env, "end-0"),
        Some(TaskState::Memory),
        "Bob wants it"
    );
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Released));
}

#[test]
fn a_lost_result_is_computed_again_for_what_is_to_come() {
    let mut env = TestEnv::cluster(&[1, 1]);
    let update = small(&mut env);
    let mut portions = begin(&mut env, cut(update, 1));
    next(&mut env, &mut portions);
    let worker = env.s.task(&key("leaf-0")).and_then(|t| t.processing_on());
    let worker = worker.expect("on a worker").id();
    env.finish(worker.0, "leaf-0");
    env.lose_worker(worker.0);
    assert_eq!(state(&env, "leaf-0"), Some(TaskState::Processing));
    all(&mut env, portions);
    work(&mut env);
    assert_eq!(state(&env, "end-0"), Some(TaskState::Memory));
}

#[test]
fn a_client_that_leaves_takes_along_what_it_has_not_finished() {
    let mut env = TestEnv::cluster(&[2]);
    let bob = ClientId(7);
    env.event(Event::AddClient {
        client: bob,
        name: "bob".into(),
    });
    let mut update = small(&mut env);
    update.client = bob;
    let mut portions = begin(&mut env, cut(update, 2));
    next(&mut env, &mut portions);
    env.event(Event::RemoveClient {
        client: bob,
        stimulus_id: "bye".into(),
    });
    assert_eq!(env.s.tasks_len(), 0);
    assert_eq!(env.s.task_groups().count(), 0, "announced ones as well");
    all(&mut env, portions);
    assert_eq!(env.s.tasks_len(), 0, "what comes late is passed over");
}

#[test]
fn a_restart_ends_a_submission() {
    let mut env = TestEnv::cluster(&[2]);
    let update = small(&mut env);
    let mut portions = begin(&mut env, cut(update, 2));
    next(&mut env, &mut portions);
    env.event(Event::Restart {
        stimulus_id: "restart".into(),
    });
    all(&mut env, portions);
    assert_eq!(env.s.tasks_len(), 0);
}

#[test]
fn a_graph_with_lost_dependencies_is_refused_before_anything_runs() {
    let mut env = TestEnv::cluster(&[2]);
    let mut update = small(&mut env);
    update.tasks[5].dependencies.push(key("nowhere"));
    let portions = begin(&mut env, cut(update, 1));
    all(&mut env, portions);
    assert_eq!(env.s.tasks_len(), 0);
    let cancelled = |message: &ClientMsg| matches!(message, ClientMsg::CancelledKeys { keys, .. } if *keys == [key("end-0")]);
    assert!(told(&mut env).iter().any(cancelled));
}

#[test]
fn before_2025_only_the_tasks_concerned_are_dropped() {
    let mut env = TestEnv::cluster(&[2]);
    let mut update = small(&mut env);
    update.lost_dependencies = LostDependencies::DropTasks;
    update.tasks[5].dependencies.push(key("nowhere"));
    update.keys.push(key("sum-0"));
    let portions = begin(&mut env, cut(update, 1));
    all(&mut env, portions);
    work(&mut env);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Memory));
    assert_eq!(state(&env, "end-0"), None);
}

#[test]
fn data_that_is_lost_meanwhile_cancels_what_needs_it() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.scatter("data", &[0]);
    let mut update = small(&mut env);
    update.tasks[4].dependencies.push(key("data"));
    let mut portions = begin(&mut env, cut(update, 1));
    next(&mut env, &mut portions);
    env.lose_worker(0);
    assert_eq!(state(&env, "data"), None);
    env.forget_effects();
    all(&mut env, portions);
    work(&mut env);
    assert_eq!(state(&env, "end-0"), None);
    let cancelled = |message: &ClientMsg| matches!(message, ClientMsg::CancelledKeys { keys, .. } if *keys == [key("end-0")]);
    assert!(told(&mut env).iter().any(cancelled));
    assert_eq!(env.s.tasks_len(), 0, "the leaves are for nobody");
}

#[test]
fn a_failure_is_told_once() {
    for limit in [1, 100] {
        let mut env = TestEnv::cluster(&[1]);
        env.submit(vec![task("bad-0", &[])], &["bad-0"]);
        env.err(0, "bad-0");
        let tasks = vec![
            task("a-0", &[]),
            task("b-0", &["a-0", "bad-0"]),
            task("c-0", &["b-0"]),
        ];
        let update = env.graph(tasks, &["b-0", "c-0"]);
        env.forget_effects();
        match portions(update, GraphId(1), limit) {
            Ok(portions) => {
                let portions = begin(&mut env, portions);
                all(&mut env, portions);
            }
            Err(update) => env.event(Event::UpdateGraph(update)),
        }
        let mut failed: Vec<String> = told(&mut env)
            .iter()
            .filter_map(|message| match message {
                ClientMsg::TaskErred { key, .. } => Some(key.to_text()),
                _ => None,
            })
            .collect();
        failed.sort();
        assert_eq!(failed, ["b-0", "bad-0", "c-0"], "limit {limit}");
    }
}

#[test]
fn results_that_are_there_are_not_computed_again() {
    let mut env = TestEnv::cluster(&[2]);
    let update = small(&mut env);
    let again = update.clone();
    env.event(Event::UpdateGraph(Box::new(update)));
    work(&mut env);
    assert_eq!(state(&env, "leaf-0"), Some(TaskState::Released));
    let portions = begin(&mut env, cut(again, 2));
    all(&mut env, portions);
    assert_eq!(state(&env, "leaf-0"), Some(TaskState::Released));
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Released));
}

#[test]
fn a_result_that_was_there_and_is_lost_meanwhile_is_computed() {
    let mut env = TestEnv::cluster(&[1, 1]);
    env.scatter("end-0", &[0]);
    let update = small(&mut env);
    let mut portions = begin(&mut env, cut(update, 1));
    next(&mut env, &mut portions);
    assert_eq!(
        state(&env, "leaf-0"),
        Some(TaskState::Released),
        "for nothing"
    );
    env.lose_worker(0);
    all(&mut env, portions);
    work(&mut env);
    assert_eq!(state(&env, "end-0"), Some(TaskState::Memory));
}

#[test]
fn groups_are_as_large_as_they_will_be() {
    // 4 leaves are more than twice the threads only all together; then they wait in the queue.
    let mut env = TestEnv::cluster(&[1]);
    let update = small(&mut env);
    let mut portions = begin(&mut env, cut(update, 3));
    next(&mut env, &mut portions);
    let queued = env.s.queued_count();
    assert_eq!(queued, 1, "a worker of one thread takes two");
}

#[test]
fn the_log_tells_of_a_graph_once() {
    let mut env = TestEnv::cluster(&[1]);
    let update = small(&mut env);
    env.forget_effects();
    let portions = begin(&mut env, cut(update, 2));
    all(&mut env, portions);
    let logged: Vec<_> = env
        .effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::LogEvent {
                event: LoggedEvent::UpdateGraph { tasks, .. },
                ..
            } => Some(tasks),
            _ => None,
        })
        .collect();
    assert_eq!(logged, [Some((6, 6))]);
}

#[test]
fn observers_are_told_of_the_whole_graph_before_it_runs() {
    let mut env = TestEnv::cluster(&[1]);
    env.event(Event::ObserveChanges { enabled: true });
    let update = small(&mut env);
    let mut portions = begin(&mut env, cut(update, 2));
    next(&mut env, &mut portions);
    assert_eq!(env.s.tasks_len(), 0);
    all(&mut env, portions);
    work(&mut env);
    assert_eq!(state(&env, "end-0"), Some(TaskState::Memory));
}

#[test]
fn many_results_are_let_go_little_by_little() {
    let mut env = TestEnv::cluster(&[1]);
    let leaves: Vec<String> = (0..2500).map(|i| format!("leaf-{i}")).collect();
    let names: Vec<&str> = leaves.iter().map(String::as_str).collect();
    let mut tasks: Vec<NewTask> = names.iter().map(|name| task(name, &[])).collect();
    tasks.push(task("sum-0", &names));
    env.submit(tasks, &["sum-0"]);
    work(&mut env);
    assert_eq!(state(&env, "sum-0"), Some(TaskState::Memory));
    let held = |env: &TestEnv| env.s.worker(WorkerId(0)).map_or(0, |w| w.has_what_len());
    assert!(held(&env) > 1000, "not all at once");
    env.pass(0.0);
    assert_eq!(held(&env), 1);
    env.release(&["sum-0"]);
    env.pass(0.0);
    assert_eq!(env.s.tasks_len(), 0);
}

/// A tree of so many leaves, the sum of all at its root.
fn tree(leaves: usize) -> (Vec<NewTask>, String) {
    let mut level: Vec<String> = (0..leaves).map(|i| format!("leaf-{i}")).collect();
    let mut tasks: Vec<NewTask> = level.iter().map(|name| task(name, &[])).collect();
    for depth in 0.. {
        let [_, _, ..] = level.as_slice() else {
            break;
        };
        let pairs = level.chunks(2).enumerate().map(|(i, pair)| {
            let name = format!("add-{depth}-{i}");
            let below: Vec<&str> = pair.iter().map(String::as_str).collect();
            tasks.push(task(&name, &below));
            name
        });
        level = pairs.collect();
    }
    let root = level.pop().unwrap_or_default();
    (tasks, root)
}

#[test]
fn a_large_graph_is_forgotten_little_by_little() {
    let mut env = TestEnv::cluster(&[1]);
    let (tasks, root) = tree(2048);
    env.submit(tasks, &[&root]);
    work(&mut env);
    env.release(&[&root]);
    let left = env.s.tasks_len();
    assert!(
        (1000..4000).contains(&left),
        "{left} left after the first event"
    );
    env.pass(0.0);
    assert_eq!(env.s.tasks_len(), 0);
}

#[test]
fn a_large_graph_that_has_not_run_is_given_up_little_by_little() {
    let mut env = TestEnv::cluster(&[]);
    let (tasks, root) = tree(2048);
    env.submit(tasks, &[&root]);
    env.release(&[&root]);
    assert!(env.s.tasks_len() > 1000, "not all at once");
    env.pass(0.0);
    assert_eq!(env.s.tasks_len(), 0);
}

/// Random layered graphs: dependencies are numbers of earlier tasks.
fn shape() -> impl Strategy<Value = Vec<Vec<prop::sample::Index>>> {
    let task = prop::collection::vec(any::<prop::sample::Index>(), 0..12);
    prop::collection::vec(task, 3..40)
}

fn graph_of(
    env: &mut TestEnv,
    shape: &[Vec<prop::sample::Index>],
    wanted: &[prop::sample::Index],
) -> GraphUpdate {
    let names: Vec<String> = (0..shape.len())
        .map(|i| format!("t{}-{i}", i % 3))
        .collect();
    let mut tasks = Vec::new();
    for (i, picks) in shape.iter().enumerate() {
        let mut below: Vec<&str> = Vec::new();
        for pick in picks.iter().filter(|_| i > 0) {
            let name = &*names[pick.index(i)];
            if !below.contains(&name) {
                below.push(name);
            }
        }
        tasks.push(task(&names[i], &below));
    }
    let mut keys: Vec<&str> = wanted
        .iter()
        .map(|pick| &*names[pick.index(names.len())])
        .collect();
    keys.sort_unstable();
    keys.dedup();
    env.graph(tasks, &keys)
}

fn results(env: &TestEnv) -> BTreeMap<String, TaskState> {
    env.s
        .tasks()
        .map(|t| (t.key().to_text(), t.state()))
        .collect()
}

fn group_sizes(env: &TestEnv) -> BTreeMap<String, u64> {
    let sizes = env
        .s
        .task_groups()
        .map(|g| (g.name().to_string(), g.size()));
    sizes.collect()
}

proptest! {
    /// Whatever the graph, the limit and what is done between portions: in the end all is as if it had come
    /// in one piece.
    #[test]
    fn the_end_is_the_same(
        shape in shape(),
        wanted in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        limit in 1usize..8,
        pauses in prop::collection::vec(0u8..3, 0..40),
    ) {
        let mut whole = TestEnv::cluster(&[2, 1]);
        let update = graph_of(&mut whole, &shape, &wanted);
        whole.event(Event::UpdateGraph(Box::new(update.clone())));
        work(&mut whole);

        let mut env = TestEnv::cluster(&[2, 1]);
        match portions(update, GraphId(0), limit) {
            Err(update) => env.event(Event::UpdateGraph(update)),
            Ok(portions) => {
                let sizes = group_sizes(&whole);
                let mut portions = begin(&mut env, portions);
                let mut pauses = pauses.into_iter();
                loop {
                    match pauses.next() {
                        Some(1) => {
                            let running = env.s.tasks().find(|t| t.state() == TaskState::Processing);
                            if let Some((worker, name)) = running.and_then(|t| Some((t.processing_on()?.id(), t.key().to_text()))) {
                                env.finish(worker.0, &name);
                            }
                        }
                        Some(2) => work(&mut env),
                        _ => match portions.next() {
                            Some(portion) => env.event(Event::ContinueGraph(Box::new(portion))),
                            None => break,
                        },
                    }
                }
                prop_assert_eq!(sizes, group_sizes(&env));
            }
        }
        work(&mut env);
        prop_assert_eq!(results(&whole), results(&env));
    }
}
