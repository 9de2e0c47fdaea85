//! Where things are in the checkout, and calls of cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

/// How the binaries under test are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Quick to build; the tests use it.
    Debug,
    /// Optimised; demonstrations and measurements use it.
    Release,
    /// As in container images, but for the C library: smaller, and slow to build.
    Image,
}

impl Profile {
    /// Below cargo's target folder; also what it is called.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
            Self::Image => "image",
        }
    }
}

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A cargo command in the root of the checkout, the same cargo that runs us.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Builds our binaries and returns the path of `dask-scheduler`.
pub(crate) fn build_scheduler(profile: Profile) -> Result<PathBuf> {
    build("oxidask-scheduler", "dask-scheduler", profile)
}

/// Builds our worker: the path of `dask-worker`, with the extension module beside it.
pub(crate) fn build_worker(profile: Profile) -> Result<PathBuf> {
    build_packages(
        &["oxidask-worker", "oxidask-worker-module"],
        "dask-worker",
        profile,
    )
}

/// Builds the load generator of the measurements and returns its path.
pub(crate) fn build_load(profile: Profile) -> Result<PathBuf> {
    build("oxidask-bench", "oxidask-load", profile)
}

fn build(package: &str, binary: &str, profile: Profile) -> Result<PathBuf> {
    build_packages(&[package], binary, profile)
}

/// Builds these packages; the path of one of the binaries.
fn build_packages(packages: &[&str], binary: &str, profile: Profile) -> Result<PathBuf> {
    let mut command = cargo();
    command.arg("build");
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    // Cargo's profile of the folder `debug` has another name.
    let cargo_profile = match profile {
        Profile::Debug => "dev",
        Profile::Release | Profile::Image => profile.folder(),
    };
    command.args(["--profile", cargo_profile]);
    run(&mut command)?;
    let path = target_dir().join(profile.folder()).join(binary);
    if !path.is_file() {
        bail!("cargo build succeeded but there is no {}", path.display());
    }
    Ok(path)
}

/// Runs a command to its end; its output goes to ours. A status other than 0 is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a command to its end and returns what it wrote to stdout.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} ended with {}: {}",
            shown(command),
            output.status,
            stderr.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as a person would type it, for messages.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// The program of that name on PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
