"""Trivial tasks by Client.map: what they cost the scheduler. Prints one JSON object.

Usage: tasks.py ADDRESS SCHEDULER_PID TASKS. Called by `cargo xtask bench tasks`; runs on Python 3.8 too.
"""

import json
import sys
import time

import psutil
from distributed import Client, wait


def inc(x):
    return x + 1


def cpu_seconds(scheduler):
    """User and system time of the scheduler and of every process it has started."""
    total = 0.0
    for process in [scheduler] + scheduler.children(recursive=True):
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def resident_bytes(scheduler):
    return sum(p.memory_info().rss for p in [scheduler] + scheduler.children(recursive=True))


def main():
    address, pid, tasks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    scheduler = psutil.Process(pid)
    with Client(address, timeout="60s") as client:
        client.wait_for_workers(2)
        # Connections, imports and the first pages of every structure are not what is measured.
        warm_up = client.map(inc, range(-1000, 0))
        wait(warm_up)
        del warm_up
        time.sleep(1)

        memory, cpu, started = resident_bytes(scheduler), cpu_seconds(scheduler), time.perf_counter()
        futures = client.map(inc, range(tasks))
        wait(futures)
        wall = time.perf_counter() - started
        used, memory = cpu_seconds(scheduler) - cpu, resident_bytes(scheduler) - memory

        assert client.submit(sum, futures[:100]).result() == sum(range(1, 101))
        print(
            json.dumps(
                {
                    "scheduler_cpu_us_per_task": used / tasks * 1e6,
                    "wall_us_per_task": wall / tasks * 1e6,
                    "scheduler_bytes_per_task": memory / tasks,
                }
            )
        )


if __name__ == "__main__":
    main()
