"""A worker that forgets an order. Called by test_watchdog.py."""

import time

from dask.distributed import Event


def work(name, go_on):
    Event(name).wait(60) if go_on else None
    return name


def inc(x):
    return x + 1


def forget(key, dask_worker):
    from distributed.worker_state_machine import FreeKeysEvent

    assert key in dask_worker.state.tasks
    dask_worker.handle_stimulus(FreeKeysEvent(keys=[key], stimulus_id="forgetful"))
    assert key not in dask_worker.state.tasks


def is_there(key, dask_worker):
    return key in dask_worker.state.tasks


def a_forgotten_task_is_run_again(client, talk):
    """The only thread is busy, so the task waits on the worker, which forgets it."""
    busy = client.submit(work, "go-on", True, key="busy")
    waits = client.submit(inc, 1, key="waits")
    deadline = time.time() + 30
    while not all(client.run(is_there, "waits").values()):
        assert time.time() < deadline
        time.sleep(0.05)
    client.run(forget, "waits")
    Event("go-on").set()
    assert busy.result(timeout=30) == "go-on"
    assert waits.result(timeout=60) == 2
