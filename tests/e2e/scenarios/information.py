"""What a client can ask about the cluster."""

import time
import warnings

from asking import identity
from distributed import wait

SINCE = {}


def inc(x):
    return x + 1


def slow_inc(x, delay=1):
    time.sleep(delay)
    return x + 1


def until(condition, timeout=10):
    deadline = time.time() + timeout
    while not condition():
        assert time.time() < deadline, "the condition does not come true"
        time.sleep(0.02)


def the_identity_of_the_scheduler(client):
    info = identity(client)
    assert info["type"] == "Scheduler"
    assert info["address"] == client.scheduler.address
    assert len(info["workers"]) == 2
    for address, worker in info["workers"].items():
        assert address.startswith("tcp://")
        assert worker["nthreads"] == 1
        assert worker["memory_limit"] > 0
        assert worker["name"].startswith("worker-")


def threads_of_workers(client):
    assert sorted(client.ncores().values()) == [1, 1]
    assert client.nthreads() == client.ncores()


def versions_agree(client):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        versions = client.get_versions(check=True)
    assert len(versions["workers"]) == 2
    assert versions["client"]["packages"]
    assert versions["scheduler"]["host"]
    client.run_on_scheduler(int)
    assert client.get_versions(check=True)["scheduler"]["packages"] == versions["client"]["packages"]


def what_is_being_processed(client):
    futures = client.map(slow_inc, range(2), pure=False)
    until(lambda: sum(len(keys) for keys in client.processing().values()) == 2)
    running = [key for keys in client.processing().values() for key in keys]
    assert sorted(map(str, running)) == sorted(str(future.key) for future in futures)
    client.gather(futures)


def the_call_stack_of_a_task(client):
    future = client.submit(slow_inc, 1, delay=2, pure=False)
    until(lambda: any(future.key in keys for keys in client.processing().values()))
    until(lambda: any(client.call_stack([future]).values()))
    (stacks,) = [stacks for stacks in client.call_stack([future]).values() if stacks]
    assert "slow_inc" in str(stacks)
    future.result(timeout=20)


def logs_of_scheduler_and_workers(client):
    lines = [line[-1] for line in client.get_scheduler_logs(n=5)]
    assert lines
    assert all("distributed.scheduler" in line for line in lines), lines
    assert sorted(client.get_worker_logs()) == sorted(client.ncores())


def the_task_stream(client):
    from distributed import get_task_stream

    with get_task_stream() as stream:
        wait(client.map(inc, range(5), pure=False))
    assert len(stream.data) == 5


def profiles(client):
    wait(client.map(slow_inc, range(4), delay=0.2, pure=False))
    assert client.profile()["count"] >= 0


def waiting_for_workers(client):
    client.wait_for_workers(2, timeout=10)
    try:
        client.wait_for_workers(3, timeout="300 ms")
    except Exception as error:
        assert "Timeout" in type(error).__name__, repr(error)
    else:
        raise AssertionError("there is no third worker")


def representations(client):
    assert client.scheduler.address in repr(client)
    assert "2" in repr(client)
