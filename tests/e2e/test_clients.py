"""Several clients at once, of one release and of different ones."""

import signal

import pytest

from harness.cluster import free_port
from harness.processes import resident_mib
from harness.releases import RELEASES


def test_two_clients_at_once(cluster):
    first, second = cluster.peer(), cluster.peer()
    calls = [
        first.start("clients.computes_in_rounds", cluster.address, 0),
        second.start("clients.computes_in_rounds", cluster.address, 1000),
    ]
    assert all(call.told() == "started" for call in calls)
    assert all(call.result() > 0 for call in calls)


def test_two_clients_share_a_key(cluster):
    cluster.run("clients.shares_a_key")


def test_a_client_that_dies_lets_go_of_its_futures(cluster):
    victim = cluster.peer()
    call = victim.start("clients.holds_a_future", cluster.address)
    assert call.told() == "held"
    assert cluster.run("clients.sees_the_held_key")
    victim.stop()
    cluster.run("clients.sees_the_held_key_vanish")


def test_a_client_within_an_event_loop(cluster):
    cluster.run("clients.asynchronous")


def test_clients_come_and_go(cluster):
    cluster.run("clients.leaves_and_returns")


def test_small_computations_go_on_during_a_large_graph(cluster):
    large, small = cluster.peer(), cluster.peer()
    small.run("clients.small_ones", cluster.address)
    call = large.start("clients.a_large_graph_and_a_small_one", cluster.address)
    assert call.told() == "submitting"
    small.run("clients.small_ones", cluster.address, timeout=120)
    call.result(timeout=150)


@pytest.mark.parametrize("limit", [None, "20MiB"])
def test_a_client_that_stops_reading(new_cluster, limit):
    """It holds up nobody, and gets what it missed; or, when too much waits for it, is given up and may come back."""
    environment = {} if limit is None else {"DASK_OXIDASK__COMM__MAX_QUEUED_BYTES": limit}
    cluster = new_cluster("2026.8.0", workers=1, environment=environment)
    slow, other = cluster.peer(), cluster.peer()
    count = 100
    call = slow.start("clients.hears_a_topic", cluster.address, 0 if limit else count)
    assert call.told() == "subscribed"
    slow.process.signal(signal.SIGSTOP)
    before = resident_mib(cluster.scheduler.pid)
    assert other.run("clients.logs_much", cluster.address, count, 1_000_000) < 5
    grown = resident_mib(cluster.scheduler.pid) - before
    slow.process.signal(signal.SIGCONT)
    call.go_on()
    assert call.result(timeout=60) == 2
    assert ("is given up: it does not read" in cluster.scheduler.text()) == bool(limit)
    # What everybody may ask for again (64 MiB), what waits, what is being written, and room for the allocator.
    assert grown < (200 if limit else 400), f"{grown} MiB"


def test_clients_are_told_of_the_end(new_cluster, release):
    cluster = new_cluster(release, workers=1)
    call = cluster.start("clients.is_told_of_the_end")
    assert call.told() == "connected"
    cluster.scheduler.signal(signal.SIGTERM)
    cluster.scheduler.wait(10)
    call.go_on()
    call.result(timeout=60)


@pytest.mark.native_only
def test_releases_at_once_on_one_scheduler(new_cluster):
    """Clients and workers of all three releases; each client's tasks go to workers of its release.

    Peers of 2.30.1 and of 2022.12.0 wait in silence to be greeted, each in its own framing; as all of them have the
    same address here, the older ones use the port that is for them.
    """
    port = free_port()
    cluster = new_cluster("2026.8.0", workers=0, environment={"DASK_OXIDASK__COMM__OLDER_PORT": str(port)})
    addresses = dict.fromkeys(RELEASES, cluster.address)
    addresses["2.30.1"] = f"tcp://127.0.0.1:{port}"
    for release, address in addresses.items():
        cluster.add_worker(release, name=f"of-{release}", address=address).wait_until_registered()
    peers = {release: cluster.peer(release) for release in RELEASES}
    for release, peer in peers.items():
        peer.run("clients.only_own_workers_run_it", addresses[release], release)
        peer.run("clients.collections_of_own_release", addresses[release])
    calls = [peer.start("clients.computes_in_rounds", addresses[release], 100) for release, peer in peers.items()]
    assert all(call.told() == "started" for call in calls)
    assert all(call.result(timeout=90) > 0 for call in calls)
    cluster.check()
