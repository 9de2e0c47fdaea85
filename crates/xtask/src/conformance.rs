//! `cargo xtask conformance`: the upstream test-suite, black box, against our binary.
//!
//! The harness is not part of this repository; it lives beside the checkout. What is kept here is its result:
//! `docs/conformance.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::envs;
use crate::process::{Child, Interrupt};
use crate::releases::TOOLS;
use crate::workspace::{self, Profile};

/// What `cargo xtask conformance` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folder of the harness [default: ../shared/conformance beside the checkout]
    #[arg(long)]
    harness: Option<PathBuf>,
    /// Where upstream's tests come from when the harness' cache is made: a clone, a folder, a tarball or a URL
    #[arg(long)]
    tests: Option<String>,
    /// With the slow tests
    #[arg(long)]
    slow: bool,
    /// Only tests of these files (docs/conformance.md is then left alone)
    #[arg(long, num_args = 1..)]
    files: Vec<String>,
    /// Only ids that contain one of these (docs/conformance.md is then left alone)
    #[arg(long, num_args = 1..)]
    select: Vec<String>,
    /// How the scheduler is built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Another scheduler command; {python} and {venv} are the harness' own
    #[arg(long)]
    scheduler_cmd: Option<String>,
    /// pytest processes in parallel
    #[arg(long, default_value_t = 2)]
    jobs: u32,
    /// Failing tests run again up to this many times
    #[arg(long, default_value_t = 1)]
    retries: u32,
    /// Folder for the logs of failing tests
    #[arg(long)]
    fail_log: Option<PathBuf>,
    /// Write docs/conformance.md from the result (--json) of an earlier run of the whole suite
    #[arg(long)]
    from_json: Option<PathBuf>,
}

/// Prepares the harness if need be, runs it, writes the table.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(json) = &options.from_json {
        return write_page(&read_result(json)?, options.slow);
    }
    let harness = options
        .harness
        .clone()
        .unwrap_or_else(|| workspace::root().join("../shared/conformance"));
    let driver = harness.join("conformance.py");
    if !driver.is_file() {
        bail!(
            "there is no {}: say where the harness is with --harness DIR",
            driver.display()
        );
    }
    let python = envs::ensure(TOOLS)?;
    let interrupt = Interrupt::install()?;
    if !cache().join("setup.json").is_file() {
        let mut setup = Command::new(&python);
        setup.arg(&driver).arg("setup");
        if let Some(tests) = &options.tests {
            setup.args(["--tests", tests]);
        }
        run_child("setup of the harness", &mut setup, &interrupt)?;
    }
    let scheduler = match &options.scheduler_cmd {
        Some(command) => command.clone(),
        None => native_command(&workspace::build_scheduler(options.profile)?),
    };
    let json = workspace::target_dir().join("conformance.json");
    let _ = fs::remove_file(&json);
    let mut command = Command::new(&python);
    command
        .arg(&driver)
        .args(["run", "--list-failures", "--scheduler-cmd", &scheduler])
        .arg("--json")
        .arg(&json);
    command.args([
        "--jobs",
        &options.jobs.to_string(),
        "--retries",
        &options.retries.to_string(),
    ]);
    if options.slow {
        command.arg("--slow");
    }
    for (option, values) in [("--files", &options.files), ("--select", &options.select)] {
        if !values.is_empty() {
            command.arg(option).args(values);
        }
    }
    if let Some(dir) = &options.fail_log {
        command.arg("--fail-log").arg(dir);
    }
    // The harness' status is 1 as soon as one test fails, which is no failure of this command.
    Child::spawn("conformance harness", &mut command)?.wait(&interrupt)?;
    let result = read_result(&json)?;
    if options.files.is_empty() && options.select.is_empty() && options.scheduler_cmd.is_none() {
        write_page(&result, options.slow)?;
    }
    Ok(())
}

fn read_result(json: &Path) -> Result<Value> {
    let text = fs::read_to_string(json)
        .context("the harness wrote no result; what it printed says why")?;
    serde_json::from_str(&text).context("the harness' result is not JSON")
}

fn write_page(result: &Value, slow: bool) -> Result<()> {
    let page = workspace::root().join("docs/conformance.md");
    fs::write(&page, report(result, slow)?)?;
    println!("written: {}", page.display());
    Ok(())
}

/// The harness' default cache; engineers on one machine share it.
fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    Path::new(&home).join(".cache/dask-conformance")
}

/// The Python host is the `python` on PATH, so the harness' own comes first.
fn native_command(binary: &Path) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("env PATH={{venv}}/bin:{path} {}", binary.display())
}

fn run_child(name: &str, command: &mut Command, interrupt: &Interrupt) -> Result<()> {
    let status = Child::spawn(name, command)?.wait(interrupt)?;
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    Ok(())
}

/// The page: one row per test file, and the tests that fail.
fn report(result: &Value, slow: bool) -> Result<String> {
    let tests = result
        .get("tests")
        .and_then(Value::as_object)
        .context("the harness' result has no tests")?;
    let mut files: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (id, record) in tests {
        let file = id.split("::").next().unwrap_or(id);
        let (passed, total) = files.entry(file).or_default();
        *passed += u64::from(record.get("outcome").and_then(Value::as_str) == Some("passed"));
        *total += 1;
    }
    let (passed, total) = files
        .values()
        .fold((0, 0), |(p, t), (passed, tests)| (p + passed, t + tests));
    let number = |name: &str| result.get(name).and_then(Value::as_f64).unwrap_or_default();
    let version = result
        .get("version")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    let date = workspace::output_of(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let commit = workspace::output_of(Command::new("git").current_dir(workspace::root()).args([
        "rev-parse",
        "--short",
        "HEAD",
    ]))?;

    let mut page = String::from("# Conformance with the upstream test-suite\n\n");
    let share = if total == 0 {
        0.0
    } else {
        100.0 * passed as f64 / total as f64
    };
    writeln!(page, "**{passed} of {total}** tests pass ({share:.1} %).\n")?;
    let which = if slow {
        "the suite and its slow tests"
    } else {
        "the suite without its slow tests"
    };
    writeln!(
        page,
        "Made by `cargo xtask conformance` on {date} at {commit}: {which} of distributed {version}, black box. Clients and \
         workers are the stock ones; the scheduler is our release binary. The stock scheduler passes all of them by \
         construction of the suite. {:.0} minutes on {} processors.\n",
        number("seconds") / 60.0,
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    )?;
    page.push_str("| file | passed | of |\n| --- | ---: | ---: |\n");
    for (file, (passed, total)) in &files {
        writeln!(page, "| {file} | {passed} | {total} |")?;
    }
    writeln!(page, "| **all** | **{passed}** | **{total}** |")?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::report;

    #[test]
    fn the_page_counts_by_file() {
        let result = serde_json::json!({
            "version": "2026.8.0", "seconds": 120.0,
            "tests": {
                "tests/test_a.py::test_1": {"outcome": "passed"},
                "tests/test_a.py::test_2": {"outcome": "failed"},
                "tests/test_b.py::test_1[x::y]": {"outcome": "passed"},
            },
        });
        let page = report(&result, false).expect("a complete result makes a page");
        assert!(page.contains("**2 of 3** tests pass (66.7 %)"), "{page}");
        assert!(page.contains("| tests/test_a.py | 1 | 2 |"), "{page}");
        assert!(page.contains("| tests/test_b.py | 1 | 1 |"), "{page}");
    }
}
