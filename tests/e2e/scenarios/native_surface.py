"""What users' code and plugins see of a native worker, with the eyes of stock's documentation."""

import concurrent.futures
import os
import threading
import time

import dask
import distributed
from distributed import get_worker, wait
from distributed.diagnostics.plugin import WorkerPlugin

RELEASE = tuple(int(part) for part in distributed.__version__.split(".")[:3])


def inc(x):
    return x + 1


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class Watcher(WorkerPlugin):
    """Notes what it is told, adds operations, and executors."""

    name = "watcher"

    def __init__(self, folder):
        self.folder = folder

    def setup(self, worker):
        self.worker, self.seen = worker, []
        worker.handlers["watched"] = self.watched
        worker.stream_handlers["watched-stream"] = self.told
        worker.executors["spare"] = concurrent.futures.ThreadPoolExecutor(1, "Spare")
        worker.executors["elsewhere"] = concurrent.futures.ProcessPoolExecutor(1)

    def teardown(self, worker):
        with open(os.path.join(self.folder, "torn-down"), "a") as file:
            file.write(worker.address + "\n")

    def transition(self, key, start, finish, **kwargs):
        if str(key).startswith("seen"):
            self.seen.append((key, start, finish))

    def watched(self, key=None):
        return [entry for entry in self.seen if entry[0] == key]

    def told(self, what=None):
        self.seen.append(("told", what, threading.current_thread() is threading.main_thread()))


def register(client, plugin):
    if hasattr(client, "register_plugin"):
        client.register_plugin(plugin)
    else:
        client.register_worker_plugin(plugin, plugin.name)


def plugins(client, address, folder):
    """Hooks are called, operations served, executors used; plugins are torn down when they are taken away."""
    register(client, Watcher(folder))
    assert client.submit(inc, 1, key="seen-1", workers=[address]).result(timeout=30) == 2

    async def ask(dask_scheduler=None, dask_worker=None):
        return await dask_worker.rpc(address).watched(key="seen-1")

    def steps():
        return [(start, finish) for _, start, finish in client.run(ask, workers=[address])[address]]

    until(lambda: ("executing", "memory") in steps())
    assert ("ready", "executing") in steps()
    if RELEASE >= (2022,):
        executors(client, address)
    forget = getattr(client, "unregister_worker_plugin", None)
    if forget:
        forget("watcher")
        until(lambda: os.path.exists(os.path.join(folder, "torn-down")))
        assert "watcher" not in client.run(lambda dask_worker: list(dask_worker.plugins), workers=[address])[address]


def where():
    return os.getpid(), threading.current_thread().name, bool(get_worker().get_current_task())


def executors(client, address):
    pid = client.run(os.getpid, workers=[address])[address]

    def submitted(executor, function, *args):
        with dask.annotate(executor=executor):
            return client.submit(function, *args, workers=[address], pure=False)

    process, thread, is_known = submitted("spare", where).result(timeout=30)
    assert (process, is_known) == (pid, True) and thread.startswith("Spare")
    assert submitted("elsewhere", os.getpid).result(timeout=60) != pid
    unknown = submitted("nowhere", inc, 1)
    wait(unknown, timeout=30)
    assert "Invalid executor 'nowhere'" in str(unknown.exception())


def state(client, address):
    """`get_worker()` and what hangs on it."""
    gate = client.submit(time.sleep, 1, workers=[address], pure=False)
    later = client.submit(inc, gate, workers=[address], pure=False, key="later")
    held = client.scatter({"held": [1, 2, 3]}, workers=[address])["held"]

    def look(dask_worker):
        worker = dask_worker
        worker.data["assigned"] = 5
        tasks = worker.state.tasks if hasattr(worker, "state") else worker.tasks
        return {
            "instance": isinstance(worker, distributed.Worker),
            "status": worker.status.name,
            "data": (worker.data["held"], worker.data["assigned"], "held" in worker.data, len(worker.data)),
            "states": {key: task.state for key, task in tasks.items()},
            "limit": worker.memory_limit > 0,
            "directory": os.path.isdir(worker.local_directory),
            "scheduler": worker.scheduler.address,
            "executing": worker.state.executing_count,
            "story": len(worker.state.story("held")),
            "repr": repr(worker),
        }

    until(lambda: client.processing()[address])
    time.sleep(0.3)
    seen = client.run(look, workers=[address])[address]
    if RELEASE >= (2022,):
        assert seen["instance"] and seen["status"] == "running"
    assert seen["data"] == ([1, 2, 3], 5, True, 2)
    assert seen["states"][gate.key] == "executing" and seen["states"]["held"] == "memory"
    assert seen["limit"] and seen["directory"] and seen["executing"] == 1 and seen["story"] > 0
    assert seen["scheduler"] == client.scheduler.address
    assert address in seen["repr"]
    assert held.result(timeout=30) == [1, 2, 3]
    later.cancel()


def dumps(client, address):
    """Cluster dumps and stories have what stock's have; measurements come."""
    future = client.submit(inc, 1, workers=[address], key="dumped")
    future.result(timeout=30)
    dump = client.sync(client.scheduler.get_cluster_state, exclude=[])["workers"][address]
    assert dump["status"] == "running" and dump["tasks"]["dumped"]["state"] == "memory"
    assert {"id", "nthreads", "log", "config", "data", "ready", "task_counts"} <= set(dump)
    story = client.sync(client.scheduler.get_story, keys_or_stimuli=["dumped"])
    assert story
    told = client.sync(client.scheduler.broadcast, msg={"op": "get_story", "keys_or_stimuli": ["dumped"]})
    assert any("executing" in entry for entry in told[address])
    told = client.sync(client.scheduler.broadcast, msg={"op": "get_monitor_info", "recent": True})
    assert told[address]["range_query"]["memory"] > 0


def metadata(client, address):
    """What a task notes of itself is the scheduler's when it is done."""

    def notes():
        worker = get_worker()
        worker.state.tasks[worker.get_current_task()].metadata["noted"] = 7

    with distributed.get_task_metadata() as tasks:
        future = client.submit(notes, workers=[address], pure=False)
        future.result(timeout=30)
        wait(future)
    assert tasks.metadata[future.key] == {"noted": 7}
    assert tasks.state[future.key] == "memory"


def fails_badly(client, address):
    """What goes wrong is the task's failure, with its causes; the worker goes on."""

    class Locked:
        def __init__(self):
            self.lock = threading.Lock()

    def caused():
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("for a reason") from error

    class Unreadable(Exception):
        def __init__(self, first, second):
            super().__init__(first)

    def raises():
        raise Unreadable(1, 2)

    def forks():
        child = os.fork()
        if child == 0:
            os._exit(3)
        return os.waitpid(child, 0)[1] >> 8

    def here(function, *args):
        future = client.submit(function, *args, workers=[address], pure=False)
        wait(future, timeout=30)
        return future

    error = here(caused).exception()
    assert isinstance(error, ValueError) and isinstance(error.__cause__, KeyError)
    assert here(raises).status == "error"
    assert here(forks).result() == 3
    locked = here(Locked)
    assert locked.status == "finished"
    try:
        locked.result(timeout=20)
        raise AssertionError("a lock was pickled")
    except TypeError as error:
        assert "pickle" in str(error)
    assert here(inc, 1).result() == 2


def heartbeats(client, address):
    """Metrics that plugins add, and what their extensions say, arrive at the scheduler."""

    def add(dask_worker):
        dask_worker.metrics["temperature"] = lambda worker: len(worker.data) + 20

    client.run(add, workers=[address])
    until(lambda: client.scheduler_info()["workers"][address]["metrics"].get("temperature", 0) >= 20)


def greetings(client):
    return list(client.run(lambda dask_worker: dask_worker.greeting).values())
