"""dask.dataframe on the cluster."""

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd

SINCE = {}


def frame(rows=1000):
    rng = np.random.RandomState(0)
    return pd.DataFrame(
        {
            "id": rng.randint(0, 50, rows),
            "name": rng.choice(["alice", "bob", "carol"], rows),
            "value": rng.random_sample(rows).round(6),
        }
    )


def collection(rows=1000, npartitions=6):
    return dd.from_pandas(frame(rows), npartitions=npartitions)


def by_tasks():
    """The shuffle that is made of ordinary tasks, in the spelling of every release."""
    return dask.config.set({"dataframe.shuffle.method": "tasks", "shuffle": "tasks"})


def same(result, expected):
    result = result.sort_values(list(result.columns)).reset_index(drop=True)
    expected = expected.sort_values(list(expected.columns)).reset_index(drop=True)
    pd.testing.assert_frame_equal(result, expected, check_dtype=False, check_index_type=False)


def whole_frames_come_back(client):
    same(collection().compute(), frame())


def len_and_columns(client):
    df = collection()
    assert len(df) == 1000
    assert list(df.columns) == ["id", "name", "value"]


def group_by_means(client):
    result = collection().groupby("name").value.mean().compute().sort_index()
    expected = frame().groupby("name").value.mean()
    assert np.allclose(result.values, expected.values)
    assert list(result.index) == ["alice", "bob", "carol"]


def group_by_several_aggregations(client):
    result = collection().groupby("id").agg({"value": ["sum", "max"]}).compute().sort_index()
    expected = frame().groupby("id").agg({"value": ["sum", "max"]})
    assert np.allclose(result.values, expected.values)


def filters_and_new_columns(client):
    df = collection()
    df = df[df.value > 0.5].assign(double=lambda d: d.value * 2)
    expected = frame()
    expected = expected[expected.value > 0.5].assign(double=lambda d: d.value * 2)
    same(df.compute(), expected)


def rows_by_function(client):
    result = collection().map_partitions(lambda part: part[part.id == 7]).compute()
    same(result, frame()[lambda f: f.id == 7])


def describe_and_quantiles(client):
    result = collection().value.describe().compute()
    assert result["count"] == 1000
    assert abs(result["mean"] - frame().value.mean()) < 1e-9


def shuffle_by_tasks(client):
    with by_tasks():
        df = collection().shuffle("id", npartitions=4)
        parts = dask.compute(*df.to_delayed())
    assert sum(len(part) for part in parts) == 1000
    seen = [set(part.id) for part in parts]
    for i, ids in enumerate(seen):
        for other in seen[i + 1 :]:
            assert not ids & other
    same(pd.concat(parts), frame())


def set_index_by_tasks(client):
    with by_tasks():
        result = collection().set_index("value").compute()
    assert result.index.is_monotonic_increasing
    assert len(result) == 1000


def join_by_tasks(client):
    right = pd.DataFrame({"id": range(50), "weight": [i * 1.5 for i in range(50)]})
    with by_tasks():
        result = collection().merge(dd.from_pandas(right, npartitions=3), on="id").compute()
    same(result, frame().merge(right, on="id"))


def shuffle_as_the_release_does_by_default(client):
    result = collection().shuffle("id", npartitions=4).compute()
    same(result, frame())


def set_index_as_the_release_does_by_default(client):
    result = collection().set_index("id", npartitions=3).compute()
    assert list(result.index) == sorted(frame().id)


def join_with_a_small_frame(client):
    right = pd.DataFrame({"name": ["alice", "bob", "carol"], "age": [30, 40, 50]})
    same(collection().merge(right, on="name").compute(), frame().merge(right, on="name"))


def unique_and_value_counts(client):
    df = collection()
    assert sorted(df.name.unique().compute()) == ["alice", "bob", "carol"]
    assert df.name.value_counts().compute().sum() == 1000


def from_delayed_parts(client):
    parts = [dask.delayed(frame)(rows) for rows in (10, 20, 30)]
    df = dd.from_delayed(parts, meta=frame(1))
    assert len(df) == 60
    assert abs(df.value.sum().compute() - sum(frame(rows).value.sum() for rows in (10, 20, 30))) < 1e-9


def persist_and_go_on(client):
    df = client.persist(collection())
    assert len(df) == 1000
    assert df.value.max().compute() == frame().value.max()


def drop_duplicates(client):
    result = collection()[["name"]].drop_duplicates().compute()
    assert sorted(result.name) == ["alice", "bob", "carol"]


def files_on_disk(client):
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        collection().to_csv(os.path.join(folder, "part-*.csv"), index=False)
        df = dd.read_csv(os.path.join(folder, "part-*.csv"))
        assert len(df) == 1000
        assert abs(df.value.sum().compute() - frame().value.sum()) < 1e-6


def repartition(client):
    df = collection().repartition(npartitions=2)
    assert df.npartitions == 2
    same(df.compute(), frame())
