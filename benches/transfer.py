"""Arrays from one worker to another and to the client: throughput and processor time. Prints one JSON object.

Usage: transfer.py ADDRESS WORKER_PIDS BYTES... Called by `cargo xtask bench transfer`.
"""

import json
import os
import sys
import time

import numpy as np
from distributed import Client, wait
from tasks import Processes

# Bytes that are moved for each size, at least, and transfers at most.
VOLUME = 1 << 30
MOST = 50


def made(nbytes, number):
    """An array that is nowhere yet, and that takes no time to serialise."""
    array = np.empty(nbytes, dtype="u1")
    # Pages that were never written to are not there and cost the sender more, or less.
    array.fill(number % 251)
    return array


def last(array):
    return int(array[-1])


def measure(held, nbytes, processes, move):
    """Seconds of wall and of processors, for one byte."""
    before, started = processes.cpu_seconds(), time.perf_counter()
    for number, array in enumerate(held):
        assert move(array) == number % 251
    wall = time.perf_counter() - started
    used = processes.cpu_seconds() - before
    return wall / len(held) / nbytes, used / len(held) / nbytes


def main():
    address, pids = sys.argv[1], [int(pid) for pid in sys.argv[2].split(",")]
    workers = Processes(pids)
    figures = {}
    with Client(address, timeout="60s") as client:
        client.wait_for_workers(2)
        first, second = list(client.scheduler_info(n_workers=-1)["workers"])[:2]

        def arrays(count, nbytes, at):
            futures = [client.submit(made, nbytes, n, workers=[at], pure=False) for n in range(count)]
            wait(futures)
            return futures

        def to_second(array):
            return client.submit(last, array, workers=[second], pure=False).result()

        def to_client(array):
            return int(array.result()[-1])

        # Imports and connections.
        for at in (first, second):
            client.submit(last, arrays(1, 1000, first)[0], workers=[at]).result()
        for nbytes in map(int, sys.argv[3:]):
            count = max(3, min(MOST, VOLUME // nbytes))
            # Not more in memory at once than a gigabyte or two.
            batch = max(1, min(count, (1 << 30) // nbytes))
            best = {"worker": None, "client": None}
            for _ in range(-(-count // batch)):
                held = arrays(batch, nbytes, first)
                found = measure(held, nbytes, workers, to_second)
                best["worker"] = min(filter(None, (best["worker"], found)))
                both = Processes([pids[0], os.getpid()])
                found = measure(held, nbytes, both, to_client)
                best["client"] = min(filter(None, (best["client"], found)))
                del held
            for to, (wall, used) in best.items():
                figures[f"to_{to}_{nbytes}_mb_per_s"] = 1e-6 / wall
                figures[f"to_{to}_{nbytes}_cpu_s_per_gb"] = used * 1e9
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
