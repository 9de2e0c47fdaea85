"""What clients do with workers of ours, alone and beside those of stock."""

import importlib
import operator
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from asking import workers_of
from distributed import Reschedule, get_client, get_worker, secede, wait, worker_client


def inc(x):
    return x + 1


def addresses(client, count):
    client.wait_for_workers(count, timeout=30)
    return sorted(workers_of(client))


def computes(client, count):
    """Plain tasks, many tasks, dependencies on every worker, all results right."""
    workers = addresses(client, count)
    assert client.submit(inc, 1).result(timeout=30) == 2
    numbers = client.map(inc, range(300))
    assert client.submit(sum, numbers).result(timeout=30) == sum(range(1, 301))
    spread = [client.submit(operator.add, n, 1, workers=[w], pure=False) for n, w in enumerate(workers * 3)]
    for worker in workers:
        total = client.submit(sum, spread, workers=[worker], pure=False)
        assert total.result(timeout=30) == sum(range(1, len(spread) + 1))
    has = client.who_has(spread)
    assert all(workers[n % count] in has[future.key] for n, future in enumerate(spread))


def nothing_or_stay(begun):
    if begun:
        open(begun, "w").close()
        while os.path.exists(begun):
            time.sleep(0.01)


def no_report_waits_for_what_runs(client):
    """Reports of tasks that take no time wait for more of them, but not for one that takes its time."""
    (worker,) = addresses(client, 1)
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            begun = os.path.join(folder, "begun")
            *done, running = client.map(nothing_or_stay, ["", "", begun], workers=[worker], pure=False)
            wait(done, timeout=10)
            assert running.status == "pending"
        assert running.result(timeout=10) is None


class Importing:
    """Is a module once it is unpickled."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return importlib.import_module, (self.name,)


def imports_on_two_threads(client, folder):
    """To unpickle a task and in a coroutine of the event loop at once, a package whose parts import each other."""
    (worker,) = addresses(client, 1)
    client.run(lambda: sys.path.insert(0, folder))

    async def imports(name):
        return importlib.import_module(name).WORD

    with ThreadPoolExecutor() as pool:
        for package, unpickles_first in (("tangled_first", True), ("tangled_second", False)):
            whole, part = package, f"{package}.part"
            os.mkdir(os.path.join(folder, package))
            for name, text in (
                ("__init__", f"import time\ntime.sleep(0.6)\nfrom {part} import WORD\n"),
                ("part", f"import time\ntime.sleep(0.1)\nimport {whole}\nWORD = 'word'\n"),
            ):
                with open(os.path.join(folder, package, f"{name}.py"), "w") as file:
                    file.write(text)
            words = [(client.submit, getattr, Importing(whole), "WORD"), (client.run, imports, part)]
            if not unpickles_first:
                words = [(client.run, imports, whole), (client.submit, getattr, Importing(part), "WORD")]
            calls = []
            for word in words:
                calls.append(pool.submit(*word))
                time.sleep(0.3)
            answers = [call.result(timeout=30) for call in calls]
            future, ran = answers if unpickles_first else reversed(answers)
            assert future.result(timeout=30) == "word"
            assert ran == {worker: "word"}, ran


def slow_inc(x):
    time.sleep(0.1)
    return x + 1


def idle_workers_help(client, busy, idle):
    """What waits at a busy worker is begun by one that has nothing to do. Both know the function: while a worker
    imports for its first task, ours gives back what waits behind that; stock's does not even answer."""
    for address in (busy, idle):
        assert client.submit(slow_inc, 0, workers=[address], pure=False).result(timeout=30) == 1
    given = client.map(slow_inc, range(12), workers=[busy], allow_other_workers=True, pure=False)
    wait(given, timeout=30)
    assert client.gather(given) == list(range(1, 13))
    keys = {future.key for future in given}
    shares = {address: len(keys.intersection(held)) for address, held in client.has_what().items()}
    assert shares[idle] >= 3 and shares[busy] >= 3, shares
    answers = [event[0] for _, event in client.get_events("stealing") if event[0] != "request"]
    assert "confirm" in answers, answers


def times_loaded():
    # What is pickled by value has globals of its own.
    return int(os.environ.get("TIMES_LOADED", "0"))


def _note_load():
    os.environ["TIMES_LOADED"] = str(times_loaded() + 1)
    return NotesLoads()


class NotesLoads:
    """Has its process remember each time that it is unpickled."""

    def __reduce__(self):
        return _note_load, ()


def unpickles_functions(client, addresses):
    """How often each worker unpickles the function of a map of 50 tasks."""
    noted = NotesLoads()

    def second(x):
        return (noted, x)[1]

    for address in addresses:
        values = client.map(second, range(50), workers=[address], pure=False)
        assert client.gather(values) == list(range(50))
    counts = client.run(times_loaded, workers=addresses)
    return [counts[address] for address in addresses]


def told(*args, **kwargs):
    return args, kwargs


class Countdown:
    """Something to be called that is no function."""

    def __new__(cls, number):
        return list(range(number, 0, -1))


async def later(x):
    return x * 2


class Sizeless:
    """Something whose size can not be told."""

    def __sizeof__(self):
        raise TypeError("no size")


def maps(client, count):
    """Whatever the tasks of a map are given arrives as it is, also what is no plain value."""
    addresses(client, count)
    plain = [None, True, False, 0, -1, 255, 65536, -(2**31), 2**63 - 1, -(2**63), 2**63, 10**30]
    plain += [0.5, float("inf"), -0.0, "", "text", "ümlaut\U0001f600", "\ud800", b"", b"bytes" * 100, "long" * 5000]
    plain += [(), (1, ("a", [2, {"b": None}])), [], [[[]]], {}, {"k": (1, 2), 3: "v"}, {1, 2}, frozenset("ab")]
    plain += [bytearray(b"x"), 1j, range(3), int, len, operator.add, np.int64(3), slice(1, 2)]
    for given, (args, kwargs) in zip(plain, client.gather(client.map(told, plain, pure=False))):
        assert (args, kwargs) == ((given,), {}) and type(args[0]) is type(given), given
    named = client.map(told, plain, [1] * len(plain), key="named", name=("a", 1), other=[2.5])
    assert client.gather(named) == [((given, 1), {"name": ("a", 1), "other": [2.5]}) for given in plain]

    first = client.map(inc, range(20), key=[("first", n, "x") for n in range(20)])
    again = client.map(told, first, range(20), first[1:] + first[:1], key=[("again", n) for n in range(20)])
    expected = [((n + 1, n, (n + 1) % 20 + 1), {}) for n in range(20)]
    assert client.gather(again) == expected
    lists = client.map(told, [first[n : n + 3] for n in range(10)], name=first[0])
    assert client.gather(lists) == [(([n + 1, n + 2, n + 3],), {"name": 1}) for n in range(10)]

    assert client.gather(client.map(Countdown, range(3))) == [[], [1], [2, 1]]
    assert client.gather(client.map(later, range(5))) == [0, 2, 4, 6, 8]
    assert client.gather(client.map(operator.neg, range(5))) == [0, -1, -2, -3, -4]
    assert client.submit(lambda thing: type(thing).__name__, client.submit(Sizeless)).result() == "Sizeless"
    failed = client.map(lambda n: 1 // n, [0, 0])
    assert [type(future.exception(timeout=30)) for future in failed] == [ZeroDivisionError] * 2


def transfers(client, count):
    """Arrays go between the workers and to the client, unharmed and writeable; scattered data arrives."""
    workers = addresses(client, count)
    arrays = [client.submit(np.arange, 200_000, workers=[w], pure=False) for w in workers]

    def doubled(array):
        copy = array.copy()
        copy *= 2
        return copy

    for n, array in enumerate(arrays):
        other = workers[(n + 1) % count]
        result = client.submit(doubled, array, workers=[other], pure=False).result(timeout=30)
        assert (result == 2 * np.arange(200_000)).all()
    data = client.scatter({"a": np.ones(10), "b": "text"}, broadcast=True)
    for worker in workers:
        got = client.submit(lambda a, b: (a.sum(), b), data["a"], data["b"], workers=[worker], pure=False)
        assert got.result(timeout=30) == (10, "text")


def transfers_large(client, count):
    """What is large is built in the memory it was received in: writeable, whole, and there for as long as needed."""
    here, other = addresses(client, count)[:2]

    def changed(array):
        assert array.flags.writeable
        array += 1
        return array.sum(), array[10:20]

    # The larger one travels in several frames.
    for length in (50_000, 20_000_000):
        array = client.submit(np.ones, length, workers=[here], pure=False)
        there = client.submit(changed, array, workers=[other], pure=False)
        wait(there, timeout=60)
        assert client.submit(np.sum, array, workers=[here], pure=False).result(timeout=30) == length
        del array
        total, part = there.result(timeout=30)
        assert total == 2 * length
        assert (part == 2).all()
    frame = client.submit(lambda: pd.DataFrame({"x": np.arange(100_000), "y": 0.5, "z": "text"}), workers=[here])
    got = client.submit(lambda frame: (frame.x.sum(), frame.y.sum(), set(frame.z)), frame, workers=[other])
    assert got.result(timeout=30) == (sum(range(100_000)), 50_000, {"text"})
    assert frame.result(timeout=30).x.iloc[-1] == 99_999


def forbids_reading_memory(client, worker):
    """The system refuses this worker to read the memory of others, as in a container without the right."""

    def forbid():
        import ctypes
        import platform

        class Instruction(ctypes.Structure):
            _fields_ = [
                ("code", ctypes.c_uint16),
                ("yes", ctypes.c_uint8),
                ("no", ctypes.c_uint8),
                ("k", ctypes.c_uint32),
            ]

        class Program(ctypes.Structure):
            _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(Instruction))]

        seccomp, process_vm_readv = {"x86_64": (317, 310), "aarch64": (277, 270)}[platform.machine()]
        load, equal, give = 0x20, 0x15, 0x06
        refused, allowed = 0x00050001, 0x7FFF0000
        steps = (
            Instruction(load, 0, 0, 0),
            Instruction(equal, 0, 1, process_vm_readv),
            Instruction(give, 0, 0, refused),
            Instruction(give, 0, 0, allowed),
        )
        program = Program(len(steps), (Instruction * len(steps))(*steps))
        system = ctypes.CDLL(None, use_errno=True)
        no_new_privileges, set_filter, all_threads = 38, 1, 1
        assert system.prctl(no_new_privileges, 1, 0, 0, 0) == 0
        done = system.syscall(seccomp, set_filter, all_threads, ctypes.byref(program))
        assert done == 0, ctypes.get_errno()

    client.run(forbid, workers=[worker])


def fails(client, count):
    """Exceptions with their tracebacks; what can not be sent back or read is the task's failure alone."""
    addresses(client, count)

    def divide(x):
        return 1 / x

    future = client.submit(divide, 0)
    wait(future, timeout=30)
    assert isinstance(future.exception(), ZeroDivisionError)
    frames = []
    traceback = future.traceback()
    while traceback:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[0] == "divide", frames
    dependent = client.submit(inc, future)
    wait(dependent, timeout=30)
    assert isinstance(dependent.exception(), ZeroDivisionError)

    class Unreadable:
        def __reduce__(self):
            return divide, (0,)

    broken = client.submit(inc, Unreadable())
    wait(broken, timeout=30)
    assert broken.status == "error"
    assert client.submit(inc, 5).result(timeout=30) == 6
    tries = client.submit(flaky, pure=False, retries=3)
    assert tries.result(timeout=30) == "at last"


def flaky():
    worker = get_worker()
    worker.flaky_tries = getattr(worker, "flaky_tries", 0) + 1
    if worker.flaky_tries < 2:
        raise OSError("not yet")
    return "at last"


def sees_the_worker(client, address):
    """`get_worker()`, `Client.run`, tasks that compute with clients of their own."""

    def look():
        worker = get_worker()
        return worker.address, worker.get_current_task(), threading.current_thread().name

    future = client.submit(look, workers=[address], pure=False)
    assert future.result(timeout=30)[:2] == (address, future.key)
    assert future.result()[2].startswith("Dask-Default-Threads")
    held = client.run(lambda dask_worker: list(dask_worker.data), workers=[address])
    assert future.key in held[address]

    def nested(x):
        secede()
        client = get_client()
        return client.submit(inc, x).result(timeout=20)

    def nested_with_block(x):
        with worker_client() as client:
            return sum(client.gather(client.map(inc, range(x))))

    def logs():
        get_worker().log_event("told", {"what": "this"})

    # More than there are threads: they only get on because those before them have seceded.
    results = [client.submit(nested, n, workers=[address], pure=False) for n in range(4)]
    assert client.gather(results) == [1, 2, 3, 4]
    assert client.submit(nested_with_block, 3, workers=[address]).result(timeout=30) == 6
    client.submit(logs, workers=[address]).result(timeout=30)
    assert client.get_events("told")[-1][1]["what"] == "this"


def runs_coroutines(client, address):
    async def sleeps(x):
        import asyncio

        await asyncio.sleep(0.01)
        return get_worker().address, x

    future = client.submit(sleeps, 3, workers=[address])
    assert tuple(future.result(timeout=30)) == (address, 3)


def reschedules(client, address, others):
    def not_here(wrong):
        if get_worker().address == wrong:
            raise Reschedule
        return get_worker().address

    future = client.submit(not_here, address, pure=False)
    assert future.result(timeout=30) in others or not others


def cancels(client, address):
    """A task that is cancelled before it has begun never runs, and its successor does."""
    gate = client.submit(time.sleep, 0.5, workers=[address], pure=False)
    victim = client.submit(inc, 1, workers=[address], pure=False)
    victim.cancel()
    after = client.submit(inc, 2, workers=[address], pure=False)
    assert after.result(timeout=30) == 3
    gate.result(timeout=30)


def collections(client, count):
    """An array's sum and a group-by."""
    import dask.array as da
    import dask.dataframe as dd
    import pandas as pd

    addresses(client, count)
    x = da.ones((1000, 1000), chunks=(250, 250))
    assert (x + x.T).sum().compute() == 2_000_000
    frame = pd.DataFrame({"group": [n % 7 for n in range(1000)], "value": range(1000)})
    got = dd.from_pandas(frame, npartitions=6).groupby("group").value.sum().compute()
    assert got.sort_index().tolist() == frame.groupby("group").value.sum().tolist()
