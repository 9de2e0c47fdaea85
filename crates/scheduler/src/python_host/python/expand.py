"""Turns what a client submitted into single tasks, as the scheduler of this release would.

Three forms arrive: an expression (since 2025.4.0), a pickled HighLevelGraph (2023.4.0 to 2025.3.1),
packed layers (2020.12.0 to 2023.3.2.1). The answer has one layout for all of them, see `answer`.
"""

import pickle
from array import array

from distributed.protocol import deserialize, loads, serialize
from distributed.protocol import pickle as distributed_pickle
from distributed.protocol.serialize import Serialize, Serialized

from .errors import encode_message
from .frames import decode, encode

# Parts of at least this many bytes travel as frames of their own.
LARGE_PART = 1 << 16

# How to read the parts of one run spec.
PICKLED = 0  # a pickle, then its out-of-band buffers
CALL = 1  # pickles of function, args and, if there are three, kwargs
SERIALIZED = 2  # header (msgpack), then frames


def expand(request, frames):
    """(header, frames) of the answer to one `expand` request."""
    graph, annotations = _load(request, frames)
    keys = set(request["keys"])
    form = request["graph"]
    if form == "expression":
        tasks, by_type = _from_expression(graph)
    elif form == "hlg":
        tasks, by_type = _from_hlg(graph)
    elif form == "layers":
        tasks, by_type = _from_layers(graph)
    else:
        raise ValueError("unknown form of graph: %r" % (form,))
    tasks = _cull(tasks, keys)
    # Not needed any more, and possibly as large as the rest.
    del graph
    return _answer(tasks, by_type, annotations)


def _load(request, frames):
    parts = request["frames"]
    graph = frames[: parts["graph"]]
    rest = frames[parts["graph"] :]
    annotations = None
    if rest:
        annotations = pickle.loads(rest[0], buffers=rest[1:]) if rest[1:] else pickle.loads(rest[0])
    try:
        if request["graph"] == "layers":
            return loads(graph, deserialize=False), annotations
        return deserialize(decode(graph[0]), graph[1:]), annotations
    except Exception as error:
        raise RuntimeError(
            "Error during deserialization of the task graph: %s: %s. The Python that expands graphs for "
            "the scheduler could not load what the client sent; usually a module is missing there or "
            "has another version than at the client." % (type(error).__name__, error)
        ) from error


# Each source gives {key: (kind, parts or a function that makes them, dependencies)} without a copy of
# large things, so that culling comes before pickling.


def _from_expression(expression):
    from dask._task_spec import convert_legacy_graph

    by_type = {}
    graph = expression.__dask_graph__()
    for name, values in expression.__dask_annotations__().items():
        by_type.setdefault(name, {}).update(values)
    return {key: (_dump_node, node, node.dependencies) for key, node in convert_legacy_graph(graph).items()}, by_type


def _from_hlg(graph):
    try:
        from dask._task_spec import convert_legacy_graph
    except ImportError:
        convert_legacy_graph = None
    graph = getattr(graph, "data", graph)
    name_of = _stringify() or (lambda key: key)
    by_type = {}
    for layer in graph.layers.values():
        for name, value in (layer.annotations or {}).items():
            values = {name_of(key): value(key) if callable(value) else value for key in layer}
            by_type.setdefault(name, {}).update(values)
    if convert_legacy_graph is not None and _worker_takes_nodes():
        return {
            key: (_dump_node, node, node.dependencies) for key, node in convert_legacy_graph(dict(graph)).items()
        }, by_type
    return _legacy(dict(graph)), by_type


def _worker_takes_nodes():
    import distributed.worker

    # Up to 2024.10.0 a worker knows how to call what is nested in tuples.
    return not hasattr(distributed.worker, "execute_task")


def _legacy(graph):
    """Tuples as tasks (2023.4.0 to 2024.10.0)."""
    from dask.core import keys_in_tasks
    from distributed.utils_comm import unpack_remotedata

    keys = set(graph)
    dump = _dump_triple if _worker_takes_triples() else _dump_legacy
    stringify = _stringify()
    tasks = {}
    for key, task in graph.items():
        dependencies = keys_in_tasks(keys, [task])
        # Futures become the keys of what they stand for.
        task, futures = unpack_remotedata(task, byte_keys=True)
        dependencies.update(future.key for future in futures)
        if stringify is not None:
            key, task = stringify(key), stringify(task, exclusive=keys)
            dependencies = {stringify(dependency) for dependency in dependencies}
        if task is key or (isinstance(task, (str, tuple)) and task == key):
            continue
        dependencies.discard(key)
        tasks[key] = (dump, task, dependencies)
    return tasks


def _stringify():
    """How keys become texts (up to 2023.8.1; later they stay what they are)."""
    import distributed.scheduler

    return getattr(distributed.scheduler, "stringify", None)


def _worker_takes_triples():
    import distributed.worker

    return not hasattr(distributed.worker, "dumps_task")


def _from_layers(message):
    from dask.highlevelgraph import HighLevelGraph

    unpacked = HighLevelGraph.__dask_distributed_unpack__(message["hlg"])
    dependencies = unpacked["deps"]
    tasks = {}
    for key, task in unpacked["dsk"].items():
        if task is key:
            continue
        wanted = set(dependencies.get(key) or ())
        wanted.discard(key)
        tasks[key] = (_dump_legacy, task, wanted)
    return tasks, unpacked["annotations"] or {}


def _cull(tasks, keys):
    """The tasks that `keys` need; the scheduler would not look at any other."""
    kept, stack = {}, [key for key in keys if key in tasks]
    while stack:
        key = stack.pop()
        if key in kept:
            continue
        task = kept[key] = tasks[key]
        stack.extend(dep for dep in task[2] if dep in tasks and dep not in kept)
    if len(kept) == len(tasks):
        return tasks
    return {key: task for key, task in tasks.items() if key in kept}


def _dump_node(node):
    # What stock's `ToPickle(run_spec)` gives, with the common case in front: `dumps` looks at more
    # than the pickle, which is slow for a hundred thousand tasks.
    buffers = []
    try:
        data = pickle.dumps(node, protocol=5, buffer_callback=buffers.append)
        by_reference = b"__main__" not in data
    except Exception:
        by_reference = False
    if not by_reference:
        buffers = []
        data = distributed_pickle.dumps(node, buffer_callback=buffers.append)
    return PICKLED, [data] + [buffer.raw() for buffer in buffers]


def _dump_triple(task):
    from dask.core import istask
    from dask.utils import apply
    from distributed.worker import execute_task

    if istask(task) and not any(map(_nested, task[1:])):
        if task[0] is apply:
            args = list(task[2]) if len(task) > 2 else []
            triple = (task[1], args, task[3] if len(task) > 3 else {})
        else:
            triple = (task[0], task[1:], {})
    else:
        triple = (execute_task, (task,), {})
    return _dump_node(triple)


def _nested(item):
    from dask.core import istask

    if istask(item):
        return True
    return type(item) is list and any(map(_nested, item))


def _dump_legacy(task):
    if not isinstance(task, (dict, Serialize, Serialized)):
        from distributed.worker import dumps_task

        task = dumps_task(task)
    if not isinstance(task, dict) or "function" not in task:
        return SERIALIZED, _serialized(task)
    return CALL, [_pickled(task[name]) for name in ("function", "args", "kwargs") if name in task]


def _pickled(value):
    """A serialised value (arguments in which there may be more of them) as one pickle."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value
    return distributed_pickle.dumps(deserialize(*serialize(value)))


def _serialized(value):
    """Header and frames of a serialised value, as stock would write it."""
    if isinstance(value, Serialized):
        header, frames = value.header, value.frames
    else:
        # Not `value.data`: as a `Serialize`, a collection is looked into for serialised values.
        header, frames = serialize(value)
    return [encode(header)] + list(frames)


def _answer(tasks, by_type, message_wide):
    """The answer's header and frames.

    Frames: keys (msgpack: tasks, then keys of other graphs that they need), kind of each run spec
    (u8), number of parts of each (u32), length of each part (u64), start of each task's dependencies
    (u32, one more than tasks), dependencies (u32, index into keys), annotation set of each task (u32,
    0 for none, else counted from 1; empty when no task has any), the small parts joined, then each
    large part, then for each annotation set the frames of its encoded map.
    """
    index = {key: i for i, key in enumerate(tasks)}
    keys = list(index)
    kinds, counts, lengths = bytearray(), array("I"), array("Q")
    starts, dependencies = array("I", [0]), array("I")
    small, large = bytearray(), []
    for dump, task, needs in tasks.values():
        kind, parts = dump(task)
        kinds.append(kind)
        counts.append(len(parts))
        for part in parts:
            part = memoryview(part).cast("B")
            lengths.append(len(part))
            if len(part) < LARGE_PART:
                small += part
            else:
                large.append(part)
        for key in needs:
            i = index.get(key)
            if i is None:
                i = index[key] = len(keys)
                keys.append(key)
            dependencies.append(i)
        starts.append(len(dependencies))
    sets, set_of_task, set_frames = _annotation_sets(tasks, by_type, message_wide)
    header = {
        "status": "OK",
        "tasks": len(kinds),
        "large": len(large),
        "annotations": sets,
    }
    frames = [encode(keys), kinds, counts, lengths, starts, dependencies, set_of_task, small]
    return header, frames + large + set_frames


def _annotation_sets(tasks, by_type, message_wide):
    sets, encoded, set_of_task = [], [], array("I")
    if not message_wide and not any(by_type.values()):
        return sets, set_of_task, encoded
    known = {}
    for key in tasks:
        annotations = {name: value(key) if callable(value) else value for name, value in (message_wide or {}).items()}
        for name, values in by_type.items():
            value = values.get(key)
            if value is not None:
                annotations[name] = value
        if not annotations:
            set_of_task.append(0)
            continue
        identity = tuple((name, _identity(value)) for name, value in annotations.items())
        number = known.get(identity)
        if number is None:
            facts, frames = _annotation_set(annotations)
            sets.append(facts)
            encoded.extend(frames)
            number = known[identity] = len(sets)
            # Keeps the values alive, so that no other value gets the same id().
            known[id(annotations)] = annotations
        set_of_task.append(number)
    return sets, set_of_task, encoded


def _identity(value):
    if isinstance(value, (str, int, float, bytes)):
        return type(value), value
    return id(value)


def _annotation_set(annotations):
    """What the scheduler itself must know, and the whole map as stock would write it."""
    facts = {}
    for name, value in annotations.items():
        if name in ("workers", "restrictions"):
            if not isinstance(value, (list, tuple, set)):
                value = [value]
            facts["workers"] = [str(worker) for worker in value]
        elif name in ("allow_other_workers", "loose_restrictions"):
            facts["allow_other_workers"] = bool(value)
        elif name == "priority":
            facts["priority"] = float(value)
        elif name == "retries":
            facts["retries"] = int(value)
        elif name == "resources":
            facts["resources"] = {str(k): float(v) for k, v in value.items()}
    frames = encode_message(annotations)
    facts["frames"] = len(frames)
    return facts, frames
