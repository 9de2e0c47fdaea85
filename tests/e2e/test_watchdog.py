"""The watchdog notices what stands still, asks the worker, and sets it right."""

import re
import urllib.request

import pytest


@pytest.mark.native_only
@pytest.mark.parametrize("release", ["2022.12.0", "2026.8.0"])
def test_a_task_that_its_worker_forgot_is_run_again(new_cluster, release, tmp_path):
    environment = {
        "DASK_OXIDASK__SCHEDULER__WATCHDOG_PATIENCE": "2s",
        "DASK_OXIDASK__SCHEDULER__WATCHDOG_DIRECTORY": str(tmp_path),
        # Both tasks are sent to the worker at once.
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "inf",
    }
    cluster = new_cluster(release, workers=1, environment=environment)
    cluster.run("watchdog.a_forgotten_task_is_run_again", timeout=120)
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.scheduler.dashboard_port}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    found = re.search(r'^oxidask_watchdog_examinations_total\{verdict="unknown"\} (\S+)$', metrics, re.MULTILINE)
    assert found and float(found[1]) == 1, metrics
    (dump,) = tmp_path.glob("oxidask-watchdog-*.rec")
    assert dump.read_bytes().startswith(b"oxidask-recording 2\n")
    assert "Watchdog: task 'waits' made no progress" in cluster.scheduler.text()
