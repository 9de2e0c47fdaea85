"""What launchers ask of a scheduler by RPC: KubeCluster, the Dask operator, Prefect. Called by test_launchers.py."""

import time

from asking import workers_of
from distributed.core import connect
from distributed.protocol.pickle import dumps


def inc(x):
    return x + 1


def ask(client, op, **arguments):
    return client.sync(getattr(client.scheduler, op), **arguments)


def names(client):
    return [worker["name"] for worker in workers_of(client).values()]


def names_keep_their_type(client):
    """Workers that are called 0 and word. Pods are deleted by what is answered here."""
    chosen = ask(client, "workers_to_close", n=2, attribute="name")
    assert set(map(repr, chosen)) == {"0", "'word'"}, chosen
    assert set(map(repr, names(client))) == {"0", "'word'"}


def the_scheduler_is_asked_about_itself(client):
    versions = ask(client, "versions")
    assert versions["packages"], versions
    identity = ask(client, "identity")
    assert identity["type"] == "Scheduler" and identity["address"] == client.scheduler.address, identity
    assert isinstance(identity["services"]["dashboard"], int), identity["services"]
    workers = identity["workers"]
    assert ask(client, "ncores") == {address: worker["nthreads"] for address, worker in workers.items()}
    assert ask(client, "ncores", workers=list(workers)[:1]) == {list(workers)[0]: 1}
    assert ask(client, "get_metadata", keys=["cluster-manager-info"], default={}) == {}
    ask(client, "set_metadata", keys=["cluster-manager-info"], value={"type": "me"})
    assert ask(client, "get_metadata", keys=["cluster-manager-info"], default={}) == {"type": "me"}
    assert ask(client, "adaptive_target") == 0
    assert ask(client, "adaptive_target", target_duration=5.0) == 0
    assert ask(client, "adaptive_target", target_duration="5s") == 0


def the_scheduler_tells_since_when_it_is_idle(client):
    assert client.submit(inc, 1).result(timeout=30) == 2
    # Asked for the first time after work, it begins to watch.
    deadline = time.time() + 30
    while not (since := ask(client, "check_idle")):
        assert time.time() < deadline
        time.sleep(0.05)
    assert 0 <= time.time() - since < 60


def nobody_is_retired_by_mistake(client):
    """`cluster.scale` sends names where addresses are expected; workers may be gone already."""
    before = sorted(map(repr, names(client)))
    for arguments in ({"workers": [0, 1]}, {"workers": ["tcp://127.0.0.1:1"]}, {"names": ["nobody"]}):
        assert not ask(client, "retire_workers", remove=True, close_workers=True, **arguments)
    assert sorted(map(repr, names(client))) == before


def workers_are_retired_by_name(client, name):
    """Compared as texts; what they hold moves to others."""
    held = client.scatter(7)
    retired = ask(client, "retire_workers", names=[name], remove=True, close_workers=True)
    (worker,) = retired.values() if isinstance(retired, dict) else [None]
    assert worker["name"] == name, retired
    assert name not in names(client)
    assert client.gather(held) == 7


def subscribers_hear_of_workers(client, talk, subscribers):
    """Each on a connection of its own, as Prefect and cluster objects have it."""

    async def subscribe():
        comm = await connect(client.scheduler.address)
        await comm.write({"op": "subscribe_worker_status"})
        identity = await comm.read()
        assert identity["type"] == "Scheduler"
        for worker in identity["workers"].values():
            assert "metrics" not in worker and "last_seen" not in worker, worker
        return comm

    async def next_about(comm, op):
        while True:
            for kind, message in await comm.read():
                if kind == op:
                    return message

    comms = [client.sync(subscribe) for _ in range(subscribers)]
    known = set(workers_of(client))
    talk.tell("subscribed")
    for comm in comms:
        (new,) = client.sync(next_about, comm, "add")["workers"]
        assert new not in known
    talk.tell("added")
    for comm in comms:
        assert client.sync(next_about, comm, "remove") == new
    for comm in comms:
        client.sync(comm.close)


def the_cluster_is_closed(client):
    ask(client, "terminate")


def feeds_are_refused(client):
    async def feed():
        comm = await connect(client.scheduler.address)
        await comm.write({"op": "feed", "function": dumps(lambda scheduler: 1), "interval": 0.1})
        answer = await comm.read()
        await comm.close()
        return answer

    answer = client.sync(feed)
    assert answer["status"] == "uncaught-error", answer
    assert "explicitly disallowed" in str(answer), answer


def functions_are_refused(client):
    try:
        client.run_on_scheduler(inc, 1)
    except ValueError as error:
        assert "The 'run_function' handler has been explicitly disallowed in Scheduler" in str(error), error
    else:
        raise AssertionError("it has run")


def no_code_runs_in_the_scheduler(client):
    """The ways in which a client's code could get there, besides the two ops that everybody blocks."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    feeds_are_refused(client)
    functions_are_refused(client)

    class Plugin(SchedulerPlugin):
        name = "mine"

    async def register():
        return await client.scheduler.register_scheduler_plugin(plugin=dumps(Plugin()), name="mine", idempotent=False)

    async def choose():
        return await client.scheduler.workers_to_close(n=1, key=dumps(lambda worker: 1))

    for attempt in (register, choose):
        try:
            client.sync(attempt)
        except Exception as error:
            assert "disallowed" in str(error) or "may not" in str(error), error
        else:
            raise AssertionError(attempt.__name__)
    futures = client.map(inc, range(20))
    assert sum(client.gather(futures)) == 210
    assert client.submit(sum, futures).result(timeout=30) == 210
