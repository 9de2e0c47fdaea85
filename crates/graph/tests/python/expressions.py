"""Submissions of distributed >= 2025.4, serialised as its client does it, and their check.

expressions.py make DIR     writes DIR/<name>.case: pickle of the wanted keys, then the frames
expressions.py check DIR    reads DIR/<name>.split as written by the Rust tests, and compares with
                            what stock's scheduler makes of the same frames
"""

import functools
import operator
import pickle
import sys
import uuid
from collections import namedtuple
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import dask
import numpy as np
from dask import delayed
from dask._expr import FinalizeCompute, HLGExpr, LLGExpr
from dask._task_spec import Alias, DataNode, Dict, List, Task, TaskRef, parse_input
from dask.base import collections_to_expr
from dask.core import flatten
from distributed.client import Future, _MapExpr
from distributed.protocol import deserialize, serialize, to_serialize
from distributed.scheduler import _cull, _materialize_graph

import items
from compare import Different, same

offset = 7


def inc(x):
    return x + 1


def with_global(x):
    return x + offset


def fact(n):
    return 1 if n < 2 else n * fact(n - 1)


def make_adder(n, extra):
    def add(x):
        """Adds."""
        return x + n + len(extra)

    add.note = "attribute"
    return add


class Model:
    registry = {}

    def __init__(self, weights):
        self.weights = weights
        self.me = self

    def predict(self, x):
        return Model.scale(x) + sum(self.weights)

    @staticmethod
    def scale(x):
        return x * 2

    @classmethod
    def make(cls, n):
        return cls([n])

    @property
    def first(self):
        return self.weights[0]


class Child(Model):
    def predict(self, x):
        return super().predict(x) + 1


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a, self.b = a, b


Point = namedtuple("Point", "x y")


def kw(x, *args, a=1, **kwargs):
    return (x, args, a, kwargs)


def first(x, *args, **kwargs):
    return x


CASES = {}


def case(f):
    CASES[f.__name__] = f
    return f


def submit(func, *args, key="task-1", **kwargs):
    args = [parse_input(a) for a in args]
    kwargs = {k: parse_input(v) for k, v in kwargs.items()}
    return LLGExpr({key: Task(key, func, *args, **kwargs)}, _determ_token=uuid.uuid4().hex), [key]


def fmap(func, *iterables, key="m", pure=True, **kwargs):
    expr = _MapExpr(func, iterables, key=key, pure=pure, annotations={}, kwargs=kwargs)
    return expr, list(expr.keys)


def compute(*collections, optimize_graph=True):
    expr = FinalizeCompute(collections_to_expr(list(collections), optimize_graph)).optimize()
    return expr, list(flatten(expr.__dask_keys__()))


@case
def submit_builtin():
    return submit(operator.add, 1, 2)


@case
def submit_lambda_closure():
    y, z = [1, 2], {"k": (3,)}
    return submit(lambda x: (x, y, z, y), 5)


@case
def submit_main_function():
    return submit(with_global, 5)


@case
def submit_recursive():
    return submit(fact, 5)


@case
def submit_local_recursive():
    def even(n):
        return True if n == 0 else odd(n - 1)

    def odd(n):
        return False if n == 0 else even(n - 1)

    return submit(even, 10)


@case
def submit_closure_attribute():
    return submit(make_adder(3, np.arange(5)), 4)


@case
def submit_main_class():
    return submit(Model.predict, Model([1, 2, 3]), 4)


@case
def submit_subclass_method():
    return submit(Child([5]).predict, 4)


@case
def submit_classmethod():
    return submit(Child.make, 4)


@case
def submit_slotted():
    s = Slotted([1], None)
    s.b = s
    return submit(first, s, s)


@case
def submit_numpy():
    x = np.arange(1000.0)
    y = np.ones((3, 4), order="F")
    y.flags.writeable = False
    return submit(first, x, y, [x, np.float64(3.5)], z=np.array(["a", None], dtype=object))


@case
def submit_futures():
    f, g = Future("fut-1"), Future(("fut", 2))
    return submit(kw, f, [g, 1], (f, [f]), {"a": g, "b": 2}, {f.key, 1}, a=[{"deep": (g,)}], b=f)


@case
def submit_plain_containers():
    shared = [1, 2]
    return submit(kw, shared, {"a": shared}, (1, (2, [3])), {4, 5}, frozenset([6]), a=b"x" * 300)


@case
def submit_self_reference():
    l = [1]
    l.append(l)
    d = {"l": l}
    d["d"] = d
    t = ([],)
    t[0].append(t)
    # Dask itself looks into bare containers and would not come to an end.
    return submit(first, Model([l, d, t]), Slotted(t, l))


@case
def submit_atoms():
    return submit(
        kw,
        None,
        True,
        False,
        0,
        -1,
        255,
        256,
        65536,
        -(2**31),
        2**31,
        2**63,
        -(2**63),
        2**200,
        -(2**70),
        1.5,
        float("inf"),
        float("nan"),
        "",
        "ü\u2028\U0001f600",
        "x" * 300,
        b"",
        b"\x00" * 5,
        bytearray(b"abc"),
        1j,
        range(3),
        slice(1, None),
        Ellipsis,
        int,
        Point(1, 2),
    )


@case
def submit_odd_keys():
    return submit(inc, 1, key=("x", 1, 2.5, ("z",)))


@case
def submit_partial():
    return submit(functools.partial(kw, 1, a=[2]), 3)


@case
def submit_exceptions():
    return submit(first, ValueError("x"), OSError(2, "no"))


@case
def submit_pandas():
    import pandas as pd

    df = pd.DataFrame({"a": [1, 2, 3], "b": list("xyz"), "c": np.arange(3.0)})
    return submit(len, df, df.a)


@case
def submit_namedtuple_with_future():
    return submit(first, Point(Future("fut-1"), 2))


@case
def submit_object_with_future():
    return submit(first, Model([Future("fut-1")]))


@case
def map_namedtuple_with_future():
    return fmap(first, [Point(Future("fut-1"), 2)])


@case
def map_object_with_future():
    return fmap(first, [1, Model([Future("fut-1")])])


@case
def map_objects():
    m = Model([1])
    return fmap(first, [m, Model([m]), Point(1, m)], a=m)


@case
def submit_dynamic_class():
    class Local:
        def __init__(self):
            self.v = Local.make()

        @staticmethod
        def make():
            return [Local]

    return submit(first, Local(), Local)


@case
def get_legacy():
    dsk = {
        "a": 1,
        "b": (operator.add, "a", 2),
        "c": (sum, ["a", "b", [1]]),
        "d": "b",
        ("e", 0): (kw, ("e", 1), (inc, (inc, "a"))),
        ("e", 1): [1, 2, ("a", "nope")],
        "f": ["a", 1],
        "g": {"a": "a"},
        "h": (kw, {"a": "a", "b": [1]}, (), [], "a-string", None, 3.5),
        "i": ("a", "b"),
        "j": {"b"},
        "k": (dask.utils.apply, kw, ["a", 2], {"a": 5}),
        "l": Task("l", operator.add, TaskRef("a"), 5),
        "m": Alias("m", "b"),
        "n": DataNode("n", [1, 2]),
        "o": (lambda x: x + offset, "a"),
        "p": np.arange(10),
        "q": (operator.getitem, "p", (slice(1, 5),)),
        "r": (operator.getitem, "p", (Ellipsis, 1)),
        "s": frozenset(["a"]),
        "unused": (inc, 1),
        "self": "self",
        5: 6,
        "t": (inc, 5),
        "u": (inc, True),
        "v": ("a",),
        "w": Future("fut-9"),
        "x": (kw, [Future("fut-8"), "a"]),
    }
    return LLGExpr(dsk), [k for k in dsk if k != "unused"]


@case
def get_unknown_callable():
    return LLGExpr({"a": (Model([1]), 1)}), ["a"]


@case
def get_culled():
    return LLGExpr({"a": 1, "b": (inc, "a"), "c": (inc, "b"), "d": (inc, "zzz")}), ["b", "gone"]


@case
def map_range():
    return fmap(inc, range(10))


@case
def map_negative_range():
    return fmap(inc, range(10, -7, -3))


@case
def map_lambda():
    big = list(range(50))
    return fmap(lambda x, y: (x, y, big), [1, 2, 3], range(300, 310))


@case
def map_futures():
    fs = [Future(f"f-{i}") for i in range(4)]
    return fmap(kw, fs, [[f, 1] for f in fs], [{"a": (fs[0],)}] * 4, a=fs[1], b=[fs[2], {fs[3].key}])


@case
def map_tuple_args():
    return fmap(kw, ((1, 2), (3, 4)), [[1], {"a": 1}], ["x", None], [b"1", 2.5])


@case
def map_one_to_four_args():
    return fmap(kw, [1, 2], [3, 4], [5, 6], [7, 8], [9, 10])


@case
def map_large_kwarg():
    return fmap(kw, range(3), data=np.arange(100_000), small=1)


@case
def map_large_kwarg_in_band():
    return fmap(kw, range(3), data="x" * 200_000)


@case
def map_shares_with_function():
    box = [1]
    return fmap(lambda x: x is box, [box, [2], box])


@case
def map_large_shared_argument():
    big = [f"number {i}" for i in range(1000)]
    return fmap(lambda x, b, c: (b[x], c[0] is b, offset), [1, 2, 3], [big] * 3, [[big]] * 3)


@case
def get_large_shared_part():
    big = "x" * 5000
    table = {"big": [big] * 3}
    return LLGExpr({f"k-{i}": Task(f"k-{i}", kw, [big, i], {"t": (table, i)}) for i in range(4)}), [
        f"k-{i}" for i in range(4)
    ]


@case
def map_shares_between_args():
    box = {"a": [1]}
    return fmap(kw, [box, 1], [[box], 2])


@case
def map_kwarg_shares_with_function():
    box = [1]
    return fmap(lambda x, k: (x, k is box), [1, 2], k=box)


@case
def map_function_as_argument():
    f = lambda g, x: g(g, x) if x < 0 else x
    return fmap(f, [f, f], [1, 2])


@case
def map_numpy():
    return fmap(first, [np.arange(1000), np.ones(3)], k=np.arange(3))


@case
def map_numpy_closure():
    table = np.arange(200)
    return fmap(lambda x, y: table[x] + y.sum(), [1, 2], [np.ones(3), np.ones(4)])


@case
def map_given_keys():
    return fmap(inc, [1, 2, 3], key=["a", ("b", 1), 5])


@case
def map_duplicate_keys():
    return fmap(inc, [1, 2, 1, 3])


@case
def map_zip_shortest():
    return fmap(kw, [1, 2, 3], [1, 2])


@case
def map_impure():
    return fmap(inc, [1, 1], pure=False)


@case
def map_array():
    return fmap(inc, np.arange(3))


@case
def map_empty():
    return fmap(inc, [])


@case
def map_graph_nodes():
    return fmap(kw, [TaskRef("r"), Alias("s")], [List(Alias("t"), 1), Dict({"a": Alias("u")})])


@case
def delayed_simple():
    return compute(delayed(operator.add)(delayed(operator.neg)(1), 2))


@case
def delayed_tree():
    level = [delayed(inc)(i) for i in range(8)]
    while len(level) > 1:
        level = [delayed(operator.add)(a, b) for a, b in zip(level[::2], level[1::2])]
    return compute(level[0])


@case
def delayed_containers():
    a = delayed(inc)(1)
    return compute(delayed(kw)([a, 1], {"k": a}, (a, 2), a=a), delayed(sum)([a, a]))


@case
def delayed_lambda_shared():
    table = {i: str(i) for i in range(100)}
    f = delayed(lambda x: table[x])
    return compute(*[f(i) for i in range(5)])


@case
def delayed_object_and_method():
    m = delayed(Model([1, 2]))
    return compute(m.predict(3), m.weights[0], m.weights)


@case
def delayed_big_literal():
    data = list(range(1000))
    return compute(*[delayed(kw, pure=True)(data, i) for i in range(3)])


@case
def delayed_annotated():
    with dask.annotate(priority=3, workers=["alice"]):
        a = delayed(inc)(1)
    with dask.annotate(retries=2, custom={"a": [1, (2.5, None)], "b": b"x"}):
        b = delayed(inc)(a)
    return compute(delayed(operator.add)(a, b))


@case
def delayed_annotated_callable():
    with dask.annotate(priority=lambda key: 5):
        a = delayed(inc)(1)
    return compute(a)


@case
def delayed_nout():
    a, b = delayed(divmod, nout=2)(7, 2)
    return compute(a, b, a)


@case
def delayed_culled_layer():
    a = delayed(inc)(1)
    return compute(a + 1, a * 2)


@case
def delayed_not_optimized():
    return compute(delayed(inc)(delayed(inc)(1)), delayed(inc)(5), optimize_graph=False)


@case
def delayed_future():
    return compute(delayed(inc)(Future("fut-1")))


@case
def hlg_get():
    d = delayed(inc)(delayed(inc)(1))
    return HLGExpr(d.dask), [d.key]


@case
def bag():
    import dask.bag as db

    return compute(db.from_sequence(range(10), npartitions=3).map(inc).sum())


@case
def array():
    import dask.array as da

    return compute((da.ones((10, 10), chunks=5) + 1).sum())


@case
def dataframe():
    import dask.dataframe as dd
    import pandas as pd

    return compute(dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=2).a.sum())


# What stays with Python, each for a reason; everything else must be split.
NEEDS_PYTHON = {
    "map_namedtuple_with_future",
    "map_object_with_future",
    "get_unknown_callable",
    "map_array",
    "delayed_annotated_callable",
    "bag",
    "array",
    "dataframe",
}


def make(directory):
    for name, function in CASES.items():
        expr, keys = function()
        header, frames = serialize(to_serialize(expr), on_error="raise")
        assert header["serializer"] == "pickle", header
        items.dump(directory / f"{name}.case", [pickle.dumps(keys, protocol=4), *frames])


def load_stock(path):
    keys, *frames = items.load(path)
    keys = pickle.loads(keys)
    header = {"serializer": "pickle", "writeable": tuple(True for _ in frames[1:])}
    expr = deserialize(header, frames)
    dsk, annotations = _materialize_graph(expr=expr, validate=True)
    # What no wanted key needs never becomes a task.
    return keys, _cull(dsk, set(keys)), annotations


def load_split(path):
    parts = iter(items.load(path))
    text = lambda: str(next(parts), "utf8")
    number = lambda: int(text())
    tasks = {}
    for _ in range(number()):
        key, kind = text(), text()
        dependencies = {text() for _ in range(number())}
        spec = next(parts)
        buffers = [next(parts) for _ in range(number())]
        assert key not in tasks, f"{key} twice"
        tasks[key] = (kind, dependencies, pickle.loads(spec, buffers=buffers), bytes(spec))
    annotations = {}
    for _ in range(number()):
        name, value = text(), eval(text())
        keys = [text() for _ in range(number())]
        annotations.setdefault(name, {}).update(dict.fromkeys(keys, value))
    return tasks, annotations


class Values(dict):
    def __missing__(self, key):
        return 100


def execute(node, done):
    try:
        return node({k: done.get(repr(k), 100) for k in node.dependencies})
    except Exception as e:
        return repr(e)


def check_case(name, directory):
    keys, expected, annotations = load_stock(directory / f"{name}.case")
    tasks, own_annotations = load_split(directory / f"{name}.split")
    wanted = {repr(k): v for k, v in expected.items()}
    own = {k: v for k, v in tasks.items() if k in wanted}
    if missing := wanted.keys() - own.keys():
        raise Different(f"missing: {missing}")
    done, own_done = {}, {}
    order = dask.order.order(expected)
    for key in sorted(expected, key=order.__getitem__):
        node, text = expected[key], repr(key)
        kind, dependencies, own_node, spec = own[text]
        if dependencies != set(map(repr, node.dependencies)):
            raise Different(f"{key}: {dependencies} are not {node.dependencies}")
        if own_node.dependencies != node.dependencies:
            raise Different(f"{key}: dependencies in the spec")
        if (kind == "data") != isinstance(node, DataNode):
            raise Different(f"{key}: {kind}")
        # Through a pickle of its own, as stock sends it.
        buffers = []
        p = cloud_dumps(node, buffers)
        same(own_node, pickle.loads(p, buffers=buffers))
        done[text], own_done[text] = execute(node, done), execute(own_node, own_done)
    for key in done:
        try:
            same(own_done[key], done[key])
        except Different:
            if not ("object at 0x" in repr(done[key]) or "0x" in repr(done[key])):
                raise
    for annotation, values in annotations.items():
        values = {repr(k): v for k, v in values.items() if k in expected}
        own_values = {k: v for k, v in own_annotations.get(annotation, {}).items() if k in wanted}
        if values != own_values:
            raise Different(f"annotation {annotation}: {own_values} is not {values}")
    if extra := own_annotations.keys() - annotations.keys():
        raise Different(f"annotations {extra}")


def cloud_dumps(node, buffers):
    from distributed.protocol.pickle import dumps

    return dumps(node, buffer_callback=buffers.append, protocol=5)


def check(directory):
    failed = 0
    for name in CASES:
        path = directory / f"{name}.python"
        try:
            if path.exists():
                reason = path.read_text()
                if name not in NEEDS_PYTHON:
                    raise Different(f"left to Python: {reason}")
            elif name in NEEDS_PYTHON:
                raise Different("split although it should not")
            else:
                check_case(name, directory)
        except Exception as e:
            failed += 1
            if not isinstance(e, Different):
                import traceback

                traceback.print_exc()
            print(f"{name}: {type(e).__name__}: {e}")
    print(f"{len(CASES)} submissions, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]))
