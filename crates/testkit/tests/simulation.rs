//! Clusters on a virtual clock: whatever goes wrong, the answers are right and the invariants hold.

use oxidask_testkit::sim::faults::Faults;
use oxidask_testkit::sim::{Scenario, Sim};

fn run(scenario: Scenario) -> oxidask_testkit::sim::Report {
    match Sim::new(scenario).run() {
        Ok(report) => report,
        Err(violation) => panic!("{violation}"),
    }
}

#[test]
fn a_calm_cluster_computes_everything() {
    for seed in 0..5 {
        let scenario = Scenario {
            faults: Faults::default(),
            ..Scenario::turbulent(seed)
        };
        let report = run(scenario);
        assert!(report.events > 0 && report.kills == 0);
    }
}

#[test]
fn a_turbulent_cluster_loses_nothing() {
    let seeds: u64 = std::env::var("OXIDASK_SIM_SEEDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(20);
    let mut kills = 0;
    for seed in 0..seeds {
        kills += run(Scenario::turbulent(seed)).kills;
    }
    assert!(kills > 0, "the faults were really injected");
}
