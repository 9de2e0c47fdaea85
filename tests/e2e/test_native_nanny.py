"""Nannies of ours: worker processes that start, end, are replaced, and leave nothing behind."""

import os
import signal

import pytest

from harness.waiting import wait_for

RELEASE = "2026.8.0"
OURS, STOCK = "our scheduler", "stock scheduler"


@pytest.fixture
def nannies(new_cluster):
    """Starts a cluster with workers of ours under nannies: nannies(OURS, 2, options=[…])."""

    def make(scheduler=OURS, count=1, **options):
        cluster = new_cluster(RELEASE, workers=0, stock=scheduler == STOCK)
        cluster.workers = [cluster.add_worker(native=True, nanny=True, **options) for _ in range(count)]
        for worker in cluster.workers:
            worker.wait_until_registered()
        return cluster

    return make


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.parametrize("scheduler", [OURS, STOCK])
def test_restart(nannies, scheduler):
    cluster = nannies(scheduler, 2)
    cluster.run("native_nanny.restarts", 2)
    cluster.run("native_nanny.restarts_one", 2)
    cluster.check()


@pytest.mark.parametrize("scheduler", [OURS, STOCK])
def test_a_killed_process_is_replaced(nannies, scheduler):
    cluster = nannies(scheduler, 2)
    cluster.run("native_nanny.survives_a_kill", 2)
    texts = [worker.text() for worker in cluster.workers]
    assert any("was killed by signal 9 (SIGKILL), not by its nanny" in text for text in texts)
    assert any("Restarting worker" in text for text in texts)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("exit", "exited with status 3"), ("fault", "was killed by signal 11 (SIGSEGV)")],
)
@pytest.mark.parametrize("scheduler", [OURS, STOCK])
def test_a_task_that_ends_its_process(nannies, scheduler, how, reason):
    cluster = nannies(scheduler)
    cluster.run("native_nanny.is_killed", how)
    [worker] = cluster.workers
    assert worker.text().count(reason) == 4
    # The first death costs nothing, the next ones a little more each.
    assert "Restarting worker in 0.5 s" in worker.text()


def test_no_process_is_left_when_the_nanny_is_killed(nannies):
    cluster = nannies()
    [worker] = cluster.workers
    cluster.run("native_nanny.runs_in_the_nanny")
    # The worker, and the Python of the nanny itself.
    family = children(worker.pid)
    assert len(family) == 2
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, family)), 5, "the end of the nanny's children")


def test_a_process_without_a_moment_for_us_ends_with_its_nanny(nannies):
    cluster = nannies()
    [worker] = cluster.workers
    cluster.run("native_nanny.holds_the_interpreter", 60)
    [child] = children(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(child), 5, "the end of the worker")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_leaving(nannies, number):
    cluster = nannies()
    [worker] = cluster.workers
    [child] = children(worker.pid)
    worker.signal(number)
    assert worker.wait(10) == 0
    assert not is_alive(child)
    assert "killing" not in worker.text()


@pytest.mark.parametrize("scheduler", [OURS, STOCK])
def test_leaving_with_data(nannies, scheduler):
    cluster = nannies(scheduler, 2)
    leaving = cluster.workers[0]
    cluster.run("native_nanny.is_handed_over", leaving.worker_name, leaving.pid)
    assert leaving.wait(10) == 0


def test_leaving_together(nannies):
    """A signal for all processes of a group, as init programs of containers send it."""
    cluster = nannies()
    [worker] = cluster.workers
    cluster.run("native_nanny.runs_in_the_nanny")
    for pid in [*children(worker.pid), worker.pid]:
        os.kill(pid, signal.SIGTERM)
    assert worker.wait(10) == 0
    assert "was killed" not in worker.text()
    assert "Python process has ended" not in worker.text()


def test_memory(nannies):
    cluster = nannies(options=["--memory-limit", "300MB"], DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    cluster.run("native_nanny.exceeds_its_memory")
    assert "exceeded 95% memory budget. Restarting..." in cluster.workers[0].text()


def test_several_workers(nannies):
    options = ["--nworkers", "2", "--memory-limit", "1GB", "--name", "foo"]
    cluster = nannies(options=options)
    assert cluster.run("native_nanny.names", 2) == [["foo-0", 1, 10**9], ["foo-1", 1, 10**9]]
    [worker] = cluster.workers
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0


def test_a_numeric_name_is_a_number(nannies):
    cluster = nannies(options=["--name", "3", "--memory-limit", "0"])
    assert cluster.run("native_nanny.names", 1) == [[3, 1, 0]]


def test_lifetime(nannies):
    """A worker that has lived long enough leaves, and its nanny with it."""
    cluster = nannies(options=["--lifetime", "2s"])
    assert cluster.workers[0].wait(15) == 0


def test_lifetime_with_a_successor(nannies):
    cluster = nannies(options=["--lifetime", "3s", "--lifetime-restart"])
    [worker] = cluster.workers
    first = children(worker.pid)
    wait_for(lambda: worker.text().count("Registered to") >= 2, 15, "the next worker")
    assert children(worker.pid) != first


def test_death_timeout(new_cluster):
    cluster = new_cluster(RELEASE, workers=0)
    worker = cluster.add_worker(native=True, nanny=True, address="tcp://127.0.0.1:9", options=["--death-timeout", "1s"])
    assert worker.wait(15) == 1
    assert "no scheduler at tcp://127.0.0.1:9 within 1 s (--death-timeout)" in worker.text()


def test_the_schedulers_end(nannies):
    cluster = nannies()
    cluster.scheduler.signal(signal.SIGTERM)
    assert cluster.workers[0].wait(15) == 0


def test_python_of_the_nanny(nannies):
    nannies().run("native_nanny.runs_in_the_nanny")


@pytest.mark.parametrize("scheduler", [OURS, STOCK])
def test_plugins(nannies, scheduler, tmp_path):
    package = tmp_path / "package_of_the_test"
    package.mkdir()
    (package / "__init__.py").write_text("VALUE = 5\n")
    cluster = nannies(scheduler)
    cluster.run("native_nanny.has_plugins", str(package))
    # A nanny that comes later.
    cluster.workers[0].signal(signal.SIGTERM)
    assert cluster.workers[0].wait(10) == 0
    cluster.add_worker(native=True, nanny=True).wait_until_registered()
    found = cluster.run("native_nanny.variables", ["FROM_A_PLUGIN", "NOTED"])
    assert found == {"FROM_A_PLUGIN": "7", "NOTED": "set up"}


def test_variables_and_preloads(nannies, tmp_path):
    preload = tmp_path / "for_the_nanny.py"
    preload.write_text("def dask_setup(nanny):\n    nanny.env['PRELOADED'] = nanny.name\n")
    cluster = nannies(
        options=["--preload-nanny", str(preload), "--name", "foo"],
        DASK_DISTRIBUTED__NANNY__ENVIRON="{'A': 1}",
        MKL_NUM_THREADS="3",
    )
    names = ["A", "PRELOADED", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONHASHSEED"]
    assert cluster.run("native_nanny.variables", names) == {
        "A": "1",
        "PRELOADED": "foo",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "3",
        "PYTHONHASHSEED": "6640",
    }


def test_what_can_not_start_says_why(new_cluster, tmp_path):
    cluster = new_cluster(RELEASE, workers=0)
    broken = tmp_path / "broken.py"
    broken.write_text("raise ValueError('not today')\n")
    worker = cluster.add_worker(native=True, nanny=True, options=["--preload", str(broken)])
    assert worker.wait(15) == 1
    assert "not today" in worker.text()
    assert "Restarting worker" not in worker.text()
