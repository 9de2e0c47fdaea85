"""What a client does with futures."""

import time

from asking import workers_of
from distributed import as_completed, fire_and_forget, wait

SINCE = {}


def inc(x):
    return x + 1


def add(x, y):
    return x + y


def slow_inc(x, delay=0.05):
    time.sleep(delay)
    return x + 1


def until(condition, timeout=10):
    deadline = time.time() + timeout
    while not condition():
        assert time.time() < deadline, "the condition does not come true"
        time.sleep(0.02)


def submit_returns_the_result(client):
    future = client.submit(inc, 10)
    assert future.result(timeout=20) == 11
    assert future.status == "finished"
    assert future.done()


def submit_takes_keywords(client):
    assert client.submit(add, 1, y=2).result(timeout=20) == 3


def lambdas_and_closures_travel(client):
    offset = 5
    assert client.submit(lambda x: x + offset, 1).result(timeout=20) == 6


def map_keeps_the_order(client):
    futures = client.map(inc, range(100))
    assert client.gather(futures) == list(range(1, 101))


def map_takes_several_iterables(client):
    assert client.gather(client.map(add, range(5), range(10, 15))) == [10, 12, 14, 16, 18]


def map_passes_keywords_to_each(client):
    assert client.gather(client.map(add, range(3), y=100)) == [100, 101, 102]


def two_thousand_tasks_at_once(client):
    futures = client.map(inc, range(2000))
    assert client.submit(sum, futures).result(timeout=50) == sum(range(1, 2001))


def futures_are_arguments(client):
    a, b = client.submit(inc, 1), client.submit(inc, 2)
    assert client.submit(add, a, b).result(timeout=20) == 5
    assert client.submit(add, a, y=b).result(timeout=20) == 5


def futures_nest_in_lists_and_dicts(client):
    a, b = client.submit(inc, 1), client.submit(inc, 2)
    assert client.submit(sum, [a, b, 10]).result(timeout=20) == 15
    assert client.submit(lambda d: d["x"][0] + d["y"], {"x": [a], "y": b}).result(timeout=20) == 5


def a_chain_of_a_hundred(client):
    future = client.submit(inc, 0)
    for _ in range(99):
        future = client.submit(inc, future)
    assert future.result(timeout=30) == 100


def a_diamond(client):
    root = client.submit(inc, 0)
    left, right = client.submit(inc, root), client.submit(add, root, 10)
    assert client.submit(add, left, right).result(timeout=20) == 13


def a_wide_reduction(client):
    futures = client.map(inc, range(64))
    while len(futures) > 1:
        futures = [client.submit(add, x, y) for x, y in zip(futures[::2], futures[1::2])]
    assert futures[0].result(timeout=30) == sum(range(1, 65))


def gather_takes_nested_collections(client):
    a, b = client.submit(inc, 1), client.submit(inc, 2)
    assert client.gather({"x": a, "y": [b, 10]}) == {"x": 2, "y": [3, 10]}


def the_same_pure_call_is_one_task(client):
    first, second = client.submit(inc, 123), client.submit(inc, 123)
    assert first.key == second.key
    assert first.result(timeout=20) == second.result(timeout=20) == 124


def impure_calls_are_tasks_of_their_own(client):
    first, second = client.submit(inc, 1, pure=False), client.submit(inc, 1, pure=False)
    assert first.key != second.key
    assert client.gather([first, second]) == [2, 2]


def keys_can_be_chosen(client):
    future = client.submit(inc, 1, key="my-own-key")
    assert future.key == "my-own-key"
    assert future.result(timeout=20) == 2
    assert "my-own-key" in client.who_has()


def keys_may_be_tuples(client):
    future = client.submit(inc, 1, key=("block", 3, 0))
    assert future.result(timeout=20) == 2
    assert client.submit(inc, future).result(timeout=20) == 3


def as_completed_yields_every_future(client):
    futures = client.map(slow_inc, range(8))
    done = list(as_completed(futures))
    assert sorted(future.result() for future in done) == list(range(1, 9))


def as_completed_brings_results(client):
    futures = client.map(inc, range(8), pure=False)
    assert sorted(result for _, result in as_completed(futures, with_results=True)) == list(range(1, 9))


def as_completed_accepts_more_on_the_way(client):
    futures = as_completed(client.map(inc, range(3)))
    total = 0
    for future in futures:
        total += future.result()
        if futures.count() == 0 and total < 10:
            futures.add(client.submit(inc, total))
    assert total == 6 + 7


def callbacks_are_called(client):
    called = []
    futures = client.map(inc, range(4), pure=False)
    for future in futures:
        future.add_done_callback(lambda done: called.append((done.status, done.key)))
    until(lambda: len(called) == 4)
    assert sorted(called) == sorted(("finished", future.key) for future in futures)


def wait_for_all(client):
    futures = client.map(slow_inc, range(4), pure=False)
    done, not_done = wait(futures, timeout=20)
    assert done == set(futures)
    assert not not_done


def wait_for_the_first(client):
    quick, slow = client.submit(inc, 1, pure=False), client.submit(slow_inc, 1, delay=2, pure=False)
    done, not_done = wait([quick, slow], return_when="FIRST_COMPLETED", timeout=20)
    assert done == {quick}
    assert not_done == {slow}


def waiting_for_a_result_has_a_limit(client):
    future = client.submit(slow_inc, 1, delay=2, pure=False)
    try:
        future.result(timeout="100 ms")
    except Exception as error:
        assert type(error).__name__ == "TimeoutError", repr(error)
    else:
        raise AssertionError("there was a result before the task can have ended")


def large_arguments_and_results(client):
    data = bytes(range(256)) * 40_000
    future = client.submit(lambda data: data[::-1], data)
    assert future.result(timeout=30) == data[::-1]


def results_of_many_kinds(client):
    import numpy as np
    import pandas as pd

    array = np.arange(1_000_000)
    frame = pd.DataFrame({"x": [1, 2, 3], "y": ["a", "b", None]})
    for value in [None, True, b"bytes", "ü", {"a": (1, {2})}, 2**70, 1.5, Ellipsis]:
        assert client.submit(lambda value=value: value, pure=False).result(timeout=20) == value
    assert (client.submit(lambda: array, pure=False).result(timeout=20) == array).all()
    pd.testing.assert_frame_equal(client.submit(lambda: frame, pure=False).result(timeout=20), frame)


def arrays_move_between_workers(client):
    import numpy as np

    first, second = sorted(client.ncores())
    array = client.submit(np.arange, 500_000, workers=[first], pure=False)
    total = client.submit(lambda array: int(array.sum()), array, workers=[second], pure=False)
    assert total.result(timeout=20) == 500_000 * 499_999 // 2


def released_futures_are_forgotten(client):
    future = client.submit(inc, 1, key="soon-forgotten")
    future.result(timeout=20)
    assert "soon-forgotten" in client.who_has()
    del future
    until(lambda: "soon-forgotten" not in client.who_has())


def a_released_input_does_not_disturb_its_user(client):
    future = client.submit(slow_inc, 1, pure=False)
    result = client.submit(inc, future, pure=False)
    del future
    assert result.result(timeout=20) == 3


def fire_and_forget_runs_without_a_future(client):
    from distributed import Variable

    def leave_a_mark(x):
        from distributed import get_client

        Variable("mark", client=get_client()).set(x)

    fire_and_forget(client.submit(leave_a_mark, 42, pure=False))
    assert Variable("mark", client=client).get(timeout=20) == 42


def tasks_can_be_pinned_to_a_worker(client):
    from distributed import get_worker

    for address in client.ncores():
        future = client.submit(lambda: get_worker().address, workers=[address], pure=False)
        assert future.result(timeout=20) == address


def tasks_can_be_pinned_by_the_name_of_a_worker(client):
    from distributed import get_worker

    for address, worker in workers_of(client).items():
        future = client.submit(lambda: get_worker().address, workers=[worker["name"]], pure=False)
        assert future.result(timeout=20) == address


def raw_graphs_are_computed(client):
    graph = {"a": 1, "b": (inc, "a"), ("c", 0): (add, "b", 10), "d": (sum, ["a", "b", ("c", 0)])}
    assert client.get(graph, "d") == 15
    assert client.get(graph, [["a", "b"], ("c", 0)]) == [[1, 2], 12] or client.get(graph, [["a", "b"], ("c", 0)]) == (
        [1, 2],
        12,
    )


def priorities_go_first(client):
    """Both threads are held while tasks of two priorities queue up; then those of the higher one start first."""

    def stamp():
        time.sleep(0.01)
        return time.time()

    blockers = client.map(slow_inc, range(2), delay=1, pure=False, priority=100)
    low = [client.submit(stamp, pure=False, priority=-10) for _ in range(10)]
    high = [client.submit(stamp, pure=False, priority=10) for _ in range(10)]
    client.gather(blockers)
    # Two threads finish their tasks side by side, so the middle is compared instead of the edges.
    assert sorted(client.gather(high))[5] < sorted(client.gather(low))[5]


def tasks_submit_tasks(client):
    def fib(n):
        if n < 2:
            return n
        from distributed import get_client, rejoin, secede

        inner = get_client()
        futures = inner.map(fib, [n - 1, n - 2])
        secede()
        left, right = inner.gather(futures)
        rejoin()
        return left + right

    assert client.submit(fib, 6).result(timeout=40) == 8


def tasks_use_a_worker_client(client):
    def total(n):
        from distributed import worker_client

        with worker_client() as inner:
            return sum(inner.gather(inner.map(inc, range(n))))

    assert client.submit(total, 10).result(timeout=30) == 55
