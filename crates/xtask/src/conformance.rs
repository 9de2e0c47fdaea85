//! `cargo xtask conformance`: the upstream test-suite, black box, against our binary.
//!
//! The harness is not part of this repository; it lives beside the checkout. What is kept here is its result,
//! `docs/conformance.md`, and the reasons for what fails, `docs/conformance-reasons.json` (test id and decision).

mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::envs;
use crate::process::{Child, Interrupt};
use crate::releases::TOOLS;
use crate::workspace::{self, Profile};
use page::{Reasons, Results};

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
    /// How often the tests are run; a test passes if it passes each time
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Write docs/conformance.md from the results (--json) of earlier runs, which may be of parts of the suite
    #[arg(long, num_args = 1..)]
    from_json: Vec<PathBuf>,
}

/// Prepares the harness if need be, runs it, writes the table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let harness = options
        .harness
        .clone()
        .unwrap_or_else(|| workspace::root().join("../shared/conformance"));
    if !options.from_json.is_empty() {
        return write_page(Results::read(&options.from_json)?, &harness);
    }
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
    let mut results = Vec::new();
    for run in 1..=options.runs {
        let json = workspace::target_dir().join(format!("conformance-{run}.json"));
        let _ = fs::remove_file(&json);
        let mut command = Command::new(&python);
        command.arg(&driver);
        harness_arguments(&mut command, options, &scheduler, &json);
        // The harness' status is 1 as soon as one test fails, which is no failure of this command.
        Child::spawn("conformance harness", &mut command)?.wait(&interrupt)?;
        results.push(json);
    }
    let results = Results::read(&results)?;
    if options.files.is_empty() && options.select.is_empty() && options.scheduler_cmd.is_none() {
        write_page(results, &harness)?;
    }
    Ok(())
}

fn harness_arguments(command: &mut Command, options: &Options, scheduler: &str, json: &Path) {
    command
        .args(["run", "--list-failures", "--scheduler-cmd", scheduler])
        .arg("--json")
        .arg(json);
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
}

/// Writes docs/conformance.md from results of the harness.
fn write_page(mut results: Results, harness: &Path) -> Result<()> {
    results.expect_complete(harness)?;
    let docs = workspace::root().join("docs");
    let reasons = docs.join("conformance-reasons.json");
    let text = fs::read_to_string(&reasons)
        .with_context(|| format!("cannot read {}", reasons.display()))?;
    let decided: Reasons = serde_json::from_str(&text)
        .with_context(|| format!("{} is no map of texts", reasons.display()))?;
    for id in results.stale(&decided) {
        println!("not needed in {}: {id}", reasons.display());
    }
    let page = docs.join("conformance.md");
    fs::write(&page, results.page(&decided)?)?;
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
