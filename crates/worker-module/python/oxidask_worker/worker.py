"""The object that tasks, plugins and `Client.run` see as the worker: stock's documented surface, as far as it is there.

What stock's own class does with nothing but that surface is taken from the environment's `distributed`, so that it is
that release's behaviour. What is missing raises an error that says so.
"""

import collections
import concurrent.futures
import inspect
import itertools
import logging
import os
import threading
from collections.abc import Mapping

import dask
import distributed.core
import distributed.worker
from distributed import profile
from distributed.core import ConnectionPool, Status
from distributed.metrics import time
from distributed.security import Security
from distributed.threadpoolexecutor import thread_state
from distributed.versions import get_versions

from oxidask_worker.data import frames_of
from oxidask_worker.tasks import described, safe_sizeof

logger = logging.getLogger("distributed.worker")

# Methods that work on the surface below.
BORROWED = (
    "_get_client",
    "_get_cause",
    "client",
    "get_current_task",
    "plugin_add",
    "plugin_remove",
    "gather",
    "upload_file",
    "get_call_stack",
    "get_profile",
    "get_profile_metadata",
    "cycle_profile",
    "trigger_profile",
)

# Operations that stock has and that are not built.
UNBUILT = (
    "actor_execute",
    "actor_attribute",
    "benchmark_disk",
    "benchmark_memory",
    "benchmark_network",
    "dump_state",
    "get_monitor_info",
    "get_story",
)


class Data(Mapping):
    """`Worker.data`: what is in the store, read-only."""

    def __init__(self, native):
        self._native = native

    def __getitem__(self, key):
        return self._native.get(key)

    def __iter__(self):
        return iter(self._native.keys())

    def __len__(self):
        return self._native.count()

    def __contains__(self, key):
        return self._native.has(key)

    def __repr__(self):
        return f"<data of the native worker: {len(self)} keys>"


class State:
    """`Worker.state`: numbers and data; the tasks are in Rust and can not be looked at yet."""

    def __init__(self, worker):
        self._worker = worker
        self.actors = {}

    @property
    def nthreads(self):
        return self._worker.nthreads

    @property
    def address(self):
        return self._worker.address

    @property
    def data(self):
        return self._worker.data

    @property
    def total_resources(self):
        return self._worker.total_resources

    @property
    def tasks(self):
        raise NotImplementedError("the native worker does not show its tasks to Python yet")


class Executor(concurrent.futures.Executor):
    """The worker's threads, with what `secede` and `rejoin` of the environment need of them."""

    _numbers = itertools.count()

    def __init__(self, native, threads):
        self._native, self._max_workers = native, threads
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
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self):
        thread_state.proceed = True
        thread_state.executor = self
        while thread_state.proceed:
            with self._rejoin_lock:
                if self._rejoin_list:
                    # One that has seceded comes back, in the place of this one.
                    thread, event = self._rejoin_list.pop()
                    self._threads.add(thread)
                    self._threads.discard(threading.current_thread())
                    event.set()
                    return
            if not self._native.run_one():
                return


class NativeWorker:
    """What stock's Worker shows. One per process."""

    def __init__(self, native, loop, settings):
        self.native = native
        self.loop = self.io_loop = loop
        self.asyncio_loop = loop.asyncio_loop
        self.name = settings["name"]
        self.nthreads = settings["nthreads"]
        self.memory_limit = settings["memory_limit"]
        self.local_directory = settings["local_directory"]
        self.total_resources = settings["resources"]
        self.security = Security()
        self.connection_args = self.security.get_connection_args("worker")
        self.rpc = ConnectionPool(deserialize=True, timeout=30)
        self.scheduler = self.rpc(settings["scheduler"])
        self.data = Data(native)
        self.state = State(self)
        group = getattr(distributed.core, "AsyncTaskGroup", None)
        self._ongoing_background_tasks = group() if group else None
        self.executor = Executor(native, self.nthreads)
        self.executors = {"default": self.executor}
        self.execution_state = {"scheduler": settings["scheduler"], "ioloop": loop, "worker": self}
        self.status = Status.init
        self.plugins, self.extensions, self.services = {}, {}, {}
        self.active_threads, self.active_threads_lock = {}, threading.Lock()
        # Executions under way by key.
        self.attempts = {}
        self.scheduler_delay = 0
        self.nanny = None
        self.low_level_profiler = False
        self.digests = None
        self.profile_keys = collections.defaultdict(profile.create)
        length = dask.config.get("distributed.admin.low-level-log-length", 1000)
        self.profile_keys_history = collections.deque(maxlen=length)
        self.profile_history = collections.deque(maxlen=length)
        self.profile_recent = profile.create()
        self.blocked_handlers = dask.config.get("distributed.worker.blocked-handlers", [])
        self._client, self._lock = None, threading.RLock()
        self.stream_handlers = {}
        self.handlers = {
            "gather": self.gather,
            "run": self.run,
            "run_coroutine": self.run,
            "update_data": self.update_data,
            "upload_file": self.upload_file,
            "plugin-add": self.plugin_add,
            "plugin_add": self.plugin_add,
            "plugin-remove": self.plugin_remove,
            "plugin_remove": self.plugin_remove,
            "versions": self.versions,
            "get_logs": self.get_logs,
            "call_stack": self.get_call_stack,
            "profile": self.get_profile,
            "profile_metadata": self.get_profile_metadata,
            "set_resources": self.set_resources,
            **{name: self._unbuilt(name) for name in UNBUILT},
        }
        self._log = collections.deque(maxlen=length)

    def _unbuilt(self, name):
        def handler(**_):
            raise NotImplementedError(f"the native worker does not have {name!r} yet")

        return handler

    @property
    def address(self):
        return self.native.address()

    contact_address = worker_address = address_safe = address

    @property
    def id(self):
        return self.native.id()

    def __repr__(self):
        return f"<Worker {self.address!r}, name: {self.name}, status: {self.status.name}, native>"

    def keys(self):
        return list(self.data)

    def identity(self):
        return {
            "type": "Worker",
            "id": self.id,
            "scheduler": self.scheduler.address,
            "nthreads": self.nthreads,
            "memory_limit": self.memory_limit,
        }

    def versions(self, packages=None):
        return get_versions(packages=packages)

    async def run(self, function, args=(), kwargs=None, wait=True):
        return await distributed.worker.run(self, None, function, args=args, kwargs=kwargs, wait=wait)

    def update_data(self, data, report=False, stimulus_id=None, serializers=None):
        sizes = {key: int(safe_sizeof(value)) for key, value in data.items()}
        self.native.update_data([(key, value, sizes[key], *described(value)) for key, value in data.items()], report)
        return {"nbytes": sizes, "status": "OK"}

    def set_resources(self, **resources):
        self.total_resources = {**self.total_resources, **resources}
        self.native.set_resources(resources)
        return self.scheduler.set_resources(resources=self.total_resources, worker=self.address)

    def log_event(self, topic, msg):
        self.native.say(frames_of([{"op": "log-event", "topic": topic, "msg": msg}]))

    def handle_stimulus(self, *events):
        """`secede()` of the environment comes here; nothing else of the state machine is Python's."""
        for event in events:
            if type(event).__name__ != "SecedeEvent":
                raise NotImplementedError(f"the native worker takes no {type(event).__name__} from Python")
            attempt = self.attempts.get(event.key)
            if attempt is not None:
                self.native.secede(attempt, event.compute_duration)

    def get_logs(self, start=0, n=None, timestamps=False):
        records = list(self._log)[::-1][start : None if n is None else start + n]
        if timestamps:
            return [(created, level, text) for created, level, text in records]
        return [(level, text) for _, level, text in records]

    def keep_log(self, record):
        text = f"{record.name} - {record.levelname} - {record.getMessage()}"
        self._log.append((record.created, record.levelname, text))

    def digest_metric(self, name, value):
        """Digests are not sent yet."""

    async def close(self, *_, reason="worker-close", **__):
        self.native.close(reason)

    async def set_up_plugins(self, plugins):
        """Those of the scheduler, before the first task."""
        self.status = Status.running
        if isinstance(plugins, Mapping):
            pairs = list(plugins.items())
        else:
            pairs = [
                (one.get("name"), one["plugin"]) if isinstance(one, dict) else (None, one) for one in plugins or ()
            ]
        for name, plugin in pairs:
            result = self.plugin_add(name=name, plugin=plugin)
            if inspect.isawaitable(result):
                await result

    async def watch_threads(self, interval, cycle):
        """Samples what the threads do, for `Client.profile`."""
        import asyncio

        last = time()
        while True:
            await asyncio.sleep(interval)
            self.trigger_profile()
            if time() - last > cycle:
                last = time()
                self.cycle_profile()


def _borrow():
    stock = distributed.worker.Worker
    found = {name: inspect.getattr_static(stock, name) for name in BORROWED if hasattr(stock, name)}
    return {name: method for name, method in found.items() if name not in NativeWorker.__dict__}


# Its name is part of the protocol (`identity`).
Worker = type("Worker", (NativeWorker,), _borrow())
