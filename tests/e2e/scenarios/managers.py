"""Stock's cluster managers with our scheduler. Called by test_managers.py."""

import os
import time

from asking import workers_of
from distributed import Client
from native_cluster import NativeCluster


def inc(x):
    return x + 1


def slow_inc(x, delay=0.3):
    time.sleep(delay)
    return x + 1


def until(condition, timeout=60):
    deadline = time.time() + timeout
    while not condition():
        assert time.time() < deadline, "the condition does not come true"
        time.sleep(0.05)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def scales_adapts_and_closes(command, options):
    """Run with both: the command that starts a scheduler, and options for it."""
    with NativeCluster(n_workers=1, command=command, scheduler_options=options) as cluster, Client(cluster) as client:
        pid = cluster.scheduler.process.pid
        assert client.submit(inc, 1).result(timeout=60) == 2
        assert cluster.scheduler_address == client.scheduler.address
        cluster.scale(3)
        client.wait_for_workers(3, timeout=60)
        until(lambda: len(cluster.scheduler_info["workers"]) == 3)
        futures = client.map(inc, range(30), pure=False)
        assert sum(client.gather(futures)) == sum(range(1, 31))
        # Workers that go take nothing with them.
        cluster.scale(1)
        until(lambda: len(workers_of(client)) == 1)
        assert sum(client.gather(futures)) == sum(range(1, 31))
        del futures
        adaptive = cluster.adapt(minimum=0, maximum=3, interval="200ms", wait_count=2)
        until(lambda: len(workers_of(client)) == 0)
        futures = client.map(slow_inc, range(40), pure=False)
        until(lambda: len(workers_of(client)) > 1)
        assert sum(client.gather(futures)) == sum(range(1, 41))
        del futures
        until(lambda: len(workers_of(client)) == 0)
        assert adaptive.log
        assert "Cluster" in repr(cluster)
    until(lambda: not is_running(pid), timeout=10)
