//! Command lines of `dask-worker`.

use oxidask_cli::{Outcome, Parsed, PortSpec, UsageError, WorkerArgs, WorkerCount, parse_worker};
use oxidask_config::MemoryLimit;

fn parse(words: &[&str]) -> Result<Outcome<WorkerArgs>, UsageError> {
    let words: Vec<String> = std::iter::once("dask-worker")
        .chain(words.iter().copied())
        .map(str::to_owned)
        .collect();
    parse_worker(&words)
}

fn run(words: &[&str]) -> Parsed<WorkerArgs> {
    match parse(words) {
        Ok(Outcome::Run(parsed)) => parsed,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn mistake(words: &[&str]) -> String {
    match parse(words) {
        Err(error) => error.message,
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn the_address_may_stand_before_or_after_the_options() {
    for words in [
        &["tcp://s:8786", "--nthreads", "2", "--no-nanny"][..],
        &["--nthreads=2", "tcp://s:8786", "--no-nanny"],
        &["--no-nanny", "--nthreads", "2", "tcp://s:8786"],
    ] {
        let args = run(words).args;
        assert_eq!(args.scheduler.as_deref(), Some("tcp://s:8786"), "{words:?}");
        assert_eq!(args.nthreads, 2);
        assert!(!args.nanny);
    }
}

#[test]
fn a_second_word_needs_a_preload() {
    assert!(mistake(&["s:8786", "x"]).starts_with("Got unexpected extra argument: (x)"));
    let args = run(&["s:8786", "--preload", "m", "x", "--y"]).args;
    assert_eq!(args.preload_argv, ["x", "--y"]);
}

#[test]
fn defaults() {
    let args = run(&["s:8786"]).args;
    assert_eq!(args.nworkers, WorkerCount::Count(1));
    assert_eq!(args.memory_limit, MemoryLimit::Auto);
    assert!(args.nanny && args.dashboard);
    assert_eq!(args.lifetime_restart, None);
}

#[test]
fn values() {
    let args = run(&[
        "s:8786",
        "--nworkers",
        "4",
        "--worker-port",
        "3000:3003",
        "--memory-limit",
        "4GB",
        "--resources",
        "GPU=2,MEM=10e9",
        "--death-timeout",
        "60",
        "--lifetime",
        "1 hour",
        "--lifetime-stagger",
        "5 minutes",
        "--lifetime-restart",
        "--name",
        "alice",
    ])
    .args;
    assert_eq!(args.nworkers, WorkerCount::Count(4));
    assert_eq!(
        args.worker_port,
        Some(PortSpec::Range {
            first: 3000,
            last: 3003
        })
    );
    assert_eq!(args.memory_limit, MemoryLimit::Bytes(4_000_000_000));
    assert_eq!(
        args.resources,
        [("GPU".to_owned(), 2.0), ("MEM".to_owned(), 10e9)]
    );
    assert_eq!(args.death_timeout, Some(60.0));
    assert_eq!(
        (args.lifetime, args.lifetime_stagger),
        (Some(3600.0), Some(300.0))
    );
    assert_eq!(args.lifetime_restart, Some(true));
}

#[test]
fn numbers_of_processes() {
    assert_eq!(
        run(&["s", "--nprocs", "2"]).args.nworkers,
        WorkerCount::Count(2)
    );
    assert_eq!(
        run(&["s", "--nworkers", "auto"]).args.nworkers,
        WorkerCount::Auto
    );
    assert_eq!(
        run(&["s", "--nworkers", "-1"]).args.nworkers,
        WorkerCount::Count(-1)
    );
    for (count, cores, nthreads, expected) in [
        (WorkerCount::Auto, 4, 0, Some((4, 1))),
        (WorkerCount::Auto, 8, 0, Some((4, 2))),
        (WorkerCount::Auto, 12, 0, Some((4, 3))),
        (WorkerCount::Auto, 7, 0, Some((7, 1))),
        (WorkerCount::Auto, 32, 0, Some((8, 4))),
        (WorkerCount::Count(-1), 8, 0, Some((8, 1))),
        (WorkerCount::Count(-2), 8, 3, Some((7, 3))),
        (WorkerCount::Count(2), 8, 0, Some((2, 4))),
        (WorkerCount::Count(-9), 8, 0, None),
        (WorkerCount::Count(0), 8, 0, None),
    ] {
        assert_eq!(
            count.resolve(cores, nthreads),
            expected,
            "{count:?} on {cores}"
        );
    }
}

#[test]
fn older_spellings_warn() {
    let warnings = run(&["s", "--nprocs=1", "--no-reconnect", "--bokeh-port=0"]).warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert_eq!(
        run(&["s", "--dashboard-prefix=x"]).args.dashboard_prefix,
        "x"
    );
}

#[test]
fn mistakes() {
    assert_eq!(
        mistake(&["s", "--nthreads", "1.8"]),
        "Invalid value for '--nthreads': '1.8' is not a valid integer."
    );
    for words in [
        &["--foo"][..],
        &["s", "--nthreads", "-1"],
        &["s", "--nworkers", "0"],
        &["s", "--nworkers", "2", "--no-nanny"],
        &["s", "--contact-address", "tcp://a:1"],
        &["s", "--listen-address", "tcp://a:1", "--host", "a"],
        &["s", "--listen-address", "tcp://a:1", "--nworkers", "2"],
        &["s", "--memory-limit", "lots"],
        &["s", "--resources", "GPU"],
        &["s", "--worker-port", "x"],
    ] {
        assert!(!mistake(words).is_empty(), "{words:?}");
    }
}
