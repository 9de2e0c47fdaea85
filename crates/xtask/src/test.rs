//! `cargo xtask test`: all of the project's tests, with everything they need set up first.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::envs;
use crate::process::{Child, Interrupt};
use crate::releases::{Environment, P2P_FURTHER, TOOLS};
use crate::workspace::{self, Profile};

/// How many things run at once.
const JOBS: &str = "2";

/// The seed of the property tests' inputs, so that a change is judged by what it changed. Searching for new failures is
/// what `--random` is for.
const PROPERTY_SEED: &str = "8786";

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Unit, property and integration tests in Rust
    Rust,
    /// Python end-to-end tests with stock clients and workers
    E2e,
    /// Those of P2P shuffles, with further releases
    P2p,
}

impl Part {
    /// Files with end-to-end tests.
    fn pytest_files(self) -> &'static str {
        match self {
            Self::P2p => "tests/e2e/test_p2p.py",
            _ => "tests/e2e",
        }
    }
}

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// How the scheduler is built that the end-to-end tests run against
    #[arg(long, value_enum, default_value = "debug")]
    profile: Profile,
    /// Another scheduler command for the end-to-end tests; `stock` is the stock scheduler of each release
    #[arg(long, env = "OXIDASK_SCHEDULER_CMD")]
    scheduler_cmd: Option<String>,
    /// Give property tests new random inputs, this many each; otherwise they are the same in every run
    #[arg(long, value_name = "CASES")]
    random: Option<u32>,
    /// Only tests whose name contains this (pytest: an expression for -k)
    filter: Option<String>,
    /// Options for pytest
    #[arg(last = true)]
    pytest: Vec<String>,
    /// Rounds of the test with failing workers
    #[arg(skip)]
    chaos_rounds: Option<u32>,
}

/// What `cargo xtask chaos` takes.
#[derive(clap::Args)]
pub(crate) struct Chaos {
    /// How often the graph is run, each time with other faults
    #[arg(default_value_t = 10)]
    rounds: u32,
    /// How the scheduler is built
    #[arg(long, value_enum, default_value = "debug")]
    profile: Profile,
}

/// Runs the end-to-end test with failing workers in its long form.
pub(crate) fn chaos(options: &Chaos) -> Result<()> {
    run(&Options {
        only: Some(Part::E2e),
        profile: options.profile,
        scheduler_cmd: None,
        random: None,
        filter: Some("test_chaos".to_owned()),
        pytest: Vec::new(),
        chaos_rounds: Some(options.rounds.max(2)),
    })
}

/// Sets up, runs the parts, repeats their summary lines. Every part runs even if an earlier one failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let interrupt = Interrupt::install()?;
    // Installing waits for the network and compiling for the processor, so they run side by side.
    let further: &[Environment] = match options.only {
        Some(Part::P2p) => &P2P_FURTHER,
        _ => &[],
    };
    let setup = std::thread::spawn(|| set_up_environments(further));
    let rust = matches!(options.only, None | Some(Part::Rust));
    if rust {
        let mut build = workspace::cargo();
        build.args(["test", "--workspace", "--no-run", "--jobs", JOBS]);
        workspace::run(&mut build)?;
    }
    let variables = match setup.join() {
        Ok(variables) => variables?,
        Err(_) => bail!("the setting up of Python environments panicked"),
    };

    let mut summary = Vec::new();
    let mut failed = Vec::new();
    if rust {
        let mut command = workspace::cargo();
        command.args(["test", "--workspace", "--no-fail-fast", "--jobs", JOBS]);
        command.args(["--", "--test-threads", JOBS]);
        command.args(options.filter.as_deref());
        command.envs(variables.iter().map(|(name, path)| (*name, path)));
        match options.random {
            Some(cases) => command.env("PROPTEST_CASES", cases.to_string()),
            None => command.env("PROPTEST_RNG_SEED", PROPERTY_SEED),
        };
        if !tee("cargo test", &mut command, &interrupt, &mut summary)? {
            failed.push("cargo test");
        }
    }
    if options.only != Some(Part::Rust)
        && !end_to_end(options, &variables, &interrupt, &mut summary)?
    {
        failed.push("end-to-end tests");
    }

    println!("\nSummary");
    print_summary(&summary);
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Makes every environment, and returns the variables that name their interpreters.
fn set_up_environments(further: &[Environment]) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut variables = Vec::new();
    for env in envs::all().into_iter().chain(further.iter().copied()) {
        variables.push((env.variable, envs::ensure(env)?));
    }
    let present = envs::present().into_iter();
    variables.extend(present.map(|(env, python)| (env.variable, python)));
    Ok(variables)
}

fn end_to_end(
    options: &Options,
    variables: &[(&'static str, PathBuf)],
    interrupt: &Interrupt,
    summary: &mut Vec<String>,
) -> Result<bool> {
    let scheduler = match &options.scheduler_cmd {
        Some(command) => command.clone(),
        None => workspace::build_scheduler(options.profile)?
            .display()
            .to_string(),
    };
    let worker = workspace::build_worker(options.profile)?;
    let (_, python) = variables
        .iter()
        .find(|(name, _)| *name == TOOLS.variable)
        .context("the tools' environment is one of all environments")?;
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-n",
        JOBS,
        "--dist",
        "loadgroup",
        // In the order of `conftest.py`.
        "--no-loadscope-reorder",
    ]);
    let files = options.only.map_or("tests/e2e", Part::pytest_files);
    command.arg(files).current_dir(workspace::root());
    if let Some(filter) = &options.filter {
        command.args(["-k", filter]);
    }
    command.args(&options.pytest);
    command.envs(variables.iter().map(|(name, path)| (*name, path)));
    if let Some(rounds) = options.chaos_rounds {
        command.env("OXIDASK_CHAOS_ROUNDS", rounds.to_string());
    }
    command
        .env("OXIDASK_SCHEDULER_CMD", scheduler)
        .env("OXIDASK_WORKER_CMD", worker)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1");
    tee("pytest", &mut command, interrupt, summary)
}

/// Shows the output of a test runner while it runs and keeps its summary lines.
fn tee(
    name: &str,
    command: &mut Command,
    interrupt: &Interrupt,
    summary: &mut Vec<String>,
) -> Result<bool> {
    println!("\n$ {}", workspace::shown(command));
    let mut child = Child::spawn(name, command.stdout(Stdio::piped()))?;
    let stdout = child
        .take_stdout()
        .context("stdout was asked for as a pipe")?;
    let reader = std::thread::spawn(move || {
        let mut kept = Vec::new();
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            println!("{line}");
            if is_summary(&line) {
                kept.push(line);
            }
        }
        kept
    });
    let status = child.wait(interrupt)?;
    // A grandchild that holds the pipe would keep the reader waiting.
    child.stop()?;
    if let Ok(kept) = reader.join() {
        summary.extend(kept.into_iter().map(|line| format!("{name}: {line}")));
    }
    Ok(status.success())
}

/// `test result: …` of the Rust harness, `=== 3 passed in 0.1s ===` or `3 passed in 0.1s` of pytest.
fn is_summary(line: &str) -> bool {
    let line = line.trim_matches(['=', ' ']);
    let counted = [" passed", " failed", " error"]
        .iter()
        .any(|word| line.contains(word));
    line.starts_with("test result:")
        || (counted && line.contains(" in ") && line.starts_with(|c: char| c.is_ascii_digit()))
}

/// The Rust harness prints a line per crate: crates without tests are left out, and the rest is added up.
fn print_summary(lines: &[String]) {
    let mut totals = [0u64; 3];
    let names = ["passed", "failed", "ignored"];
    let mut rust = false;
    for line in lines {
        if !line.contains("test result:") {
            println!("{line}");
            continue;
        }
        rust = true;
        for (total, name) in totals.iter_mut().zip(names) {
            *total += count_before(line, name);
        }
        if count_before(line, "passed") + count_before(line, "failed") > 0 {
            println!("{line}");
        }
    }
    if rust {
        println!(
            "cargo test, all crates: {} passed; {} failed; {} ignored",
            totals[0], totals[1], totals[2]
        );
    }
}

/// The number in front of a word: 3 in `3 passed;`.
fn count_before(line: &str, word: &str) -> u64 {
    let words: Vec<_> = line.split([' ', ';']).collect();
    let at = words.iter().position(|w| *w == word);
    at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{count_before, is_summary};

    #[test]
    fn summary_lines_of_both_runners_are_recognised() {
        assert!(is_summary(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out"
        ));
        assert!(is_summary("======= 2 failed, 55 passed in 12.30s ======="));
        assert!(is_summary("55 passed, 1 skipped in 12.30s (0:02:12)"));
        assert!(!is_summary("test key::tests::passed in a row ... ok"));
        assert!(!is_summary("running 3 tests"));
    }

    #[test]
    fn counts_are_read_from_summary_lines() {
        let line = "test result: FAILED. 3 passed; 12 failed; 1 ignored";
        assert_eq!(count_before(line, "passed"), 3);
        assert_eq!(count_before(line, "failed"), 12);
        assert_eq!(count_before(line, "measured"), 0);
    }
}
