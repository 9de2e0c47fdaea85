"""What code of a client, a plugin or a preload module sees as the scheduler: a copy of its state.

The scheduler is no Python object any more. This module offers the attributes of stock's `Scheduler`
that look at its state; they are fetched when they are first touched and stay as they are until control
returns to the event loop, so that a function sees one consistent state, as it did in stock.

Tasks come as columns (packed arrays, see `TaskColumns` in `mirror.rs`) and become objects one by one
when they are looked at. Who looks at single tasks of many gets only these.

`shell.py` adds what a scheduler offers besides its state, `plugins.py` its plugins.
"""

import asyncio
import weakref
from collections.abc import Mapping

from .errors import decode_message
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
    """A worker; keeps what was last known of it when it is gone."""

    _name = "address"

    def __init__(self, scheduler, address, row):
        super().__init__(scheduler, address)
        self._last = row

    def _row(self):
        row = self._scheduler._light().workers.get(self.address)
        # Another worker may have come to the same address.
        if row is not None and row["server_id"] == self._last["server_id"]:
            self._last = row
        return self._last

    def _identity(self):
        return self.address, self._last["server_id"]

    def __repr__(self):
        row = self._row()
        return "<WorkerState %r, name: %s, status: %s>" % (self.address, row["name"], row["status"])

    @property
    def memory(self):
        return _memory_state(self._row()["memory"])

    @property
    def long_running(self):
        return {self._scheduler._task(key) for key in self._row()["long_running"]}

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
        return dict.fromkeys(self._scheduler._tasks().held_by(self.address))

    @property
    def processing(self):
        return set(self._scheduler._tasks().processed_by(self.address))

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
    _last = None

    def _row(self):
        row = self._scheduler._light().groups.get(self.name, self._last)
        if row is None:
            raise KeyError(self.name)
        self._last = row
        return row

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
        return self._scheduler._row_of(self.key)

    def __repr__(self):
        return "<TaskState %r %s>" % (self.key, self.state)

    def _many(self, column):
        tasks, i = self._find()
        return set() if i is None else {tasks.at(j) for j in tasks.row(column, i)}

    def _number(self, column, missing):
        tasks, i = self._find()
        return missing if i is None else getattr(tasks, column)[i]

    @property
    def state(self):
        # While plugins are told of a transition, the task is where that took it.
        now = self._scheduler._now.get(self.key)
        return STATES[self._number("states", 7)] if now is None else now

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


def _memory_state(fields):
    import inspect

    from distributed.scheduler import MemoryState

    # Names up to 2023.3.
    older = {"managed_in_memory": "managed", "managed_spilled": "spilled"}
    names = inspect.signature(MemoryState).parameters
    return MemoryState(**{name: fields[older.get(name, name)] for name in names})


class _Tasks:
    """The columns of all tasks, or of some."""

    # Only of some tasks: in a copy of all they follow from the dependencies.
    dependents = None

    def __init__(self, scheduler, header, frames):
        frames = iter(frames)
        columns = {}
        self._by_worker = {}
        self.keys = decode(next(frames))
        for name, code in header["columns"]:
            columns[name] = memoryview(bytes(next(frames))).cast(code)
        self.__dict__.update(columns)
        # Keys after these are only referred to.
        self.index = {key: i for i, key in enumerate(self.keys[: header["rows"]])}
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

    def processed_by(self, address):
        return self._of_worker("processing_on", address)

    def held_by(self, address):
        return self._of_worker("holders", address)

    def _of_worker(self, column, address):
        tasks = self._by_worker.get(column)
        if tasks is None:
            tasks = self._by_worker[column] = {}
            for i in range(len(self.index)):
                if column == "holders":
                    for worker in self.row("holders", i):
                        tasks.setdefault(worker, []).append(i)
                elif self.processing_on[i]:
                    tasks.setdefault(self.processing_on[i] - 1, []).append(i)
        try:
            worker = self.worker_addresses.index(address)
        except ValueError:
            return []
        return [self.at(i) for i in tasks.get(worker, ())]

    def dependents_of(self, i):
        if self.dependents is not None:
            return self.row("dependents", i)
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
        if key not in self:
            raise KeyError(key)
        return self._scheduler._task(key)

    def __contains__(self, key):
        return key in self._scheduler._now or self._scheduler._row_of(key)[1] is not None

    def __iter__(self):
        return iter(list(self._scheduler._tasks().index))

    def __len__(self):
        return self._scheduler._light().totals["tasks"]

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


class Computation:
    """What a client computed, from the first graph to the end of the work."""

    def __init__(self, scheduler, fields):
        try:
            from distributed.client import SourceCode
        except ImportError:  # before 2023.3.1 the code was one text

            def frame(frame):
                return frame
        else:

            def frame(frame):
                return SourceCode(*frame) if isinstance(frame, (tuple, list)) else frame

        self._scheduler = scheduler
        self._groups = fields["groups"]
        self.id = fields["id"]
        self.start = fields["start"]
        self.annotations = dict(fields["annotations"])
        # Clients that collect no code send an empty one.
        code = filter(None, fields["code"])
        self.code = [c if isinstance(c, str) else tuple(map(frame, c)) for c in code]

    @property
    def groups(self):
        groups = self._scheduler.task_groups
        return {groups[name] for name in self._groups if name in groups}

    @property
    def stop(self):
        return max((group.stop for group in self.groups), default=-1)

    @property
    def states(self):
        states = dict.fromkeys(STATES, 0)
        for group in self.groups:
            for state, count in group.states.items():
                states[state] += count
        return states

    def __repr__(self):
        counts = ", ".join("%s: %d" % item for item in sorted(self.states.items()) if item[1])
        return "<Computation %s: Tasks: %s>" % (self.id, counts)


class State:
    """The state of the scheduler. `ask(what, fields, frames)` puts a question to the native one."""

    def __init__(self, ask, basics):
        self._ask = ask
        self._cached_light = None
        self._cached_tasks = None
        self._cached_spans = None
        # Single tasks: (columns, index).
        self._rows = {}
        self._details = {}
        self._task_objects = weakref.WeakValueDictionary()
        self._worker_objects = weakref.WeakValueDictionary()
        # What plugins are being told of: states by key, and keys of which they are told next.
        self._now = {}
        self._coming = ()
        # Rows of workers of whose coming plugins were told, and of whose leaving they were not.
        self._arrived = {}
        self.address = basics["address"]
        self.id = basics["id"]
        self.started = self.time_started = basics["started"]
        self.tasks = _TasksByKey(self)

    # What was fetched is forgotten when control returns to the event loop.

    def _fetch(self, scope):
        self._install(*self._ask("snapshot", {"scope": scope}))

    def _install(self, header, frames):
        self._cached_light = light = _Light(header)
        for address, row in self._arrived.items():
            light.workers.setdefault(address, row)
        if frames:
            self._cached_tasks = _Tasks(self, header, frames)
        self._forget_later()

    def _row_of(self, key):
        if self._cached_tasks is None and key not in self._rows:
            self._fetch_rows(key)
        tasks = self._cached_tasks
        if tasks is not None:
            return tasks, tasks.index.get(key)
        return self._rows[key]

    def _fetch_rows(self, key):
        keys = [k for k in self._coming if k not in self._rows] if key in self._coming else []
        keys.append(key)
        header, frames = self._ask("tasks", {"keys": keys})
        tasks = _Tasks(self, header, frames)
        if tasks.dependents is None:
            # There are so few tasks that all of them came.
            self._install(header, ())
            self._cached_tasks = tasks
            return
        for k in keys:
            self._rows[k] = tasks, tasks.index.get(k)
        self._forget_later()

    def _forget_later(self):
        try:
            asyncio.get_running_loop().call_soon(self._forget)
        except RuntimeError:
            # A thread of the user's: no events to tell when the state may change.
            pass

    def _forget(self):
        self._cached_light = self._cached_tasks = self._cached_spans = None
        self._rows.clear()
        self._details.clear()

    def _light(self):
        if self._cached_light is None:
            self._fetch("workers")
        return self._cached_light

    def _tasks(self):
        if self._cached_tasks is None:
            self._fetch("tasks")
        return self._cached_tasks

    def _spans(self):
        if self._cached_spans is None:
            header, frames = self._ask("spans")
            self._install(header, ())
            self._cached_spans = decode_message(frames)
        return self._cached_spans

    def _task(self, key):
        task = self._task_objects.get(key)
        if task is None:
            task = self._task_objects[key] = TaskState(self, key)
        return task

    def _worker(self, address):
        row = self._light().workers.get(address)
        if row is None:
            # It left between two questions.
            row = {"address": address, "name": address, "server_id": None, "status": "closed"}
        name = address, row["server_id"]
        worker = self._worker_objects.get(name)
        if worker is None:
            worker = self._worker_objects[name] = WorkerState(self, address, row)
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
    def replicated_tasks(self):
        tasks = self._tasks()
        return {tasks.at(i) for i in range(len(tasks.index)) if len(tasks.row("holders", i)) > 1}

    @property
    def bandwidth_workers(self):
        return {
            (peer, address): bandwidth
            for address, measured in self._bandwidths()
            for peer, bandwidth in measured.get("workers", {}).items()
        }

    @property
    def bandwidth_types(self):
        types = {}
        for _, measured in self._bandwidths():
            for name, bandwidth in measured.get("types", {}).items():
                types.setdefault(name, []).append(bandwidth)
        return {name: sum(found) / len(found) for name, found in types.items()}

    def _bandwidths(self):
        for address, row in self._light().workers.items():
            measured = row["metrics"].get("bandwidth")
            if isinstance(measured, dict):
                yield address, measured

    @property
    def host_info(self):
        hosts = {}
        for address, row in self._light().workers.items():
            info = hosts.setdefault(row["host"], {"addresses": set(), "nthreads": 0})
            info["addresses"].add(address)
            info["nthreads"] += row["nthreads"]
        return hosts

    @property
    def computations(self):
        _, frames = self._ask("computations")
        return [Computation(self, fields) for fields in decode_message(frames)["computations"]]

    @property
    def transition_log(self):
        _, frames = self._ask("transition_log", {})
        return [tuple(row) for row in decode_message(frames)["rows"]]

    # Figures.

    @property
    def total_nthreads(self):
        return self._light().totals["nthreads"]

    @property
    def total_nthreads_history(self):
        """(time, number of threads from then on), the first ones may be missing."""
        return [(self.started, 0), *map(tuple, self._spans()["total_nthreads_history"])]

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
    def memory(self):
        fields = dict.fromkeys(("process", "unmanaged_old", "managed", "spilled"), 0)
        for row in self._light().workers.values():
            for name in fields:
                fields[name] += row["memory"][name]
        return _memory_state(fields)
