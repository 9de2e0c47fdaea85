//! What each order does to a task in each state: the whole table.
#![allow(missing_docs)]

mod env;

use env::{TestEnv, config, order};
use oxidask_worker_core::config::WorkerConfig;
use oxidask_worker_core::event::GatherOutcome;
use oxidask_worker_core::task::TaskState::{self, *};

/// The legal steps, as documented: one line per state.
const LEGAL: [(TaskState, &[TaskState]); 15] = [
    (Released, &[Waiting, Fetch, Missing, Memory, Forgotten]),
    (Waiting, &[Released, Ready, Constrained, Error]),
    (Ready, &[Released, Waiting, Executing]),
    (Constrained, &[Released, Waiting, Executing]),
    (
        Executing,
        &[Released, LongRunning, Memory, Error, Rescheduled],
    ),
    (LongRunning, &[Released, Memory, Error, Rescheduled]),
    (Fetch, &[Released, Flight, Missing]),
    (Flight, &[Released, Fetch, Missing, Memory, Cancelled]),
    (Missing, &[Released, Fetch]),
    (Memory, &[Released]),
    (Error, &[Released]),
    (Cancelled, &[Released, Flight]),
    (Resumed, &[]),
    (Rescheduled, &[Released]),
    (Forgotten, &[]),
];

#[test]
fn no_step_is_legal_but_these() {
    for (start, ends) in LEGAL {
        for end in TaskState::ALL {
            let legal = ends.contains(&end);
            assert_eq!(start.may_become(end), legal, "{start:?} to {end:?}");
        }
    }
}

#[test]
fn every_state_has_stocks_name() {
    let names: Vec<&str> = TaskState::ALL.map(TaskState::as_str).into();
    let stock = [
        "released",
        "waiting",
        "ready",
        "constrained",
        "executing",
        "long-running",
        "fetch",
        "flight",
        "missing",
        "memory",
        "error",
        "cancelled",
        "resumed",
        "rescheduled",
        "forgotten",
    ];
    assert_eq!(names, stock);
}

/// A worker with one thread, in which the task `x` is in that state.
fn worker_with(state: TaskState) -> TestEnv {
    let mut env = TestEnv::with_config(WorkerConfig {
        resources: vec![("GPU".into(), 1.0)],
        ..config(1)
    });
    match state {
        Waiting => env.compute("x", &[("d", &["w1"])]),
        Ready => {
            env.compute("busy", &[]);
            env.compute("x", &[]);
        }
        Constrained => {
            env.compute("busy", &[]);
            let mut order = order("x", &[]);
            order.resource_restrictions = vec![("GPU".into(), 1.0)];
            env.order(order);
        }
        Executing => env.compute("x", &[]),
        LongRunning => {
            env.compute("x", &[]);
            env.secede("x");
        }
        Fetch => {
            env.acquire("x", &["w1"]);
            env.gathered("w1", GatherOutcome::Busy);
        }
        Flight => env.acquire("x", &["w1"]),
        Missing => env.acquire("x", &[]),
        Memory => env.scatter("x", 1),
        Error => {
            env.compute("x", &[]);
            env.fail("x");
        }
        Cancelled => {
            env.acquire("x", &["w1"]);
            env.remove(&["x"]);
        }
        _ => {}
    }
    if state != Forgotten {
        assert_eq!(env.state("x"), Some(state));
    }
    env.forget_effects();
    env
}

/// State before; what is to be done; state after.
type Row = (TaskState, &'static [&'static str], Option<TaskState>);

#[track_caller]
fn check(what: &str, act: impl Fn(&mut TestEnv), rows: [Row; 12]) {
    for (state, effects, after) in rows {
        let mut env = worker_with(state);
        act(&mut env);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            env.expect(effects);
            assert_eq!(env.state("x"), after);
        }));
        assert!(result.is_ok(), "{what} in {state:?}");
    }
}

#[test]
fn free_keys() {
    let rows: [Row; 12] = [
        (Forgotten, &[], None),
        (Waiting, &[], None),
        (Ready, &[], None),
        (Constrained, &[], None),
        (Executing, &["abandon x"], Some(Cancelled)),
        (LongRunning, &["abandon x"], Some(Cancelled)),
        (Fetch, &[], None),
        (Flight, &[], Some(Cancelled)),
        (Missing, &[], None),
        (Memory, &["drop x"], None),
        (Error, &[], None),
        (Cancelled, &[], Some(Cancelled)),
    ];
    check("free-keys", |env| env.free(&["x"]), rows);
}

#[test]
fn cancel_compute() {
    let rows: [Row; 12] = [
        (Forgotten, &[], None),
        (Waiting, &[], None),
        (Ready, &[], None),
        (Constrained, &[], None),
        (Executing, &[], Some(Executing)),
        (LongRunning, &[], Some(LongRunning)),
        (Fetch, &[], Some(Fetch)),
        (Flight, &[], Some(Flight)),
        (Missing, &[], Some(Missing)),
        (Memory, &[], Some(Memory)),
        (Error, &[], Some(Error)),
        (Cancelled, &[], Some(Cancelled)),
    ];
    check("cancel-compute", |env| env.cancel("x"), rows);
}

#[test]
fn steal_request() {
    let rows: [Row; 12] = [
        (Forgotten, &["steal x -"], None),
        (Waiting, &["steal x waiting"], None),
        (Ready, &["steal x ready"], None),
        (Constrained, &["steal x constrained"], None),
        (Executing, &["steal x executing"], Some(Executing)),
        (LongRunning, &["steal x long-running"], Some(LongRunning)),
        (Fetch, &["steal x fetch"], Some(Fetch)),
        (Flight, &["steal x flight"], Some(Flight)),
        (Missing, &["steal x missing"], Some(Missing)),
        (Memory, &["steal x memory"], Some(Memory)),
        (Error, &["steal x error"], Some(Error)),
        (Cancelled, &["steal x -"], Some(Cancelled)),
    ];
    check("steal-request", |env| env.steal("x"), rows);
}

#[test]
fn acquire_replicas() {
    let rows: [Row; 12] = [
        (Forgotten, &["gather w2: x"], Some(Flight)),
        (Waiting, &[], Some(Waiting)),
        (Ready, &[], Some(Ready)),
        (Constrained, &[], Some(Constrained)),
        (Executing, &[], Some(Executing)),
        (LongRunning, &[], Some(LongRunning)),
        (Fetch, &["gather w2: x"], Some(Flight)),
        (Flight, &[], Some(Flight)),
        (Missing, &["gather w2: x"], Some(Flight)),
        (Memory, &["add x"], Some(Memory)),
        (Error, &["gather w2: x"], Some(Flight)),
        (Cancelled, &[], Some(Flight)),
    ];
    check("acquire-replicas", |env| env.acquire("x", &["w2"]), rows);
}

#[test]
fn remove_replicas() {
    let rows: [Row; 12] = [
        (Forgotten, &[], None),
        (Waiting, &[], Some(Waiting)),
        (Ready, &[], Some(Ready)),
        (Constrained, &[], Some(Constrained)),
        (Executing, &[], Some(Executing)),
        (LongRunning, &[], Some(LongRunning)),
        (Fetch, &[], None),
        (Flight, &[], Some(Cancelled)),
        (Missing, &[], None),
        (Memory, &["drop x", "release x"], None),
        (Error, &[], Some(Error)),
        (Cancelled, &[], Some(Cancelled)),
    ];
    check("remove-replicas", |env| env.remove(&["x"]), rows);
}

#[test]
fn compute_task() {
    let rows: [Row; 12] = [
        (Forgotten, &["run x"], Some(Executing)),
        (Waiting, &["run x"], Some(Executing)),
        (Ready, &[], Some(Ready)),
        (Constrained, &[], Some(Ready)),
        (Executing, &[], Some(Executing)),
        (LongRunning, &["long-running x@2"], Some(LongRunning)),
        (Fetch, &["run x"], Some(Executing)),
        (Flight, &["run x"], Some(Resumed)),
        (Missing, &["run x"], Some(Executing)),
        (Memory, &["finished x@2"], Some(Memory)),
        (Error, &["run x"], Some(Executing)),
        (Cancelled, &["run x"], Some(Resumed)),
    ];
    check("compute-task", |env| env.compute_as("x", 2), rows);
}

#[test]
fn update_data() {
    let rows: [Row; 12] = [
        (Forgotten, &["store x"], Some(Memory)),
        (Waiting, &["store x", "finished x@1"], Some(Memory)),
        (Ready, &["store x", "finished x@1"], Some(Memory)),
        (Constrained, &["store x", "finished x@1"], Some(Memory)),
        (
            Executing,
            &["abandon x", "store x", "finished x@1"],
            Some(Memory),
        ),
        (
            LongRunning,
            &["abandon x", "store x", "finished x@1"],
            Some(Memory),
        ),
        (Fetch, &["store x"], Some(Memory)),
        (Flight, &["store x"], Some(Memory)),
        (Missing, &["store x"], Some(Memory)),
        (Memory, &["store x"], Some(Memory)),
        (Error, &["store x"], Some(Memory)),
        (Cancelled, &["store x"], Some(Memory)),
    ];
    check("update-data", |env| env.scatter("x", 1), rows);
}
