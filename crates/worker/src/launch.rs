//! From a command line to running workers, until they have ended.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use oxidask_cli::{LogFormat, Parsed, WorkerArgs};
use oxidask_config::{Config, ConfigError, Env};
use oxidask_logging::LogOptions;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::interpreter::{Interpreter, InterpreterError};
use crate::nanny::{Ended, Nanny, StartError};
use crate::settings::{Common, Settings, SettingsError, Share};

/// How long workers may take to leave after a signal. Kubernetes gives a pod 30 s.
const GRACE: Duration = Duration::from_secs(10);

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error(transparent)]
    Interpreter(#[from] InterpreterError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("the process id can not be written to {path}: {source}")]
    PidFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the runtime can not be started: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Runs what the command line says; the code to exit with.
pub(crate) fn run(parsed: Parsed<WorkerArgs>, words: &[String]) -> Result<ExitCode, LaunchError> {
    let args = parsed.args;
    let interpreter = Interpreter::find(&args)?;
    let facts = interpreter.probe()?;
    // Stock looks for `etc/dask` below the prefix of its Python.
    let env = Env::from_process().with_executable(facts.prefix.join("bin").join("python"));
    let config = Config::load(&env)?;
    let (common, shares) = Common::new(&args, &config, &facts.release)?;
    if !args.nanny {
        return Err(become_worker(&args, &interpreter, words, &common, &shares));
    }
    let (options, problems) = LogOptions::from_config(&config);
    let json = args.log_format.map(|format| format == LogFormat::Json);
    oxidask_logging::start(options.with_json(json));
    let lines = parsed
        .warnings
        .iter()
        .chain(config.notices())
        .chain(&problems);
    for line in lines {
        tracing::warn!(target: "distributed.dask_worker", "{line}");
    }
    let _pid_file = args.pid_file.as_deref().map(PidFile::write).transpose()?;
    let settings = Arc::new(Settings::new(common, &args, &config, facts.release)?);
    // One thread is enough, and it must be the one that starts processes and lives as long as this one:
    // they die with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let failed = runtime.block_on(supervise(&settings, &interpreter, words, shares))?;
    // Nothing is waited for: what still runs in the background is of no use.
    runtime.shutdown_background();
    tracing::info!(target: "distributed.dask_worker", "End worker");
    Ok(match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// `--no-nanny`: becomes the worker; returns only if that fails.
fn become_worker(
    args: &WorkerArgs,
    interpreter: &Interpreter,
    words: &[String],
    common: &Common,
    shares: &[Share],
) -> LaunchError {
    // The process id stays the same; the worker removes the file.
    match args.pid_file.as_deref().map(PidFile::write) {
        Some(Ok(file)) => std::mem::forget(file),
        Some(Err(error)) => return error,
        None => {}
    }
    let plan = shares.first().map(|share| common.plan(share));
    let source = interpreter.worker(words, &plan.unwrap_or_default()).exec();
    interpreter.start_error(source).into()
}

/// Runs a nanny for each share until all have ended. True: something went wrong.
async fn supervise(
    settings: &Arc<Settings>,
    interpreter: &Interpreter,
    words: &[String],
    shares: Vec<Share>,
) -> Result<bool, LaunchError> {
    let mut signals = Signals::catch()?;
    let mut nannies = Vec::new();
    for share in shares {
        let (settings, interpreter) = (Arc::clone(settings), interpreter.clone());
        match Nanny::listen(settings, interpreter, words.to_vec(), share).await {
            Ok(nanny) => nannies.push(nanny),
            Err(error) => {
                tracing::error!("{error}");
                return Ok(true);
            }
        }
    }
    let mut running = JoinSet::new();
    for nanny in &nannies {
        let nanny = nanny.clone();
        running.spawn(async move { nanny.run().await });
    }
    let mut failed = false;
    while !running.is_empty() {
        let ended = tokio::select! {
            Some(ended) = running.join_next() => ended,
            name = signals.next() => {
                tracing::info!(target: "distributed.dask_worker", "Received signal {name}");
                close(&nannies, &name, &mut signals).await;
                return Ok(failed);
            }
        };
        match ended {
            Ok(Ok(Ended::InOrder)) => {}
            Ok(Ok(Ended::Failed)) => failed = true,
            Ok(Err(error)) => {
                failed = true;
                match error {
                    StartError::Timeout(_) => {
                        tracing::info!(target: "distributed.dask_worker", "Timed out starting worker: {error}");
                    }
                    _ => tracing::error!("{error}"),
                }
                // A worker that does not come up takes the others with it, as in stock.
                close(&nannies, "a worker did not start", &mut signals).await;
            }
            Err(error) => {
                failed = true;
                tracing::error!("a nanny broke: {error}");
            }
        }
    }
    Ok(failed)
}

/// Has all nannies end their workers in good order; a second signal ends them at once.
async fn close(nannies: &[Nanny], reason: &str, signals: &mut Signals) {
    let mut closing = JoinSet::new();
    for nanny in nannies {
        let (nanny, reason) = (nanny.clone(), reason.to_owned());
        closing.spawn(async move { nanny.close(GRACE, true, &reason).await });
    }
    let all = async { while closing.join_next().await.is_some() {} };
    tokio::select! {
        () = all => {}
        name = signals.next() => {
            tracing::warn!(target: "distributed.dask_worker", "Received signal {name} again; not waiting for workers");
        }
    }
}

/// SIGTERM and SIGINT, caught from the moment this exists.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> String {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM (15)".to_owned(),
            _ = self.interrupt.recv() => "SIGINT (2)".to_owned(),
        }
    }
}

/// `--pid-file`, removed at the end.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> Result<Self, LaunchError> {
        let written = std::fs::write(path, std::process::id().to_string());
        written.map_err(|source| LaunchError::PidFile {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}
