"""Packed graphs of distributed 2022.12.0, and the check of what is made of them.

layers.py make DIR     writes DIR/<name>.case: the layers, decoded as on a scheduler, as a pickle of
                       plain values with {"__payload__": i} for serialised objects
layers.py check DIR    reads DIR/<name>.packed as written by the Rust tests; every task goes through
                       the wire as `compute-task` does, is run as a worker runs it, and compared with
                       what stock's scheduler makes of the layers
"""

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent))

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask import delayed
from dask.blockwise import BlockIndex, Blockwise
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from dask.utils import stringify
from distributed.protocol.core import dumps, loads
from distributed.protocol.serialize import Serialized
from distributed.utils_comm import pack_data
from distributed.worker import _deserialize

import items

CASES = {}


def case(f):
    CASES[f.__name__] = f
    return f


def inc(x):
    return x + 1


def frame(npartitions, rows=60):
    df = pd.DataFrame({"a": np.arange(rows) % 7, "b": np.arange(float(rows)), "c": list("xyz") * (rows // 3)})
    return dd.from_pandas(df, npartitions=npartitions)


@case
def delayed_tree():
    level = [delayed(inc)(i) for i in range(8)]
    while len(level) > 1:
        level = [delayed(lambda a, b: a + b)(a, b) for a, b in zip(level[::2], level[1::2])]
    return level[0]


@case
def delayed_nested():
    a = delayed(inc)(1)
    return delayed(lambda x, k: (x, k))([a, {"z": a}], k=(a, 5))


@case
def array_ones_sum():
    return da.ones((20, 30), chunks=10).sum()


@case
def array_elementwise_broadcast():
    x = da.from_array(np.arange(60).reshape(6, 10), chunks=(3, 5))
    y = da.from_array(np.arange(10).reshape(1, 10), chunks=(1, 5))
    return x + y * 2 - x.T.T


@case
def array_tensordot():
    x = da.from_array(np.arange(48).reshape(6, 8), chunks=(3, 4))
    return da.tensordot(x, x.T, axes=1)


@case
def array_contraction_lists():
    x = da.from_array(np.arange(24).reshape(4, 6), chunks=(2, 3))
    return da.blockwise(lambda parts: sum(p.sum() for p in parts) * np.ones(2), "i", x, "ij", dtype=float)


@case
def array_contraction_concatenate():
    x = da.from_array(np.arange(24).reshape(4, 6), chunks=(2, 3))
    return da.blockwise(lambda b: b.sum(axis=1), "i", x, "ij", concatenate=True, dtype=float)


@case
def array_contraction_broadcast():
    x = da.from_array(np.arange(24).reshape(4, 6), chunks=(2, 3))
    y = da.from_array(np.arange(6).reshape(1, 6), chunks=(1, 3))
    z = da.from_array(np.arange(4).reshape(4, 1), chunks=(2, 1))
    f = lambda a, b, c: a.sum(axis=1) + b.sum() + c.sum()
    return da.blockwise(f, "i", x, "ij", y, "ij", z, "ij", concatenate=True, dtype=float, align_arrays=False)


@case
def array_new_axes():
    x = da.from_array(np.arange(6), chunks=3)
    return da.blockwise(lambda b: np.stack([b, b]), "zi", x, "i", new_axes={"z": 2}, dtype=int)


@case
def array_random_and_map_blocks():
    x = da.full((6, 6), 3.0, chunks=(2, 3))
    return da.map_blocks(lambda b, block_info=None, block_id=None: b + block_id[0], x, dtype=float)


@case
def array_from_function_slices():
    return da.fromfunction(lambda i, j: i * 10 + j, shape=(5, 6), chunks=(2, 4), dtype=int) + 1


@case
def array_from_map():
    return da.from_array(np.arange(100), chunks=10)[::3].cumsum(axis=0)


@case
def array_overlap():
    return da.ones((20, 20), chunks=5).map_overlap(lambda b: b * 2, depth=1, boundary=0)


@case
def array_culled_output():
    x = da.ones((40, 40), chunks=10) + 1
    return x[:10, :10]


@case
def array_delayed_argument():
    x = da.ones(6, chunks=3)
    return x.map_blocks(lambda b, n: b * n, delayed(inc)(4), dtype=float)


@case
def array_literals():
    x = da.ones(6, chunks=3)
    return x.map_blocks(lambda b, n, l: b * n + len(l), 5, [1, ("a", 2)], dtype=float)


@case
def bag_simple():
    return db.from_sequence(range(10), npartitions=3).map(inc).sum()


@case
def bag_text():
    return db.from_sequence(["a b", "b c"] * 3, npartitions=3).map(str.split).flatten().frequencies()


@case
def frame_blockwise():
    df = frame(4)
    return (df.b + df.a * 2).sum()


@case
def frame_csv_like():
    return dd.from_map(lambda n, k: pd.DataFrame({"n": [n, n + k]}), [1, 2, 3], k=5)


@case
def frame_groupby():
    return frame(10).groupby("a").b.mean()


@case
def frame_groupby_split_out():
    return frame(10).groupby("a").b.sum(split_out=3)


@case
def frame_tree_reduction_deep():
    return frame(20).b.sum(split_every=3)


@case
def frame_tree_reduction_layer():
    return frame(12).drop_duplicates("a", split_every=3)


@case
def frame_tree_reduction_split_out():
    return frame(12).drop_duplicates("a", split_every=3, split_out=2)


@case
def frame_tree_reduction_single():
    return frame(1).drop_duplicates("a")


@case
def frame_shuffle():
    return frame(5).shuffle("a", shuffle="tasks")


@case
def frame_shuffle_columns():
    return frame(4).shuffle(["a", "c"], shuffle="tasks", ignore_index=True)


@case
def frame_shuffle_culled():
    return frame(5).shuffle("a", shuffle="tasks").partitions[1:3]


@case
def frame_shuffle_staged():
    return frame(9).shuffle("a", shuffle="tasks", max_branch=3)


@case
def frame_shuffle_staged_uneven():
    return frame(7).shuffle("a", shuffle="tasks", max_branch=2)


@case
def frame_set_index():
    return frame(4).set_index("b", divisions=[0, 20, 40, 59], shuffle="tasks")


@case
def frame_merge():
    return frame(4).merge(frame(3), on="a", shuffle="tasks", broadcast=False).b_x.sum()


@case
def frame_merge_broadcast_inner():
    return frame(8).merge(frame(2), on="a", how="inner", shuffle="tasks", broadcast=True).b_x.sum()


@case
def frame_merge_broadcast_left():
    return frame(8).merge(frame(2), on="a", how="left", shuffle="tasks", broadcast=True).b_x.sum()


@case
def frame_merge_broadcast_right():
    return frame(2).merge(frame(8), on="a", how="right", shuffle="tasks", broadcast=True).b_x.sum()


@case
def frame_partition_info():
    def number(d, partition_info=None):
        return d.assign(n=partition_info["number"] if partition_info else 0)

    return frame(4)[["b"]].map_partitions(number)


@case
def annotated():
    with dask.annotate(priority=lambda key: len(key), retries=2):
        x = da.ones(6, chunks=3)
    with dask.annotate(workers=["alice"], retries=5):
        y = x + 1
    with dask.config.set({"optimization.fuse.active": False}):
        return y


@case
def block_index():
    layer = Blockwise("out", ("i",), {"out": (lambda i: i, "_0")}, [(BlockIndex((3,)), ("i",))], {})
    layer = Blockwise(
        output="out",
        output_indices=("i",),
        dsk={"out": (tuple, "__dask_blockwise__0")},
        indices=[(BlockIndex((3,)), ("i",))],
        numblocks={},
    )
    return HighLevelGraph({"out": layer}, {"out": set()}), [("out", i) for i in range(3)]


# What stays with Python, each for a reason.
NEEDS_PYTHON = set()


def build(name):
    made = CASES[name]()
    if isinstance(made, tuple):
        return made
    dsk = made.__dask_optimize__(made.__dask_graph__(), made.__dask_keys__())
    if not isinstance(dsk, HighLevelGraph):
        dsk = HighLevelGraph.from_collections(str(id(dsk)), dsk, dependencies=())
    return dsk, list(flatten(made.__dask_keys__()))


def make(directory):
    # How a client packs; futures are not among the cases.
    client = SimpleNamespace(futures={})
    for name in CASES:
        hlg, keys = build(name)
        packed = hlg.__dask_distributed_pack__(client, keys, None)
        frames = [bytes(f) for f in dumps({"op": "update-graph-hlg", "hlg": packed})]
        payloads = []
        plain = to_plain(decode(frames)["hlg"], payloads)
        wanted = [stringify(k) for k in keys]
        items.dump(
            directory / f"{name}.case",
            [pickle.dumps(plain, protocol=4), pickle.dumps((wanted, frames), protocol=4)],
        )


def decode(frames):
    """As on a scheduler: serialised objects stay as they are."""
    return loads([bytearray(f) if i else f for i, f in enumerate(frames)], deserialize=False)


def to_plain(x, payloads):
    if isinstance(x, Serialized):
        payloads.append(x)
        return {"__payload__": len(payloads) - 1}
    if isinstance(x, (list, tuple)):
        return [to_plain(i, payloads) for i in x]
    if isinstance(x, (set, frozenset)):
        return {"__Set__": True, "as-list": [to_plain(i, payloads) for i in x]}
    if isinstance(x, dict):
        # Keys of the map may be tuples.
        return {(tuple(k) if isinstance(k, list) else k): to_plain(v, payloads) for k, v in x.items()}
    if isinstance(x, (bytearray, memoryview)):
        return bytes(x)
    return x


def from_plain(x, payloads):
    if isinstance(x, dict) and set(x) == {"__payload__"}:
        return payloads[x["__payload__"]]
    if isinstance(x, dict):
        return {k: from_plain(v, payloads) for k, v in x.items()}
    if isinstance(x, list):
        return tuple(from_plain(i, payloads) for i in x)
    return x


def over_the_wire(message):
    """What a worker has after reading a message."""
    frames = dumps({"op": "compute-task", **message})
    message = loads([bytes(f) for f in frames], deserialize=True)
    message.pop("op")
    return _deserialize(**message)


def run(specs, dependencies):
    """Runs all tasks as workers do; key to result (or the error's text)."""
    done, stack = {}, list(specs)
    while stack:
        key = stack[-1]
        if key in done or key not in specs:
            stack.pop()
            continue
        todo = [d for d in dependencies.get(key, ()) if d in specs and d not in done]
        if todo:
            stack += todo
            continue
        stack.pop()
        data = {d: done.get(d, f"external {d}") for d in dependencies.get(key, ())}
        try:
            function, args, kwargs = over_the_wire(specs[key])
            args = pack_data(args, data, key_types=(bytes, str))
            kwargs = pack_data(kwargs, data, key_types=(bytes, str))
            done[key] = function(*args, **kwargs)
        except Exception as e:
            done[key] = e
    return done


def stock(frames):
    hlg = decode(frames)["hlg"]
    unpacked = HighLevelGraph.__dask_distributed_unpack__(hlg)
    specs = {k: v if isinstance(v, dict) else {"task": v} for k, v in unpacked["dsk"].items()}
    deps = {k: set(unpacked["deps"][k]) - {k} for k in specs}
    return specs, deps, unpacked["annotations"]


def pickled(frame):
    return Serialized({"serializer": "pickle", "writeable": ()}, [bytes(frame)])


def load_packed(path, payloads):
    parts = iter(items.load(path))
    text = lambda: str(next(parts), "utf8")
    number = lambda: int(text())

    def read_items():
        result = []
        for _ in range(number()):
            kind = text()
            value = next(parts)
            if kind == "text":
                result.append(str(value, "utf8"))
            elif kind == "pickle":
                result.append(pickled(value))
            else:
                result.append(payloads[int(str(value, "utf8"))])
        return tuple(result)

    specs, dependencies = {}, {}
    for _ in range(number()):
        key, form = text(), text()
        dependencies[key] = {text() for _ in range(number())}
        if form == "given":
            value = from_plain(eval(text()), payloads)
            specs[key] = value if isinstance(value, dict) else {"task": value}
        elif form == "parts":
            specs[key] = {"function": bytes(next(parts)), "args": bytes(next(parts))}
        elif form == "call":
            specs[key] = {"function": bytes(next(parts)), "args": read_items()}
        elif form == "task":
            specs[key] = {"task": read_items()}
        else:
            specs[key] = {"task": pickled(next(parts))}
    annotations = {}
    for _ in range(number()):
        name, value = text(), from_plain(eval(text()), payloads)
        keys = [text() for _ in range(number())]
        annotations.setdefault(name, {}).update(dict.fromkeys(keys, value))
    return specs, dependencies, annotations


def equal(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, Exception):
        return repr(a) == repr(b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    if hasattr(a, "equals"):
        return a.equals(b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if callable(a) or "object at 0x" in repr(a):
        return True
    if type(a).__module__.startswith("pandas"):
        return repr(a) == repr(b)
    return a == b or a != a and b != b


def check_case(name, directory):
    _, rest = items.load(directory / f"{name}.case")
    wanted, frames = pickle.loads(rest)
    payloads = []
    to_plain(decode(frames)["hlg"], payloads)
    expected, expected_deps, expected_annotations = stock(frames)
    specs, dependencies, annotations = load_packed(directory / f"{name}.packed", payloads)
    assert list(specs) == list(expected) or set(specs) == set(expected), "keys"
    for key, deps in expected_deps.items():
        assert dependencies[key] == deps, f"{key}: {dependencies[key]} are not {deps}"
    assert annotations == expected_annotations, f"{annotations} is not {expected_annotations}"
    done, expected_done = run(specs, dependencies), run(expected, expected_deps)
    for key in expected:
        if not equal(done[key], expected_done[key]):
            raise AssertionError(f"{key}: {done[key]!r} is not {expected_done[key]!r}")
    for key in wanted:
        if isinstance(expected_done[key], Exception):
            print(f"{name}: stock's own result is {expected_done[key]!r}")


def check(directory):
    failed = 0
    for name in CASES:
        path = directory / f"{name}.python"
        try:
            if path.exists():
                assert name in NEEDS_PYTHON, f"left to Python: {path.read_text()}"
            else:
                assert name not in NEEDS_PYTHON, "expanded although it should not"
                check_case(name, directory)
        except Exception as e:
            failed += 1
            if not isinstance(e, AssertionError):
                import traceback

                traceback.print_exc()
            print(f"{name}: {type(e).__name__}: {str(e)[:600]}")
    print(f"{len(CASES)} graphs, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]))
