"""The command line of our worker as managers and people use it."""

import os
import socket

import pytest

from harness.certificates import Authority, tls_configuration, write_configuration
from harness.cluster import Cluster
from harness.waiting import wait_for

RELEASE = "2026.8.0"


def range_of_ports(count):
    """The first of so many neighbours that are free. Each process that runs tests looks among ports of its own."""
    begin = 20_000 + os.getpid() % 100 * 100
    for first in range(begin, begin + 100 - count, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@pytest.fixture
def cluster(new_cluster):
    return new_cluster(RELEASE, workers=0)


def test_ports_are_shared_out(cluster):
    first = range_of_ports(8)
    options = ["--nworkers", "2", "--worker-port", f"{first}:{first + 3}", "--nanny-port", f"{first + 4}:{first + 7}"]
    worker = cluster.add_worker(native=True, nanny=True, options=options)
    wait_for(lambda: worker.text().count("Registered to") == 2, 30, "two workers")
    found = cluster.run("native_nanny.ports", 2)
    assert found == [[first, first + 4], [first + 1, first + 5]]


@pytest.mark.parametrize("nanny", [False, True])
def test_addresses_that_are_given(cluster, nanny):
    first = range_of_ports(2)
    listen, contact = f"tcp://0.0.0.0:{first}", f"tcp://localhost:{first}"
    options = ["--listen-address", listen, "--contact-address", contact, "--host", ""]
    worker = cluster.add_worker(native=True, nanny=nanny, options=options).wait_until_registered()
    assert worker.contact_address == contact
    cluster.run("workers.computes")


def test_the_scheduler_is_found_by_its_file(new_cluster, tmp_path):
    """The file may come later than the worker; `--death-timeout` bounds the wait."""
    file = tmp_path / "scheduler.json"
    cluster = new_cluster(RELEASE, workers=0)
    missing = cluster.add_worker(
        native=True,
        nanny=True,
        address="--no-dashboard",
        options=["--scheduler-file", file, "--death-timeout", "1s"],
    )
    assert missing.wait(15) == 1
    assert "scheduler.json is not there" in missing.text()
    late = cluster.add_worker(native=True, nanny=True, address="--no-dashboard", options=["--scheduler-file", file])
    file.write_text(f'{{"address": "{cluster.address}"}}')
    late.wait_until_registered()


def test_the_scheduler_is_found_by_the_environment(cluster):
    worker = cluster.add_worker(
        native=True, nanny=True, address="--no-dashboard", DASK_SCHEDULER_ADDRESS=cluster.address.removeprefix("tcp://")
    )
    worker.wait_until_registered()


@pytest.mark.parametrize("nanny", [False, True])
def test_the_file_with_the_process_id(cluster, tmp_path, nanny):
    file = tmp_path / "worker.pid"
    worker = cluster.add_worker(native=True, nanny=nanny, options=["--pid-file", file]).wait_until_registered()
    assert int(file.read_text()) == worker.pid
    worker.signal(15)
    assert worker.wait(10) == 0
    assert not file.exists()


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--nthreads", "1.8"], 2, "Invalid value for '--nthreads'"),
        (["--nworkers", "0"], 2, "at least one process"),
        (["--nworkers", "3", "--worker-port", "3000:3001"], 1, "Not enough ports in range"),
        (["--interface", "nope0", "--host", ""], 1, "no such network interface"),
        (["--worker-class", "their.own.Worker"], 1, "does not support --worker-class their.own.Worker"),
        (["--python", "/nowhere/python"], 1, "/nowhere/python can not be started"),
        (["--python", "/bin/false"], 1, "has no usable package 'distributed'"),
    ],
)
def test_mistakes_end_it_at_once_with_a_reason(cluster, options, code, text):
    worker = cluster.add_worker(native=True, nanny=True, options=options)
    assert worker.wait(10) == code
    assert text in worker.text()


def test_older_spellings(cluster):
    options = ["--no-bokeh", "--nprocs", "2", "--memory-limit", "0", "--nthreads", "1"]
    worker = cluster.add_worker(native=True, nanny=True, options=options)
    wait_for(lambda: worker.text().count("Registered to") == 2, 30, "two workers")
    assert "the --nprocs option has been renamed to --nworkers" in worker.text()


@pytest.mark.parametrize("stock", [False, True])
def test_encrypted_nannies(tmp_path, request, stock):
    authority = Authority(tmp_path)
    roles = {role: authority.issue(role) for role in ("scheduler", "worker", "client")}
    write_configuration(tmp_path, tls_configuration(authority.file, **roles))
    cluster = Cluster(tmp_path, RELEASE, workers=0, options=["--protocol", "tls"], stock=stock)
    request.addfinalizer(cluster.close)
    request.node.clusters = [cluster]
    cert, key = authority.issue("by-option")
    options = ["--tls-ca-file", authority.file, "--tls-cert", cert, "--tls-key", key]
    worker = cluster.add_worker(native=True, nanny=True, options=options).wait_until_registered()
    assert "Start Nanny at: 'tls://127.0.0.1:" in worker.text()
    cluster.run("native_nanny.restarts", 1)
    cluster.run("native_nanny.runs_in_the_nanny")


@pytest.mark.parametrize("stock", [False, True])
def test_nannies_of_2022(new_cluster, stock):
    cluster = new_cluster("2022.12.0", workers=0, stock=stock)
    workers = [cluster.add_worker(native=True, nanny=True) for _ in range(2)]
    for worker in workers:
        worker.wait_until_registered()
    cluster.run("native_nanny.restarts", 2)
    cluster.run("native_nanny.survives_a_kill", 2)
    workers[0].signal(15)
    assert workers[0].wait(10) == 0
