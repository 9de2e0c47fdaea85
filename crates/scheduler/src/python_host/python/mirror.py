"""What code of a client sees as `dask_scheduler`: a read-only copy of the scheduler's state.

The scheduler is no Python object any more. This module offers the attributes of stock's `Scheduler`
that look at its state; they are fetched when they are first touched and stay as they are until control
returns to the event loop, so that a function sees one consistent state, as it did in stock.

Tasks come as columns (packed arrays, see `TaskColumns` in `mirror.rs`) and become objects one by one
when they are looked at.
"""

import asyncio
import collections
import weakref
from collections.abc import Mapping

from .errors import decode_message, encode_message
from .frames import decode

STATES = (
    "released",
    "waiting",
    "no-worker",
    "queued",
    "processing",
    "memory",
    "erred",
    "forgotten",
)
UNFINISHED = ("released", "waiting", "no-worker", "queued", "processing")


class _Entity:
    """An object of the state; equal to another one of the same name in the same scheduler."""

    _name = None

    def __init__(self, scheduler, name):
        self._scheduler = scheduler
        setattr(self, type(self)._name, name)

    def _identity(self):
        return getattr(self, type(self)._name)

    def __hash__(self):
        return hash(self._identity())

    def __eq__(self, other):
        return type(self) is type(other) and self._identity() == other._identity()

    def __repr__(self):
        return "<%s %r>" % (type(self).__name__, self._identity())


class _Row(_Entity):
    """An entity whose attributes are the fields of a map that came with the snapshot."""

    _rows = None

    def _row(self):
        return getattr(self._scheduler._light(), type(self)._rows)[self._identity()]

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._row()[name]
        except KeyError:
            raise AttributeError("the mirror of %s has no %r" % (type(self).__name__, name)) from None


class WorkerState(_Row):
    """A worker."""

    _name = "address"
    _rows = "workers"

    @property
    def status(self):
        from distributed.core import Status

        status = self._row()["status"]
        try:
            return Status[status]
        except KeyError:
            return status

    @property
    def has_what(self):
        tasks = self._scheduler._tasks()
        return dict.fromkeys(tasks.where("holders", tasks.worker_index(self.address)))

    @property
    def processing(self):
        tasks = self._scheduler._tasks()
        return set(tasks.where("processing_on", tasks.worker_index(self.address)))

    @property
    def actors(self):
        return {task for task in self.has_what if task.actor}

    def identity(self):
        """As in `Client.scheduler_info()["workers"]`."""
        return self._scheduler.identity()["workers"][self.address]

    def clean(self):
        """A copy without references to tasks; here all are."""
        return self


class ClientState(_Entity):
    """A client or pseudo client."""

    _name = "client_key"

    @property
    def wants_what(self):
        tasks = self._scheduler._tasks()
        return {tasks.at(i) for i in tasks.wants.get(self.client_key, ())}


class _Collection(_Row):
    @property
    def states(self):
        return dict(self._row()["states"])

    @property
    def duration(self):
        return self._row()["duration"]

    def __len__(self):
        return sum(self._row()["states"].values())


class TaskGroup(_Collection):
    """Tasks with a common first part of their keys."""

    _name = "name"
    _rows = "groups"

    @property
    def prefix(self):
        return self._scheduler.task_prefixes.get(self._row()["prefix"])

    @property
    def dependencies(self):
        groups = self._scheduler.task_groups
        return {groups[name] for name in self._row()["dependencies"] if name in groups}

    @property
    def done(self):
        return all(not n or s in ("memory", "erred", "released", "forgotten") for s, n in self.states.items())


class TaskPrefix(_Collection):
    """Tasks of the same kind."""

    _name = "name"
    _rows = "prefixes"

    @property
    def groups(self):
        groups = self._scheduler.task_groups
        return [groups[name] for name in self._row()["groups"] if name in groups]


class TaskState(_Entity):
    """A task."""

    _name = "key"

    def _find(self):
        """(columns, index) now; the index is None once the task is forgotten."""
        tasks = self._scheduler._tasks()
        return tasks, tasks.index.get(self.key)

    def _many(self, column):
        tasks, i = self._find()
        return set() if i is None else {tasks.at(j) for j in tasks.row(column, i)}

    def _number(self, column, missing):
        tasks, i = self._find()
        return missing if i is None else getattr(tasks, column)[i]

    @property
    def state(self):
        return STATES[self._number("states", 7)]

    @property
    def nbytes(self):
        return self._number("nbytes", -1)

    def get_nbytes(self):
        """Size in bytes, or a guess."""
        nbytes = self.nbytes
        return nbytes if nbytes >= 0 else 1024

    @property
    def type(self):
        tasks, i = self._find()
        return None if i is None else tasks.names[tasks.types[i]]

    @property
    def dependencies(self):
        return self._many("dependencies")

    @property
    def dependents(self):
        tasks, i = self._find()
        return set() if i is None else {tasks.at(j) for j in tasks.dependents_of(i)}

    @property
    def waiting_on(self):
        if self.state != "waiting":
            return set()
        return {task for task in self.dependencies if task.state != "memory"}

    @property
    def waiters(self):
        waiting = UNFINISHED[1:]
        return {task for task in self.dependents if task.state in waiting}

    @property
    def who_has(self):
        tasks, i = self._find()
        if i is None:
            return set()
        return {tasks.worker(j) for j in tasks.row("holders", i)}

    @property
    def who_wants(self):
        tasks, i = self._find()
        clients = self._scheduler.clients
        return {clients[c] for c, wants in tasks.wants.items() if i in wants}

    @property
    def processing_on(self):
        tasks, i = self._find()
        on = 0 if i is None else tasks.processing_on[i]
        return tasks.worker(on - 1) if on else None

    @property
    def priority(self):
        tasks, i = self._find()
        if i is None:
            return None
        priority = tasks.priorities[3 * i : 3 * i + 3]
        if priority[0] != priority[0]:
            return None
        return tuple(int(p) if p.is_integer() else p for p in priority)

    @property
    def retries(self):
        return self._number("retries", 0)

    @property
    def suspicious(self):
        return self._number("suspicious", 0)

    @property
    def actor(self):
        return bool(self._number("flags", 0) & 1)

    @property
    def has_lost_dependencies(self):
        return bool(self._number("flags", 0) & 2)

    @property
    def group(self):
        tasks, i = self._find()
        return None if i is None else self._scheduler.task_groups.get(self.group_key)

    @property
    def group_key(self):
        tasks, i = self._find()
        return None if i is None else tasks.group_names[tasks.groups[i]]

    @property
    def prefix(self):
        group = self.group
        return None if group is None else group.prefix

    @property
    def prefix_key(self):
        prefix = self.prefix
        return None if prefix is None else prefix.name

    def _detail(self, name, missing=None):
        if name in ("exception", "traceback", "exception_text", "traceback_text") and self.state != "erred":
            return missing
        detail = self._scheduler._detail_of(self.key)
        return detail.get(name, missing)

    def __getattr__(self, name):
        if name not in _DETAILS:
            raise AttributeError("the mirror of a task has no %r" % name)
        return self._detail(name, _DETAILS[name])


# Attributes that are fetched for one task when they are asked for, and what they are without it.
_DETAILS = {
    "exception": None,
    "traceback": None,
    "exception_text": "",
    "traceback_text": "",
    "exception_blame": None,
    "erred_on": (),
    "annotations": None,
    "metadata": None,
    "worker_restrictions": (),
    "host_restrictions": (),
    "resource_restrictions": None,
    "loose_restrictions": False,
    "run_id": None,
    "run_spec": None,
}


class _Light:
    """Everything but the tasks."""

    def __init__(self, header):
        self.workers = {row["address"]: row for row in header["workers"]}
        self.groups = {row["name"]: row for row in header["groups"]}
        self.prefixes = {row["name"]: row for row in header["prefixes"]}
        self.clients = header["clients"]
        self.totals = header["totals"]
        self.counter = header["counter"]


class _Tasks:
    """The columns of all tasks."""

    def __init__(self, scheduler, header, frames):
        frames = iter(frames)
        columns = {}
        self.keys = decode(next(frames))
        for name, code in header["columns"]:
            columns[name] = memoryview(bytes(next(frames))).cast(code)
        self.__dict__.update(columns)
        self.index = {key: i for i, key in enumerate(self.keys)}
        self.worker_addresses = header["worker_addresses"]
        self.group_names = header["group_names"]
        self.names = header["type_names"]
        self.wants = {client: frozenset(rows) for client, rows in header["wants"].items()}
        self._scheduler = scheduler
        self._dependents = None

    def at(self, i):
        return self._scheduler._task(self.keys[i])

    def row(self, column, i):
        starts = getattr(self, column + "_starts")
        return getattr(self, column)[starts[i] : starts[i + 1]]

    def worker(self, i):
        return self._scheduler._worker(self.worker_addresses[i])

    def worker_index(self, address):
        try:
            return self.worker_addresses.index(address)
        except ValueError:
            return None

    def where(self, column, worker):
        if worker is None:
            return
        for i in range(len(self.keys)):
            if column == "holders":
                found = worker in self.row("holders", i)
            else:
                found = self.processing_on[i] == worker + 1
            if found:
                yield self.at(i)

    def dependents_of(self, i):
        if self._dependents is None:
            self._dependents = {}
            for j in range(len(self.keys)):
                for d in self.row("dependencies", j):
                    self._dependents.setdefault(d, []).append(j)
        return self._dependents.get(i, ())


class _TasksByKey(Mapping):
    """`dask_scheduler.tasks`."""

    def __init__(self, scheduler):
        self._scheduler = scheduler

    def __getitem__(self, key):
        if key not in self._scheduler._tasks().index:
            raise KeyError(key)
        return self._scheduler._task(key)

    def __contains__(self, key):
        return key in self._scheduler._tasks().index

    def __iter__(self):
        return iter(list(self._scheduler._tasks().index))

    def __len__(self):
        return len(self._scheduler._tasks().index)

    def __repr__(self):
        return "<%d tasks>" % len(self)


class _Exceptions(Mapping):
    """`dask_scheduler.exceptions`, which releases up to 2.30.1 have."""

    def __init__(self, tasks, name):
        self._tasks, self._name = tasks, name

    def __getitem__(self, key):
        value = getattr(self._tasks[key], self._name)
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self):
        return (key for key, task in self._tasks.items() if task.state == "erred")

    def __len__(self):
        return sum(1 for _ in self)


# Methods of stock's Scheduler that are RPCs of the native one: name and op.
_METHODS = {
    "get_comm_cost": None,
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
    "workers_to_close": "workers_to_close",
    "story": None,
    # Coroutines in stock.
    "broadcast": "broadcast",
    "retire_workers": "retire_workers",
    "restart": "restart",
    "restart_workers": "restart_workers",
    "gather": "gather",
    "scatter": "scatter",
    "replicate": "replicate",
    "rebalance": "rebalance",
    "get_call_stack": "call_stack",
    "get_profile": "profile",
}


class Scheduler:
    """`dask_scheduler`. `ask(what, fields, frames)` puts a question to the native scheduler."""

    def __init__(self, ask, basics):
        self._ask = ask
        self._cached_light = None
        self._cached_tasks = None
        self._details = {}
        self._task_objects = weakref.WeakValueDictionary()
        self._worker_objects = weakref.WeakValueDictionary()
        self._plugins = {}
        self._seen = {}
        self._detailed = False
        self.address = basics["address"]
        self.id = basics["id"]
        self.started = basics["started"]
        self.services = {}
        self.tasks = _TasksByKey(self)

    # What was fetched is forgotten when control returns to the event loop.

    def _fetch(self, scope):
        self._install(*self._ask("snapshot", {"scope": scope}))

    def _install(self, header, frames):
        self._cached_light = _Light(header)
        if frames:
            self._cached_tasks = _Tasks(self, header, frames)
        try:
            asyncio.get_running_loop().call_soon(self._forget)
        except RuntimeError:
            # A thread of the user's: no events to tell when the state may change.
            pass

    def _forget(self):
        self._cached_light = self._cached_tasks = None
        self._details.clear()

    def _light(self):
        if self._cached_light is None:
            self._fetch("workers")
        return self._cached_light

    def _tasks(self):
        if self._cached_tasks is None:
            self._fetch("tasks")
        return self._cached_tasks

    def _task(self, key):
        task = self._task_objects.get(key)
        if task is None:
            task = self._task_objects[key] = TaskState(self, key)
        return task

    def _worker(self, address):
        worker = self._worker_objects.get(address)
        if worker is None:
            worker = self._worker_objects[address] = WorkerState(self, address)
        return worker

    def _detail_of(self, key):
        if key not in self._details:
            _, frames = self._ask("task", {"key": key})
            self._details[key] = decode_message(frames)
        return self._details[key]

    # Tables.

    @property
    def workers(self):
        return {address: self._worker(address) for address in self._light().workers}

    @property
    def clients(self):
        return {name: ClientState(self, name) for name in self._light().clients}

    @property
    def task_groups(self):
        return {name: TaskGroup(self, name) for name in self._light().groups}

    @property
    def task_prefixes(self):
        return {name: TaskPrefix(self, name) for name in self._light().prefixes}

    @property
    def aliases(self):
        return {row["name"]: address for address, row in self._light().workers.items()}

    @property
    def exceptions(self):
        return _Exceptions(self.tasks, "exception")

    @property
    def tracebacks(self):
        return _Exceptions(self.tasks, "traceback")

    def _by_flag(self, flag):
        return {a: self._worker(a) for a, row in self._light().workers.items() if row[flag]}

    @property
    def idle(self):
        return self._by_flag("is_idle")

    @property
    def saturated(self):
        return set(self._by_flag("is_saturated").values())

    @property
    def running(self):
        return {w for w in self.workers.values() if w._row()["status"] == "running"}

    def _in_state(self, *states):
        tasks = self._tasks()
        wanted = {STATES.index(state) for state in states}
        return {tasks.at(i) for i, state in enumerate(tasks.states) if state in wanted}

    @property
    def queued(self):
        return self._in_state("queued")

    @property
    def unrunnable(self):
        return self._in_state("no-worker")

    @property
    def events(self):
        return self.get_events()

    # Figures.

    @property
    def total_nthreads(self):
        return self._light().totals["nthreads"]

    @property
    def total_memory(self):
        return self._light().totals["memory"]

    @property
    def total_occupancy(self):
        return self._light().totals["occupancy"]

    @property
    def bandwidth(self):
        return self._light().totals["bandwidth"]

    @property
    def is_idle(self):
        return self._light().totals["is_idle"]

    @property
    def transition_counter(self):
        return self._light().counter

    @property
    def status(self):
        from distributed.core import Status

        return Status.running

    @property
    def loop(self):
        from tornado.ioloop import IOLoop

        return IOLoop.current()

    @property
    def extensions(self):
        # What stock has when an extension is turned off. Theirs is state of the native scheduler,
        # which is reached through the methods below.
        return collections.defaultdict(lambda: None)

    # Plugins of this process; told of transitions while there is any.

    @property
    def plugins(self):
        return PluginTable(self)

    def add_plugin(self, plugin=None, idempotent=False, name=None, **kwargs):
        """Have `plugin.transition` called for what happens from now on."""
        if isinstance(plugin, type):
            plugin = plugin(self, **kwargs)
        name = name or getattr(plugin, "name", None) or "%s-%d" % (type(plugin).__name__, id(plugin))
        if name in self._plugins and idempotent:
            return
        # What workers tell with each result is a lot; progress bars have no use for it.
        if not type(plugin).__module__.startswith("distributed.diagnostics.progress"):
            self._detailed = True
        fields = {"on": True, "detailed": self._detailed}
        header, frames = self._ask("observe", fields)
        self._plugins[name] = plugin
        self._seen[name] = header["counter"]
        self._install(header, frames)

    def remove_plugin(self, name=None, plugin=None):
        """Take a plugin out."""
        if name is None:
            name = next((n for n, p in self._plugins.items() if p is plugin), None)
        self._plugins.pop(name)
        self._seen.pop(name, None)
        if not self._plugins:
            self._detailed = False
            self._ask("observe", {"on": False})

    def _transition(self, sequence, key, start, finish, stimulus_id, details):
        """Pass a state change on; `details` are what the worker told."""
        import logging

        start, finish = STATES[start], STATES[finish]
        if finish == "erred" and start == "processing":
            # Without details it must still be there: plugins ask whether there is one.
            details.setdefault("exception", True)
            details.setdefault("traceback", None)
        for name, plugin in list(self._plugins.items()):
            if sequence <= self._seen.get(name, 0) or not hasattr(plugin, "transition"):
                continue
            try:
                plugin.transition(key, start, finish, stimulus_id=stimulus_id, **details)
            except Exception:
                logging.getLogger("distributed.scheduler").exception("Plugin %s failed", name)

    def _restarted(self):
        for plugin in list(self._plugins.values()):
            if hasattr(plugin, "restart"):
                plugin.restart(self)

    # Methods that the native scheduler serves as RPCs.

    def _call(self, method, args, kwargs):
        import inspect

        from distributed.scheduler import Scheduler as Stock

        function = getattr(Stock, method)
        bound = inspect.signature(function).bind(self, *args, **kwargs)
        arguments = dict(bound.arguments)
        arguments.pop(next(iter(arguments)))
        arguments.pop("comm", None)
        arguments.update(arguments.pop("kwargs", {}))
        message = encode_message({"op": _METHODS[method], **arguments})
        if inspect.iscoroutinefunction(function):
            return asyncio.get_running_loop().run_in_executor(None, self._rpc, message)
        return self._rpc(message)

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
        if _METHODS.get(name):
            return lambda *args, **kwargs: self._call(name, args, kwargs)
        raise AttributeError(
            "dask_scheduler has no %r here: the scheduler is a native program, and this is a read-only "
            "mirror of its state" % name
        )

    def __repr__(self):
        return "<Scheduler %r (mirror)>" % self.address


class PluginTable(dict):
    """`dask_scheduler.plugins`: a dict by name; a list of plugins in releases up to 2021.11."""

    def __init__(self, scheduler):
        super().__init__(scheduler._plugins)
        self._scheduler = scheduler

    def __contains__(self, plugin):
        if isinstance(plugin, str):
            return dict.__contains__(self, plugin)
        return any(plugin is one for one in self.values())

    def remove(self, plugin):
        """As a list has it."""
        self._scheduler.remove_plugin(plugin=plugin)
