"""Functions that run on workers and on the scheduler instead of as tasks."""

import os

from distributed import wait

SINCE = {}


def inc(x):
    return x + 1


def runs_on_every_worker(client):
    pids = client.run(os.getpid)
    assert sorted(pids) == sorted(client.ncores())
    assert len(set(pids.values())) == 2


def runs_on_chosen_workers(client):
    address = sorted(client.ncores())[1]
    assert list(client.run(os.getpid, workers=[address])) == [address]


def takes_arguments(client):
    assert set(client.run(lambda x, y=0: x + y, 1, y=2).values()) == {3}


def knows_its_worker(client):
    names = client.run(lambda dask_worker: dask_worker.address)
    assert all(address == name for address, name in names.items())


def errors_are_raised(client):
    try:
        client.run(lambda: 1 / 0)
    except ZeroDivisionError:
        return
    raise AssertionError("nothing was raised")


def coroutines_run(client):
    async def where(dask_worker):
        return dask_worker.address

    results = client.run(where)
    assert all(address == name for address, name in results.items())


def runs_on_the_scheduler(client):
    assert client.run_on_scheduler(inc, 1) == 2


def sees_the_scheduler(client):
    future = client.submit(inc, 1, key="seen-by-the-scheduler")
    wait(future)

    def look(dask_scheduler):
        task = dask_scheduler.tasks["seen-by-the-scheduler"]
        return task.state, sorted(dask_scheduler.workers), task.nbytes > 0

    state, workers, sized = client.run_on_scheduler(look)
    assert state == "memory"
    assert workers == sorted(client.ncores())
    assert sized


def errors_on_the_scheduler_are_raised(client):
    try:
        client.run_on_scheduler(lambda: 1 / 0)
    except ZeroDivisionError:
        return
    raise AssertionError("nothing was raised")


def progress_bars_end(client):
    """`progress` asks the scheduler by a feed that runs its code there."""
    import contextlib
    import io

    from distributed import progress

    futures = client.map(inc, range(50), pure=False)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        progress(futures, notebook=False)
    wait(futures)
    assert client.gather(futures) == list(range(1, 51))
    assert "100%" in out.getvalue(), out.getvalue()[-300:]
