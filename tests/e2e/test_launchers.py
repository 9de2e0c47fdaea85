"""What systems around a cluster do to the scheduler, beyond starting it (docs/deployments.md)."""

import json
import urllib.request

import pytest

from harness.processes import Process, clean_environment
from harness.releases import python_of
from harness.waiting import wait_for

NEWEST = "2026.8.0"
BLOCKED = {"DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS": "['feed', 'run_function']"}


def test_questions_of_launchers(new_cluster, release):
    cluster = new_cluster(release, workers=0)
    for name in ("0", "word"):
        cluster.add_worker(name=name).wait_until_registered()
    cluster.run("launchers.names_keep_their_type")
    cluster.run("launchers.the_scheduler_is_asked_about_itself")
    cluster.run("launchers.nobody_is_retired_by_mistake")
    if cluster.version >= (2023, 3, 2):
        cluster.run("launchers.the_scheduler_tells_since_when_it_is_idle")
    cluster.check()


def test_workers_retired_by_name_end(new_cluster, release):
    cluster = new_cluster(release, workers=0)
    leaving, staying = [cluster.add_worker(name=name) for name in ("0", "word")]
    for worker in (leaving, staying):
        worker.wait_until_registered()
    cluster.run("launchers.workers_are_retired_by_name", 0)
    assert leaving.wait(30) == 0
    assert staying.alive
    cluster.check()


@pytest.mark.native_only
def test_the_operator_scales_down_over_http(new_cluster):
    """Stock leaves these routes out unless it is told otherwise, and then pods are deleted with their data."""
    cluster = new_cluster(NEWEST)
    url = f"http://127.0.0.1:{cluster.scheduler.dashboard_port}/api/v1/retire_workers"
    request = urllib.request.Request(url, data=b'{"n": 1}', headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        retired = json.load(answer)
    (worker,) = retired.values()
    assert worker["name"] in {worker.worker_name for worker in cluster.workers}
    assert cluster.run("configuration.works") is None


@pytest.mark.native_only
def test_several_subscribers_are_told_of_workers(new_cluster, release):
    """From 2021.9 on stock tells only the latest."""
    cluster = new_cluster(release, workers=1)
    call = cluster.start("launchers.subscribers_hear_of_workers", subscribers=3)
    assert call.told() == "subscribed"
    passing = cluster.add_worker()
    assert call.told(30) == "added"
    passing.stop()
    call.result(30)
    cluster.check()


def test_a_cluster_is_closed_by_its_launcher(new_cluster, release):
    cluster = new_cluster(release, workers=1)
    cluster.run("launchers.the_cluster_is_closed")
    assert cluster.scheduler.wait(20) == 0
    wait_for(lambda: not cluster.workers[0].alive, 30, "the end of the worker")


def test_what_prefect_blocks_is_blocked(new_cluster, release):
    cluster = new_cluster(release, workers=1, environment=BLOCKED)
    cluster.run("launchers.functions_are_refused")
    cluster.run("launchers.feeds_are_refused")
    cluster.run("configuration.works")
    cluster.check()


@pytest.mark.native_only
def test_the_secure_preset(new_cluster, release):
    cluster = new_cluster(release, workers=1, options=["--secure"])
    cluster.run("launchers.no_code_runs_in_the_scheduler")
    cluster.check()


def test_nannies_by_their_spec(new_cluster, release, tmp_path):
    """As `SSHCluster` and cloud providers start them: stock's module, which reads what is on stderr."""
    cluster = new_cluster(release, workers=0)
    python = python_of(release)
    spec = {"by-spec": {"cls": "dask.distributed.Nanny", "opts": {"nthreads": 1, "name": "by-spec"}}}
    words = [python, "-m", "distributed.cli.dask_spec", cluster.address, "--spec", json.dumps(spec)]
    nanny = Process(
        "nanny by spec", words, tmp_path / "spec.log", clean_environment(tmp_path, python), cwd=str(tmp_path)
    )
    cluster.processes.append(nanny)
    # Only who is registered has shown how peers of this release speak.
    nanny.wait_for_line(r"Registered to:")
    cluster.run("configuration.works")
    cluster.check()
