"""What `worker.state` and `worker.data` show: looks at the state machine and the store, which are in Rust.

Attributes have stock's names. A look at a task is what was true when it was taken.
"""

import collections
import contextlib
import threading
from collections.abc import Mapping, MutableMapping

import msgpack
from dask.utils import key_split
from distributed import protocol

from oxidask_worker.actors import Actors, StoredActor
from oxidask_worker.tasks import described, safe_sizeof

# Tasks whose metadata can be added to.
MAX_METADATA = 1000


class Data(MutableMapping):
    """`Worker.data`: what is in the store. Actors are not among it, as in stock."""

    def __init__(self, native, actors):
        self._native, self._actors = native, actors

    def __getitem__(self, key):
        value = self._native.get(key)
        if type(value) is StoredActor:
            raise KeyError(key)
        return value

    def __setitem__(self, key, value):
        self._native.update_data([(key, value, int(safe_sizeof(value)), *described(value))], False)
        # It is there when the state machine has answered a question that came later.
        self._native.views().task(key)

    def __delitem__(self, key):
        """The scheduler is told that this copy is gone, and has it made again if somebody wants it."""
        if key not in self:
            raise KeyError(key)
        views = self._native.views()
        views.remove_data(key)
        views.task(key)
        if self._native.has(key):
            raise ValueError(f"{key!r} is needed by tasks of this worker")

    def __iter__(self):
        keys = self._native.keys()
        return iter([key for key in keys if key not in self._actors] if self._actors else keys)

    def __len__(self):
        return sum(1 for _ in self) if self._actors else self._native.count()

    def __contains__(self, key):
        return self._native.has(key) and key not in self._actors

    @property
    def disk(self):
        """Keys whose values are on disk, for looking only."""
        return self._native.keys_on_disk()

    @property
    def memory(self):
        """Keys whose values are in memory, for looking only."""
        on_disk = set(self.disk)
        return [key for key in self if key not in on_disk]

    fast, slow = memory, disk

    @property
    def spilled_total(self):
        """Bytes on disk: as `sizeof` estimated them, and of the files."""
        return self._native.sizes()[1:]

    @property
    def cumulative_metrics(self):
        return {(label, unit): value for label, unit, value in self._native.spilling()}

    def __repr__(self):
        return f"<data of the native worker: {len(self)} keys>"


class TaskState:
    """A task as the worker knows it."""

    previous = next = type = stop_time = None
    suspicious_count = 0
    done = False

    def __init__(self, state, image):
        self._state = state
        self.key = image["key"]
        self.prefix = key_split(self.key)
        self.state = image["state"]
        self.run_id = image.get("run_id", -1)
        self.nbytes = image.get("nbytes")
        self.priority = image.get("priority")
        self.who_has = set(image.get("who_has", ()))
        self.coming_from = image.get("coming_from")
        self.resource_restrictions = image.get("resource_restrictions") or {}
        self.annotations = image.get("annotations")
        self.span_id = image.get("span_id")
        self.start_time = image.get("start_time")
        self.actor = image.get("actor", False)
        self._links = {name: image.get(name, ()) for name in ("dependencies", "dependents", "waiting_for_data")}

    def _others(self, name):
        found = (self._state.tasks.get(key) for key in self._links[name])
        return {task for task in found if task is not None}

    @property
    def dependencies(self):
        return self._others("dependencies")

    @property
    def dependents(self):
        return self._others("dependents")

    waiters = dependents

    @property
    def waiting_for_data(self):
        return self._others("waiting_for_data")

    @property
    def run_spec(self):
        """What is to be run, until it begins."""
        spec = self._state._views.run_spec(self.key)
        return None if spec is None else protocol.pickle.loads(spec[0], buffers=spec[1])

    def _failure(self):
        found = self._state._views.failure(self.key) if self.state == "error" else None
        return found or (None, None, "", "")

    @property
    def exception(self):
        """As stock has it: ready to be sent. Of the latest failures of the worker."""
        pickled = self._failure()[0]
        return None if pickled is None else protocol.to_serialize(protocol.pickle.loads(pickled))

    @property
    def traceback(self):
        pickled = self._failure()[1]
        return None if pickled is None else protocol.to_serialize(protocol.pickle.loads(pickled))

    @property
    def exception_text(self):
        return self._failure()[2]

    @property
    def traceback_text(self):
        return self._failure()[3]

    @property
    def startstops(self):
        """Transfers and the run, once the task is done; of the latest thousand."""
        found = []
        for action, start, stop, source in self._state._views.spans(self.key):
            found.append({"action": action, "start": start, "stop": stop})
            if source is not None:
                found[-1]["source"] = source
        return found

    @property
    def metadata(self):
        """Told to the scheduler when the task is done."""
        return self._state.metadata_of(self.key)

    def get_nbytes(self):
        return self.nbytes or 0

    def __eq__(self, other):
        return isinstance(other, TaskState) and self.key == other.key

    def __hash__(self):
        return hash(self.key)

    def __repr__(self):
        return f"<TaskState {self.key!r} {self.state}>"

    def _to_dict_no_nest(self, *, exclude=()):
        """For cluster dumps: other tasks by what they print."""
        names = (
            "key run_id dependencies dependents waiting_for_data waiters state priority who_has coming_from "
            "resource_restrictions startstops start_time metadata nbytes annotations span_id"
        ).split()
        found = {name: getattr(self, name) for name in names if name not in exclude}
        links = ("dependencies", "dependents", "waiting_for_data", "waiters")
        return {name: list(map(repr, v)) if name in links else v for name, v in found.items() if v}


class Metadata(collections.UserDict):
    """`TaskState.metadata`; every change goes to the state machine."""

    def __init__(self, key, views):
        self._key, self._views = key, views
        super().__init__()

    def __setitem__(self, name, value):
        super().__setitem__(name, value)
        self._views.set_metadata(self._key, msgpack.packb(self.data, use_bin_type=True))

    def __delitem__(self, name):
        super().__delitem__(name)
        self._views.set_metadata(self._key, msgpack.packb(self.data, use_bin_type=True))


class Tasks(Mapping):
    """`Worker.state.tasks`."""

    def __init__(self, state, views):
        self._state, self._views = state, views
        self._then = threading.local()

    @contextlib.contextmanager
    def as_it_was(self, key, state, image):
        """For this thread, the task in a state that it may have left by now."""
        if state == "forgotten":
            image = None
        else:
            image = {**(image or {}), "key": key, "state": state}
        self._then.key, self._then.image = key, image
        try:
            yield
        finally:
            del self._then.key, self._then.image

    def __getitem__(self, key):
        image = self._then.image if getattr(self._then, "key", self) == key else self._views.task(key)
        if image is None:
            raise KeyError(key)
        return TaskState(self._state, image)

    def __iter__(self):
        return iter(self._views.keys())

    def __len__(self):
        return len(self._views.keys())

    def values(self):
        return [TaskState(self._state, image) for image in self._views.tasks()]

    def items(self):
        return [(task.key, task) for task in self.values()]


class Counter:
    """`Worker.state.task_counter`."""

    def __init__(self, views):
        self._views = views

    def current_count(self, by_prefix=False):
        if by_prefix:
            tasks = self._views.tasks() or ()
            return dict(collections.Counter((key_split(task["key"]), task["state"]) for task in tasks))
        return dict((self._views.state() or {}).get("task_counts", ()))


class WorkerState:
    """`Worker.state`. What changes it is done by the scheduler and the worker itself."""

    _SETS_OF_TASKS = frozenset(
        "ready constrained executing long_running waiting in_flight_tasks missing_dep_flight".split()
    )
    _FIGURES = frozenset(
        "nbytes executing_count executed_count transition_counter task_counts total_resources available_resources "
        "transfer_incoming_bytes transfer_incoming_count transfer_incoming_count_total".split()
    )

    def __init__(self, worker):
        self._worker, self._views = worker, worker.native.views()
        # Of the last tasks that were asked about; what is in it is told at once.
        self._metadata = {}
        self.address, self.nthreads = worker.address, worker.nthreads
        self.actors = Actors(worker.native)
        self.data = Data(worker.native, self.actors)
        self.tasks = Tasks(self, self._views)
        self.task_counter = Counter(self._views)
        self.plugins = worker.plugins
        self.validate = worker.settings["validate"]

    def __getattr__(self, name):
        if name in self._SETS_OF_TASKS:
            keys = (self._views.state() or {}).get(name, ())
            found = [self.tasks.get(key) for key in keys]
            found = [task for task in found if task is not None]
            return found if name in ("ready", "constrained") else set(found)
        if name in self._FIGURES:
            return (self._views.state() or {}).get(name, 0)
        raise AttributeError(f"the state of the native worker has no {name!r}")

    @property
    def running(self):
        return self._worker.status.name == "running"

    @property
    def in_flight_tasks_count(self):
        return len(self.in_flight_tasks)

    @property
    def all_running_tasks(self):
        return self.executing | self.long_running

    @property
    def log(self):
        return self._views.log(100_000) or ()

    def metadata_of(self, key):
        found = self._metadata.get(key)
        if found is None:
            found = self._metadata[key] = Metadata(key, self._views)
            if len(self._metadata) > MAX_METADATA:
                del self._metadata[next(iter(self._metadata))]
        return found

    def story(self, *keys_or_tasks_or_stimuli):
        keys = [getattr(one, "key", one) for one in keys_or_tasks_or_stimuli]
        return list(self._views.story(keys, [key for key in keys if isinstance(key, str)]) or ())

    def _to_dict(self, *, exclude=()):
        """Of stock's form, for cluster dumps."""
        image = self._views.state() or {}
        names = (
            "ready constrained executing long_running waiting in_flight_tasks missing_dep_flight task_counts "
            "transition_counter"
        ).split()
        info = {
            "address": self.address,
            "nthreads": self.nthreads,
            "running": self.running,
            "data": dict.fromkeys(self.data),
            "log": self.log,
            "tasks": {task.key: task for task in self.tasks.values()},
            **{name: image.get(name) for name in names},
        }
        return {name: value for name, value in info.items() if name not in exclude}
