//! Python environments with pinned packages, made on first need below `.oxidask/envs/`.
//!
//! An environment is complete when its stamp holds the interpreter's version and the requirements it was made from; a
//! changed requirement file makes it anew. A lock file keeps two commands from making the same one at once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::releases::{
    Environment, FRISKY, GATEWAY, MANIFESTS, OLD_NATIVE, P2P, P2P_FURTHER, PREFECT, PROMETHEUS,
    Release, TOOLS,
};
use crate::workspace;

/// What `cargo xtask envs` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these environments (names of files in tests/requirements, without .txt)
    names: Vec<String>,
}

/// Makes the environments and prints `VARIABLE=interpreter` lines for a shell.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut every = all();
    if !options.names.is_empty() {
        every.extend(ON_DEMAND);
        every.extend(P2P_FURTHER);
    }
    if let Some(name) = options
        .names
        .iter()
        .find(|name| !every.iter().any(|env| env.name == name.as_str()))
    {
        let known: Vec<_> = every.iter().map(|env| env.name).collect();
        bail!(
            "no environment is called {name}; there are {}",
            known.join(", ")
        );
    }
    for env in every {
        if options.names.is_empty() || options.names.iter().any(|name| name == env.name) {
            println!("{}={}", env.variable, ensure(env)?.display());
        }
    }
    Ok(())
}

/// Environments that are made only when they are named; without them their tests are skipped.
const ON_DEMAND: [Environment; 2] = [GATEWAY, FRISKY];

/// Those of them that are there, with their interpreters.
pub(crate) fn present() -> Vec<(Environment, PathBuf)> {
    let interpreter = |env: Environment| folder().join(env.name).join("bin/python");
    let all = ON_DEMAND.into_iter().map(|env| (env, interpreter(env)));
    all.filter(|(env, python)| python.is_file() && stamp(&folder().join(env.name)).is_file())
        .collect()
}

/// Every environment the tests use.
pub(crate) fn all() -> Vec<Environment> {
    let mut every: Vec<_> = Release::ALL
        .iter()
        .map(|release| release.environment())
        .collect();
    every.extend(PREFECT);
    every.push(OLD_NATIVE);
    every.push(P2P);
    every.push(PROMETHEUS);
    every.push(MANIFESTS);
    every.push(TOOLS);
    every
}

/// Makes the environment unless it is there and current; returns its interpreter.
pub(crate) fn ensure(env: Environment) -> Result<PathBuf> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let dir = folder.join(env.name);
    let requirements = workspace::root()
        .join("tests/requirements")
        .join(format!("{}.txt", env.name));
    let pins = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read the pins {}", requirements.display()))?;

    let lock_path = folder.join(format!("{}.lock", env.name));
    let lock_file =
        File::create(&lock_path).with_context(|| format!("cannot make {}", lock_path.display()))?;
    let _lock = Flock::lock(lock_file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("cannot lock {}", lock_path.display()))?;

    let python = dir.join("bin/python");
    if is_current(&dir, &pins) && python.is_file() {
        return Ok(python);
    }
    let started = Instant::now();
    let found = find_interpreter(env)?;
    eprintln!(
        "[{}] making the environment with {} in {}",
        env.name,
        found.path.display(),
        dir.display()
    );
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    create(&found, &dir)?;
    install(&found, &dir, env, &requirements)?;
    fs::write(stamp(&dir), stamp_text(&found.version, &pins))?;
    eprintln!(
        "[{}] ready after {:.0} s",
        env.name,
        started.elapsed().as_secs_f64()
    );
    Ok(python)
}

/// `OXIDASK_ENVS`, by which several checkouts share one folder, or `.oxidask/envs` in the checkout.
fn folder() -> PathBuf {
    match std::env::var_os("OXIDASK_ENVS") {
        Some(dir) => PathBuf::from(dir),
        None => workspace::root().join(".oxidask/envs"),
    }
}

fn stamp(dir: &Path) -> PathBuf {
    dir.join("oxidask-stamp.txt")
}

fn stamp_text(version: &str, pins: &str) -> String {
    format!("python {version}\n{pins}")
}

/// The interpreter may have gone (an upgrade of the system), so the stamp alone is not enough: `bin/python` is a link.
fn is_current(dir: &Path, pins: &str) -> bool {
    fs::read_to_string(stamp(dir)).is_ok_and(|text| {
        text.split_once('\n')
            .is_some_and(|(_, stamped)| stamped == pins)
    })
}

/// An interpreter that can hold an environment.
struct Interpreter {
    path: PathBuf,
    version: String,
    /// Has `venv` and `ensurepip` (Debian ships them in a package of their own).
    has_venv: bool,
}

/// Looks for the interpreter by variable, on PATH, under pyenv, and through uv.
fn find_interpreter(env: Environment) -> Result<Interpreter> {
    let mut tried = Vec::new();
    let uv = workspace::on_path("uv");
    for minor in env.pythons {
        for path in candidates(*minor, uv.as_deref()) {
            match probe(&path, *minor) {
                Some(found) if found.has_venv || uv.is_some() => return Ok(found),
                Some(_) => tried.push(format!(
                    "{} (has no venv module: install python3-venv)",
                    path.display()
                )),
                None => tried.push(path.display().to_string()),
            }
        }
    }
    let wanted: Vec<_> = env
        .pythons
        .iter()
        .map(|minor| format!("3.{minor}"))
        .collect();
    let first = env.pythons.first().copied().unwrap_or_default();
    bail!(
        "environment {} needs Python {}, and none was found (looked at: {}). Install it with `pyenv install 3.{first}` \
         or `uv python install 3.{first}`, or name one with OXIDASK_PYTHON_3_{first}=/path/to/python",
        env.name,
        wanted.join(" or "),
        if tried.is_empty() {
            "nothing".to_owned()
        } else {
            tried.join(", ")
        },
    )
}

fn candidates(minor: u8, uv: Option<&Path>) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if let Some(path) = std::env::var_os(format!("OXIDASK_PYTHON_3_{minor}")) {
        paths.push(PathBuf::from(path));
    }
    paths.extend(workspace::on_path(&format!("python3.{minor}")));
    paths.extend(under_pyenv(minor));
    paths.extend(
        ["python3", "python"]
            .iter()
            .filter_map(|name| workspace::on_path(name)),
    );
    if let Some(uv) = uv {
        let asked = Command::new(uv)
            .args(["python", "find", &format!("3.{minor}")])
            .output();
        if let Ok(output) = asked
            && output.status.success()
        {
            paths.push(PathBuf::from(
                String::from_utf8_lossy(&output.stdout).trim(),
            ));
        }
    }
    paths
}

fn under_pyenv(minor: u8) -> Vec<PathBuf> {
    let root = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv"));
    let mut found = Vec::new();
    for versions in [root, home]
        .into_iter()
        .flatten()
        .map(|dir| dir.join("versions"))
    {
        let Ok(entries) = fs::read_dir(versions) else {
            continue;
        };
        let prefix = format!("3.{minor}.");
        found.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
                .map(|entry| entry.path().join("bin/python")),
        );
    }
    found
}

/// Asks an interpreter what it is; a shim that points nowhere, or another version, is none.
fn probe(path: &Path, minor: u8) -> Option<Interpreter> {
    const QUESTION: &str = "import sys, importlib.util as u\n\
        print(sys.executable); print('%d.%d.%d' % sys.version_info[:3]); print(sys.version_info[:2] == (3, int(sys.argv[1])))\n\
        print(u.find_spec('venv') is not None and u.find_spec('ensurepip') is not None)";
    let output = Command::new(path)
        .args(["-c", QUESTION, &minor.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let (executable, version) = (lines.next()?, lines.next()?);
    if !output.status.success() || lines.next()? != "True" {
        return None;
    }
    let has_venv = lines.next()? == "True";
    Some(Interpreter {
        path: PathBuf::from(executable),
        version: version.to_owned(),
        has_venv,
    })
}

fn create(found: &Interpreter, dir: &Path) -> Result<()> {
    if found.has_venv {
        return workspace::run(Command::new(&found.path).args(["-m", "venv"]).arg(dir));
    }
    workspace::run(
        Command::new("uv")
            .args(["venv", "--python"])
            .arg(&found.path)
            .arg(dir),
    )
}

/// Installs exactly the pins: what a package asks for beyond them is an error in the pins, found by `pip check`.
fn install(found: &Interpreter, dir: &Path, env: Environment, requirements: &Path) -> Result<()> {
    eprintln!("[{}] installing {}", env.name, requirements.display());
    let python = dir.join("bin/python");
    let (mut install, mut check) = if found.has_venv {
        let mut install = Command::new(&python);
        install.args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
        ]);
        let mut check = Command::new(&python);
        check.args(["-m", "pip", "check", "--disable-pip-version-check"]);
        (install, check)
    } else {
        let mut install = Command::new("uv");
        install.args(["pip", "install", "--python"]).arg(&python);
        let mut check = Command::new("uv");
        check.args(["pip", "check", "--python"]).arg(&python);
        (install, check)
    };
    install
        .args(["--no-deps", "--requirement"])
        .arg(requirements);
    stream(&mut install, env.name)?;
    workspace::output_of(&mut check)
        .with_context(|| format!("the pins of {} do not fit together", env.name))?;
    Ok(())
}

/// Shows the progress of an installation, one line per package, each with the environment's name.
fn stream(command: &mut Command, name: &str) -> Result<()> {
    use std::io::{BufRead, BufReader};
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", workspace::shown(command)))?;
    let mut last = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let line = line.trim_start();
            if line.starts_with("Collecting")
                || line.starts_with("Installing")
                || line.starts_with("Building")
            {
                let mut shown: String = line.chars().take(110).collect();
                if shown.len() < line.len() {
                    shown.push('…');
                }
                eprintln!("[{name}] {shown}");
            }
            last.push(line.to_owned());
        }
    }
    let status = child.wait()?;
    if !status.success() {
        let from = last.len().saturating_sub(15);
        bail!(
            "{} ended with {status}:\n{}",
            workspace::shown(command),
            last[from..].join("\n")
        );
    }
    Ok(())
}
