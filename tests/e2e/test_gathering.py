"""Results that travel through the scheduler."""

import os
import signal
import time

import pytest

from harness.releases import RELEASES
from harness.waiting import wait_for


def resident(pid):
    """Bytes of memory that a process holds, and held at most."""
    with open(f"/proc/{pid}/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return tuple(int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))


# Frames of 2.30.1 have another form than those of workers' answers: they cannot be passed on as they are.
FORWARDED = [release for release in RELEASES if release != "2.30.1"]


@pytest.mark.native_only
@pytest.mark.parametrize("release", FORWARDED)
def test_much_for_a_slow_client_costs_the_scheduler_little(new_cluster, release):
    """400 MB pass through while the client stands still for a while: the scheduler holds 64 MiB of it at most."""
    cluster = new_cluster(release)
    before, _ = resident(cluster.scheduler.pid)
    call = cluster.start("gathering.gathers_much")
    client = call.told(timeout=60)
    call.go_on()
    time.sleep(0.5)
    os.kill(client, signal.SIGSTOP)
    try:
        time.sleep(2)
        assert cluster.peer().run("clients.small_ones", cluster.address) < 30
    finally:
        os.kill(client, signal.SIGCONT)
    call.result(timeout=120)
    _, peak = resident(cluster.scheduler.pid)
    assert peak - before < 160e6, f"{(peak - before) / 1e6:.0f} MB"


@pytest.mark.native_only
@pytest.mark.parametrize("release", FORWARDED)
@pytest.mark.parametrize("copies", [1, 2])
def test_a_worker_is_lost_in_the_middle_of_its_data(new_cluster, release, copies):
    """Another one that holds the same result, or computes it again, goes on where the first one ended."""
    cluster = new_cluster(release)
    gatherer, observer = cluster.peer(), cluster.peer()
    # Now, because the other client must not stand still for long.
    assert observer.run("gathering.senders", cluster.address) == []
    call = gatherer.start("gathering.gathers_while_a_holder_is_lost", cluster.address, copies)
    call.told()
    (sender,) = wait_for(lambda: observer.run("gathering.senders", cluster.address), 30)
    (worker,) = [worker for worker in cluster.workers if worker.worker_name == sender]
    worker.signal(signal.SIGKILL)
    call.go_on()
    call.result()
    assert "goes on" in cluster.scheduler.text()
    cluster.check()


def test_results_come_in_the_order_of_asking(cluster):
    cluster.run("gathering.gathers_from_both_in_order")
