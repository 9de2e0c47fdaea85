"""What a client does on every transport, and what it sees when it is refused."""

import time

from asking import workers_of
from distributed import Client


def inc(x):
    return x + 1


def everything_works(client, scheme):
    """Streams, what the scheduler asks of workers, and data through the scheduler and between workers."""
    workers = list(workers_of(client))
    assert len(workers) == 2, workers
    assert all(address.startswith(scheme + "://") for address in workers), workers
    assert client.scheduler.address.startswith(scheme + "://")
    futures = client.map(inc, range(50))
    assert client.gather(futures) == list(range(1, 51))
    assert sum(client.gather(futures, direct=False)) == sum(range(1, 51))
    data = [client.scatter(b"x" * 3_000_000, workers=[address], direct=False) for address in workers]
    both = client.submit(lambda a, b: len(a) + len(b), *data)
    assert both.result(timeout=30) == 6_000_000
    assert len(client.gather(data[0], direct=False)) == 3_000_000
    assert client.run(lambda: 7) == dict.fromkeys(workers, 7)


def restarts(client):
    """Nannies are called by the scheduler."""
    before = set(workers_of(client))
    client.restart()
    deadline = time.time() + 60
    while len(workers_of(client)) < len(before):
        assert time.time() < deadline, workers_of(client)
        time.sleep(0.05)
    assert client.submit(inc, 1).result(timeout=30) == 2


def is_refused(address):
    """The error of a client that is not let in."""
    try:
        Client(address, timeout="5s").close()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "let in"


def may_work_but_not_rule(client):
    """A client's role."""
    assert client.submit(inc, 1).result(timeout=30) == 2
    assert workers_of(client)
    try:
        client.run_on_scheduler(lambda: 1)
    except PermissionError as error:
        return str(error)
    raise AssertionError("code ran on the scheduler")


def may_only_look(client):
    """The role of who reads only."""
    assert workers_of(client)
    assert client.nthreads()
    future = client.submit(inc, 1)
    try:
        future.result(timeout=30)
    except PermissionError as error:
        return str(error)
    raise AssertionError("a task was taken in")


def connects(client):
    return client.submit(inc, 1).result(timeout=30)
