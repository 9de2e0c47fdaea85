"""What the client sees when a task fails."""

import importlib
import traceback

from asking import workers_of
from dask import delayed
from distributed import wait

SINCE = {}


def inc(x):
    return x + 1


def divide(x, y):
    return x / y


class OwnError(ValueError):
    def __init__(self, message, code):
        super().__init__(message, code)
        self.code = code


def raise_own(code):
    raise OwnError("own", code)


def fails(call, kind):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("nothing was raised")


def the_exception_reaches_the_client(client):
    future = client.submit(divide, 1, 0)
    error = fails(lambda: future.result(timeout=20), ZeroDivisionError)
    assert str(error) == "division by zero"
    assert future.status == "error"
    assert isinstance(future.exception(timeout=20), ZeroDivisionError)


def the_traceback_names_the_function(client):
    future = client.submit(divide, 1, 0)
    error = fails(lambda: future.result(timeout=20), ZeroDivisionError)
    assert "divide" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert "divide" in [frame.name for frame in traceback.extract_tb(future.traceback(timeout=20))]


def own_exception_classes_keep_their_attributes(client):
    error = client.submit(raise_own, 7).exception(timeout=20)
    assert type(error).__name__ == "OwnError"
    assert error.code == 7


def dependents_fail_with_the_original_error(client):
    broken = client.submit(divide, 1, 0)
    first = client.submit(inc, broken)
    second = client.submit(sum, [first, 1])
    error = fails(lambda: second.result(timeout=20), ZeroDivisionError)
    assert "divide" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def a_dependent_that_comes_later_fails_too(client):
    broken = client.submit(divide, 1, 0)
    wait(broken)
    fails(lambda: client.submit(inc, broken).result(timeout=20), ZeroDivisionError)


def others_go_on(client):
    futures = client.map(lambda x: 1 / x, range(-3, 4))
    wait(futures)
    assert [future.status for future in futures] == ["finished"] * 3 + ["error"] + ["finished"] * 3


def gather_can_skip_errors(client):
    futures = client.map(lambda x: 6 / x, [1, 0, 2])
    assert client.gather(futures, errors="skip") == [6, 3]


def gather_raises_the_first_error(client):
    futures = client.map(lambda x: 6 / x, [1, 0, 2])
    fails(lambda: client.gather(futures), ZeroDivisionError)


def fails_first(times):
    """A function that raises until it was called `times` times on its worker."""

    def run(name):
        from distributed import get_worker

        worker = get_worker()
        counts = worker.__dict__.setdefault("counts_of_calls", {})
        counts[name] = counts.get(name, 0) + 1
        if counts[name] <= times:
            raise RuntimeError("call {}".format(counts[name]))
        return counts[name]

    return run


def retries_until_it_works(client):
    address = next(iter(client.ncores()))
    future = client.submit(fails_first(2), "until", retries=3, workers=[address], pure=False)
    assert future.result(timeout=20) == 3


def retries_have_an_end(client):
    address = next(iter(client.ncores()))
    future = client.submit(fails_first(5), "end", retries=2, workers=[address], pure=False)
    error = fails(lambda: future.result(timeout=20), RuntimeError)
    assert str(error) == "call 3"


def retries_hold_for_collections(client):
    address = next(iter(client.ncores()))
    value = delayed(fails_first(1))("collection")
    assert client.compute(value, retries=2, workers=[address]).result(timeout=20) == 2


def a_failed_future_can_be_retried(client):
    address = next(iter(client.ncores()))
    future = client.submit(fails_first(1), "again", workers=[address], pure=False)
    wait(future)
    assert future.status == "error"
    future.retry()
    assert future.result(timeout=20) == 2


def a_failed_input_is_retried_with_its_user(client):
    address = next(iter(client.ncores()))
    broken = client.submit(fails_first(1), "input", workers=[address], pure=False)
    user = client.submit(inc, broken, pure=False)
    wait(user)
    assert user.status == "error"
    user.retry()
    assert user.result(timeout=20) == 3


def results_that_cannot_be_pickled(client):
    """The task itself has worked; fetching its result fails, and nothing else does."""
    import threading

    future = client.submit(threading.Lock, pure=False)
    try:
        future.result(timeout=20)
    except Exception as error:
        assert "pickle" in str(error) or "serialize" in str(error), repr(error)
    else:
        raise AssertionError("a lock was pickled")
    assert client.submit(inc, 1).result(timeout=20) == 2


def errors_within_collections(client):
    parts = [delayed(divide)(1, x) for x in (2, 1, 0)]
    fails(lambda: delayed(sum)(parts).compute(), ZeroDivisionError)


def a_failed_task_can_be_computed_anew(client):
    """Once its last future is gone the error is forgotten, and the same key runs again."""
    address = next(iter(client.ncores()))
    future = client.submit(fails_first(1), "anew", key="anew", workers=[address])
    wait(future)
    assert future.status == "error"
    del future
    import time

    time.sleep(0.5)
    future = client.submit(fails_first(1), "anew", key="anew", workers=[address])
    assert future.result(timeout=20) == 2


class OnlyHere:
    """Something of a module that workers do not have."""

    def __reduce__(self):
        return importlib.import_module, ("no_such_module",)


def what_workers_cannot_unpickle_fails_alone(client):
    workers = set(workers_of(client))
    future = client.submit(id, OnlyHere(), pure=False)
    error = fails(lambda: future.result(timeout=20), Exception)
    assert type(error).__name__ != "KilledWorker"
    assert "no_such_module" in str(error) + str(error.__cause__)
    assert client.submit(inc, 1, pure=False).result(timeout=20) == 2
    assert set(workers_of(client)) == workers
