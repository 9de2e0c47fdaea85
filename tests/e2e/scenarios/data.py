"""Data that clients put on workers and take from them."""

import time

import numpy as np
from distributed import wait

SINCE = {}


def inc(x):
    return x + 1


def until(condition, timeout=10):
    deadline = time.time() + timeout
    while not condition():
        assert time.time() < deadline, "the condition does not come true"
        time.sleep(0.02)


def scattered_data_is_an_argument(client):
    future = client.scatter(41)
    assert client.submit(inc, future).result(timeout=20) == 42


def scattered_data_comes_back(client):
    for direct in (False, True):
        # A dict is scattered value by value.
        future = client.scatter({"some": "data"}, direct=direct, hash=False)
        assert client.gather(future) == {"some": "data"}


def lists_are_scattered_item_by_item(client):
    futures = client.scatter([1, 2, 3])
    assert client.gather(futures) == [1, 2, 3]
    assert client.gather(client.map(inc, futures)) == [2, 3, 4]


def gather_directly_and_by_the_scheduler(client):
    futures = client.map(inc, range(10))
    assert client.gather(futures, direct=False) == list(range(1, 11))
    assert client.gather(futures, direct=True) == list(range(1, 11))


def large_arrays_by_the_scheduler(client):
    array = np.random.default_rng(0).random(2_000_000)
    future = client.scatter(array, direct=False)
    back = client.gather(client.submit(lambda x: x * 2, future), direct=False)
    assert (back == array * 2).all()


def broadcast_reaches_every_worker(client):
    future = client.scatter([1.5], broadcast=True)[0]
    until(lambda: len(client.who_has(future)[future.key]) == 2)
    assert client.submit(inc, future).result(timeout=20) == 2.5


def scatter_to_chosen_workers(client):
    address = sorted(client.ncores())[0]
    future = client.scatter(b"here", workers=[address], hash=False)
    assert list(client.who_has(future)[future.key]) == [address]


def the_same_data_has_the_same_key(client):
    first, second = client.scatter(b"same" * 100), client.scatter(b"same" * 100)
    assert first.key == second.key


def who_has_and_has_what_agree(client):
    futures = client.map(inc, range(20, 30))
    wait(futures)
    who_has, has_what = client.who_has(futures), client.has_what()
    assert len(who_has) == 10
    for key, workers in who_has.items():
        assert workers
        for worker in workers:
            assert key in has_what[worker]


def sizes_are_known(client):
    array = np.zeros(10_000)
    future = client.submit(lambda: array, pure=False)
    wait(future)
    assert 80_000 <= client.nbytes([future.key], summary=False)[future.key] < 81_000


def replicate_makes_copies(client):
    future = client.submit(inc, 77, pure=False)
    wait(future)
    client.replicate([future], n=2)
    assert len(client.who_has(future)[future.key]) == 2


def rebalance_spreads_data(client):
    first = sorted(client.ncores())[0]
    futures = client.map(lambda i: np.zeros(2_000_000) + i, range(6), workers=[first], pure=False)
    wait(futures)
    client.rebalance(futures)
    assert client.gather([client.submit(lambda a: float(a[0]), f) for f in futures]) == list(range(6))


def persisted_data_stays(client):
    import dask

    values = [dask.delayed(inc)(i) for i in range(5)]
    persisted = client.persist(values)
    wait(persisted)
    assert client.gather(client.compute(persisted)) == [1, 2, 3, 4, 5]


def rebalance_names_workers_that_are_there(client):
    client.rebalance([], workers=list(client.ncores()))
    try:
        client.rebalance(workers=["nobody"])
    except KeyError as error:
        assert "nobody" in str(error)
    else:
        raise AssertionError("a worker that is not there was accepted")


def metadata_of_a_task_end_with_it(client):
    future = client.submit(sum, [1, 2], pure=False)
    future.result(timeout=20)
    key = future.key
    client.set_metadata([key, "mine"], 5)
    assert client.get_metadata(key) == {"mine": 5}
    future.release()
    deadline = time.time() + 20
    while client.get_metadata(key, None) is not None:
        assert time.time() < deadline, "the metadata stay"
        time.sleep(0.02)
    client.set_metadata("no task", 1)
    assert client.get_metadata("no task") == 1
