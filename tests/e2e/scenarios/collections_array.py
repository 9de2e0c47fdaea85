"""dask.array on the cluster."""

import dask
import dask.array as da
import numpy as np

SINCE = {}


def sums_and_means(client):
    x = da.ones((400, 400), chunks=(100, 100))
    assert x.sum().compute() == 160_000
    assert (x + x.T).mean(axis=0).compute().tolist() == [2.0] * 400


def products_of_matrices(client):
    a = np.arange(10_000).reshape(100, 100) % 7
    x = da.from_array(a, chunks=(25, 50))
    assert (x.dot(x.T).compute() == a.dot(a.T)).all()


def slices(client):
    a = np.arange(1000)
    x = da.from_array(a, chunks=64)
    assert (x[10:900:7].compute() == a[10:900:7]).all()
    assert (x[x % 3 == 0].compute() == a[a % 3 == 0]).all()


def new_chunks(client):
    a = np.arange(3600).reshape(60, 60)
    x = da.from_array(a, chunks=(10, 60)).rechunk((60, 10))
    assert (x.compute() == a).all()


def overlapping_chunks(client):
    a = np.arange(100.0)
    x = da.from_array(a, chunks=20)
    smooth = x.map_overlap(lambda b: b + np.roll(b, 1), depth=1, boundary="periodic")
    assert (smooth.compute() == a + np.roll(a, 1)).all()


def cumulative_sums(client):
    assert da.arange(100, chunks=9).cumsum(axis=0)[-1].compute() == 4950


def random_numbers(client):
    x = da.random.RandomState(1).normal(10, 1, size=(1000, 100), chunks=(100, 100))
    assert abs(x.mean().compute() - 10) < 0.1


def blocks_from_delayed(client):
    block = dask.delayed(np.ones)((10, 10))
    x = da.concatenate([da.from_delayed(block, (10, 10), float) for _ in range(4)])
    assert x.sum().compute() == 400


def blockwise_of_several(client):
    x, y = da.arange(40, chunks=10), da.ones(40, chunks=10)
    z = da.map_blocks(lambda a, b: a * 2 + b, x, y, dtype=float)
    assert z.sum().compute() == 2 * 780 + 40


def block_numbers_reach_the_function(client):
    def mark(block, block_info=None):
        return block + block_info[0]["chunk-location"][0]

    x = da.zeros(40, chunks=10, dtype=int).map_blocks(mark, dtype=int)
    assert x.compute().tolist() == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10


def persist_and_go_on(client):
    x = da.arange(1000, chunks=100).persist()
    assert (x + 1).sum().compute() == 500_500
    assert x.max().compute() == 999


def stacks_and_reshapes(client):
    x = da.stack([da.arange(12, chunks=4) + i for i in range(3)])
    assert x.reshape(36).sum().compute() == 3 * 66 + 3 * 12


def several_results_at_once(client):
    x = da.arange(100, chunks=10)
    assert dask.compute(x.sum(), x.min(), x.std().round(3)) == (4950, 0, 28.866)


def qr_of_a_tall_matrix(client):
    a = np.random.RandomState(0).random_sample((200, 10))
    q, r = da.linalg.qr(da.from_array(a, chunks=(50, 10)))
    q, r = dask.compute(q, r)
    assert np.allclose(q.dot(r), a)


def large_arrays_embedded_in_the_graph(client):
    a = np.random.RandomState(0).random_sample(500_000)
    assert abs(da.from_array(a, chunks=50_000).sum().compute() - a.sum()) < 1e-6
