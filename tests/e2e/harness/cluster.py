"""Schedulers, stock workers and clusters of them, on the loopback interface."""

import itertools
import os
import shlex
import signal
import socket

from .peer import E2E, Peer
from .processes import Process, clean_environment
from .releases import python_of, version_tuple

_numbers = itertools.count()


def stock_scheduler():
    """Whether the tests run against the stock scheduler, which proves the tests."""
    return scheduler_command() == "stock"


def scheduler_command():
    command = os.environ.get("OXIDASK_SCHEDULER_CMD")
    if not command:
        raise RuntimeError("OXIDASK_SCHEDULER_CMD is not set: run the tests with `cargo xtask test`")
    return command


def worker_command():
    command = os.environ.get("OXIDASK_WORKER_CMD")
    if not command:
        raise RuntimeError("OXIDASK_WORKER_CMD is not set: run the tests with `cargo xtask test`")
    return command


def scheduler_words(release, stock=False):
    if stock or stock_scheduler():
        return [python_of(release), "-m", "distributed.cli.dask_scheduler"]
    return shlex.split(scheduler_command())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Scheduler(Process):
    """The scheduler under test, or that of the release. Its Python host is the interpreter of `release`."""

    def __init__(self, folder, release, *options, host="127.0.0.1", port=0, stock=False, **environment):
        self.dashboard_port = free_port()
        python = python_of(release)
        command = scheduler_words(release, stock) + ["--host", host, "--port", str(port)]
        command += ["--dashboard-address", f"127.0.0.1:{self.dashboard_port}", *options]
        super().__init__(
            "scheduler",
            command,
            folder / f"scheduler-{next(_numbers)}.log",
            clean_environment(folder, python, **environment),
            cwd=str(folder),
        )
        self.address = None

    def wait_until_listening(self):
        self.address = self.wait_for_line(r"Scheduler at:\s+(\S+)")[1]
        return self


class Worker(Process):
    """A stock `dask worker` process, or ours in the interpreter of the release."""

    def __init__(
        self,
        folder,
        release,
        address,
        *options,
        nanny=False,
        threads=1,
        name=None,
        environment_name=None,
        native=False,
        within=None,
        **environment,
    ):
        """`within`: a control group."""
        number = next(_numbers)
        # The environment may be one with more than Dask, like that of Prefect.
        python = python_of(environment_name or release)
        self.worker_name = name or f"worker-{number}"
        program = [python, "-m", "distributed.cli.dask_worker"]
        if native:
            program = [*shlex.split(worker_command()), "--python", python]
        if within:
            program = [*within.entrance, *program]
        command = [*program, address, "--host", "127.0.0.1", "--no-dashboard"]
        command += ["--nthreads", threads, "--name", self.worker_name, "--nanny" if nanny else "--no-nanny"]
        command += ["--local-directory", folder / "scratch", *options]
        super().__init__(
            f"worker {self.worker_name} of {release}",
            command,
            folder / f"worker-{number}.log",
            clean_environment(folder, python, **environment),
            cwd=str(folder),
        )

    def wait_until_registered(self):
        self.wait_for_line(r"Registered to:\s+(\S+)")
        return self

    @property
    def contact_address(self):
        """Where others reach it, as it says itself."""
        return self.wait_for_line(r"Start worker at:\s+(\S+)")[1]


class Cluster:
    """A scheduler with workers, and client processes of the same release. Ended by `close`.

    `kinds`: for each worker whether it is "stock" or "native"; without it there are `workers` of one kind.
    """

    def __init__(
        self, folder, release, workers=2, options=(), environment=None, stock=False, kinds=None, **worker_options
    ):
        self.folder, self.release = folder, release
        self.processes, self.peers, self.workers = [], [], []
        self._own_peer = None
        self.scheduler = Scheduler(folder, release, *options, stock=stock, **(environment or {}))
        self.processes.append(self.scheduler)
        try:
            self.scheduler.wait_until_listening()
            for kind in kinds or [None] * workers:
                words = {**worker_options, "native": kind == "native"} if kind else worker_options
                self.workers.append(self.add_worker(**words))
            for worker in self.workers:
                worker.wait_until_registered()
        except BaseException:
            self.close()
            raise

    @property
    def address(self):
        return self.scheduler.address

    @property
    def version(self):
        return version_tuple(self.release)

    def add_worker(self, release=None, options=(), address=None, **worker_options):
        release = release or self.release
        worker = Worker(self.folder, release, address or self.address, *options, **worker_options)
        self.processes.append(worker)
        return worker

    def peer(self, environment=None):
        """A client process of its own, for what needs several at once."""
        environment = environment or self.release
        peer = Peer(python_of(environment), self.folder, f"client-{next(_numbers)}")
        self.peers.append(peer)
        return peer

    def run(self, scenario, *args, timeout=60, **kwargs):
        """Runs a scenario in a client process of the cluster's release and returns what it returns."""
        return self.start(scenario, *args, **kwargs).result(timeout)

    def start(self, scenario, *args, **kwargs):
        """Starts a scenario in the cluster's own client process, which is none of those a test asks for."""
        if self._own_peer is None or not self._own_peer.alive:
            self._own_peer = self.peer()
        return self._own_peer.start(scenario, self.address, *args, **kwargs)

    def check(self):
        """The scheduler lives and has not complained about itself."""
        assert self.scheduler.alive, f"the scheduler has ended:\n{self.scheduler.tail()}"
        assert "panicked at" not in self.scheduler.text(), self.scheduler.tail(60)

    def logs(self):
        """The ends of all logs, for the report of a failed test."""
        return [(repr(process), process.tail()) for process in self.processes]

    def close(self):
        for peer in self.peers:
            peer.stop()
        for process in reversed(self.processes):
            # A stopped process (SIGSTOP) takes SIGKILL, too.
            process.stop()


__all__ = ["E2E", "Cluster", "Scheduler", "Worker", "free_port", "signal", "stock_scheduler"]
