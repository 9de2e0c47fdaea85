"""What functions, plugins and preload modules use of the scheduler besides its state: its methods (most
are RPCs of the native one), streams to peers, handlers of their own, services.
"""

import asyncio
import collections
import os
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from types import SimpleNamespace

from . import spans
from .errors import decode_message, encode_message
from .mirror import State
from .plugins import Plugins

# Methods of stock's Scheduler that are RPCs of the native one: name and op.
METHODS = {
    "get_events": "events",
    "log_event": "log_event",
    "get_logs": "get_logs",
    "get_who_has": "who_has",
    "get_has_what": "has_what",
    "get_ncores": "ncores",
    "get_ncores_running": "ncores_running",
    "get_processing": "processing",
    "get_nbytes": "nbytes",
    "get_task_status": "get_task_status",
    "get_task_prefix_states": "get_task_prefix_states",
    "get_task_stream": "get_task_stream",
    "get_metadata": "get_metadata",
    "set_metadata": "set_metadata",
    "identity": "identity",
    "adaptive_target": "adaptive_target",
    "set_restrictions": "set_restrictions",
    "get_cluster_state": "get_cluster_state",
    "get_story": "get_story",
    "check_idle": "check_idle",
    "workers_to_close": "workers_to_close",
    # Coroutines in stock.
    "broadcast": "broadcast",
    "proxy": "proxy",
    "retire_workers": "retire_workers",
    "restart": "restart",
    "restart_workers": "restart_workers",
    "gather": "gather",
    "scatter": "scatter",
    "replicate": "replicate",
    "rebalance": "rebalance",
    "get_call_stack": "call_stack",
    "get_profile": "profile",
    "get_worker_logs": "worker_logs",
    "register_worker_plugin": "register_worker_plugin",
    "unregister_worker_plugin": "unregister_worker_plugin",
    "register_nanny_plugin": "register_nanny_plugin",
    "unregister_nanny_plugin": "unregister_nanny_plugin",
    "dump_cluster_state_to_url": "dump_cluster_state_to_url",
}

# Settings that stock's Scheduler has as attributes: name, key of the configuration, what it is.
SETTINGS = {
    "idle_timeout": ("distributed.scheduler.idle-timeout", "time"),
    "no_workers_timeout": ("distributed.scheduler.no-workers-timeout", "time"),
    "worker_ttl": ("distributed.scheduler.worker-ttl", "time"),
    "allowed_failures": ("distributed.scheduler.allowed-failures", "plain"),
    "validate": ("distributed.scheduler.validate", "plain"),
    "WORKER_SATURATION": ("distributed.scheduler.worker-saturation", "plain"),
}


class Table(MutableMapping):
    """A dict that tells when it changes."""

    def __init__(self, changed):
        self._items = {}
        self._changed = changed

    def __getitem__(self, key):
        return self._items[key]

    def __setitem__(self, key, value):
        self._items[key] = value
        self._changed()

    def __delitem__(self, key):
        del self._items[key]
        self._changed()

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)

    def __repr__(self):
        return repr(self._items)


class Stream:
    """The stream to a peer, as far as one may write to it."""

    def __init__(self, scheduler, field, name):
        self._scheduler, self._field, self._name = scheduler, field, name

    def send(self, *messages):
        """Queue messages: maps with `op`."""
        for message in messages:
            self._scheduler._ask("send", {self._field: [self._name]}, encode_message(message))

    def closed(self):
        """Whether the peer is gone."""
        return self._name not in getattr(self._scheduler, self._field)


class Streams(Mapping):
    """`stream_comms` (by address of a worker) or `client_comms` (by name)."""

    def __init__(self, scheduler, field):
        self._scheduler, self._field = scheduler, field

    def __getitem__(self, name):
        if name not in getattr(self._scheduler, self._field):
            raise KeyError(name)
        return Stream(self._scheduler, self._field, name)

    def __iter__(self):
        return iter(getattr(self._scheduler, self._field))

    def __len__(self):
        return len(getattr(self._scheduler, self._field))


class Scheduler(State, Plugins):
    """`dask_scheduler`."""

    def __init__(self, ask, basics):
        State.__init__(self, ask, basics)
        Plugins.__init__(self)
        self.handlers = Table(self._tell_handlers)
        self.stream_handlers = Table(self._tell_handlers)
        self.stream_comms = Streams(self, "workers")
        self.client_comms = Streams(self, "clients")
        self.periodic_callbacks = {}
        self.preloads = []
        self.services = {}
        port = basics.get("dashboard_port")
        if port:
            self.services["dashboard"] = self.http_server = SimpleNamespace(port=port)
        self._monitor = self._sampling = self._pool = self._directory = None
        self._amm = self._spans_extension = None
        # What is there from the start, with this one; the rest was left by code of users.
        self._own = frozenset((*self.__dict__, "_own"))

    def _is_lasting(self):
        """Whether there is something here that a new process would not have."""
        return bool(
            self._plugins
            or self.preloads
            or self._amm
            or self.handlers
            or self.stream_handlers
            or self.periodic_callbacks
            or self.__dict__.keys() - self._own
        )

    def _tell_handlers(self):
        self._ask("handlers", {"requests": list(self.handlers), "streams": list(self.stream_handlers)})

    # Surroundings.

    @property
    def status(self):
        from distributed.core import Status

        return Status.running

    @property
    def loop(self):
        from tornado.ioloop import IOLoop

        return IOLoop.current()

    io_loop = loop

    @property
    def port(self):
        return int(self.address.rsplit(":", 1)[1])

    @property
    def ip(self):
        return self.address.split("://", 1)[-1].rsplit(":", 1)[0]

    host = ip

    @property
    def local_directory(self):
        if self._directory is None:
            # Graphs are expanded by other processes, which look there as well.
            path = os.environ.get("OXIDASK_PYTHON_HOST_DIRECTORY")
            if path:
                os.makedirs(path, 0o700, exist_ok=True)
            else:
                path = tempfile.mkdtemp(prefix="oxidask-")
            self._directory = path
            sys.path.insert(0, path)
        return self._directory

    async def upload_file(self, filename, data, load=True):
        """Write a file to the local directory, and import it."""
        from distributed.utils import import_file

        path = os.path.join(self.local_directory, os.path.basename(filename))
        if isinstance(data, str):
            data = data.encode()
        with open(path, "wb") as file:
            file.write(data)
        if load:
            import_file(path)
        return {"status": "OK", "nbytes": len(data)}

    @property
    def monitor(self):
        if self._monitor is None:
            import psutil
            from distributed.system_monitor import SystemMonitor
            from tornado.ioloop import PeriodicCallback

            self._monitor = SystemMonitor()
            if os.environ.get("OXIDASK_PYTHON_HOST_DIRECTORY"):
                # The process that is looked at is the scheduler, not this one.
                self._monitor.proc = psutil.Process(os.getppid())
            self._monitor.update()
            self._sampling = PeriodicCallback(self._monitor.update, 500)
            self._sampling.start()
        return self._monitor

    @property
    def rpc(self):
        if self._pool is None:
            from distributed.core import ConnectionPool
            from distributed.security import Security

            arguments = Security().get_connection_args("scheduler")
            self._pool = ConnectionPool(deserialize=False, connection_args=arguments)
            try:
                from distributed.core import Status

                self._pool.status = Status.running
            except (ImportError, AttributeError):  # older pools need no start
                pass
        return self._pool

    @property
    def extensions(self):
        # What stock has when an extension is turned off. Theirs is state of the native scheduler,
        # which is reached through the methods.
        extensions = collections.defaultdict(lambda: None)
        if self._spans_extension is None:
            self._spans_extension = spans.extension(self)
        if self._spans_extension is not None:
            extensions["spans"] = self._spans_extension
        return extensions

    @property
    def events(self):
        return self.get_events()

    # Messages to peers.

    def worker_send(self, worker, msg):
        """Send a worker a message on its stream."""
        self.stream_comms[worker].send(msg)

    def send_all(self, client_msgs, worker_msgs):
        """Send messages by client and worker."""
        for streams, messages in ((self.client_comms, client_msgs), (self.stream_comms, worker_msgs)):
            for name, msgs in messages.items():
                if name in streams:
                    streams[name].send(*msgs)

    def report(self, msg, ts=None, client=None):
        """Send a message to a client, to those who want a task, or to all."""
        if ts is None:
            names = list(self.clients)
        else:
            names = [wanting.client_key for wanting in ts.who_wants]
        if client is not None and client not in names:
            names.append(client)
        self._ask("send", {"clients": names}, encode_message(msg))

    def request_acquire_replicas(self, addr, keys, *, stimulus_id):
        """Have a worker fetch copies."""
        self._replicas("acquire", addr, keys, stimulus_id)

    def request_remove_replicas(self, addr, keys, *, stimulus_id):
        """Have a worker drop copies."""
        self._replicas("remove", addr, keys, stimulus_id)

    def _replicas(self, action, worker, keys, stimulus_id):
        fields = {"action": action, "worker": worker, "keys": list(keys), "stimulus_id": stimulus_id}
        self._ask("replicas", fields)
        self._forget()

    # Methods.

    def get_comm_cost(self, ts, ws):
        """Seconds it takes to bring a task's inputs to a worker."""
        missing = (dep for dep in ts.dependencies if ws not in dep.who_has)
        return sum(dep.get_nbytes() for dep in missing) / self.bandwidth

    def get_task_duration(self, ts):
        """Seconds a task is expected to run."""
        average = ts.prefix.duration_average
        return average if average >= 0 else 0.5

    def story(self, *keys_or_tasks):
        """Transitions of some tasks."""
        keys = [getattr(key, "key", key) for key in keys_or_tasks]
        return self._request("get_story", keys_or_stimuli=keys)

    async def close(self, timeout=None, reason="unknown"):
        """End the scheduler."""
        await self._in_thread("terminate")

    async def remove_worker(self, address, *args, **kwargs):
        """Take a worker out."""
        await self._in_thread("unregister", address=address)
        return "OK"

    def workers_to_close(self, *args, **kwargs):
        """Workers that can be closed at least cost."""
        if kwargs.get("key") is not None or self._has_hook("valid_workers_downscaling"):
            from distributed.scheduler import Scheduler as Stock

            return Stock.workers_to_close(self, *args, **kwargs)
        return self._call("workers_to_close", args, kwargs)

    def run_policies(self):
        """One round of the memory manager's policies that the native one does not have."""
        self.load_policies()
        self._amm.run_once()

    def load_policies(self):
        """Make the user's policies ready, as configured."""
        if self._amm is None:
            import dask
            from distributed import active_memory_manager as amm

            policies = set()
            for arguments in dask.config.get("distributed.scheduler.active-memory-manager.policies"):
                policy = _import_term(arguments["class"])
                if policy is not amm.ReduceReplicas:
                    policies.add(policy(**{k: v for k, v in arguments.items() if k != "class"}))
            self._amm = amm.ActiveMemoryManagerExtension(self, policies, register=False, start=False)

    def _call(self, method, args, kwargs):
        import inspect

        from distributed.scheduler import Scheduler as Stock

        function = getattr(Stock, method)
        bound = inspect.signature(function).bind(self, *args, **kwargs)
        arguments = dict(bound.arguments)
        arguments.pop(next(iter(arguments)))
        arguments.pop("comm", None)
        arguments.update(arguments.pop("kwargs", {}))
        if inspect.iscoroutinefunction(function):
            return self._in_thread(METHODS[method], **arguments)
        return self._request(METHODS[method], **arguments)

    def _in_thread(self, op, **arguments):
        """A future of the answer to an RPC: the loop goes on, and with it what the RPC may need of it."""
        message = encode_message({"op": op, **arguments})
        return asyncio.get_running_loop().run_in_executor(None, self._rpc, message)

    def _request(self, op, **arguments):
        return self._rpc(encode_message({"op": op, **arguments}))

    def _rpc(self, message):
        from distributed.protocol import deserialize
        from distributed.protocol.serialize import Serialized

        _, frames = self._ask("rpc", {}, message)
        result = decode_message(frames)["result"]
        if isinstance(result, dict) and result.get("status") == "uncaught-error":
            from distributed.core import clean_exception

            fields = {
                name: deserialize(value.header, value.frames) if isinstance(value, Serialized) else value
                for name, value in result.items()
            }
            _, exception, tb = clean_exception(**fields)
            raise exception.with_traceback(tb)
        return result

    def __getattr__(self, name):
        if name in METHODS:
            return lambda *args, **kwargs: self._call(name, args, kwargs)
        if name in SETTINGS:
            return _setting(*SETTINGS[name])
        raise AttributeError(
            "dask_scheduler has no %r here: the scheduler is a native program, and this is a read-only "
            "mirror of its state" % name
        )

    def __repr__(self):
        return "<Scheduler %r (mirror)>" % self.address


def _import_term(name):
    module, _, attribute = name.rpartition(".")
    return getattr(__import__(module, fromlist=[attribute]), attribute)


def _setting(key, kind):
    import dask

    value = dask.config.get(key, default=None)
    if kind == "time" and value is not None:
        from dask.utils import parse_timedelta

        return parse_timedelta(value)
    return value
