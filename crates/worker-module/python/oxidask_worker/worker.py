"""The object that tasks, plugins and `Client.run` see as the worker: stock's documented surface.

What stock's own class does with nothing but that surface is taken from the environment's `distributed`, so that it is
that release's behaviour. What is missing raises an error that says so.
"""

import asyncio
import collections
import inspect
import logging
import threading
import types

import dask
import distributed.core
import distributed.worker
import msgpack
from distributed import preloading, profile
from distributed.comm import get_address_host_port
from distributed.core import ConnectionPool, Status
from distributed.metrics import time
from distributed.security import Security

from oxidask_worker import actors
from oxidask_worker.data import frames_of
from oxidask_worker.executors import Executor, executors
from oxidask_worker.heartbeats import Heartbeats
from oxidask_worker.introspection import Introspection
from oxidask_worker.measures import Measures
from oxidask_worker.plugins import Plugins
from oxidask_worker.state import WorkerState
from oxidask_worker.tasks import described, safe_sizeof

logger = logging.getLogger("distributed.worker")

try:
    from distributed.protocol.serialize import _is_dumpable as is_dumpable
except ImportError:
    # Older releases find out when they send it.
    def is_dumpable(_):
        return True


# Methods that work on the surface below.
BORROWED = (
    "_get_client",
    "_get_cause",
    "_setup_logging",
    "benchmark_disk",
    "benchmark_memory",
    "benchmark_network",
    "client",
    "cycle_profile",
    "gather",
    "get_call_stack",
    "get_current_task",
    "get_monitor_info",
    "get_profile_metadata",
    "logs",
    "send_to_worker",
    "trigger_profile",
    "upload_file",
)

# What answers an operation, where it is not called the same.
OPERATIONS = {
    **{
        name: name
        for name in (
            "actor_attribute actor_execute benchmark_disk benchmark_memory benchmark_network dump_state gather "
            "get_logs get_monitor_info get_story plugin_add plugin_remove run run_coroutine set_resources update_data "
            "upload_file versions"
        ).split()
    },
    "call_stack": "get_call_stack",
    "plugin-add": "plugin_add",
    "plugin-remove": "plugin_remove",
    "profile": "get_profile",
    "profile_metadata": "get_profile_metadata",
}

# Seconds that plugins, preloads and clients are given when the worker ends.
PATIENCE = 10


class Stream:
    """`Worker.batched_stream`: the way for messages to the scheduler."""

    def __init__(self, worker):
        self._worker = worker

    def send(self, *messages):
        for message in messages:
            self._worker.batched_send(message)


class Extensions(dict):
    """`Worker.extensions`. Older releases have a list of classes that enter themselves where they belong."""

    @classmethod
    def of(cls, worker):
        found = cls()
        worker.extensions = found
        classes = getattr(distributed.worker, "DEFAULT_EXTENSIONS", {})
        if isinstance(classes, dict):
            found.update({name: extension(worker) for name, extension in classes.items()})
        else:
            for extension in classes:
                extension(worker)
        return found


class NativeWorker(Introspection, Measures, Plugins, Heartbeats):
    """What stock's Worker shows. One per process."""

    def __init__(self, native, loop, settings):
        self.native, self.views, self.settings = native, native.views(), settings
        self.loop = self.io_loop = loop
        self.asyncio_loop = loop.asyncio_loop
        self.thread_id = threading.get_ident()
        self.name = self.address if settings["name"] is None else settings["name"]
        self.nthreads = settings["nthreads"]
        self.memory_limit = settings["memory_limit"]
        self.local_directory = self.local_dir = settings["local_directory"]
        self.total_resources = settings["resources"]
        self.plugins, self.services, self.stream_comms = {}, {}, {}
        self.periodic_callbacks = {}
        # Functions of the worker whose results the scheduler is told at the registration.
        self.startup_information = dict(getattr(distributed.worker, "DEFAULT_STARTUP_INFORMATION", ()))
        # Executions under way by key.
        self.attempts = {}
        self.scheduler_delay = 0
        self.nanny = settings["nanny"]
        self.digests = None
        self.is_closing = False
        self._setup_logging(logger)
        self._set_up_network(settings)
        self._set_up_profile()
        self._set_up_heartbeats()
        self.executor = Executor(self, self.nthreads)
        self.executors = executors(self.executor)
        self.execution_state = {"scheduler": self.scheduler.address, "ioloop": loop, "worker": self}
        self.active_threads, self.active_threads_lock = {}, threading.Lock()
        self._is_to_look = False
        self.state = WorkerState(self)
        self.memory_manager = types.SimpleNamespace(memory_limit=self.memory_limit, data=self.data)
        self._client, self._lock = None, threading.RLock()
        self._ended = asyncio.Event()
        self.blocked_handlers = dask.config.get("distributed.worker.blocked-handlers", [])
        self.stream_handlers = {}
        self.handlers = self._handlers()
        self.batched_stream = Stream(self)
        Extensions.of(self)
        distributed.worker.Worker._instances.add(self)

    def _set_up_network(self, settings):
        self.security = Security(**settings["security"])
        self.connection_args = self.security.get_connection_args("worker")
        self.rpc = ConnectionPool(deserialize=True, timeout=30, connection_args=self.connection_args)
        self.scheduler = self.rpc(settings["scheduler"])
        self.ip, self.port = get_address_host_port(self.address)
        group = getattr(distributed.core, "AsyncTaskGroup", None)
        self._ongoing_background_tasks = group() if group else None

    def _set_up_profile(self):
        self.low_level_profiler = dask.config.get("distributed.worker.profile.low-level", False)
        self.profile_keys = collections.defaultdict(profile.create)
        length = dask.config.get("distributed.admin.low-level-log-length", 1000)
        self.profile_keys_history = collections.deque(maxlen=length)
        self.profile_history = collections.deque(maxlen=length)
        self.profile_recent = profile.create()

    def _handlers(self):
        """Operations that are not Rust's and that this release has. Plugins may add to them."""
        return {name: getattr(self, method) for name, method in OPERATIONS.items() if hasattr(self, method)}

    @property
    def address(self):
        return self.native.address()

    contact_address = worker_address = address_safe = address

    @property
    def id(self):
        return self.native.id()

    @property
    def data(self):
        return self.state.data

    @property
    def tasks(self):
        return self.state.tasks

    @property
    def actors(self):
        return self.state.actors

    @property
    def status(self):
        if self._ended.is_set():
            return Status.closed
        if self.is_closing:
            return Status.closing
        return Status[self.views.status() or "closing"]

    @status.setter
    def status(self, status):
        name = getattr(status, "name", status)
        self.views.set_status(name, f"worker-status-change-{time()}")

    def __repr__(self):
        name = "" if self.name == self.address else f", name: {self.name}"
        return f"<Worker {self.address!r}{name}, status: {self.status.name}, stored: {len(self.data)}, native>"

    async def run(self, function, args=(), kwargs=None, wait=True):
        return await distributed.worker.run(self, None, function, args=args, kwargs=kwargs or {}, wait=wait)

    run_coroutine = run

    def actor_execute(self, actor=None, function=None, args=(), kwargs=None):
        return actors.execute(self, actor, function, args, kwargs)

    def actor_attribute(self, actor=None, attribute=None):
        return actors.attribute(self, actor, attribute)

    def update_data(self, data, report=False, stimulus_id=None, serializers=None):
        sizes = {key: int(safe_sizeof(value)) for key, value in data.items()}
        self.native.update_data([(key, value, sizes[key], *described(value)) for key, value in data.items()], report)
        return {"nbytes": sizes, "status": "OK"}

    async def set_resources(self, **resources):
        self.total_resources = {**self.total_resources, **resources}
        self.native.set_resources(list(resources.items()))
        await self.scheduler.set_resources(resources=self.total_resources, worker=self.address)

    def batched_send(self, message):
        """Says something on the stream to the scheduler. From any thread."""
        self.native.say(frames_of([message]))

    def log_event(self, topic, msg):
        """In order with what the task or the loop that calls it says next."""
        if not is_dumpable(msg):
            raise TypeError(f"Message must be msgpack serializable. Got {type(msg)=} instead.")
        self.batched_send({"op": "log-event", "topic": topic, "msg": msg})

    def handle_stimulus(self, *events):
        """`secede()` of the environment comes here; nothing else of the state machine is Python's."""
        for event in events:
            if type(event).__name__ != "SecedeEvent":
                raise NotImplementedError(f"the native worker takes no {type(event).__name__} from Python")
            self._secede(event.key, event.compute_duration)

    def maybe_transition_long_running(self, task, compute_duration=None, **_):
        """What `secede()` calls in releases before 2022."""
        self._secede(getattr(task, "key", task), compute_duration)

    def transition(self, task, finish, compute_duration=None, **_):
        """What `worker_client()` calls in those releases."""
        if finish != "long-running":
            raise NotImplementedError(f"tasks of the native worker are not made {finish} by Python")
        self._secede(getattr(task, "key", task), compute_duration)

    def _secede(self, key, seconds):
        attempt = self.attempts.get(key)
        if attempt is not None:
            self.native.secede(attempt, seconds)

    def digest_metric(self, name, value):
        """Digests are not sent yet."""

    async def start(self, preload, preload_argv):
        """What comes before the registration."""
        await self.rpc.start()
        self.preloads = preloading.process_preloads(self, preload, preload_argv, file_dir=self.local_directory)
        if hasattr(self.preloads, "start"):
            await self.preloads.start()
        else:
            for one in self.preloads:
                await one.start()
        await self._tell_startup_information()

    async def _tell_startup_information(self):
        found = {}
        for name, function in self.startup_information.items():
            try:
                value = function(self)
                value = await value if inspect.isawaitable(value) else value
                msgpack.packb(value)
                found[name] = value
            except Exception:
                # Stock leaves it out without a word.
                logger.warning("startup information %r can not be had", name, exc_info=True)
        self.views.add_to_registrations(msgpack.packb(found, use_bin_type=True))

    async def close(self, *_, reason="worker-close", nanny=True, **__):
        self.native.close(reason, nanny)
        await self.finished()
        return "OK"

    async def close_gracefully(self, restart=None, reason="worker-close-gracefully"):
        if restart is None:
            restart = bool(dask.config.get("distributed.worker.lifetime.restart", False))
        self.native.close_gracefully(reason, not restart)
        await self.finished()

    async def finished(self):
        await self._ended.wait()

    async def tear_down(self):
        """After the last task, with the scheduler not there any more."""
        self.is_closing = True
        for callback in self.periodic_callbacks.values():
            callback.stop()
        try:
            await asyncio.wait_for(self._tear_down(), PATIENCE)
        except Exception:
            logger.exception("plugins and preloads could not be torn down in order")
        self._ended.set()

    async def _tear_down(self):
        await self.tear_down_plugins()
        if hasattr(self.preloads, "teardown"):
            await self.preloads.teardown()
        else:
            for one in reversed(self.preloads):
                await one.teardown()
        for client in list(getattr(distributed.worker.Worker, "_initialized_clients", ())):
            client._asynchronous = True
            closing = client.close()
            if inspect.isawaitable(closing):
                await closing

    def look_at_threads(self):
        """Samples what the threads do, for `Client.profile`."""
        self._is_to_look = False
        self.trigger_profile()

    def is_to_look_at_threads(self):
        """To be called from any thread; nothing piles up while the loop stands still."""
        if not self._is_to_look:
            self._is_to_look = True
            self.asyncio_loop.call_soon_threadsafe(self.look_at_threads)

    async def cycle_profiles(self, cycle):
        while True:
            await asyncio.sleep(cycle)
            self.cycle_profile()


def _borrow():
    stock = distributed.worker.Worker
    found = {name: inspect.getattr_static(stock, name) for name in BORROWED if hasattr(stock, name)}
    return {name: method for name, method in found.items() if not hasattr(NativeWorker, name)}


# Its name is part of the protocol (`identity`).
Worker = type("Worker", (NativeWorker,), _borrow())

if hasattr(distributed.worker.Worker, "register"):
    # `isinstance(get_worker(), distributed.Worker)` holds.
    distributed.worker.Worker.register(Worker)
