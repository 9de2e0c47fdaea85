"""What the clients of the benchmarks share: processor time of processes, and a question to the scheduler meanwhile."""

import contextlib
import json
import subprocess

import distributed
import psutil

# Milliseconds between an answer and the next question: seldom enough that answering costs a stock scheduler about one
# percent of its processor time, so that it does not favour the native one.
PAUSE = 50


class Processes:
    """Some processes and, unless they shall not count, all that they have started."""

    def __init__(self, pids, children=True):
        self._roots = [psutil.Process(pid) for pid in pids]
        self._children = children

    def _all(self):
        for root in self._roots:
            yield root
            if self._children:
                yield from root.children(recursive=True)

    def cpu_seconds(self):
        """User and system time."""
        total = 0.0
        for process in self._all():
            times = process.cpu_times()
            total += times.user + times.system
            if self._children:
                total += times.children_user + times.children_system
        return total

    def resident_bytes(self):
        return sum(process.memory_info().rss for process in self._all())


@contextlib.contextmanager
def pinged(program, address, figures):
    """Asks the scheduler the cheapest question meanwhile; what its answers took, in milliseconds, goes into `figures`.

    `program` is `oxidask-load`: a process of its own, which waits for nothing of the client. Without one nobody asks.
    """
    if not program:
        yield
        return
    command = [program, "ping", "--address", address, "--release", distributed.__version__, "--pause", str(PAUSE)]
    asking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield
    finally:
        # It ends when its stdin does.
        found, _ = asking.communicate()
    figures["ping_ms"] = json.loads(found)
