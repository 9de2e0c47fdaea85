"""Scheduler plugins and preload modules, as users write them."""

import time

from distributed import wait
from distributed.diagnostics.plugin import SchedulerPlugin


def inc(x):
    return x + 1


class Recorder(SchedulerPlugin):
    """Notes what it is told."""

    name = "recorder"

    def __init__(self):
        self.told = []

    def start(self, scheduler):
        self.scheduler = scheduler
        self.told.append(("start", len(scheduler.workers)))
        scheduler.handlers["recorded"] = self.recorded

        async def nothing():
            pass

        # Stock awaits what `start` returns since 2022.
        return nothing()

    def recorded(self, comm=None, hook=None):
        return [entry for entry in self.told if entry[0] == hook]

    def transition(self, key, start, finish, *args, **kwargs):
        if str(key).startswith("seen"):
            task = self.scheduler.tasks[key]
            self.told.append(("transition", key, start, finish, task.state, kwargs.get("worker")))

    def update_graph(self, scheduler, client=None, keys=(), **kwargs):
        self.told.append(("update_graph", client, sorted(keys)))

    def add_worker(self, scheduler, worker):
        self.told.append(("add_worker", worker, scheduler.workers[worker].nthreads))

    def remove_worker(self, scheduler, worker, **kwargs):
        self.told.append(("remove_worker", worker, worker in scheduler.workers))

    def add_client(self, scheduler, client):
        self.told.append(("add_client", client))

    def remove_client(self, scheduler, client):
        self.told.append(("remove_client", client))

    def valid_workers_downscaling(self, scheduler, workers):
        return [worker for worker in workers if worker.name != "kept"]


def register(client):
    plugin = Recorder()
    if hasattr(client, "register_plugin"):
        client.register_plugin(plugin)
    else:
        client.register_scheduler_plugin(plugin, name=plugin.name)


def told(client, hook):
    answer = client.sync(client.scheduler.recorded, hook=hook)
    return [tuple(entry) for entry in answer]


def plugins_are_told(client):
    """The address of the only worker."""
    (worker,) = client.ncores()
    register(client)
    assert told(client, "start") == [("start", 1)]
    future = client.submit(inc, 1, key="seen")
    wait(future)

    def transitions(dask_scheduler):
        plugin = dask_scheduler.plugins["recorder"]
        return [entry for entry in plugin.told if entry[0] == "transition"]

    # A function finds plugins told of everything that happened before.
    seen = client.run_on_scheduler(transitions)
    assert [entry[:5] for entry in seen] == [
        ("transition", "seen", "released", "waiting", "waiting"),
        ("transition", "seen", "waiting", "processing", "processing"),
        ("transition", "seen", "processing", "memory", "memory"),
    ], seen
    assert seen[-1][5] == worker
    graphs = client.run_on_scheduler(
        lambda dask_scheduler: [e for e in dask_scheduler.plugins["recorder"].told if e[0] == "update_graph"]
    )
    assert [tuple(graph) for graph in graphs] == [("update_graph", client.id, ["seen"])], graphs
    return worker


def plugins_are_registered(client):
    register(client)


def workers_are_told_of(client, workers):
    """A worker came and went after `plugins_are_told`."""
    deadline = time.time() + 20
    while len(told(client, "remove_worker")) < 1:
        assert time.time() < deadline
        time.sleep(0.05)
    ((_, came, threads),) = told(client, "add_worker")
    assert told(client, "remove_worker") == [("remove_worker", came, False)]
    assert came not in workers and threads == 1


def plugins_choose_workers_to_close(client):
    closing = client.sync(client.scheduler.workers_to_close, n=5, attribute="name")
    assert "kept" not in closing and len(closing) == len(client.ncores()) - 1, closing


def plugins_are_taken_out(client):
    if not hasattr(client, "unregister_scheduler_plugin"):
        return
    client.unregister_scheduler_plugin("recorder")
    try:
        client.unregister_scheduler_plugin("recorder")
    except ValueError as error:
        assert "recorder" in str(error)
    else:
        raise AssertionError("nothing was raised")


def plugins_survive_their_process(client):
    import os
    import signal

    pid = client.run_on_scheduler(os.getpid)
    os.kill(pid, signal.SIGKILL)
    deadline = time.time() + 50
    while True:
        assert time.time() < deadline
        try:
            found = client.run_on_scheduler(lambda dask_scheduler: "recorder" in dask_scheduler.plugins)
        except RuntimeError:
            time.sleep(0.1)
            continue
        assert found
        break
    assert client.run_on_scheduler(os.getpid) != pid
    assert told(client, "start") == [("start", len(client.ncores()))]


def plugins_need_python(client):
    try:
        register(client)
    except RuntimeError as error:
        assert "--python-host off" in str(error), error
    else:
        raise AssertionError("nothing was raised")


def preloads_are_set_up(client):
    """What `greeting_preload.py` left at the scheduler."""

    def look(dask_scheduler):
        return dask_scheduler.greeting, dask_scheduler.plugins["greeter"].workers

    return client.run_on_scheduler(look)
