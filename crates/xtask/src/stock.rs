//! Schedulers (ours and stock) and stock workers as child processes, for demonstrations and measurements.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::process::{Child, Interrupt, wait_until};

/// Whose scheduler is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The Rust scheduler of this project.
    Native,
    /// The Python scheduler of the chosen release.
    Stock,
}

impl Kind {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Stock => "stock",
        }
    }
}

/// A cluster on the loopback interface; dropping it ends every process of it.
pub(crate) struct Cluster {
    /// Ended first, so that workers do not log the loss of their scheduler.
    workers: Vec<Child>,
    scheduler: Child,
    /// `tcp://127.0.0.1:PORT`.
    pub address: String,
    /// `http://127.0.0.1:PORT`.
    pub dashboard: String,
}

/// How a cluster is started.
pub(crate) struct Plan<'a> {
    /// Whose scheduler.
    pub kind: Kind,
    /// Our `dask-scheduler`; not used for the stock one.
    pub binary: &'a Path,
    /// Interpreter with stock Dask.
    pub python: &'a Path,
    /// Port of the scheduler; the dashboard takes the next one.
    pub port: u16,
    /// Number of worker processes.
    pub workers: u32,
    /// Threads of each.
    pub threads: u32,
    /// Our `dask-worker` instead of the stock worker.
    pub native_worker: Option<&'a Path>,
    /// With a nanny around each worker, as `dask worker` has by default.
    pub nanny: bool,
    /// Where logs and the workers' scratch go.
    pub folder: PathBuf,
}

impl Plan<'_> {
    /// Starts the scheduler, waits for its port, starts the workers.
    pub(crate) fn start(&self, interrupt: &Interrupt) -> Result<Cluster> {
        check_free(self.port)?;
        let dashboard = self
            .port
            .checked_add(1)
            .context("the port must leave room for the dashboard's")?;
        let mut command = self.scheduler_command(dashboard);
        let name = format!("{} scheduler", self.kind.name());
        let mut scheduler =
            Child::spawn_logged(&name, &mut command, &self.folder.join("scheduler.log"))?;
        wait_until(
            "listening of the scheduler",
            Duration::from_secs(60),
            interrupt,
            || {
                scheduler.check_alive()?;
                Ok(TcpStream::connect(("127.0.0.1", self.port)).is_ok())
            },
        )?;
        let address = format!("tcp://127.0.0.1:{}", self.port);
        let mut cluster = Cluster {
            workers: Vec::new(),
            scheduler,
            address,
            dashboard: format!("http://127.0.0.1:{dashboard}"),
        };
        for index in 0..self.workers {
            let mut command = self.worker_command(&cluster.address, index);
            let log = self.folder.join(format!("worker-{index}.log"));
            cluster.workers.push(Child::spawn_logged(
                &format!("worker {index}"),
                &mut command,
                &log,
            )?);
        }
        // A client of 2.23.0 – 2021.02 waits in silence to be greeted in its own framing; it is the workers that tell
        // the scheduler what this address speaks, since only they try again.
        wait_until(
            "registration of the workers",
            Duration::from_secs(90),
            interrupt,
            || {
                cluster.check_alive()?;
                Ok(cluster
                    .workers
                    .iter()
                    .all(|worker| worker.has_logged("Registered to:")))
            },
        )?;
        Ok(cluster)
    }

    fn scheduler_command(&self, dashboard: u16) -> Command {
        let mut command = match self.kind {
            Kind::Native => Command::new(self.binary),
            Kind::Stock => {
                let mut command = Command::new(self.python);
                command.args(["-m", "distributed.cli.dask_scheduler"]);
                command
            }
        };
        command.args(["--host", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--dashboard-address", &format!("127.0.0.1:{dashboard}")]);
        // The Python host of our scheduler is the `python` on PATH: the release's own.
        if let (Some(bin), Some(path)) = (self.python.parent(), std::env::var_os("PATH")) {
            let dirs = std::iter::once(bin.to_path_buf()).chain(std::env::split_paths(&path));
            if let Ok(joined) = std::env::join_paths(dirs) {
                command.env("PATH", joined);
            }
        }
        command.current_dir(&self.folder);
        command
    }

    fn worker_command(&self, address: &str, index: u32) -> Command {
        let mut command = match self.native_worker {
            Some(binary) => {
                let mut command = Command::new(binary);
                command.arg("--python").arg(self.python);
                command
            }
            None => {
                let mut command = Command::new(self.python);
                command.args(["-m", "distributed.cli.dask_worker"]);
                command
            }
        };
        command.args([address, "--no-dashboard"]);
        command.args(["--host", "127.0.0.1", "--name", &format!("worker-{index}")]);
        command.args(["--nthreads", &self.threads.to_string()]);
        command.arg(if self.nanny { "--nanny" } else { "--no-nanny" });
        command
            .arg("--local-directory")
            .arg(self.folder.join("scratch"));
        command.current_dir(&self.folder);
        command
    }
}

impl Cluster {
    /// Process id of the scheduler.
    pub(crate) fn scheduler_id(&self) -> u32 {
        self.scheduler.id()
    }

    /// Process ids of the workers (of their nannies, if they have any).
    pub(crate) fn worker_ids(&self) -> Vec<u32> {
        self.workers.iter().map(Child::id).collect()
    }

    /// An error if a process of the cluster has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.scheduler.check_alive()?;
        self.workers.iter_mut().try_for_each(Child::check_alive)
    }

    /// Ends workers, then the scheduler.
    pub(crate) fn stop(mut self) -> Result<()> {
        for worker in &mut self.workers {
            worker.stop()?;
        }
        self.scheduler.stop()?;
        Ok(())
    }
}

fn check_free(port: u16) -> Result<()> {
    if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
        bail!(
            "port {port} cannot be used ({error}): stop what listens there or choose another one with --port"
        );
    }
    Ok(())
}

/// A port that nothing listens on, with a free one after it.
pub(crate) fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if port < u16::MAX && check_free(port + 1).is_ok() {
            return Ok(port);
        }
    }
    bail!("no two free ports in a row on 127.0.0.1");
}
