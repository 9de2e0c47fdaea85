//! Clusters on a virtual clock: whatever goes wrong, the answers are right and the invariants hold.

use oxidask_scheduler_core::recording::Replay;
use oxidask_testkit::sim::faults::Faults;
use oxidask_testkit::sim::{Report, Scenario, Sim};

/// Seeds that the suite runs; `OXIDASK_SIM_SEEDS` sets another number.
const SEEDS: u64 = 200;

fn run(scenario: Scenario) -> Report {
    match Sim::new(scenario).run() {
        Ok(report) => report,
        Err(violation) => panic!("{violation}"),
    }
}

#[test]
fn a_calm_cluster_computes_everything() {
    for seed in 0..5 {
        let report = run(Scenario {
            faults: Faults::default(),
            ..Scenario::turbulent(seed)
        });
        assert!(report.events > 0 && report.kills == 0);
    }
}

#[test]
fn a_turbulent_cluster_loses_nothing() {
    let seeds: u64 = std::env::var("OXIDASK_SIM_SEEDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(SEEDS);
    let (mut kills, mut retired, mut repaired) = (0, 0, 0);
    for seed in 0..seeds {
        let report = run(Scenario::mixed(seed));
        kills += report.kills;
        retired += report.retired;
        repaired += report.repaired;
    }
    assert!(kills > 0, "the faults were really injected");
    assert!(retired > 0, "retirements came to an end");
    assert!(repaired > 0, "the watchdog had something to repair");
}

#[test]
fn two_hundred_workers_take_part() {
    assert!(Scenario::mixed(7).workers >= 200);
    assert!(run(Scenario::mixed(7)).worker_messages > 1_000);
}

#[test]
fn without_the_watchdog_a_lost_order_is_waited_for_without_end() {
    let mut scenario = Scenario::turbulent(3);
    scenario.faults = Faults {
        losses: 0.2,
        ..Faults::default()
    };
    scenario.patience = 60.0;
    let stuck = Sim::new(scenario.clone()).run();
    assert!(stuck.is_err_and(|e| e.contains("no progress")));
    scenario.config.watchdog_patience = Some(2.0);
    assert!(run(scenario).repaired > 0);
}

#[test]
fn a_recording_has_the_same_effects_again() {
    let mut scenario = Scenario::mixed(1);
    scenario.config.transition_log_length = 1_000_000;
    let (report, recording) = match Sim::new(scenario).run_recorded() {
        Ok(done) => done,
        Err(violation) => panic!("{violation}"),
    };
    let mut told = 0;
    let replay = match Replay::run(&recording, |_, effects| told += effects.len()) {
        Ok(replay) => replay,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(replay.divergence, None);
    assert!(replay.calls >= report.events && told > 0);
    let key = replay
        .scheduler
        .transition_log()
        .next()
        .map(|e| e.key.clone());
    let story = key.map(|key| replay.scheduler.story(&[key]).len());
    assert!(story.is_some_and(|entries| entries > 1));
    // What a crash leaves is of use, too.
    let torn = &recording[..recording.len() - 3];
    assert!(Replay::run(torn, |_, _| ()).is_ok_and(|r| r.divergence.is_none()));
}

#[test]
fn something_else_is_no_recording() {
    let error = Replay::run(b"pickle", |_, _| ())
        .err()
        .map(|e| e.to_string());
    assert!(error.is_some_and(|e| e.starts_with("this is no recording of version 2")));
}

/// Seeds that failed once, and what they showed.
#[test]
fn seeds_that_failed_once() {
    let kept: [(u64, &str); 16] = [
        (
            146,
            "a task that needs what no worker offers waits for one that does",
        ),
        (
            299,
            "a worker repeats that it dropped a copy which it has again",
        ),
        (
            849,
            "a worker that claims what it lacks never ends its retirement",
        ),
        (
            1525,
            "an order is lost on its way to a worker that is believed to be paused",
        ),
        (2309, "the same, after a recomputation"),
        (2457, "the same, with two clients"),
        (2473, "the same, with the wanted task itself"),
        (4437, "the same, late in the turmoil"),
        (4773, "the same, among slow links"),
        (2504, "a worker computes what it was also told to fetch"),
        (5482, "the same, with a task nearer to the end"),
        (6266, "the same, with fewer workers"),
        (
            5681,
            "an order is lost to a worker that is believed to be paused",
        ),
        (6277, "the same, with other placement"),
        (6653, "the same, with stealing"),
        (
            100_453,
            "a worker gets back the status that it had when its retirement began",
        ),
    ];
    for (seed, what) in kept {
        if let Err(violation) = Sim::new(Scenario::mixed(seed)).run() {
            panic!("{what}: {violation}");
        }
    }
}
