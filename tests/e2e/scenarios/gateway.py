"""A user of Dask Gateway. Called by test_gateway.py, in an environment that has dask-gateway."""

import time

from asking import workers_of


def inc(x):
    return x + 1


def slow_inc(x):
    time.sleep(0.2)
    return x + 1


def until(condition, timeout=60):
    deadline = time.time() + timeout
    while not condition():
        assert time.time() < deadline, "the condition does not come true"
        time.sleep(0.1)


def works(address):
    from dask_gateway import BasicAuth, Gateway

    with Gateway(address, auth=BasicAuth(username="somebody")) as gateway:
        with gateway.new_cluster() as cluster, cluster.get_client() as client:
            # The proxy forwards by name; no other address of the cluster is known here.
            assert cluster.scheduler_address.startswith("gateway://"), cluster.scheduler_address
            cluster.scale(2)
            client.wait_for_workers(2, timeout=60)
            assert all(worker.startswith("tls://") for worker in workers_of(client))
            futures = client.map(inc, range(20))
            assert client.gather(futures) == list(range(1, 21))
            large = client.submit(lambda: b"x" * 3_000_000)
            assert len(large.result(timeout=30)) == 3_000_000
            # What the worker that goes holds moves to the other.
            cluster.scale(1)
            until(lambda: len(workers_of(client)) == 1)
            assert client.gather(futures) == list(range(1, 21))
            del futures, large
            cluster.adapt(minimum=0, maximum=2)
            until(lambda: len(workers_of(client)) == 0)
            futures = client.map(slow_inc, range(40))
            assert sum(client.gather(futures)) == sum(range(1, 41))
        until(lambda: not gateway.list_clusters())
