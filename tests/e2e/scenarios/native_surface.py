"""What users' code and plugins see of a native worker, with the eyes of stock's documentation."""

import concurrent.futures
import os
import threading
import time

import dask
import distributed
from asking import Gate, workers_of
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


class Diarist(WorkerPlugin):
    """Keeps, with what it is told, what the worker shows at that moment."""

    name = "diarist"

    def setup(self, worker):
        self.worker, worker.diary = worker, []

    def transition(self, key, start, finish, **kwargs):
        if str(key).startswith("noted"):
            task = self.worker.state.tasks.get(key)
            self.worker.diary.append((key, start, finish, task and task.state, key in self.worker.data))


def notes_itself(x):
    worker = get_worker()
    worker.diary.append((worker.get_current_task(), "runs"))
    return x


def transitions_in_time(client, address):
    """A plugin is told before the task begins, and when its result is there; the worker shows what it is told of."""
    register(client, Diarist())
    keys = [f"noted-{i}" for i in range(40)]
    futures = [client.submit(notes_itself, i, key=key, workers=[address]) for i, key in enumerate(keys)]
    assert client.gather(futures) == list(range(40))
    del futures

    def diary(dask_worker):
        return dask_worker.diary

    def told():
        return client.run(diary, workers=[address])[address]

    until(lambda: sum(entry[2:3] == ("forgotten",) for entry in told()) == len(keys))
    written = told()
    for key in keys:
        steps = [entry[1:] for entry in written if entry[0] == key]
        begun, run = steps.index(("ready", "executing", "executing", False)), steps.index(("runs",))
        assert begun < run < steps.index(("executing", "memory", "memory", True)), steps
        shown = [(step[1], step[2]) for step in steps if len(step) > 1]
        assert all(state == (None if finish == "forgotten" else finish) for finish, state in shown), shown


def startstops(client, address, other):
    """What a task spent time on: the transfer of its input, and itself."""
    began = time.time()
    there = client.submit(bytes, 10_000, workers=[other], pure=False)
    here = client.submit(len, there, workers=[address], key="timed-1")
    assert here.result(timeout=30) == 10_000

    def look(dask_worker):
        return dask_worker.state.tasks["timed-1"].startstops

    transfer, compute = client.run(look, workers=[address])[address]
    assert (transfer["action"], transfer["source"], compute["action"]) == ("transfer", other, "compute")
    assert began - 1 < transfer["start"] <= transfer["stop"] <= compute["start"] <= compute["stop"] < time.time() + 1


def _unpickled(seconds):
    try:
        get_worker()
    except ValueError:
        pass  # The scheduler unpickles graphs, too.
    else:
        time.sleep(seconds)
    return Slow(seconds)


class Slow:
    """Takes its time when a worker unpickles it, like the first import of a large library."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __reduce__(self):
        return _unpickled, (self.seconds,)


def works(slow, seconds):
    time.sleep(seconds)
    return seconds


def heartbeats_of_slow_imports(client, address):
    """The scheduler is not told that a task runs for long while it is only being unpickled: it would think the same
    of all tasks of this kind."""

    def executing(dask_scheduler):
        return list(dask_scheduler.workers[address].executing.values())

    future = client.submit(works, Slow(3), 1.5, workers=[address], pure=False)
    told = []
    until(lambda: told.extend(client.run_on_scheduler(executing)) or future.done())
    assert future.result() == 1.5
    assert told and max(told) < 2, told


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

    with Gate(client, workers=[address]) as gate:
        later = client.submit(inc, gate.future, workers=[address], pure=False, key="later")
        held = client.scatter({"held": [1, 2, 3]}, workers=[address])["held"]
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


def looks_at_tasks(client, address):
    """What hangs on `worker.state.tasks`, and data that is deleted by hand."""

    def fails():
        raise ValueError("on purpose")

    def look(dask_worker):
        tasks = dask_worker.state.tasks
        spec = tasks["pending-1"].run_spec
        return {
            "state": tasks["pending-1"].state,
            "spec": None if spec is None else (spec[0](*spec[1]) if isinstance(spec, tuple) else spec()),
            "failure": tasks["pending-1"].exception,
            "counts": dask_worker.state.task_counter.current_count(by_prefix=True),
        }

    with Gate(client, workers=[address]) as gate:
        pending = client.submit(inc, 41, workers=[address], key="pending-1")
        failed = client.submit(fails, workers=[address], key="failed-1", priority=10)
        held = client.scatter({"to-be-deleted": 7}, workers=[address])["to-be-deleted"]
        until(lambda: client.run(lambda dask_worker: "pending-1" in dask_worker.state.tasks)[address])
        seen = client.run(look, workers=[address])[address]
    assert seen["state"] == "ready" and seen["failure"] is None
    assert seen["spec"] == (42 if RELEASE >= (2023, 8, 1) else None)
    assert seen["counts"]["pending", "ready"] == 1
    assert pending.result(timeout=30) == 42
    wait([gate.future, failed], timeout=30)

    def failure(dask_worker):
        task = dask_worker.state.tasks["failed-1"]
        return task.state, repr(task.exception.data), task.exception_text, "on purpose" in task.traceback_text

    told = client.run(failure, workers=[address])[address]
    assert told == ("error", "ValueError('on purpose')", "ValueError('on purpose')", True)

    def delete(dask_worker):
        del dask_worker.data["to-be-deleted"]
        try:
            del dask_worker.data["to-be-deleted"]
        except KeyError:
            return "to-be-deleted" in dask_worker.data

    assert client.run(delete, workers=[address])[address] is False
    # Nothing can make it again.
    until(lambda: held.status in ("cancelled", "lost"))


def profiles(client, address):
    """What tasks do is sampled, whichever thread they run on."""

    def works_for_a_while():
        time.sleep(0.5)

    class Busy:
        def for_a_while(self):
            time.sleep(0.5)

    def names(node):
        found = {node["description"]["name"]}
        for child in node["children"].values():
            found |= names(child)
        return found

    busy = client.submit(Busy, workers=[address], actor=True).result(timeout=30)
    busy.for_a_while().result(timeout=30)
    client.submit(works_for_a_while, workers=[address]).result(timeout=30)
    # The samples of a second are put together.
    until(lambda: {"works_for_a_while", "for_a_while"} <= names(client.profile()))


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
    until(lambda: workers_of(client)[address]["metrics"].get("temperature", 0) >= 20)


def greetings(client):
    [told] = workers_of(client).values()
    assert told["colour"] == "green"
    assert told["oxidask"]["version"]
    return list(client.run(lambda dask_worker: dask_worker.greeting).values())
