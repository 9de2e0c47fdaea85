"""Tasks and peers that do what they should not. Each is its own failure; everything else goes on.

Run with workers of ours and with stock's: clients see the same.
"""

import asyncio
import ctypes
import multiprocessing
import operator
import os
import sys
import threading
import time
import types

from asking import workers_of
from dask import config
from distributed import Worker, wait
from distributed.scheduler import KilledWorker


def inc(x):
    return x + 1


def slow_inc(x):
    time.sleep(0.1)
    return x + 1


def addresses(client, count, timeout=30):
    """Addresses of the workers, once there are so many."""
    client.wait_for_workers(count)
    return list(workers_of(client))


def settled(client, function, *args, timeout=40, **kwargs):
    future = client.submit(function, *args, pure=False, **kwargs)
    wait(future, timeout=timeout)
    return future


def goes_on(client, count=20):
    """Ordinary tasks, on every worker."""
    assert client.gather(client.map(inc, range(count), pure=False)) == list(range(1, count + 1))


class Locked:
    """What can not be pickled."""

    def __init__(self):
        self.lock = threading.Lock()


class WithLock(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def has_lock(value):
    return hasattr(value, "lock")


def results_that_can_not_be_pickled(client):
    """The client is told why it can not have the result. Tasks on the same worker can use it."""
    here, there = addresses(client, 2)[:2]
    locked = settled(client, Locked, workers=[here])
    assert locked.status == "finished"
    assert settled(client, has_lock, locked, workers=[here]).result() is True
    try:
        locked.result(timeout=20)
        raise AssertionError("a lock was pickled")
    except TypeError as error:
        assert "pickle" in str(error)
    # One that came from here may not end, since the data can not move; others do.
    elsewhere = client.submit(has_lock, locked, workers=[there], pure=False)
    goes_on(client)
    elsewhere.cancel()
    goes_on(client)


def exceptions_that_can_not_be_pickled(client):
    def fails():
        raise WithLock("this is why")

    future = settled(client, fails)
    assert future.status == "error"
    error = future.exception()
    assert "this is why" in str(error), repr(error)
    goes_on(client)
    # Its dependents fail with it.
    dependent = settled(client, inc, future)
    assert "this is why" in str(dependent.exception())
    return type(error).__name__


def modules_that_are_missing(client):
    """A function of a module that only the client has."""
    name = "module_of_the_client_only"
    module = types.ModuleType(name)
    exec("def function(x):\n    return x", module.__dict__)
    module.__file__ = __file__
    sys.modules[name] = module
    try:
        future = settled(client, module.function, 1)
    finally:
        del sys.modules[name]
    assert future.status == "error"
    error = future.exception()
    goes_on(client)
    return type(error).__name__, str(error)


def exhausts_what_it_may_have(client):
    """Python's own error, not the end of the process."""

    def much():
        return bytearray(1 << 60)

    assert isinstance(settled(client, much).exception(), MemoryError)
    goes_on(client)


def forks(client):
    """`os.fork`, a process that outlives its task, subprocesses, and pools of `multiprocessing`."""

    def fork():
        child = os.fork()
        if child == 0:
            os._exit(3)
        return os.waitpid(child, 0)[1] >> 8

    def raises_in_the_child():
        child = os.fork()
        if child == 0:
            try:
                raise ValueError("in the child")
            finally:
                os._exit(4)
        return os.waitpid(child, 0)[1] >> 8

    def reads_standard_input():
        import subprocess

        return subprocess.run(["cat"], stdout=subprocess.PIPE, timeout=20).stdout

    def pool(method):
        with config.set({"distributed.worker.daemon": False}):
            context = multiprocessing.get_context(method)
            multiprocessing.current_process()._config["daemon"] = False
            with context.Pool(2) as processes:
                return processes.map(operator.neg, [1, 2])

    def orphan():
        child = os.fork()
        if child == 0:
            time.sleep(2)
            os._exit(0)
        return child

    assert settled(client, fork).result() == 3
    assert settled(client, raises_in_the_child).result() == 4
    assert settled(client, reads_standard_input).result() == b""
    for method in ("fork", "spawn"):
        assert settled(client, pool, method).result() == [-1, -2], method
    settled(client, orphan).result()
    goes_on(client)


# Ends of processes


def end(how):
    """Ends its process."""
    time.sleep(0.05)
    if how == "exit":
        os._exit(3)
    if how == "fault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), 9)
    held = []
    while True:
        held.append(os.urandom(10_000_000))


def is_blamed(client, how, events=True, here=None, there=None):
    """A task that ends its process again and again is given up, other tasks go on; what is told of the reason."""
    client.wait_for_workers(1)
    others = client.map(slow_inc, range(20), pure=False, workers=there) if there else []
    future = client.submit(end, how, key="deadly", pure=False, workers=here)
    wait(future, timeout=60)
    error = future.exception()
    assert isinstance(error, KilledWorker), error
    assert client.gather(others) == list(range(1, len(others) + 1))
    assert error.task == "deadly"
    assert error.last_worker.address.startswith("tcp://")
    goes_on(client)
    told = []
    if events:
        told = [event for _, event in client.get_events(error.last_worker.address)]
        told = [event["reason"] for event in told if event["action"] == "worker-process-ended"]
    return {"cause": error.__cause__ and str(error.__cause__), "events": told}


def is_blamed_once(client, how):
    """The same with workers that nobody brings back: the cause that is told."""
    client.wait_for_workers(1)
    future = client.submit(end, how, pure=False)
    wait(future, timeout=60)
    error = future.exception()
    assert isinstance(error, KilledWorker), error
    return str(error.__cause__)


def a_disk_takes_no_more(client, address, megabytes=8, count=12):
    """Nothing is lost when results can not be written; they are as soon as they can be."""

    def limit(bytes_):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most if bytes_ is None else bytes_, most))

    def files(folder):
        return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)

    def make(i):
        return bytes([i]) * (megabytes << 20)

    def check(i, value):
        return len(value) == megabytes << 20 and value[0] == value[-1] == i

    folder = client.run(lambda dask_worker: dask_worker.local_directory)[address]
    client.run(limit, 1 << 20)
    held = [client.submit(make, i, pure=False) for i in range(count)]
    wait(held, timeout=60)
    assert {one.status for one in held} == {"finished"}
    assert files(folder) < 2 << 20
    assert all(client.gather([client.submit(check, i, one) for i, one in enumerate(held)]))
    goes_on(client)
    client.run(limit, None)
    held += [client.submit(make, i, pure=False) for i in range(count, 2 * count)]
    wait(held, timeout=60)
    deadline = time.monotonic() + 30
    # Ones of all the same bytes are small on the disk.
    while not any(name for _, _, names in os.walk(folder) for name in names):
        assert time.monotonic() < deadline, "nothing was spilled"
        time.sleep(0.1)
    assert all(client.gather([client.submit(check, i, one) for i, one in enumerate(held)]))


# Peers


class Hostile(Worker):
    """A worker whose first answers to `get_data` are no answers."""

    def __init__(self, *args, how=None, times=1, **kwargs):
        super().__init__(*args, **kwargs)
        self.how, self.times, self.asked = how, times, 0
        self.honest = self.handlers["get_data"]
        self.handlers["get_data"] = self.lies

    async def lies(self, comm, keys=(), who=None, **kwargs):
        self.asked += 1
        if self.asked > self.times:
            return await self.honest(comm, keys=keys, who=who, **kwargs)
        answer = getattr(self, "answer_" + self.how)(comm, list(keys))
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer

    @staticmethod
    def status_dont_reply():
        from distributed.core import Status

        return Status.dont_reply

    async def write_raw(self, comm, data, close=True):
        await comm.stream.write(data)
        if close:
            comm.abort()
        return self.status_dont_reply()

    def answer_nothing(self, comm, keys):
        comm.abort()
        return self.status_dont_reply()

    async def answer_truncated(self, comm, keys):
        """The lengths of frames, and half of the first."""
        lengths = [2, 1000, 10_000]
        prefix = b"".join(n.to_bytes(8, "little") for n in (sum(lengths) + 32, len(lengths), *lengths))
        return await self.write_raw(comm, prefix + b"\x80" * 500)

    async def answer_huge(self, comm, keys):
        """A length that no machine has."""
        return await self.write_raw(comm, (1 << 62).to_bytes(8, "little") + b"\x00" * 64, close=False)

    async def answer_many_frames(self, comm, keys):
        return await self.write_raw(comm, (4096).to_bytes(8, "little") + (1 << 60).to_bytes(8, "little") + b"x" * 4088)

    async def answer_garbage(self, comm, keys):
        return await self.write_raw(comm, (80).to_bytes(8, "little") + os.urandom(80))

    def answer_other_keys(self, comm, keys):
        return {"status": "OK", "data": {"not-asked-for": 1}}

    def answer_no_status(self, comm, keys):
        return {"data": {}}

    def answer_number(self, comm, keys):
        return 17

    def answer_error(self, comm, keys):
        raise RuntimeError("not today")

    def answer_bad_pickle(self, comm, keys):
        from distributed.protocol import Serialized

        header = {"serializer": "pickle", "writeable": (), "type-serialized": b"?"}
        return {"status": "OK", "data": {key: Serialized(header, [b"\x80\x05no pickle"]) for key in keys}}

    def answer_bad_header(self, comm, keys):
        from distributed.protocol import Serialized

        header = {"serializer": "no such family", "split-num-sub-frames": [7], "split-offsets": [9]}
        return {"status": "OK", "data": {key: Serialized(header, [b"x"]) for key in keys}}


def misled_by_a_peer(client, how, names):
    """Our worker asks a peer for data that answers badly at first: the work ends well, or says why."""
    addresses(client, len(names))

    async def run():
        async with Hostile(
            client.scheduler.address, name="hostile", how=how, host="127.0.0.1", nthreads=1, dashboard_address=None
        ) as hostile:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, use, hostile)

    def use(hostile):
        data = client.map(inc, range(3), workers=["hostile"], allow_other_workers=True, pure=False)
        wait(data, timeout=20)
        used = [client.submit(operator.add, one, 10, workers=names, pure=False) for one in data]
        try:
            wait(used, timeout=40)
        except Exception as error:
            raise AssertionError(f"{how}: {[u.status for u in used]} {hostile.asked}") from error
        goes_on(client)
        assert hostile.asked > 0, "nobody asked the hostile worker"
        outcomes = []
        for i, one in enumerate(used):
            if one.status == "finished":
                assert one.result(timeout=20) == i + 11
                outcomes.append("finished")
            else:
                outcomes.append(type(one.exception(timeout=20)).__name__)
        return outcomes

    return asyncio.run(run())
