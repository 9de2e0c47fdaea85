//! Every option of the covered releases is one of ours, and `--help` shows it.

use std::collections::BTreeSet;

use oxidask_cli::{Outcome, parse_scheduler, parse_worker, scheduler_command, worker_command};

/// Options of stock by release and program, from `data/stock_options.py`.
const STOCK: &str = include_str!("data/stock_options.txt");

fn stock(program: &str) -> BTreeSet<String> {
    let lines = STOCK
        .lines()
        .filter(|line| line.split(' ').nth(1) == Some(program));
    lines
        .flat_map(|line| line.split(' ').skip(2))
        .map(str::to_owned)
        .collect()
}

fn ours(command: &clap::Command) -> BTreeSet<String> {
    command
        .get_arguments()
        .filter_map(|arg| arg.get_long())
        .map(|name| format!("--{name}"))
        .collect()
}

fn help(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let printed = match words[0].as_str() {
        "dask-scheduler" => parse_scheduler(&words).map(|outcome| match outcome {
            Outcome::Print(text) => text,
            Outcome::Run(_) => String::new(),
        }),
        _ => parse_worker(&words).map(|outcome| match outcome {
            Outcome::Print(text) => text,
            Outcome::Run(_) => String::new(),
        }),
    };
    printed.expect("help")
}

#[test]
fn no_option_of_any_release_is_missing() {
    for (program, command) in [
        ("scheduler", scheduler_command()),
        ("worker", worker_command()),
    ] {
        let stock = stock(program);
        assert!(stock.len() > 20);
        // dask-worker --nworkers exists from 2022.02.0, in the middle of the recorded releases.
        let missing: Vec<_> = stock.difference(&ours(&command)).cloned().collect();
        assert!(missing.is_empty(), "dask-{program} lacks {missing:?}");
    }
}

#[test]
fn what_stock_does_not_have_is_help_and_our_own() {
    let extra: Vec<_> = ours(&scheduler_command())
        .difference(&stock("scheduler"))
        .cloned()
        .collect();
    assert_eq!(
        extra,
        [
            "--check-health",
            "--help",
            "--log-format",
            "--python",
            "--python-host",
            "--record",
            "--secure"
        ]
    );
    let extra: Vec<_> = ours(&worker_command())
        .difference(&stock("worker"))
        .cloned()
        .collect();
    assert_eq!(extra, ["--help", "--log-format", "--module", "--python"]);
}

#[test]
fn scheduler_help() {
    insta::assert_snapshot!(help(&["dask-scheduler", "--help"]));
}

#[test]
fn worker_help() {
    insta::assert_snapshot!(help(&["dask-worker", "--help"]));
}
