"""What clients do with workers of ours under nannies of ours."""

import ctypes
import inspect
import operator
import os
import signal
import time

from asking import workers_of
from distributed import KilledWorker, fire_and_forget, wait
from distributed.diagnostics.plugin import Environ, NannyPlugin, UploadDirectory


def ignoring(client):
    return {"on_error": "ignore"} if "on_error" in inspect.signature(client.run).parameters else {}


def pids(client, count, timeout=30):
    """Process of each worker by address."""
    deadline = time.monotonic() + timeout
    while True:
        client.wait_for_workers(count, timeout=timeout)
        found = client.run(os.getpid, **ignoring(client))
        if len(found) == count:
            return found
        assert time.monotonic() < deadline, found


def nannies(client):
    """Address of each worker's nanny by the worker's name."""
    workers = workers_of(client).values()
    return {worker["name"]: worker["nanny"] for worker in workers}


def restarts(client, count):
    """All processes are new, under the nannies and names of before; the old results are gone, new work runs."""
    before, under = pids(client, count), nannies(client)
    assert all(under.values()), under
    future = client.submit(operator.add, 1, 1)
    assert future.result(timeout=30) == 2
    client.restart(timeout=30)
    after = pids(client, count)
    assert not set(before.values()) & set(after.values())
    assert nannies(client) == under
    assert future.cancelled()
    assert sum(client.gather(client.map(operator.neg, range(10)))) == -45


def restarts_one(client, count):
    """`restart_workers` restarts those that are named."""
    before = pids(client, count)
    chosen = sorted(before)[0]
    assert client.restart_workers([chosen], timeout=30) == {chosen: "OK"}
    after = pids(client, count)
    assert len(set(before.values()) & set(after.values())) == count - 1


def survives_a_kill(client, count):
    """A killed process is replaced; its task is computed again and the others are not disturbed."""
    before = pids(client, count)
    victim = sorted(before)[0]
    futures = client.map(lambda x: time.sleep(0.1) or x + 1, range(10 * count), pure=False)
    time.sleep(0.3)
    os.kill(before[victim], signal.SIGKILL)
    assert sum(client.gather(futures)) == sum(range(1, 10 * count + 1))
    assert victim not in pids(client, count)


def is_killed(client, how):
    """A task that ends its process again and again is given up; the worker is as fresh as before."""
    pids(client, 1)

    def end(how):
        if how == "exit":
            os._exit(3)
        ctypes.string_at(0)

    future = client.submit(end, how)
    wait(future, timeout=60)
    error = future.exception()
    assert isinstance(error, KilledWorker), error
    assert error.task == future.key
    assert error.last_worker.address.startswith("tcp://")
    assert client.submit(operator.add, 1, 2).result(timeout=30) == 3
    return error.last_worker.address


def exceeds_its_memory(client):
    """The process is replaced before the machine has to do it; the scheduler has the event."""
    before = pids(client, 1)

    def hoard():
        held = []
        while True:
            held.append(os.urandom(10_000_000))

    future = client.submit(hoard)
    error = future.exception(timeout=60)
    assert isinstance(error, KilledWorker), error
    after = pids(client, 1)
    assert set(before) != set(after)
    events = client.get_events("worker-restart-memory")
    assert events and set(events[0][1]) >= {"worker", "pid", "rss"}


def runs_in_the_nanny(client):
    """Functions run beside the nanny, with something that has a nanny's surface."""
    [worker] = pids(client, 1)
    [process] = client.run(os.getpid, nanny=True).values()
    assert process != pids(client, 1)[worker]

    def look(dask_worker):
        return dask_worker.worker_address, dask_worker.pid, dask_worker.nthreads, type(dask_worker).__name__

    [seen] = client.run(look, nanny=True).values()
    assert seen == (worker, pids(client, 1)[worker], 1, "Nanny")

    def fail():
        raise ValueError("in the nanny")

    try:
        client.run(fail, nanny=True)
    except ValueError as error:
        assert str(error) == "in the nanny"
    else:
        raise AssertionError("no error came back")
    [logs] = client.get_worker_logs(nanny=True).values()
    assert any("Start Nanny at" in text for _, text in logs), logs


class Noted(NannyPlugin):
    """Says in the nanny's variables what was done with it."""

    restart = True

    def __init__(self):
        self.name = "noted"

    def setup(self, nanny):
        nanny.env["NOTED"] = "set up"

    def teardown(self, nanny):
        nanny.env["NOTED"] = "torn down"


def register(client, plugin):
    return getattr(client, "register_plugin", getattr(client, "register_worker_plugin", None))(plugin)


def has_plugins(client, folder):
    """Plugins change the variables and files of the next process; later nannies get them as well."""
    before = pids(client, 1)
    register(client, Environ({"FROM_A_PLUGIN": "7"}))
    assert variables(client, ["FROM_A_PLUGIN"]) == {"FROM_A_PLUGIN": "7"}
    assert not set(before.values()) & set(pids(client, 1).values())
    register(client, Noted())
    assert variables(client, ["NOTED"]) == {"NOTED": "set up"}
    register(client, UploadDirectory(folder, restart_workers=True, update_path=True))
    pids(client, 1)

    def use():
        import package_of_the_test

        return package_of_the_test.VALUE

    assert client.submit(use, pure=False).result(timeout=30) == 5


def variables(client, names):
    pids(client, 1)
    [found] = client.run(lambda: {name: os.environ.get(name) for name in names}).values()
    return found


def ports(client, count):
    """Of each worker and its nanny."""
    pids(client, count)
    found = workers_of(client).items()
    return sorted([int(a.rpartition(":")[2]) for a in (address, worker["nanny"])] for address, worker in found)


def is_handed_over(client, name, nanny):
    """What only the leaving worker has, and nobody could compute again, is kept."""
    workers = workers_of(client).items()
    [address] = [address for address, worker in workers if worker["name"] == name]
    value = os.urandom(10).hex()
    data = client.scatter({"held-there-only": value}, workers=[address])["held-there-only"]
    os.kill(nanny, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while address in workers_of(client):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.submit(operator.add, data, "!").result(timeout=30) == value + "!"


def names(client, count):
    """Name, threads and limit of every worker."""
    pids(client, count)
    workers = workers_of(client).values()
    return sorted((w["name"], w["nthreads"], w["memory_limit"]) for w in workers)


def holds_the_interpreter(client, seconds):
    """Starts a task that nothing can stop but a signal of the kernel."""

    def hold(seconds):
        # `PyDLL` does not let go of the interpreter.
        ctypes.PyDLL(None).sleep(seconds)

    pids(client, 1)
    fire_and_forget(client.submit(hold, seconds))
    time.sleep(1)
