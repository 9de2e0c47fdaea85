"""Child processes with a log each. They lead process groups of their own, which are ended as a whole."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time

from .waiting import wait_for


def clean_environment(folder, python=None, **extra):
    """The environment of every process under test: no Dask configuration of the machine or of the caller.

    With `python`, the programs beside that interpreter come first on PATH, as in an activated environment.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DASK_", "PREFECT_"))}
    config = folder / "dask-config"
    config.mkdir(exist_ok=True)
    env.update({"DASK_CONFIG": str(config), "DASK_ROOT_CONFIG": str(config), "PYTHONUNBUFFERED": "1"})
    env["HOME"] = str(folder)
    # Old Dask on the newest pandas that it works with says so at each import.
    env["PYTHONWARNINGS"] = "ignore::FutureWarning,ignore::DeprecationWarning"
    if python:
        env["PATH"] = os.path.dirname(python) + os.pathsep + env["PATH"]
    env.update(extra)
    return env


def resident_mib(pid):
    """Memory of a process, in MiB."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def end_with_parent():
    """Run in a child before exec: it is killed when the test runner dies, however that happens."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A process under test, with stdout and stderr together in `log`."""

    def __init__(self, name, command, log, env, **options):
        self.name, self.command, self.log = name, [str(word) for word in command], log
        with log.open("wb") as out:
            self.popen = subprocess.Popen(
                self.command,
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=options.pop("stdout", out),
                stderr=out,
                env=env,
                start_new_session=True,
                preexec_fn=end_with_parent,
                **options,
            )

    def __repr__(self):
        return f"<{self.name} pid {self.popen.pid}>"

    @property
    def pid(self):
        return self.popen.pid

    @property
    def alive(self):
        return self.popen.poll() is None

    def text(self):
        return self.log.read_text(errors="replace")

    def tail(self, lines=25):
        return "\n".join(self.text().splitlines()[-lines:])

    def wait_for_line(self, pattern, timeout=30):
        """The match of a pattern in the log, waited for; fails at once if the process has ended without it."""

        def found():
            match = re.search(pattern, self.text())
            if not match and not self.alive:
                raise AssertionError(f"{self} ended ({self.popen.returncode}) before /{pattern}/:\n{self.tail()}")
            return match

        return wait_for(found, timeout, lambda: f"{self} did not log /{pattern}/:\n{self.tail()}")

    def wait(self, timeout):
        """Exit code; a process that stays fails the test."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} still runs after {timeout} s:\n{self.tail()}") from None

    def signal(self, number):
        self.popen.send_signal(number)

    def kill_group(self):
        """SIGKILL to the process and to all it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(10)

    def stop(self, grace=0.0):
        """Ends the group, politely if there is a grace (seconds)."""
        if grace and self.alive:
            self.popen.terminate()
            deadline = time.monotonic() + grace
            while self.alive and time.monotonic() < deadline:
                time.sleep(0.02)
        self.kill_group()
