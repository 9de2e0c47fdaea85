"""Python for what only Python can do: processes of the scheduler's own, connected peers, or none."""

import os
import signal
from pathlib import Path

import pytest

from harness.waiting import wait_for

pytestmark = pytest.mark.native_only

TIMEOUT = {"DASK_OXIDASK__PYTHON_HOST__TIMEOUT": "2s"}
DELEGATED = ["--python-host", "delegated"]
SCENARIOS = [
    "collections_are_computed",
    "functions_are_run",
    "functions_share_what_they_leave",
    "the_mirror_shows_tasks_and_workers",
    "the_mirror_is_read_only",
    "bars_follow_the_work",
    "feeds_send_values",
]


def run_all(cluster):
    for scenario in SCENARIOS:
        cluster.run(f"python_host.{scenario}")


def test_processes_of_the_scheduler(new_cluster, release):
    run_all(new_cluster(release, options=["--python-host", "local"]))


def test_nannies(new_cluster, release):
    run_all(new_cluster(release, options=DELEGATED, nanny=True))


def test_workers_without_nannies(new_cluster, release):
    run_all(new_cluster(release, options=DELEGATED))


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_none(new_cluster, release):
    cluster = new_cluster(release, workers=1, options=["--python-host", "off"])
    cluster.run("python_host.without_python")


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_a_graph_waits_for_a_peer_as_long_as_it_is_told(new_cluster, release):
    options = ["--python", "/bin/false"]
    cluster = new_cluster(release, workers=0, options=options, environment=TIMEOUT)
    assert 2 < cluster.run("python_host.no_python_is_told") < 20
    # Long enough for a worker to start on a busy machine.
    patient = {"DASK_OXIDASK__PYTHON_HOST__TIMEOUT": "60s"}
    cluster = new_cluster(release, workers=0, options=options, environment=patient)
    call = cluster.start("python_host.collections_are_computed")
    cluster.add_worker()
    call.result(60)


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_what_misbehaves_fails_alone(new_cluster, release):
    cluster = new_cluster(release, environment={"DASK_OXIDASK__PYTHON_HOST__TIMEOUT": "30s"})
    for scenario in ("a_crash_fails_one_graph", "a_hang_fails_one_graph", "an_error_of_the_graph_is_raised"):
        cluster.run(f"python_host.{scenario}")
    cluster.check()


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_what_misbehaves_at_a_nanny_fails_alone(new_cluster, release):
    timeout = {"DASK_OXIDASK__PYTHON_HOST__TIMEOUT": "30s"}
    cluster = new_cluster(release, options=DELEGATED, environment=timeout, nanny=True)
    for scenario in ("a_hang_fails_one_graph", "an_error_of_the_graph_is_raised"):
        cluster.run(f"python_host.{scenario}")


def test_clients_of_another_release_are_served_by_their_workers(new_cluster):
    """The scheduler's Python is that of the newest release."""
    cluster = new_cluster("2026.8.0", workers=1)
    cluster.add_worker("2022.12.0", nanny=True).wait_until_registered()
    older = cluster.peer("2022.12.0")
    older.run("python_host.collections_are_computed", cluster.address)
    older.run("python_host.functions_are_run", cluster.address)
    cluster.run("python_host.functions_are_run")


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_host_processes_end_with_the_scheduler(new_cluster, release):
    cluster = new_cluster(release, workers=0)
    pid = cluster.run("python_host.pid_of_host")
    cluster.start("python_host.is_busy_for_ever")
    os.kill(cluster.scheduler.popen.pid, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 10, "the end of the host process")


@pytest.mark.parametrize("release", ["2022.12.0", "2026.8.0"])
def test_an_idle_host_process_ends_unless_something_was_left_there(new_cluster, release):
    environment = {"DASK_OXIDASK__PYTHON_HOST__IDLE_TIMEOUT": "500ms"}
    cluster = new_cluster(release, workers=0, options=["--python-host", "local"], environment=environment)
    pid = cluster.run("python_host.pid_of_host")
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 15, "the end of the idle host process")
    cluster.run("python_host.what_is_left_keeps_its_process", 2)


@pytest.mark.parametrize("release", ["2022.12.0", "2026.8.0"])
def test_plugins(new_cluster, release):
    cluster = new_cluster(release, workers=1)
    workers = [cluster.run("plugins.plugins_are_told")]
    passing = cluster.add_worker().wait_until_registered()
    passing.stop()
    cluster.run("plugins.workers_are_told_of", workers)
    cluster.run("plugins.plugins_survive_their_process")
    cluster.run("plugins.plugins_are_taken_out")


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_plugins_choose_workers_to_close(new_cluster, release):
    cluster = new_cluster(release, workers=2)
    cluster.run("plugins.plugins_are_registered")
    cluster.add_worker(name="kept").wait_until_registered()
    cluster.run("plugins.plugins_choose_workers_to_close")


@pytest.mark.parametrize("release", ["2026.8.0"])
def test_plugins_without_python(new_cluster, release):
    cluster = new_cluster(release, workers=1, options=["--python-host", "off"])
    cluster.run("plugins.plugins_need_python")


@pytest.mark.parametrize("release", ["2022.12.0", "2026.8.0"])
def test_preloads(new_cluster, release):
    module = Path(__file__).parent / "scenarios" / "greeting_preload.py"
    options = ["--preload", str(module), "--greeting", "hello"]
    cluster = new_cluster(release, workers=1, options=options)
    assert list(cluster.run("plugins.preloads_are_set_up")) == ["hello", 1]
    cluster.scheduler.signal(signal.SIGTERM)
    cluster.scheduler.wait(30)
    assert (cluster.folder / "torn-down").read_text() == "hello"
