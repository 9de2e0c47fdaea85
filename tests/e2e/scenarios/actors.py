"""Actors: objects that live on one worker."""

from distributed import get_worker

SINCE = {"errors_come_back": "2022.12.0"}


class Counter:
    # The client looks attributes up on the class.
    n = 0

    def __init__(self, start=0):
        self.n = start

    def increment(self, by=1):
        self.n += by
        return self.n

    def where(self):
        return get_worker().address

    def fail(self):
        raise ValueError("of an actor")


def methods_and_attributes(client):
    counter = client.submit(Counter, 10, actor=True, pure=False).result(timeout=20)
    assert [counter.increment().result(timeout=20) for _ in range(3)] == [11, 12, 13]
    assert counter.n == 13


def stay_where_they_are(client):
    address = sorted(client.ncores())[1]
    future = client.submit(Counter, actor=True, workers=[address], pure=False)
    counter = future.result(timeout=20)
    assert counter.where().result(timeout=20) == address


def are_reached_from_tasks(client):
    def use(counter, n):
        for _ in range(n):
            counter.increment().result()
        return n

    counter = client.submit(Counter, actor=True, pure=False).result(timeout=20)
    client.gather([client.submit(use, counter, 5, pure=False) for _ in range(4)])
    assert counter.n == 20


def errors_come_back(client):
    counter = client.submit(Counter, actor=True, pure=False).result(timeout=20)
    try:
        counter.fail().result(timeout=20)
    except ValueError as error:
        assert "of an actor" in str(error)
    else:
        raise AssertionError("nothing was raised")


def several_of_a_map(client):
    counters = client.gather(client.map(Counter, [0, 100], actor=True, pure=False))
    assert [counter.increment(5).result(timeout=20) for counter in counters] == [5, 105]
