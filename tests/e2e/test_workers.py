"""Workers that die, leave, return and join while clients compute."""

import signal

import pytest

from harness.releases import NATIVE, RELEASES
from harness.waiting import wait_for

PEERS = [(release, "stock") for release in RELEASES] + [(release, "native") for release in NATIVE["native"]]


@pytest.fixture(params=PEERS, ids=["-".join(which).removesuffix("-stock") for which in PEERS])
def start(request, new_cluster):
    """Starts clusters of a release with workers of one kind: start(workers=…, …)."""
    release, kind = request.param

    def make(**options):
        cluster = new_cluster(release, native=kind == "native", **options)
        add = cluster.add_worker
        cluster.add_worker = lambda **words: add(native=kind == "native", **words)
        return cluster

    make.release = release
    return make


def worker_named(cluster, name):
    (worker,) = [worker for worker in cluster.workers if worker.worker_name == name]
    return worker


def test_a_worker_is_killed_during_a_computation(start):
    cluster = start(workers=3)
    call = cluster.start("workers.computes_through_a_kill")
    assert call.told() == "running"
    cluster.workers[0].signal(signal.SIGKILL)
    call.result(timeout=90)
    cluster.check()


def test_lost_results_are_recomputed(start):
    cluster = start()
    call = cluster.start("workers.recomputes_what_is_lost")
    name = sorted(call.told())[0]
    worker_named(cluster, name).signal(signal.SIGKILL)
    call.go_on()
    call.result()


def test_lost_data_without_a_recipe_is_reported(start):
    cluster = start()
    call = cluster.start("workers.scattered_data_is_lost_with_its_worker")
    worker_named(cluster, call.told()).signal(signal.SIGKILL)
    call.go_on()
    call.result()


def test_work_waits_for_the_first_worker(start):
    # A client of 2.23.0 – 2021.02 that comes first needs to be greeted in its own framing; nothing tells which it is.
    environment = {"DASK_OXIDASK__COMM__SILENT_PEER_FRAMING": "f1"} if start.release.startswith("2.30.1") else {}
    cluster = start(workers=0, environment=environment)
    call = cluster.start("workers.waits_for_a_worker")
    assert call.told() == "waiting"
    cluster.add_worker()
    call.result()


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_a_worker_without_a_nanny_may_say_so(new_cluster, release):
    """As `dask spec` starts it when it is told `nanny: false`."""
    new_cluster(release, workers=0).run("workers.a_worker_without_a_nanny_may_say_so")


@pytest.mark.parametrize("release", ["2022.12.0", "2026.8.0"])
def test_a_worker_may_call_itself_by_a_name(new_cluster, release):
    new_cluster(release, workers=0).run("workers.a_worker_may_call_itself_by_a_name")


def test_the_only_worker_dies_and_another_one_takes_over(start):
    cluster = start(workers=1)
    call = cluster.start("workers.computes_through_a_kill")
    assert call.told() == "running"
    cluster.workers[0].signal(signal.SIGKILL)
    cluster.add_worker()
    call.result(timeout=90)


def test_a_task_that_kills_workers_is_given_up(start):
    """One death more than `allowed-failures` raises KilledWorker at the client; other tasks are not harmed."""
    cluster = start(workers=2, nanny=True, environment={"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"})
    cluster.run("workers.a_deadly_task_is_given_up", 2, timeout=120)
    cluster.check()


def test_restart_with_nannies(start):
    cluster = start(nanny=True)
    cluster.run("workers.restart_gives_fresh_processes", timeout=90)
    cluster.check()


def test_a_nanny_brings_its_worker_back(start):
    cluster = start(nanny=True)
    cluster.run("workers.a_killed_worker_process_comes_back", timeout=90)
    cluster.check()


def test_a_worker_retires_with_its_data_moved(start):
    cluster = start()
    cluster.run("workers.retires")
    wait_for(lambda: sum(worker.alive for worker in cluster.workers) == 1, 20, "the end of the retired process")


def test_a_worker_that_joins_gets_work(start):
    cluster = start(workers=1)
    call = cluster.start("workers.new_workers_get_work")
    assert call.told() == "queued"
    cluster.add_worker()
    call.result(timeout=90)


def test_a_worker_that_is_asked_to_end_leaves(start):
    cluster = start(nanny=True)
    cluster.workers[0].signal(signal.SIGTERM)
    # On a busy machine 2.30.1 does not always get to its 0.
    assert cluster.workers[0].wait(20) == 0 or start.release == "2.30.1"
    cluster.run("workers.computes")


def test_resources(start):
    cluster = start(workers=1)
    cluster.add_worker(name="with-gpu", options=["--resources", "GPU=2"]).wait_until_registered()
    cluster.run("workers.resources_are_honoured", "with-gpu")


def test_a_frozen_worker_does_not_stop_others(start):
    cluster = start(workers=2, environment={"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "'3s'"})
    cluster.workers[0].signal(signal.SIGSTOP)
    cluster.run("workers.computes", timeout=60)
