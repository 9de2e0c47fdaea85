"""Workers of ours that run out of memory, lose their scheduler, leave, or are kept from everything by a task."""

import ctypes
import os
import time

import numpy as np
from asking import workers_of
from distributed import get_worker, wait

MEGABYTE = 1_000_000


def info(client, address=None):
    workers = workers_of(client)
    return workers[address] if address else next(iter(workers.values()))


def until(condition, seconds=20):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "it did not happen in time"
        time.sleep(0.05)


def spills(client, count, megabytes):
    """Arrays that do not fit into memory: all are right, wherever they are wanted, and their files go with them."""
    client.wait_for_workers(1, timeout=30)
    length = megabytes * MEGABYTE // 8
    arrays = [client.submit(np.full, length, float(n), pure=False) for n in range(count)]
    wait(arrays, timeout=60)
    spilled = client.run(lambda dask_worker: (len(dask_worker.data.disk), tuple(dask_worker.data.spilled_total)))
    ((on_disk, (memory, disk)),) = spilled.values()
    assert 0 < on_disk < count, on_disk
    assert memory == on_disk * length * 8 and 0 < disk < memory, (memory, disk)
    until(lambda: info(client)["metrics"]["managed_bytes"] >= count * length * 8)
    assert info(client)["metrics"]["spilled_bytes"]["memory"] > 0
    sums = client.gather([client.submit(lambda x: float(x[0] + x[-1]), array) for array in arrays])
    assert sums == [2.0 * n for n in range(count)], sums
    for n in (0, count // 2, count - 1):
        assert (arrays[n].result(timeout=30) == n).all()
    keys = [array.key for array in arrays[:3]]
    looked = client.run(lambda dask_worker: [float(dask_worker.data[key][0]) for key in keys])
    assert list(looked.values()) == [[0.0, 1.0, 2.0]]
    del arrays, n
    files = "storage"
    until(lambda: no_data(client))
    until(lambda: list(client.run(stored_files, files).values()) == [0])


def no_data(client):
    return list(client.run(lambda dask_worker: len(dask_worker.data)).values()) == [0]


def stored_files(folder, dask_worker):
    return len(os.listdir(os.path.join(dask_worker.local_directory, folder)))


def keeps_what_can_not_be_pickled(client):
    class Stays:
        def __sizeof__(self):
            return 150 * MEGABYTE

        def __reduce__(self):
            raise ValueError("not me")

    future = client.submit(Stays, pure=False)
    wait(future, timeout=30)
    others = [client.submit(np.full, 10 * MEGABYTE // 8, float(n), pure=False) for n in range(10)]
    assert client.submit(lambda stays: type(stays).__name__, future).result(timeout=30) == "Stays"
    assert [float(array[0]) for array in client.gather(others)] == list(map(float, range(10)))


def pauses(client, address, other):
    """A worker whose process is too large is given nothing; it goes on when there is room again."""

    def grow(megabytes):
        get_worker().ballast = np.ones(megabytes * MEGABYTE // 8)

    def shrink(dask_worker):
        dask_worker.ballast = None

    client.submit(grow, 400, workers=[address], pure=False).result(timeout=30)
    until(lambda: info(client, address)["status"] == "paused")
    where = client.map(lambda _: get_worker().address, range(10), pure=False)
    assert set(client.gather(where)) == {other}
    waiting = client.submit(lambda: get_worker().address, workers=[address], pure=False)
    time.sleep(0.5)
    assert not waiting.done()
    client.run(shrink, workers=[address])
    assert waiting.result(timeout=30) == address
    assert info(client, address)["status"] == "running"
    lines = [line for _, line in client.get_worker_logs(workers=[address])[address]]
    assert any("distributed.worker.memory - WARNING - Worker is at" in line for line in lines), lines


def inc(x):
    return x + 1


def works(client, count):
    client.wait_for_workers(count, timeout=30)
    assert client.gather(client.map(inc, range(20), pure=False)) == list(range(1, 21))


def holds(client, address, talk):
    """Data and a task that runs while the connection to the scheduler breaks: neither is made again."""

    def once(name):
        worker = get_worker()
        worker.runs = getattr(worker, "runs", [])
        worker.runs.append(name)
        if name == "slow":
            time.sleep(2)
        return name

    held = client.submit(once, "held", workers=[address], pure=False)
    held.result(timeout=30)
    slow = client.submit(once, "slow", workers=[address], pure=False)
    until(lambda: slow.key in client.processing().get(address, ()))
    time.sleep(0.3)
    talk.tell()
    talk.wait()
    assert (held.result(timeout=30), slow.result(timeout=30)) == ("held", "slow")
    runs = client.run(lambda dask_worker: dask_worker.runs, workers=[address])
    assert sorted(runs[address]) == ["held", "slow"], runs


def retires(client, name):
    client.wait_for_workers(2, timeout=30)
    client.retire_workers(names=[name], close_workers=True)


def leaves_data(client, talk):
    data = client.submit(inc, 1)
    wait(data, timeout=30)
    talk.tell()
    talk.wait()


def hands_over(client, address, other, talk):
    data = client.submit(np.arange, 1000, workers=[address], pure=False, allow_other_workers=True)
    wait(data, timeout=30)
    talk.tell()
    talk.wait()
    assert (client.submit(np.sum, data).result(timeout=30)) == 499500
    assert list(client.who_has([data])[data.key]) == [other]
    log = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.workers))
    assert log == 1


def holds_the_interpreter(client, address, seconds):
    """The scheduler does not give up on a worker whose task never lets Python go, and its data can be listed."""
    data = client.submit(inc, 1, workers=[address], pure=False)
    wait(data, timeout=30)

    def hold():
        ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1e6)))
        return get_worker().address

    future = client.submit(hold, workers=[address], pure=False)
    time.sleep(seconds / 2)
    assert address in workers_of(client)
    start = time.time()
    assert list(client.who_has([data])[data.key]) == [address]
    assert data.key in list(client.has_what([address]).values())[0]
    assert time.time() - start < 1
    assert not future.done()
    assert future.result(timeout=seconds / 2 + 30) == address
    assert data.result(timeout=30) == 2
