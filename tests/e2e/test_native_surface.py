"""What users' code, plugins and preloads see of the native worker."""

import pathlib
import signal

import pytest

from harness.waiting import wait_for

PRELOAD = pathlib.Path(__file__).parent / "scenarios" / "native_preload.py"


@pytest.fixture(params=[("2026.8.0", False), ("2026.8.0", True), ("2022.12.0", False)])
def native(request, new_cluster):
    """A cluster with one native worker, under our scheduler and stock's, and its address."""
    release, stock = request.param
    cluster = new_cluster(release, workers=1, stock=stock, native=True)
    return cluster, cluster.workers[0].contact_address


def test_the_surface(native, tmp_path):
    cluster, address = native
    cluster.run("native_surface.plugins", address, str(tmp_path))
    cluster.run("native_surface.state", address)
    cluster.run("native_surface.looks_at_tasks", address)
    cluster.run("native_surface.profiles", address)
    cluster.run("native_surface.dumps", address)
    cluster.run("native_surface.metadata", address)
    cluster.run("native_surface.heartbeats", address)
    cluster.run("native_surface.fails_badly", address)
    cluster.check()
    assert "broken invariant" not in cluster.workers[0].text()


@pytest.mark.parametrize(
    ("release", "stock", "kinds"),
    [
        ("2026.8.0", False, ("native", "stock")),
        ("2026.8.0", True, ("native", "stock")),
        ("2022.12.0", False, ("native", "stock")),
        # Proves the scenarios.
        ("2026.8.0", False, ("stock", "stock")),
    ],
)
def test_what_plugins_see_of_tasks(new_cluster, release, stock, kinds):
    cluster = new_cluster(release, stock=stock, kinds=kinds)
    here, other = (worker.contact_address for worker in cluster.workers)
    cluster.run("native_surface.transitions_in_time", here)
    cluster.run("native_surface.startstops", here, other)
    cluster.check()


@pytest.mark.parametrize("kind", ["native", "stock"])
def test_imports_are_no_part_of_a_task(new_cluster, kind):
    cluster = new_cluster("2026.8.0", stock=True, kinds=(kind,))
    cluster.run("native_surface.heartbeats_of_slow_imports", cluster.workers[0].contact_address)


def test_preloads(new_cluster, tmp_path):
    cluster = new_cluster("2026.8.0", workers=0)
    torn_down = tmp_path / "torn-down"
    worker = cluster.add_worker(native=True, options=["--preload", PRELOAD], TORN_DOWN=str(torn_down))
    worker.wait_until_registered()
    greetings = cluster.run("native_surface.greetings")
    assert [greeting.startswith("set up with ") for greeting in greetings] == [True]
    worker.signal(signal.SIGTERM)
    wait_for(lambda: not worker.alive, 20, "the end of the worker")
    assert torn_down.read_text().startswith("set up with ")


def test_a_preload_that_fails_is_told_of(new_cluster, tmp_path):
    cluster = new_cluster("2026.8.0", workers=0)
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('broken on purpose')\n")
    worker = cluster.add_worker(native=True, options=["--preload", broken])
    assert worker.wait(30) == 1
    assert "broken on purpose" in worker.text()
