"""Shuffles, joins and rechunks in which workers pass the data among themselves. Called by test_p2p.py."""

import time

import dask
import dask.dataframe as dd
import distributed
import numpy as np
import pandas as pd
from asking import workers_of
from distributed import Event

RELEASE = tuple(int(part) for part in distributed.__version__.split(".")[:3])
METHOD = {"shuffle_method": "p2p"} if RELEASE >= (2024, 1, 0) else {"shuffle": "p2p"}
PARTS = 6


def frame(rows=600):
    numbers = np.arange(rows)
    return pd.DataFrame({"id": numbers % 17, "v": numbers, "s": [f"text {n % 7}" for n in numbers]})


def hold(part, number):
    """The partition with this value of `v` is there when the event is set."""
    if (part.v == number).any():
        assert Event("go").wait(60)
    return part


def shuffled(df):
    return df.shuffle("id", npartitions=PARTS, **METHOD)


def same(result, expected):
    columns = list(expected.columns)
    result = result[columns].sort_values("v").reset_index(drop=True)
    pd.testing.assert_frame_equal(result, expected, check_dtype=False, check_index_type=False)


def in_memory(client, part_of_name):
    return [key for keys in client.has_what().values() for key in keys if part_of_name in str(key)]


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError(condition)


def shuffles(client):
    df = dd.from_pandas(frame(), npartitions=PARTS)
    same(shuffled(df).compute(), frame())
    once_more = shuffled(df)
    some = once_more.partitions[2:4].compute()
    assert 0 < len(some) < 600
    parts = dask.compute(*once_more.to_delayed())
    where = [set(part.id) for part in parts]
    assert sum(map(len, where)) == len(set.union(*where)) == 17, "each id is in one partition"


def joins(client):
    left = dd.from_pandas(frame(), npartitions=PARTS)
    table = pd.DataFrame({"id": np.arange(17), "twice": 2 * np.arange(17)})
    right = dd.from_pandas(table, npartitions=PARTS)
    for how in ["inner", "outer"]:
        result = left.merge(right, on="id", how=how, npartitions=PARTS, **METHOD).compute()
        same(result, frame())
        assert (result.twice == 2 * result.id).all()


def rechunks(client):
    import dask.array as da

    x = np.arange(2400).reshape(40, 60)
    rows = da.from_array(x, chunks=(40, 10)).rechunk((10, 60), method="p2p")
    assert (rows.compute() == x).all()
    # Only some of the new chunks.
    assert (rows[5:15, 7:].compute() == x[5:15, 7:]).all()
    x = x.reshape(10, 12, 20)
    cubes = da.from_array(x, chunks=(10, 3, 10)).rechunk((5, 12, 4), method="p2p")
    assert (cubes.compute() == x).all()


def fail(part):
    raise ValueError("no good")


def an_input_fails(client):
    df = dd.from_pandas(frame(), npartitions=PARTS)
    df = df.map_partitions(fail, meta=df._meta)
    try:
        shuffled(df).compute()
    except ValueError as error:
        assert str(error) == "no good"
    else:
        raise AssertionError("the error is gone")


def sending(client):
    """A shuffle in which all inputs but one are on their way."""
    df = dd.from_pandas(frame(), npartitions=PARTS)
    df = df.map_partitions(hold, 599, meta=df._meta)
    with dask.config.set({"optimization.fuse.active": False}):
        future = client.compute(shuffled(df))
    wait_for(lambda: in_memory(client, "shuffle-transfer"))
    return future


def taking(client):
    """A shuffle in which some outputs have been taken."""
    df = dd.from_pandas(frame(), npartitions=PARTS)
    out = shuffled(df)
    out = out.map_partitions(hold, 0, meta=out._meta)
    with dask.config.set({"optimization.fuse.active": False}):
        future = client.compute(out)
    wait_for(lambda: in_memory(client, "hold"))
    return future


def is_cancelled(client):
    sending(client).cancel()
    Event("go").set()
    same(shuffled(dd.from_pandas(frame(), npartitions=PARTS)).compute(), frame())


def survives(client, stage, talk):
    """The test does something to a worker in between."""
    Event("go").clear()
    future = {"sending": sending, "taking": taking}[stage](client)
    talk.tell()
    talk.wait()
    Event("go").set()
    same(future.result(timeout=60), frame())


def survives_a_retirement(client, stage):
    Event("go").clear()
    future = {"sending": sending, "taking": taking}[stage](client)
    client.retire_workers([next(iter(workers_of(client)))])
    Event("go").set()
    same(future.result(timeout=60), frame())
