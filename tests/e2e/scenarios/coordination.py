"""Names that clients and tasks share: datasets, queues, variables, locks, events, semaphores."""

import time

from distributed import Event, Lock, Queue, Semaphore, Variable, get_client, wait

# Plain values pass through msgpack, which makes tuples of lists.
SINCE = {
    "topics_are_heard": "2022.12.0",
    "events_are_logged_by_clients": "2022.12.0",
    "workers_log_events": "2022.12.0",
}


def inc(x):
    return x + 1


def slow_inc(x, delay=0.2):
    time.sleep(delay)
    return x + 1


def times_out(call):
    try:
        call()
    except Exception as error:
        assert type(error).__name__ == "TimeoutError", repr(error)
        return True
    return False


def datasets_are_published(client):
    futures = client.map(inc, range(3))
    client.publish_dataset(numbers=futures)
    try:
        assert "numbers" in client.list_datasets()
        assert client.gather(client.get_dataset("numbers")) == [1, 2, 3]
    finally:
        client.unpublish_dataset("numbers")
    assert "numbers" not in client.list_datasets()
    try:
        client.get_dataset("numbers")
    except KeyError:
        pass
    else:
        raise AssertionError("the dataset is still there")


def published_data_outlives_its_client(client):
    from distributed import Client

    with Client(client.scheduler.address, set_as_default=False, timeout="30s") as other:
        future = other.submit(inc, 1, key="published-by-another")
        wait(future)
        other.publish_dataset(future, name="left-behind")
        del future
    time.sleep(0.3)
    try:
        assert client.get_dataset("left-behind").result(timeout=20) == 2
    finally:
        client.unpublish_dataset("left-behind")


def a_name_is_published_once(client):
    client.publish_dataset(one=1)
    try:
        client.publish_dataset(one=2)
    except KeyError:
        pass
    else:
        raise AssertionError("the name was taken")
    finally:
        client.unpublish_dataset("one")


def collections_are_published(client):
    import dask.array as da

    x = client.persist(da.arange(100, chunks=10))
    client.publish_dataset(x=x)
    try:
        assert client.get_dataset("x").sum().compute() == 4950
    finally:
        client.unpublish_dataset("x")


def queues_carry_values(client):
    queue = Queue("values", client=client)
    for value in (1, "two", (3,), None):
        queue.put(value)
    assert queue.qsize() == 4
    assert [queue.get(timeout=5) for _ in range(4)] == [1, "two", (3,), None]
    assert times_out(lambda: queue.get(timeout="100 ms"))


def queues_have_a_size(client):
    queue = Queue("small", client=client, maxsize=1)
    queue.put(1)
    assert times_out(lambda: queue.put(2, timeout="100 ms"))
    assert queue.get(timeout=5) == 1


def queues_carry_futures(client):
    queue = Queue("futures", client=client)
    queue.put(client.submit(inc, 1, pure=False))
    time.sleep(0.2)
    assert queue.get(timeout=5).result(timeout=20) == 2


def queues_are_reached_from_tasks(client):
    def produce(n):
        queue = Queue("from-tasks", client=get_client())
        for i in range(n):
            queue.put(i)

    produced = client.submit(produce, 5, pure=False)
    queue = Queue("from-tasks", client=client)
    assert [queue.get(timeout=20) for _ in range(5)] == list(range(5))
    produced.result(timeout=20)


def queues_give_batches(client):
    queue = Queue("batches", client=client)
    for i in range(5):
        queue.put(i)
    assert queue.get(batch=3) == [0, 1, 2]
    assert queue.get(batch=True) == [3, 4]


def variables_hold_values(client):
    variable = Variable("plain", client=client)
    variable.set(1)
    variable.set({"a": 2})
    assert variable.get(timeout=5) == {"a": 2}
    variable.delete()
    # Deleting is not waited for.
    time.sleep(0.5)
    assert times_out(lambda: Variable("plain", client=client).get(timeout="100 ms"))


def variables_keep_futures_alive(client):
    variable = Variable("future", client=client)
    future = client.submit(inc, 20, pure=False)
    variable.set(future)
    wait(future)
    del future
    time.sleep(0.3)
    assert variable.get(timeout=5).result(timeout=20) == 21
    variable.delete()


def variables_are_waited_for(client):
    def set_later(name):
        time.sleep(0.3)
        Variable(name, client=get_client()).set("late")

    done = client.submit(set_later, "awaited", pure=False)
    assert Variable("awaited", client=client).get(timeout=20) == "late"
    done.result(timeout=20)


def locks_exclude(client):
    def enter(i):
        with Lock("exclusive"):
            started = time.time()
            time.sleep(0.05)
            return started, time.time()

    spans = sorted(client.gather(client.map(enter, range(6), pure=False)))
    for (_, end), (start, _) in zip(spans, spans[1:]):
        assert end <= start + 0.001


def locks_are_waited_for(client):
    lock, other = Lock("waited"), Lock("waited")
    assert lock.acquire(timeout=5)
    assert lock.locked()
    assert not other.acquire(timeout=0.1)
    lock.release()
    assert other.acquire(timeout=5)
    other.release()


def events_wake_who_waits(client):
    def wait_for_it(name):
        return Event(name, client=get_client()).wait(timeout=20)

    event = Event("woken", client=client)
    assert not event.is_set()
    waiting = client.submit(wait_for_it, "woken", pure=False)
    time.sleep(0.2)
    event.set()
    assert waiting.result(timeout=20) is True
    assert event.is_set()
    event.clear()
    assert not event.is_set()
    assert event.wait(timeout=0.1) is False


def semaphores_limit(client):
    semaphore = Semaphore(max_leases=2, name="two-at-once")
    assert semaphore.acquire(timeout=5)
    assert semaphore.acquire(timeout=5)
    assert not semaphore.acquire(timeout=0.2)
    semaphore.release()
    assert semaphore.acquire(timeout=5)
    semaphore.release()
    semaphore.release()
    assert semaphore.get_value() == 0
    semaphore.close()


def semaphores_travel_to_tasks(client):
    semaphore = Semaphore(max_leases=1, name="travels")

    def enter(i, semaphore):
        with semaphore:
            started = time.time()
            time.sleep(0.05)
            return started, time.time()

    spans = sorted(client.gather(client.map(enter, range(4), semaphore=semaphore, pure=False)))
    for (_, end), (start, _) in zip(spans, spans[1:]):
        assert end <= start + 0.001
    semaphore.close()


def metadata_is_kept(client):
    client.set_metadata(["group", "key"], 1)
    client.set_metadata(["group", "other"], (2, 3))
    assert client.get_metadata(["group"]) == {"key": 1, "other": (2, 3)}
    assert client.get_metadata(["nothing"], default="none") == "none"


def workers_log_events(client):
    def log(x):
        from distributed import get_worker

        get_worker().log_event("from-a-worker", {"x": x})

    client.submit(log, 5, pure=False).result(timeout=20)
    deadline = time.time() + 10
    while not client.get_events("from-a-worker"):
        assert time.time() < deadline
        time.sleep(0.02)
    ((_, event),) = client.get_events("from-a-worker")
    assert event["x"] == 5


def events_are_logged_by_clients(client):
    client.log_event("from-a-client", "hello")
    events = client.get_events("from-a-client")
    assert [event for _, event in events] == ["hello"]


def topics_are_heard(client):
    heard = []
    client.subscribe_topic("news", lambda event: heard.append(event[1]))
    # The subscription and the events take different ways to the scheduler.
    time.sleep(0.5)
    client.log_event("news", "first")
    client.log_event("news", "second")
    deadline = time.time() + 10
    while len(heard) < 2:
        assert time.time() < deadline, heard
        time.sleep(0.02)
    assert heard == ["first", "second"]
    client.unsubscribe_topic("news")
