"""Cancelling what is wanted no more."""

import time

from distributed import wait
from distributed.client import CancelledError

SINCE = {}


def inc(x):
    return x + 1


def slow_inc(x, delay=0.5):
    time.sleep(delay)
    return x + 1


def until(condition, timeout=10):
    deadline = time.time() + timeout
    while not condition():
        assert time.time() < deadline, "the condition does not come true"
        time.sleep(0.02)


def is_cancelled(future):
    try:
        future.result(timeout=20)
    except CancelledError:
        return True
    return False


def waiting_tasks_are_cancelled(client):
    busy = client.map(slow_inc, range(2), pure=False)
    future = client.submit(inc, busy[0], pure=False)
    client.cancel([future])
    assert future.cancelled()
    assert is_cancelled(future)
    assert client.gather(busy) == [1, 2]


def cancelled_tasks_do_not_run(client):
    from distributed import Variable

    def leave_a_mark(x, name):
        from distributed import get_client

        Variable(name, client=get_client()).set(x)

    busy = client.map(slow_inc, range(2), delay=1, pure=False)
    future = client.submit(leave_a_mark, busy[0], "cancelled-mark", pure=False)
    future.cancel()
    client.gather(busy)
    try:
        Variable("cancelled-mark", client=client).get(timeout="300 ms")
    except Exception as error:
        assert type(error).__name__ == "TimeoutError", repr(error)
    else:
        raise AssertionError("a cancelled task has run")


def running_tasks_are_cancelled(client):
    future = client.submit(slow_inc, 1, delay=1, pure=False)
    until(lambda: any(client.processing().values()))
    client.cancel(future)
    assert is_cancelled(future)
    assert client.submit(inc, 1, pure=False).result(timeout=20) == 2


def dependents_are_cancelled_too(client):
    first = client.submit(slow_inc, 1, pure=False)
    second = client.submit(inc, first, pure=False)
    client.cancel(first, force=True)
    assert is_cancelled(first)
    until(lambda: second.status in ("cancelled", "lost"))


def a_finished_future_can_be_cancelled(client):
    future = client.submit(inc, 1, key="finished-then-cancelled")
    wait(future)
    future.cancel()
    assert future.cancelled()
    until(lambda: "finished-then-cancelled" not in client.who_has())


def a_cancelled_key_can_be_computed_again(client):
    future = client.submit(slow_inc, 1, key="cancelled-then-again")
    future.cancel()
    assert is_cancelled(future)
    del future
    # The scheduler's own word about the cancellation may come after that of the client.
    time.sleep(0.5)
    again = client.submit(slow_inc, 1, key="cancelled-then-again")
    assert again.result(timeout=20) == 2


def cancelling_many_leaves_workers_free(client):
    futures = client.map(slow_inc, range(200), delay=0.05, pure=False)
    client.cancel(futures)
    started = time.time()
    assert client.submit(inc, 1, pure=False).result(timeout=20) == 2
    # All of them would have taken 5 s.
    assert time.time() - started < 3
