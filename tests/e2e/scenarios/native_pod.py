"""Workers of ours that pods come and go with."""

import os
import tempfile
import time
import uuid

from asking import workers_of
from distributed import get_worker, wait


def until(condition, seconds=30):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_evicted(client, address, other, talk):
    """What the worker has and what it is at are not lost: data that nobody else has is moved and not made again."""
    client.wait_for_workers(2, timeout=60)
    here = {"workers": [address], "allow_other_workers": True, "pure": False}
    data = client.submit(lambda: uuid.uuid4().hex, **here)
    made = data.result(timeout=60)

    def slow(seconds, begun=None):
        if begun:
            open(begun, "w").close()
        time.sleep(seconds)
        return get_worker().address

    with tempfile.TemporaryDirectory() as folder:
        # To be seen also by those who look late.
        begun = os.path.join(folder, "begun")
        running = client.submit(slow, 1, begun, **here)
        waiting = [client.submit(slow, 0.01, **here) for _ in range(20)]
        until(lambda: os.path.exists(begun))
        talk.tell()
        talk.wait()
        # The one that ran is begun again on the other worker.
        where = client.gather([running, *waiting])
    assert set(where) <= {address, other}, where
    assert client.submit(lambda text: text, data, pure=False).result(timeout=60) == made
    assert list(client.who_has([data])[data.key]) == [other]
    assert list(workers_of(client)) == [other]


def grows(client, megabytes):
    """Makes the only worker's process so large that it pauses; `shrinks` undoes it."""

    def grow(megabytes):
        get_worker().ballast = b"x" * (megabytes * 1_000_000)

    wait(client.submit(grow, megabytes, pure=False), timeout=60)


def shrinks(client):
    def shrink(dask_worker):
        dask_worker.ballast = None

    client.run(shrink)


def logs(client):
    """A line of each kind: of a library, of a task that prints, a warning, an exception with its traceback."""

    def speak():
        import logging
        import warnings

        logging.getLogger("some.library").warning('it says "%s"\nand more', "hello")
        warnings.warn("mind the gap", stacklevel=1)
        try:
            raise ValueError("for the log")
        except ValueError:
            logging.getLogger("distributed.worker").exception("it went wrong")

    client.submit(speak, pure=False).result(timeout=60)


def holds(client, talk):
    """A task that never lets Python go, for as long as it is looked at."""
    import ctypes

    running = client.submit(lambda: ctypes.PyDLL(None).usleep(ctypes.c_uint(3_000_000)), pure=False)
    time.sleep(0.5)
    talk.tell()
    talk.wait()
    running.result(timeout=60)
