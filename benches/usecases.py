"""Graphs of real collections: makespan, processor time and bytes moved. Prints one JSON object.

Usage: usecases.py ADDRESS SCHEDULER_PID WORKER_PIDS PING [NAME...], PING being the program that asks the scheduler
meanwhile, or nothing. Called by `cargo xtask bench usecases`. The graphs are
those of the RSDS paper (arXiv 2010.11105), sized for two cores; data is made up on the spot.
"""

import json
import operator
import os
import sys
import time

import dask
import dask.array as da
import dask.bag as db
import numpy as np
from distributed import Client, wait
from measuring import Processes, pinged


def merge(client, n=10_000):
    """Trivial tasks and their sum."""
    return client.submit(sum, client.map(operator.neg, range(n)))


def merge_slow(client, n=1000, seconds=0.01):
    def slow(x, seconds):
        time.sleep(seconds)
        return x

    return client.submit(sum, client.map(slow, range(n), seconds=seconds))


def tree(client, depth=12):
    """Sums of pairs."""
    add = dask.delayed(operator.add, pure=False)
    level = [dask.delayed(operator.neg, pure=False)(i) for i in range(2**depth // 2)]
    while len(level) > 1:
        level = [add(a, b) for a, b in zip(level[::2], level[1::2])]
    return client.compute(level[0])


def bag(client, n=5000, partitions=20):
    """Products of all pairs of partitions: many objects, much of the GIL."""
    numbers = db.from_sequence(range(n), npartitions=partitions)
    pairs = numbers.map(lambda x: x % 50).product(db.from_sequence(range(100), npartitions=partitions))
    return client.compute(pairs.filter(lambda pair: (pair[0] + pair[1]) % 2 == 0).map(sum).sum())


def numpy_transpose(client, n=5000, parts=10):
    """Every block goes to another worker: loses with whoever places badly."""
    x = da.random.default_rng(7).random((n, n), chunks=(n // parts, n // parts))
    y = x + x.T
    return client.compute(y[::2, n // 2 :].mean(axis=1).sum())


def numpy_many(client):
    return numpy_transpose(client, parts=50)


def xarray_like(client, chunk=25):
    """A grouped mean over days, as xarray makes it of the air temperature set."""
    times = 2920
    air = da.random.default_rng(7).random((times, 25, 53), chunks=(chunk, 25, 53))
    days = [air[day::31].mean(axis=0) for day in range(31)]
    return client.compute(da.stack(days).sum())


def groupby(client, days=30, partition="1D"):
    frame = dask.datasets.timeseries(
        start="2000-01-01", end=f"2000-01-{days}", freq="10s", partition_freq=partition, seed=7
    )
    return client.compute(frame.groupby("name")[["x", "y"]].mean())


def join(client, method="tasks", partition="30min"):
    def frame(seed):
        return dask.datasets.timeseries(
            start="2000-01-01", end="2000-01-02", freq="10s", partition_freq=partition, seed=seed
        )

    with dask.config.set({"dataframe.shuffle.method": method}):
        joined = frame(7)[["id", "x"]].merge(frame(8)[["id", "y"]], on="id")
        return client.compute(joined.y.sum())


def join_p2p(client):
    return join(client, "p2p")


def vectorizer(client, n=64):
    """Few long tasks with large results."""

    def words(seed):
        time.sleep(0.05)
        return np.full(1_000_000, seed, dtype="f8")

    return client.submit(len, client.map(words, range(n)))


USECASES = {
    case.__name__: case
    for case in (
        merge,
        merge_slow,
        tree,
        bag,
        numpy_transpose,
        numpy_many,
        xarray_like,
        groupby,
        join,
        join_p2p,
        vectorizer,
    )
}


def moved(client):
    """Bytes that workers have sent to each other so far; None if not all of them count."""

    def sent(dask_worker):
        return getattr(dask_worker, "transfer_outgoing_bytes_total", None)

    counts = list(client.run(sent).values())
    return None if None in counts else sum(counts)


def main():
    address, ping, names = sys.argv[1], sys.argv[4], sys.argv[5:] or list(USECASES)
    scheduler = Processes([int(sys.argv[2])])
    workers = Processes([int(pid) for pid in sys.argv[3].split(",")])
    parties = {"scheduler": scheduler, "workers": workers, "client": Processes([os.getpid()], children=False)}
    found = {}
    with Client(address, timeout="60s") as client:
        client.wait_for_workers(2)
        # Imports are not what is measured.
        numpy_transpose(client, n=100, parts=2).result()
        groupby(client, days=2).result()
        for name in names:
            print(f"  {name}", file=sys.stderr, flush=True)
            figures = {}
            bytes_before = moved(client)
            with pinged(ping, address, figures):
                before = {party: processes.cpu_seconds() for party, processes in parties.items()}
                started = time.perf_counter()
                future = USECASES[name](client)
                wait(future)
                figures["makespan_s"] = time.perf_counter() - started
                for party, processes in parties.items():
                    figures[party + "_cpu_s"] = processes.cpu_seconds() - before[party]
            if future.status != "finished":
                raise SystemExit(f"{name} ended {future.status}: {future.exception()!r}")
            if bytes_before is not None:
                figures["moved_mb"] = (moved(client) - bytes_before) / 1e6
            found[name] = figures
            del future
            # What is let go of is not charged to the next one.
            time.sleep(0.5)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
