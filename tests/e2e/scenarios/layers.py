"""Layers of 2022.12.0 that the scheduler expands, and their annotations. Called by test_without_python.py."""

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
from asking import workers_of
from distributed import get_worker, wait


def frame(rows=200):
    return pd.DataFrame({"key": [i % 20 for i in range(rows)], "value": [float(i) for i in range(rows)]})


def annotations_reach_tasks(client):
    def look():
        return dict(get_worker().state.tasks[dask.distributed.worker.thread_state.key].annotations)

    with dask.annotate(color="red", priority=3):
        value = dask.delayed(look)(dask_key_name="looked")
    assert client.compute(value).result(timeout=20) == {"color": "red", "priority": 3}


def annotations_decide_where_and_how_often(client):
    chosen = sorted(workers_of(client))[1]
    with dask.annotate(workers=[chosen]):
        x = da.ones((40, 40), chunks=(5, 5)).persist(optimize_graph=False)
    wait(x)
    holders = client.who_has(client.futures_of(x))
    assert {address for where in holders.values() for address in where} == {chosen}

    def fail_twice(block):
        worker = get_worker()
        worker.failures = getattr(worker, "failures", 0) + 1
        if worker.failures < 3:
            raise ValueError("not yet")
        return block

    with dask.annotate(retries=5):
        y = da.ones(10, chunks=10).map_blocks(fail_twice, dtype=float)
    assert y.sum().compute(optimize_graph=False) == 10


def joins_with_a_small_side(client):
    left = dd.from_pandas(frame(), npartitions=8)
    small = pd.DataFrame({"key": range(15), "weight": range(15)})
    right = dd.from_pandas(small, npartitions=2)
    with dask.config.set(shuffle="tasks"):
        for how in ("inner", "left"):
            joined = left.merge(right, on="key", how=how, broadcast=True).compute()
            expected = frame().merge(small, on="key", how=how)
            assert len(joined) == len(expected)
            assert joined.weight.sum() == expected.weight.sum()


def shuffles_in_stages(client):
    data = dd.from_pandas(frame(), npartitions=9)
    shuffled = data.shuffle("key", shuffle="tasks", max_branch=3)
    parts = dask.compute(*shuffled.to_delayed())
    assert sorted(pd.concat(parts).value) == sorted(frame().value)
    keys = [set(part.key) for part in parts]
    assert sum(map(len, keys)) == len(set.union(*keys))


def tree_reductions_of_many_partitions(client):
    data = dd.from_pandas(frame(), npartitions=40)
    assert data.value.sum(split_every=3).compute() == frame().value.sum()
    sums = data.groupby("key").value.sum(split_every=4, split_out=3).compute().sort_index()
    assert np.allclose(sums.values, frame().groupby("key").value.sum().values)


def overlaps_that_are_not_optimised(client):
    data = da.arange(40, chunks=10)
    sums = da.overlap.overlap(data, depth=1, boundary="periodic").map_blocks(np.sum, keepdims=True, chunks=(1,))
    assert sums.persist(optimize_graph=False).sum().compute() == 780 + sum([39, 10, 9, 20, 19, 30, 29, 0])


def failed_tasks_are_replayed_locally(client):
    data = da.arange(20, chunks=5).map_blocks(lambda block, divisor: 1 // (divisor - 7) + block, 7, dtype=int)
    future = client.compute(data.sum())
    wait(future)
    try:
        client.recreate_error_locally(future)
    except ZeroDivisionError:
        pass
    else:
        raise AssertionError("nothing was raised")
