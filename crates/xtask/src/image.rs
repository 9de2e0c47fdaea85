//! `cargo xtask image`: the static binaries, and the container images made of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::workspace;

/// The scheduler-only image may be this large.
const MAX_SCHEDULER_BYTES: u64 = 15 << 20;
/// What an image has of ours.
struct Program {
    /// Folder of the context whose contents go to the root of the image's file system.
    root: &'static str,
    /// Where it lies in the image.
    folder: &'static str,
    name: &'static str,
    package: &'static str,
    /// Further names.
    links: &'static [&'static str],
}

/// The scheduler alone.
const SCHEDULER: Program = Program {
    root: "dist/scheduler",
    folder: "usr/local/bin",
    name: "dask-scheduler",
    package: "oxidask-scheduler",
    links: &["dask"],
};
/// Scheduler, worker and the worker's module.
const FULL: Program = Program {
    root: "dist/full",
    folder: "opt/oxidask/bin",
    name: "oxidask",
    package: "oxidask",
    links: &["dask-scheduler", "dask-worker", "dask"],
};
/// The worker's extension module as cargo builds it.
const MODULE: &str = "liboxidask_worker_module.so";
/// When everything in the images was made, in seconds since 1970.
const TIME: i64 = 1_000_000_000;
/// Base of the full image in its Dockerfile, and what of Debian it has to have.
const PYTHON_IMAGE: &str = "python:3.12-slim-bookworm";
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";
const BASE_PACKAGES: &str = "python3,python3-venv,ca-certificates";
/// Files of the full image besides them.
const SCRIPTS: [&str; 2] = ["entrypoint.sh", "healthcheck.sh"];

/// What `cargo xtask image` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only build the static binaries
    #[arg(long)]
    binaries_only: bool,
    /// Take the binaries from this folder instead of building them
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// Build only the scheduler's image
    #[arg(long)]
    scheduler_only: bool,
    /// Wheels for the full image, when it is built without a network
    #[arg(long)]
    wheels: Option<PathBuf>,
    /// Base of the full image
    #[arg(long)]
    python_image: Option<String>,
    /// Make the base of the full image with debootstrap, for where no registry is reachable (as root)
    #[arg(long)]
    bootstrap: bool,
    /// Tag of the images
    #[arg(long, default_value = "latest")]
    tag: String,
}

/// Builds the binaries and both images.
pub(crate) fn run(options: &Options) -> Result<()> {
    let programs: &[_] = match options.scheduler_only {
        true => &[SCHEDULER],
        false => &[SCHEDULER, FULL],
    };
    let folder = match &options.binaries {
        Some(folder) => folder.clone(),
        None => build_static(programs)?,
    };
    for program in programs {
        let path = folder.join(program.name);
        check_static(&path)?;
        let size = path.metadata()?.len();
        println!("{}: static, {:.1} MB", path.display(), megabytes(size));
    }
    if options.binaries_only {
        return Ok(());
    }
    let context = make_context(options, &folder, programs)?;
    build(options, &context, "scheduler", "oxidask/scheduler")?;
    let name = format!("oxidask/scheduler:{}", options.tag);
    let size = image_size(&name)?;
    println!("{name}: {:.1} MB", megabytes(size));
    if size > MAX_SCHEDULER_BYTES {
        bail!(
            "{name} has {size} bytes; at most {MAX_SCHEDULER_BYTES} are allowed: see what made it grow"
        );
    }
    if !options.scheduler_only {
        if options.bootstrap {
            bootstrap(options)?;
        }
        build(options, &context, "full", "oxidask/dask")?;
        let name = format!("oxidask/dask:{}", options.tag);
        println!("{name}: {:.1} MB", megabytes(image_size(&name)?));
    }
    Ok(())
}

/// Builds programs with the C library linked in, into a folder of the target's own. The worker's module, which Python
/// loads, is built before, since it must not have a C library of its own.
fn build_static(programs: &[Program]) -> Result<PathBuf> {
    let target = host_target()?;
    let mut command = workspace::cargo();
    command.args(["build", "--profile", "image", "--locked"]);
    command.args(["--target", &target]);
    for program in programs {
        if program.name == FULL.name {
            command.env("OXIDASK_WORKER_MODULE", build_module()?);
        }
        command.args(["--package", program.package, "--bin", program.name]);
    }
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    workspace::run(&mut command)?;
    Ok(workspace::target_dir().join(target).join("image"))
}

fn build_module() -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--profile", "image", "--locked"]);
    command.args(["--package", "oxidask-worker-module"]);
    workspace::run(&mut command)?;
    Ok(workspace::target_dir().join("image").join(MODULE))
}

fn host_target() -> Result<String> {
    let about = workspace::output_of(Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("rustc -vV names no host; is this rustc?")
}

/// An empty image has no dynamic linker: the program must not ask for one.
fn check_static(path: &Path) -> Result<()> {
    let program = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let linker = b"/ld-linux";
    if program
        .windows(linker.len())
        .take(1 << 16)
        .any(|window| window == linker)
    {
        bail!(
            "{} needs a dynamic linker; build it with `cargo xtask image --binaries-only`",
            path.display()
        );
    }
    Ok(())
}

/// The folder that docker gets: binaries, scripts and wheels, all with the same time, so that equal
/// contents make equal layers.
fn make_context(options: &Options, binaries: &Path, programs: &[Program]) -> Result<PathBuf> {
    let context = workspace::target_dir().join("image-context");
    if context.exists() {
        fs::remove_dir_all(&context)
            .with_context(|| format!("cannot remove {}", context.display()))?;
    }
    for program in programs {
        let bin = context.join(program.root).join(program.folder);
        fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
        copy(&binaries.join(program.name), &bin.join(program.name))?;
        for link in program.links {
            let link = bin.join(link);
            symlink(program.name, &link)
                .with_context(|| format!("cannot make {}", link.display()))?;
        }
    }
    fs::create_dir_all(context.join("docker"))?;
    let docker = workspace::root().join("docker");
    for script in SCRIPTS {
        copy(&docker.join(script), &context.join("docker").join(script))?;
    }
    if let Some(wheels) = &options.wheels {
        let into = context.join("dist/wheels");
        fs::create_dir_all(&into)?;
        for entry in
            fs::read_dir(wheels).with_context(|| format!("cannot read {}", wheels.display()))?
        {
            let entry = entry?;
            copy(&entry.path(), &into.join(entry.file_name()))?;
        }
    }
    set_times(&context)?;
    Ok(context)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Gives everything below a folder, and then itself, one time.
fn set_times(path: &Path) -> Result<()> {
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            set_times(&entry?.path())?;
        }
    }
    let time = TimeSpec::new(TIME, 0);
    utimensat(
        AT_FDCWD,
        path,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )
    .with_context(|| format!("cannot set the time of {}", path.display()))
}

/// The container engine's program.
fn docker() -> Command {
    Command::new(std::env::var_os("OXIDASK_DOCKER").unwrap_or_else(|| "docker".into()))
}

/// A Debian with Python under the name of the base that the Dockerfile asks for.
fn bootstrap(options: &Options) -> Result<()> {
    let name = options.python_image.as_deref().unwrap_or(PYTHON_IMAGE);
    let root = workspace::target_dir().join("image-base");
    if !root.join("usr/bin/python3").exists() {
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", "--include", BASE_PACKAGES, "bookworm"]);
        workspace::run(debootstrap.arg(&root))
            .context("is debootstrap installed, and are you root?")?;
        // Where a proxy of the network's own answers for PyPI, only this machine knows its authority.
        fs::copy(TRUSTED, root.join(&TRUSTED[1..]))
            .with_context(|| format!("cannot copy {TRUSTED}"))?;
        fs::write(
            root.join("etc/pip.conf"),
            format!("[global]\ncert = {TRUSTED}\n"),
        )?;
    }
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&root).args(["-c", "."]);
    let mut packing = tar
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start tar")?;
    let packed = packing.stdout.take().context("tar has an output")?;
    workspace::run(docker().args(["import", "-", name]).stdin(packed))?;
    let status = packing.wait()?;
    if !status.success() {
        bail!("tar ended with {status}");
    }
    Ok(())
}

fn build(options: &Options, context: &Path, dockerfile: &str, name: &str) -> Result<()> {
    let file = workspace::root()
        .join("docker")
        .join(format!("{dockerfile}.Dockerfile"));
    let mut command = docker();
    command.env("DOCKER_BUILDKIT", "1");
    // BuildKit from 0.11 on gives it to what has no time of its own.
    command.env("SOURCE_DATE_EPOCH", TIME.to_string());
    command.args(["build", "--network", "host", "--build-arg", "BINARIES=dist"]);
    command.args([
        "--build-arg",
        concat!("VERSION=", env!("CARGO_PKG_VERSION")),
    ]);
    if options.wheels.is_some() {
        command.args([
            "--build-arg",
            "PIP_OPTIONS=--no-index --find-links /dist/wheels",
        ]);
    }
    if let Some(base) = &options.python_image {
        command.args(["--build-arg", &format!("PYTHON_IMAGE={base}")]);
    }
    command.arg("--tag").arg(format!("{name}:{}", options.tag));
    command.arg("--file").arg(file).arg(context);
    workspace::run(&mut command)
        .with_context(|| format!("{name} was not built; does `docker info` work?"))
}

fn image_size(name: &str) -> Result<u64> {
    let mut command = docker();
    command.args(["image", "inspect", "--format", "{{.Size}}", name]);
    let size = workspace::output_of(&mut command)?;
    size.parse()
        .with_context(|| format!("docker says that {name} has {size} bytes"))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
