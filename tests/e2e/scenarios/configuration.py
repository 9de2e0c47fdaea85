"""What settings of the scheduler change for a client. Called by test_configuration.py."""

import time

from distributed import wait


def inc(x):
    return x + 1


def blocked_operations_are_refused(client):
    try:
        client.run_on_scheduler(inc, 1)
    except ValueError as error:
        assert "explicitly disallowed" in str(error), error
    else:
        raise AssertionError("it has run")
    assert client.submit(inc, 1).result(timeout=20) == 2


def holders(client):
    """How many workers end up with results, when all tasks prefer the data of one."""
    first = sorted(client.ncores())[0]
    data = client.submit(lambda: b"x" * 10_000_000, workers=[first], pure=False)
    wait(data)
    tasks = [client.submit(lambda d, i=i: time.sleep(0.05) or i, data, pure=False) for i in range(40)]
    wait(tasks, timeout=60)
    return len({worker for workers in client.who_has(tasks).values() for worker in workers})


def longest_queue_on_workers(client):
    """The largest number of tasks that a one-thread worker has at a time, during a wide map of root tasks."""
    futures = client.map(lambda i: time.sleep(0.02) or i, range(100), pure=False)
    longest = 0
    while not all(future.done() for future in futures):
        longest = max([longest] + [len(keys) for keys in client.processing().values()])
        time.sleep(0.02)
    return longest


def works(client):
    assert client.gather(client.map(inc, range(10), pure=False)) == list(range(1, 11))


def of_the_file(scheduler_file):
    from distributed import Client

    with Client(scheduler_file=scheduler_file, timeout="30s") as client:
        works(client)
