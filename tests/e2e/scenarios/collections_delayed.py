"""dask.delayed on the cluster."""

import dask
from dask import delayed

SINCE = {}


@delayed
def inc(x):
    return x + 1


@delayed
def add(x, y):
    return x + y


def a_small_graph(client):
    assert add(inc(1), inc(2)).compute() == 5


def a_tree(client):
    values = [inc(i) for i in range(32)]
    while len(values) > 1:
        values = [add(x, y) for x, y in zip(values[::2], values[1::2])]
    assert values[0].compute() == sum(range(1, 33))


def nested_collections_are_arguments(client):
    value = delayed(lambda d: d["a"] + sum(d["b"]))({"a": inc(1), "b": [inc(2), inc(3)]})
    assert value.compute() == 9


def several_at_once(client):
    shared = inc(1)
    assert dask.compute(inc(shared), add(shared, 10), "constant") == (3, 12, "constant")


def attributes_and_items(client):
    value = delayed(complex)(3, 4)
    assert value.conjugate().imag.compute() == -4
    assert delayed(dict)(a=5)["a"].compute() == 5


def several_outputs(client):
    quotient, remainder = delayed(divmod, nout=2)(17, 5)
    assert dask.compute(quotient, remainder) == (3, 2)


def compute_through_the_client(client):
    assert client.compute(add(inc(1), 1)).result(timeout=20) == 3
    assert client.compute([inc(1), inc(2)], sync=True) in ([2, 3], (2, 3))


def persist_through_the_client(client):
    value = client.persist(add(inc(1), 1))
    assert inc(value).compute() == 4


def futures_inside(client):
    future = client.submit(lambda: 10)
    assert add(future, inc(1)).compute() == 12


def optimised_away(client):
    value = inc(0)
    for _ in range(50):
        value = inc(value)
    (optimised,) = dask.optimize(value)
    assert optimised.compute() == 51


def own_names(client):
    value = add(1, 2, dask_key_name="own-name")
    assert value.key == "own-name"
    assert value.compute() == 3


def five_hundred_and_their_sum(client):
    assert delayed(sum)([inc(i) for i in range(500)]).compute() == sum(range(1, 501))


def one_large_argument(client):
    data = bytes(5_000_000)
    assert delayed(len)(delayed(data)).compute() == 5_000_000
