"""A control group with little memory, in which the kernel kills what wants more."""

import contextlib
import os
import pathlib
import uuid

from .waiting import wait_for

ROOT = pathlib.Path("/sys/fs/cgroup")


class ControlGroup:
    """One of version 2 or of version 1. `OSError` if this machine, or this user, makes none."""

    def __init__(self, memory):
        """`memory`: the most that all processes in it may have, in bytes."""
        second = (ROOT / "cgroup.controllers").exists()
        if second:
            self.folder, limits = _own("") / _name(), ("memory.max", "memory.swap.max")
        else:
            self.folder, limits = _own("memory") / _name(), ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        self._events = self.folder / ("memory.events" if second else "memory.oom_control")
        self.folder.mkdir()
        try:
            (self.folder / limits[0]).write_text(str(memory))
            # What swaps is not killed. Where the kernel does not count what is swapped there is no such file.
            with contextlib.suppress(FileNotFoundError):
                (self.folder / limits[1]).write_text("0" if second else str(memory))
        except BaseException:
            self.folder.rmdir()
            raise

    @property
    def entrance(self):
        """Words before a command that has to run in here."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs")]

    @property
    def kills(self):
        """How often the kernel has killed a process of the group."""
        counts = dict(line.split() for line in self._events.read_text().splitlines())
        return int(counts["oom_kill"])

    def remove(self):
        """Once its processes have ended."""
        wait_for(lambda: not (self.folder / "cgroup.procs").read_text(), 10, "the control group does not empty")
        self.folder.rmdir()


def _name():
    return f"oxidask-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _own(controller):
    """The folder of this process's own group."""
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == controller:
            folder = ROOT / controller / path.lstrip("/")
            # In a container the path may be that of the host.
            return folder if folder.exists() else ROOT / controller
    raise FileNotFoundError(f"no control group of {controller!r}")
