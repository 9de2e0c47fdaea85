"""What needs Python at the scheduler: graphs that only Python can expand, functions of clients, feeds.

Called by test_python_host.py with the backends of the Python host.
"""

import asyncio
import os
import time

from distributed import wait

IN_HOST = "any(m.startswith('oxidask_python_host') for m in __import__('sys').modules)"


def inc(x):
    return x + 1


class Trap:
    """Runs `source` where it is unpickled, if that is a Python host."""

    def __init__(self, source):
        self.source = source

    def __reduce__(self):
        return eval, (f"{IN_HOST} and [{self.source}] and None",)


def frame(rows=60):
    import pandas as pd

    return pd.DataFrame({"a": [i % 3 for i in range(rows)], "b": list(range(rows))})


def trapped(source):
    """A computation whose graph does `source` when it is expanded."""
    import dask.dataframe as dd

    def partition(part, trap):
        return part

    return dd.from_pandas(frame(), npartitions=2).map_partitions(partition, Trap(source), meta=frame(3))


def collections_are_computed(client):
    import dask.array as da
    import dask.bag as db
    import dask.dataframe as dd

    assert da.ones((40, 40), chunks=(10, 10)).sum().compute() == 1600
    assert db.from_sequence(range(10), npartitions=3).map(inc).sum().compute() == 55
    data = dd.from_pandas(frame(), npartitions=4)
    assert data.groupby("a").b.sum().compute().tolist() == [570, 590, 610]
    assert len(data.shuffle("a").compute()) == 60
    kept = data.persist()
    wait(kept)
    assert kept.b.sum().compute() == 1770


def functions_are_run(client):
    assert client.run_on_scheduler(inc, 1) == 2
    address = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.address)
    assert address == client.scheduler_info()["address"]
    try:
        client.run_on_scheduler(lambda: 1 / 0)
    except ZeroDivisionError:
        pass
    else:
        raise AssertionError("nothing was raised")


def functions_share_what_they_leave(client):
    async def leave(dask_scheduler):
        await asyncio.sleep(0.01)
        dask_scheduler.left = 5

    client.run_on_scheduler(leave)
    assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.left) == 5

    async def count(dask_scheduler):
        await asyncio.sleep(0.01)
        dask_scheduler.left += 1

    client.run_on_scheduler(count, wait=False)
    deadline = time.time() + 20
    while client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.left) != 6:
        assert time.time() < deadline
        time.sleep(0.05)


def the_mirror_shows_tasks_and_workers(client):
    first = client.submit(inc, 1, key="first")
    second = client.submit(inc, first, key="second")
    bad = client.submit(lambda: 1 / 0, key="bad-1")
    wait([second, bad])

    def look(dask_scheduler):
        tasks = dask_scheduler.tasks
        second, bad = tasks["second"], tasks["bad-1"]
        worker = list(second.who_has)[0]
        return {
            "tasks": sorted(tasks),
            "dependencies": [d.key for d in second.dependencies],
            "dependents": [d.key for d in tasks["first"].dependents],
            "same": tasks["first"] is list(second.dependencies)[0],
            "clients": [c.client_key for c in second.who_wants],
            "prefix": (second.prefix.name, second.group.name),
            "bad": (bad.state, bad.exception is not None, bad.prefix.name),
            "worker": (worker.address, worker.nthreads, len(worker.has_what), worker.status.name),
            "metrics": worker.metrics["memory"] > 0,
            "missing": "third" in tasks,
            "threads": dask_scheduler.total_nthreads,
        }

    seen = client.run_on_scheduler(look)
    address = list(client.who_has([second])["second"])[0]
    assert seen == {
        "tasks": ["bad-1", "first", "second"],
        "dependencies": ["first"],
        "dependents": ["second"],
        "same": True,
        "clients": [client.id],
        "prefix": ("second", "second"),
        "bad": ("erred", True, "bad"),
        "worker": (address, 1, len(client.has_what()[address]), "running"),
        "metrics": True,
        "missing": False,
        "threads": sum(client.ncores().values()),
    }, seen


def the_mirror_is_read_only(client):
    try:
        client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transitions({}))
    except AttributeError as error:
        assert "read-only mirror" in str(error)
    else:
        raise AssertionError("nothing was raised")


def bars_follow_the_work(client):
    """The bars of the library, without a terminal: what they are told."""
    from distributed.diagnostics.progressbar import MultiProgressBar, ProgressBar

    told = []

    class Bar(ProgressBar):
        def _draw_bar(self, remaining, all, status, **kwargs):
            told.append((remaining, all, status))

        def _draw_stop(self, **kwargs):
            told.append(kwargs)

    class Bars(MultiProgressBar):
        _draw_bar, _draw_stop = Bar._draw_bar, Bar._draw_stop

    def slow(x):
        time.sleep(0.05)
        return x

    futures = client.map(slow, range(20), pure=False)
    client.sync(Bar(futures, interval="20ms").listen)
    assert told[-1]["status"] == "finished"
    counts = [entry[0] for entry in told[:-1]]
    assert counts[-1] == 0 and counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 3, counts
    assert {entry[1] for entry in told[:-1]} == {20}

    told.clear()
    more = client.map(inc, futures, pure=False)
    client.sync(Bars(more, interval="20ms", complete=True).listen)
    assert told[-1]["status"] == "finished" and told[-1]["remaining"] == {"slow": 0, "inc": 0}

    told.clear()

    def bad():
        time.sleep(0.2)
        raise ValueError("no")

    failing = client.submit(bad)
    client.sync(Bar([failing], interval="20ms").listen)
    assert told[-1]["status"] == "error" and told[-1]["exception"] is not None


def feeds_send_values(client):
    from distributed.core import connect
    from distributed.protocol.pickle import dumps

    def start(scheduler):
        return [len(scheduler.workers)]

    def value(scheduler, state):
        state.append(len(state))
        return list(state)

    async def listen():
        comm = await connect(client.scheduler.address)
        order = {"op": "feed", "setup": dumps(start), "function": dumps(value), "interval": "10ms"}
        await comm.write(order)
        values = [list(await comm.read()) for _ in range(3)]
        await comm.close()
        return values

    workers = len(client.ncores())
    assert client.sync(listen) == [[workers, 1], [workers, 1, 2], [workers, 1, 2, 3]]


def without_python(client):
    assert client.submit(inc, 1).result() == 2
    for needs_python in (lambda: trapped("0").compute(), lambda: client.run_on_scheduler(inc, 1)):
        try:
            needs_python()
        except RuntimeError as error:
            assert "--python-host off" in str(error), error
        else:
            raise AssertionError("nothing was raised")


def no_python_is_told(client):
    started = time.time()
    try:
        trapped("0").compute()
    except RuntimeError as error:
        assert "a Python with distributed" in str(error) and "--python PATH" in str(error), error
    else:
        raise AssertionError("nothing was raised")
    return time.time() - started


def a_crash_fails_one_graph(client):
    try:
        trapped("__import__('os')._exit(7)").compute()
    except RuntimeError as error:
        assert "died while it worked on this" in str(error), error
    else:
        raise AssertionError("nothing was raised")
    assert len(trapped("0").compute()) == 60


def a_hang_fails_one_graph(client):
    hanging = client.compute(trapped("__import__('time').sleep(3600)"))
    assert len(trapped("0").compute()) == 60
    try:
        hanging.result(timeout=50)
    except RuntimeError as error:
        assert "oxidask.python-host.timeout" in str(error), error
    else:
        raise AssertionError("nothing was raised")


def an_error_of_the_graph_is_raised(client):
    try:
        trapped("1 / 0").compute()
    except RuntimeError as error:
        assert "Error during deserialization" in str(error), error
    else:
        raise AssertionError("nothing was raised")


def pid_of_host(client):
    return client.run_on_scheduler(os.getpid)


def what_is_left_keeps_its_process(client, seconds):
    def leave(dask_scheduler):
        dask_scheduler.left_by_a_user = os.getpid()

    client.run_on_scheduler(leave)
    time.sleep(seconds)
    found = client.run_on_scheduler(lambda dask_scheduler: (dask_scheduler.left_by_a_user, os.getpid()))
    assert found[0] == found[1]


def is_busy_for_ever(client):
    client.run_on_scheduler(time.sleep, 3600)
