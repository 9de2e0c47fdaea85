//! `cargo xtask image`: the static binaries, and the container images made of them.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The scheduler-only image may be this large.
const MAX_SCHEDULER_BYTES: u64 = 15 << 20;
/// Binaries of the images.
const PROGRAMS: [&str; 2] = ["dask-scheduler", "dask"];
/// Base of the full image in its Dockerfile, and what of Debian it has to have.
const PYTHON_IMAGE: &str = "python:3.12-slim-bookworm";
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";
const BASE_PACKAGES: &str = "python3,python3-venv,ca-certificates";
/// Files of the full image besides them.
const SCRIPTS: [&str; 3] = ["dask-worker", "entrypoint.sh", "healthcheck.sh"];

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
    let folder = match &options.binaries {
        Some(folder) => folder.clone(),
        None => build_static()?,
    };
    for program in PROGRAMS {
        let path = folder.join(program);
        check_static(&path)?;
        let size = path.metadata()?.len();
        println!("{}: static, {:.1} MB", path.display(), megabytes(size));
    }
    if options.binaries_only {
        return Ok(());
    }
    let context = make_context(options, &folder)?;
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

/// Builds with the C library linked in, into a folder of the target's own.
fn build_static() -> Result<PathBuf> {
    let target = host_target()?;
    let mut command = workspace::cargo();
    command.args(["build", "--release", "--locked", "--target", &target]);
    command.args(["--package", "oxidask-scheduler", "--bins"]);
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    command.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    workspace::run(&mut command)?;
    Ok(workspace::target_dir().join(target).join("release"))
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
fn make_context(options: &Options, binaries: &Path) -> Result<PathBuf> {
    let context = workspace::target_dir().join("image-context");
    if context.exists() {
        fs::remove_dir_all(&context)
            .with_context(|| format!("cannot remove {}", context.display()))?;
    }
    let bin = context.join("dist/bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    fs::create_dir_all(context.join("docker"))?;
    for program in PROGRAMS {
        copy(&binaries.join(program), &bin.join(program))?;
    }
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
    Ok(context)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let times = FileTimes::new().set_modified(time).set_accessed(time);
    File::options().append(true).open(to)?.set_times(times)?;
    Ok(())
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
