//! Work stealing.
#![allow(missing_docs)]

mod env;

use env::{TestEnv, key, task, with};
use oxidask_scheduler_core::config::CoreConfig;
use oxidask_scheduler_core::effect::{Effect, LoggedEvent, PlainValue, WorkerMsg};
use oxidask_scheduler_core::event::{Event, StimulusId};
use oxidask_scheduler_core::graph::TaskOptions;
use oxidask_scheduler_core::ids::WorkerId;
use oxidask_scheduler_core::task::TaskState;

/// Ten tasks on worker 0, of which worker 1, which came later, could do some.
fn busy(options: TaskOptions, config: CoreConfig) -> TestEnv {
    let mut env = TestEnv::with_config(CoreConfig {
        worker_saturation: f64::INFINITY,
        amm_start: false,
        ..config
    });
    env.add_worker(0, 1);
    let names: Vec<String> = (0..10).map(|i| format!("slow-{i}")).collect();
    let tasks = names
        .iter()
        .map(|n| with(task(n, &[]), options.clone()))
        .collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    env.submit(tasks, &keys);
    env.add_worker(1, 1);
    env.forget_effects();
    env
}

fn requests(env: &mut TestEnv) -> Vec<(u32, String, StimulusId)> {
    env.effects()
        .into_iter()
        .filter_map(|e| match e {
            Effect::ToWorker(w, WorkerMsg::StealRequest { key, stimulus_id }) => {
                Some((w.0, key.to_text(), stimulus_id))
            }
            _ => None,
        })
        .collect()
}

fn answer(env: &mut TestEnv, name: &str, stimulus_id: &StimulusId, state: Option<&str>) {
    env.event(Event::StealResponse {
        worker: WorkerId(0),
        key: key(name),
        state: state.map(Into::into),
        stimulus_id: stimulus_id.clone(),
    });
}

/// A value of the log: times, costs and request numbers vary.
fn logged(value: &PlainValue) -> String {
    match value {
        PlainValue::Row(values) => {
            let values: Vec<String> = values.iter().map(logged).collect();
            format!("({})", values.join(", "))
        }
        PlainValue::Str(text) if text.starts_with("steal-") => "ID".to_owned(),
        PlainValue::Str(text) => text.to_string(),
        PlainValue::Key(key) => key.to_text(),
        PlainValue::Bool(flag) => flag.to_string(),
        PlainValue::Int(n) => n.to_string(),
        PlainValue::Float(_) => "#".to_owned(),
        PlainValue::None => "None".to_owned(),
        PlainValue::KeySet(keys) => format!("{keys:?}"),
    }
}

/// What was logged under the topic `stealing` since the last look.
fn log(env: &mut TestEnv) -> Vec<String> {
    env.effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::LogEvent {
                topics,
                event: LoggedEvent::Row(row),
            } if *topics[0] == *"stealing" => Some(logged(&PlainValue::Row(row))),
            _ => None,
        })
        .collect()
}

#[test]
fn the_log_has_the_rows_that_stock_writes() {
    let mut env = busy(TaskOptions::default(), CoreConfig::default());
    env.pass(1.1);
    let effects = env.effects();
    let asked: Vec<_> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::ToWorker(_, WorkerMsg::StealRequest { key, stimulus_id }) => {
                Some((key.to_text(), stimulus_id.clone()))
            }
            _ => None,
        })
        .collect();
    let request = effects.iter().find_map(|e| match e {
        Effect::LogEvent {
            event: LoggedEvent::Row(row),
            ..
        } => Some(logged(&PlainValue::Row(row.clone()))),
        _ => None,
    });
    let (victim, thief) = ("tcp://10.0.0.0:1000", "tcp://10.0.0.1:1000");
    let rows: Vec<String> = asked
        .iter()
        .map(|(key, _)| format!("(#, 0, {key}, #, {victim}, #, {thief}, #)"))
        .collect();
    assert_eq!(
        request,
        Some(format!("(request, ({}))", rows.join(", "))),
        "one event for a round of requests"
    );

    let (first, id) = &asked[0];
    answer(&mut env, first, id, Some("ready"));
    assert_eq!(
        log(&mut env),
        [format!("(confirm, {first}, ready, {victim}, {thief}, ID)")]
    );
    let (second, id) = &asked[1];
    answer(&mut env, second, id, Some("executing"));
    assert_eq!(
        log(&mut env),
        [format!(
            "(already-computing, {second}, executing, {victim}, {thief}, ID)"
        )]
    );
    answer(&mut env, second, id, Some("executing"));
    assert_eq!(
        log(&mut env),
        [format!(
            "(already-aborted, {second}, executing, {victim}, ID)"
        )]
    );
}

#[test]
fn idle_workers_take_over_tasks_that_have_not_begun() {
    let mut env = busy(TaskOptions::default(), CoreConfig::default());
    env.pass(1.1);
    let asked = requests(&mut env);
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|(victim, ..)| *victim == 0));
    assert_eq!(env.s.steal_requests_in_flight(), asked.len());
    let (_, name, id) = asked[0].clone();
    assert_eq!(env.on(&name), Some(0), "until the victim has given it back");
    answer(&mut env, &name, &id, Some("ready"));
    env.expect(&[&format!("w1: compute {name} []")]);
    assert_eq!(env.on(&name), Some(1));

    let (_, name, id) = asked[1].clone();
    answer(&mut env, &name, &id, Some("executing"));
    env.expect(&[]);
    assert_eq!(env.on(&name), Some(0));
    env.finish(0, &name);
    assert_eq!(env.state(&name), TaskState::Memory);
}

#[test]
fn a_victim_that_does_not_know_the_task_makes_it_start_anew() {
    let mut env = busy(TaskOptions::default(), CoreConfig::default());
    env.pass(1.1);
    let (_, name, id) = requests(&mut env)[0].clone();
    let run = env.run_id(&name);
    answer(&mut env, &name, &id, None);
    assert_ne!(env.run_id(&name), run);
    assert_eq!(env.state(&name), TaskState::Processing);
}

#[test]
fn a_thief_that_left_gets_nothing() {
    let mut env = busy(TaskOptions::default(), CoreConfig::default());
    env.pass(1.1);
    let (_, name, id) = requests(&mut env)[0].clone();
    env.lose_worker(1);
    env.forget_effects();
    answer(&mut env, &name, &id, Some("ready"));
    assert_eq!(env.on(&name), Some(0), "sent to the victim again");
}

#[test]
fn answers_to_older_requests_do_not_count() {
    let mut env = busy(TaskOptions::default(), CoreConfig::default());
    env.pass(1.1);
    let (_, name, id) = requests(&mut env)[0].clone();
    answer(&mut env, &name, &"steal-of-old".into(), Some("ready"));
    assert_eq!(env.on(&name), Some(0));
    env.finish(0, &name);
    env.forget_effects();
    answer(&mut env, &name, &id, Some("ready"));
    env.expect(&[]);
    assert_eq!(env.state(&name), TaskState::Memory);
}

#[test]
fn answers_of_workers_that_do_not_name_the_request_count() {
    let mut env = busy(TaskOptions::default(), CoreConfig::default());
    env.pass(1.1);
    let (_, name, _) = requests(&mut env)[0].clone();
    answer(&mut env, &name, &"".into(), Some("ready"));
    env.expect(&[&format!("w1: compute {name} []")]);
    assert_eq!(env.on(&name), Some(1));
}

#[test]
fn restricted_tasks_stay_unless_the_restriction_is_a_wish() {
    for (loose, stolen) in [(false, false), (true, true)] {
        let options = TaskOptions {
            workers: Some(vec!["w0".into()]),
            allow_other_workers: loose,
            ..TaskOptions::default()
        };
        let mut env = busy(options, CoreConfig::default());
        env.pass(1.1);
        assert_eq!(!requests(&mut env).is_empty(), stolen, "loose: {loose}");
    }
}

#[test]
fn actors_and_seceded_tasks_are_never_stolen() {
    let actor = TaskOptions {
        actor: true,
        ..TaskOptions::default()
    };
    let mut env = busy(actor, CoreConfig::default());
    env.pass(1.1);
    assert_eq!(requests(&mut env), []);

    let mut env = busy(TaskOptions::default(), CoreConfig::default());
    for i in 0..10 {
        let name = format!("slow-{i}");
        env.event(Event::LongRunning {
            worker: WorkerId(0),
            key: key(&name),
            compute_duration: None,
            run_id: env.run_id(&name),
            stimulus_id: "secede".into(),
        });
    }
    env.pass(1.1);
    assert_eq!(requests(&mut env), []);
}

#[test]
fn quick_tasks_with_large_inputs_stay_with_them() {
    let mut env = TestEnv::with_config(CoreConfig {
        worker_saturation: f64::INFINITY,
        amm_start: false,
        ..CoreConfig::default()
    });
    env.add_worker(0, 1);
    env.scatter_sized("d", &[0], 100_000_000_000);
    let names: Vec<String> = (0..10).map(|i| format!("slow-{i}")).collect();
    let tasks = names.iter().map(|n| task(n, &["d"])).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    env.submit(tasks, &keys);
    env.add_worker(1, 1);
    env.forget_effects();
    env.pass(5.0);
    assert_eq!(requests(&mut env), []);
}

#[test]
fn stealing_can_be_off_from_the_start_or_stopped() {
    let off = CoreConfig {
        work_stealing: false,
        ..CoreConfig::default()
    };
    let mut env = busy(TaskOptions::default(), off);
    env.pass(5.0);
    assert_eq!(requests(&mut env), []);

    let mut env = busy(TaskOptions::default(), CoreConfig::default());
    env.event(Event::SetStealing { enabled: false });
    env.pass(5.0);
    assert_eq!(requests(&mut env), []);
    env.event(Event::SetStealing { enabled: true });
    env.pass(1.1);
    assert!(!requests(&mut env).is_empty());
}
