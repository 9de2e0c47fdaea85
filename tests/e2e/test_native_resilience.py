"""The native worker when things are short, gone, or at their end: memory, connections, the scheduler, itself."""

import signal
import socket

import pytest

from harness.certificates import Authority, tls_configuration, write_configuration
from harness.cluster import Cluster, Scheduler
from harness.proxy import Proxy
from harness.waiting import wait_for

RELEASE = "2026.8.0"


@pytest.fixture
def workers(new_cluster):
    """workers("native", "stock", stock=…, options=[…], **environment of the workers)."""

    def make(*kinds, release=RELEASE, stock=False, options=(), **environment):
        cluster = new_cluster(release, workers=0, stock=stock)
        cluster.workers = [
            cluster.add_worker(native=kind == "native", options=options, **environment) for kind in kinds
        ]
        for worker in cluster.workers:
            worker.wait_until_registered()
        return cluster

    return make


def memory(**fractions):
    return {f"DASK_DISTRIBUTED__WORKER__MEMORY__{name.upper()}": str(value) for name, value in fractions.items()}


@pytest.mark.parametrize("compression", ["auto", "zstd"])
def test_more_data_than_memory(workers, compression):
    limits = memory(target=0.1, spill=0.9, pause=0.95, spill_compression=compression)
    cluster = workers("native", options=["--memory-limit", "1 GiB"], threads=2, **limits)
    cluster.run("native_resilience.spills", 40, 8)
    cluster.run("native_resilience.keeps_what_can_not_be_pickled")
    assert "Failed to pickle" in cluster.workers[0].text()
    cluster.check()


@pytest.mark.parametrize("release", ["2022.12.0", RELEASE])
def test_spilling_under_the_stock_scheduler(workers, release):
    limits = memory(target=0.1, spill=0.9, pause=0.95)
    cluster = workers("native", release=release, stock=True, options=["--memory-limit", "1 GiB"], threads=2, **limits)
    cluster.run("native_resilience.spills", 40, 8)


def test_a_worker_that_is_full_pauses(workers):
    limits = memory(target=False, spill=False, pause=0.5)
    cluster = workers("native", "native", options=["--memory-limit", "800 MiB"], **limits)
    cluster.run("native_resilience.pauses", *(worker.contact_address for worker in cluster.workers))
    log = cluster.workers[0].text()
    assert "Pausing worker." in log and "Resuming worker." in log
    cluster.check()


@pytest.fixture
def encrypted(request, tmp_path):
    """Clusters whose every connection is encrypted: encrypted(stock=…)."""
    clusters = request.node.clusters = []
    authority = Authority(tmp_path / "authority")

    def make(stock):
        folder = tmp_path / "cluster"
        roles = {role: authority.issue(role) for role in ("scheduler", "worker", "client")}
        write_configuration(folder, tls_configuration(authority.file, **roles))
        cluster = Cluster(folder, RELEASE, workers=0, options=["--protocol", "tls"], stock=stock)
        clusters.append(cluster)
        return cluster, authority

    yield make
    for cluster in clusters:
        cluster.close()


@pytest.mark.parametrize("stock", [False, True])
def test_encrypted_connections(encrypted, stock):
    cluster, authority = encrypted(stock)
    cert, key = authority.issue("by-option")
    options = ["--tls-ca-file", authority.file, "--tls-cert", cert, "--tls-key", key]
    cluster.workers = [
        cluster.add_worker(native=True, options=options),
        cluster.add_worker(options=["--protocol", "tls"]),
    ]
    for worker in cluster.workers:
        worker.wait_until_registered()
    assert cluster.workers[0].contact_address.startswith("tls://")
    cluster.run("native_worker.computes", 2)
    cluster.run("native_worker.transfers", 2)
    cluster.run("native_worker.sees_the_worker", cluster.workers[0].contact_address)
    # Who speaks no TLS is not let in, and harms nobody.
    host, port = cluster.workers[0].contact_address.removeprefix("tls://").split(":")
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(b"\x00" * 64)
        plain.settimeout(10)
        # An alert, or nothing at all.
        assert len(plain.recv(64)) < 16
    cluster.run("native_worker.computes", 2)


def test_encryption_that_can_not_be_had(new_cluster):
    cluster = new_cluster(RELEASE, workers=0)
    worker = cluster.add_worker(native=True, options=["--protocol", "tls"])
    assert worker.wait(20) != 0
    required = cluster.add_worker(native=True, DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION="True")
    assert required.wait(20) != 0
    assert "encryption required" in required.text().lower()


@pytest.mark.parametrize(
    ("release", "stock"), [(RELEASE, False), (RELEASE, True), ("2022.12.0", False), ("2022.12.0", True)]
)
def test_a_connection_that_breaks_loses_nothing(new_cluster, release, stock):
    cluster = new_cluster(release, workers=0, stock=stock)
    proxy = Proxy(cluster.address)
    worker = cluster.add_worker(native=True, address=proxy.address)
    worker.wait_until_registered()
    running = cluster.start("native_resilience.holds", worker.contact_address)
    running.told()
    assert proxy.cut() > 0
    wait_for(lambda: worker.text().count("Registered to:") == 2, 20, "the second registration")
    running.go_on()
    running.result(60)
    assert worker.alive
    proxy.close()


def test_a_scheduler_that_comes_back(new_cluster):
    cluster = new_cluster(RELEASE, workers=1, native=True)
    worker = cluster.workers[0]
    cluster.run("native_resilience.works", 1)
    port = cluster.address.rpartition(":")[2]
    cluster.scheduler.signal(signal.SIGKILL)
    cluster.scheduler.wait(10)
    cluster.scheduler = Scheduler(cluster.folder, RELEASE, port=port)
    cluster.processes.insert(0, cluster.scheduler)
    cluster.scheduler.wait_until_listening()
    wait_for(lambda: worker.text().count("Registered to:") == 2, 20, "the second registration")
    for peer in cluster.peers:
        peer.stop()
    cluster.peers.clear()
    cluster.run("native_resilience.works", 1)


def test_leaving_with_the_data_in_good_hands(workers):
    cluster = workers("native", "native")
    ours, other = (worker.contact_address for worker in cluster.workers)
    running = cluster.start("native_resilience.hands_over", ours, other)
    running.told()
    cluster.workers[0].signal(signal.SIGTERM)
    assert cluster.workers[0].wait(20) == 0
    running.go_on()
    running.result(60)
    assert "Closing worker gracefully" in cluster.workers[0].text()


@pytest.mark.parametrize("stock", [False, True])
def test_leaving_when_there_is_nobody_else(workers, stock):
    """Nobody can take the data, so the worker does not wait for it."""
    cluster = workers("native", stock=stock)
    running = cluster.start("native_resilience.leaves_data")
    running.told()
    cluster.workers[0].signal(signal.SIGTERM)
    assert cluster.workers[0].wait(10) == 0


@pytest.mark.parametrize("stock", [False, True])
def test_a_nanny_ends_with_a_worker_that_was_told_to(new_cluster, stock):
    cluster = new_cluster(RELEASE, workers=0, stock=stock)
    first, second = [cluster.add_worker(native=True, nanny=True, options=["--death-timeout", "3s"]) for _ in range(2)]
    for worker in (first, second):
        worker.wait_until_registered()
    cluster.run("native_resilience.retires", first.worker_name)
    assert first.wait(20) == 0
    cluster.scheduler.signal(signal.SIGTERM)
    assert second.wait(20) == 0


def test_a_nanny_does_not_wait_for_ever_for_its_scheduler(new_cluster):
    cluster = new_cluster(RELEASE, workers=0)
    worker = cluster.add_worker(native=True, nanny=True, options=["--death-timeout", "2s"])
    worker.wait_until_registered()
    cluster.scheduler.signal(signal.SIGKILL)
    wait_for(lambda: not worker.alive, 30, "the end of the nanny")


@pytest.mark.parametrize("stock", [False, True])
def test_a_task_that_holds_the_interpreter(new_cluster, stock):
    environment = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "2s"}
    cluster = new_cluster(RELEASE, workers=0, stock=stock, environment=environment)
    worker = cluster.add_worker(native=True)
    worker.wait_until_registered()
    cluster.run("native_resilience.holds_the_interpreter", worker.contact_address, 6)
    if not stock:
        cluster.check()
