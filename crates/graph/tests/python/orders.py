"""Real graphs and the order that the release's `dask.order` gives them.

    orders.py make FILE         writes FILE (JSON), for the release of the interpreter
    orders.py unmodified FILE   (used by make) prints stock's orders for the graphs in FILE

Stock iterates over sets of keys in places, so its result may change with the hash seed. Here those
places are given a fixed order (`canonical` below edits the source before it runs); any such order is
one that stock may follow. Graphs for which eight hash seeds of the unmodified source agree are
marked `fixed`, and the fixed order must be theirs.
"""

import inspect
import json
import os
import re
import subprocess
import sys
import types

import dask
import dask.array as da
import dask.bag as db
import dask.order
import numpy as np
import pandas as pd
from dask import delayed
from dask.core import get_dependencies

NEW = hasattr(dask, "_task_spec")

GRAPHS = {}


def graph(f):
    GRAPHS[f.__name__] = f
    return f


def inc(x):
    return x + 1


def add(*args):
    return sum(args)


def tree(n, fan):
    level = [delayed(inc)(i) for i in range(n)]
    while len(level) > 1:
        level = [delayed(add)(*level[i : i + fan]) for i in range(0, len(level), fan)]
    return level[0]


def frame(npartitions):
    import dask.dataframe as dd

    df = pd.DataFrame({"a": np.arange(60) % 7, "b": np.arange(60.0), "c": list("xyz") * 20})
    return dd.from_pandas(df, npartitions=npartitions)


for n, fan in [(1, 2), (8, 2), (27, 3), (64, 4), (100, 10), (300, 2)]:
    GRAPHS[f"delayed_tree_{n}_{fan}"] = lambda n=n, fan=fan: tree(n, fan)


for n in (3, 10, 150):
    GRAPHS[f"delayed_independent_{n}"] = lambda n=n: [delayed(inc)(i) for i in range(n)]


@graph
def delayed_chain():
    x = delayed(inc)(1)
    for _ in range(30):
        x = delayed(inc)(x)
    return x


@graph
def delayed_chains_into_one():
    chains = []
    for i in range(12):
        x = delayed(inc)(i)
        for _ in range(i % 5):
            x = delayed(inc)(x)
        chains.append(x)
    return delayed(add)(*chains)


@graph
def delayed_one_into_many():
    x = delayed(inc)(1)
    return [delayed(add)(x, i) for i in range(40)]


@graph
def delayed_shared_literal():
    data = delayed(list(range(10)))
    return delayed(add)(*[delayed(add)(data, i) for i in range(9)])


@graph
def delayed_running_sum():
    total, out = delayed(inc)(0), []
    for i in range(25):
        total = delayed(add)(total, delayed(inc)(i))
        out.append(total)
    return out


@graph
def delayed_diamonds():
    x = delayed(inc)(1)
    for _ in range(8):
        x = delayed(add)(delayed(inc)(x), delayed(inc)(x))
    return x


@graph
def delayed_stages():
    a = [delayed(inc)(i) for i in range(6)]
    b = [delayed(add)(x, y) for x in a for y in a]
    c = [delayed(add)(*b[i::6]) for i in range(6)]
    return delayed(add)(*c), a[0]


def rng(shape, chunks):
    return da.from_array(np.arange(np.prod(shape)).reshape(shape), chunks=chunks)


for n in (2, 5, 8, 17):
    GRAPHS[f"array_sum_{n}"] = lambda n=n: da.ones((n * 10, n * 10), chunks=10).sum()
    GRAPHS[f"array_transpose_{n}"] = lambda n=n: (lambda x: (x + x.T).sum(axis=0))(da.ones((n * 10, n * 10), chunks=10))


@graph
def array_matmul():
    x, y = da.ones((40, 40), chunks=10), da.ones((40, 40), chunks=10) * 2
    return x @ y


@graph
def array_mean_std():
    x = rng((60, 60), (15, 20))
    return (x - x.mean(axis=0)) / x.std(axis=0)


@graph
def array_rechunk():
    return rng((48, 48), (6, 48)).rechunk((48, 6)).sum(axis=1)


@graph
def array_overlap():
    return da.ones((60, 60), chunks=15).map_overlap(lambda b: b, depth=2, boundary="none").sum()


@graph
def array_cumsum():
    return da.cumsum(da.ones(200, chunks=10), axis=0)


@graph
def array_slices():
    x = rng((50, 50), (10, 10))
    return x[::2, 5:40].T, x[3], x.sum()


@graph
def array_svd():
    return da.linalg.svd(da.ones((60, 10), chunks=(10, 10)))[1]


@graph
def array_store_like():
    x = da.ones((40, 40), chunks=10)
    return [((x + i).mean(axis=0) - i) for i in range(3)]


@graph
def bag_word_count():
    b = db.from_sequence(["a b c", "b c", "c"] * 10, npartitions=8)
    return b.map(str.split).flatten().frequencies()


@graph
def bag_product():
    b = db.from_sequence(range(12), npartitions=5)
    return b.product(b).filter(lambda t: t[0] != t[1]).map(sum).sum()


@graph
def bag_fold():
    return db.from_sequence(range(100), npartitions=30).fold(lambda a, b: a + b)


@graph
def bag_groupby():
    with dask.config.set({"bag.default-shuffle": "tasks"}):
        b = db.from_sequence(range(20), npartitions=4)
        return b.groupby(lambda x: x % 3, shuffle="tasks", npartitions=3)


@graph
def frame_sum():
    return frame(12).b.sum()


@graph
def frame_groupby():
    return frame(10).groupby("a").b.mean()


@graph
def frame_groupby_tree():
    return frame(20).groupby("a").agg({"b": ["sum", "mean"]}, split_every=3)


@graph
def frame_shuffle():
    return frame(9).shuffle("a", **how("tasks"))


@graph
def frame_join():
    return frame(6).merge(frame(4), on="a", **how("tasks"))


@graph
def frame_join_then_groupby():
    x = frame(4).merge(frame(5), on="a", **how("tasks"))
    return x.groupby("b_x").b_y.sum()


@graph
def frame_rolling():
    return frame(8).b.rolling(3).mean()


@graph
def frame_describe():
    return frame(5).describe()


@graph
def frame_drop_duplicates():
    return frame(12).drop_duplicates("a").a.sum()


def how(method):
    return {"shuffle_method" if NEW else "shuffle": method}


def materialize(collections):
    """Key to (dependencies, is a mere value), as the scheduler of the release sees the graph."""
    if not isinstance(collections, (list, tuple)):
        collections = [collections]
    if NEW:
        from dask._expr import FinalizeCompute
        from dask._task_spec import DataNode, convert_legacy_graph
        from dask.base import collections_to_expr

        expr = FinalizeCompute(collections_to_expr(list(collections))).optimize()
        dsk = convert_legacy_graph(expr.__dask_graph__())
        return {k: (set(v.dependencies), isinstance(v, DataNode)) for k, v in dsk.items()}
    from dask.base import collections_to_dsk
    from dask.utils import stringify

    dsk = dict(collections_to_dsk(collections))
    result = {}
    for k in dsk:
        dependencies = get_dependencies(dsk, k) - {k}
        result[stringify(k)] = ({stringify(d) for d in dependencies}, False)
    return result


HEX = re.compile("[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def shorten(key):
    if isinstance(key, str):
        return HEX.sub(lambda m: m.group()[:8], key)
    if isinstance(key, tuple):
        return tuple(map(shorten, key))
    return key


def plain(key):
    if isinstance(key, tuple):
        return [plain(k) for k in key]
    return key if isinstance(key, (str, int, float)) else int(key)


def unplain(key):
    return tuple(map(unplain, key)) if isinstance(key, list) else key


def load(entry):
    """The arguments of `order` for an entry of the file."""
    keys = [unplain(k) for k in entry["keys"]]
    dependencies = {k: {keys[i] for i in d} for k, d in zip(keys, entry["dependencies"])}
    count = len(entry["dependencies"])
    if not NEW:
        return keys, ({k: (inc, k) for k in keys}, dependencies)
    from dask._task_spec import DataNode, Task, TaskRef

    data = set(entry["data"])
    dsk = {}
    for i, k in enumerate(keys[:count]):
        if i in data:
            dsk[k] = DataNode(k, 1)
        else:
            dsk[k] = Task(k, add, *(TaskRef(d) for d in dependencies[k]))
    return keys[:count], (dsk,)


EDITS_NEW = [
    ("path_extend(next_deps)", "path_extend(sorted(next_deps, key=sort_key))"),
    ("for dep in dependents.get(item, ()):", "for dep in sorted(dependents.get(item, ()), key=sort_key):"),
    (
        "add_to_result(requires_data_task[item].pop())",
        "_d = min(requires_data_task[item], key=str); requires_data_task[item].remove(_d); add_to_result(_d)",
    ),
    ("for r in root_nodes:\n", "for r in sorted(root_nodes, key=sort_key):\n"),
]

EDITS_2022 = [
    ("1 < len(deps) < 1000", "1 < len(deps)"),
    ("1 < len(deps) < 100", "1 < len(deps)"),
    ("1 < len(pool) < 100", "1 < len(pool)"),
    ("if len(min_pool) < 100:", "if True:"),
    ("if len(init_stack) < 10000:", "if True:"),
]


def canonical():
    source = inspect.getsource(dask.order)
    for old, new in EDITS_NEW if NEW else EDITS_2022:
        assert old in source, old
        source = source.replace(old, new)
    module = types.ModuleType("canonical_order")
    exec(compile(source, "canonical_order", "exec"), module.__dict__)
    return module.order


def orders(entries, order):
    result = []
    for entry in entries:
        keys, args = load(entry)
        found = order(*args)
        result.append([found[k] for k in keys])
    return result


def make(path):
    entries = []
    for name, function in GRAPHS.items():
        dsk = {shorten(k): (set(map(shorten, d)), v) for k, (d, v) in materialize(function()).items()}
        keys = list(dsk)
        index = {k: i for i, k in enumerate(keys)}
        for dependencies, _ in dsk.values():
            for k in dependencies:
                if k not in index:
                    index[k] = len(index)
                    keys.append(k)
        entry = {
            "name": name,
            "keys": [plain(k) for k in keys],
            "dependencies": [sorted(index[d] for d in deps) for deps, _ in dsk.values()],
            "data": [i for i, (_, data) in enumerate(dsk.values()) if data],
        }
        entries.append(entry)
    for entry, order in zip(entries, orders(entries, canonical())):
        entry["order"] = order
    with open(path, "w") as f:
        json.dump(entries, f)
    by_seed = []
    for seed in range(8):
        out = subprocess.run(
            [sys.executable, "-B", __file__, "unmodified", path],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
            stdout=subprocess.PIPE,
        )
        by_seed.append(json.loads(out.stdout))
    for i, entry in enumerate(entries):
        found = [orders[i] for orders in by_seed]
        entry["fixed"] = all(order == found[0] for order in found)
        if entry["fixed"]:
            assert entry["order"] == found[0], entry["name"]
    fixed = sum(e["fixed"] for e in entries)
    with open(path, "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(e, separators=(",", ":")) for e in entries) + "\n]\n")
    tasks = sum(len(e["dependencies"]) for e in entries)
    print(f"dask {dask.__version__}: {len(entries)} graphs, {tasks} tasks; {fixed} do not depend on the hash seed")


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        with open(sys.argv[2]) as f:
            print(json.dumps(orders(json.load(f), dask.order.order)))
