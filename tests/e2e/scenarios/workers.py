"""Workers that come, go and die. Called by test_workers.py, which owns the worker processes."""

import os
import time

from asking import workers_of
from distributed import wait


def inc(x):
    return x + 1


def slow_inc(x, delay=0.1):
    time.sleep(delay)
    return x + 1


def die(_=None):
    os._exit(1)


def until(condition, timeout=30):
    deadline = time.time() + timeout
    while not condition():
        assert time.time() < deadline, "the condition does not come true"
        time.sleep(0.02)


def computes_through_a_kill(client, talk):
    """A graph with data on both workers; the test kills one while it runs."""
    first = client.map(slow_inc, range(40), pure=False)
    second = client.map(slow_inc, first, delay=0.02, pure=False)
    total = client.submit(sum, second, pure=False)
    until(lambda: sum(future.done() for future in first) >= 10)
    talk.tell("running")
    assert total.result(timeout=60) == sum(range(2, 42))


def recomputes_what_is_lost(client, talk):
    """All data of one worker is needed again after its death."""
    futures = client.map(inc, range(100), pure=False)
    wait(futures)
    has_what = client.has_what()
    assert all(has_what.values()), has_what
    talk.tell({worker["name"]: address for address, worker in workers_of(client).items()})
    talk.wait()
    until(lambda: len(client.ncores()) == 1)
    assert client.gather(futures) == list(range(1, 101))


def scattered_data_is_lost_with_its_worker(client, talk):
    workers = {worker["name"]: address for address, worker in workers_of(client).items()}
    name, address = sorted(workers.items())[0]
    future = client.scatter(b"only here", workers=[address], hash=False)
    # Nobody may run it: a worker that could would fetch a copy, and then the data is not lost.
    user = client.submit(slow_inc, future, delay=0, pure=False, workers=["nobody"])
    del user
    talk.tell(name)
    talk.wait()
    until(lambda: len(client.ncores()) == 1)
    until(lambda: future.status in ("lost", "cancelled"))


def waits_for_a_worker(client, talk):
    """Nobody can run it at first."""
    future = client.submit(inc, 1)
    time.sleep(0.3)
    assert future.status == "pending"
    talk.tell("waiting")
    assert future.result(timeout=40) == 2


def a_deadly_task_is_given_up(client, deaths):
    from distributed.scheduler import KilledWorker

    deadly = client.submit(die, pure=False, key="deadly")
    harmless = client.submit(inc, 1, pure=False)
    try:
        deadly.result(timeout=100)
    except KilledWorker as error:
        assert "deadly" in str(error), error
    else:
        raise AssertionError("it has a result")
    assert harmless.result(timeout=30) == 2


def restart_gives_fresh_processes(client):
    before = client.run(os.getpid)
    future = client.submit(inc, 1, pure=False)
    wait(future)
    client.restart()
    assert future.cancelled() or future.status in ("lost", "cancelled")
    client.wait_for_workers(len(before), timeout=30)
    after = client.run(os.getpid)
    assert len(after) == len(before)
    assert not set(before.values()) & set(after.values())
    assert client.submit(inc, 1, pure=False).result(timeout=30) == 2


def a_killed_worker_process_comes_back(client):
    """The nanny restarts its worker; the task goes on elsewhere or there."""
    before = client.run(os.getpid)
    victim, pid = sorted(before.items())[0]
    futures = client.map(slow_inc, range(30), pure=False)
    os.kill(pid, 9)
    assert client.gather(futures) == list(range(1, 31))
    until(lambda: victim not in client.ncores())
    client.wait_for_workers(len(before), timeout=40)
    after = client.run(os.getpid)
    assert pid not in after.values()


def retires(client):
    """Data moves before the worker leaves."""
    first, _ = sorted(client.ncores())
    futures = client.map(inc, range(20), workers=[first], pure=False, allow_other_workers=False)
    wait(futures)
    client.retire_workers([first])
    until(lambda: first not in client.ncores())
    assert client.gather(futures) == list(range(1, 21))


def new_workers_get_work(client, talk):
    futures = client.map(slow_inc, range(100), pure=False, delay=0.1)
    talk.tell("queued")
    wait(futures, timeout=60)
    holders = {worker for workers in client.who_has(futures).values() for worker in workers}
    assert len(holders) == 2, holders


def resources_are_honoured(client, name):
    from distributed import get_worker

    def where():
        return get_worker().name

    futures = [client.submit(where, resources={"GPU": 1}, pure=False) for _ in range(6)]
    assert set(client.gather(futures)) == {name}


def computes(client, n=100):
    assert client.gather(client.map(inc, range(n), pure=False)) == list(range(1, n + 1))


def a_worker_without_a_nanny_may_say_so(client):
    from distributed import Worker

    async def joins():
        async with Worker(client.scheduler.address, nanny=False, nthreads=1) as worker:
            return worker.status.name

    assert client.sync(joins) == "running"


def a_worker_may_call_itself_by_a_name(client):
    """It is known by its number, as with the stock scheduler, and its heartbeats under the name count."""
    import asyncio
    import socket

    from distributed import Worker

    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]

    async def joins():
        worker = Worker(
            client.scheduler.address,
            host="127.0.0.1",
            port=port,
            contact_address=f"tcp://localhost:{port}",
            name="by-name",
            nthreads=1,
            heartbeat_interval="20ms",
        )
        async with worker:
            before = (await client.scheduler.identity())["workers"]
            address = f"tcp://127.0.0.1:{port}"
            assert list(before) == [address], before
            assert await client.submit(abs, -1, workers=["by-name"]) == 1
            while True:
                now = (await client.scheduler.identity())["workers"]
                if now[address]["last_seen"] > before[address]["last_seen"]:
                    return worker.status.name
                await asyncio.sleep(0.02)

    assert client.sync(joins) == "running"
