"""Trivial tasks by Client.map: what they cost scheduler, workers and client. Prints one JSON object.

Usage: tasks.py ADDRESS SCHEDULER_PID WORKER_PIDS TASKS [frisky]. Called by `cargo xtask bench tasks`, on 3.8 too.
"""

import json
import os
import statistics
import sys
import time

import psutil
from distributed import Client, wait

# Submissions one after the other, each waited for.
SUBMISSIONS = 100


def inc(x):
    return x + 1


class Processes:
    """Some processes and all that they have started."""

    def __init__(self, pids):
        self._roots = [psutil.Process(pid) for pid in pids]

    def _all(self):
        return [process for root in self._roots for process in [root, *root.children(recursive=True)]]

    def cpu_seconds(self):
        """User and system time."""
        total = 0.0
        for process in self._all():
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def resident_bytes(self):
        return sum(process.memory_info().rss for process in self._all())


def latencies_ms(client):
    found = []
    # Numbers that were not asked for before.
    for number in range(10**6, 10**6 + SUBMISSIONS):
        begin = time.perf_counter()
        assert client.submit(inc, -number).result() == 1 - number
        found.append((time.perf_counter() - begin) * 1e3)
        # Apart, as from somebody who types: nothing of one waits in a batch of the other.
        time.sleep(0.02)
    return found


def connected(client, rival):
    """The client that submits, and how to wait for its futures: Dask's, or a rival's that moves into the cluster."""
    if rival == "frisky":
        import frisky

        return frisky.hijack(client, tunnel_via_dashboard=False), frisky.wait
    return client, wait


def main():
    address, tasks = sys.argv[1], int(sys.argv[4])
    rival = sys.argv[5] if len(sys.argv) > 5 else None
    scheduler = Processes([int(sys.argv[2])])
    workers = Processes([int(pid) for pid in sys.argv[3].split(",")])
    client_process = Processes([os.getpid()])
    with Client(address, timeout="60s") as dask_client:
        dask_client.wait_for_workers(2)
        client, finish = connected(dask_client, rival)
        idle = workers.resident_bytes()
        # Connections, imports and the first pages of every structure are not what is measured.
        warm_up = client.map(inc, range(-1000, 0))
        finish(warm_up)
        del warm_up
        time.sleep(1)

        parties = {"scheduler": scheduler, "workers": workers, "client": client_process}
        memory = scheduler.resident_bytes()
        before = {name: party.cpu_seconds() for name, party in parties.items()}
        started = time.perf_counter()
        futures = client.map(inc, range(tasks))
        finish(futures)
        wall = time.perf_counter() - started
        used = {name: party.cpu_seconds() - before[name] for name, party in parties.items()}
        memory = scheduler.resident_bytes() - memory

        assert client.submit(sum, futures[:100]).result() == sum(range(1, 101))
        figures = {name + "_cpu_us_per_task": seconds / tasks * 1e6 for name, seconds in used.items()}
        figures["wall_us_per_task"] = wall / tasks * 1e6
        figures["scheduler_bytes_per_task"] = memory / tasks
        figures["workers_idle_mib"] = idle / 2**20
        del futures
        time.sleep(1)
        figures["submit_to_result_ms"] = statistics.median(latencies_ms(client))
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
