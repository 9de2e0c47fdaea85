//! `cargo xtask fuzz`: libFuzzer with the targets of `crates/fuzz`, one after the other.
//!
//! What it finds interesting is collected below `target/fuzz`; `--keep` puts a small part of that
//! into `fuzz/corpus`, which every test run tries again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The targets: files in `fuzz/fuzz_targets`.
const TARGETS: [&str; 5] = ["frames", "messages", "pickles", "configuration", "http"];
/// An input that takes longer (seconds) is a finding; the machine may be busy.
const TIMEOUT: u32 = 20;
/// A process that takes more memory (MB) is a finding.
const MEMORY: u32 = 2048;
/// Bytes of an input.
const MAX_INPUT: u32 = 16 << 10;
/// What is kept of a target in the repository.
const MAX_KEPT_FILES: usize = 120;
const MAX_KEPT_BYTES: u64 = 48 << 10;

/// What `cargo xtask fuzz` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these targets
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Sanitizer (address, none): there is no unsafe code of ours, and without one it is faster
    #[arg(long, default_value = "none")]
    sanitizer: String,
    /// Put a small part of what was found interesting into fuzz/corpus
    #[arg(long)]
    keep: bool,
}

/// Fuzzes; the first finding ends it, and cargo-fuzz says where the input is.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(name) = options
        .targets
        .iter()
        .find(|name| !TARGETS.contains(&name.as_str()))
    {
        bail!(
            "no target is called {name}; there are {}",
            TARGETS.join(", ")
        );
    }
    let known = cargo(&["fuzz", "--version"]).output();
    if !known.is_ok_and(|output| output.status.success()) {
        bail!(
            "fuzzing needs the nightly compiler and cargo-fuzz: \
             `rustup toolchain install nightly` and `cargo install cargo-fuzz`"
        );
    }
    let work = workspace::target_dir().join("fuzz");
    let mut seeds = workspace::cargo();
    seeds.args([
        "run",
        "-q",
        "-p",
        "oxidask-fuzz",
        "--bin",
        "fuzz-seeds",
        "--",
    ]);
    workspace::run(seeds.arg(work.join("seeds")))?;
    for target in TARGETS {
        if options.targets.is_empty() || options.targets.iter().any(|name| name == target) {
            fuzz(options, &work, target)?;
        }
    }
    Ok(())
}

/// The nightly cargo, whichever runs us.
fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace::root());
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    command.arg("+nightly").args(args);
    command
}

fn fuzz(options: &Options, work: &Path, target: &str) -> Result<()> {
    let found = work.join("found").join(target);
    let kept = workspace::root().join("fuzz/corpus").join(target);
    for folder in [&found, &kept] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let inputs = [found, kept.clone(), work.join("seeds").join(target)];
    let seconds = format!("-max_total_time={}", options.seconds);
    println!("fuzzing {target} for {} s", options.seconds);
    workspace::run(&mut fuzzer(options, target, &inputs, &[&seconds]))?;
    if options.keep {
        let least = work.join("least").join(target);
        if least.exists() {
            fs::remove_dir_all(&least)?;
        }
        fs::create_dir_all(&least)?;
        let [found, kept_before, seeds] = inputs;
        let inputs = [least.clone(), kept_before, found, seeds];
        workspace::run(&mut fuzzer(options, target, &inputs, &["-merge=1"]))?;
        keep(&least, &kept)?;
    }
    Ok(())
}

fn fuzzer(options: &Options, target: &str, inputs: &[PathBuf], flags: &[&str]) -> Command {
    let mut command = cargo(&["fuzz", "run", "--sanitizer", &options.sanitizer, target]);
    command.args(inputs).arg("--").args(flags);
    command.arg(format!("-timeout={TIMEOUT}"));
    command.arg(format!("-rss_limit_mb={MEMORY}"));
    command.arg(format!("-max_len={MAX_INPUT}"));
    command.args(["-print_final_stats=1", "-verbosity=0"]);
    command
}

/// Copies the smallest inputs. What is kept already stays: there are inputs that failed once.
fn keep(least: &Path, kept: &Path) -> Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(least)? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.file_name()));
    }
    files.sort();
    let mut count = 0;
    let mut bytes = 0;
    for entry in fs::read_dir(kept)? {
        count += 1;
        bytes += entry?.metadata()?.len();
    }
    for (size, name) in files {
        let path = kept.join(&name);
        if path.exists() {
            continue;
        }
        if count == MAX_KEPT_FILES || bytes + size > MAX_KEPT_BYTES {
            break;
        }
        fs::copy(least.join(&name), path)?;
        count += 1;
        bytes += size;
    }
    println!("{}: {count} inputs, {bytes} bytes", kept.display());
    Ok(())
}
