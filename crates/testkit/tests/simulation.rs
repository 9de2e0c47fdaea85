//! Clusters on a virtual clock: whatever goes wrong, the answers are right and the invariants hold.

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
