"""Several clients on one scheduler. Called by test_clients.py."""

import time
from concurrent.futures import CancelledError

from distributed import Client, wait


def inc(x):
    return x + 1


def slow_inc(x, delay=0.05):
    time.sleep(delay)
    return x + 1


def until(condition, timeout=20):
    deadline = time.time() + timeout
    while not condition():
        assert time.time() < deadline, "the condition does not come true"
        time.sleep(0.02)


def computes(client, offset, n=200):
    futures = client.map(slow_inc, range(offset, offset + n), delay=0.001)
    assert client.gather(futures) == list(range(offset + 1, offset + n + 1))
    return len(futures)


def computes_in_rounds(client, offset, talk, seconds=3.0):
    """Small computations until the time is over, with collections where the release has the packages."""
    talk.tell("started")
    deadline, rounds = time.time() + seconds, 0
    while time.time() < deadline:
        futures = client.map(inc, range(offset, offset + 20), pure=False)
        assert client.submit(sum, futures, pure=False).result(timeout=30) == sum(range(offset + 1, offset + 21))
        rounds += 1
    return rounds


def only_own_workers_run_it(client, release):
    """Tasks of a client go to workers of its release."""

    def version():
        import distributed

        return distributed.__version__

    futures = [client.submit(version, pure=False) for _ in range(20)]
    assert set(client.gather(futures)) == {release}


def collections_of_own_release(client):
    import dask
    import dask.array as da
    import dask.dataframe as dd
    import pandas as pd

    assert da.arange(1000, chunks=100).sum().compute() == 499_500
    frame = pd.DataFrame({"x": range(100), "y": [i % 3 for i in range(100)]})
    result = dd.from_pandas(frame, npartitions=4).groupby("y").x.sum().compute()
    assert result.sort_index().tolist() == frame.groupby("y").x.sum().tolist()
    assert dask.delayed(sum)([dask.delayed(inc)(i) for i in range(10)]).compute() == 55


def holds_a_future(client, talk):
    future = client.submit(inc, 41, key="held-by-a-client")
    assert future.result(timeout=20) == 42
    talk.tell("held")
    talk.wait()


def sees_the_held_key(client):
    return "held-by-a-client" in client.who_has()


def sees_the_held_key_vanish(client):
    until(lambda: "held-by-a-client" not in client.who_has())


def shares_a_key(client, talk):
    """Two clients want the same key; one of them leaves."""
    with Client(client.scheduler.address, set_as_default=False, timeout="30s") as other:
        theirs = other.submit(slow_inc, 1, delay=0.3, key="shared")
        ours = client.submit(slow_inc, 1, delay=0.3, key="shared")
        assert theirs.result(timeout=20) == 2
    time.sleep(0.3)
    assert ours.result(timeout=20) == 2
    assert client.gather(client.submit(inc, ours)) == 3


def a_large_graph_and_a_small_one(client, talk):
    import dask

    graph = [dask.delayed(inc)(i) for i in range(5_000)]
    talk.tell("submitting")
    total = dask.delayed(sum)(graph).compute()
    assert total == sum(range(1, 5_001))


def small_ones(client):
    """Longest time of a small computation, in seconds."""
    longest = 0.0
    for i in range(20):
        started = time.time()
        assert client.submit(inc, i, pure=False, priority=100).result(timeout=60) == i + 1
        longest = max(longest, time.time() - started)
        time.sleep(0.05)
    return longest


def asynchronous(address):
    """The client inside an event loop of the user's."""
    import asyncio

    async def main():
        async with Client(address, asynchronous=True, timeout="30s") as client:
            futures = client.map(inc, range(20))
            assert await client.gather(futures) == list(range(1, 21))
            assert await client.submit(sum, futures) == 210

    asyncio.run(main())


def leaves_and_returns(address):
    for _ in range(5):
        with Client(address, timeout="30s") as client:
            assert client.submit(inc, 1).result(timeout=20) == 2


def is_told_of_the_end(address, talk):
    """The scheduler ends; the client notices and its calls fail instead of hanging."""
    with Client(address, timeout="5s") as client:
        future = client.submit(inc, 1)
        wait(future)
        talk.tell("connected")
        talk.wait()
        until(lambda: client.status != "running", timeout=15)
        try:
            client.submit(inc, 2).result(timeout=2)
        except BaseException as error:
            return type(error).__name__
        raise AssertionError("there was a result without a scheduler")


def hears_a_topic(client, count, talk):
    """Listens to what another client logs, and is stopped meanwhile; in the end it works as before."""
    heard = []
    client.subscribe_topic("much", lambda event: heard.append(len(event[1])))
    # From then on nothing is missed.
    until(lambda: client.log_event("much", "") or heard)
    talk.tell("subscribed")
    talk.wait()
    if count:
        until(lambda: len([size for size in heard if size]) == count)
        return client.submit(inc, 1, pure=False).result(timeout=30)

    def works():
        # What it asks for before it has noticed that it was given up is cancelled.
        try:
            return client.submit(inc, 1, pure=False).result(timeout=10)
        except CancelledError:
            return None

    until(lambda: works() == 2)
    return 2


def logs_much(client, count, size):
    """Logs large events and works meanwhile; the longest that a task took."""
    longest = 0
    for number in range(count):
        client.log_event("much", "x" * size)
        if number % 10 == 0:
            started = time.monotonic()
            assert client.submit(inc, number, pure=False).result(timeout=30) == number + 1
            longest = max(longest, time.monotonic() - started)
    return longest
