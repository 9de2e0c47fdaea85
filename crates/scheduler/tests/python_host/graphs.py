"""The stock side of the tests: submits graphs as a client would, and judges what became of them.

Arguments: make or check, then any number of NAME FOLDER pairs.

    make      writes request.msgpack: {form, keys, frames, annotations}
    check     reads expanded.msgpack: [[key, kind, values, dependencies, annotation frames or nil],
              ...] (a value is an array of frames), compares it with what stock makes of the same
              submission, and runs it; prints "ok" at the end
"""

import importlib
import operator
import os
import pickle
import sys

import dask
import msgpack
from distributed.protocol import deserialize, dumps, loads, serialize, to_serialize


class Trap:
    """Runs `source` where it is unpickled; not here, where dask loads it to make a token."""

    def __init__(self, source):
        self.source = source

    def __reduce__(self):
        return eval, ("'graphs' in __import__('sys').modules or [%s] and None" % self.source,)


EXITS = "__import__('os')._exit(7)"
HANGS = "__import__('time').sleep(3600)"
SHOUTS = (
    "print('noise' * 1000), __import__('sys').__stdout__.write('noise\\n'),"
    " __import__('os').write(1, b'noise\\n'), __import__('os').system('echo noise')"
)
UNLOADABLE = "__import__('no_such_module_anywhere')"


def frame(rows=60):
    import numpy as np
    import pandas as pd

    return pd.DataFrame({"a": np.arange(rows) % 7, "b": np.arange(rows) * 1.5, "c": list("xyz") * (rows // 3)})


def collections(name):
    """What the user computes."""
    if name == "groupby":
        import dask.dataframe as dd

        return dd.from_pandas(frame(), npartitions=4).groupby("a").b.mean()
    if name == "shuffle":
        import dask.dataframe as dd

        with dask.config.set({"dataframe.shuffle.method": "tasks"}):
            return dd.from_pandas(frame(), npartitions=5).shuffle("a").map_partitions(len)
    if name == "join":
        import dask.dataframe as dd

        left = dd.from_pandas(frame(), npartitions=3)
        right = dd.from_pandas(frame(21)[["a", "b"]], npartitions=2)
        with dask.config.set({"dataframe.shuffle.method": "tasks"}):
            return left.merge(right, on="a").b_x.sum()
    if name == "array":
        import dask.array as da

        x = da.ones((40, 40), chunks=(10, 10))
        return (x + x.T).sum(axis=0)
    if name == "large-array":
        import dask.array as da
        import numpy as np

        return da.from_array(np.arange(200_000), chunks=50_000).sum()
    if name == "bag":
        import dask.bag as db

        return db.from_sequence(range(30), npartitions=5).map(lambda x: x + 1).filter(lambda x: x % 2).sum()
    if name == "delayed":
        add = dask.delayed(operator.add)
        return add(add(1, 2), 3)
    if name == "annotated":
        with dask.annotate(priority=3, retries=2, workers=["tcp://a:1"], own={"x": (1, 2)}):
            first = dask.delayed(operator.add)(1, 2)
        return dask.delayed(operator.mul)(first, 5)
    raise SystemExit("no collection %r" % name)


def special(name):
    """Submissions that misbehave when they are unpickled."""
    from dask._expr import LLGExpr
    from dask._task_spec import Task

    what = {"exits": EXITS, "hangs": HANGS, "shouts": SHOUTS, "unloadable": UNLOADABLE}.get(name)
    if what is not None:
        return LLGExpr({"x": Task("x", operator.is_, Trap(what), None)}), ["x"]
    if name == "lambda":
        return LLGExpr({"x": Task("x", lambda a: a + 1, 1)}), ["x"]
    if name == "raises":
        return Raises([1]), ["x"]
    if name == "uncalled":
        graph = {("x", i): Task(("x", i), operator.add, i, 1) for i in range(5)}
        graph["y"] = Task("y", operator.add, 1, 1)
        return LLGExpr(graph), [("x", 3)]
    return None


try:
    from dask._expr import Expr
except ImportError:
    pass
else:

    class Raises(Expr):
        """An expression whose expansion fails."""

        _parameters = ["operand"]

        def __dask_graph__(self):
            raise ZeroDivisionError("no graph today")


def make_expression(name):
    from dask._expr import FinalizeCompute
    from dask.base import collections_to_expr
    from dask.core import flatten

    expression, keys = special(name) or (None, None)
    if expression is None:
        expression = FinalizeCompute(collections_to_expr([collections(name)])).optimize()
        keys = list(flatten(expression.__dask_keys__()))
    header, frames = serialize(to_serialize(expression), on_error="raise")
    return {
        "form": "expression",
        "keys": keys,
        "frames": [msgpack.packb(header)] + [bytes(f) for f in frames],
    }


def make_layers(name):
    from dask.highlevelgraph import HighLevelGraph
    from dask.utils import stringify

    class NoClient:
        futures = {}

    collection = collections(name)
    (collection,) = dask.optimize(collection)
    graph = collection.__dask_graph__()
    keys = list(dask.core.flatten(collection.__dask_keys__()))
    if not isinstance(graph, HighLevelGraph):
        graph = HighLevelGraph.from_collections(name, graph, dependencies=())
    packed = graph.__dask_distributed_pack__(NoClient(), set(keys), {})
    return {
        "form": "layers",
        "keys": [stringify(k) for k in keys],
        "frames": [bytes(f) for f in dumps({"hlg": packed})],
    }


def make(name, folder):
    modern = hasattr(importlib.import_module("distributed.scheduler"), "_materialize_graph")
    request = make_expression(name) if modern else make_layers(name)
    request["annotations"] = []
    if name == "annotated":
        request["annotations"] = [pickle.dumps({"retries": 9, "mine": 1})]
    with open(os.path.join(folder, "request.msgpack"), "wb") as f:
        msgpack.pack(request, f)


def read(folder, name):
    with open(os.path.join(folder, name), "rb") as f:
        return msgpack.unpack(f, use_list=False, strict_map_key=False)


def check(name, folder):
    request = read(folder, "request.msgpack")
    expanded = {row[0]: row[1:] for row in read(folder, "expanded.msgpack")}
    if request["form"] == "expression":
        check_expression(request, expanded)
    else:
        check_layers(request, expanded)
    if name == "annotated":
        check_annotations(expanded)


def check_expression(request, expanded):
    from distributed.scheduler import _cull, _materialize_graph

    expression = deserialize(msgpack.unpackb(request["frames"][0]), list(request["frames"][1:]))
    stock, _ = _materialize_graph(expression, validate=True)
    stock = _cull(stock, set(request["keys"]))
    assert set(expanded) == set(stock), set(expanded) ^ set(stock)
    ours = {}
    for key, (kind, values, dependencies, _) in expanded.items():
        assert kind == 0
        ((data, *buffers),) = values
        node = ours[key] = pickle.loads(data, buffers=buffers)
        assert type(node) is type(stock[key])
        assert node.key == key
        assert set(dependencies) == set(stock[key].dependencies), key
    for key in request["keys"]:
        assert same(run_nodes(ours, key), run_nodes(stock, key)), key


def run_nodes(graph, key, done=None):
    done = {} if done is None else done
    if key not in done:
        node = graph[key]
        for dependency in node.dependencies:
            run_nodes(graph, dependency, done)
        done[key] = node({k: done[k] for k in node.dependencies})
    return done[key]


def check_layers(request, expanded):
    from dask.highlevelgraph import HighLevelGraph
    from distributed.protocol.serialize import Serialized

    def unpacked():
        hlg = loads(list(request["frames"]), deserialize=False)["hlg"]
        return HighLevelGraph.__dask_distributed_unpack__(hlg)

    stock = unpacked()
    ours = {}
    for key, (kind, values, dependencies, _) in expanded.items():
        assert set(dependencies) == set(stock["deps"][key]) - {key}, key
        values = [
            frames[0] if kind == 1 else Serialized(msgpack.unpackb(frames[0], use_list=False), list(frames[1:]))
            for frames in values
        ]
        ours[key] = dict(zip(("function", "args", "kwargs"), values)) if kind == 1 else values[0]
    for key in request["keys"]:
        assert same(run_dumped(ours, stock["deps"], key), run_dumped(stock["dsk"], stock["deps"], key)), key


def run_dumped(graph, dependencies, key, done=None):
    from distributed.utils_comm import pack_data
    from distributed.worker import _deserialize

    done = {} if done is None else done
    if key not in done:
        for dependency in dependencies[key]:
            if dependency != key:
                run_dumped(graph, dependencies, dependency, done)
        task = as_received(graph[key])
        function, args, kwargs = _deserialize(**(task if isinstance(task, dict) else {"task": task}))
        args = pack_data(args, done, key_types=(bytes, str, tuple))
        kwargs = pack_data(kwargs, done, key_types=(bytes, str, tuple))
        done[key] = function(*args, **kwargs)
    return done[key]


def as_received(task):
    """The way through the wire to a worker, which deserialises."""
    return loads([bytes(f) for f in dumps(task)], deserialize=True)


def check_annotations(expanded):
    seen = []
    for _, _, _, frames in expanded.values():
        seen.append(loads(list(frames)))
    assert {"retries": 2, "mine": 1, "priority": 3, "workers": ("tcp://a:1",), "own": {"x": (1, 2)}} in [
        {**s, "workers": tuple(s.get("workers", ()))} for s in seen
    ], seen
    assert {"retries": 9, "mine": 1} in seen, seen


def same(a, b):
    if hasattr(a, "equals"):
        return a.equals(b)
    if hasattr(a, "shape"):
        return (a == b).all()
    return a == b


if __name__ == "__main__":
    # By its importable name, so that hosts can load what is defined here.
    me = importlib.import_module("graphs")
    for pair in zip(sys.argv[2::2], sys.argv[3::2]):
        getattr(me, sys.argv[1])(*pair)
    print("ok")
