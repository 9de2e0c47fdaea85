"""dask.bag on the cluster."""

import dask.bag as db

SINCE = {}


def numbers():
    return db.range(100, npartitions=5)


def map_and_filter(client):
    assert numbers().map(lambda x: x * 2).filter(lambda x: x % 3 == 0).sum().compute() == 3366


def statistics(client):
    bag = numbers()
    assert bag.count().compute() == 100
    assert bag.mean().compute() == 49.5
    assert bag.max().compute() == 99


def fold(client):
    assert numbers().fold(lambda x, y: x + y).compute() == 4950


def foldby(client):
    assert dict(numbers().foldby(lambda x: x % 2, lambda x, y: x + y, 0).compute()) == {0: 2450, 1: 2500}


def frequencies(client):
    words = db.from_sequence(["a", "b", "a", "c", "a", "b"], npartitions=3)
    assert dict(words.frequencies().compute()) == {"a": 3, "b": 2, "c": 1}


def group_by_shuffles(client):
    groups = dict(numbers().groupby(lambda x: x % 3, shuffle="tasks").compute())
    assert {key: len(values) for key, values in groups.items()} == {0: 34, 1: 33, 2: 33}


def take_looks_at_the_first_only(client):
    assert numbers().map(str).take(3) == ("0", "1", "2")


def zip_and_pluck(client):
    pairs = db.zip(numbers(), numbers().map(lambda x: x * x))
    assert pairs.pluck(1).sum().compute() == sum(x * x for x in range(100))


def to_delayed_parts(client):
    import dask

    parts = numbers().map(lambda x: x + 1).to_delayed()
    assert sum(sum(part) for part in dask.compute(*parts)) == 5050
