"""Large results that travel through the scheduler to a client that takes its time. Called by test_gathering.py."""

import asyncio
import os

import numpy as np
from distributed import wait

# Bytes of one result, and how many there are.
SIZE, COUNT = 40_000_000, 10


def block(n):
    return os.urandom(1000) * (SIZE // 1000 - n)


def gathers_much(client, talk):
    """The test stops this process in between and looks at the scheduler meanwhile."""
    futures = client.map(block, range(COUNT), pure=False)
    wait(futures)
    talk.tell(os.getpid())
    talk.wait()
    results = client.gather(futures, direct=False)
    assert [len(result) for result in results] == [SIZE - 1000 * n for n in range(COUNT)]
    for result in results:
        assert result[:1000] == result[-1000:]


def gathers_from_both_in_order(client):
    """Small results of two workers, in the order they are asked for."""
    futures = client.map(lambda n: str(n) * 10, range(30), pure=False)
    wait(futures)
    assert all(client.has_what().values()), "both workers have some"
    futures = futures[::-1]
    results = client.gather(futures, direct=False)
    assert results == [str(n) * 10 for n in range(30)][::-1]
    named = client.gather({"a": futures[0], "b": [futures[1]]}, direct=False)
    assert named == {"a": "29" * 10, "b": ["28" * 10]}


def certain_bytes(size):
    """The same ones wherever it runs."""
    return np.random.RandomState(0).bytes(size)


def gathers_while_a_holder_is_lost(client, copies, talk):
    """The test kills the worker that is sending while this client does not read."""
    size = 150_000_000
    future = client.submit(certain_bytes, size)
    wait(future)
    if copies > 1:
        client.replicate(future, copies)
    # From now on there is a connection for this.
    client.gather(client.submit(len, future), direct=False)

    async def gather():
        task = asyncio.ensure_future(client._gather([future], direct=False))
        await asyncio.sleep(0.1)
        talk.tell()
        talk.wait()
        return await task

    (result,) = client.sync(gather)
    assert result == certain_bytes(size)


def senders(client):
    """Names of the workers that are sending results to somebody."""
    counts = client.run(lambda dask_worker: (dask_worker.name, dask_worker.transfer_outgoing_count))
    return [name for name, count in counts.values() if count]
