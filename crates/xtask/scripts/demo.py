"""A first computation from a stock client: futures, an array, a DataFrame group-by.

Usage: demo.py ADDRESS WORKERS. Runs on every release the project is tested with, so on Python 3.8 too.
"""

import sys
import time

import dask
import dask.array as da
import dask.dataframe as dd
import distributed
import numpy as np
import pandas as pd
from distributed import Client


def inc(x):
    return x + 1


def add(x, y):
    return x + y


def futures(client):
    ones = client.map(inc, range(1000))
    pairs = client.map(add, ones[:500], ones[500:])
    total = client.submit(sum, pairs).result(timeout=60)
    assert total == sum(range(1, 1001)), total
    return "sum of 1,000 mapped and 500 added numbers = {:,}".format(total)


def array(client):
    ones = da.ones((1000, 1000), chunks=(250, 250))
    trace = (ones + ones.T).sum(axis=0).mean().compute()
    assert trace == 2000, trace
    return "mean of the column sums of x + x.T, 16 chunks = {:,.0f}".format(trace)


def group_by(client):
    numbers = np.arange(100_000)
    frame = pd.DataFrame({"key": numbers % 4, "value": numbers})
    means = dd.from_pandas(frame, npartitions=8).groupby("key").value.mean().compute().sort_index()
    expected = frame.groupby("key").value.mean()
    assert (means == expected).all(), means
    return "mean by key, 100,000 rows in 8 partitions = {}".format([float(v) for v in means])


def main():
    address, workers = sys.argv[1], int(sys.argv[2])
    with Client(address, timeout="60s", set_as_default=True) as client:
        client.wait_for_workers(workers)
        print("client      dask {}, distributed {}".format(dask.__version__, distributed.__version__))
        for name, part in [("futures", futures), ("array", array), ("DataFrame", group_by)]:
            started = time.perf_counter()
            text = part(client)
            print("{:<11} {}   {:.2f} s".format(name, text, time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
