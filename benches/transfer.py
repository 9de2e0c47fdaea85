"""Arrays from one worker to another and to the client: throughput and processor time. Prints one JSON object.

Of each size: the first transfer (`cold`), and the best of rounds in which earlier data has been let go of just before,
as in a shuffle.

Usage: transfer.py ADDRESS WORKER_PIDS BYTES... Called by `cargo xtask bench transfer`.
"""

import json
import os
import sys
import time

import numpy as np
from distributed import Client, wait
from measuring import Processes

# Rounds for each size, of which the best counts, and bytes and transfers of each of them at most.
ROUNDS = 3
VOLUME = 1 << 30
MOST = 50
# After so many seconds nobody has memory left of an earlier transfer.
REST = 6


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
            batch = max(1, min(MOST, VOLUME // nbytes))
            both = Processes([pids[0], os.getpid()])
            time.sleep(REST)
            found = {}
            # One that nothing has gone before, then rounds whose data is let go of before the next.
            for number in range(1 + ROUNDS):
                held = arrays(batch if number else 1, nbytes, first)
                for to, processes, move in (("worker", workers, to_second), ("client", both, to_client)):
                    found.setdefault(to, []).append(measure(held, nbytes, processes, move))
                del held
            for to, (cold, *rounds) in found.items():
                for name, (wall, used) in (("_cold", cold), ("", min(rounds))):
                    figures[f"to_{to}_{nbytes}{name}_mb_per_s"] = 1e-6 / wall
                    figures[f"to_{to}_{nbytes}{name}_cpu_s_per_gb"] = used * 1e9
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
