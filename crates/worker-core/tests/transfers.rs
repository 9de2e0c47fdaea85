//! Data comes from peers and goes to peers.
#![allow(missing_docs)]

mod env;

use env::{TestEnv, config, datum, key, order, replica};
use oxidask_worker_core::config::WorkerConfig;
use oxidask_worker_core::event::{Event, GatherOutcome};
use oxidask_worker_core::ids::RequestId;
use oxidask_worker_core::opaque::Opaque;
use oxidask_worker_core::status::WorkerStatus;
use oxidask_worker_core::task::TaskState::*;

#[test]
fn inputs_are_fetched_and_the_task_runs() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1"]), ("b", &["w2"]), ("c", &["w1"])]);
    env.expect(&["gather w1: a c", "gather w2: b"]);
    env.arrive("w1", &["a", "c"]);
    env.expect(&["store a", "store c", "add a c"]);
    env.arrive("w2", &["b"]);
    env.expect(&["store b", "add b", "run x"]);
}

#[test]
fn a_peer_is_asked_one_thing_at_a_time() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1"])]);
    env.compute("y", &[("b", &["w1"]), ("a", &["w1"])]);
    env.expect(&["gather w1: a"]);
    env.arrive("w1", &["a"]);
    env.expect(&["store a", "add a", "gather w1: b", "run x"]);
}

#[test]
fn orders_that_came_together_share_a_request() {
    let mut env = TestEnv::new(1);
    let orders = [order("x", &[("a", &["w1"])]), order("y", &[("b", &["w1"])])];
    env.batch(orders.map(|o| Event::ComputeTask(Box::new(o))).into());
    // The last that came is the more important one.
    env.expect(&["gather w1: b a"]);
}

#[test]
fn the_own_host_is_preferred() {
    let mut env = TestEnv::with_config(WorkerConfig {
        address: "tcp://10.0.0.2:7".into(),
        ..config(1)
    });
    env.compute("x", &[("a", &["w1", "w2", "w3"])]);
    env.expect(&["gather w2: a"]);
}

#[test]
fn a_request_has_a_limited_size_but_for_its_first_key() {
    let mut env = TestEnv::with_config(WorkerConfig {
        message_bytes_limit: 100,
        ..config(1)
    });
    let mut sent = order("x", &[]);
    sent.inputs = vec![
        replica("big", &["w1"], 500),
        replica("a", &["w2"], 60),
        replica("b", &["w2"], 40),
        replica("c", &["w2"], 1),
    ];
    env.order(sent);
    env.expect(&["gather w2: a b", "gather w1: big"]);
}

#[test]
fn the_count_of_transfers_is_limited_once_they_are_large() {
    let mut env = TestEnv::with_config(WorkerConfig {
        incoming_count_limit: 2,
        incoming_throttle_threshold: 100,
        ..config(1)
    });
    for (i, nbytes) in [1, 1, 1, 100, 1].into_iter().enumerate() {
        env.event(Event::AcquireReplicas {
            replicas: vec![replica(&format!("d{i}"), &[&format!("w{}", i + 1)], nbytes)],
            stimulus_id: "acquire".into(),
        });
    }
    env.expect(&[
        "gather w1: d0",
        "gather w2: d1",
        "gather w3: d2",
        "gather w4: d3",
    ]);
    env.arrive("w4", &["d3"]);
    env.expect(&["store d3", "add d3", "gather w5: d4"]);
}

#[test]
fn the_memory_for_transfers_is_limited() {
    let mut env = TestEnv::with_config(WorkerConfig {
        incoming_bytes_limit: Some(100),
        ..config(1)
    });
    let replicas = vec![replica("a", &["w1"], 500), replica("b", &["w2"], 1)];
    env.event(Event::AcquireReplicas {
        replicas,
        stimulus_id: "acquire".into(),
    });
    // The first is allowed whatever its size, or it would never come.
    env.expect(&["gather w1: a"]);
    env.arrive("w1", &["a"]);
    env.expect(&["store a", "add a", "gather w2: b"]);
}

#[test]
fn a_busy_peer_is_asked_again_later_and_ever_later() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1"])]);
    env.expect(&["gather w1: a"]);
    env.gathered("w1", GatherOutcome::Busy);
    env.expect(&["who-has a"]);
    env.pass(0.14);
    env.expect(&[]);
    env.pass(0.02);
    env.expect(&["gather w1: a"]);
    env.gathered("w1", GatherOutcome::Busy);
    env.pass(0.29);
    env.expect(&[]);
    env.pass(0.02);
    env.expect(&["gather w1: a"]);
    env.arrive("w1", &["a"]);
    env.expect(&["store a", "add a", "run x"]);
    env.pass(10.0);
    assert_eq!(env.w.peers_len(), 0);
}

#[test]
fn when_a_peer_is_busy_another_one_is_asked() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1", "w2"])]);
    env.gathered("w1", GatherOutcome::Busy);
    env.expect(&["gather w1: a", "gather w2: a"]);
}

#[test]
fn what_a_peer_does_not_have_is_asked_of_another_one_and_then_of_the_scheduler() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1", "w2"])]);
    env.arrive("w1", &[]);
    env.expect(&["gather w1: a", "missing a w1", "gather w2: a"]);
    env.arrive("w2", &[]);
    env.expect(&["missing a w2", "who-has a"]);
    assert_eq!(env.state("a"), Some(Missing));
    env.refresh("a", &[]);
    env.pass(0.9);
    env.expect(&[]);
    env.pass(0.2);
    env.expect(&["who-has a"]);
    env.refresh("a", &["w3"]);
    env.expect(&["gather w3: a"]);
    env.arrive("w3", &["a"]);
    env.expect(&["store a", "add a", "run x"]);
    assert_eq!(env.w.poll_timeout(), None);
}

#[test]
fn a_peer_may_have_only_a_part_and_not_be_thought_to_have_the_rest_any_more() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1"]), ("b", &["w1"])]);
    env.refresh("b", &[]);
    env.arrive("w1", &["a"]);
    env.expect(&[
        "gather w1: a b",
        "store a",
        "add a",
        "missing b w1",
        "who-has b",
    ]);
    assert_eq!(env.w.peers_len(), 0);
}

#[test]
fn a_scheduler_that_does_not_know_better_is_not_asked_in_a_circle() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1"])]);
    env.arrive("w1", &[]);
    env.expect(&["gather w1: a", "missing a w1", "who-has a"]);
    for _ in 0..5 {
        env.refresh("a", &["w1"]);
        env.arrive("w1", &[]);
        env.expect(&["gather w1: a", "missing a w1"]);
    }
    env.pass(1.1);
    env.expect(&["who-has a"]);
}

#[test]
fn a_peer_that_can_not_be_reached_is_asked_nothing_more() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1"])]);
    env.compute("y", &[("b", &["w1", "w2"])]);
    env.compute("z", &[("c", &["w1"])]);
    env.expect(&["gather w1: a", "gather w2: b"]);
    env.gathered("w1", GatherOutcome::Unreachable);
    env.expect(&["who-has c a"]);
    env.gathered("w2", GatherOutcome::Unreachable);
    env.expect(&["who-has b"]);
    assert_eq!(env.w.peers_len(), 0);
}

#[test]
fn a_peer_that_left_is_asked_nothing_more_and_its_transfer_has_some_time() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1"])]);
    env.compute("y", &[("b", &["w1"])]);
    env.remove_worker("w1");
    env.expect(&["gather w1: a", "who-has b"]);
    env.refresh("b", &["w2"]);
    env.expect(&["gather w2: b"]);
    env.pass(4.9);
    env.expect(&[]);
    env.pass(0.2);
    env.expect(&["abort", "who-has a"]);
    env.arrive("w1", &["a"]);
    env.expect(&[]);
}

#[test]
fn data_that_can_not_be_used_fails_what_needs_it() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1", "w2"])]);
    let failed = || GatherOutcome::Answered {
        data: Vec::new(),
        failed: vec![(key("a"), Opaque::new("truncated"))],
    };
    env.gathered("w1", failed());
    env.expect(&["gather w1: a", "gather w2: a"]);
    env.compute("y", &[("a", &["w2"])]);
    env.gathered("w2", failed());
    env.expect(&["erred x@1", "erred y@1"]);
    assert_eq!((env.state("x"), env.state("a")), (Some(Error), None));
    env.free(&["x", "y"]);
    assert_eq!((env.w.tasks_len(), env.w.peers_len()), (0, 0));
}

#[test]
fn a_transfer_that_is_not_needed_any_more_is_taken_up_again() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1"])]);
    env.steal("x");
    env.expect(&["gather w1: a", "steal x waiting"]);
    assert_eq!(env.state("a"), Some(Cancelled));
    env.compute("y", &[("a", &["w1"])]);
    env.expect(&[]);
    assert_eq!(env.state("a"), Some(Flight));
    env.arrive("w1", &["a"]);
    env.expect(&["store a", "add a", "run y"]);
}

#[test]
fn a_transfer_of_what_was_freed_is_not() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w1"])]);
    env.free(&["x", "a"]);
    assert_eq!(env.state("a"), Some(Cancelled));
    env.compute("y", &[("a", &["w1", "w2"])]);
    env.expect(&["gather w1: a", "gather w2: a"]);
    // It may be older data of the same name.
    env.arrive("w1", &["a"]);
    env.expect(&[]);
    env.arrive("w2", &["a"]);
    env.expect(&["store a", "add a", "run y"]);
}

#[test]
fn what_is_on_its_way_and_ordered_is_computed() {
    let mut env = TestEnv::new(1);
    env.acquire("x", &["w1"]);
    env.compute("x", &[]);
    env.expect(&["gather w1: x", "run x"]);
    env.arrive("w1", &["x"]);
    env.expect(&[]);
    env.finish("x");
    env.expect(&["store x", "finished x@1"]);
}

#[test]
fn a_copy_is_fetched_kept_and_dropped() {
    let mut env = TestEnv::new(1);
    env.acquire("a", &["w1"]);
    env.arrive("w1", &["a"]);
    env.expect(&["gather w1: a", "store a", "add a"]);
    env.acquire("a", &["w1"]);
    env.expect(&["add a"]);
    env.remove(&["a"]);
    env.expect(&["drop a", "release a"]);
    assert_eq!(env.w.tasks_len(), 0);
}

#[test]
fn a_copy_that_is_needed_is_not_dropped() {
    let mut env = TestEnv::new(1);
    env.scatter("a", 1);
    env.compute("x", &[("a", &["w1"]), ("b", &["w1"])]);
    env.forget_effects();
    env.remove(&["a"]);
    env.expect(&["add a"]);
    env.arrive("w1", &["b"]);
    env.forget_effects();
    // The running task holds it itself.
    env.remove(&["a"]);
    env.expect(&["drop a", "release a"]);
}

#[test]
fn an_input_that_is_freed_sends_its_tasks_back_to_waiting() {
    let mut env = TestEnv::new(1);
    env.compute("busy", &[]);
    env.scatter("a", 1);
    env.compute("x", &[("a", &["w0"])]);
    assert_eq!(env.state("x"), Some(Ready));
    env.forget_effects();
    env.free(&["a"]);
    env.expect(&["drop a", "who-has a"]);
    assert_eq!(env.state("x"), Some(Waiting));
    env.refresh("a", &["w1"]);
    env.arrive("w1", &["a"]);
    env.expect(&["gather w1: a", "store a", "add a"]);
    assert_eq!(env.state("x"), Some(Ready));
}

#[test]
fn what_we_are_said_to_hold_and_do_not_is_disclaimed() {
    let mut env = TestEnv::new(1);
    env.compute("x", &[("a", &["w0", "w1"])]);
    env.expect(&["release a", "gather w1: a"]);
    env.compute("y", &[("b", &["w0"])]);
    env.expect(&["release b", "who-has b"]);
}

#[test]
fn an_acquired_copy_outlives_the_task_that_needed_it() {
    let mut env = TestEnv::new(1);
    env.acquire("a", &["w1"]);
    env.compute("x", &[("a", &["w1"])]);
    env.free(&["x"]);
    assert_eq!(env.state("a"), Some(Flight));
    env.remove(&["a"]);
    assert_eq!(env.state("a"), Some(Cancelled));
    env.arrive("w1", &["a"]);
    env.expect(&["gather w1: a"]);
    assert_eq!(env.w.tasks_len(), 0);
}

#[test]
fn copies_come_after_inputs_of_the_same_peer() {
    let mut env = TestEnv::new(1);
    env.acquire("first", &["w1"]);
    env.acquire("copy", &["w1"]);
    env.compute("x", &[("a", &["w1"])]);
    env.forget_effects();
    env.arrive("w1", &["first"]);
    env.expect(&["store first", "add first", "gather w1: a copy"]);
}

#[test]
fn what_was_not_asked_for_is_not_stored() {
    let mut env = TestEnv::new(1);
    env.acquire("a", &["w1"]);
    env.arrive("w1", &["b", "a", "a"]);
    env.expect(&["gather w1: a", "store a", "add a"]);
}

#[test]
fn our_data_is_served_within_limits() {
    let mut env = TestEnv::with_config(WorkerConfig {
        outgoing_count_limit: 2,
        ..config(1)
    });
    env.event(Event::UpdateData {
        data: vec![datum("a", 3), datum("b", 4)],
        report: false,
        stimulus_id: "scatter".into(),
    });
    env.forget_effects();
    env.ask(1, "w1", &["a", "b", "c"]);
    env.ask(2, "w1", &["c"]);
    env.ask(3, "w1", &["a"]);
    env.expect(&["serve 1: a b", "serve 2: ", "refuse 3"]);
    assert_eq!(env.w.transfer_figures().outgoing_bytes, 7);
    // The same host has twice as much.
    env.ask(4, "w0", &["a"]);
    env.event(Event::GetData {
        request: RequestId(5),
        who: None,
        keys: vec![key("a")],
        unlimited: true,
    });
    env.expect(&["serve 4: a", "serve 5: a"]);
    for request in [1, 2, 4, 5] {
        let request = RequestId(request);
        env.event(Event::DataSent { request });
    }
    env.status(WorkerStatus::Paused);
    env.ask(6, "w1", &["a"]);
    env.ask(7, "w0", &["a"]);
    env.expect(&["status paused", "serve 6: a", "refuse 7"]);
    let figures = env.w.transfer_figures();
    assert_eq!(
        (figures.outgoing_count, figures.outgoing_count_total),
        (1, 5)
    );
}
