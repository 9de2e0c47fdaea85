"""Where tasks run: the worker's own threads, and executors with other names."""

import concurrent.futures
import itertools
import os
import threading

import distributed.utils
from distributed.threadpoolexecutor import ThreadPoolExecutor

from oxidask_worker.context import RELEASE
from oxidask_worker.tasks import work


class Executor(concurrent.futures.Executor):
    """The threads for tasks, with what `secede` and `rejoin` of the environment need of them."""

    _numbers = itertools.count()

    def __init__(self, worker, threads):
        self._worker, self._native, self._max_workers = worker, worker.native, threads
        self._threads = set()
        self._rejoin_list, self._rejoin_lock = [], threading.Lock()

    def submit(self, function, /, *args, **kwargs):
        future = concurrent.futures.Future()

        def call():
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args, **kwargs))
                except BaseException as exception:
                    future.set_exception(exception)

        self._native.call(call)
        return future

    def start(self):
        while len(self._threads) < self._max_workers:
            self._adjust_thread_count()

    def _adjust_thread_count(self):
        if len(self._threads) < self._max_workers:
            name = f"Dask-Default-Threads-{os.getpid()}-{next(self._numbers)}"
            thread = threading.Thread(target=work, args=(self, self._worker), name=name, daemon=True)
            self._threads.add(thread)
            thread.start()


def executors(default):
    """`Worker.executors`: those that stock of this release has."""
    found = {
        "offload": distributed.utils._offload_executor,
        "actor": ThreadPoolExecutor(1, thread_name_prefix="Dask-Actor-Threads"),
        "default": default,
    }
    if RELEASE[0] in (2021, 2022, 2023) and _has_gpu():
        found["gpu"] = ThreadPoolExecutor(1, thread_name_prefix="Dask-GPU-Threads")
    return found


def _has_gpu():
    from distributed.diagnostics import nvml

    try:
        return nvml.device_get_count() > 0
    except RuntimeError:
        return False
